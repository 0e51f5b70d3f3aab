package memstore

import (
	"cmp"
	"iter"
	"maps"
	"slices"
	"time"

	"github.com/waggleq/waggle/driver"
)

// task is a record and its places in the indexes.
type task struct {
	driver.Record
	seq        int64        // order of enqueueing
	order      int64        // place in the line of its priority
	settled    driver.Token // of the newest accepted settlement
	line       *line
	flow       *flow    // of an available task that waits in one
	pos        [6]int32 // index in the heap of each ordering
	in         *list    // its worker's held or its queue's kept list
	prev, next *task    // in that list
}

func (t *task) bytes() int64 { return int64(len(t.Payload) + len(t.Result)) }

// stateAt is the state at the present, which may not be recorded yet; see [driver.StateAt].
func (t *task) stateAt(now time.Time) driver.State {
	return driver.StateAt(t.State, t.DueAt, t.ExpiresAt, now)
}

// lapsed reports whether the task has expired, which is not recorded yet.
func (t *task) lapsed(now time.Time) bool { return !t.State.Ended() && t.stateAt(now).Ended() }

// present returns the record as it stands at the present. It is not the caller's own.
func (t *task) present(now time.Time) *driver.Record {
	if t.stateAt(now) == t.State {
		return &t.Record
	}
	r := t.Record
	r.Present(now)
	return &r
}

func (t *task) keyEnd() time.Time { return t.EnqueuedAt.Add(t.Unique.TTL) }

// removed reports whether the task is in the store no more.
func (t *task) removed() bool { return t.State == "" }

// list holds tasks in the order in which they came. A task is in one list at most.
type list struct {
	first, last *task
	len         int
}

func (l *list) push(t *task) {
	t.in, t.prev, t.next = l, l.last, nil
	*l.after(t.prev), l.last = t, t
	l.len++
}

func (l *list) remove(t *task) {
	*l.after(t.prev), *l.before(t.next) = t.next, t.prev
	t.in, t.prev, t.next = nil, nil, nil
	l.len--
}

// after is where the list keeps what follows a task, nil for the beginning; before what precedes one, nil for the end.
func (l *list) after(t *task) **task {
	if t == nil {
		return &l.first
	}
	return &t.next
}

func (l *list) before(t *task) **task {
	if t == nil {
		return &l.last
	}
	return &t.prev
}

// all yields the tasks in their order.
func (l *list) all() iter.Seq[*task] {
	return func(yield func(*task) bool) {
		for t := l.first; t != nil && yield(t); t = t.next {
		}
	}
}

// journal holds all tasks in the order of enqueueing. Removed ones stay until they are half of it.
type journal struct {
	tasks   []*task
	removed int
	looked  int64 // at how many tasks calls have looked so far
}

func (j *journal) remove(t *task) {
	t.State = ""
	if j.removed++; j.removed > len(j.tasks)/2+64 {
		j.tasks = slices.DeleteFunc(j.tasks, func(t *task) bool { return t.removed() })
		j.removed = 0
	}
}

// oldest yields the tasks, the oldest first.
func (j *journal) oldest() iter.Seq[*task] {
	return func(yield func(*task) bool) {
		for _, t := range j.tasks {
			if !t.removed() && !yield(t) {
				return
			}
		}
	}
}

// after yields the tasks that were enqueued after seq, the oldest first.
func (j *journal) after(seq int64) iter.Seq[*task] {
	return func(yield func(*task) bool) {
		at, _ := slices.BinarySearchFunc(j.tasks, seq+1, func(t *task, seq int64) int { return cmp.Compare(t.seq, seq) })
		for _, t := range j.tasks[at:] {
			j.looked++
			if !t.removed() && !yield(t) {
				return
			}
		}
	}
}

// before yields the tasks that were enqueued before seq, the newest first.
func (j *journal) before(seq int64) iter.Seq[*task] {
	return func(yield func(*task) bool) {
		end, _ := slices.BinarySearchFunc(j.tasks, seq, func(t *task, seq int64) int { return cmp.Compare(t.seq, seq) })
		for _, t := range slices.Backward(j.tasks[:end]) {
			j.looked++
			if !t.removed() && !yield(t) {
				return
			}
		}
	}
}

// byState has a value for each state.
type byState[T any] [8]T

func (b *byState[T]) of(s driver.State) *T { return &b[slices.Index(driver.States, s)] }

