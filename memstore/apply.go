package memstore

import (
	"context"
	"slices"
	"time"

	"github.com/waggleq/waggle/driver"
)

// Apply implements [driver.Maintainer]. With a filter the oldest tasks come first.
func (s *Store) Apply(ctx context.Context, c driver.Change) (*driver.ChangeResult, error) {
	limit, err := driver.CheckChange(&c)
	if err != nil {
		return nil, err
	}
	if err := s.lock(ctx); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	if len(c.IDs) > 0 {
		return s.applyIDs(&c), nil
	}
	from := int64(-1)
	if c.Cursor != "" {
		if from, err = s.parseCursor("change", c.Cursor); err != nil {
			return nil, driver.Invalidf("the cursor %q is not one that this store gave out for a change", driver.CutText(c.Cursor, 64))
		}
	}
	var matching []*task
	res := &driver.ChangeResult{}
	for t := range s.journal.after(from) {
		if t.CancelRequested || !c.Filter.Match(t.present(s.now)) || s.refuse(c.Op, t) != nil {
			continue
		}
		if res.More = len(matching) == limit; res.More {
			res.Next = s.cursor("change", matching[limit-1].seq)
			break
		}
		matching = append(matching, t)
	}
	for _, t := range matching {
		if s.refuse(c.Op, t) == nil { // it may have lost its unique key to one before it
			res.Changed += s.do(&c, t)
		}
	}
	return res, nil
}

func (s *Store) applyIDs(c *driver.Change) *driver.ChangeResult {
	res := &driver.ChangeResult{Errors: make([]error, len(c.IDs))}
	for i, id := range c.IDs {
		t := s.tasks[id]
		if t == nil {
			res.Errors[i] = driver.Errorf(driver.ErrNotFound, "there is no task %s", id)
		} else if res.Errors[i] = s.refuse(c.Op, t); res.Errors[i] == nil {
			res.Changed += s.do(c, t)
		}
	}
	return res
}

// refuse tells why an operation can't be done on a task.
func (s *Store) refuse(op driver.Op, t *task) error {
	if state := t.stateAt(s.now); !slices.Contains(op.From(), state) {
		return driver.Errorf(driver.ErrState, "can't %s task %s: it is %s", op, t.ID, state)
	}
	if op == driver.OpRetry && t.Unique != nil && t.Unique.Until == driver.UntilDone {
		if owner := s.owner(t.Unique.Key); owner != nil {
			return driver.Errorf(driver.ErrDuplicate, "can't retry task %s: its unique key is taken by task %s", t.ID, owner.ID)
		}
	}
	return nil
}

// do does the operation on a task that does not refuse it, and returns how many tasks that changes.
func (s *Store) do(c *driver.Change, t *task) int {
	if t.lapsed(s.now) && !c.DryRun {
		s.expire(t)
	}
	switch {
	case c.Op == driver.OpCancel && t.CancelRequested:
		return 0
	case c.DryRun:
	case c.Op == driver.OpCancel && t.State == driver.Active:
		t.CancelRequested = true
		w := s.workers[t.Worker]
		w.cancels[t.ID], w.cancelNews = t.Token, true
		w.wakeControl()
	case c.Op == driver.OpCancel:
		s.move(t, driver.Cancelled, driver.ReasonRequested)
	case c.Op == driver.OpRun:
		t.DueAt = s.now
		s.enter(t)
	case c.Op == driver.OpRetry:
		s.again(t)
	case c.Op == driver.OpDelete:
		if !t.State.Ended() {
			t.line.queue.totals.DeletedLive++
			t.Reason = ""
			s.tellEnd(t, "")
		}
		s.drop(t)
		s.emit(driver.Event{Kind: driver.EventDeleted, ID: t.ID, Queue: t.Queue, Type: t.Type})
	}
	return 1
}

// again makes an ended task available, as if it were new but for its history.
func (s *Store) again(t *task) {
	s.unlink(t) // before its size changes
	t.State = ""
	t.Attempt, t.Crashes, t.Result, t.ResultEncoding = 0, 0, nil, ""
	t.EndedAt, t.DueAt = time.Time{}, s.now
	t.line.queue.totals.Retried++
	if t.Unique != nil && t.Unique.Until == driver.UntilDone {
		s.takeKey(t)
	}
	s.enter(t)
}
