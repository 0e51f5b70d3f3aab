// Package history records what clients and workers saw of a store, and checks it against what the store holds at the
// end.
//
// Each process writes a log of its own with a [Recorder], one JSON object a line, so that a process that is killed
// leaves all it saw. [Wrap] records the calls of a store by itself; the handlers add [Recorder.Started] and
// [Recorder.Ended]. In the end one process takes a [Dump] of the store and hands all logs and the dump to [Check].
//
// The checker knows nothing of what the run did to processes, networks and clocks. It reports only what no fault
// excuses: see [Check] for the rules.
package history

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/waggleq/waggle/driver"
)

// Kind is what an event tells.
type Kind string

// The kinds.
const (
	EnqueueOK      Kind = "enqueue-ok"      // the task was accepted, or existed
	EnqueueRefused Kind = "enqueue-refused" // the store said no: nothing was stored
	EnqueueUnknown Kind = "enqueue-unknown" // no reply, or one that tells nothing
	Leased         Kind = "leased"          // a worker's lease was granted or renewed
	LeaseGivenUp   Kind = "lease-given-up"  // a worker asked to be unregistered
	Started        Kind = "started"         // a handler started
	Ended          Kind = "ended"           // a handler returned
	SettleAccepted Kind = "settle-accepted"
	SettleRefused  Kind = "settle-refused"
	SettleUnknown  Kind = "settle-unknown"
	Retried        Kind = "retried"    // a person may have retried the task: another life may follow
	Removed        Kind = "removed"    // a person may have deleted the task
	CalledOff      Kind = "called-off" // a person may have cancelled the task
)

// Event is one line of a log.
type Event struct {
	Process string    `json:"process"`
	Kind    Kind      `json:"kind"`
	Called  time.Time `json:"called"` // before the call was made, by the machine's clock
	At      time.Time `json:"at"`     // after its reply, by the machine's clock

	ID     string       `json:"id,omitzero"`
	Worker string       `json:"worker,omitzero"`
	Token  driver.Token `json:"token,omitzero"`

	Existing   bool              `json:"existing,omitzero"`   // EnqueueOK: nothing new was stored
	Durability driver.Durability `json:"durability,omitzero"` // EnqueueOK: the level reached
	Unique     string            `json:"unique,omitzero"`     // EnqueueOK: the key of a task that is unique until done
	Outcome    driver.Outcome    `json:"outcome,omitzero"`    // Settle…, Ended
	ClaimedAt  time.Time         `json:"claimed_at,omitzero"` // Started: by the store's clock
	LeaseEnd   time.Time         `json:"lease_end,omitzero"`  // Leased: by the store's clock
	Error      string            `json:"error,omitzero"`
}

// Recorder writes the log of one process. Its methods may be called concurrently. Every event is written in one Write
// when it is recorded; an error of the writer is kept for Err.
type Recorder struct {
	process string

	mu  sync.Mutex
	w   io.Writer
	err error
}

// NewRecorder returns a recorder that writes to w. process names the process, or the part of one, in what the checker
// reports. Two processes that share a file must have opened it for appending.
func NewRecorder(w io.Writer, process string) *Recorder { return &Recorder{w: w, process: process} }

// Err returns the first error of the writer.
func (r *Recorder) Err() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}

// Add writes an event. It sets Process, and At and Called to the present where they are zero.
func (r *Recorder) Add(e Event) {
	e.Process = r.process
	if e.At.IsZero() {
		e.At = time.Now()
	}
	if e.Called.IsZero() {
		e.Called = e.At
	}
	line, err := json.Marshal(e)
	r.mu.Lock()
	defer r.mu.Unlock()
	if err == nil && r.err == nil {
		_, err = r.w.Write(append(line, '\n'))
	}
	if r.err == nil {
		r.err = err
	}
}

