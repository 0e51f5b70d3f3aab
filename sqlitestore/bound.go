package sqlitestore

import (
	"cmp"
	"math"
	"slices"

	"github.com/waggleq/waggle/driver"
	"zombiezen.com/go/sqlite"
)

// makeRoom returns nil if a new task may wait in its queue, else the [driver.QueueFullError]. Where the queue's policy says
// so it drops others first. o is the owner of its unique key, nil if there is none.
func (t *tx) makeRoom(q *queue, n *newTask, o *owner) (full, err error) {
	if q == nil || q.config.Bound.Max == 0 || !n.Bounded() || q.waiting() < int64(q.config.Bound.Max) {
		return nil, nil
	}
	if o != nil && o.row != nil && o.row.lane.queue == q && o.standing.state().Waits() {
		return nil, nil // takes its place
	}
	for _, list := range []struct {
		name string
		do   func(*row) error
	}{{"due_list", t.enter}, {"expiry_list", t.expire}} {
		if _, _, err := t.sweep(list.name, func(*lane) bool { return true }, q.declared(nil), math.MaxInt32, list.do); err != nil {
			return nil, err
		}
	}
	need := min(max(q.waiting()-int64(q.config.Bound.Max)+1, 0), driver.MaxDrops)
	if need > 0 && (q.config.Bound.Full != driver.FullDropOldest || q.in(available) < need) {
		return &driver.QueueFullError{Queue: q.name, Bound: q.config.Bound}, nil
	}
	for range need {
		r, err := t.oldest(q)
		if err == nil {
			err = t.move(r, discarded, driver.ReasonDropped)
		}
		if err != nil {
			return nil, err
		}
	}
	return nil, nil
}

// in counts the queue's tasks of a standing.
func (q *queue) in(s standing) (n int64) {
	for _, l := range q.lanes {
		n += l.count[s]
	}
	return n
}

// waiting counts the tasks that count against the queue's bound.
func (q *queue) waiting() (n int64) {
	for _, s := range []standing{scheduled, pending, available, retryable} {
		n += q.in(s)
	}
	return n
}

// oldestAtOnce is how many tasks are looked for at once that may have to be dropped.
const oldestAtOnce = 100

// oldest returns the available task of a queue that has stood in line longest; there is one.
func (t *tx) oldest(q *queue) (*row, error) {
	for found := true; found; found = len(t.drops) > 0 {
		for len(t.drops) > 0 {
			d := t.drops[0]
			t.drops = t.drops[1:]
			r, err := t.load(d.seq)
			if err != nil || r != nil && r.lane.queue == q && r.standing == available && r.ord == d.ord {
				return r, err
			}
		}
		if err := t.listOldest(q); err != nil {
			return nil, err
		}
	}
	return nil, corruptf("queue %s counts available tasks, but there are none", q.name)
}

// standingTask is a task's place in line.
type standingTask struct{ ord, seq int64 }

// listOldest lists the oldest available tasks of a queue.
func (t *tx) listOldest(q *queue) error {
	if err := t.settleFresh(); err != nil {
		return err
	}
	t.drops = nil
	add := func(s *sqlite.Stmt) error {
		t.drops = append(t.drops, standingTask{s.ColumnInt64(0), s.ColumnInt64(1)})
		return nil
	}
	for _, l := range q.lanes {
		if l.flowing > 0 {
			if err := t.stmt("queued_oldest").ints(l.no, oldestAtOnce).rows(add); err != nil {
				return err
			}
		}
		for prio, found := int64(math.MinInt32), l.count[available] > l.flowing; found; {
			var err error
			found, err = t.stmt("ready_next").ints(l.no, prio).row(func(s *sqlite.Stmt) error {
				prio = s.ColumnInt64(0)
				return nil
			})
			if err == nil && found {
				err = t.stmt("ready_oldest").ints(l.no, prio, oldestAtOnce).rows(add)
			}
			if err != nil {
				return err
			}
		}
	}
	slices.SortFunc(t.drops, func(a, b standingTask) int { return cmp.Compare(a.ord, b.ord) })
	t.drops = t.drops[:min(len(t.drops), oldestAtOnce)]
	return nil
}
