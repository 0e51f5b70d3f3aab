// Package layout says how redisstore's records are laid out, once for the programs in Go and the scripts in Lua.
//
// From the tables here come the offsets that Go code uses (redisstore/layout_gen.go), the accessors that scripts use
// (see [Expand]), and the page that a reader wants beside both (redisstore/lua/LAYOUT.md). After a change:
//
//	go generate ./redisstore/...
package layout

import "slices"

//go:generate go test . -run TestGenerated -update

// Field is a part of a record of fixed size. Numbers are big-endian.
type Field struct {
	Name string
	Size int // bytes
	Doc  string
}

// Layout is the fixed part of a record, its fields one after the other. What follows it has a size of its own.
type Layout struct {
	Name   string // as scripts have it: RUN
	Doc    string
	Rest   string // what follows the fixed part; empty: nothing
	Fields []Field
	// inLua is whether only scripts want its offsets.
	inLua bool
}

// Len returns the length of the fixed part.
func (l *Layout) Len() int {
	n := 0
	for _, f := range l.Fields {
		n += f.Size
	}
	return n
}

// offset returns where a field begins, counted from 0, and its size.
func (l *Layout) offset(name string) (at, size int, ok bool) {
	for _, f := range l.Fields {
		if f.Name == name {
			return at, f.Size, true
		}
		at += f.Size
	}
	return 0, 0, false
}

const millis = "ms since 1970"

var (
	stamp = []Field{
		{"enqueued", 6, "when it was enqueued, " + millis},
		{"seq", 6, "its place in the order of enqueueing"},
	}
	body = []Field{
		{"flags", 1, "those that never change"},
		{"pair", 3, "number of its queue and type"},
		{"priority", 1, "plus 100"},
	}
	expiry   = []Field{{"expires", 6, millis}}
	envelope = []Field{{"envelope", 3, "the length of the envelope"}}
	claim    = []Field{
		{"state", 1, "a letter"},
		{"flags", 1, ""},
		{"pair", 3, "number of its queue and type"},
	}
	token = []Field{
		{"token", 6, "count of its last claim: the token without the pair"},
		{"claimed", 6, "when, " + millis},
	}
	size = []Field{{"size", 4, "bytes of payload and result"}}
	end  = []Field{
		{"ended", 6, millis},
		{"ran", 6, "how long the last attempt ran, ms"},
	}
)

const restOfTask = "the envelope and the payload"

