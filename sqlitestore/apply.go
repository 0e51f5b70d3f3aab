package sqlitestore

import (
	"context"
	"slices"

	"github.com/waggleq/waggle/driver"
)

// Apply implements [driver.Maintainer]. With a filter the oldest tasks come first.
func (s *Store) Apply(ctx context.Context, c driver.Change) (*driver.ChangeResult, error) {
	limit, err := driver.CheckChange(&c)
	if err != nil {
		return nil, err
	}
	if len(c.IDs) > 0 {
		return s.applyIDs(ctx, &c)
	}
	return s.applyFilter(ctx, &c, limit)
}

func (s *Store) applyIDs(ctx context.Context, c *driver.Change) (*driver.ChangeResult, error) {
	var res *driver.ChangeResult
	err := s.write(ctx, func(t *tx) error {
		res = &driver.ChangeResult{Errors: make([]error, len(c.IDs))}
		if err := t.settleFresh(); err != nil {
			return err
		}
		for i, id := range c.IDs {
			n, err := t.applyID(c, id)
			if isFailure(err) {
				return err
			}
			res.Changed += n
			res.Errors[i] = err
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return res, nil
}

func (t *tx) applyID(c *driver.Change, id string) (int, error) {
	r, err := t.find(id)
	switch {
	case err != nil:
		return 0, err
	case r == nil:
		return 0, driver.Errorf(driver.ErrNotFound, "there is no task %s", id)
	}
	if err := t.refuse(c.Op, r); err != nil {
		return 0, err
	}
	return t.do(c, r)
}

// applyFilter looks for matching tasks beside the writer, and has the writer change those that still match.
func (s *Store) applyFilter(ctx context.Context, c *driver.Change, limit int) (*driver.ChangeResult, error) {
	states := c.Op.From()
	if len(c.Filter.States) > 0 {
		states = slices.DeleteFunc(states, func(st driver.State) bool { return !slices.Contains(c.Filter.States, st) })
	}
	if len(states) == 0 {
		return &driver.ChangeResult{}, nil
	}
	res := &driver.ChangeResult{}
	scan := newScan(&c.Filter, states, false, s.now(), limit)
	from, budget := int64(0), limit
	if c.Cursor != "" {
		var err error
		if from, err = s.parseCursor("change", c.Cursor); err != nil {
			return nil, err
		}
	}
	for more := true; more; {
		var seqs []int64
		err := s.read(ctx, func(rc *conn) (err error) {
			var all []int64
			if all, more, err = scan.next(rc, from); err != nil {
				return err
			}
			seqs, err = rc.matching(all, c, budget+1, scan.now)
			return err
		})
		if err != nil {
			return nil, err
		}
		from = scan.reached
		if len(seqs) == 0 {
			continue
		}
		changed, left, last := 0, false, int64(0)
		err = s.write(ctx, func(t *tx) (err error) {
			changed, last, left, err = t.applySeqs(c, seqs, budget)
			return err
		})
		if err != nil {
			return nil, err
		}
		res.Changed += changed
		budget -= changed
		if left {
			res.More, res.Next = true, s.cursor("change", last)
			break
		}
	}
	return res, nil
}

// matching returns those of the tasks, at most limit, on which an operation may be done.
func (c *conn) matching(seqs []int64, change *driver.Change, limit int, now int64) ([]int64, error) {
	var matching []int64
	for _, seq := range seqs {
		if len(matching) == limit {
			break
		}
		rec, err := c.recordAt(seq, now)
		if err != nil {
			return nil, err
		}
		if rec != nil && !rec.CancelRequested && slices.Contains(change.Op.From(), rec.State) && change.Filter.Match(rec) {
			matching = append(matching, seq)
		}
	}
	return matching, nil
}

// applySeqs does an operation on tasks that matched a moment ago, at most limit of them. left says that there is one
// more, after last.
func (t *tx) applySeqs(c *driver.Change, seqs []int64, limit int) (changed int, last int64, left bool, err error) {
	if err := t.settleFresh(); err != nil {
		return 0, 0, false, err
	}
	seqs, err = t.matching(seqs, c, len(seqs), t.now)
	if err != nil {
		return 0, 0, false, err
	}
	for _, seq := range seqs {
		r, err := t.load(seq)
		if err != nil {
			return 0, 0, false, err
		}
		if r == nil {
			continue
		}
		if err := t.refuse(c.Op, r); err != nil {
			if isFailure(err) {
				return 0, 0, false, err
			}
			continue // its unique key is taken
		}
		if changed == limit {
			return changed, last, true, nil
		}
		n, err := t.do(c, r)
		if err != nil {
			return 0, 0, false, err
		}
		changed, last = changed+n, seq
	}
	return changed, last, false, nil
}

// refuse tells why an operation can't be done on a task.
func (t *tx) refuse(op driver.Op, r *row) error {
	if state := r.present(t.now); !slices.Contains(op.From(), state) {
		return driver.Errorf(driver.ErrState, "can't %s task %s: it is %s", op, r.id, state)
	}
	u := r.task().Unique
	if op != driver.OpRetry || u == nil || u.Until != driver.UntilDone {
		return nil
	}
	o, err := t.owner(u.Key)
	if err == nil && o != nil && !o.lapsed(t.now) {
		err = driver.Errorf(driver.ErrDuplicate, "can't retry task %s: its unique key is taken by task %s", r.id, o.id)
	}
	return err
}

// do does the operation on a task that does not refuse it, and returns how many tasks that changes.
func (t *tx) do(c *driver.Change, r *row) (int, error) {
	if r.lapsed(t.now) && !c.DryRun {
		if err := t.expire(r); err != nil {
			return 0, err
		}
	}
	switch {
	case c.Op == driver.OpCancel && r.cancel > 0:
		return 0, nil
	case c.DryRun:
		return 1, nil
	case c.Op == driver.OpCancel && r.standing == active:
		return 1, t.askCancel(r)
	case c.Op == driver.OpCancel:
		return 1, t.move(r, cancelled, driver.ReasonRequested)
	case c.Op == driver.OpRun:
		r.due = t.now
		return 1, t.enter(r)
	case c.Op == driver.OpRetry:
		return 1, t.again(r)
	}
	if !r.standing.ended() {
		r.lane.queue.totals.DeletedLive++
		t.touchQueue(r.lane.queue)
		if err := t.tellEnd(r, none); err != nil {
			return 0, err
		}
	}
	if err := t.drop(r); err != nil {
		return 0, err
	}
	t.event(driver.EventDeleted, r.lane, r.id, "")
	return 1, nil
}

func (t *tx) askCancel(r *row) error {
	if err := t.stmt("held_cancel").ints(r.seq).exec(); err != nil {
		return err
	}
	id, err := t.stmt("worker_id").ints(r.worker).str()
	t.after.controls = append(t.after.controls, id)
	return err
}

// again makes an ended task available, as if it were new but for its history.
func (t *tx) again(r *row) error {
	if r.hasStarted {
		w, err := t.workerByNo(r.worker)
		if err != nil {
			return err
		}
		r.noteCompletion(w)
	}
	if err := t.unlink(r); err != nil {
		return err
	}
	from := r.standing
	r.attempt, r.crashes, r.result, r.encoding, r.reason, r.endedAt, r.due = 0, 0, nil, "", "", 0, t.now
	r.standing = available
	if r.ord = r.seq; !r.lane.queue.config.Keys.Ordered() || r.task().Key == "" {
		r.ord = t.st.nextSeq
		t.st.nextSeq++
	}
	r.lane.queue.totals.Retried++
	t.touchQueue(r.lane.queue)
	if u := r.task().Unique; u != nil && u.Until == driver.UntilDone {
		if o, err := t.owner(u.Key); err != nil {
			return err
		} else if o != nil && o.lapsed(t.now) {
			if err := t.expire(o.row); err != nil {
				return err
			}
		}
		if err := t.takeKey(r.task(), r.packed, r.seq, t.now); err != nil {
			return err
		}
	}
	if err := t.link(r); err != nil {
		return err
	}
	t.count(r.lane, from, available, 1)
	if err := t.rekey(r, from); err != nil {
		return err
	}
	t.stateEvent(available, r.lane, r.id, "")
	return nil
}
