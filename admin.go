package waggle

import (
	"context"
	"time"

	"github.com/waggleq/waggle/internal/guard"
)

// Cancel calls a task off. One that is not running becomes cancelled; of one that runs the cancellation is asked for:
// its handler's context ends with the cause [ErrCancelled], and it ends as cancelled unless the handler returns nil or a
// [Discard]. Errors: [ErrNotFound], [ErrState] if it has ended.
func (c *Client) Cancel(ctx context.Context, id string) error { return c.one(ctx, OpCancel, id) }

// Retry makes a task that has ended available again, with its attempts counted from the start and its history kept.
// Errors: [ErrNotFound], [ErrState] if it has not ended, [ErrDuplicate] if another task has its unique key now.
func (c *Client) Retry(ctx context.Context, id string) error { return c.one(ctx, OpRetry, id) }

// RunNow makes a task available that waits for its time, its next attempt or a go. Errors: [ErrNotFound], [ErrState].
func (c *Client) RunNow(ctx context.Context, id string) error { return c.one(ctx, OpRun, id) }

// Delete removes a task that is not running. Errors: [ErrNotFound], [ErrState] if it runs.
func (c *Client) Delete(ctx context.Context, id string) error { return c.one(ctx, OpDelete, id) }

func (c *Client) one(ctx context.Context, op Op, id string) error {
	res, err := c.store.Apply(ctx, Change{Op: op, IDs: []string{id}})
	if err == nil && len(res.Errors) > 0 {
		err = res.Errors[0]
	}
	return failed(string(op)+" "+id, err)
}

// Apply does an operation on up to 1000 tasks, by id or by filter. With DryRun it only counts. Apply the same filter
// again while More is set.
func (c *Client) Apply(ctx context.Context, change Change) (*ChangeResult, error) {
	res, err := c.store.Apply(ctx, change)
	return res, failed("apply "+string(change.Op), err)
}

// Pause stops workers from starting tasks of a queue. What runs goes on, and new tasks are accepted.
func (c *Client) Pause(ctx context.Context, queue string) error {
	return c.setQueue(ctx, "pause", queue, QueuePatch{Paused: new(true)})
}

// Resume undoes Pause and Drain.
func (c *Client) Resume(ctx context.Context, queue string) error {
	return c.setQueue(ctx, "resume", queue, QueuePatch{Paused: new(false), Draining: new(false)})
}

// SetRetention says how long ended tasks of a queue are kept. What is zero in r stays as it is; [KeepNone] keeps none.
// [Client.BeyondRetention] tells before what would be removed.
func (c *Client) SetRetention(ctx context.Context, queue string, r Retention) error {
	return c.setQueue(ctx, "set retention of", queue, QueuePatch{Retention: &r})
}

// SetLimits replaces the limits of a queue: how many tasks are active at once, or start per time, over all workers. None
// takes them away. They hold at once, also for what is waiting; what runs goes on. Errors: [ErrInvalid], [ErrUnsupported].
func (c *Client) SetLimits(ctx context.Context, queue string, limits ...Limit) error {
	if limits == nil {
		limits = []Limit{}
	}
	return c.setQueue(ctx, "set limits of", queue, QueuePatch{Limits: &limits})
}

// SetOrder says which waiting task of a priority comes first. Errors: [ErrState] while tasks are available in the queue,
// [ErrUnsupported].
func (c *Client) SetOrder(ctx context.Context, queue string, order Order) error {
	return c.setQueue(ctx, "set order of", queue, QueuePatch{Order: &order})
}

// SetKeyMode says whether the tasks of a key run one after the other, in the order of enqueueing. Errors: [ErrUnsupported].
func (c *Client) SetKeyMode(ctx context.Context, queue string, mode KeyMode) error {
	return c.setQueue(ctx, "set keys of", queue, QueuePatch{Keys: &mode})
}

