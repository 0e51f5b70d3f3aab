package waggle

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/waggleq/waggle/driver"
)

// lane carries tasks of one durability level to the store, the way databases group commits: while one batch is in flight
// the next one fills. So a lone call pays no delay and a thousand share a round trip.
type lane struct {
	c     *Client
	level Durability

	mu      sync.Mutex
	waiting []*call
	spare   []*call // the buffer of the batch before
	sending bool
	free    []*call         // used again; a call is not when its caller gave up
	idle    []chan struct{} // closed when nothing is waiting or in flight
	tasks   []*driver.Task  // of the batch in flight; owned by run
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
	if !l.sending {
		l.sending = true
		go l.run()
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

// run sends batches until nothing waits.
func (l *lane) run() {
	for {
		batch := l.take()
		if batch == nil {
			return
		}
		for len(batch) > 0 {
			n := l.fit(batch)
			l.send(batch[:n])
			batch = batch[n:]
		}
	}
}

// take takes all that waits and whose callers still do.
func (l *lane) take() []*call {
	l.mu.Lock()
	defer l.mu.Unlock()
	batch := l.waiting
	l.waiting, l.spare = l.spare[:0], batch
	kept := batch[:0]
	for _, k := range batch {
		if !k.gone {
			kept = append(kept, k)
		}
	}
	clear(batch[len(kept):])
	if len(kept) > 0 {
		return kept
	}
	l.sending = false
	for _, done := range l.idle {
		close(done)
	}
	l.idle = nil
	return nil
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

func (l *lane) send(batch []*call) {
	l.tasks = l.tasks[:0]
	for _, k := range batch {
		l.tasks = append(l.tasks, k.task)
	}
	ctx, cancel := context.WithTimeout(context.Background(), l.c.opts.Timeout)
	defer cancel()
	results, tries, err := l.c.put(ctx, l.tasks, l.level)
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
	clear(l.tasks)
}

// flush waits until nothing is waiting or in flight.
func (l *lane) flush(ctx context.Context) error {
	l.mu.Lock()
	if !l.sending {
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
// done, no task is stored twice. It returns how many tries were made.
func (c *Client) put(ctx context.Context, tasks []*driver.Task, level Durability) ([]driver.EnqueueResult, int, error) {
	for try := 1; ; try++ {
		results, err := c.store.Enqueue(ctx, tasks, driver.EnqueueOptions{Durability: level})
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
