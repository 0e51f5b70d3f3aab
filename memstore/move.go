package memstore

import (
	"time"

	"github.com/waggleq/waggle/driver"
)

// move changes a task's state with all that hangs on it: indexes, totals, unique key, event, wake-up. Reason is for
// ends as discarded or cancelled.
func (s *Store) move(t *task, to driver.State, reason driver.Reason) {
	from := t.State
	if t.State != "" {
		s.unlink(t)
	}
	t.State, t.Reason, t.CancelRequested = to, reason, false
	totals := &t.line.queue.totals
	switch to {
	case driver.Completed:
		totals.Completed++
	case driver.Cancelled:
		totals.Cancelled++
	case driver.Discarded:
		totals.Discarded++
	}
	if to.Ended() {
		t.EndedAt = s.now
		s.freeKey(t, driver.UntilDone, driver.UntilStarted)
		s.tellEnd(t, to)
	}
	s.link(t)
	q := t.line.queue
	if from == driver.Active && to == driver.Available && t.flow != nil {
		t.flow.key.tag = driver.TagReturned(t.flow.key.tag, q.virtual)
	}
	if q.flows(t) {
		s.regate(q, t.Key, to != driver.Available)
	}
	s.emit(driver.Event{Kind: driver.EventKind(to), ID: t.ID, Queue: t.Queue, Type: t.Type, Worker: t.holder(), Reason: reason})
	switch {
	case to == driver.Available && !q.config.Paused && s.open(t.line) && (t.flow == nil || !t.flow.parked):
		s.wake(t.line)
	case t.line.heaps[byDue].top() == t:
		t.line.dueNews = !s.wake(t.line)
	}
	if from == driver.Active && to != driver.Available {
		s.freed(q)
	}
}

// holder is the worker that holds the task, if one does.
func (t *task) holder() string {
	if t.State == driver.Active {
		return t.Worker
	}
	return ""
}

// enter makes a task available at the end of the line.
func (s *Store) enter(t *task) {
	if t.order = t.seq; t.Key == "" || !t.line.queue.config.Keys.Ordered() {
		s.lastSeq++
		t.order = s.lastSeq
	}
	s.move(t, driver.Available, "")
}

// wait makes a task scheduled or retryable, due after a delay.
func (s *Store) wait(t *task, state driver.State, delay time.Duration) {
	t.DueAt = s.now.Add((delay + time.Millisecond - 1).Truncate(time.Millisecond)) // rounded up: never early
	s.move(t, state, "")
}

// crash takes a task from a worker that died.
func (s *Store) crash(t *task, w *worker) {
	t.Crashes++
	t.record(w, driver.Attempt{Outcome: driver.Crash, Started: t.ClaimedAt, Ended: s.now, Reason: driver.CrashReason(t.Crashes, t.CrashLimit, t.CancelRequested)})
	t.Attempt--
	t.line.queue.totals.Crashed++
	switch {
	case t.CancelRequested:
		s.move(t, driver.Cancelled, driver.ReasonRequested)
	case t.Crashes >= t.CrashLimit:
		s.move(t, driver.Discarded, driver.ReasonCrashes)
	default:
		s.move(t, driver.Available, "") // at its old place
	}
}

// release gives a task back that its worker did not want to run to an end.
func (s *Store) release(t *task) {
	t.Attempt--
	if t.CancelRequested {
		s.move(t, driver.Cancelled, driver.ReasonRequested)
		return
	}
	s.move(t, driver.Available, "") // at its old place
}

// record adds to a task's history an attempt on worker w.
func (t *task) record(w *worker, a driver.Attempt) {
	a.Number, a.Worker, a.Host, a.Build = t.Attempt, w.ID, w.Host, w.Build
	t.Attempts = driver.AppendAttempt(t.Attempts, a)
}

// drop removes a task from the store.
func (s *Store) drop(t *task) {
	s.unlink(t)
	s.regate(t.line.queue, t.Key, true)
	s.freeKey(t, driver.UntilDone, driver.UntilStarted)
	delete(s.tasks, t.ID)
	s.journal.remove(t)
	t.Payload, t.Result, t.Attempts, t.Logs = nil, nil, nil, nil // it may still own a unique key for a time
}
