package driver

import "slices"

// State is where a task stands. The states and the moves between them are the same on every engine.
type State string

// The states.
const (
	Scheduled State = "scheduled" // waits for its time
	Pending   State = "pending"   // waits for other tasks or for an external go
	Available State = "available" // may be claimed now
	Active    State = "active"    // held by a worker
	Retryable State = "retryable" // failed, waits for its next attempt
	Completed State = "completed" // done
	Cancelled State = "cancelled" // called off
	Discarded State = "discarded" // given up: the dead letters
)

// States lists all states, in the order of a task's life.
var States = []State{Scheduled, Pending, Available, Active, Retryable, Completed, Cancelled, Discarded}

// Ended reports whether s is one of the three states in which a task has come to its end.
func (s State) Ended() bool { return s == Completed || s == Cancelled || s == Discarded }

// Valid reports whether s is a state.
func (s State) Valid() bool { return slices.Contains(States, s) }

// Move is one permitted change of state. From is empty for a new task.
type Move struct {
	From, To State
	By       string // what causes it, for people
}

// Moves is the table of all permitted changes of state.
var Moves = []Move{
	{"", Available, "enqueued"},
	{"", Scheduled, "enqueued for later"},
	{"", Pending, "enqueued on hold"},

	{Scheduled, Available, "due, or run now"},
	{Scheduled, Cancelled, "cancelled"},
	{Retryable, Available, "due, or run now"},
	{Retryable, Cancelled, "cancelled"},

	{Pending, Available, "let go"},
	{Pending, Cancelled, "cancelled"},
	{Pending, Discarded, "what it waited for failed"},

	{Available, Active, "claimed"},
	{Available, Cancelled, "cancelled"},
	{Available, Discarded, "expired, or dropped from a full queue"},

	{Active, Completed, "completed"},
	{Active, Retryable, "failed"},
	{Active, Scheduled, "snoozed"},
	{Active, Available, "released, or its worker died"},
	{Active, Cancelled, "cancelled"},
	{Active, Discarded, "discarded, attempts spent, or crash limit"},

	{Completed, Available, "retried by a person"},
	{Cancelled, Available, "retried by a person"},
	{Discarded, Available, "retried by a person"},
}

// CanMove reports whether a task may go from one state to another. From is empty for a new task.
func CanMove(from, to State) bool {
	return slices.ContainsFunc(Moves, func(m Move) bool { return m.From == from && m.To == to })
}

// Waits reports whether a task in state s counts against its queue's [Bound].
func (s State) Waits() bool {
	return s == Scheduled || s == Pending || s == Available || s == Retryable
}

// Reason says why a task ended as discarded or cancelled.
type Reason string

// The reasons. A task that is in another state has none.
const (
	ReasonAttempts    Reason = "attempts"    // it failed MaxAttempts times
	ReasonCrashes     Reason = "crashes"     // its workers died CrashLimit times
	ReasonHandler     Reason = "handler"     // its handler discarded or cancelled it
	ReasonExpired     Reason = "expired"     // it was not claimed before its expiry
	ReasonRequested   Reason = "requested"   // somebody cancelled it
	ReasonReplaced    Reason = "replaced"    // a task with the same unique key took its place
	ReasonDropped     Reason = "dropped"     // its queue was full, and a newer task took its place
	ReasonUndecodable Reason = "undecodable" // its stored record can't be read
	ReasonDependency  Reason = "dependency"  // a task it depended on did not complete
	ReasonRefused     Reason = "refused"     // only in [News]: a plan's step could not store it
)