// queue is a queue with its lines, one for each type.
type queue struct {
	name   string
	config driver.QueueConfig
	totals driver.Totals
	lines  map[string]*line
	kept   byState[kept] // of the states that end a task

	virtual, plainTag int64 // see driver.TagServed; plainTag is of the tasks without a key
	flowing           int   // available tasks in flows
	keys              map[string]*key
	keysKept          int // when it was last looked which keys are idle
	arrivals          arrivals
	openings          openings
	ages              ages
}

// line is where the tasks of one type wait in a queue.
type line struct {
	queue   *queue
	typ     string
	counts  byState[int]
	heaps   [3]heap
	heads   heap // of the flows that are not parked
	flowing int  // available tasks in flows
	dueNews bool // the earliest due time has changed with no worker waiting to be told
}

// kept are the ended tasks of one state in a queue, in the order of their ends.
type kept struct {
	list
	bytes int64
}

// first returns the first task of several lines in an ordering, nil if there is none.
func first(lines []*line, by ordering) *task {
	var best *entry
	for _, l := range lines {
		if items := l.heaps[by].items; len(items) > 0 && (best == nil || items[0].less(best)) {
			best = &items[0]
		}
	}
	if best == nil {
		return nil
	}
	return best.task
}

// link puts a task where its state belongs; unlink takes it out. For a task with a key, regate has to follow.
func (s *Store) link(t *task) {
	*t.line.counts.of(t.State)++
	t.line.queue.hold(t, 1)
	switch t.State {
	case driver.Available:
		if t.line.queue.flows(t) {
			t.line.queue.push(t)
		} else {
			t.line.heaps[byPriority].push(t)
		}
		if !t.ExpiresAt.IsZero() {
			t.line.heaps[byExpiry].push(t)
		}
		t.line.queue.ages.add(t)
	case driver.Scheduled, driver.Retryable:
		t.line.heaps[byDue].push(t)
	case driver.Active:
		s.workers[t.Worker].held.push(t)
	case driver.Completed, driver.Cancelled, driver.Discarded:
		k := t.line.queue.kept.of(t.State)
		k.push(t)
		k.bytes += t.bytes()
	}
}

func (s *Store) unlink(t *task) {
	*t.line.counts.of(t.State)--
	t.line.queue.hold(t, -1)
	switch t.State {
	case driver.Available:
		if t.flow != nil {
			t.line.queue.pop(t)
		} else {
			t.line.heaps[byPriority].remove(t)
		}
		if !t.ExpiresAt.IsZero() {
			t.line.heaps[byExpiry].remove(t)
		}
	case driver.Scheduled, driver.Retryable:
		t.line.heaps[byDue].remove(t)
	case driver.Active:
		t.in.remove(t)
		if t.CancelRequested {
			delete(s.workers[t.Worker].cancels, t.ID)
		}
	case driver.Completed, driver.Cancelled, driver.Discarded:
		t.in.remove(t)
		t.line.queue.kept.of(t.State).bytes -= t.bytes()
	}
}

// block makes values a few at a time, which costs less than one by one. A piece is in memory as long as one of its
// values, so it is small.
type block[T any] []T

// next returns a new value. As many as left will be asked for, with this one.
func (b *block[T]) next(left int) *T {
	const most = 16
	if len(*b) == 0 {
		*b = make([]T, min(left, most))
	}
	v := &(*b)[0]
	*b = (*b)[1:]
	return v
}

// queue returns the queue of that name, made if needed.
func (s *Store) queue(name string) *queue {
	q := s.queues[name]
	if q == nil {
		q = &queue{name: name, config: driver.QueueConfig{Retention: driver.DefaultRetention()}, lines: map[string]*line{},
			keys: map[string]*key{}, arrivals: arrivals{}}
		s.queues[name] = q
	}
	return q
}

// line returns the line of a type, made if needed.
func (q *queue) line(typ string) *line {
	l := q.lines[typ]
	if l == nil {
		l = &line{queue: q, typ: typ, heaps: [3]heap{{by: byPriority}, {by: byDue}, {by: byExpiry}}, heads: heap{by: byHead}}
		q.lines[typ] = l
	}
	return l
}

// declared returns the lines of the given types that there are; no types: all lines.
func (q *queue) declared(types []string) []*line {
	if len(types) == 0 {
		types = slices.Collect(maps.Keys(q.lines))
	}
	lines := make([]*line, 0, len(types))
	for _, typ := range types {
		if l := q.lines[typ]; l != nil {
			lines = append(lines, l)
		}
	}
	return lines
}

// ready counts the available tasks of lines.
func ready(lines []*line) (n int) {
	for _, l := range lines {
		n += len(l.heaps[byPriority].items) + l.flowing
	}
	return n
}
