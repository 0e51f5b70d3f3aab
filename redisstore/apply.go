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
		n, err := s.applyIDs(ctx, &c, errs)
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
	at, err := s.parseCursor(c.Cursor)
	if err != nil {
		return nil, err
	}
	result := &driver.ChangeResult{}
	for ; at.shard < len(s.shards); at = (cursor{at.shard + 1, endOfOrder}) {
		for {
			more, err := s.applyPage(ctx, c, &f, &at, most-result.Changed, result)
			if err != nil {
				return nil, err
			}
			if more && result.Changed >= most {
				result.More, result.Next = true, at.String()
				return result, nil
			}
			if !more {
				break
			}
		}
		if result.Changed >= most && at.shard+1 < len(s.shards) {
			result.More, result.Next = true, cursor{at.shard + 1, endOfOrder}.String()
			return result, nil
		}
	}
	return result, nil
}

// applyPage does an operation on up to n of the matching tasks from at on, and moves at behind them. It reports whether
// there are more in the shard.
func (s *Store) applyPage(ctx context.Context, c driver.Change, f *driver.Filter, at *cursor, n int, result *driver.ChangeResult) (more bool, err error) {
	b := &batch{op: c.Op, dry: c.DryRun, filter: f, read: true}
	sh := s.shards[at.shard]
	l := &lister{s: s, sh: sh, filter: f, size: n, out: &driver.RecordPage{}, last: at.seq}
	l.keep = func(e *entry, now int64) {
		if c.Op == driver.OpCancel && e.run.state == letterActive && e.run.flags&flagCancel != 0 {
			return // asked for already
		}
		b.targets, b.now = append(b.targets, &affected{id: driver.UnpackID([]byte(e.id)), entry: e}), now
	}
	if more, err = l.run(ctx, at.seq); err != nil {
		return false, err
	}
	at.seq = l.last
	changed, err := s.applyShard(ctx, sh, b)
	result.Changed += changed
	return more, err
}

// affected is a task that an operation is to be done on.
type affected struct {
	id    string
	entry *entry // nil: there is no such task
	err   error
}

// batch is an operation on tasks of one shard.
type batch struct {
	op      driver.Op
	dry     bool
	filter  *driver.Filter // if not nil, tasks that it does not match any more are left alone
	targets []*affected
	read    bool  // the targets have their entries
	now     int64 // of the clock when they were read
}

// applyIDs does an operation on named tasks and returns how many it changed.
func (s *Store) applyIDs(ctx context.Context, c *driver.Change, errs []error) (int, error) {
	byShard := make([][]*affected, len(s.shards))
	targets := make([]*affected, len(c.IDs))
	seen := make(map[string]bool, len(c.IDs))
	var again []*affected // ids that came before in this list: they must see what became of the task
	for i, id := range c.IDs {
		t := &affected{id: id}
		targets[i] = t
		switch {
		case driver.CheckName("task id", id, driver.MaxIDLen) != nil:
			t.err = errNoTask(id)
		case seen[id]:
			again = append(again, t)
		default:
			seen[id] = true
			n := s.shardOf(id).number
			byShard[n] = append(byShard[n], t)
		}
	}
	changed := 0
	apply := func(sh *shard, targets []*affected) error {
		n, err := s.applyShard(ctx, sh, &batch{op: c.Op, dry: c.DryRun, targets: targets})
		changed += n
		return err
	}
	for _, sh := range s.shards {
		if err := apply(sh, byShard[sh.number]); err != nil {
			return 0, err
		}
	}
	for _, t := range again {
		if err := apply(s.shardOf(t.id), []*affected{t}); err != nil {
			return 0, err
		}
	}
	for i, t := range targets {
		errs[i] = t.err
	}
	return changed, nil
}

func errNoTask(id string) error {
	return driver.Errorf(driver.ErrNotFound, "there is no task %q", id)
}

// applyShard does an operation on tasks of one shard, those again that have changed since they were read.
func (s *Store) applyShard(ctx context.Context, sh *shard, b *batch) (changed int, err error) {
	targets, read := b.targets, b.read
	for range changeTries {
		if len(targets) == 0 {
			return changed, nil
		}
		var again []*affected
		size := forgetChunk
		if !read {
			size = 200
		}
		for some := range slices.Chunk(targets, size) {
			if !read {
				if err := s.readTargets(ctx, sh, b, some); err != nil {
					return changed, err
				}
			}
			n, moved, err := s.applyOnce(ctx, sh, b, some)
			changed += n
			again = append(again, moved...)
			if err != nil {
				return changed, err
			}
		}
		targets, read = again, false
	}
	return changed, driver.Errorf(driver.ErrUnavailable, "%s: tasks changed too often while they were worked on", s.where)
}

