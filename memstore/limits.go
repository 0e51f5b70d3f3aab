package memstore

import (
	"iter"
	"slices"
	"time"

	"github.com/waggleq/waggle/driver"
)

// open reports whether the limits of the queue and of the type let a task of a line start.
func (s *Store) open(l *line) bool {
	open, _ := s.opens(l)
	return open
}

// opens tells also when a rate lets the next one start, in ms; 0 if it is not only a rate that is in the way.
func (s *Store) opens(line *line) (open bool, at int64) {
	q := line.queue
	for i := range q.config.Limits {
		l := &q.config.Limits[i]
		if l.PerKey || l.Type != "" && l.Type != line.typ {
			continue
		}
		if l.Concurrency > 0 && q.held(l) >= l.Concurrency {
			return false, 0
		}
		if l.Rate > 0 {
			at = max(at, l.Opens(q.arrivals[l.RateKey()]))
		}
	}
	return at <= s.now.UnixMilli(), at
}

// held counts the active tasks that a limit concerns.
func (q *queue) held(l *driver.Limit) (n int) {
	for _, line := range q.lines {
		if l.Type != "" && l.Type != line.typ {
			continue
		}
		if !l.PerKey {
			n += *line.counts.of(driver.Active)
			continue
		}
		for _, k := range q.keys {
			n += k.held[line]
		}
	}
	return n
}

// next returns the task that is to be claimed first, nil if none of the lines has one that may start.
func (s *Store) next(q *queue, lines []*line) *task {
	var best entry
	for _, l := range lines {
		if !s.open(l) {
			continue
		}
		if t := l.heaps[byPriority].top(); t != nil {
			best = best.before(entry{headKey(t.Priority, q.plainTag), t.order, t})
		}
		if len(l.heads.items) > 0 {
			best = best.before(l.heads.items[0])
		}
	}
	return best.task
}

// before returns the entry that comes first; one without a task comes last.
func (e entry) before(o entry) entry {
	if e.task == nil || o.less(&e) {
		return o
	}
	return e
}

// headKey orders by priority, then by tag or deadline.
func headKey(prio int, tag int64) int64 { return int64(prio+driver.MaxPriority)<<54 + tag }

// charge counts a start for what shares the queue out and for its rates, before the task is moved.
func (s *Store) charge(t *task) {
	q := t.line.queue
	switch {
	case q.config.Order == driver.OrderDeadline:
	case t.Key != "":
		k := q.keys[t.Key]
		k.tag, q.virtual = driver.TagServed(k.tag, q.virtual, t.Weight)
	case q.flowing > 0: // without keys the line is as it was
		q.plainTag, q.virtual = driver.TagServed(q.plainTag, q.virtual, 1)
	}
	for i := range q.config.Limits {
		l := &q.config.Limits[i]
		if l.Rate == 0 || !l.Concerns(t.Type, t.Key) {
			continue
		}
		of := q.arrivals
		if l.PerKey {
			of = q.keys[t.Key].arrivals
		}
		of[l.RateKey()] = l.Started(of[l.RateKey()], s.now.UnixMilli())
	}
}

// hold counts an active task for its key, or one that waits after it was claimed.
func (q *queue) hold(t *task, n int) {
	switch {
	case t.Key == "":
	case t.State == driver.Active:
		q.keyOf(t.Key).held[t.line] += n
	case (t.State == driver.Scheduled || t.State == driver.Retryable) && t.Token > 0:
		q.keyOf(t.Key).waiting += n
	}
}

// freed wakes a worker for a slot of a limit of the queue or of a type that is free.
func (s *Store) freed(q *queue) {
	bounds := func(l driver.Limit) bool { return !l.PerKey && l.Concurrency > 0 }
	if q.config.Paused || !slices.ContainsFunc(q.config.Limits, bounds) {
		return
	}
	for _, l := range q.lines {
		if s.next(q, []*line{l}) != nil && s.wake(l) {
			return
		}
	}
}

// rateOpens is when a rate of the queue or of a type lets the first waiting task of lines start, zero if none is in the way.
func (s *Store) rateOpens(lines []*line) (first time.Time) {
	for _, l := range lines {
		if *l.counts.of(driver.Available) == 0 {
			continue
		}
		if open, at := s.opens(l); !open && at > 0 {
			first = earlier(first, time.UnixMilli(at).UTC())
		}
	}
	return first
}

// parked counts the tasks of a line that can't start now, of so many that are available at the present.
func (s *Store) parked(l *line, available int) (n int) {
	if !s.open(l) {
		return available
	}
	for f := range l.flows() {
		if blocked, _ := s.blocked(l.queue, f); blocked {
			for _, e := range f.tasks.items {
				if !e.task.lapsed(s.now) {
					n++
				}
			}
		}
	}
	return n
}

// flows yields the line's flows, in no order.
func (l *line) flows() iter.Seq[*flow] {
	return func(yield func(*flow) bool) {
		for _, k := range l.queue.keys {
			for _, f := range k.flows {
				if f.line == l && !yield(f) {
					return
				}
			}
		}
	}
}

// waiting returns the tasks of a line that wait for a worker or for their time, in several parts.
func (l *line) waiting() [][]entry {
	parts := [][]entry{l.heaps[byPriority].items, l.heaps[byDue].items}
	for f := range l.flows() {
		parts = append(parts, f.tasks.items)
	}
	return parts
}