// Layouts are all records with fields of fixed size.
var Layouts = []*Layout{
	{Name: "TASK", Doc: "The part of a task that never changes; field ID of task.", Rest: restOfTask,
		Fields: slices.Concat(stamp, body, envelope)},
	{Name: "LATER", Doc: "The same with an expiry (flag expires).", Rest: restOfTask,
		Fields: slices.Concat(stamp, body, expiry, envelope)},
	{Name: "STAMP", Doc: "What the enqueue script puts before BODY or LATERBODY to make TASK or LATER.", Fields: stamp, inLua: true},
	{Name: "BODY", Doc: "TASK without its stamp, as a client sends it.", Rest: restOfTask,
		Fields: slices.Concat(body, envelope), inLua: true},
	{Name: "LATERBODY", Doc: "LATER in the same way.", Rest: restOfTask,
		Fields: slices.Concat(body, expiry, envelope), inLua: true},
	{Name: "RUN", Doc: "The part of a task that changes; field ID of run. An available task that was never anything else has none.",
		Rest: "worker; once completed host and build too; each with its length in a byte before it",
		Fields: slices.Concat(claim, []Field{
			{"priority", 1, "plus 100"},
			{"reason", 1, "why it ended, its place in a list"},
			{"due", 6, "since when it is available, or when it will be, " + millis},
			{"order", 6, "its place in line within its priority"},
		}, token, expiry, []Field{
			{"attempt", 4, ""},
			{"crashes", 4, ""},
		}, end, size)},
	{Name: "SHORT", Doc: "The run of an active task that is claimed for the first time (flag short): what it leaves out is the task's.",
		Rest: "worker", Fields: slices.Concat(claim, token, size)},
	{Name: "DONE", Doc: "The same of a task that was completed then.",
		Rest: "worker, host and build", Fields: slices.Concat(claim, token, size, end)},
	{Name: "PLACE", Doc: "An entry of line/PAIR or ord.", Rest: "packed id", Fields: []Field{
		{"order", 6, "the place in line or in the order of enqueueing"}}},
	{Name: "KEPT", Doc: "An entry of kept/STATE/QUEUE.", Rest: "packed id", Fields: []Field{
		{"ended", 6, "when the task ended, " + millis}}},
	{Name: "OWNER", Doc: "Who owns a unique key; field KEY of uniq.", Rest: "packed id", Fields: []Field{
		{"mode", 1, "until when: 1 done, 2 started, 3 a time; plus 8 if the task is in another shard"},
		{"until", 6, "that time, " + millis}}},
	{Name: "OWNED", Doc: "What key a task owns; field ID of own.", Rest: "unique key", inLua: true, Fields: []Field{
		{"mode", 1, "until when, as in OWNER"}}},
	{Name: "HEAD", Doc: "An entry of heads/QUEUE.", Rest: "key; then NUL and packed id if it is the only task of the key", Fields: []Field{
		{"pair", 3, "number of its queue and type"},
		{"priority", 1, "plus 100"},
		{"value", 7, "the tag of its key, or its deadline"},
		{"order", 6, "its place in line"}}},
	{Name: "LONE", Doc: "What is known of a key that has one available task and nothing else; field KEY of keyed/QUEUE.", Rest: "packed id", Fields: []Field{
		{"form", 1, "L; else it is a text"},
		{"pair", 3, "number of its queue and type"},
		{"priority", 1, "plus 100"},
		{"value", 7, "the tag of the key"},
		{"order", 6, "its place in line"}}},
	{Name: "FLOWING", Doc: "What follows a key and NUL in an entry of flow/QUEUE.", Rest: "packed id", Fields: []Field{
		{"pair", 3, "number of its queue and type"},
		{"priority", 1, "plus 100"},
		{"rank", 6, "its deadline, 0 where that is of no account"},
		{"order", 6, "its place in line"}}},
	{Name: "KEYEND", Doc: "What follows the key at the end of the envelope of a task with one.", inLua: true, Fields: []Field{
		{"weight", 2, ""},
		{"length", 1, "of the key"}}},
	{Name: "OPTIONS", Doc: "How a task is to be enqueued, as a client sends it.", Rest: "unique key", inLua: true, Fields: []Field{
		{"flags", 1, "1 hold, 2 not before start, 4 the queue takes no tasks, 8 unique"},
		{"start", 6, millis},
		{"conflict", 1, "1 return, 2 reject, 3 replace"},
		{"mode", 1, "until when the key is owned: 1 done, 2 started, 3 a time"},
		{"ttl", 6, "that time, in ms from now"}}},
	{Name: "JOINED", Doc: "What is known of a worker; field WORKER of winfo.", Rest: "what it says of itself, JSON", Fields: []Field{
		{"since", 6, "when it joined, " + millis}}},
	{Name: "PLAN", Doc: "The head of a plan; field KIND/NAME of plan.", Rest: "its state and the names of its parts, with a blank before each", Fields: []Field{
		{"version", 7, "grows with each step"},
		{"created", 6, "when, " + millis},
		{"updated", 6, "when its last step was done, " + millis},
		{"wake", 6, "when it wants to be looked at, " + millis + "; 0: not before there are news"},
		{"expires", 6, "when it is removed, " + millis + "; 0: it has not ended"},
		{"reserved", 6, "until then it is another worker's to look at, " + millis},
		{"seen", 6, "number of the newest news that a step has dealt with"},
		{"news", 6, "number of its newest news"},
		{"signals", 6, "how many signals it has got"}}},
	{Name: "NEWS", Doc: "News of a plan as they are handed to a script; field KIND/NAME/NUMBER of plannews, with the time put in.",
		Rest: "texts, see driver.AppendNews", inLua: true, Fields: []Field{
			{"kind", 1, "what they are of"},
			{"time", 1, "0"}}},
	{Name: "RESULT", Doc: "The result of a completed task; field ID of result.", Rest: "the result", inLua: true, Fields: []Field{
		{"encoding", 1, "j JSON, r raw, - unknown"}}},
	{Name: "BATCH", Doc: "The head of a batch of an intake list.", Rest: "the caller who has it", Fields: []Field{
		{"id", 16, "packed id of the batch"},
		{"taken", 6, "when, " + millis}}, inLua: true},
}

