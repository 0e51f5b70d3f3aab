// Package driver is the contract between Waggle and its storage engines.
//
// A [Store] keeps tasks from the moment they are accepted until they end. It decides everything that has to be decided
// once: which worker holds a task, whether a result is still welcome, when a task is due, which tasks died with their
// worker. Workers decide nothing about each other and keep nothing on disk.
//
// The path of a task is one way: a client calls Enqueue; a worker calls Fetch, runs a handler, and calls Settle. The
// doc comments of this package are the contract, in sentences that the conformance suite (package drivertest) checks
// on every engine. Applications import package waggle, never this one.
//
// # Rules for every method
//
//   - All methods may be called concurrently.
//   - A method that returns an error other than a per-item one has changed nothing, unless the error wraps
//     [ErrUnavailable], [ErrNotDurable] or a context error: then the outcome is unknown, and the method's comment says
//     how to find out or why calling it again is safe.
//   - Engines must not retain or modify slices and maps that they were given after the call returns, except where a
//     comment says so; callers own what is returned to them.
//   - Batches are the primitive: results are parallel to the items, one item's failure never affects another item.
//   - There is one clock, the store's. Times have millisecond precision and are in UTC. Durations handed to a store are
//     counted from the store's present.
//   - A task never starts before its time.
//   - What decides and what is shown is the state at the store's present, see [StateAt]: a scheduled or retryable task
//     that is due is available, and an available one that has expired is discarded and owns no unique key any more (but
//     under [UntilTTL]), for Get, List, Queues, Enqueue and Apply alike, though no worker has come by to promote or
//     discard it. Its event tells of it when somebody does.
//   - After Close every method returns [ErrClosed].
package driver

import (
	"context"
	"time"
)

// Store is a storage engine. See the package comment for the rules that hold for all its methods.
type Store interface {
	Enqueuer
	Fetcher
	Settler
	Inspector
	Maintainer
	Planner

	// Capabilities tells what this engine offers. It returns the same value for the life of the store, without I/O.
	Capabilities() Capabilities

	// Close releases what the store holds on this machine. Calls under way return with their result or with
	// [ErrClosed]. Tasks, leases and registrations in the store are left as they are. A second Close returns nil.
	Close() error
}

// Enqueuer accepts tasks.
type Enqueuer interface {
	// NewID returns an id for a task that is about to be enqueued, without I/O; of the task only Queue, Type, Key and Unique are
	// looked at. Whoever wants to know a task's id before it is stored, so that the call can be repeated, should take it from here: a
	// store that is spread over shards places a task by its id, and makes one by which the task is where its key, its unique
	// key or the limits of its queue are kept. Any other id will do, and costs more there.
	NewID(t *Task) string

	// Enqueue stores new tasks. Every task first passes [Prepare]; one that fails it gets that error in its result.
	//
	// A task without an ID is given one, written to Task.ID before anything is stored, so that a caller who gets an
	// error can call again with the same tasks; an ID that is set is only read. A task whose ID the store already knows, in any state, is left alone:
	// the result names the stored state and has Existing set. So enqueueing the same ids again is always safe.
	//
	// Later tasks of a call see what earlier ones did: the results are those of storing them one after the other.
	//
	// All tasks of a call that are accepted become visible in one atomic step on each shard. An accepted task is
	// stored at the durability level of its result, which is never below the level asked for; a level that was not
	// reached is [ErrNotDurable] for the whole call, with unknown outcome. A level that the engine does not offer (see
	// [Capabilities]) is [ErrUnsupported] with nothing stored.
	//
	// The state of an accepted task is pending if Hold is set, else
	// scheduled if its time is in the store's future, else available. Available tasks wake idle workers: see Await.
	//
	// What was there before comes first: an existing id is found even while its queue is draining, and a draining queue
	// refuses before a unique key is looked at. A unique key kept by [UntilTTL] whose owner was removed names the owner
	// with an empty State.
	//
	// Per task: [ErrInvalid], [ErrDuplicate] (unique key taken, OnConflict reject), [ErrQueueClosed] (the queue is
	// draining), [ErrQueueFull] as a [QueueFullError] (the queue's bound, see [Bound]), [ErrUnsupported] (a field that needs a
	// capability this engine lacks). No task of a call is stored above its queue's bound; engines with several shards read the
	// length of a bounded queue before they store, so that calls that are under way at the same time can exceed the bound by what they bring,
	// each by at most its own tasks. A task that its queue's
	// configuration can't take (see [QueueConfig.Admits]) is ErrInvalid. For the call: [ErrInvalid]
	// (more than Limits.MaxBatch tasks or MaxBatchBytes), [ErrUnsupported] (the durability level), [ErrStoreFull],
	// [ErrUnavailable], [ErrNotDurable].
	Enqueue(ctx context.Context, tasks []*Task, opts EnqueueOptions) ([]EnqueueResult, error)
}

