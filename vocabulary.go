package waggle

import "github.com/waggleq/waggle/driver"

// The states of a task.
const (
	Scheduled = driver.Scheduled
	Pending   = driver.Pending
	Available = driver.Available
	Active    = driver.Active
	Retryable = driver.Retryable
	Completed = driver.Completed
	Cancelled = driver.Cancelled
	Discarded = driver.Discarded
)

// The durability levels, weakest first.
const (
	DurabilityMemory     = driver.DurabilityMemory
	DurabilityDisk       = driver.DurabilityDisk
	DurabilityReplicated = driver.DurabilityReplicated
)

// When a unique key is free again, and what becomes of a task whose key is taken.
const (
	UntilDone    = driver.UntilDone
	UntilStarted = driver.UntilStarted
	UntilTTL     = driver.UntilTTL

	ConflictReturn  = driver.ConflictReturn
	ConflictReject  = driver.ConflictReject
	ConflictReplace = driver.ConflictReplace
)

// Which waiting task of a priority comes first, for [Client.SetOrder].
const (
	OrderFair     = driver.OrderFair
	OrderDeadline = driver.OrderDeadline
)

// Whether the tasks of a key run one after the other, for [Client.SetKeyMode].
const (
	KeysFree = driver.KeysFree
	KeysHold = driver.KeysHold
	KeysPass = driver.KeysPass
)

// What becomes of a new task whose queue is full, for [Client.SetBound].
const (
	FullRefuse     = driver.FullRefuse
	FullDropOldest = driver.FullDropOldest
	FullWait       = driver.FullWait
)

// What a worker can be told: see [Client.DirectWorker].
const (
	DirectServe = driver.DirectServe
	DirectQuiet = driver.DirectQuiet
	DirectStop  = driver.DirectStop
)

// The operations of [Client.Apply].
const (
	OpCancel = driver.OpCancel
	OpRetry  = driver.OpRetry
	OpRun    = driver.OpRun
	OpDelete = driver.OpDelete
)

// The encodings of payloads and results.
const (
	EncodingJSON = driver.EncodingJSON
	EncodingRaw  = driver.EncodingRaw
)

// KeepNone keeps no ended task: see [Keep].
var KeepNone = driver.KeepNone

// EventsFromNow makes [Client.Events] begin with what happens next.
const EventsFromNow = driver.EventsFromNow

// EventGap is the kind of an event that stands for events that were dropped before they could be read.
const EventGap EventKind = "gap"

// Defaults.
const (
	DefaultQueue       = driver.DefaultQueue
	DefaultMaxAttempts = driver.DefaultMaxAttempts
	DefaultCrashLimit  = driver.DefaultCrashLimit
	DefaultLease       = driver.DefaultLease
)
