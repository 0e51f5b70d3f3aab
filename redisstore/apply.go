package redisstore

import (
	"context"
	"slices"

	"github.com/waggleq/waggle/driver"
)

// Apply implements driver.Maintainer.
func (s *Store) Apply(ctx context.Context, c driver.Change) (*driver.ChangeResult, error) {
	if s.closed() {
		return nil, driver.ErrClosed
	}
	most, err := driver.CheckChange(&c)
	if err != nil {
		return nil, err
	}
	if len(c.IDs) > 0 {
		errs := make([]error, len(c.IDs))
		n, err := s.applyIDs(ctx, c.Op, c.IDs, errs, c.DryRun, nil)
		if err != nil {
			return nil, err
		}
		return &driver.ChangeResult{Changed: n, Errors: errs}, nil
	}
	return s.applyFilter(ctx, c, most)
}

func (s *Store) applyFilter(ctx context.Context, c driver.Change, most int) (*driver.ChangeResult, error) {
	f := c.Filter
	f.States = c.Op.From()
	if len(c.Filter.States) > 0 {
		f.States = slices.DeleteFunc(slices.Clone(f.States), func(st driver.State) bool { return !slices.Contains(c.Filter.States, st) })
		if len(f.States) == 0 {
			return &driver.ChangeResult{}, nil
		}
	}
	result := &driver.ChangeResult{}
	cursor := c.Cursor
	for {
		page, err := s.List(ctx, f, driver.Page{Cursor: cursor, Size: min(driver.MaxPage, most-result.Changed)})
		if err != nil {
			return nil, err
		}
		var ids []string
		for _, r := range page.Records {
			if c.Op == driver.OpCancel && r.CancelRequested {
				continue // asked for already
			}
			ids = append(ids, r.ID)
		}
		n, err := s.applyIDs(ctx, c.Op, ids, make([]error, len(ids)), c.DryRun, &f)
		if err != nil {
			return nil, err
		}
		result.Changed += n
		if cursor = page.Next; cursor == "" || result.Changed >= most {
			result.More, result.Next = cursor != "", cursor
			return result, nil
		}
	}
}

// applyIDs does an operation on tasks, only where filter, if there is one, still matches, and returns how many it changed.
func (s *Store) applyIDs(ctx context.Context, op driver.Op, ids []string, errs []error, dry bool, filter *driver.Filter) (int, error) {
	byShard := make([][]int, len(s.shards))
	seen := make(map[string]bool, len(ids))
	changed := 0
	var again []int // ids that came before in this list: they must see what became of the task
	for i, id := range ids {
		if driver.CheckName("task id", id, driver.MaxIDLen) != nil {
			errs[i] = errNoTask(id)
			continue
		}
		if seen[id] {
			again = append(again, i)
			continue
		}
		seen[id] = true
		n := s.shardOf(id).number
		byShard[n] = append(byShard[n], i)
	}
	for _, sh := range s.shards {
		for chunk := range slices.Chunk(byShard[sh.number], 200) {
			n, err := s.applyShard(ctx, sh, op, ids, chunk, errs, dry, filter)
			if err != nil {
				return 0, err
			}
			changed += n
		}
	}
	for _, i := range again {
		n, err := s.applyShard(ctx, s.shardOf(ids[i]), op, ids, []int{i}, errs, dry, filter)
		if err != nil {
			return 0, err
		}
		changed += n
	}
	return changed, nil
}

func errNoTask(id string) error {
	return driver.Errorf(driver.ErrNotFound, "there is no task %q", id)
}

func (s *Store) applyShard(ctx context.Context, sh *shard, op driver.Op, ids []string, part []int, errs []error, dry bool, filter *driver.Filter) (int, error) {
	changed := 0
	for range changeTries {
		if len(part) == 0 {
			return changed, nil
		}
		n, again, err := s.applyOnce(ctx, sh, op, ids, part, errs, dry, filter)
		if err != nil {
			return changed, err
		}
		changed += n
		part = again
	}
	return changed, driver.Errorf(driver.ErrUnavailable, "%s: tasks changed too often while they were worked on", s.where)
}

