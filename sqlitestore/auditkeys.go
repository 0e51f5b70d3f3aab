package sqlitestore

import (
	"maps"
	"slices"

	"github.com/waggleq/waggle/driver"
	"zombiezen.com/go/sqlite"
)

// keyName names a key of a queue.
type keyName struct {
	queue int64
	key   string
}

// tally is what the records say of a key.
type tally struct {
	held    map[int64]int64
	waiting int64
}

// keys checks what is kept of keys and their flows against the tasks, and that what is parked is what may not start.
func (a *auditor) keys() error {
	err := a.stmt("audit_flows").rows(func(s *sqlite.Stmt) error {
		a.add(defect{key: [3]int64{s.ColumnInt64(0), s.ColumnInt64(1), s.ColumnInt64(2)}}, "wrong-flow", "", "key %d, lane %d: %s", s.ColumnInt64(0), s.ColumnInt64(1), s.ColumnText(3))
		return nil
	})
	if err != nil {
		return err
	}
	err = a.stmt("audit_queued").rows(func(s *sqlite.Stmt) error {
		var t driver.Task
		if driver.DecodeEnvelope(columnBytes(s, 2), &t) == nil && (s.ColumnIsNull(3) || t.Key != s.ColumnText(3)) {
			a.add(defect{seq: s.ColumnInt64(0)}, "wrong-key", driver.UnpackID(columnBytes(s, 1)), "task %d waits under the key %q, its own is %q", s.ColumnInt64(0), s.ColumnText(3), t.Key)
		}
		if l := a.st.lanes[s.ColumnInt64(4)]; l != nil && s.ColumnInt64(5) != l.queue.rank(s.ColumnInt64(6)) {
			a.add(defect{seq: s.ColumnInt64(0)}, "wrong-key", driver.UnpackID(columnBytes(s, 1)), "task %d waits with rank %d, its own is %d",
				s.ColumnInt64(0), s.ColumnInt64(5), l.queue.rank(s.ColumnInt64(6)))
		}
		return nil
	})
	if err != nil {
		return err
	}
	want, err := a.tallies(a.st)
	if err != nil {
		return err
	}
	return a.checkKeys(want)
}

// tallies counts what is active and what waits after a claim, by key, in the queues that count it.
func (c *conn) tallies(st *state) (map[keyName]*tally, error) {
	want := map[keyName]*tally{}
	err := c.stmt("audit_lives").rows(func(s *sqlite.Stmt) error {
		var t driver.Task
		l := st.lanes[s.ColumnInt64(0)]
		if l == nil || !l.queue.counts() || driver.DecodeEnvelope(columnBytes(s, 1), &t) != nil || t.Key == "" {
			return nil // found by another check
		}
		name := keyName{l.queue.no, t.Key}
		if want[name] == nil {
			want[name] = &tally{held: map[int64]int64{}}
		}
		if s.ColumnBool(2) {
			want[name].held[l.no]++
		} else {
			want[name].waiting++
		}
		return nil
	})
	return want, err
}

func (a *auditor) checkKeys(want map[keyName]*tally) error {
	byNo := map[int64]*queue{}
	for _, q := range a.st.queues {
		byNo[q.no] = q
	}
	var stored []*key
	err := a.stmt("audit_keys").rows(func(s *sqlite.Stmt) error {
		k := &key{no: s.ColumnInt64(0), queue: byNo[s.ColumnInt64(1)], name: s.ColumnText(2), tag: s.ColumnInt64(3), waiting: s.ColumnInt64(4),
			held: map[int64]int64{}, arrivals: arrivals{}}
		if k.queue == nil {
			a.add(defect{key: [3]int64{k.no}}, "wrong-key", "", "key %q belongs to queue %d, which does not exist", k.name, s.ColumnInt64(1))
			return nil
		}
		if err := k.decode(s.ColumnText(7), s.ColumnText(8)); err != nil {
			a.add(defect{key: [3]int64{k.no}}, "wrong-key", "", "%v", err)
		}
		stored = append(stored, k)
		return nil
	})
	if err != nil {
		return err
	}
	for _, k := range stored {
		name := keyName{k.queue.no, k.name}
		w := want[name]
		if delete(want, name); w == nil {
			w = &tally{}
		}
		if !maps.Equal(w.held, k.held) || w.waiting != k.waiting {
			a.add(defect{key: [3]int64{k.no}}, "wrong-key", "", "queue %s, key %q: by lane %v are counted as active, there are %v; %d wait for another attempt, there are %d",
				k.queue.name, k.name, k.held, w.held, k.waiting, w.waiting)
		}
		if err := a.checkFlows(k); err != nil {
			return err
		}
	}
	for name := range want {
		a.add(defect{}, "wrong-key", "", "queue %d: nothing is known of the key %q, which has tasks", name.queue, name.key)
	}
	return nil
}

