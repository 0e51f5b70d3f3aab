// Package logkey names the attributes of Waggle's log lines, once, so that every part of it calls the same thing by the
// same name.
package logkey

// The attribute keys.
const (
	Attempt    = "attempt"
	Cause      = "cause"
	Count      = "count"
	Delay      = "delay"
	Due        = "due"
	Durability = "durability"
	Error      = "error"
	Kept       = "kept_in"
	Lease      = "lease"
	List       = "list"
	Outcome    = "outcome"
	Pause      = "pause"
	Plan       = "plan"
	Queue      = "queue"
	Queues     = "queues"
	Ran        = "ran"
	Reason     = "reason"
	Slots      = "slots"
	Stack      = "stack"
	TaskID     = "task"
	TaskType   = "type"
	Token      = "token"
	Types      = "types"
	Worker     = "worker"
	Op         = "op"
	After      = "after"
)
