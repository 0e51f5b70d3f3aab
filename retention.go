package waggle

import (
	"context"
	"errors"
	"slices"
	"time"
)

// BeyondRetention counts, by state, the ended tasks of a queue that [Client.SetRetention] with r would have removed. It
// changes nothing. States of which all stay have no entry.
func (c *Client) BeyondRetention(ctx context.Context, queue string, r Retention) (map[State]int, error) {
	gone, err := c.beyondRetention(ctx, queue, r)
	return gone, failed("retention of queue "+queue, err)
}

func (c *Client) beyondRetention(ctx context.Context, queue string, r Retention) (map[State]int, error) {
	if err := r.Validate(); err != nil {
		return nil, err
	}
	gone := map[State]int{}
	q, err := c.Queue(ctx, queue)
	switch {
	case errors.Is(err, ErrNotFound):
		return gone, nil
	case err != nil:
		return nil, err
	}
	info, err := c.store.Info(ctx)
	if err != nil {
		return nil, err
	}
	r = r.Over(q.Config.Retention)
	for _, state := range []State{Completed, Cancelled, Discarded} {
		n := q.Counts[state]
		if keep := r.Of(state); n > 0 && !keep.None {
			if n, err = c.countBeyond(ctx, Filter{Queues: []string{queue}, States: []State{state}}, keep, info.Now); err != nil {
				return nil, err
			}
		}
		if n > 0 {
			gone[state] = n
		}
	}
	return gone, nil
}

// countBeyond counts the tasks of a filter that are beyond bounds: the newest are kept.
func (c *Client) countBeyond(ctx context.Context, f Filter, keep Keep, now time.Time) (int, error) {
	type end struct {
		at   time.Time
		size int64
	}
	var ends []end
	for t, err := range c.All(ctx, f) {
		if err != nil {
			return 0, err
		}
		ends = append(ends, end{t.EndedAt, int64(len(t.Payload.Bytes) + len(t.Result.Bytes))})
	}
	slices.SortFunc(ends, func(a, b end) int { return b.at.Compare(a.at) })
	var bytes int64
	for i, e := range ends {
		bytes += e.size
		if keep.Count >= 0 && i >= keep.Count || keep.Bytes >= 0 && bytes > keep.Bytes || now.Sub(e.at) > keep.Age {
			return len(ends) - i, nil
		}
	}
	return 0, nil
}