// Fetcher hands tasks to workers under leases.
//
// A lease belongs to a worker, not to a task: one renewal covers all it holds. A worker id is used for one life: once
// the store has recovered a worker's tasks (its lease ran out) or the worker has unregistered, every call with that id
// returns [ErrLeaseLost], and the worker, if it is still there, registers again under a new id. Settle and Report give
// the error to each item instead, as their comments say.
type Fetcher interface {
	// Register makes a worker known and starts its lease. Registering an id that is alive updates what is known of it
	// and renews the lease, so it may be repeated. Returns [ErrInvalid] for an empty id or a lease under [MinLease], and
	// ErrLeaseLost for an id whose life is over (engines remember the last 1000 of them at least).
	Register(ctx context.Context, w WorkerInfo, lease time.Duration) error

	// Fetch claims up to Max available tasks for a worker, and renews its lease.
	//
	// Claimed tasks are active and held by this worker under a token that is greater than every earlier token of the
	// same task. Queues are served in the order of the request: tasks of the second come only when the first gave
	// fewer than Max. Within a queue the declared types are served as one, by priority (lower first), then by order of
	// becoming available; a task that was given back (released, or its worker died) keeps its old place. Engines with
	// several shards (see [Capabilities].Ordered) promise the order between queues over all of them, and the order within a
	// queue in each: a worker that has found more urgent tasks in one shard claims those first, and looks at all shards
	// five times a second. Tasks of types that were not
	// declared are not touched and cost nothing; a nil Types declares all. Paused queues give nothing.
	//
	// Where tasks of a queue have keys, those of one priority are shared out between the keys by weight, each key's in the order of
	// becoming available: see [TagServed] for the rule and its bounds. Engines with several shards share out within a
	// shard, and all tasks of a key are in one. A queue can be ordered otherwise: see [Order] and [KeyMode]. No claim
	// exceeds a [Limit] of its queue, whoever else claims at the same time; what a limit holds back is not counted in More, and
	// NextDue tells when a rate lets the next one start. Freeing a slot of a limit wakes a worker as a new task does.
	//
	// Before claiming, Fetch promotes tasks of the declared pairs that are due (in the order of their times), discards declared tasks whose expiry
	// has passed, recovers workers whose lease has run out (see Maintain), and prunes what is beyond retention, plans among
	// it if it asks for any; each
	// step is bounded per call, so that no call takes long.
	//
	// An engine with several shards need not ask all of them for one call. Where it has not, FetchResult.LeaseEnd is zero: then
	// the lease is renewed in part only and ends as it would have without the call; and More is set, unless the worker has
	// found nothing in the others lately and was not woken for them. So
	// may a call with Wait, of any engine, that has found nothing to do when the wait was over: it need not write anything.
	//
	// With Wait it first waits as Await does ForWork, at most for so long, and then does all this in any case; as there,
	// the wait may end in vain. An engine for which a round trip is dear has both in one. If ctx ends during the wait, the error is the context's and the claims may have happened.
	//
	// A Fetch with Max 0 claims nothing and does the rest. If a reply was lost, the claims may have happened: call
	// Held, never assume.
	//
	// Returns [ErrLeaseLost] if the worker is not registered, with nothing claimed.
	Fetch(ctx context.Context, req FetchRequest) (*FetchResult, error)

	// Heartbeat renews a worker's lease, at a cost that does not depend on how many tasks it holds, and returns the
	// claims it holds whose cancellation was asked for (each until it is settled), and what it was told by Direct. A lease
	// that has run out but was not recovered yet is renewed. Returns [ErrLeaseLost] if the worker is not registered.
	Heartbeat(ctx context.Context, worker string, lease time.Duration) (*HeartbeatResult, error)

	// Held returns everything the worker holds. A worker calls it after a Fetch whose reply was lost, and runs or
	// releases the claims it did not know of. Returns [ErrLeaseLost] if the worker is not registered.
	Held(ctx context.Context, worker string) ([]Claim, error)

	// Await blocks until there may be something to do, until req.Max has passed, or until ctx ends. It returns nil in
	// the first two cases: a return is a hint, never a promise, and hints may be lost, so callers set Max.
	//
	// With ForWork it waits for work in the declared pairs: one task that becomes available wakes one waiting worker,
	// and a Fetch that leaves work behind wakes the next. Work that was there before the call wakes it at once. Tasks
	// that become due are not signalled: FetchResult.NextDue tells when to look, and a task that is due sooner than all
	// others of its pair wakes a worker too, be it new, a retry or snoozed, so that somebody knows. A wait whose Max ends
	// when a Fetch before has said that the next task is due ends within a few milliseconds of it. With ForControl it waits until a cancellation
	// is asked for something this worker holds, or it is told something by Direct; what was there before the call wakes it
	// at once, unless a Heartbeat has delivered it.
	Await(ctx context.Context, req AwaitRequest) error

	// Unregister ends a worker's life: what it still holds goes back to available, to its old place, with no attempt
	// spent, no crash counted and no entry in its history; what was to be cancelled ends as cancelled. An unknown worker
	// is no error.
	Unregister(ctx context.Context, worker string) error
}

