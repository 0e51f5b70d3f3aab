// Package stepping lets package waggletest run a worker's handlers one task at a time, without that being something an
// application could do: package waggle puts the function in, waggletest calls it.
package stepping

import (
	"context"

	"github.com/waggleq/waggle/driver"
)

// Step runs the tasks of a store that are available to a worker (a *waggle.Worker), one after another on the calling
// goroutine, at most limit of them. It returns how many have run.
var Step func(ctx context.Context, worker any, store driver.Store, limit int) (int, error)
