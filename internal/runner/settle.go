package runner

import (
	"context"
	"errors"
	"time"

	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/internal/logkey"
)

// maxSettle is how many outcomes one call carries.
const maxSettle = 1000

// settler delivers outcomes to the store: while one batch is in flight the next one fills. A batch is repeated with the
// same tokens until the store answers or the session is over, which changes nothing where an earlier try had been
// executed and only its reply was lost.
type settler struct {
	s     *session
	wake  chan struct{}
	quit  chan struct{} // closed: end when nothing is left
	ended chan struct{} // closed when it has

	// Guarded by desk.mu; parallel.
	items []driver.Settlement
	jobs  []*Job
	idle  bool
	// The buffers of the batch before, to be used again; owned by run.
	spareItems []driver.Settlement
	spareJobs  []*Job
}

func (t *settler) init(s *session) {
	t.s, t.wake = s, make(chan struct{}, 1)
	t.quit, t.ended = make(chan struct{}), make(chan struct{})
}

// put adds an outcome. desk.mu is held.
func (t *settler) put(j *Job, st driver.Settlement) {
	t.items, t.jobs = append(t.items, st), append(t.jobs, j)
	if t.idle {
		t.idle = false
		t.wake <- struct{}{} // never blocks: idle was set once
	}
}

// swap takes all outcomes. desk.mu is held.
func (t *settler) swap() ([]driver.Settlement, []*Job) {
	items, jobs := t.items, t.jobs
	t.items, t.jobs = t.spareItems[:0], t.spareJobs[:0]
	t.spareItems, t.spareJobs = nil, nil
	return items, jobs
}

// next waits for outcomes. It returns none when there will be none.
func (t *settler) next() ([]driver.Settlement, []*Job) {
	for t.s.ctx.Err() == nil {
		t.s.desk.mu.Lock()
		if len(t.items) > 0 {
			items, jobs := t.swap()
			t.s.desk.mu.Unlock()
			return items, jobs
		}
		t.idle = true
		t.s.desk.mu.Unlock()
		select {
		case <-t.wake:
		case <-t.s.ctx.Done():
		case <-t.quit:
			t.s.desk.mu.Lock()
			left := len(t.items)
			t.s.desk.mu.Unlock()
			if left == 0 {
				return nil, nil
			}
			t.drainWake()
		}
	}
	return nil, nil
}

func (t *settler) drainWake() {
	t.s.desk.mu.Lock()
	defer t.s.desk.mu.Unlock()
	t.idle = false
	select {
	case <-t.wake:
	default:
	}
}

func (t *settler) run() {
	defer close(t.ended)
	for {
		items, jobs := t.next()
		if len(items) == 0 {
			return
		}
		t.s.reporter.flush(jobs)
		for at := 0; at < len(items); at += maxSettle {
			end := min(at+maxSettle, len(items))
			if !t.send(items[at:end], jobs[at:end]) {
				t.keep(items[at:], jobs[at:])
				return
			}
		}
		clear(items)
		clear(jobs)
		t.spareItems, t.spareJobs = items, jobs
	}
}

// keep puts back what could not be delivered, for the winding up of the session.
func (t *settler) keep(items []driver.Settlement, jobs []*Job) {
	t.s.desk.mu.Lock()
	defer t.s.desk.mu.Unlock()
	t.items, t.jobs = append(items, t.items...), append(jobs, t.jobs...)
}

// send delivers one batch. It reports whether the store has answered.
func (t *settler) send(items []driver.Settlement, jobs []*Job) bool {
	s := t.s
	tr := trouble{log: s.cfg.Logger, op: "settle", limit: s.cfg.Lease}
	for {
		call, cancel := context.WithTimeout(s.ctx, callTimeout(s.cfg.Lease))
		results, err := s.cfg.Store.Settle(call, s.id, items)
		cancel()
		if err == nil {
			tr.over()
			again := t.refused(items, jobs, results)
			s.desk.tell(items, jobs, results)
			s.planner.settled(items, jobs)
			s.desk.settled(jobs)
			return t.sendAgain(jobs, again)
		}
		if s.ctx.Err() != nil || s.failed(err) {
			return false
		}
		tr.hit(s.ctx, err)
	}
}

// refused looks for outcomes of a batch that the store finds invalid. It returns by their place what to settle instead: the
// task must not stay with this worker for ever.
func (t *settler) refused(items []driver.Settlement, jobs []*Job, results []driver.SettleResult) map[int]driver.Settlement {
	var again map[int]driver.Settlement
	for i := range results {
		err := results[i].Err
		if err == nil || errors.Is(err, driver.ErrLeaseLost) {
			continue
		}
		t.s.cfg.Logger.Error("the store refuses the outcome of a task", append(jobAttrs(jobs[i]),
			logkey.Outcome, string(items[i].Outcome), logkey.Error, err)...)
		if again == nil {
			again = make(map[int]driver.Settlement)
		}
		again[i] = driver.Settlement{
			ID: items[i].ID, Token: items[i].Token, Outcome: driver.Retry, Delay: time.Minute, Ran: max(items[i].Ran, 0),
			Error: "its outcome could not be stored: " + err.Error(),
		}
	}
	return again
}

// sendAgain settles what takes the place of invalid outcomes. It reports whether the session can go on.
func (t *settler) sendAgain(jobs []*Job, again map[int]driver.Settlement) bool {
	for i, st := range again {
		results, err := t.s.cfg.Store.Settle(t.s.ctx, t.s.id, []driver.Settlement{st})
		if err != nil {
			return !t.s.failed(err)
		}
		t.s.desk.tell([]driver.Settlement{st}, jobs[i:i+1], results)
	}
	return true
}

// tell hands on what the store has made of outcomes. It leaves out those that it finds invalid: another takes their place.
func (d *desk) tell(items []driver.Settlement, jobs []*Job, results []driver.SettleResult) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i, res := range results {
		if res.Err == nil || errors.Is(res.Err, driver.ErrLeaseLost) {
			d.told(jobs[i], &items[i], res)
		}
	}
}

// told counts what became of a job, and tells its handler if the job has run. d.mu is held.
func (d *desk) told(j *Job, st *driver.Settlement, res driver.SettleResult) {
	switch {
	case res.Err != nil && j.began:
		d.ends.Late++
	case res.Err != nil:
	case res.State == driver.Completed:
		d.ends.Completed++
	case res.State == driver.Discarded:
		d.ends.Discarded++
	case res.State == driver.Cancelled:
		d.ends.Cancelled++
	case st.Outcome == driver.Snooze:
		d.ends.Snoozed++
	case st.Outcome == driver.Release && j.began:
		d.ends.GivenBack++
	}
	if res.Err == nil && st.Outcome == driver.Retry && res.State != driver.Cancelled {
		d.ends.Failed++
	}
	if j.began {
		d.handler.Ended(j, st, res)
	}
}
