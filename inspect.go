package waggle

import (
	"context"
	"iter"
	"time"

	"github.com/waggleq/waggle/driver"
)

// TaskPage is one page of a list.
type TaskPage struct {
	Tasks []*TaskInfo `json:"tasks"`
	Next  string      `json:"next,omitzero"` // cursor of the next page; empty: this was the last
}

// Get returns a task, or [ErrNotFound].
func (c *Client) Get(ctx context.Context, id string) (*TaskInfo, error) {
	t, err := c.get(ctx, id)
	return t, failed("get "+id, err)
}

func (c *Client) get(ctx context.Context, id string) (*TaskInfo, error) {
	records, err := c.store.Get(ctx, []string{id})
	if err != nil {
		return nil, err
	}
	if records[0] == nil {
		return nil, driver.Errorf(ErrNotFound, "there is no task %q", id)
	}
	return newTaskInfo(records[0]), nil
}

// List returns one page of the tasks that match a filter, the newest first where the store keeps one order. [Client.All]
// walks all pages.
func (c *Client) List(ctx context.Context, f Filter, page Page) (*TaskPage, error) {
	p, err := c.store.List(ctx, f, page)
	if err != nil {
		return nil, failed("list", err)
	}
	list := &TaskPage{Tasks: make([]*TaskInfo, len(p.Records)), Next: p.Next}
	for i, r := range p.Records {
		list.Tasks[i] = newTaskInfo(r)
	}
	return list, nil
}

// All walks the tasks that match a filter. A task that exists throughout and does not change its state comes exactly
// once. An error is the last pair.
func (c *Client) All(ctx context.Context, f Filter) iter.Seq2[*TaskInfo, error] {
	return pages(func(cursor string) ([]*TaskInfo, string, error) {
		p, err := c.List(ctx, f, Page{Cursor: cursor, Size: 500})
		if err != nil {
			return nil, "", err
		}
		return p.Tasks, p.Next, nil
	})
}

// pages makes a sequence of what a paged call returns.
func pages[T any](next func(cursor string) (items []T, after string, err error)) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		cursor := ""
		for {
			items, after, err := next(cursor)
			if err != nil {
				var zero T
				yield(zero, err)
				return
			}
			for _, v := range items {
				if !yield(v, nil) {
					return
				}
			}
			if after == "" {
				return
			}
			cursor = after
		}
	}
}

// Queues returns all queues with their configuration and figures, sorted by name.
func (c *Client) Queues(ctx context.Context) ([]QueueInfo, error) {
	queues, err := c.store.Queues(ctx)
	return queues, failed("queues", err)
}

// Queue returns one queue, or [ErrNotFound] if it has no configuration and never held a task.
func (c *Client) Queue(ctx context.Context, name string) (*QueueInfo, error) {
	queues, err := c.store.Queues(ctx, name)
	if err != nil {
		return nil, failed("queue "+name, err)
	}
	if len(queues) > 0 {
		return &queues[0], nil
	}
	return nil, failed("queue "+name, driver.Errorf(ErrNotFound, "there is no queue %q", name))
}

// Workers returns the registered workers, sorted by id.
func (c *Client) Workers(ctx context.Context) ([]WorkerStatus, error) {
	workers, err := c.store.Workers(ctx)
	return workers, failed("workers", err)
}

// Info returns facts on the store.
func (c *Client) Info(ctx context.Context) (*StoreInfo, error) {
	info, err := c.store.Info(ctx)
	return info, failed("info", err)
}

// eventsWait is how long one call waits for events.
const eventsWait = 30 * time.Second

// Events returns what happens in the store, from a cursor on ("": from the oldest event that is kept; [EventsFromNow]:
// what happens after the call), until ctx ends or the consumer stops. Where events were dropped before they could be
// read, one of kind [EventGap] stands for them. An error is the last pair; the end of ctx is none.
func (c *Client) Events(ctx context.Context, after string) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		for {
			page, err := c.store.Events(ctx, driver.EventQuery{After: after, Wait: eventsWait})
			if ctx.Err() != nil {
				return
			}
			if err != nil {
				yield(Event{}, failed("events", err))
				return
			}
			if page.Gap && !yield(Event{Kind: EventGap}, nil) {
				return
			}
			for _, e := range page.Events {
				if !yield(e, nil) {
					return
				}
			}
			after = page.Next
		}
	}
}
