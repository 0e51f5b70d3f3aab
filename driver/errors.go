package driver

import (
	"errors"
	"fmt"
)

// The errors a caller can tell apart with errors.Is. Engines wrap them with what happened.
var (
	ErrInvalid     = errors.New("invalid input")
	ErrNotFound    = errors.New("not found")
	ErrDuplicate   = errors.New("unique key is taken")
	ErrState       = errors.New("not possible in this state")
	ErrQueueClosed = errors.New("queue is draining and takes no tasks")
	ErrQueueFull   = errors.New("queue is full")
	ErrLeaseLost   = errors.New("lease lost")
	ErrNotDurable  = errors.New("durability level not reached")
	ErrStoreFull   = errors.New("store is full")
	ErrUnavailable = errors.New("store is unavailable")
	ErrCorrupt     = errors.New("store is corrupt")
	ErrUnsupported = errors.New("not supported by this store")
	ErrClosed      = errors.New("store is closed")
	ErrConflict    = errors.New("changed meanwhile")
)

// ErrorClass is how an error is presented outside Go.
type ErrorClass struct {
	Err  error  // the sentinel
	Code string // for JSON
	HTTP int    // status
	Exit int    // of the command line
}

// ErrorClasses maps each sentinel to its presentation.
var ErrorClasses = []ErrorClass{
	{ErrInvalid, "invalid", 400, 2},
	{ErrNotFound, "not_found", 404, 3},
	{ErrDuplicate, "duplicate", 409, 4},
	{ErrState, "state", 409, 4},
	{ErrQueueClosed, "queue_closed", 409, 4},
	{ErrQueueFull, "queue_full", 429, 5},
	{ErrLeaseLost, "lease_lost", 409, 4},
	{ErrNotDurable, "not_durable", 503, 1},
	{ErrStoreFull, "store_full", 507, 1},
	{ErrUnavailable, "unavailable", 503, 6},
	{ErrCorrupt, "corrupt", 500, 1},
	{ErrUnsupported, "unsupported", 501, 2},
	{ErrClosed, "closed", 503, 1},
	{ErrConflict, "conflict", 409, 4},
}

// ClassOf returns the class of the first sentinel that err wraps, or {err, "internal", 500, 1}.
func ClassOf(err error) ErrorClass {
	for _, c := range ErrorClasses {
		if errors.Is(err, c.Err) {
			return c
		}
	}
	return ErrorClass{Err: err, Code: "internal", HTTP: 500, Exit: 1}
}

// Errorf returns an error that reads as the formatted text and wraps the sentinel. The text should stand alone: the
// sentinel's own words are not added.
func Errorf(sentinel error, format string, args ...any) error {
	return &detailed{sentinel: sentinel, text: fmt.Errorf(format, args...)}
}

// QueueHolds is the [ErrState] of DeleteQueue for a queue that holds n tasks in a state, among others perhaps.
func QueueHolds(queue string, n int, s State) error {
	return Errorf(ErrState, "queue %s still holds %d tasks that are %s", queue, n, s)
}

// Invalidf is Errorf with [ErrInvalid].
func Invalidf(format string, args ...any) error { return Errorf(ErrInvalid, format, args...) }

type detailed struct {
	sentinel error
	text     error
}

func (e *detailed) Error() string   { return e.text.Error() }
func (e *detailed) Unwrap() []error { return []error{e.sentinel, e.text} }
