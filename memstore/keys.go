package memstore

import (
	"cmp"
	"slices"
	"time"

	"github.com/waggleq/waggle/driver"
)

// key is what is known of a key in a queue while it has tasks there, or a tag or a rate that is ahead.
type key struct {
	name     string
	tag      int64 // see driver.TagServed
	waiting  int   // scheduled and retryable tasks that were claimed before
	held     map[*line]int
	arrivals arrivals
	flows    []*flow
	opens    int64 // when a rate lets its parked tasks start, in ms; 0: no rate keeps them
}

// flow is the available tasks of a key that have one type and priority.
type flow struct {
	key    *key
	line   *line
	prio   int
	tasks  heap
	shown  *task // its first task, which stands for it in the line's heads; nil while it is parked
	parked bool
}

// arrivals are the states of rate limits, by driver.Limit.RateKey.
type arrivals map[string]driver.Arrival

// opening is when a key is to be looked at again. One that is out of date does no harm.
type opening struct {
	at  int64
	key *key
}

// openings are in the order of their times.
type openings []opening

func (o *openings) add(k *key) {
	i, _ := slices.BinarySearchFunc(*o, k.opens, func(o opening, at int64) int { return cmp.Compare(o.at, at) })
	*o = slices.Insert(*o, i, opening{k.opens, k})
}

// pop takes out the first one if it is not after a time, nil if there is none.
func (o *openings) pop(now int64) *key {
	if len(*o) == 0 || (*o)[0].at > now {
		return nil
	}
	k := (*o)[0].key
	*o = slices.Delete(*o, 0, 1)
	return k
}

// flows reports whether a task waits in a flow: it has a key, or the queue goes by deadlines.
func (q *queue) flows(t *task) bool { return t.Key != "" || q.config.Order == driver.OrderDeadline }

// keyOf returns the state of a task's key, made if needed.
func (q *queue) keyOf(name string) *key {
	k := q.keys[name]
	if k == nil {
		k = &key{name: name, held: map[*line]int{}, arrivals: arrivals{}}
		q.keys[name] = k
	}
	return k
}

// rank is what a task is ordered by before its place in line.
func (t *task) rank() int64 {
	switch {
	case t.line.queue.config.Order != driver.OrderDeadline:
		return 0
	case t.ExpiresAt.IsZero():
		return noDeadline
	}
	return t.ExpiresAt.UnixMilli()
}

const noDeadline = 1<<53 - 1

// push puts an available task into its flow; pop takes it out. Regate has to follow.
func (q *queue) push(t *task) {
	k := q.keyOf(t.Key)
	if k.available() == 0 {
		k.tag = driver.TagArrived(k.tag, q.virtual)
	}
	for _, f := range k.flows {
		if f.line == t.line && f.prio == t.Priority {
			t.flow = f
		}
	}
	if t.flow == nil {
		t.flow = &flow{key: k, line: t.line, prio: t.Priority, tasks: heap{by: byPlace}, parked: true}
		k.flows = append(k.flows, t.flow)
	}
	t.flow.tasks.push(t)
	t.line.flowing++
	q.flowing++
}

func (q *queue) pop(t *task) {
	t.flow.tasks.remove(t)
	t.flow = nil
	t.line.flowing--
	q.flowing--
}

func (k *key) available() (n int) {
	for _, f := range k.flows {
		n += len(f.tasks.items)
	}
	return n
}

func (k *key) active() (n int) {
	for _, held := range k.held {
		n += held
	}
	return n
}

