package driver

import (
	"cmp"
	"encoding/json"
	"time"
)

// Filter selects records; an empty field selects all. All that are set must match.
type Filter struct {
	IDs    []string `json:"ids,omitzero"`
	States []State  `json:"states,omitzero"`
	Queues []string `json:"queues,omitzero"`
	Types  []string `json:"types,omitzero"`
	Tags   []string `json:"tags,omitzero"` // has all of them
	// Error is part of the text of the last error of a task that did not complete, in upper or lower case. With AnyError any of
	// its errors will do, and it may have completed.
	Error    string    `json:"error,omitzero"`
	AnyError bool      `json:"any_error,omitzero"`
	After    time.Time `json:"after,omitzero"`  // enqueued at or after
	Before   time.Time `json:"before,omitzero"` // enqueued before
	// All has an operation take every task where nothing else is set: without it, a filter that selects nothing in particular
	// is refused. Lists have no use for it.
	All bool `json:"all,omitzero"`
}

// Page asks for one page of a list.
type Page struct {
	Cursor string // from the page before; empty: the first
	Size   int    // 1…[MaxPage]; 0: 100
}

// RecordPage is one page of records.
type RecordPage struct {
	Records []*Record
	Next    string // cursor of the next page; empty: this was the last
}

// QueueInfo is a queue with its figures.
type QueueInfo struct {
	Name   string
	Config QueueConfig
	Counts map[State]int // every state has an entry
	// Types are the types with tasks that have not ended, sorted by name.
	Types []TypeInfo
	// OldestAvailable is when the longest waiting available task became available; zero if there is none.
	OldestAvailable time.Time
	// Totals count since the queue exists. Enqueued + Retried = Completed + Cancelled + Discarded + what is not ended
	// + DeletedLive.
	Totals Totals
	// Limits are those of Config with what counts against them, in the same order.
	Limits []LimitInfo
	// Parked are the available tasks that can't start just now, because of a limit or because of an ordered key. A task that was
	// behind one of its key that has expired, or whose key's rate has let it start meanwhile, may be counted until a worker or
	// Maintain has seen to it.
	Parked int
	// Damaged says that what is stored of the queue does not match its checksum: nothing above is certain. It takes and gives
	// out no tasks, with [ErrCorrupt], until Audit has repaired it; tasks of it that run can end.
	Damaged bool
}

// LimitInfo is a limit and what counts against it.
type LimitInfo struct {
	Limit
	Held int // active tasks that it concerns, of all keys together
}

// TypeInfo counts the tasks of one type in a queue.
type TypeInfo struct {
	Type   string
	Counts map[State]int // states with none may be missing
}

// Totals are counts over a queue's life.
type Totals struct {
	Enqueued    int64 `json:"enqueued"`     // tasks accepted
	Retried     int64 `json:"retried"`      // ended tasks made available again by OpRetry
	Completed   int64 `json:"completed"`    // ends, by kind
	Cancelled   int64 `json:"cancelled"`    //
	Discarded   int64 `json:"discarded"`    //
	Failed      int64 `json:"failed"`       // attempts settled with Retry, whatever became of the task
	Crashed     int64 `json:"crashed"`      // claims that ended with their worker's death
	DeletedLive int64 `json:"deleted_live"` // tasks deleted before they ended
}

// Retention says how long ended tasks are kept.
type Retention struct {
	Completed Keep `json:"completed"`
	Cancelled Keep `json:"cancelled"`
	Discarded Keep `json:"discarded"`
}

// Keep bounds the ended tasks of one state in a queue: the oldest go first, as soon as one bound is passed. An engine with
// several shards shares Count and Bytes out among them in equal parts, rounded up: where more of the tasks, or the large
// ones, are in one shard, fewer are kept than the bounds say, and up to one a shard more where they are not. Choose Bytes
// so that a shard's part holds the largest result.
//
// The zero value of a field stands for what the queue has already, which in a new queue is [DefaultRetention]: a patch
// that sets Age alone changes the age alone. That none are kept is said in words, with None.
type Keep struct {
	Age   time.Duration `json:"age,omitzero"`   // since they ended
	Count int           `json:"count,omitzero"` // -1: unbounded
	Bytes int64         `json:"bytes,omitzero"` // of payloads and results; -1: unbounded
	None  bool          `json:"none,omitzero"`  // none are kept; the other fields are 0
}

