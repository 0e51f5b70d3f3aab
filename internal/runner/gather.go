package runner

import (
	"context"
	"slices"
	"time"

	"github.com/waggleq/waggle/driver"
)

// Gather says when the tasks of a type whose handler takes many at once are enough: when there are Max, when Wait has
// passed since the first came, or Quiet (if it is not 0) since the last.
type Gather struct {
	Max         int
	Wait, Quiet time.Duration
}

const (
	// mostGathered is how many tasks of all batches wait for company at most, unless one batch needs more. Beyond that the
	// batch that has waited longest has to do with what it has.
	mostGathered = 1000
	// batchStale is after how long a batch that found no slot is given back.
	batchStale = time.Second
)

// crowd is what the tasks of a batch have in common.
type crowd struct {
	s          *session
	queue, typ string
	key        string
	timeout    time.Duration // their own
}

func crowdOf(j *Job) crowd { return crowd{j.s, j.Queue, j.Type, j.Key, j.Timeout} }

// batch is claims that are run by one call of a handler, in one slot. Each has its own claim, token and outcome. The
// batch is in the desk's queue by its first job.
type batch struct {
	crowd crowd
	rule  Gather
	jobs  []*Job
	first time.Time // when the first job came
	last  time.Time
	timer *time.Timer // runs while the batch gathers

	cancel context.CancelCauseFunc // of the call
	ends   []driver.Settlement     // how each job ended
}

// gather adds a job to the batch that it belongs to, and puts that in line if it is full. d.mu is held.
func (d *desk) gather(j *Job, rule Gather) {
	c := crowdOf(j)
	b := d.gathering[c]
	if b == nil {
		b = &batch{crowd: c, rule: rule, first: j.offered}
		d.gathering[c] = b
		b.timer = time.AfterFunc(b.until().Sub(j.offered), func() { d.gathered(b) })
	}
	b.jobs, b.last = append(b.jobs, j), j.offered
	j.batch, j.batched = b, true
	d.batched++
	d.waitFor++
	if len(b.jobs) >= rule.Max {
		d.ready(b)
	} else if d.waitFor > max(mostGathered, rule.Max) {
		d.ready(d.oldestBatch())
	}
}

// until is when the batch has gathered for long enough, as things stand.
func (b *batch) until() time.Time {
	end := b.first.Add(b.rule.Wait)
	if quiet := b.last.Add(b.rule.Quiet); b.rule.Quiet > 0 && !b.last.IsZero() && quiet.Before(end) {
		return quiet
	}
	if b.rule.Quiet > 0 && b.last.IsZero() && b.rule.Quiet < b.rule.Wait {
		return b.first.Add(b.rule.Quiet)
	}
	return end
}

// gathered is called when a batch may have waited for long enough.
func (d *desk) gathered(b *batch) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.gathering[b.crowd] != b {
		return
	}
	if left := time.Until(b.until()); left > 0 {
		b.timer.Reset(left)
		return
	}
	d.ready(b)
	d.wakeSlot()
	d.armSweeper()
}

func (d *desk) oldestBatch() *batch {
	var oldest *batch
	for _, b := range d.gathering {
		if oldest == nil || b.first.Before(oldest.first) {
			oldest = b
		}
	}
	return oldest
}

// ready puts a batch in line for a slot.
func (d *desk) ready(b *batch) {
	d.disperse(b)
	b.jobs[0].offered = time.Now()
	d.queue.push(b.jobs[0])
}

// disperse ends the gathering of a batch.
func (d *desk) disperse(b *batch) {
	b.timer.Stop()
	delete(d.gathering, b.crowd)
	d.waitFor -= len(b.jobs)
}

// readyAll puts all batches in line, as they are, and returns how many.
func (d *desk) readyAll() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := len(d.gathering)
	for len(d.gathering) > 0 {
		d.ready(d.oldestBatch())
	}
	d.wakeSlot()
	d.armSweeper()
	return n
}

// takeGathering removes and returns the jobs of a session (nil: of all) that wait for company.
func (d *desk) takeGathering(s *session) (jobs []*Job) {
	for c, b := range d.gathering {
		if s == nil || c.s == s {
			d.disperse(b)
			jobs = append(jobs, b.jobs...)
		}
	}
	return jobs
}

// takeWaiting removes and returns the jobs of a session that wait for a slot or for company.
func (d *desk) takeWaiting(s *session) []*Job {
	jobs := d.takeGathering(s)
	for _, j := range d.queue.take(func(j *Job) bool { return j.s == s }) {
		jobs = append(jobs, j.all()...)
	}
	return jobs
}

// gatherRoom is how many more tasks of types that are run in batches the free slots have a use for.
func (d *desk) gatherRoom() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	most := 0
	for _, rule := range d.rules {
		most = max(most, rule.Max)
	}
	free := d.slots - d.running - d.resting - d.queue.len()
	return min(free*most, max(mostGathered, most), maxFetch) - d.waitFor
}

// leave takes a job that waits for a slot out of the line, or out of its batch.
func (d *desk) leave(j *Job) {
	b := j.batch
	if b == nil {
		d.queue.remove(j)
		return
	}
	i := slices.Index(b.jobs, j)
	b.jobs = slices.Delete(b.jobs, i, i+1)
	switch gathering := d.gathering[b.crowd] == b; {
	case gathering:
		d.waitFor--
		if len(b.jobs) == 0 {
			d.disperse(b)
		}
	case i == 0 && len(b.jobs) > 0:
		b.jobs[0].offered = j.offered
		d.queue.replace(j, b.jobs[0])
	case i == 0:
		d.queue.remove(j)
	}
}

// all returns the jobs that are run together with this one, itself first.
func (j *Job) all() []*Job {
	if j.batch == nil {
		return []*Job{j}
	}
	return j.batch.jobs
}

// mates returns the jobs that are run together with this one.
func (j *Job) mates() []*Job {
	if j.batch == nil {
		return nil
	}
	return j.batch.jobs[1:]
}

// goesOn reports whether the call of a batch goes on when one job's context ends with this cause: while not all were cancelled.
func (b *batch) goesOn(cause error) bool {
	return cause == ErrCancelled && slices.ContainsFunc(b.jobs, func(j *Job) bool { return !j.asked.Load() })
}

// runBatch runs the jobs of a batch; the outcomes are in batch.ends. It returns the first.
func (d *desk) runBatch(lead *Job) driver.Settlement {
	b := lead.batch
	ctx, cancel := context.WithCancelCause(lead.s.jobs)
	defer cancel(nil)
	if timeout := d.handler.Timeout(lead); timeout > 0 {
		var stop context.CancelFunc
		ctx, stop = context.WithTimeoutCause(ctx, timeout, ErrTimeout)
		defer stop()
		defer context.AfterFunc(ctx, func() { d.overdue(lead) })()
	}
	b.ends = make([]driver.Settlement, len(b.jobs))
	var run []*Job
	var at []int
	d.mu.Lock()
	b.cancel = cancel
	for i, j := range b.jobs {
		if context.Cause(j.ctx) != nil { // cancelled before it began
			b.ends[i] = driver.Settlement{Outcome: driver.Release, Unbegun: true}
			continue
		}
		j.cancel(nil)
		j.ctx, j.cancel = context.WithCancelCause(ctx)
		run, at = append(run, j), append(at, i)
	}
	d.mu.Unlock()
	if len(run) > 0 {
		for k, st := range d.handler.RunBatch(ctx, run) {
			b.ends[at[k]] = st
		}
	}
	return b.ends[0]
}

// Context is what a job's own share of a batch's call ends with.
func (j *Job) Context() context.Context { return j.ctx }