// SetBound says how many tasks may wait in a queue, and what becomes of new ones when it is full; the zero Bound takes the bound
// away. It holds at once, for new tasks. Errors: [ErrInvalid].
func (c *Client) SetBound(ctx context.Context, queue string, bound Bound) error {
	return c.setQueue(ctx, "set bound of", queue, QueuePatch{Bound: &bound})
}

func (c *Client) setQueue(ctx context.Context, what, queue string, patch QueuePatch) error {
	_, err := c.store.SetQueue(ctx, queue, patch)
	return failed(what+" queue "+queue, err)
}

// DeleteQueue removes a queue that holds no tasks, with its configuration and totals; a later task makes it anew. Errors:
// [ErrNotFound] if there is no such queue, [ErrState] if it holds tasks, in whatever state.
func (c *Client) DeleteQueue(ctx context.Context, queue string) error {
	return failed("delete queue "+queue, c.store.DeleteQueue(ctx, queue))
}

// DirectWorker tells a worker, by its id, to take no new tasks and stay ([DirectQuiet]), to stop as it does when its Run's
// ctx ends ([DirectStop]: Run returns nil), or to serve again ([DirectServe]). It hears of it at once, or
// within its lease at the latest. A directive ends with the worker's life: a process that registers anew begins without.
// Errors: [ErrNotFound] if no such worker is registered, [ErrInvalid], [ErrState] for one that was told to stop.
func (c *Client) DirectWorker(ctx context.Context, id string, d Directive) error {
	return failed("direct worker "+id, c.store.Direct(ctx, id, d))
}

// drainEvery is how often Drain looks.
const drainEvery = 250 * time.Millisecond

// Drain makes a queue refuse new tasks with [ErrQueueClosed] and waits until all it holds has ended, or until ctx ends;
// then the error says why, and the queue goes on draining. Either way [Client.Resume] opens it again. progress, if not
// nil, is called with the number of tasks that are left whenever it has changed.
func (c *Client) Drain(ctx context.Context, queue string, progress func(left int)) error {
	if err := c.setQueue(ctx, "drain", queue, QueuePatch{Draining: new(true)}); err != nil {
		return err
	}
	last := -1
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return failed("drain queue "+queue, causeOf(ctx))
		case <-timer.C:
		}
		info, err := c.Queue(ctx, queue)
		if err != nil {
			return err
		}
		left := 0
		for state, n := range info.Counts {
			if !state.Ended() {
				left += n
			}
		}
		if progress != nil && left != last {
			if fault := guard.Call(func() { progress(left) }); fault != nil {
				return failed("drain queue "+queue, inCallback(fault))
			}
		}
		if left == 0 {
			return nil
		}
		last = left
		timer.Reset(drainEvery)
	}
}

// Purge deletes the tasks of a queue that are in the given states (none: in any state but active) and returns how many.
// progress, if not nil, is called with the number deleted so far. After an error or the end of ctx, what was deleted
// stays so.
func (c *Client) Purge(ctx context.Context, queue string, states []State, progress func(deleted int)) (int, error) {
	if len(states) == 0 {
		states = OpDelete.From()
	}
	change := Change{Op: OpDelete, Filter: Filter{Queues: []string{queue}, States: states}}
	total := 0
	for {
		res, err := c.store.Apply(ctx, change)
		if err != nil {
			return total, failed("purge queue "+queue, err)
		}
		total += res.Changed
		if progress != nil {
			if fault := guard.Call(func() { progress(total) }); fault != nil {
				return total, failed("purge queue "+queue, inCallback(fault))
			}
		}
		if !res.More {
			return total, nil
		}
		change.Cursor = res.Next
		if err := ctx.Err(); err != nil {
			return total, failed("purge queue "+queue, causeOf(ctx))
		}
	}
}

// QueueSettings returns the configuration of a queue after changing what is set in patch.
func (c *Client) QueueSettings(ctx context.Context, queue string, patch QueuePatch) (*QueueConfig, error) {
	cfg, err := c.store.SetQueue(ctx, queue, patch)
	return cfg, failed("configure queue "+queue, err)
}
