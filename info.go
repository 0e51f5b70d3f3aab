package waggle

import (
	"fmt"
	"slices"
	"time"

	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/internal/guard"
)

// TaskInfo is a task as the store knows it.
type TaskInfo struct {
	ID              string            `json:"id"`
	Type            string            `json:"type"`
	Queue           string            `json:"queue"`
	State           State             `json:"state"`
	Reason          Reason            `json:"reason,omitzero"` // why it was discarded or cancelled
	Attempt         int               `json:"attempt"`         // the attempt that runs, or the last; 0 before the first
	Crashes         int               `json:"crashes"`         // workers that died with it
	MaxAttempts     int               `json:"max_attempts"`
	CrashLimit      int               `json:"crash_limit"`
	Priority        int               `json:"priority"`
	Key             string            `json:"key,omitzero"`
	Weight          int               `json:"weight,omitzero"` // of the key; 0: 1
	Attempts        []Attempt         `json:"attempts"`        // finished runs, oldest first
	Payload         Data              `json:"payload"`
	Result          Data              `json:"result"` // of a completed task
	Headers         map[string]string `json:"headers,omitzero"`
	Tags            []string          `json:"tags,omitzero"`
	EnqueuedAt      time.Time         `json:"enqueued_at"`
	DueAt           time.Time         `json:"due_at,omitzero"` // when it becomes, or became, available
	ClaimedAt       time.Time         `json:"claimed_at,omitzero"`
	EndedAt         time.Time         `json:"ended_at,omitzero"`
	ExpiresAt       time.Time         `json:"expires_at,omitzero"`
	Worker          string            `json:"worker,omitzero"` // holds it, or held it last
	Progress        *Progress         `json:"progress,omitzero"`
	Logs            []LogLine         `json:"logs,omitzero"`
	CancelRequested bool              `json:"cancel_requested"`
	TimeoutMS       int64             `json:"timeout_ms,omitzero"` // how long one attempt may run; 0: no limit of its own
	Unique          *UniqueOptions    `json:"unique,omitzero"`
	Damaged         []driver.Part     `json:"damaged,omitzero"` // parts that are not what was stored, see [driver.Record]
}

// Timeout is how long one attempt may run; 0: no limit of its own.
func (t *TaskInfo) Timeout() time.Duration { return time.Duration(t.TimeoutMS) * time.Millisecond }

// LastError is the error of the last attempt that had one, "" if none had.
func (t *TaskInfo) LastError() string {
	for i := len(t.Attempts) - 1; i >= 0; i-- {
		if t.Attempts[i].Error != "" {
			return t.Attempts[i].Error
		}
	}
	return ""
}

func newTaskInfo(r *driver.Record) *TaskInfo {
	t := &TaskInfo{
		ID: r.ID, Type: r.Type, Queue: r.Queue, State: r.State, Reason: r.Reason, Attempt: r.Attempt, Crashes: r.Crashes,
		MaxAttempts: r.MaxAttempts, CrashLimit: r.CrashLimit, Priority: r.Priority, Key: r.Key, Weight: r.Weight, Attempts: r.Attempts,
		Payload: Data{r.Payload, r.Encoding}, Result: Data{r.Result, r.ResultEncoding}, Headers: r.Headers, Tags: r.Tags,
		EnqueuedAt: r.EnqueuedAt, DueAt: r.DueAt, ClaimedAt: r.ClaimedAt, EndedAt: r.EndedAt, ExpiresAt: r.ExpiresAt,
		Worker: r.Worker, Progress: r.Progress, Logs: r.Logs, CancelRequested: r.CancelRequested,
		TimeoutMS: r.Timeout.Milliseconds(), Damaged: r.Damaged,
	}
	if t.Attempts == nil {
		t.Attempts = []Attempt{} // [] in JSON
	}
	if u := r.Unique; u != nil {
		t.Unique = &UniqueOptions{u.Key, u.Until, u.TTL, u.OnConflict}
	}
	return t
}

// Result returns the result of a completed task, read as a T: JSON, or the raw bytes if T is []byte; the zero T if the
// handler set none. A task that is not completed has none: the error wraps [ErrState] and tells its end. One that is damaged
// in the store is not returned: the error wraps [ErrCorrupt].
func Result[T any](t *TaskInfo) (T, error) {
	var v T
	if t == nil {
		return v, failed("result", driver.Invalidf("the task is nil"))
	}
	if t.State != Completed {
		return v, failed("result of "+t.ID, driver.Errorf(ErrState, "%s", endOf(t)))
	}
	if slices.Contains(t.Damaged, driver.PartEnd) {
		return v, failed("result of "+t.ID, driver.Errorf(ErrCorrupt, "what is stored of its end does not match its checksum"))
	}
	var err error
	if fault := guard.Call(func() { err = t.Result.Decode(&v) }); fault != nil {
		err = driver.Errorf(ErrInvalid, "not readable as %T: %w", v, fault)
	}
	return v, failed("result of "+t.ID, err)
}

func endOf(t *TaskInfo) string {
	s := fmt.Sprintf("the task is %s", t.State)
	if t.Reason != "" {
		s += fmt.Sprintf(" (%s)", t.Reason)
	}
	if e := t.LastError(); e != "" {
		s += ": " + e
	}
	return s
}
