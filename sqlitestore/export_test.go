package sqlitestore

import "sync/atomic"

// CountSteps has a store that is opened with these options count the steps of its statements.
func CountSteps(o *Options, n *atomic.Int64) { o.steps = n }