// Enqueued records the result of one task. called is the time before the call.
func (r *Recorder) Enqueued(called time.Time, t *driver.Task, res driver.EnqueueResult) {
	e := Event{Kind: EnqueueOK, Called: called, ID: res.ID, Existing: res.Existing, Durability: res.Durability}
	switch {
	case res.Err != nil:
		e.Kind, e.ID, e.Error = EnqueueRefused, t.ID, res.Err.Error()
		if full, ok := errors.AsType[*driver.QueueFullError](res.Err); ok && full.Bound.Full == driver.FullWait {
			e.Kind = EnqueueUnknown // whoever calls is to come again, and may die in the midst of that call
		}
	case t.Unique != nil && (t.Unique.Until == driver.UntilDone || t.Unique.Until == ""):
		e.Unique = t.Unique.Key
	}
	r.Add(e)
}

// EnqueueFailed records that the call for a task returned an error: refused if the error says that nothing was stored.
func (r *Recorder) EnqueueFailed(called time.Time, t *driver.Task, err error) {
	e := Event{Kind: EnqueueRefused, Called: called, ID: t.ID, Error: err.Error()}
	if unknown(err) {
		e.Kind = EnqueueUnknown
	}
	r.Add(e)
}

// unknown tells whether a call with this error may have been done. What is not known for sure to say no may have been.
func unknown(err error) bool {
	for _, no := range []error{driver.ErrInvalid, driver.ErrStoreFull, driver.ErrUnsupported, driver.ErrLeaseLost} {
		if errors.Is(err, no) {
			return false
		}
	}
	return true
}

// Leased records that a worker's lease was granted or renewed up to a time of the store's clock.
func (r *Recorder) Leased(worker string, end time.Time) {
	r.Add(Event{Kind: Leased, Worker: worker, LeaseEnd: end})
}

// LeaseGivenUp records that a worker is about to unregister: call it before.
func (r *Recorder) LeaseGivenUp(worker string) { r.Add(Event{Kind: LeaseGivenUp, Worker: worker}) }

// Started records that a handler begins with a claim: call it before its first effect.
func (r *Recorder) Started(worker string, c driver.Claim) {
	r.Add(Event{Kind: Started, Worker: worker, ID: c.ID, Token: c.Token, ClaimedAt: c.ClaimedAt})
}

// Ended records that a handler has returned: call it after its last effect and before the settlement.
func (r *Recorder) Ended(worker string, c driver.Claim, o driver.Outcome) {
	r.Add(Event{Kind: Ended, Worker: worker, ID: c.ID, Token: c.Token, Outcome: o})
}

// Settled records what became of a settlement: err is its error, or that of the whole call.
func (r *Recorder) Settled(called time.Time, worker string, s driver.Settlement, err error) {
	e := Event{Kind: SettleAccepted, Called: called, Worker: worker, ID: s.ID, Token: s.Token, Outcome: s.Outcome}
	if err != nil {
		e.Kind, e.Error = SettleRefused, err.Error()
		if unknown(err) {
			e.Kind = SettleUnknown
		}
	}
	r.Add(e)
}

// Applied records that an operation on a task is about to be asked for: call it before.
func (r *Recorder) Applied(op driver.Op, id string) {
	switch op {
	case driver.OpRetry:
		r.Add(Event{Kind: Retried, ID: id})
	case driver.OpDelete:
		r.Add(Event{Kind: Removed, ID: id})
	case driver.OpCancel:
		r.Add(Event{Kind: CalledOff, ID: id})
	}
}

// Read returns the events of a log. A last line without its end, as a killed process leaves it, is dropped; any other
// line that is no event is an error.
func Read(src io.Reader) ([]Event, error) {
	var events []Event
	in := bufio.NewReader(src)
	for n := 1; ; n++ {
		line, err := in.ReadBytes('\n')
		switch {
		case errors.Is(err, io.EOF):
			return events, nil
		case err != nil:
			return nil, fmt.Errorf("read a history: %w", err)
		}
		var e Event
		if err := json.Unmarshal(bytes.TrimSpace(line), &e); err != nil {
			return nil, fmt.Errorf("read a history: line %d: %w", n, err)
		}
		events = append(events, e)
	}
}

// ReadFiles returns the events of several logs.
func ReadFiles(paths ...string) ([]Event, error) {
	var all []Event
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("read a history: %w", err)
		}
		events, err := Read(bytes.NewReader(data))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		all = append(all, events...)
	}
	return all, nil
}