func (s *Store) applyOnce(ctx context.Context, sh *shard, op driver.Op, ids []string, part []int, errs []error, dry bool, filter *driver.Filter) (int, []int, error) {
	packed := make([]string, len(part))
	for k, i := range part {
		packed[k] = string(driver.PackID(nil, ids[i]))
	}
	entries, now, err := s.read(ctx, sh, packed)
	if err != nil {
		return 0, nil, err
	}
	m := &mover{s: s, sh: sh, now: now, dry: dry}
	place := int64(0)
	if op == driver.OpRetry || op == driver.OpRun {
		if place, err = s.reserve(ctx, sh, len(part)); err != nil {
			return 0, nil, err
		}
	}
	var items []*item
	var of []int
	changed := 0
	taken := map[string]bool{} // unique keys that this call takes
	for k, i := range part {
		errs[i] = nil
		it, err := s.applyEntry(ctx, m, op, entries[k], ids[i], place+int64(k), filter, taken)
		if err != nil {
			errs[i] = err
			continue
		}
		if it == nil {
			continue
		}
		if dry {
			changed++
			continue
		}
		items, of = append(items, it), append(of, i)
	}
	done, err := s.commit(ctx, sh, items)
	if err != nil {
		return 0, nil, err
	}
	m.wakeElsewhere(ctx)
	var again []int
	for k, ok := range done {
		if ok {
			changed++
		} else {
			again = append(again, of[k])
		}
	}
	return changed, again, nil
}

// applyEntry works out an operation on one task: nil if there is nothing to do, or a filter is given that it does not match
// any more.
func (s *Store) applyEntry(ctx context.Context, m *mover, op driver.Op, e *entry, id string, place int64, filter *driver.Filter, taken map[string]bool) (*item, error) {
	if e == nil {
		if filter != nil {
			return nil, nil
		}
		return nil, errNoTask(id)
	}
	state := e.run.stateAt(m.now)
	if !slices.Contains(op.From(), state) || filter != nil && !slices.Contains(filter.States, state) {
		if filter != nil {
			return nil, nil
		}
		return nil, driver.Errorf(driver.ErrState, "task %s is %s: %s is not possible", id, state, op)
	}
	p, err := s.pairOf(ctx, m.sh, e.run.pair)
	if err != nil {
		return nil, err
	}
	it := m.begin(e)
	lapsed := e.run.lapsed(m.now)
	if lapsed {
		m.lapse(it, e, p)
	}
	switch op {
	case driver.OpCancel:
		return m.cancel(it, e, p), nil
	case driver.OpRetry:
		return m.retry(ctx, it, e, p, place, taken)
	case driver.OpRun:
		e.run.order, e.run.due = place, m.now
		m.move(it, e, p, letterAvailable, "")
	case driver.OpDelete:
		m.remove(it, e, p)
	}
	return it, nil
}

func (m *mover) cancel(it *item, e *entry, p *pair) *item {
	r := &e.run
	if r.state != letterActive {
		m.move(it, e, p, letterCancelled, driver.ReasonRequested)
		return it
	}
	if r.flags&flagCancel != 0 {
		return nil // asked for already
	}
	r.flags |= flagCancel
	token := makeToken(r.token, r.pair)
	it.do("HSET", m.sh.key("run"), e.id, string(r.append(nil)))
	it.do("HSET", m.sh.cancelKey(r.worker), e.id, string(appendUint64(nil, uint64(token))))
	it.do("WAKE", m.sh.ctlKey(r.worker))
	return it
}

func (m *mover) retry(ctx context.Context, it *item, e *entry, p *pair, place int64, taken map[string]bool) (*item, error) {
	r := &e.run
	if r.state == letterCompleted {
		m.addAttempt(it, e, completion(r))
	}
	if err := m.takeKey(ctx, it, e, taken); err != nil {
		return nil, err
	}
	if e.result != "" {
		it.do("HDEL", m.sh.key("result"), e.id)
	}
	m.count(it, countEverRetried+p.digits, 1)
	m.leave(it, e, p)
	r.attempt, r.crashes, r.ended, r.ran, r.host, r.build = 0, 0, 0, 0, "", ""
	r.size, r.order, r.due = len(e.task.payload), place, m.now
	m.enter(it, e, p, letterAvailable, "")
	return it, nil
}

