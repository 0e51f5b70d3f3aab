package runner

import "time"

// A task that has crashed its workers twice is on probation: it runs alone in its process, so that if it kills that one
// too, no other task is charged for it.
//
// While such a task is first in line nothing new starts, until all that runs has returned; after one lease it starts
// beside the tasks that still run. In either case nothing is started beside it until it ends. So a task that shared its
// process with a deadly one is charged twice at most, after which it is on probation itself and shares with none: with
// a crash limit of three or more, a healthy task is never discarded for its company's crashes. The price is a worker
// that works on one task only while one on probation runs.
const probationCrashes = 2

// minStale is the shortest time after which a claimed job that found no slot is given back.
const minStale = 50 * time.Millisecond

// pop takes the next job that may start now off the line.
func (d *desk) pop() *Job {
	j := d.queue.first()
	if j == nil || d.solo != nil {
		return nil
	}
	if j.Crashes >= probationCrashes {
		if wait := time.Until(j.offered.Add(d.lease)); d.running > 0 && wait > 0 {
			d.armLift(wait)
			return nil
		}
		d.solo = j
	}
	d.queue.pop()
	return j
}

// heldUp reports whether the line stands still for a job on probation.
func (d *desk) heldUp() bool {
	j := d.queue.first()
	return d.solo != nil || j != nil && j.Crashes >= probationCrashes
}

func (d *desk) armLift(wait time.Duration) {
	if d.lift == nil {
		d.lift = time.AfterFunc(wait, func() {
			d.mu.Lock()
			d.lift = nil
			d.mu.Unlock()
			d.work.Broadcast()
		})
	}
}

// endProbation lets the line go on when the job that ran alone has ended, or the last that one waits for.
func (d *desk) endProbation(j *Job) {
	if d.solo == j {
		d.solo = nil
		d.work.Broadcast()
	} else if d.running == 0 && d.heldUp() {
		d.work.Signal()
	}
}