// Settler ends attempts.
type Settler interface {
	// Settle ends attempts with their outcomes; each settlement is one atomic step together with all that depends on
	// it (result, history, unique key, counters, event).
	//
	// A settlement is accepted only if the worker holds the task under that token; otherwise its error is
	// [ErrLeaseLost] and nothing changes. Settling again with a token whose settlement was accepted changes nothing
	// and has a nil error, as long as the task was neither claimed again nor removed since; so a Settle whose reply was
	// lost is simply repeated. It is accepted from a worker whose lease has run out if nobody has recovered the task.
	//
	// Outcomes: [Complete]; [Retry], which becomes discarded with [ReasonAttempts] when the failures reach MaxAttempts, the
	// settlement's or else the task's;
	// [Snooze] (scheduled, no attempt spent); [Release] (available at its old place, no attempt spent); [Discard];
	// [CancelOutcome]. If cancellation was asked for, every outcome but Complete and Discard ends as cancelled. Every
	// settlement leaves an entry in the task's history, but for a Release of what had not begun (Settlement.Unbegun). The
	// entry of an attempt that discarded its task has the reason, and that of a last failure the outcome Discard.
	//
	// The result of an item tells the state that the task has come to by it, and the reason of one that was discarded or
	// cancelled; of a repeat, the state and the reason that the task has at that moment.
	//
	// Errors per item: ErrLeaseLost, [ErrInvalid] (unknown outcome, negative delay or MaxAttempts, a result over the limit), with
	// nothing changed for that item.
	Settle(ctx context.Context, worker string, items []Settlement) ([]SettleResult, error)

	// Report stores progress and log lines of running tasks, fenced like Settle: [ErrLeaseLost] where the worker does
	// not hold the task under that token. Log lines are capped to the newest [MaxLogBytes] a task, the note of a
	// progress to [MaxErrorBytes]. Progress that is no finite number and a line whose time is not of the years 1 to 9999
	// are [ErrInvalid]; nothing of that report is stored.
	Report(ctx context.Context, worker string, items []Report) ([]error, error)
}

