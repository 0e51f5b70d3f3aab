package memstore

import (
	"cmp"
	"math"
	"slices"

	"github.com/waggleq/waggle/driver"
)

// makeRoom returns nil if a new task may wait in its queue, else the [driver.QueueFullError]. Where the queue's policy says
// so it drops others first.
func (s *Store) makeRoom(t *task) error {
	q := s.queues[t.Queue]
	if q == nil || q.config.Bound.Max == 0 || !t.Bounded() || q.waiting() < q.config.Bound.Max {
		return nil
	}
	if t.Unique != nil {
		if owner := s.owner(t.Unique.Key); owner != nil && owner.line.queue == q && owner.State.Waits() {
			return nil // takes its place
		}
	}
	bound, lines := q.config.Bound, q.declared(nil)
	s.sweep(lines, byDue, math.MaxInt, s.enter)
	s.sweep(lines, byExpiry, math.MaxInt, s.expire)
	need := min(max(q.waiting()-bound.Max+1, 0), driver.MaxDrops)
	if need > 0 && (bound.Full != driver.FullDropOldest || ready(lines) < need) {
		return &driver.QueueFullError{Queue: q.name, Bound: bound}
	}
	for range need {
		s.move(q.ages.oldest(lines), driver.Discarded, driver.ReasonDropped)
	}
	return nil
}

// waiting counts the tasks that count against the queue's bound.
func (q *queue) waiting() (n int) {
	for _, l := range q.lines {
		for i, state := range driver.States {
			if state.Waits() {
				n += l.counts[i]
			}
		}
	}
	return n
}

// ages has the available tasks of a queue by their place in line, once a task was dropped there, and some that are
// available no more.
type ages struct {
	kept  bool
	tasks []aged
}

type aged struct {
	order int64
	task  *task
}

func (a aged) gone() bool { return a.task.State != driver.Available || a.task.order != a.order }

// add notes a task that has become available.
func (a *ages) add(t *task) {
	if !a.kept {
		return
	}
	if len(a.tasks) == cap(a.tasks) {
		a.tasks = slices.DeleteFunc(a.tasks, aged.gone)
	}
	at := len(a.tasks)
	if at > 0 && a.tasks[at-1].order > t.order { // given back to its old place
		at, _ = slices.BinarySearchFunc(a.tasks, t.order, func(e aged, order int64) int { return cmp.Compare(e.order, order) })
	}
	a.tasks = slices.Insert(a.tasks, at, aged{t.order, t})
}

// oldest returns the available task of a queue's lines that has stood in line longest; there is one.
func (a *ages) oldest(lines []*line) *task {
	if !a.kept {
		*a = ages{kept: true}
		for _, l := range lines {
			for _, waiting := range l.waiting() {
				for _, e := range waiting {
					if e.task.State == driver.Available {
						a.tasks = append(a.tasks, aged{e.task.order, e.task})
					}
				}
			}
		}
		slices.SortFunc(a.tasks, func(a, b aged) int { return cmp.Compare(a.order, b.order) })
	}
	for len(a.tasks) > 0 && a.tasks[0].gone() {
		a.tasks = a.tasks[1:]
	}
	return a.tasks[0].task
}
