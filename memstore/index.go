package memstore

import (
	"cmp"
	"container/list"
	"iter"
	"maps"
	"slices"
	"time"

	"github.com/waggleq/waggle/driver"
)

// task is a record and its places in the indexes.
type task struct {
	driver.Record
	seq     int64        // order of enqueueing
	order   int64        // place in the line of its priority
	settled driver.Token // of the newest accepted settlement
	removed bool
	line    *line
	pos     [4]int        // index in the heap of each ordering
	elem    *list.Element // in its worker's held or its queue's kept list
}

func (t *task) bytes() int64 { return int64(len(t.Payload) + len(t.Result)) }

func (t *task) keyEnd() time.Time { return t.EnqueuedAt.Add(t.Unique.TTL) }

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

func (by ordering) less(a, b *task) bool {
	if by == byPriority {
		return cmp.Or(cmp.Compare(a.Priority, b.Priority), cmp.Compare(a.order, b.order)) < 0
	}
	return cmp.Or(by.deadline(a).Compare(by.deadline(b)), cmp.Compare(a.seq, b.seq)) < 0
}

// heap is a binary heap that knows where each task is, so that any can be taken out.
type heap struct {
	by    ordering
	items []*task
}

func (h *heap) top() *task {
	if len(h.items) == 0 {
		return nil
	}
	return h.items[0]
}

func (h *heap) push(t *task) {
	h.items = append(h.items, t)
	h.up(len(h.items)-1, t)
}

func (h *heap) remove(t *task) {
	n := len(h.items) - 1
	i, last := t.pos[h.by], h.items[n]
	h.items[n] = nil
	h.items = h.items[:n]
	if i < n {
		h.up(h.down(i, last), last)
	}
}

// up moves the hole at i towards the root until t fits, and puts t there; down towards the leaves.
func (h *heap) up(i int, t *task) {
	for parent := (i - 1) / 2; i > 0 && h.by.less(t, h.items[parent]); parent = (i - 1) / 2 {
		h.set(i, h.items[parent])
		i = parent
	}
	h.set(i, t)
}

func (h *heap) down(i int, t *task) int {
	for child := 2*i + 1; child < len(h.items); child = 2*i + 1 {
		if child+1 < len(h.items) && h.by.less(h.items[child+1], h.items[child]) {
			child++
		}
		if !h.by.less(h.items[child], t) {
			break
		}
		h.set(i, h.items[child])
		i = child
	}
	h.set(i, t)
	return i
}

func (h *heap) set(i int, t *task) { h.items[i], t.pos[h.by] = t, i }

// journal holds all tasks in the order of enqueueing. Removed ones stay until they are half of it.
type journal struct {
	tasks   []*task
	removed int
}

func (j *journal) remove(t *task) {
	t.removed = true
	if j.removed++; j.removed > len(j.tasks)/2+64 {
		j.tasks = slices.DeleteFunc(j.tasks, func(t *task) bool { return t.removed })
		j.removed = 0
	}
}

// oldest yields the tasks, the oldest first.
func (j *journal) oldest() iter.Seq[*task] {
	return func(yield func(*task) bool) {
		for _, t := range j.tasks {
			if !t.removed && !yield(t) {
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
			if !t.removed && !yield(t) {
				return
			}
		}
	}
}

// queue is a queue with its lines, one for each type.
type queue struct {
	name   string
	config driver.QueueConfig
	totals driver.Totals
	lines  map[string]*line
	kept   map[driver.State]*kept
}

// line is where the tasks of one type wait in a queue.
type line struct {
	queue   *queue
	typ     string
	counts  map[driver.State]int
	heaps   [3]heap
	dueNews bool // the earliest due time has changed with no worker waiting to be told
}

// kept are the ended tasks of one state in a queue, in the order of their ends.
type kept struct {
	list.List
	bytes int64
}

func newKept() map[driver.State]*kept {
	return map[driver.State]*kept{driver.Completed: {}, driver.Cancelled: {}, driver.Discarded: {}}
}

// first returns the first task of several lines in an ordering, nil if there is none.
func first(lines []*line, by ordering) *task {
	var best *task
	for _, l := range lines {
		if t := l.heaps[by].top(); t != nil && (best == nil || by.less(t, best)) {
			best = t
		}
	}
	return best
}

// link puts a task where its state belongs; unlink takes it out.
func (s *Store) link(t *task) {
	t.line.counts[t.State]++
	switch t.State {
	case driver.Available:
		t.line.heaps[byPriority].push(t)
		if !t.ExpiresAt.IsZero() {
			t.line.heaps[byExpiry].push(t)
		}
	case driver.Scheduled, driver.Retryable:
		t.line.heaps[byDue].push(t)
	case driver.Active:
		t.elem = s.workers[t.Worker].held.PushBack(t)
	case driver.Completed, driver.Cancelled, driver.Discarded:
		k := t.line.queue.kept[t.State]
		t.elem = k.PushBack(t)
		k.bytes += t.bytes()
	}
}

func (s *Store) unlink(t *task) {
	t.line.counts[t.State]--
	switch t.State {
	case driver.Available:
		t.line.heaps[byPriority].remove(t)
		if !t.ExpiresAt.IsZero() {
			t.line.heaps[byExpiry].remove(t)
		}
	case driver.Scheduled, driver.Retryable:
		t.line.heaps[byDue].remove(t)
	case driver.Active:
		w := s.workers[t.Worker]
		w.held.Remove(t.elem)
		delete(w.cancels, t.ID)
	case driver.Completed, driver.Cancelled, driver.Discarded:
		k := t.line.queue.kept[t.State]
		k.Remove(t.elem)
		k.bytes -= t.bytes()
	}
	t.elem = nil
}

// queue returns the queue of that name, made if needed.
func (s *Store) queue(name string) *queue {
	q := s.queues[name]
	if q == nil {
		q = &queue{name: name, config: driver.QueueConfig{Retention: driver.DefaultRetention()}, lines: map[string]*line{}, kept: newKept()}
		s.queues[name] = q
	}
	return q
}

// line returns the line of a type, made if needed.
func (q *queue) line(typ string) *line {
	l := q.lines[typ]
	if l == nil {
		l = &line{queue: q, typ: typ, counts: map[driver.State]int{}, heaps: [3]heap{{by: byPriority}, {by: byDue}, {by: byExpiry}}}
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
