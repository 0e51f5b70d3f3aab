package runner

import (
	"context"
	"math"
	"time"
)

// pace decides how many jobs may wait for a slot, so that slots need not wait for the store.
//
// The number follows completion rate × round-trip time: what the slots finish while one fetch is under way. A job that
// waits then starts about as soon as another worker could have fetched it. Where handlers take about as long as a round
// trip or longer nothing is fetched ahead: an idle slot costs little then, and a task that waits here while another
// worker is idle costs much.
type pace struct {
	last progress
	at   time.Time
	rate float64 // completions a second
	trip float64 // seconds a fetch takes
	mean float64 // seconds a handler runs
}

// progress is how far the desk has come.
type progress struct {
	done    int64
	ranFor  time.Duration
	taken   int64
	payload int64
	stalled bool
}

const (
	aheadBytes = 8 << 20 // payloads that may wait
	farBelow   = 4       // how many handlers must fit into a round trip
)

// ahead notes a fetch that has returned at now after trip (0: it has waited for work, so that is not known), and returns
// how many jobs may wait.
func (p *pace) ahead(pr progress, now time.Time, trip time.Duration) int {
	done, ran := pr.done-p.last.done, pr.ranFor-p.last.ranFor
	elapsed := now.Sub(p.at).Seconds()
	first := p.at.IsZero()
	p.last, p.at = pr, now
	if trip > 0 {
		p.trip = blend(p.trip, trip.Seconds())
	}
	if first || elapsed <= 0 {
		return 0
	}
	p.rate = blend(p.rate, float64(done)/elapsed)
	if done > 0 {
		p.mean = blend(p.mean, ran.Seconds()/float64(done))
	}
	if pr.stalled || p.mean*farBelow > p.trip {
		return 0
	}
	n := math.Ceil(2 * p.rate * p.trip)
	if pr.taken > 0 && pr.payload > 0 {
		n = min(n, aheadBytes/(float64(pr.payload)/float64(pr.taken)))
	}
	return int(min(n, maxFetch))
}

func blend(old, v float64) float64 {
	if old == 0 {
		return v
	}
	return old + (v-old)/4
}

func (d *desk) progress() progress {
	d.mu.Lock()
	defer d.mu.Unlock()
	pr := progress{d.done, d.ranFor, d.taken, d.payload, d.stalled}
	d.stalled = false
	return pr
}

func (d *desk) setAhead(n int) {
	d.mu.Lock()
	d.ahead = n
	d.mu.Unlock()
}

// fetched notes that no claims are on their way any more.
func (d *desk) fetched() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fetching = false
	d.tryProbation()
}

// maxUnsettled stops fetching when the store takes claims faster than outcomes.
const maxUnsettled = 4 * maxFetch

// want returns how many jobs to fetch now; 0: none yet.
func (d *desk) want() int {
	if d.heldUp() || len(d.held)-d.batched > d.slots+maxUnsettled {
		return 0
	}
	taken, ahead := d.running+d.resting, d.ahead
	if d.resting > 0 {
		ahead = 0 // what lies here may have to wait for long
	}
	n := d.slots + ahead - taken - d.queue.len()
	if taken+d.queue.len() >= d.slots && d.queue.len() > ahead/2 {
		return 0 // no slot waits and half of what may wait is there
	}
	return min(n, maxFetch)
}

// awaitRoom waits until there is something to fetch for, and returns how much; 0 when idle ends or, if it is set, at the
// time until.
func (d *desk) awaitRoom(idle context.Context, until time.Time) int {
	var alarm <-chan time.Time // only made if it has to wait: this is called for each fetch
	for {
		d.mu.Lock()
		n := d.want()
		d.roomAsked, d.fetching = n <= 0, n > 0
		d.mu.Unlock()
		if n > 0 {
			return n
		}
		if alarm == nil && !until.IsZero() {
			timer := time.NewTimer(time.Until(until))
			defer timer.Stop()
			alarm = timer.C
		}
		select {
		case <-d.room:
			continue
		case <-idle.Done():
		case <-alarm:
		}
		d.unaskRoom()
		return 0
	}
}

// waitsForRoom reports whether the fetcher waits for room.
func (d *desk) waitsForRoom() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.roomAsked
}

// unaskRoom takes back that the fetcher waits for room.
func (d *desk) unaskRoom() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.roomAsked = false
	select {
	case <-d.room:
	default:
	}
}

// clear reports whether nothing of a session is waiting, running or unsettled.
func (d *desk) clear(s *session) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, j := range d.held {
		if j.s == s {
			return false
		}
	}
	return s.active == 0
}

// wakeWhenClear calls wake when nothing is held any more, unless ctx ends first. busy is whether something was held when
// the caller last looked; if not, there is nothing to wait for.
func (d *desk) wakeWhenClear(ctx context.Context, wake func(), busy bool) {
	d.mu.Lock()
	if len(d.held) == 0 {
		d.mu.Unlock()
		if busy {
			wake()
		}
		return
	}
	empty := make(chan struct{})
	d.empty = empty
	d.mu.Unlock()
	select {
	case <-empty:
		wake()
	case <-ctx.Done():
	}
}

// armSweeper has jobs given back that find no slot for too long: those that run take longer than they used to.
func (d *desk) armSweeper() {
	if d.queue.len() > 0 && d.sweeper == nil && !d.closed {
		d.sweeper = time.AfterFunc(d.stale, d.sweep)
	}
}

func (d *desk) sweep() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.sweeper = nil
	before := time.Now().Add(-d.stale)
	first := d.queue.first()
	late := time.Now().Add(-max(d.stale, batchStale))
	for _, j := range d.queue.take(func(j *Job) bool {
		limit := before
		if j.batch != nil {
			limit = late
		}
		// One on probation that is first in line has its turn next, however long that takes.
		return j.offered.Before(limit) && !(j == first && j.Crashes >= probationCrashes)
	}) {
		d.stalled = true
		d.ahead = 0
		d.giveBack(j.all())
	}
	d.wantRoom()
	d.armSweeper()
}
