package driver

import "time"

// Record is a task as the store knows it.
type Record struct {
	Task // as enqueued; At and ExpiresAt are absolute, Delay and ExpiresIn are 0

	State  State
	Reason Reason // why it was discarded or cancelled

	// Attempt is the number of the attempt that is running or, if none is, of the last that ran; 0 before the first.
	// Attempts that spend none (released, snoozed, crashed) are not counted.
	Attempt int
	// Crashes counts the workers that died with it.
	Crashes int
	// CancelRequested is set while an active task's cancellation waits for its handler.
	CancelRequested bool

	EnqueuedAt time.Time // when it was accepted
	DueAt      time.Time // when it becomes, or became, available
	ClaimedAt  time.Time // of the present or last claim; zero before the first
	EndedAt    time.Time // zero unless ended; of a task that expired its expiry, or when that was recorded

	Worker string // holds it, or held it last
	Token  Token  // of the present or last claim

	Progress *Progress
	Logs     []LogLine
	Attempts []Attempt // oldest first, without the running one; at most [MaxHistory]
	Result   []byte    // of a completed task
	// ResultEncoding says how to read Result.
	ResultEncoding Encoding

	// Damaged names the parts of it that are not what was stored, as far as the engine's checksums tell; what else the
	// record says of them is what can be read. Empty for a sound task, and on engines without checksums.
	Damaged []Part
}

// Part is a part of a task's record that can be damaged by itself.
type Part string

// The parts of a record.
const (
	PartTask     Part = "task"     // payload, settings, type, queue, and when it was enqueued
	PartAttempts Part = "attempts" // how often it was tried, and how that went
	PartClaim    Part = "claim"    // who holds it
	PartEnd      Part = "end"      // how and when it ended, and its result
	PartReport   Part = "report"   // progress and log lines
	PartQueue    Part = "queue"    // the names of its queue and type, which stand elsewhere
	PartWorker   Part = "worker"   // who holds it or held it last, which stands elsewhere
)

// Token proves a claim: it is greater than every earlier token of the same task.
type Token int64

// Claim is a task in the hands of a worker.
type Claim struct {
	Task
	Token           Token
	Attempt         int // number of this attempt, from 1
	Crashes         int
	EnqueuedAt      time.Time
	ClaimedAt       time.Time // by the store's clock
	CancelRequested bool
}

// Ref names a claim.
type Ref struct {
	ID    string
	Token Token
}

// Attempt is one finished run of a task, or several snoozes that followed one another.
type Attempt struct {
	Number  int       `json:"attempt"` // the attempt it counted as; equal for runs that spent none
	Outcome Outcome   `json:"outcome"`
	Worker  string    `json:"worker"`
	Host    string    `json:"host,omitzero"`
	Build   string    `json:"build,omitzero"`
	Started time.Time `json:"started"`
	Ended   time.Time `json:"ended"`
	// Count is how many runs it stands for, 0 for one. Of several, Started is of the first, the rest of the last.
	Count int `json:"count,omitzero"`
	// Reason is set on an attempt that discarded the task: why. A last failure has the outcome [Discard], for [ReasonAttempts].
	Reason Reason `json:"reason,omitzero"`
	Error  string `json:"error,omitzero"`
	Stack  string `json:"stack,omitzero"`
}

// Outcome is how an attempt ended.
type Outcome string

// The outcomes. All but Crash are for Settlement; Crash is what a store writes into the history of a task whose worker
// died.
const (
	Complete      Outcome = "complete" // completed
	Retry         Outcome = "retry"    // failed: retryable, or discarded when attempts are spent
	Snooze        Outcome = "snooze"   // scheduled, no attempt spent
	Release       Outcome = "release"  // available at its old place, no attempt spent
	Discard       Outcome = "discard"  // discarded
	CancelOutcome Outcome = "cancel"   // cancelled
	Crash         Outcome = "crash"
)

// Settlement ends one attempt.
type Settlement struct {
	ID      string
	Token   Token
	Outcome Outcome

	// Delay is how long a task settled with Retry or Snooze waits, from the store's present; 0: due at once (it still
	// goes to the end of the line).
	Delay time.Duration
	// MaxAttempts takes, for this settlement, the place of the task's own, with Retry; 0: the task's own counts.
	MaxAttempts int
	// Error and Stack tell what went wrong; longer texts than [MaxErrorBytes] are cut by the store.
	Error, Stack string
	// Result is kept with a completed task, up to [MaxResultBytes].
	Result         []byte
	ResultEncoding Encoding
	// Ran is how long the handler ran, by the worker's monotonic clock; the store counts Started back from its own
	// present. 0 for one that never started.
	Ran time.Duration
	// Unbegun says of a Release that the task's work had not begun: the history has no entry for it.
	Unbegun bool
}

