package runner

import (
	"context"
	"time"

	"github.com/waggleq/waggle/driver"
)

// slot runs jobs one after another until the desk closes. A slot is one goroutine that is used again and again; it is
// free only when its handler has returned.
func (d *desk) slot() {
	var j *Job
	var began time.Time
	defer func() {
		if j == nil {
			return
		}
		// The handler has ended its goroutine: the job ends here, and a new goroutine takes over the slot.
		j.free()
		d.finish(j, d.handler.Exited(j), time.Since(began))
		go d.slot()
	}()
	j, began = d.next(nil, driver.Settlement{}, time.Time{}, time.Time{})
	for j != nil {
		st := d.run(j, began)
		done := j
		j = nil // so that a slot that waits long does not keep the batch of its last job in memory
		if done.Rest > 0 {
			d.rest(done, st, time.Since(began))
			done = nil
		}
		j, began = d.next(done, st, began, time.Now())
	}
}

// run runs one job.
func (d *desk) run(j *Job, now time.Time) driver.Settlement {
	if !j.s.holds(now) {
		// The process was held up since the claim; the store may have given the task to another worker by now.
		d.abandonBecause(j.s, errNotRenewed)
	}
	if back, shut := d.shut(j); shut {
		return back
	}
	if j.batch != nil {
		return d.runBatch(j)
	}
	ctx := j.ctx
	if timeout := d.handler.Timeout(j); timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, timeout, ErrTimeout)
		defer cancel()
		defer context.AfterFunc(ctx, func() { d.overdue(j) })()
	}
	if context.Cause(ctx) != nil {
		return driver.Settlement{Outcome: driver.Release, Unbegun: true} // cancelled before it began
	}
	return d.handler.Run(ctx, j)
}

// next ends a slot's job, if it has one, and waits for its next, which it returns with the time of its start; nil when
// there will be none. A job that was waiting starts when the one before has ended, so that the clock is read once a job.
func (d *desk) next(done *Job, st driver.Settlement, began, ended time.Time) (*Job, time.Time) {
	if done != nil {
		done.free()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if done != nil {
		d.end(done, st, ended.Sub(began))
	} else {
		d.waking = false
	}
	start, j := ended, d.pop()
	if done == nil {
		start = time.Time{}
	}
	for ; j == nil && !d.closed; j = d.pop() {
		d.wantRoom()
		d.parked++
		d.work.Wait()
		d.parked--
		d.waking, start = false, time.Time{}
	}
	if j == nil {
		d.spawned--
		return nil, start
	}
	if start.IsZero() { // it has waited
		start = time.Now()
	}
	for _, mate := range j.mates() {
		mate.state, mate.began = running, true
	}
	j.state, j.began = running, true
	j.s.active++
	d.running++
	d.wakeSlot()
	d.wantRoom()
	return j, start
}

// rest ends a slot's job and has the slot pause, unless the desk closes.
func (d *desk) rest(done *Job, st driver.Settlement, ran time.Duration) {
	done.free()
	pause := done.Rest
	d.mu.Lock()
	d.resting++
	d.end(done, st, ran)
	d.mu.Unlock()
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-d.quit:
	}
	d.mu.Lock()
	d.resting--
	d.mu.Unlock()
}

// finish ends a job without looking for the next.
func (d *desk) finish(j *Job, st driver.Settlement, ran time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.end(j, st, ran)
	d.wantRoom()
}

func (d *desk) end(j *Job, st driver.Settlement, ran time.Duration) {
	st.Ran = ran
	d.running--
	d.done++
	d.ranFor += ran
	if j.stuck != nil {
		j.stuck.Stop()
	}
	if j.mute {
		d.stuck--
		d.log.Info("a stuck handler has returned", jobAttrs(j)...)
	}
	d.settle(j, st)
	for i, mate := range j.mates() {
		st := j.batch.ends[i+1]
		st.Ran = ran
		d.settle(mate, st)
	}
	s := j.s
	s.active--
	if s.active == 0 && s.quiet != nil {
		close(s.quiet)
		s.quiet = nil
	}
	d.endProbation(j)
	d.tryProbation()
}

// wantRoom wakes the fetcher if it waits and there is room for more jobs.
func (d *desk) wantRoom() {
	if d.roomAsked && d.want() > 0 {
		d.roomAsked = false
		d.room <- struct{}{} // never blocks: it was asked for once
	}
}