// Inspector answers questions. Its methods change nothing, except that they may make up for lazily kept figures.
type Inspector interface {
	// Get returns the records of the given ids, parallel to them, nil where there is none.
	Get(ctx context.Context, ids []string) ([]*Record, error)

	// List returns one page of the records that match a filter. A record that exists throughout the iteration and does
	// not change its state during it appears exactly once. Engines with one shard return the newest first, by the
	// order of enqueueing. An unknown or foreign cursor is [ErrInvalid].
	List(ctx context.Context, f Filter, page Page) (*RecordPage, error)

	// Queues returns all queues that have a configuration or ever held a task, sorted by name, with exact counts. With names
	// it returns those of them alone, at a cost that does not depend on the others.
	Queues(ctx context.Context, names ...string) ([]QueueInfo, error)

	// Workers returns the registered workers, sorted by id, with the number of tasks that each holds.
	Workers(ctx context.Context) ([]WorkerStatus, error)

	// Events returns events after a cursor, oldest first, and the cursor to go on from. If there are none it waits up
	// to q.Wait for the first. Events are kept in a bounded log: if some after the cursor are gone, Gap is set and the
	// oldest that are left follow. The event of a change becomes visible with the change or later, never before. An engine
	// with several shards keeps a log in each, and orders what it finds in them by time.
	Events(ctx context.Context, q EventQuery) (*EventPage, error)

	// Info returns facts on the store, among them its clock and size.
	Info(ctx context.Context) (*StoreInfo, error)
}

// Maintainer changes what is stored, and keeps it in order.
type Maintainer interface {
	// Apply does an operation on tasks, by id or by filter; with DryRun it only counts. A filter takes at most c.Max of
	// them (0: [MaxApply]), and is meant to be applied again while More is set, with Next as its Cursor: then all calls
	// together look at each task once, so their cost grows with the number of tasks and no faster. A cursor of another list
	// or store is [ErrInvalid].
	//
	//   - [OpCancel]: scheduled, retryable, pending and available tasks become cancelled; of an active task the
	//     cancellation is asked for, delivered by Heartbeat, and it ends as cancelled unless its handler completes or
	//     discards it first. Asking again changes nothing: nil by id, not matched by a filter.
	//   - [OpRetry]: completed, cancelled and discarded tasks become available, at the end of the line, with their
	//     failure and crash counts back at 0, their result removed and their history kept. A unique-until-done task takes its key again, or
	//     fails with [ErrDuplicate].
	//   - [OpRun]: scheduled, retryable and pending tasks become available now.
	//   - [OpDelete]: tasks in any state but active are removed.
	//
	// With a filter that names no states, OpRetry takes cancelled and discarded tasks only: what is done is not done again
	// unless Completed is named.
	//
	// With ids: an id that does not exist is [ErrNotFound] in the result, a task in a state for which the operation is
	// not defined is [ErrState]. With a filter such tasks are not matched.
	Apply(ctx context.Context, c Change) (*ChangeResult, error)

	// SetQueue changes the configuration of a queue, creating the queue if needed. Nil fields stay as they are. Of two calls
	// at the same time one comes after the other and changes what the first has made, in every shard alike; a call that did
	// not get to all shards is made good by Maintain.
	// Resuming wakes idle workers. Limits hold from then on for every claim, also where more is active than they allow.
	// Returns the configuration after the change, [ErrInvalid], [ErrUnsupported], or [ErrState] for a new Order while
	// tasks are available.
	SetQueue(ctx context.Context, queue string, patch QueuePatch) (*QueueConfig, error)

	// DeleteQueue removes a queue that holds no tasks, with its configuration and its totals. A later task or setting
	// makes it anew, with the default configuration. Returns [ErrNotFound] if there is no such queue and [ErrState] if it
	// holds tasks, in whatever state, with nothing changed. With several shards a task that is accepted during the call
	// is in the queue that it makes anew.
	DeleteQueue(ctx context.Context, queue string) error

	// Direct tells a worker to be quiet, to stop or to serve again. Its heartbeats deliver it, and Workers shows it, until
	// it is told otherwise or its life ends; a store does nothing about it itself. Telling it the same again changes
	// nothing and is delivered anew. Returns [ErrNotFound] if the worker is not registered, [ErrInvalid] for an unknown
	// directive, and [ErrState] for any but DirectStop after that. Safe to repeat when the outcome is unknown.
	Direct(ctx context.Context, worker string, d Directive) error

	// Maintain does, for all queues and types, what Fetch does for its own: promotes what is due, discards what has
	// expired, prunes what is beyond retention, removes plans whose Expires has passed, and recovers the tasks of workers whose lease has run out: those go
	// back to available at their old place, with no attempt spent and one crash counted, or end as discarded with
	// [ReasonCrashes] when the crashes reach CrashLimit; if cancellation was asked for they end as cancelled, whatever
	// the crashes. Each step is bounded
	// to max items (0: 1000); More says that work is left.
	Maintain(ctx context.Context, max int) (*MaintainResult, error)

	// Audit checks the engine's own structures against each other: every record in exactly one place, every index
	// entry with its record, every counter equal to what it counts, every unique key with a live owner. Findings are
	// repaired if repair is set. A sound store has none. It may take long and holds up no worker for more than
	// a moment at a time.
	Audit(ctx context.Context, repair bool) ([]Finding, error)
}