// SettleResult is what a settlement has led to.
type SettleResult struct {
	State  State  // the task's; empty if Err is set
	Reason Reason // why it was discarded or cancelled
	Err    error  // nil, or why the settlement was not accepted
}

// SettleErrors reduces what Settle has returned to its errors, for callers that know the states.
func SettleErrors(results []SettleResult, err error) ([]error, error) {
	if err != nil {
		return nil, err
	}
	errs := make([]error, len(results))
	for i := range results {
		errs[i] = results[i].Err
	}
	return errs, nil
}

// Report carries news of a running task.
type Report struct {
	ID       string
	Token    Token
	Progress *Progress // nil: as it was
	Logs     []LogLine // appended
}

// Progress is how far a task has come.
type Progress struct {
	Done  float64 `json:"done"`
	Total float64 `json:"total"` // 0: unknown
	Note  string  `json:"note,omitzero"`
}

// LogLine is one line that a handler logged.
type LogLine struct {
	Time    time.Time `json:"time"` // the worker's clock
	Level   string    `json:"level"`
	Message string    `json:"message"`
	Attrs   string    `json:"attrs,omitzero"` // a JSON object
}

// WorkerInfo is what a worker says of itself.
type WorkerInfo struct {
	ID     string   `json:"id"` // a name like Task.Type, never used for two lives
	Host   string   `json:"host"`
	PID    int      `json:"pid"`
	Build  string   `json:"build"` // version of the program it runs in
	Queues []string `json:"queues"`
	Types  []string `json:"types"` // empty: all
	Slots  int      `json:"slots"`
}

// WorkerStatus is a registered worker as the store sees it.
type WorkerStatus struct {
	WorkerInfo
	Since    time.Time `json:"since"`     // when it registered
	LeaseEnd time.Time `json:"lease_end"` // by the store's clock
	Held     int       `json:"held"`      // tasks it holds
	// Directive is what it was told; its heartbeats deliver that.
	Directive Directive `json:"directive,omitzero"`
	// Damaged says that what is stored of the worker does not match its checksum: nothing above is certain.
	Damaged bool `json:"damaged,omitzero"`
}

// FetchRequest asks for tasks.
type FetchRequest struct {
	Worker string
	Lease  time.Duration
	Queues []string // in the order they are to be served; duplicates count once
	Types  []string // nil: all
	Max    int      // at most this many claims; at most 1000 are given
	// Plans is how many due plans the worker takes, at most; 1000 are given. 0: it is offered none.
	Plans int
	// Wait is how long to wait for work first, as Await does; 0: not at all.
	Wait time.Duration
}

// FetchResult is what Fetch found.
type FetchResult struct {
	Claims []Claim
	// Now is the store's clock at the claim; the lease that this call renewed ends at LeaseEnd. A zero LeaseEnd means that
	// it was not renewed as a whole: see Fetch. With several shards Now is the latest of their times, LeaseEnd the earliest
	// end.
	Now, LeaseEnd time.Time
	// Waited is for how long, at least, the call had waited before it renewed the lease.
	Waited time.Duration
	// NextDue is when, at the earliest, the next task of the declared pairs becomes due or the next lease of another worker runs out;
	// zero if nothing is in sight.
	NextDue time.Time
	// More is set if available tasks of the declared pairs were left behind, or if shards were not asked.
	More bool
	// Undecodable are the ids of tasks that this call has discarded because what is stored of them can't be read.
	Undecodable []string
	// Damaged tells of declared queues whose tasks are not given out, because what is stored of the queue is damaged
	// ([ErrCorrupt], with its name); nil: there is none. Where no other queue was declared, it is the error of the call.
	Damaged error
	// Cancels are claims held by this worker whose cancellation was asked for, as in HeartbeatResult.
	Cancels []Ref
	// Plans are plans that are due, at most FetchRequest.Plans. Each is reserved for this worker for [PlanReserve]: no other
	// is offered it meanwhile. NextDue tells of the next one too, if plans were asked for.
	Plans []PlanRef
}

// HeartbeatResult is what Heartbeat found.
type HeartbeatResult struct {
	Now, LeaseEnd time.Time
	Cancels       []Ref
	Directive     Directive
}

// AwaitRequest says what to wait for.
type AwaitRequest struct {
	Worker string
	For    AwaitFor
	Queues []string // ForWork: as in FetchRequest
	Types  []string // ForWork: as in FetchRequest
	// Plans has ForWork wait for due plans too: a new one, or one that gets news, wakes one worker that waits for plans, and
	// so does a plan that is to be looked at sooner than all others.
	Plans bool
	Max   time.Duration
}

// AwaitFor is what an Await waits for.
type AwaitFor int

// What Await can wait for.
const (
	ForWork AwaitFor = iota
	ForControl
)
