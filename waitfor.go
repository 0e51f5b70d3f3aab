package waggle

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/waggleq/waggle/driver"
)

// waitFloor is when a task that waits for another looks again by itself, if nobody has told it before.
const waitFloor = 15 * time.Second

// WaitFor is for a handler that needs the end of another task: it returns that task if it has ended, however it did. If it
// has not, the error is a verdict that the handler must return: the attempt ends as a wait, which spends no attempt and frees
// the slot, and the handler runs again, from its beginning, when the other task has ended. So a parent that waits for its
// children never blocks a full worker.
//
//	child, err := waggle.WaitFor(ctx, childID)
//	if err != nil {
//		return err
//	}
//
// It runs again at once as long as this worker lives, and within 15 seconds otherwise. Errors besides the verdict:
// [ErrNotFound] if there is no such task, [ErrInvalid] for a task that waits for itself, [ErrState] if ctx is no handler's.
func WaitFor(ctx context.Context, id string) (*TaskInfo, error) {
	t, ok := TaskFrom(ctx)
	if !ok {
		return nil, failed("wait for "+id, driver.Errorf(ErrState, "WaitFor is for handlers: elsewhere use Client.Wait"))
	}
	if id == t.ID {
		return nil, failed("wait for "+id, driver.Invalidf("a task can't wait for itself"))
	}
	info, err := t.w.client.Get(ctx, id)
	if err != nil || info.State.Ended() {
		return info, err
	}
	t.w.wakes.add(t.w.client, t.ID, id)
	return nil, &verdict{outcome: driver.Snooze, delay: waitFloor}
}

// wakes has the tasks of a worker that wait for others, and runs them when those have ended. What it forgets, because the
// worker dies, looks again by itself.
type wakes struct {
	mu      sync.Mutex
	ctx     context.Context // of the worker's run; nil: it does not run
	pending map[[2]string]bool
	wg      sync.WaitGroup
}

// open begins a run; what it returns ends it.
func (w *wakes) open(ctx context.Context) (end func()) {
	ctx, cancel := context.WithCancel(ctx)
	w.mu.Lock()
	w.ctx, w.pending = ctx, make(map[[2]string]bool)
	w.mu.Unlock()
	return func() {
		cancel()
		w.mu.Lock()
		w.ctx = nil
		w.mu.Unlock()
		w.wg.Wait()
	}
}

func (w *wakes) add(c *Client, id, other string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	pair := [2]string{id, other}
	if w.ctx == nil || w.pending[pair] {
		return
	}
	w.pending[pair] = true
	ctx := w.ctx
	w.wg.Go(func() {
		defer func() {
			w.mu.Lock()
			delete(w.pending, pair)
			w.mu.Unlock()
		}()
		if _, err := c.Wait(ctx, other); err == nil || errors.Is(err, ErrNotFound) {
			runWaiting(ctx, c, id)
		}
	})
}

// runWaiting makes a task available that waits, as soon as its attempt has ended.
func runWaiting(ctx context.Context, c *Client, id string) {
	for pause := time.Millisecond; ctx.Err() == nil; pause = min(2*pause, time.Second) {
		res, err := c.store.Apply(ctx, Change{Op: OpRun, IDs: []string{id}})
		if err == nil && (res.Errors[0] == nil || !c.isActive(ctx, id)) {
			return
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
	}
}

func (c *Client) isActive(ctx context.Context, id string) bool {
	t, err := c.get(ctx, id)
	return err == nil && t.State == Active
}
