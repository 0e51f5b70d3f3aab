package sqlitestore

import (
	"context"

	"github.com/waggleq/waggle/driver"
	"zombiezen.com/go/sqlite"
)

// newTask is a task on its way into the store, with all that can be worked out outside the writer.
type newTask struct {
	driver.Task
	packed, envelope []byte
	sum              int64
	err              error
}

// NewID implements [driver.Enqueuer].
func (s *Store) NewID(t *driver.Task) string { return driver.NewIDWithKey(t.Key) }

// Enqueue implements [driver.Enqueuer].
func (s *Store) Enqueue(ctx context.Context, tasks []*driver.Task, opts driver.EnqueueOptions) ([]driver.EnqueueResult, error) {
	level, err := driver.ReachableDurability(s.caps, opts.Durability)
	if err != nil {
		return nil, err
	}
	if err := driver.CheckBatch(tasks, s.caps.Limit); err != nil {
		return nil, err
	}
	if len(tasks) == 0 {
		return []driver.EnqueueResult{}, ctx.Err()
	}
	items, bytes := s.prepare(tasks)
	results := make([]driver.EnqueueResult, len(tasks))
	err = s.submit(&op{ctx: ctx, adds: true, bytes: bytes, run: func(t *tx) error {
		t.drops = nil // others of the transaction may have given tasks back
		for i := range items {
			if err := t.accept(&items[i], &results[i]); err != nil {
				return err
			}
			if results[i].Err == nil {
				results[i].Durability = level
			}
		}
		return nil
	}})
	if err != nil {
		return nil, err
	}
	return results, nil
}

// prepare checks and encodes tasks, and gives ids to those that have none.
func (s *Store) prepare(tasks []*driver.Task) (items []newTask, bytes int) {
	now := timeOf(s.now())
	items = make([]newTask, len(tasks))
	buf := make([]byte, 0, 48*len(tasks))
	for i, in := range tasks {
		n := &items[i]
		n.Task = *in // shares slices and maps with the caller's, which are only read
		n.err = driver.Prepare(&n.Task, s.caps, now)
		if in.ID == "" { // one that is set is only read: a caller who gave up may be reading it too
			in.ID = n.ID
		}
		if n.err != nil {
			continue
		}
		at := len(buf)
		buf = driver.PackID(buf, n.ID)
		n.packed = buf[at:len(buf):len(buf)]
		at = len(buf)
		buf = driver.AppendEnvelope(buf, &n.Task)
		n.envelope = buf[at:len(buf):len(buf)]
		n.sum = checksum(n.packed, n.envelope, n.Payload)
		bytes += len(n.packed) + len(n.envelope) + len(n.Payload) + 64
	}
	return items, bytes
}

// accept stores one task, or tells why not.
func (t *tx) accept(n *newTask, res *driver.EnqueueResult) error {
	*res = driver.EnqueueResult{ID: n.ID, Err: n.err}
	if n.err != nil {
		return nil
	}
	q := t.st.queues[n.Queue]
	if q != nil && q.damaged != nil {
		res.Err = q.damaged
		return nil
	}
	if q == nil || q.config.Draining || q.config.Keys.Ordered() || q.config.Bound.Max > 0 || n.Unique != nil || q.lanes[n.Type] == nil {
		done, err := t.examine(n, q, res)
		if isDamage(err) { // of what concerns this task alone; nothing was written
			res.Err, err = err, nil
			done = true
		}
		if done || err != nil {
			return err
		}
	}
	l, err := t.lane(n.Queue, n.Type)
	if err != nil {
		return err
	}
	return t.insert(n, l, res)
}

// examine looks for what stands against a task. done says that res tells what becomes of it.
func (t *tx) examine(n *newTask, q *queue, res *driver.EnqueueResult) (done bool, err error) {
	if err := t.settleFresh(); err != nil {
		return false, err
	}
	old, err := t.find(n.ID)
	switch {
	case err != nil:
		return false, err
	case old != nil:
		*res = driver.EnqueueResult{ID: old.id, State: old.present(t.now), Existing: true}
		return true, nil
	case q != nil && q.config.Draining:
		res.Err = driver.Errorf(driver.ErrQueueClosed, "queue %s is draining and takes no tasks", q.name)
		return true, nil
	}
	if q != nil {
		if res.Err = q.config.Admits(&n.Task); res.Err != nil {
			return true, nil
		}
	}
	var o *owner
	if n.Unique != nil {
		if o, done, err = t.taken(n, res); done || err != nil {
			return done, err
		}
	}
	if res.Err, err = t.makeRoom(q, n, o); res.Err != nil || err != nil {
		return true, err
	}
	if o != nil && o.row != nil && !o.standing.ended() {
		return false, t.move(o.row, cancelled, driver.ReasonReplaced)
	}
	return false, nil
}