// regate shows or parks the flows of a key, after anything has changed for it. News wakes a worker for what may start now and could not before.
func (s *Store) regate(q *queue, name string, news bool) {
	k := q.keys[name]
	if k == nil {
		return
	}
	k.opens = 0
	left := k.flows[:0]
	for _, f := range k.flows {
		if f.shown != nil {
			f.line.heads.remove(f.shown)
			f.shown = nil
		}
		if len(f.tasks.items) > 0 {
			left = append(left, f)
		}
	}
	clear(k.flows[len(left):])
	k.flows = left
	for _, f := range k.flows {
		was := f.parked
		blocked, opens := s.blocked(q, f)
		if f.parked = blocked; !blocked {
			f.shown = f.tasks.top()
			f.line.heads.push(f.shown)
		}
		if opens > 0 && (k.opens == 0 || opens < k.opens) {
			k.opens = opens
		}
		if was && !blocked && news && s.open(f.line) && !q.config.Paused {
			s.wake(f.line)
		}
	}
	if k.opens > 0 {
		q.openings.add(k)
	}
	if s.idle(q, k) {
		delete(q.keys, name)
	}
}

// idle reports whether a key is as good as one that was never seen.
func (s *Store) idle(q *queue, k *key) bool {
	if len(k.flows) > 0 || k.waiting > 0 || k.active() > 0 || k.tag > q.virtual {
		return false
	}
	for _, a := range k.arrivals {
		if driver.ArrivalEpoch+int64(a) >= s.now.UnixMilli() {
			return false
		}
	}
	return true
}

// forget drops idle keys once they may be most of those that are kept.
func (s *Store) forget(q *queue) {
	if len(q.keys) < 2*q.keysKept+64 {
		return
	}
	resting := s.forgetIdle(q)
	if resting > driver.KeysResting {
		q.virtual += driver.TagUnit
		s.forgetIdle(q)
	}
	q.keysKept = len(q.keys)
}

// forgetIdle drops idle keys, and returns how many would be idle but for their tag.
func (s *Store) forgetIdle(q *queue) (resting int) {
	for name, k := range q.keys {
		switch {
		case s.idle(q, k):
			delete(q.keys, name)
		case k.tag > q.virtual && len(k.flows) == 0 && k.waiting == 0 && k.active() == 0:
			resting++
		}
	}
	return resting
}

// blocked reports whether nothing of a flow may start because of its key, and if only rates are in the way, when they let it.
func (s *Store) blocked(q *queue, f *flow) (blocked bool, opens int64) {
	k := f.key
	if k.name == "" {
		return false, 0
	}
	if mode := q.config.Keys; mode.Ordered() {
		if k.active() > 0 || mode == driver.KeysHold && k.waiting > 0 {
			return true, 0
		}
		for _, other := range k.flows {
			if other.tasks.items[0].tie < f.tasks.items[0].tie {
				return true, 0
			}
		}
	}
	for i := range q.config.Limits {
		l := &q.config.Limits[i]
		if !l.PerKey || !l.Concerns(f.line.typ, k.name) {
			continue
		}
		held := k.held[f.line]
		if l.Type == "" {
			held = k.active()
		}
		if l.Concurrency > 0 && held >= l.Concurrency {
			return true, 0
		}
		if l.Rate > 0 {
			opens = max(opens, l.Opens(k.arrivals[l.RateKey()]))
		}
	}
	if opens <= s.now.UnixMilli() {
		return false, 0
	}
	return true, opens
}

// reopen looks again at the keys whose rates let them start by now, at most limit of them.
func (s *Store) reopen(q *queue, limit int) {
	now := s.now.UnixMilli()
	for range limit {
		k := q.openings.pop(now)
		if k == nil {
			break
		}
		if k.opens > 0 && k.opens <= now && q.keys[k.name] == k {
			s.regate(q, k.name, true)
		}
	}
	s.forget(q)
}

// nextOpening is when a key that is parked may start, zero if no rate keeps one.
func (q *queue) nextOpening() time.Time {
	for len(q.openings) > 0 {
		o := q.openings[0]
		if o.key.opens == o.at && q.keys[o.key.name] == o.key {
			return time.UnixMilli(o.at).UTC()
		}
		q.openings.pop(o.at)
	}
	return time.Time{}
}