// KeepNone keeps no ended task.
var KeepNone = Keep{None: true}

// UnmarshalJSON implements [encoding/json.Unmarshaler]. A bound that is given as 0 keeps none.
func (k *Keep) UnmarshalJSON(b []byte) error {
	var v struct {
		Age   *time.Duration
		Count *int
		Bytes *int64
		None  bool
	}
	if err := json.Unmarshal(b, &v); err != nil {
		return err
	}
	if v.None || v.Age != nil && *v.Age == 0 || v.Count != nil && *v.Count == 0 || v.Bytes != nil && *v.Bytes == 0 {
		*k = KeepNone
		return nil
	}
	*k = Keep{}
	assign(&k.Age, v.Age)
	assign(&k.Count, v.Count)
	assign(&k.Bytes, v.Bytes)
	return nil
}

// over returns the bounds that k changes now to; unset is what stands in for those that neither has.
func (k Keep) over(now, unset Keep) Keep {
	switch {
	case k.None:
		return KeepNone
	case k == Keep{}:
		return now
	case now.None:
		now = unset
	}
	return Keep{Age: cmp.Or(k.Age, now.Age), Count: cmp.Or(k.Count, now.Count), Bytes: cmp.Or(k.Bytes, now.Bytes)}
}

// Over returns the retention that r changes now to: a zero field of r leaves what is there.
func (r Retention) Over(now Retention) Retention {
	d := DefaultRetention()
	return Retention{
		Completed: r.Completed.over(now.Completed, d.Completed),
		Cancelled: r.Cancelled.over(now.Cancelled, d.Cancelled),
		Discarded: r.Discarded.over(now.Discarded, d.Discarded),
	}
}

// DefaultRetention is what a new queue has.
func DefaultRetention() Retention {
	long := Keep{Age: 30 * 24 * time.Hour, Count: -1, Bytes: -1}
	return Retention{Completed: Keep{Age: time.Hour, Count: 10_000, Bytes: -1}, Cancelled: long, Discarded: long}
}

// Of returns the bounds for an ended state.
func (r Retention) Of(s State) Keep {
	switch s {
	case Completed:
		return r.Completed
	case Cancelled:
		return r.Cancelled
	default:
		return r.Discarded
	}
}

// Validate returns [ErrInvalid] if a bound is out of range.
func (r Retention) Validate() error {
	for _, s := range []State{Completed, Cancelled, Discarded} {
		k := r.Of(s)
		if k.Age < 0 || k.Age > 100*365*24*time.Hour {
			return Invalidf("retention of %s tasks: the age must be between 0 and 100 years, got %v", s, k.Age)
		}
		if k.None && k != KeepNone {
			return Invalidf("retention of %s tasks: none are to be kept, and bounds are given", s)
		}
		if k.Count < -1 || k.Bytes < -1 {
			return Invalidf("retention of %s tasks: count and bytes must be -1 (unbounded) or more, got %d and %d", s, k.Count, k.Bytes)
		}
	}
	return nil
}

// Op is an operation of Apply.
type Op string

// The operations: see Maintainer.Apply.
const (
	OpCancel Op = "cancel"
	OpRetry  Op = "retry"
	OpRun    Op = "run"
	OpDelete Op = "delete"
)