func (s *Store) readTargets(ctx context.Context, sh *shard, b *batch, targets []*affected) error {
	packed := make([]string, len(targets))
	for i, t := range targets {
		packed[i] = string(driver.PackID(nil, t.id))
	}
	entries, now, err := s.read(ctx, sh, packed)
	if err != nil {
		return err
	}
	for i, t := range targets {
		t.entry, t.err = entries[i], nil
	}
	b.now = now
	return nil
}

// applyOnce returns those of the targets that have changed since they were read.
func (s *Store) applyOnce(ctx context.Context, sh *shard, b *batch, targets []*affected) (changed int, again []*affected, err error) {
	m := &mover{s: s, sh: sh, now: b.now, dry: b.dry}
	place := int64(0)
	if b.op == driver.OpRetry || b.op == driver.OpRun {
		if place, err = s.reserve(ctx, sh, len(targets)); err != nil {
			return 0, nil, err
		}
	}
	var items []*item
	var of []*affected
	var groups []*fellows
	taken := map[string]bool{} // unique keys that this call takes
	for k, t := range targets {
		if b.op == driver.OpDelete && !b.dry {
			var plain bool
			if groups, plain, err = m.addForgettable(ctx, groups, b, t); err != nil {
				return 0, nil, err
			} else if plain {
				changed++
				continue
			}
		}
		it, err := s.applyEntry(ctx, m, b, t, place+int64(k), taken)
		if t.err = err; it == nil || err != nil {
			continue
		}
		if b.dry {
			changed++
			continue
		}
		items, of = append(items, it), append(of, t)
	}
	if again, err = s.forgetTasks(ctx, sh, groups); err != nil {
		return 0, nil, err
	}
	changed -= len(again)
	done, err := s.commit(ctx, sh, items)
	if err != nil {
		return changed, nil, err
	}
	m.wakeElsewhere(ctx)
	for k, ok := range done {
		if ok {
			changed++
		} else {
			again = append(again, of[k])
		}
	}
	return changed, again, nil
}

// fits reports whether the operation is defined for a task in that state, and asked for.
func (b *batch) fits(state driver.State) bool {
	return slices.Contains(b.op.From(), state) && (b.filter == nil || slices.Contains(b.filter.States, state))
}

// addForgettable adds a task to those that are deleted by a script of its own, if it is fit for that.
func (m *mover) addForgettable(ctx context.Context, groups []*fellows, b *batch, t *affected) ([]*fellows, bool, error) {
	e := t.entry
	if e == nil || !b.fits(e.run.stateAt(m.now)) {
		return groups, false, nil
	}
	p, err := m.s.pairOf(ctx, m.sh, e.run.pair)
	if err != nil || !m.forgettable(e, p) {
		return groups, false, err
	}
	i := slices.IndexFunc(groups, func(g *fellows) bool { return g.state == e.run.state && g.pair == p })
	if i < 0 {
		i = len(groups)
		groups = append(groups, &fellows{state: e.run.state, pair: p})
	}
	groups[i].targets = append(groups[i].targets, t)
	t.err = nil
	return groups, true, nil
}

// applyEntry works out an operation on one task: nil if there is nothing to do, or a filter is given that it does not match
// any more.
func (s *Store) applyEntry(ctx context.Context, m *mover, b *batch, t *affected, place int64, taken map[string]bool) (*item, error) {
	e := t.entry
	if e == nil {
		if b.filter != nil {
			return nil, nil
		}
		return nil, errNoTask(t.id)
	}
	if state := e.run.stateAt(m.now); !b.fits(state) {
		if b.filter != nil {
			return nil, nil
		}
		return nil, driver.Errorf(driver.ErrState, "task %s is %s: %s is not possible", t.id, state, b.op)
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
	switch b.op {
	case driver.OpCancel:
		return m.cancel(it, e, p), nil
	case driver.OpRetry:
		return m.retry(ctx, it, e, p, place, taken)
	case driver.OpRun:
		e.run.order, e.run.due = m.placeOf(e, p, place), m.now
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
	switch {
	case m.sh == m.s.hub():
		it.do("WAKE", m.sh.ctlKey(r.worker))
	case !m.dry:
		m.rung = append(m.rung, r.worker)
	}
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
	r.size, r.order, r.due = len(e.task.payload), m.placeOf(e, p, place), m.now
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
