package driver

import "fmt"

// Bound limits how many tasks of a queue wait. Waiting are those that are scheduled, pending, available or retryable at the
// store's present, also those that a limit keeps from starting; active and ended tasks don't count. The zero Bound is none.
//
// It is the last that Enqueue asks: a task whose id is known, that a draining queue refuses or whose unique key is taken is
// answered as without it, and one that replaces the owner of its key takes the owner's place where that waits in the same queue.
//
// Only new tasks are refused. What the store has accepted comes back as ever: retries, snoozed and released tasks, those
// of a worker that died, those that a person runs again, and the tasks of a plan's step. They count, so a queue may hold more than
// Max by them, or after Max was lowered; then nothing new comes in, or only in the place of others, until it is below it again.
type Bound struct {
	Max  int        `json:"max"`            // waiting tasks, 1…[MaxBound]
	Full FullPolicy `json:"full,omitempty"` // what becomes of a task for which there is no room; empty: [FullRefuse]
}

// FullPolicy says what becomes of a new task whose queue is full.
type FullPolicy string

// The policies.
const (
	// FullRefuse refuses it with [ErrQueueFull].
	FullRefuse FullPolicy = "refuse"
	// FullDropOldest makes room: of the available tasks the one that has stood in line longest, whatever its priority and
	// key, ends as discarded with [ReasonDropped]; more than one where the queue is above its bound, at most [MaxDrops] for one
	// new task. Where too few are available, because the others wait for their time or a go, the new task is refused.
	//
	// A task that found its queue full may come after the others of its call.
	FullDropOldest FullPolicy = "drop-oldest"
	// FullWait refuses it like FullRefuse, and asks the caller to come again when there is room.
	FullWait FullPolicy = "wait"
)

// Bounds of bounds.
const (
	MaxBound = 1_000_000_000
	MaxDrops = 100 // tasks that one new task can drop
)

// WithDefaults returns the bound with what its zero fields mean, or [ErrInvalid]. The zero Bound stays.
func (b Bound) WithDefaults() (Bound, error) {
	if b == (Bound{}) {
		return b, nil
	}
	if b.Max < 1 || b.Max > MaxBound {
		return b, Invalidf("the bound of a queue must be between 1 and %d waiting tasks, got %d", MaxBound, b.Max)
	}
	switch b.Full {
	case "":
		b.Full = FullRefuse
	case FullRefuse, FullDropOldest, FullWait:
	default:
		return b, Invalidf("unknown policy %q of a full queue: use refuse, drop-oldest or wait", brief(b.Full))
	}
	return b, nil
}

// QueueFullError is the [ErrQueueFull] of a task for which its queue has no room.
type QueueFullError struct {
	Queue string
	Bound Bound
}

func (e *QueueFullError) Error() string {
	return fmt.Sprintf("queue %s is full: %d tasks wait in it, as many as its bound allows", e.Queue, e.Bound.Max)
}

func (e *QueueFullError) Unwrap() error { return ErrQueueFull }

// Bounded reports whether a new task counts against its queue's bound: one that a plan's step stores is not refused.
func (t *Task) Bounded() bool { return t.Plan == nil }