// From returns the states in which an operation is defined. See Maintainer.Apply for OpRetry by a filter.
func (o Op) From() []State {
	switch o {
	case OpCancel:
		return []State{Scheduled, Pending, Available, Active, Retryable}
	case OpRetry:
		return []State{Completed, Cancelled, Discarded}
	case OpRun:
		return []State{Scheduled, Pending, Retryable}
	case OpDelete:
		return []State{Scheduled, Pending, Available, Retryable, Completed, Cancelled, Discarded}
	}
	return nil
}

// Change is an operation on tasks: on IDs if there are any, else on those that match Filter.
type Change struct {
	Op     Op
	IDs    []string
	Filter Filter // where there are no IDs; it has to select something, see Filter.All
	Cursor string // with Filter: where to go on, see ChangeResult.Next; empty: at the beginning
	Max    int    // at most this many tasks; 0: [MaxApply]
	DryRun bool
}

// ChangeResult is what an operation did.
type ChangeResult struct {
	Changed int     // tasks changed or, for an active task, asked to cancel; with DryRun: that would be
	Errors  []error // with IDs: parallel to them; else nil
	More    bool    // with a filter: Max was reached and more may match
	// Next is the cursor with which the same operation goes on where this one ended, so that no task is looked at again.
	// It is set if and only if More is.
	Next string
}

// MaintainResult counts what Maintain did.
type MaintainResult struct {
	Promoted  int // scheduled and retryable tasks that became available
	Expired   int // available tasks that were discarded
	Recovered int // tasks taken from dead workers, whatever became of them
	Pruned    int // ended tasks removed
	Plans     int // ended plans removed
	More      bool
}

// Finding is one thing that Audit found out of order.
type Finding struct {
	Kind     string `json:"kind"` // a short fixed name, such as "orphan-index"
	ID       string `json:"id,omitzero"`
	Detail   string `json:"detail"`
	Repaired bool   `json:"repaired"`
}

// StoreInfo is what a store says of itself.
type StoreInfo struct {
	Engine      string    `json:"engine"`
	Version     string    `json:"version"`     // of the server or library
	Incarnation string    `json:"incarnation"` // random, made when the store was created: a store that came back empty has another
	Schema      int       `json:"schema"`      // version of the stored format
	Now         time.Time `json:"now"`
	Bytes       int64     `json:"bytes"`    // used on disk or in memory; 0: unknown
	Warnings    []string  `json:"warnings"` // what an operator should know, in sentences
}

// EventQuery asks for events.
type EventQuery struct {
	After string        // a cursor; "" : from the oldest that is kept; [EventsFromNow]: only new ones
	Max   int           // at most this many; 0: 1000
	Wait  time.Duration // how long to wait for the first
}

// EventsFromNow is the cursor behind the newest event. A query with it and no Wait returns that cursor in Next.
const EventsFromNow = "now"

// EventPage is a run of events.
type EventPage struct {
	Events []Event
	Next   string // the cursor behind the last of them, or the one that was asked for
	Gap    bool   // events after the cursor were dropped before they were read
}

// Event tells of one change.
type Event struct {
	Time   time.Time `json:"time"`
	Kind   EventKind `json:"kind"`
	ID     string    `json:"id,omitzero"` // of the task
	Queue  string    `json:"queue,omitzero"`
	Type   string    `json:"type,omitzero"`
	Worker string    `json:"worker,omitzero"`
	Reason Reason    `json:"reason,omitzero"` // why the task was discarded or cancelled
}

// EventKind is what happened: a task's new [State], or one of the kinds below.
type EventKind string

// The kinds that are no states.
const (
	EventProgress     EventKind = "progress"      // a task reported progress or log lines
	EventDeleted      EventKind = "deleted"       // a task was deleted by a person (not: pruned)
	EventQueueChanged EventKind = "queue_changed" // a queue's configuration changed
	EventQueueDeleted EventKind = "queue_deleted" // a queue that held nothing was removed
	EventWorkerJoined EventKind = "worker_joined"
	EventWorkerLeft   EventKind = "worker_left" // unregistered
	EventWorkerLost   EventKind = "worker_lost" // its lease ran out and its tasks were recovered
)