// Capabilities tells what an engine offers beyond what all offer.
type Capabilities struct {
	Engine string `json:"engine"` // "memory", "sqlite", "redis", …

	// Durability are the levels that Enqueue can reach, weakest first. DefaultDurability is used where a caller asks
	// for none.
	Durability        []Durability `json:"durability"`
	DefaultDurability Durability   `json:"default_durability"`
	// Stronger says in words, for an operator, how to have tasks stored at the level above DefaultDurability; empty if
	// there is none.
	Stronger string `json:"stronger,omitzero"`

	Ordered bool   `json:"ordered"` // one shard: the order that Fetch promises holds over the whole store
	Shared  bool   `json:"shared"`  // several processes may use the store at once
	Keys    bool   `json:"keys"`    // Task.Key: fair share and ordering between keys
	Limits  bool   `json:"limits"`  // QueueConfig.Limits
	Plans   bool   `json:"plans"`   // Task.Plan, the methods of Planner, FetchRequest.Plans; without it they are [ErrUnsupported]
	Intake  bool   `json:"intake"`  // the engine is an [Intaker]
	Limit   Limits `json:"limit"`
}

// Limits bounds what a store accepts. The zero value of a field means its default.
type Limits struct {
	MaxPayload    int `json:"max_payload"`     // bytes a payload; default 1 MiB, at most 16 MiB
	MaxBatch      int `json:"max_batch"`       // tasks a call of Enqueue; 1000
	MaxBatchBytes int `json:"max_batch_bytes"` // payload bytes a call of Enqueue; 8 MiB, or one MaxPayload if larger
}

// WithDefaults returns l with its zero fields set to their defaults, or [ErrInvalid] if a field is out of range.
func (l Limits) WithDefaults() (Limits, error) {
	const maxPayload = 16 << 20
	switch {
	case l.MaxPayload < 0 || l.MaxPayload > maxPayload:
		return l, Invalidf("the payload limit must be between 1 byte and 16 MiB, got %d bytes", l.MaxPayload)
	case l.MaxBatch < 0 || l.MaxBatch > 1000:
		return l, Invalidf("the batch limit must be between 1 and 1000 tasks, got %d", l.MaxBatch)
	case l.MaxBatchBytes < 0:
		return l, Invalidf("the batch size limit must not be negative, got %d bytes", l.MaxBatchBytes)
	}
	if l.MaxPayload == 0 {
		l.MaxPayload = 1 << 20
	}
	if l.MaxBatch == 0 {
		l.MaxBatch = 1000
	}
	if l.MaxBatchBytes == 0 {
		l.MaxBatchBytes = max(8<<20, l.MaxPayload)
	}
	return l, nil
}

// Limits and defaults that hold on every engine.
const (
	MinLease     = 100 * time.Millisecond // the shortest lease a worker may ask for
	MaxLease     = 24 * time.Hour         // the longest
	DefaultLease = 10 * time.Second

	DefaultQueue       = "default"
	DefaultMaxAttempts = 25
	DefaultCrashLimit  = 5

	MaxNameLen     = 128       // bytes of a queue, type, key or worker id
	MaxIDLen       = 128       // bytes of a task id
	MaxUniqueLen   = 256       // bytes of a unique key
	MaxHeaderBytes = 16 << 10  // keys and values of a task's headers
	MaxTags        = 16        // tags a task
	MaxErrorBytes  = 8 << 10   // kept of an error text, and of a stack
	MaxResultBytes = 64 << 10  // a result
	MaxLogBytes    = 64 << 10  // log lines kept a task
	MaxHistory     = 100       // entries of a task's history: see [AppendAttempt]
	MaxPriority    = 100       // priorities are -100…100, lower runs first
	MaxWeight      = 1000      // of a key
	MaxAttemptsCap = 1_000_000 // the largest MaxAttempts and CrashLimit
	MaxPage        = 1000      // records a page
	MaxApply       = 1000      // tasks an Apply
)
