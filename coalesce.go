package waggle

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/waggleq/waggle/driver"
)

// lane carries tasks of one durability level to the store, the way databases group commits: while one batch is in flight
// the next one fills. So a lone call pays no delay and a thousand share a round trip.
//
// Callers whose batch has landed come back one after another with their next tasks. So that the store need not wait for
// them, a second batch may be in flight. It leaves when half of the callers that there were of late wait for it, so that
// two halves take turns: earlier, the first to come back would leave alone, and batches would be small; later, the store
// would have nothing to do in the meantime. A crowd sends one batch at a time: its batches are work rather than way, and a
// server that answers two of them at once idles until their callers are back.
type lane struct {
	c     *Client
	level Durability

	mu       sync.Mutex
	waiting  []*call
	flights  int             // batches in flight
	inFlight int             // calls in them
	crowd    int             // calls that waited or were in flight at the landings of late; 0 before the first
	spare    []*flight       // used again
	free     []*call         // used again; a call is not when its caller gave up
	idle     []chan struct{} // closed when nothing is waiting or in flight
}

const (
	maxFlights = 2   // batches of a lane in flight, at most
	maxCrowd   = 100 // callers up to whom there are two
)

// flight is a batch in flight.
type flight struct {
	calls []*call
	tasks []*driver.Task // of one store call
}

// call is one task on its way.
type call struct {
	task   *driver.Task
	chosen bool // the caller chose its id
	gone   bool // the caller gave up before it was sent; guarded by lane.mu
	result EnqueueResult
	done   chan struct{}
}

func newLane(c *Client, level Durability) *lane { return &lane{c: c, level: level} }

// enqueue sends a task with the next batch and waits for its result, or until ctx ends.
func (l *lane) enqueue(ctx context.Context, t *driver.Task, chosen bool) EnqueueResult {
	id := t.ID // once it is sent the task is the store's to touch
	k := l.join(t, chosen)
	select {
	case <-k.done:
		r := k.result
		l.release(k)
		return r
	case <-ctx.Done():
	}
	l.mu.Lock()
	k.gone = true
	l.mu.Unlock()
	return EnqueueResult{Receipt{ID: id}, causeOf(ctx)}
}

func (l *lane) join(t *driver.Task, chosen bool) *call {
	l.mu.Lock()
	defer l.mu.Unlock()
	var k *call
	if n := len(l.free); n > 0 {
		k, l.free = l.free[n-1], l.free[:n-1]
	} else {
		k = &call{done: make(chan struct{}, 1)}
	}
	k.task, k.chosen = t, chosen
	l.waiting = append(l.waiting, k)
	if f := l.depart(); f != nil {
		go l.run(f)
	}
	return k
}

const maxFreeCalls = 1024

func (l *lane) release(k *call) {
	k.task, k.result = nil, EnqueueResult{}
	l.mu.Lock()
	if len(l.free) < maxFreeCalls {
		l.free = append(l.free, k)
	}
	l.mu.Unlock()
}

// run sends a batch, and after it what may leave then.
func (l *lane) run(f *flight) {
	for f != nil {
		for batch := f.calls; len(batch) > 0; {
			n := l.fit(batch)
			l.send(f, batch[:n])
			batch = batch[n:]
		}
		f = l.land(f)
	}
}

// depart makes a batch of all that waits and whose callers still do, if it may leave now. mu is held.
func (l *lane) depart() *flight {
	if l.flights == maxFlights || l.flights > 0 && !l.halfWaits() {
		return nil
	}
	l.waiting = slices.DeleteFunc(l.waiting, func(k *call) bool { return k.gone })
	if len(l.waiting) == 0 {
		return nil
	}
	f := new(flight)
	if n := len(l.spare); n > 0 {
		f, l.spare = l.spare[n-1], l.spare[:n-1]
	}
	f.calls, l.waiting = l.waiting, f.calls[:0]
	l.flights++
	l.inFlight += len(f.calls)
	return f
}

// halfWaits reports whether half of the callers that there were of late wait, and they are no crowd.
func (l *lane) halfWaits() bool {
	return l.crowd > 0 && l.crowd <= maxCrowd && 2*len(l.waiting) >= l.crowd
}

// land ends a flight and returns the next.
func (l *lane) land(f *flight) *flight {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := len(l.waiting) + l.inFlight
	l.crowd = max(now, (3*l.crowd+now)/4)
	l.flights--
	l.inFlight -= len(f.calls)
	clear(f.calls)
	l.spare = append(l.spare, f)
	next := l.depart()
	if l.flights == 0 {
		for _, done := range l.idle {
			close(done)
		}
		l.idle = nil
	}
	return next
}

// fit returns how many calls fit into one store call.
func (l *lane) fit(batch []*call) int {
	size := 0
	for n, k := range batch {
		size += len(k.task.Payload)
		if n == l.c.limits.MaxBatch || n > 0 && size > l.c.limits.MaxBatchBytes {
			return n
		}
	}
	return len(batch)
}

func (l *lane) send(f *flight, batch []*call) {
	f.tasks = f.tasks[:0]
	own := true
	for _, k := range batch {
		f.tasks = append(f.tasks, k.task)
		own = own && !k.chosen
	}
	ctx, cancel := context.WithTimeout(context.Background(), l.c.opts.Timeout)
	defer cancel()
	results, tries, err := l.c.put(ctx, f.tasks, l.level, own)
	if errors.Is(err, context.DeadlineExceeded) { // ours: the callers have their own
		err = driver.Errorf(ErrUnavailable, "the store has not answered within %v", l.c.opts.Timeout)
	}
	for i, k := range batch {
		if err != nil {
			k.result = EnqueueResult{Receipt{ID: k.task.ID}, err}
		} else {
			k.result = resultOf(results[i], k.task.ID, !k.chosen && tries > 1)
		}
		k.done <- struct{}{} // never blocks: room for one
	}
	clear(f.tasks)
}

// flush waits until nothing is waiting or in flight.
func (l *lane) flush(ctx context.Context) error {
	l.mu.Lock()
	if l.flights == 0 {
		l.mu.Unlock()
		return nil
	}
	done := make(chan struct{})
	l.idle = append(l.idle, done)
	l.mu.Unlock()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return causeOf(ctx)
	}
}

// putTries is how often a store call is made while the store is unavailable.
const putTries = 3

// put stores tasks, repeating the call with the same ids while the store is unavailable: whatever an earlier try has
// done, no task is stored twice. own says that all ids were made here. It returns how many tries were made.
func (c *Client) put(ctx context.Context, tasks []*driver.Task, level Durability, own bool) ([]driver.EnqueueResult, int, error) {
	c.tellLevel(level)
	for try := 1; ; try++ {
		results, err := c.store.Enqueue(ctx, tasks, driver.EnqueueOptions{Durability: level, NewIDs: own && try == 1})
		if err == nil || try == putTries || !errors.Is(err, ErrUnavailable) || ctx.Err() != nil {
			return results, try, err
		}
		pause := 25 * time.Millisecond << try
		timer := time.NewTimer(pause/2 + rand.N(pause/2))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, try, err
		}
	}
}