// insert stores a task that nothing stands against, but perhaps one with the same id.
func (t *tx) insert(n *newTask, l *lane, res *driver.EnqueueResult) error {
	seq, to, at, due := t.st.nextSeq, available, millis(n.At), int64(null)
	switch {
	case n.Hold:
		to = pending
	case at > t.now:
		to = scheduled
	}
	born, uniq := "", ""
	flows := to == available && l.queue.flows(n.Key)
	if to != available || flows {
		born = string(to.state())
	}
	if n.Unique != nil {
		uniq = string(n.Unique.Until)
	}
	st := t.stmt("task_insert").ints(seq, l.no, int64(n.Priority), t.now)
	if to == scheduled {
		due = at
		st.ints(at)
	} else {
		st.null()
	}
	expires := millis(n.ExpiresAt)
	st.optInt(expires).ints(taskSum(n.sum, seq, l.no, int64(n.Priority), t.now, due, expires, born, uniq)).optText(born).optText(uniq)
	if err := st.blob(n.packed).blob(n.envelope).blob(n.Payload).exec(); err != nil {
		return err
	}
	if t.changes() == 0 {
		return t.existing(n, res)
	}
	t.st.nextSeq++
	l.queue.totals.Enqueued++
	t.touchQueue(l.queue)
	res.State = to.state()
	if err := t.place(n, l, seq, to, at); err != nil {
		return err
	}
	t.count(l, none, to, 1)
	if flows {
		k, err := t.push(l, n.Key, seq, int64(n.Priority), millis(n.ExpiresAt), seq)
		if err != nil {
			return err
		}
		t.regate(k)
	}
	t.stateEvent(to, l, n.ID, "")
	return nil
}

func (t *tx) existing(n *newTask, res *driver.EnqueueResult) error {
	if err := t.settleFresh(); err != nil {
		return err
	}
	old, err := t.find(n.ID)
	if err == nil && old == nil {
		err = corruptf("the index of task ids has %s, but there is no such task", n.ID)
	}
	if err == nil {
		*res = driver.EnqueueResult{ID: old.id, State: old.present(t.now), Existing: true}
	}
	return err
}

// place puts a new task where its state belongs.
func (t *tx) place(n *newTask, l *lane, seq int64, to standing, at int64) error {
	if n.Unique != nil {
		if err := t.takeKey(&n.Task, n.packed, seq, t.now); err != nil {
			return err
		}
	}
	switch to {
	case pending:
		return t.stmt("pending_insert").ints(seq, l.no).exec()
	case scheduled:
		return t.linkDue(l, at, seq)
	}
	if t.freshFrom == 0 && !l.queue.flows(n.Key) {
		t.freshFrom = seq
	}
	return t.linkExpiry(l, millis(n.ExpiresAt), seq)
}

// owner is who owns a unique key.
type owner struct {
	seq      int64
	id       string
	until    driver.UniqueUntil
	standing standing
	row      *row // nil: it was removed from the store
}

// lapsed reports whether the owner has expired, which is not recorded yet, and so owns the key no more.
func (o *owner) lapsed(now int64) bool {
	return o.row != nil && o.until != driver.UntilTTL && o.row.lapsed(now)
}

// owner returns the owner of a unique key, nil if it is free.
func (t *tx) owner(key string) (*owner, error) {
	var o *owner
	var expires int64
	_, err := t.stmt("uniq_get").blob([]byte(key)).row(func(s *sqlite.Stmt) error {
		o = &owner{seq: s.ColumnInt64(1), id: driver.UnpackID(columnBytes(s, 2)), until: driver.UniqueUntil(s.ColumnText(3)), standing: none}
		expires = s.ColumnInt64(4)
		if !intact(s, 0, uniqColumns) {
			return damagedf("who owns the unique key %q", driver.CutText(key, 80))
		}
		return nil
	})
	if err != nil || o == nil || o.until == driver.UntilTTL && expires <= t.now {
		return nil, err
	}
	if o.row, err = t.load(o.seq); err != nil {
		return nil, err
	}
	if o.row != nil {
		o.standing = standingOf(string(o.row.present(t.now)))
	} else if o.until != driver.UntilTTL {
		return nil, nil // left behind: Audit tells
	}
	return o, nil
}

// taken finds out whether a new task may have its unique key, and returns the owner that it is to replace, nil if there is
// none. done says that res tells what its policy says of the conflict.
func (t *tx) taken(n *newTask, res *driver.EnqueueResult) (o *owner, done bool, err error) {
	if o, err = t.owner(n.Unique.Key); err != nil || o == nil {
		return nil, false, err
	}
	if o.lapsed(t.now) {
		return nil, false, t.expire(o.row)
	}
	state := driver.State("")
	if o.standing >= 0 {
		state = o.standing.state()
	}
	switch policy := n.Unique.OnConflict; {
	case policy == driver.ConflictReturn:
		*res = driver.EnqueueResult{ID: o.id, State: state, Existing: true}
		return nil, true, nil
	case policy == driver.ConflictReject, o.standing == active:
		err := driver.Errorf(driver.ErrDuplicate, "the unique key %q is taken by task %s", n.Unique.Key, o.id)
		*res = driver.EnqueueResult{ID: o.id, State: state, Err: err}
		return nil, true, nil
	}
	return o, false, nil
}

// takeKey makes a task the owner of its unique key.
func (t *tx) takeKey(task *driver.Task, packed []byte, seq, since int64) error {
	st := t.sealed("uniq_put").blob([]byte(task.Unique.Key)).ints(seq).blob(packed).text(string(task.Unique.Until))
	if task.Unique.Until == driver.UntilTTL {
		st.ints(since + task.Unique.TTL.Milliseconds())
	} else {
		st.null()
	}
	return st.seal(false).exec()
}

// freeKey frees the unique key that a task owns if it ends in one of the given ways.
func (t *tx) freeKey(r *row, ends ...driver.UniqueUntil) error {
	for _, end := range ends {
		if u := r.task().Unique; r.uniq == string(end) && u != nil {
			return t.stmt("uniq_free").ints(r.seq).blob([]byte(u.Key)).exec()
		}
	}
	return nil
}