// takeKey takes the unique key of a task that owned it until its end, or returns [driver.ErrDuplicate].
func (m *mover) takeKey(ctx context.Context, it *item, e *entry, taken map[string]bool) error {
	var t driver.Task
	if err := driver.DecodeEnvelope([]byte(e.task.envelope), &t); err != nil || t.Unique == nil {
		return err
	}
	if t.Unique.Until == driver.UntilStarted {
		if m.dry {
			return nil
		}
		return m.s.dropReservation(ctx, t.Unique.Key, e.id)
	}
	if t.Unique.Until != driver.UntilDone {
		return nil
	}
	if m.s.shardOfKey(t.Unique.Key) != m.sh {
		return m.reserveAgain(ctx, e, &t)
	}
	owners, err := m.s.hashFields(ctx, m.sh, "uniq", []string{t.Unique.Key})
	if err != nil {
		return err
	}
	owner := owners[0]
	if len(owner) > ownerHead && owner[0]&uniqueRemote == 0 && owner[0] != uniqueTTL && owner[ownerHead:] != e.id {
		if gone, err := m.lapsedOwner(ctx, owner[ownerHead:]); err != nil {
			return err
		} else if gone {
			owner = ""
		}
	}
	if len(owner) > ownerHead && owner[0] == uniqueDone && owner[ownerHead:] == e.id { // it gives it back with this very step
		it.expect(m.sh.key("uniq"), t.Unique.Key, owner, true)
	} else if len(owner) > ownerHead && owner[0] == uniqueTTL && uint48(owner[ownerUntil:]) <= m.now {
		it.expect(m.sh.key("uniq"), t.Unique.Key, owner, true)
		it.do("HDEL", m.sh.key("own"), owner[ownerHead:])
	} else if owner != "" && owner[0]&uniqueRemote != 0 {
		return m.reserveAgain(ctx, e, &t)
	} else if owner != "" || taken[t.Unique.Key] {
		return driver.Errorf(driver.ErrDuplicate, "the unique key of task %s is owned by another task", driver.UnpackID([]byte(e.id)))
	} else {
		it.expect(m.sh.key("uniq"), t.Unique.Key, "", false)
	}
	taken[t.Unique.Key] = true
	it.do("HSET", m.sh.key("uniq"), t.Unique.Key, string(appendUint48([]byte{uniqueDone}, 0))+e.id)
	it.do("HSET", m.sh.key("own"), e.id, string([]byte{uniqueDone})+t.Unique.Key)
	return nil
}

// lapsedOwner reports whether the owner of a unique key has expired, and records it.
func (m *mover) lapsedOwner(ctx context.Context, id string) (bool, error) {
	if !m.dry {
		n, err := m.s.expire(ctx, m.sh, []string{id})
		return n > 0, err
	}
	entries, now, err := m.s.read(ctx, m.sh, []string{id})
	return err == nil && entries[0] != nil && entries[0].run.lapsed(now), err
}

// reserveAgain is takeKey for a key that another shard has.
func (m *mover) reserveAgain(ctx context.Context, e *entry, t *driver.Task) error {
	t.ID = driver.UnpackID([]byte(e.id))
	taken, err := m.s.reserveKey(ctx, &newTask{task: t, id: e.id, dry: m.dry}, false)
	if err == nil && taken != nil {
		err = taken.Err
	}
	return err
}

func (m *mover) remove(it *item, e *entry, p *pair) {
	if !stateOf[e.run.state].Ended() {
		m.count(it, countEverDeleted+p.digits, 1)
		m.tell(it, e, "")
	}
	m.forget(it, e, p)
	it.do("EVENT", m.sh.key("meta"), string(driver.EventDeleted), p.subject, "", e.id)
}
