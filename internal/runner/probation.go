package runner

import (
	"time"
)

// A task that has crashed its workers twice is on probation: it runs alone in its process, so that if it kills that one
// too, no other task is charged for it.
//
// Alone means that the process holds no other claim: none that runs, none that waits, none whose outcome the store has
// not acknowledged, since a store charges a dead worker's crash to all that it held. So while such a task is first in
// line nothing new starts or is fetched, what waits behind it is given back, and it starts when all that ran has returned
// and is settled; after one lease it starts beside what still runs. In either case nothing is started beside it until it
// ends. So a task that shared its process with a deadly one is charged twice at most, after which it is on probation
// itself and shares with none: with a crash limit of three or more, a healthy task is never discarded for its company's
// crashes. The price is a worker that works on one task only while one on probation runs.
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
		d.clearLine()
		if wait := time.Until(j.offered.Add(d.lease)); !d.alone() && wait > 0 {
			d.armLift(wait)
			return nil
		}
		d.solo = j
	}
	d.queue.pop()
	return j
}

// alone reports whether one job is all that this process holds, or may be about to hold.
func (d *desk) alone() bool { return len(d.held) == 1 && !d.fetching }

// clearLine gives back what waits behind or beside a job on probation.
func (d *desk) clearLine() {
	if !d.heldUp() {
		return
	}
	keep := d.queue.first()
	if d.solo != nil {
		keep = nil
	}
	for _, j := range d.queue.take(func(j *Job) bool { return j != keep }) {
		d.giveBack(j.all())
	}
	d.giveBack(d.takeGathering(nil))
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

// endProbation lets the line go on when the job that ran alone has ended.
func (d *desk) endProbation(j *Job) {
	if d.solo == j {
		d.solo = nil
		d.work.Broadcast()
	}
}

// tryProbation has a slot look at the line again if the job on probation that is first in it is alone now.
func (d *desk) tryProbation() {
	if d.solo == nil && d.heldUp() && d.alone() {
		d.work.Signal()
	}
}