// checkFlows checks that the flows of a key are parked if they may not start.
func (a *auditor) checkFlows(k *key) error {
	t := &tx{conn: a.conn, st: a.st}
	if err := t.loadFlows(k); err != nil {
		return err
	}
	now := a.now
	for _, f := range k.flows {
		blocked, _ := f.blocked(now)
		if late := f.parked && f.opens > 0 && f.opens <= now; blocked != f.parked && !late && f.n > 0 {
			a.add(defect{key: [3]int64{k.no, f.lane.no, f.prio}}, "wrong-flow", "", "queue %s, key %q: its tasks are parked: %v, but may not start: %v",
				k.queue.name, k.name, f.parked, blocked)
		}
	}
	return nil
}

// rebuildKeys makes all that is kept of keys anew from the tasks. Tags and rates begin anew.
func (t *tx) rebuildKeys() error {
	if err := t.settleFresh(); err != nil {
		return err
	}
	type waiting struct {
		seq, lane, prio, ord, expires int64
		key                           string
	}
	var list []waiting
	err := t.stmt("mend_queued").rows(func(s *sqlite.Stmt) error {
		var task driver.Task
		_ = driver.DecodeEnvelope(columnBytes(s, 4), &task) // one that is damaged is discarded
		list = append(list, waiting{s.ColumnInt64(0), s.ColumnInt64(1), s.ColumnInt64(2), s.ColumnInt64(3), s.ColumnInt64(5), task.Key})
		return nil
	})
	if err != nil {
		return err
	}
	for _, name := range []string{"mend_flows", "mend_keyed", "mend_empty"} {
		if err := t.stmt(name).exec(); err != nil {
			return err
		}
	}
	t.st.touched = nil
	for _, q := range t.st.queues {
		q.share = share{virtual: q.share.virtual, plain: q.share.plain}
		for _, l := range q.lanes {
			l.flowing, l.parked = 0, 0
			t.touch(l)
		}
	}
	for _, w := range list {
		l := t.laneNo(w.lane)
		if !l.queue.flows(w.key) {
			err = t.stmt("ready_insert").ints(l.no, w.prio, w.ord, w.seq).exec()
		} else {
			_, err = t.push(l, w.key, w.seq, w.prio, w.expires, w.ord)
		}
		if err != nil {
			return err
		}
	}
	return t.recount()
}

// recount counts for the keys what is active and what waits after a claim, and opens or parks them.
func (t *tx) recount() error {
	want, err := t.tallies(t.st)
	if err != nil {
		return err
	}
	for _, q := range t.st.queues {
		if err := t.adoptTallies(q, want); err != nil {
			return err
		}
		for _, k := range slices.Collect(maps.Values(q.share.keys)) {
			t.regate(k)
		}
	}
	return nil
}

func (t *tx) adoptTallies(q *queue, want map[keyName]*tally) error {
	for name, w := range want {
		if name.queue != q.no {
			continue
		}
		k, err := t.key(q, name.key)
		if err != nil {
			return err
		}
		k.held, k.waiting = w.held, w.waiting
		t.regate(k)
	}
	return nil
}

// recountKeys counts for the keys of a queue what is active and what waits after a claim, after a change of whether that is counted.
func (t *tx) recountKeys(q *queue) error {
	if err := t.saveKeys(); err != nil {
		return err
	}
	names, err := t.names(t.stmt("key_busy").ints(q.no))
	if err != nil {
		return err
	}
	for _, name := range names {
		k, err := t.key(q, name)
		if err != nil {
			return err
		}
		k.held, k.waiting = map[int64]int64{}, 0
		t.regate(k)
	}
	if !q.counts() {
		return nil
	}
	want, err := t.tallies(t.st)
	if err != nil {
		return err
	}
	return t.adoptTallies(q, want)
}