// Flag is a bit of a record's flags.
type Flag struct {
	Name string
	Doc  string
}

// Flags are the bits, from 1 on. The first three, plan and keyed never change and are in tasks and runs.
var Flags = []Flag{
	{"expires", "it has an expiry"},
	{"uniqueDone", "it owns a unique key until it ends"},
	{"uniqueStart", "it owns a unique key until it is claimed"},
	{"cancel", "its cancellation was asked for"},
	{"settled", "its last claim was ended by its worker"},
	{"short", "of a run: it is stored as SHORT or DONE"},
	{"plan", "it is a step of a plan, which its envelope names first"},
	{"keyed", "it has a key: the envelope ends with key, weight (2 bytes) and length of the key (1)"},
}

// Letter is a one-letter name in records, keys and the fields of stat.
type Letter struct {
	Letter byte
	Name   string // as Go code has it
	Doc    string
}

// States are the letters of states: in records, in kept/STATE/QUEUE, and as counters of the tasks of a pair in them.
var States = []Letter{
	{'S', "Scheduled", "waits for its time"},
	{'P', "Pending", "waits for other tasks or an external go"},
	{'A', "Available", "stands in line"},
	{'R', "Active", "runs"},
	{'T', "Retryable", "failed, waits for its next attempt"},
	{'C', "Completed", ""},
	{'X', "Cancelled", ""},
	{'D', "Discarded", ""},
}

// PairCounters are the further counters of a pair: a letter and its number are a field of stat.
var PairCounters = []Letter{
	{'E', "Expiring", "available tasks with an expiry, those in exp/PAIR"},
	{'e', "EverEnqueued", "tasks enqueued, ever"},
	{'c', "EverCompleted", "tasks completed, ever"},
	{'f', "EverFailed", "attempts failed, ever"},
	{'k', "EverCrashed", "attempts lost with their workers, ever"},
	{'l', "EverDeleted", "tasks deleted before they had ended, ever"},
	{'y', "EverRetried", "tasks retried by a person, ever"},
	{'x', "EverCancelled", "tasks cancelled, ever"},
	{'d', "EverDiscarded", "tasks discarded, ever"},
}

// QueueCounters are the counters of a queue: such a letter, that of a state that ends a task, and the queue's name are a
// field of stat.
var QueueCounters = []Letter{
	{'n', "Kept", "ended tasks that are kept"},
	{'b', "KeptBytes", "bytes of their payloads and results"},
}

// Constant is a number that both sides must have alike.
type Constant struct {
	Name  string
	Value int64
	Doc   string
}

// Constants are those numbers.
var Constants = []Constant{
	{"band", 1 << 44, "width of a priority in the scores of back/PAIR"},
	{"plain", 100, "the default priority as it is stored: tasks with it stand in line/PAIR"},
	{"reserve", 2000, "ms for which a plan is kept for the worker that was offered it"},
	{"outbox", 3000, "ms after which others see to the tasks of a plan's step"},
	{"tag", 50400, "what a task of weight 1 adds to the tag of its key"},
	{"resting", 10_000, "how many keys without tasks are remembered for their tag"},
	{"epoch", 1735689600000, "tokens count milliseconds from 2025-01-01 on, so that they fit beside the pair's number"},
}
