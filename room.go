package waggle

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/waggleq/waggle/driver"
)

// Enqueues that wait for room in a full queue share one reader of the store's events. It tells them to try again when a task
// of such a queue has begun, has ended or was removed, or its bound was changed; and once a roomLook, as events can be lost.
const (
	roomLook  = time.Second
	roomPause = 5 * time.Millisecond // between two tries, however many events there are
)

// roomWaits has the enqueues of a client that wait for room.
type roomWaits struct {
	c *Client

	mu     sync.Mutex
	queues map[string]int // how many wait for each
	news   chan struct{}  // closed when it is time to try again
	stop   context.CancelFunc
}

func (r *roomWaits) init(c *Client) {
	r.c, r.queues, r.news = c, make(map[string]int), make(chan struct{})
}

// waitsForRoom returns the queue for which the caller of an enqueue that failed is to wait.
func waitsForRoom(err error) (string, bool) {
	full, ok := errors.AsType[*driver.QueueFullError](err)
	if !ok || full.Bound.Full != driver.FullWait {
		return "", false
	}
	return full.Queue, true
}

// until tries again, each time that there may be room in a queue, until try says that it is done or ctx ends. It returns why
// ctx ended.
func (r *roomWaits) until(ctx context.Context, queue string, try func() (done bool)) error {
	r.join(queue)
	defer r.leave(queue)
	if told := r.c.opts.QueueWait; told != nil {
		told(queue)
	}
	for {
		news := r.next() // before the try, so that nothing falls between
		if ctx.Err() == nil && try() {
			return nil
		}
		select {
		case <-news:
		case <-ctx.Done():
			return causeOf(ctx)
		}
	}
}

func (r *roomWaits) next() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.news
}

func (r *roomWaits) join(queue string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.queues[queue]++
	if r.stop == nil {
		ctx, cancel := context.WithCancel(context.Background())
		r.stop = cancel
		go r.read(ctx)
	}
}

func (r *roomWaits) leave(queue string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.queues[queue]--; r.queues[queue] == 0 {
		delete(r.queues, queue)
	}
	if len(r.queues) == 0 {
		r.stop()
		r.stop = nil
	}
}

// tell has all who wait try again.
func (r *roomWaits) tell() {
	r.mu.Lock()
	defer r.mu.Unlock()
	close(r.news)
	r.news = make(chan struct{})
}

func (r *roomWaits) read(ctx context.Context) {
	cursor, timer := driver.EventsFromNow, time.NewTimer(0)
	defer timer.Stop()
	<-timer.C
	for last := time.Now(); ctx.Err() == nil; {
		pause := roomPause
		page, err := r.c.store.Events(ctx, driver.EventQuery{After: cursor, Wait: roomLook})
		switch {
		case err != nil: // the tries tell of it
			cursor, pause = driver.EventsFromNow, roomLook
		default:
			cursor = page.Next
		}
		if err != nil || page.Gap || r.mayHaveRoom(page.Events) || time.Since(last) >= roomLook {
			r.tell()
			last = time.Now()
		}
		timer.Reset(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
	}
}

// mayHaveRoom reports whether events tell of more room in a queue that somebody waits for.
func (r *roomWaits) mayHaveRoom(events []driver.Event) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range events {
		if r.queues[e.Queue] == 0 {
			continue
		}
		switch e.Kind {
		case driver.EventKind(driver.Active), driver.EventKind(driver.Cancelled), driver.EventKind(driver.Discarded),
			driver.EventDeleted, driver.EventQueueChanged, driver.EventQueueDeleted:
			return true
		}
	}
	return false
}

// gaveUp is the error of an enqueue whose caller's context ended while it waited for room.
func gaveUp(full, cause error) error {
	return fmt.Errorf("%w; gave up waiting for room: %w", full, cause)
}
