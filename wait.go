package waggle

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/internal/logkey"
)

// Wait waits until a task has ended, however it did, and returns it; or until ctx ends. All waits of a client share one
// reader of the store's events, so that a thousand of them cost no more than one.
//
// Whoever waits while the task ends is told how. Of a queue that keeps no ended tasks that may be all: the task as it was
// when the wait began, with its last state and when it came to it, without result, attempts and reason. Wait waits for the
// task that has the id when it is called, not for another that gets the id after it was deleted.
//
// Errors: [ErrNotFound] if there is no such task, or it was deleted before it had ended;
// [ErrClosed]; why ctx ended.
func (c *Client) Wait(ctx context.Context, id string) (*TaskInfo, error) {
	t, err := c.wait(ctx, id)
	return t, failed("wait for "+id, err)
}

func (c *Client) wait(ctx context.Context, id string) (*TaskInfo, error) {
	w, err := c.waits.add(ctx, id)
	if err != nil {
		return nil, err
	}
	defer c.waits.remove(w)
	// The reader is behind what happens from here on, so that no end falls between this look and the first event.
	t, err := c.get(ctx, id)
	if err != nil || t.State.Ended() {
		return t, err
	}
	c.waits.found(w, t)
	if !t.ExpiresAt.IsZero() {
		return c.waitExpiring(ctx, w, t)
	}
	select {
	case end := <-w.end:
		return end.info, end.err
	case <-ctx.Done():
		return nil, causeOf(ctx)
	}
}

// lookExpired is how often a task is looked at again from its expiry on, until it has ended.
const lookExpired = time.Second

// waitExpiring waits for a task that may expire. No event tells of that until somebody comes by to record it, so it is
// looked at when its expiry has come, by this process's clock, and from then on.
func (c *Client) waitExpiring(ctx context.Context, w *waiter, t *TaskInfo) (*TaskInfo, error) {
	timer := time.NewTimer(max(time.Until(t.ExpiresAt)+time.Millisecond, 0))
	defer timer.Stop()
	for {
		select {
		case end := <-w.end:
			return end.info, end.err
		case <-ctx.Done():
			return nil, causeOf(ctx)
		case <-timer.C:
		}
		t, err := c.get(ctx, w.id)
		if err == nil && t.State.Ended() || errors.Is(err, ErrNotFound) {
			return t, err
		}
		timer.Reset(lookExpired) // an error too: the reader of events tells of it
	}
}

// waits has the waiters of a client and the one reader that serves them. The reader runs while somebody waits, and a
// little longer.
type waits struct {
	c *Client

	mu     sync.Mutex
	byID   map[string][]*waiter
	reader *reader // nil: none runs
	closed bool
}

type waiter struct {
	id  string
	end chan ended // room for one
	// first is the task as it was found when the wait began, nil before that; guarded by waits.mu.
	first *TaskInfo
}

type ended struct {
	info *TaskInfo
	err  error
}

// reader reads events from a cursor on.
type reader struct {
	cancel context.CancelFunc
	ready  chan struct{} // closed when the cursor is there, or could not be had: see err
	err    error
	idle   *time.Timer // ends the reader when nobody waits for a while
}

const readerLinger = 5 * time.Second

func (w *waits) init(c *Client) { w.c, w.byID = c, make(map[string][]*waiter) }

func (w *waits) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	if w.reader != nil {
		w.reader.cancel()
	}
	for id, list := range w.byID {
		deliver(list, ended{err: errClientClosed})
		delete(w.byID, id)
	}
}

var errClientClosed = driver.Errorf(ErrClosed, "the client is closed")

// add enters a waiter and returns when a reader is behind the present.
func (w *waits) add(ctx context.Context, id string) (*waiter, error) {
	k := &waiter{id: id, end: make(chan ended, 1)}
	w.mu.Lock()
	if w.closed {
		w.mu.Unlock()
		return nil, errClientClosed
	}
	w.byID[id] = append(w.byID[id], k)
	r := w.reader
	if r == nil {
		r = w.startReader()
	}
	if r.idle != nil {
		r.idle.Stop()
		r.idle = nil
	}
	w.mu.Unlock()
	select {
	case <-r.ready:
	case <-ctx.Done():
		w.remove(k)
		return nil, causeOf(ctx)
	}
	if r.err != nil {
		w.remove(k)
		return nil, r.err
	}
	return k, nil
}

// found notes what a waiter waits for, which is the task that has the id now.
func (w *waits) found(k *waiter, t *TaskInfo) {
	w.mu.Lock()
	defer w.mu.Unlock()
	k.first = t
}

func (w *waits) startReader() *reader {
	ctx, cancel := context.WithCancel(context.Background())
	r := &reader{cancel: cancel, ready: make(chan struct{})}
	w.reader = r
	go w.read(ctx, r)
	return r
}

func (w *waits) remove(k *waiter) {
	w.mu.Lock()
	defer w.mu.Unlock()
	list := w.byID[k.id]
	for i, other := range list {
		if other == k {
			list = append(list[:i:i], list[i+1:]...)
			break
		}
	}
	if len(list) > 0 {
		w.byID[k.id] = list
		return
	}
	delete(w.byID, k.id)
	if r := w.reader; len(w.byID) == 0 && r != nil && r.idle == nil {
		r.idle = time.AfterFunc(readerLinger, func() { w.endIdle(r) })
	}
}

