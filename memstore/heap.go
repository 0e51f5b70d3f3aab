package memstore

import (
	"time"

	"github.com/waggleq/waggle/driver"
)

// arity is how many children an entry of a heap has.
const arity = 4

// ordering says by what a heap is ordered.
type ordering int

const (
	byPriority ordering = iota // available tasks: by priority, then by place
	byDue                      // scheduled and retryable tasks
	byExpiry                   // available tasks that expire
	byKeyEnd                   // owners of unique keys with a TTL
	byPlace                    // available tasks of a flow: by deadline where the queue goes by those, then by place
	byHead                     // the first tasks of flows: by priority, then by tag or deadline
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
	switch {
	case by == byPriority:
		return entry{int64(t.Priority), t.order, t}
	case by == byPlace:
		return entry{t.rank(), t.order, t}
	case by == byHead && t.line.queue.config.Order == driver.OrderDeadline:
		return entry{headKey(t.Priority, t.rank()), t.order, t}
	case by == byHead:
		return entry{headKey(t.Priority, t.flow.key.tag), t.order, t}
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
