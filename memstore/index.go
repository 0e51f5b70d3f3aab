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
	pos        [4]int32 // index in the heap of each ordering
	in         *list    // its worker's held or its queue's kept list
	prev, next *task    // in that list
}

func (t *task) bytes() int64 { return int64(len(t.Payload) + len(t.Result)) }

func (t *task) keyEnd() time.Time { return t.EnqueuedAt.Add(t.Unique.TTL) }

// removed reports whether the task is in the store no more.
func (t *task) removed() bool { return t.State == "" }

// arity is how many children an entry of a heap has.
const arity = 4

// ordering says by what a heap is ordered.
type ordering int

const (
	byPriority ordering = iota // available tasks: by priority, then by place
	byDue                      // scheduled and retryable tasks
	byExpiry                   // available tasks that expire
	byKeyEnd                   // owners of unique keys with a TTL
)

func (by ordering) deadline(t *task) time.Time {
	switch by {
	case byDue:
		return t.DueAt
	case byExpiry:
		return t.ExpiresAt
	default:
		return t.keyEnd()
	}
}

// entry is a task in a heap, with what it is ordered by.
type entry struct {
	key, tie int64
	task     *task
}

func (by ordering) entry(t *task) entry {
	if by == byPriority {
		return entry{int64(t.Priority), t.order, t}
	}
	return entry{by.deadline(t).UnixMilli(), t.seq, t}
}

func (e *entry) less(o *entry) bool { return e.key < o.key || e.key == o.key && e.tie < o.tie }

// heap is a heap that knows where each task is, so that any can be taken out. It is flat, as each step down or up touches
// a task.
type heap struct {
	by    ordering
	items []entry
}

func (h *heap) top() *task {
	if len(h.items) == 0 {
		return nil
	}
	return h.items[0].task
}

func (h *heap) push(t *task) {
	h.items = append(h.items, entry{})
	h.up(len(h.items)-1, h.by.entry(t))
}

func (h *heap) remove(t *task) {
	n := len(h.items) - 1
	i, last := int(t.pos[h.by]), h.items[n]
	h.items[n] = entry{}
	h.items = h.items[:n]
	if i < n {
		h.up(h.down(i, last), last)
	}
}

// up moves the hole at i towards the root until e fits, and puts e there; down towards the leaves.
func (h *heap) up(i int, e entry) {
	for parent := (i - 1) / arity; i > 0 && e.less(&h.items[parent]); parent = (i - 1) / arity {
		h.set(i, h.items[parent])
		i = parent
	}
	h.set(i, e)
}

func (h *heap) down(i int, e entry) int {
	for begin := arity*i + 1; begin < len(h.items); begin = arity*i + 1 {
		child := begin
		for c := begin + 1; c < min(begin+arity, len(h.items)); c++ {
			if h.items[c].less(&h.items[child]) {
				child = c
			}
		}
		if !h.items[child].less(&e) {
			break
		}
		h.set(i, h.items[child])
		i = child
	}
	h.set(i, e)
	return i
}

func (h *heap) set(i int, e entry) { h.items[i], e.task.pos[h.by] = e, int32(i) }

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

// before yields the tasks that were enqueued before seq, the newest first.
func (j *journal) before(seq int64) iter.Seq[*task] {
	return func(yield func(*task) bool) {
		end, _ := slices.BinarySearchFunc(j.tasks, seq, func(t *task, seq int64) int { return cmp.Compare(t.seq, seq) })
		for _, t := range slices.Backward(j.tasks[:end]) {
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
}

// line is where the tasks of one type wait in a queue.
type line struct {
	queue   *queue
	typ     string
	counts  byState[int]
	heaps   [3]heap
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

// link puts a task where its state belongs; unlink takes it out.
func (s *Store) link(t *task) {
	*t.line.counts.of(t.State)++
	switch t.State {
	case driver.Available:
		t.line.heaps[byPriority].push(t)
		if !t.ExpiresAt.IsZero() {
			t.line.heaps[byExpiry].push(t)
		}
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
	switch t.State {
	case driver.Available:
		t.line.heaps[byPriority].remove(t)
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
		q = &queue{name: name, config: driver.QueueConfig{Retention: driver.DefaultRetention()}, lines: map[string]*line{}}
		s.queues[name] = q
	}
	return q
}

// line returns the line of a type, made if needed.
func (q *queue) line(typ string) *line {
	l := q.lines[typ]
	if l == nil {
		l = &line{queue: q, typ: typ, heaps: [3]heap{{by: byPriority}, {by: byDue}, {by: byExpiry}}}
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
		n += len(l.heaps[byPriority].items)
	}
	return n
}
