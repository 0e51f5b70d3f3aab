package driver

import (
	"context"
	"strings"
	"time"
	"unicode/utf8"
)

// MaxListLen is how many bytes the name of an intake list may have.
const MaxListLen = 512

// Intaker takes in what other programs put into plain lists of the store's server, so that a program that knows nothing
// of Waggle is a producer. An engine has it exactly if [Capabilities].Intake is set.
type Intaker interface {
	// MoveIntake makes tasks of the elements at the head of a list, up to max of them (0: Limits.MaxBatch), in their
	// order, and takes them out of it. An element is nowhere lost and becomes one task, whoever dies on the way and
	// however many callers move the same list: a batch that a dead caller left half done is finished by the next call,
	// with the type and the queue of that call. Tasks are stored at the engine's default durability before their
	// elements are forgotten.
	//
	// A task's payload is the element as a JSON string if it is valid UTF-8, else its bytes ([EncodingRaw]). An element
	// that can't be a task is kept in a list of refused ones.
	//
	// Of a bounded queue the length is read before: it takes as many elements as there is room for, after dropping the oldest
	// tasks for them where the queue's policy says so, and returns [ErrQueueFull] where there is no room. A batch that a dead caller left is
	// stored in any case, so a queue can hold more than its bound by one batch a list.
	//
	// A list that does not exist is an empty one. Returns [ErrInvalid] for an Intake that can't be or a key that is no
	// list, [ErrQueueClosed] while the queue is draining, and what Enqueue returns for a call. After any error the
	// elements are still there, and calling again is safe.
	MoveIntake(ctx context.Context, in Intake, max int) (*IntakeResult, error)

	// AwaitIntake blocks until the list may hold elements, until max has passed, or until ctx ends. Like Await it
	// returns nil in the first two cases, as a hint. One new element wakes one caller.
	AwaitIntake(ctx context.Context, in Intake, max time.Duration) error
}

// Intake names a list and what becomes of its elements.
type Intake struct {
	List  string `json:"list"`           // 1…[MaxListLen] bytes of UTF-8 without control characters
	Type  string `json:"type"`           // of the tasks
	Queue string `json:"queue,omitzero"` // of the tasks; empty: [DefaultQueue]
}

// Validate returns [ErrInvalid] if a field is out of range.
func (in Intake) Validate() error {
	isControl := func(r rune) bool { return r < 0x20 || r == 0x7f }
	switch {
	case in.List == "":
		return Invalidf("the intake list has no name")
	case len(in.List) > MaxListLen:
		return Invalidf("the name of the intake list is %d bytes long, %d are allowed", len(in.List), MaxListLen)
	case !utf8.ValidString(in.List) || strings.ContainsFunc(in.List, isControl):
		return Invalidf("the name of the intake list %q is not valid UTF-8 or has a control character", in.List)
	}
	if err := CheckName("intake list's task type", in.Type, MaxNameLen); err != nil {
		return err
	}
	if in.Queue == "" {
		return nil
	}
	return CheckName("intake list's queue", in.Queue, MaxNameLen)
}

// IntakeResult is what MoveIntake did.
type IntakeResult struct {
	Moved   int // elements that became tasks
	Refused int // elements that can't be tasks
	// RefusedList is the list in which refused elements are kept.
	RefusedList string
	// More is set if the list may hold more, Busy if another caller is moving a batch just now: then nothing was done.
	More, Busy bool
}