// endIdle ends a reader for which nobody waits.
func (w *waits) endIdle(r *reader) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.reader == r && len(w.byID) == 0 {
		w.reader = nil
		r.cancel()
	}
}

func (w *waits) read(ctx context.Context, r *reader) {
	page, err := w.firstPage(ctx)
	if err != nil {
		w.mu.Lock()
		r.err = err
		if w.reader == r {
			w.reader = nil // the next waiter tries again
		}
		w.mu.Unlock()
		close(r.ready)
		return
	}
	close(r.ready)
	cursor, troubled := page.Next, 0
	for ctx.Err() == nil {
		page, err := w.c.store.Events(ctx, driver.EventQuery{After: cursor, Wait: eventsWait})
		if err == nil {
			err = w.handle(ctx, page)
		}
		switch {
		case ctx.Err() != nil:
			return
		case errors.Is(err, ErrClosed):
			w.giveUp(r, err)
			return
		case err != nil:
			cursor = w.recover(ctx, err, cursor, &troubled)
		default:
			cursor, troubled = page.Next, 0
		}
	}
}

// giveUp ends a reader and all waits because the store is closed.
func (w *waits) giveUp(r *reader, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.reader == r {
		w.reader = nil
	}
	for _, list := range w.byID {
		deliver(list, ended{err: err})
	}
}

func (w *waits) firstPage(ctx context.Context) (*driver.EventPage, error) {
	call, cancel := context.WithTimeout(ctx, w.c.opts.Timeout)
	defer cancel()
	return w.c.store.Events(call, driver.EventQuery{After: driver.EventsFromNow})
}

// recover pauses after an error. If the cursor itself is of no use any more, the reader goes on from the present, and all
// that is waited for is looked at.
func (w *waits) recover(ctx context.Context, err error, cursor string, troubled *int) string {
	if *troubled++; *troubled == 1 {
		w.c.logger.Error("the events of the store can't be read: trying again", logkey.Error, err)
	}
	pause := min(10*time.Millisecond<<min(*troubled, 10), 2*time.Second)
	timer := time.NewTimer(pause/2 + rand.N(pause/2))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return cursor
	}
	if !isRefusal(err) {
		return cursor
	}
	page, err := w.firstPage(ctx)
	if err != nil || w.lookAtAll(ctx) != nil {
		return cursor
	}
	return page.Next
}

// handle looks at the tasks of a page of events that somebody waits for.
func (w *waits) handle(ctx context.Context, page *driver.EventPage) error {
	if page.Gap {
		return w.lookAtAll(ctx)
	}
	var ids []string
	ends := map[string]driver.Event{}
	w.mu.Lock()
	for _, e := range page.Events {
		if w.byID[e.ID] == nil {
			continue
		}
		if State(e.Kind).Ended() {
			ends[e.ID] = e
		} else if e.Kind != driver.EventDeleted {
			continue
		}
		ids = append(ids, e.ID)
	}
	w.mu.Unlock()
	return w.lookAt(ctx, ids, ends)
}

func (w *waits) lookAtAll(ctx context.Context) error {
	w.mu.Lock()
	ids := make([]string, 0, len(w.byID))
	for id := range w.byID {
		ids = append(ids, id)
	}
	w.mu.Unlock()
	return w.lookAt(ctx, ids, nil)
}

// lookAt gets tasks and tells those who wait for the ones that have ended or are gone. ends are the events of their ends,
// as far as they were read.
func (w *waits) lookAt(ctx context.Context, ids []string, ends map[string]driver.Event) error {
	for len(ids) > 0 {
		n := min(len(ids), driver.MaxPage)
		call, cancel := context.WithTimeout(ctx, w.c.opts.Timeout)
		records, err := w.c.store.Get(call, ids[:n])
		cancel()
		if err != nil {
			return err
		}
		w.mu.Lock()
		for i, r := range records {
			for _, k := range w.byID[ids[i]] {
				if end, ok := k.endedAs(r, ends[ids[i]]); ok {
					deliver([]*waiter{k}, end)
				}
			}
		}
		w.mu.Unlock()
		ids = ids[n:]
	}
	return nil
}

// endedAs tells how what the waiter waits for has ended, if it has. r is the record that has its id, nil if there is none. It is another task's
// if that was enqueued since: then the one that is waited for is gone, as it is if there is none. Where its end was read
// of, that is what the waiter hears.
func (k *waiter) endedAs(r *driver.Record, end driver.Event) (ended, bool) {
	if r != nil && (k.first == nil || r.EnqueuedAt.Equal(k.first.EnqueuedAt)) {
		return ended{info: newTaskInfo(r)}, r.State.Ended()
	}
	if k.first != nil && end.ID != "" && !end.Time.Before(k.first.EnqueuedAt) {
		info := *k.first
		info.State, info.EndedAt = State(end.Kind), end.Time
		return ended{info: &info}, true
	}
	return ended{err: driver.Errorf(ErrNotFound, "the record of task %q was removed before it could be read: "+
		"it was deleted, or the queue's retention keeps no ended tasks", k.id)}, true
}

func deliver(list []*waiter, end ended) {
	for _, k := range list {
		select {
		case k.end <- end:
		default: // it has one
		}
	}
}
