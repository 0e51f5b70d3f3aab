package waggle

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/internal/guard"
	"github.com/waggleq/waggle/internal/logkey"
)

// Enqueues that wait for room in a full queue share one reader of the store's events. It tells them to try again when a task
// of such a queue has begun, has ended or was removed, or its bound was changed; and once a roomLook, as events can be lost.
const (
	roomLook  = time.Second
	roomPause = 5 * time.Millisecond // between two tries, however many events there are
)

// roomWaits has the enqueues of a client that wait for room, those of a queue in the order of coming. For each event that
// tells of a place one of them tries again, and now and then all do: so a thousand that wait cost no more than the places there are.
type roomWaits struct {
	c *Client

	mu      sync.Mutex
	waiting map[string][]chan struct{} // by queue: each gets a value when it is time to try again
	members map[string]int             // how many wait or try, by queue
	stop    context.CancelFunc         // ends the reader; nil: none runs
}

func (r *roomWaits) init(c *Client) {
	r.c, r.waiting, r.members = c, make(map[string][]chan struct{}), make(map[string]int)
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
		if fault := guard.Apart(func() { told(queue) }); fault != nil { // the tasks are none of its business
			r.c.logger.Error("the client's QueueWait did not return", logkey.Queue, queue, logkey.Error, fault.Text, logkey.Stack, fault.Stack)
		}
	}
	turn := make(chan struct{}, 1)
	r.enter(queue, turn, false) // before the try, so that nothing falls between
	for {
		if ctx.Err() == nil && try() {
			r.quit(queue, turn, false)
			return nil
		}
		select {
		case <-turn:
			r.enter(queue, turn, true) // first again, if this is in vain
		case <-ctx.Done():
			r.quit(queue, turn, true)
			return causeOf(ctx)
		}
	}
}

func (r *roomWaits) enter(queue string, turn chan struct{}, first bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if list := r.waiting[queue]; first {
		r.waiting[queue] = slices.Insert(list, 0, turn)
	} else {
		r.waiting[queue] = append(list, turn)
	}
}

// quit takes one off the list; a turn that it had and has not used is the next one's.
func (r *roomWaits) quit(queue string, turn chan struct{}, unused bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.waiting[queue] = slices.DeleteFunc(r.waiting[queue], func(c chan struct{}) bool { return c == turn })
	if unused && len(turn) > 0 {
		r.tell(queue, 1)
	}
}

// tell has the first n who wait for a queue try again. mu is held.
func (r *roomWaits) tell(queue string, n int) {
	list := r.waiting[queue]
	if n = min(n, len(list)); n == 0 {
		return
	}
	for _, turn := range list[:n] {
		select {
		case turn <- struct{}{}:
		default: // it is about to
		}
	}
	r.waiting[queue] = slices.Delete(list, 0, n)
}

func (r *roomWaits) join(queue string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.members[queue]++
	if r.stop == nil {
		ctx, cancel := context.WithCancel(context.Background())
		r.stop = cancel
		go r.read(ctx)
	}
}

func (r *roomWaits) leave(queue string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.members[queue]--; r.members[queue] == 0 {
		delete(r.members, queue)
		delete(r.waiting, queue)
	}
	if len(r.members) == 0 {
		r.stop()
		r.stop = nil
	}
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
		if err != nil || page.Gap || time.Since(last) >= roomLook {
			r.tellAll()
			last = time.Now()
		} else {
			r.tellOf(page.Events)
		}
		timer.Reset(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
	}
}

func (r *roomWaits) tellAll() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for queue, list := range r.waiting {
		r.tell(queue, len(list))
	}
}

// tellOf has as many try again as events tell of places in their queues.
func (r *roomWaits) tellOf(events []driver.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range events {
		switch e.Kind {
		case driver.EventKind(driver.Active), driver.EventKind(driver.Cancelled), driver.EventKind(driver.Discarded), driver.EventDeleted:
			r.tell(e.Queue, 1)
		case driver.EventQueueChanged, driver.EventQueueDeleted:
			r.tell(e.Queue, len(r.waiting[e.Queue]))
		}
	}
}

// gaveUp is the error of an enqueue whose caller's context ended while it waited for room.
func gaveUp(full, cause error) error {
	return fmt.Errorf("%w; gave up waiting for room: %w", full, cause)
}
