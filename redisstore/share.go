package redisstore

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/waggleq/waggle/driver"
)

// A queue is shared out once one of its tasks has a key, or its configuration has an order, an order of keys or limits: then
// its scripts go by lua/include/share.lua, and get the keys named here. A queue that never was costs nothing of it.

// sharedMark stands behind a queue's name in conf if it is shared out. Names have no NUL.
const sharedMark = "\x00"

// shareKeys returns the keys of a shared queue in the order in which scripts want them.
func (sh *shard) shareKeys(queue string) []string {
	keys := make([]string, 0, 6)
	for _, name := range []string{"keyed/", "share/", "opens/", "rest/", "flow/", "heads/"} {
		keys = append(keys, sh.prefix+name+queue)
	}
	return keys
}

func (r *registry) isShared(queue string) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.shared[queue]
}

// shareOut has a queue shared out from now on, before its first task with a key comes: in all shards, since tasks without a key
// are to have no more than those with one there either.
func (s *Store) shareOut(ctx context.Context, sh *shard, batch []*newTask) error {
	for _, t := range batch {
		if t.task.Key == "" || sh.known.isShared(t.task.Queue) {
			continue
		}
		err := s.eachShard(ctx, func(ctx context.Context, sh *shard) error {
			keys := append(sh.keysOf(shareScript, ""), sh.shareKeys(t.task.Queue)...)
			if _, err := s.script(ctx, s.control, sh, shareScript, keys, s.head(sh, "", ""), []string{t.task.Queue + sharedMark}); err != nil {
				return err
			}
			return s.refresh(ctx, sh)
		}, func(sh *shard) bool { return !sh.known.isShared(t.task.Queue) })
		if err != nil {
			return err
		}
	}
	return nil
}

// admitted returns those of the tasks that their queues take, and notes what keeps out the others.
func (s *Store) admitted(ctx context.Context, sh *shard, batch []*newTask, results []driver.EnqueueResult) ([]*newTask, error) {
	refused := func(t *newTask) error {
		if t.task.Key == "" {
			return nil
		}
		c := sh.known.config(t.task.Queue)
		if err := c.Admits(t.task); err != nil {
			return err
		}
		if c.Keys.Ordered() || slices.ContainsFunc(c.Limits, func(l driver.Limit) bool { return l.PerKey && l.Concerns(t.task.Type, t.task.Key) }) {
			return s.astray(sh, t.task)
		}
		return nil
	}
	if !slices.ContainsFunc(batch, func(t *newTask) bool { return refused(t) != nil }) {
		return batch, nil
	}
	if err := s.refresh(ctx, sh); err != nil {
		return nil, err
	}
	ids := make([]string, len(batch))
	for i, t := range batch {
		ids[i] = t.id
	}
	known, _, err := s.read(ctx, sh, ids)
	if err != nil {
		return nil, err
	}
	left := make([]*newTask, 0, len(batch))
	for i, t := range batch {
		if err := refused(t); err != nil && known[i] == nil && !sh.known.config(t.task.Queue).Draining {
			results[t.at] = driver.EnqueueResult{ID: t.task.ID, Err: err}
		} else {
			left = append(left, t)
		}
	}
	return left, nil
}

// astray says that a task can't be in the shard of its key, where its order and its limits are kept.
func (s *Store) astray(sh *shard, t *driver.Task) error {
	if s.shardOfTaskKey(t.Key) == sh {
		return nil
	}
	return driver.Invalidf("queue %s orders or limits the tasks of each key, and on several shards those must be in one, but the id %s belongs to another "+
		"than key %s: leave the choice of the id to the store, or end it as NewIDWithKey does", t.Queue, driver.CutText(t.ID, 64), driver.CutText(t.Key, 64))
}

// shareConf is what scripts have to know of a queue's configuration.
func (s *Store) shareConf(sh *shard, queue string, c *driver.QueueConfig) string {
	order, mode := driver.OrderFair, driver.KeysFree
	if c.Order != "" {
		order = c.Order
	}
	if c.Keys != "" {
		mode = c.Keys
	}
	var b strings.Builder
	part := "part"
	switch {
	case len(s.shards) == 1:
		part = "whole"
	case sh == s.homeOf(queue):
		part = "home"
	}
	fmt.Fprintf(&b, "%s %s %s", order, mode, part)
	for _, l := range c.Limits {
		pair := 0
		if l.Type != "" {
			pair = sh.pair(queue, l.Type).number
		}
		interval, rate := 0.0, "-"
		if l.Rate > 0 {
			interval, rate = float64(l.Per)/float64(time.Millisecond)/float64(l.Rate), l.RateKey()
		}
		fmt.Fprintf(&b, "\n%d %s %d %.17g %d %s %s", pair, bit(l.PerKey), l.Concurrency, interval, l.Burst, rate, scopeOf(&l))
	}
	return b.String()
}

// scopeOf names what a limit is for in all shards alike.
func scopeOf(l *driver.Limit) string { return cmp.Or(l.Type, "*") }

// numbersOf are the numbers of a queue's pairs.
func (sh *shard) numbersOf(queue string) []string {
	pairs := sh.ofQueue(queue, nil)
	list := make([]string, len(pairs))
	for i, p := range pairs {
		list[i] = p.digits
	}
	return list
}

// shareArgs appends number of pairs and their numbers of a shared queue, whose keys go to keys.
func (sh *shard) shareArgs(keys, args []string, queue string) ([]string, []string) {
	numbers := sh.numbersOf(queue)
	return append(keys, sh.shareKeys(queue)...), append(append(args, strconv.Itoa(len(numbers))), numbers...)
}

// flow adds to an item what is to be done in a shared queue, see share_do in lua/include/guarded.lua.
func (m *mover) flow(it *item, queue string, args ...string) {
	keys := m.sh.shareKeys(queue)
	it.do("FLOW", keys[0], append(keys[1:], args...)...)
}

// flows reports whether a task waits in a flow when it is available.
func (m *mover) flows(e *entry, p *pair) bool {
	return e.task.key != "" || m.sh.known.config(p.queue).Order == driver.OrderDeadline
}

// flowArgs are what a flow's entry is made of.
func flowArgs(what string, e *entry, p *pair) []string {
	r := &e.run
	return []string{what, e.task.key, p.digits, strconv.Itoa(r.priority + storedPlain), strconv.FormatInt(r.expires, 10), strconv.FormatInt(r.order, 10), e.id}
}

// enterFlow puts an available task into its flow; what may start then is woken when that is done.
func (m *mover) enterFlow(it *item, e *entry, p *pair, returned bool) {
	m.flow(it, p.queue, append(flowArgs("+", e, p), bit(returned))...)
}

// hold counts an active task for its key, or one that waits after it was claimed. n is 1 or -1.
func (m *mover) hold(it *item, e *entry, p *pair, n int) {
	r := &e.run
	switch {
	case r.state == letterActive && n < 0 && len(m.sh.known.config(p.queue).Limits) > 0:
		m.flow(it, p.queue, append([]string{"F"}, m.sh.numbersOf(p.queue)...)...)
		fallthrough
	case r.state == letterActive:
		if e.task.key != "" {
			m.flow(it, p.queue, "H", e.task.key, p.digits, strconv.Itoa(n))
		}
	case (r.state == letterScheduled || r.state == letterRetryable) && r.token != 0 && e.task.key != "":
		m.flow(it, p.queue, "W", e.task.key, p.digits, strconv.Itoa(n))
	}
}

// placeOf is a task's place in line when it becomes available again: the end, or in an ordered key that of its enqueueing.
func (m *mover) placeOf(e *entry, p *pair, end int64) int64 {
	if e.task.key != "" && m.sh.known.config(p.queue).Keys.Ordered() {
		return e.task.seq
	}
	return end
}

// signalNumbers wakes workers for pairs by their numbers. One less than zero means all pairs of its queue: something has
// become free that another shard may want.
func (s *Store) signalNumbers(ctx context.Context, sh *shard, numbers []int64) {
	var list, free []*pair
	for _, n := range numbers {
		p := sh.byNumber(int(max(n, -n)))
		switch {
		case p == nil:
		case n < 0:
			s.lending.freed()
			free = append(free, sh.ofQueue(p.queue, nil)...)
		case !slices.Contains(list, p):
			list = append(list, p)
		}
	}
	s.signal(ctx, sh, list)
	s.signalAs(ctx, tokenFree, free)
}

// shareState is what is stored of a shared queue besides its keys.
type shareState map[string]string

func (s *Store) shareState(ctx context.Context, sh *shard, queue string) (shareState, error) {
	ctx, cancel := s.bounded(ctx, s.timeout)
	defer cancel()
	m, err := s.control.Do(ctx, s.control.B().Hgetall().Key(sh.shareKeys(queue)[1]).Build()).AsStrMap()
	return m, s.ended(ctx, err)
}

func (st shareState) count(letter string, p *pair) int {
	n, _ := strconv.Atoi(st[letter+p.digits])
	return max(n, 0)
}

// shareCount is what waits of a type in a shard.
type shareCount struct {
	typ               string
	available, parked int // parked are those that wait for their key
	active            int
}

// addShare adds to a queue's figures what its limits hold, and returns what waits in it.
func (s *Store) addShare(ctx context.Context, sh *shard, q *driver.QueueInfo, stat map[string]int) ([]shareCount, error) {
	if !sh.known.isShared(q.Name) {
		return nil, nil
	}
	st, err := s.shareState(ctx, sh, q.Name)
	if err != nil {
		return nil, err
	}
	counts := make([]shareCount, 0, 8)
	for i := range q.Config.Limits {
		q.Limits = append(q.Limits, driver.LimitInfo{Limit: q.Config.Limits[i]})
	}
	for _, p := range sh.ofQueue(q.Name, nil) {
		n := shareCount{typ: p.typ, available: stat[string(letterAvailable)+p.digits], parked: st.count("k", p), active: stat[string(letterActive)+p.digits]}
		counts = append(counts, n)
		for i := range q.Limits {
			switch l := &q.Limits[i]; {
			case l.Type != "" && l.Type != p.typ:
			case l.PerKey:
				l.Held += st.count("h", p)
			default:
				l.Held += n.active
			}
		}
	}
	return counts, nil
}

// addParked counts in a queue's figures what can't start: all of a type that a limit closes, else what waits for its key.
func (s *Store) addParked(ctx context.Context, q *driver.QueueInfo, waits []map[string][]shareCount) error {
	var st shareState
	now := int64(0)
	if isLimited(&q.Config) {
		var err error
		home := s.homeOf(q.Name)
		if st, err = s.shareState(ctx, home, q.Name); err != nil {
			return err
		}
		if _, now, err = s.read(ctx, home, nil); err != nil {
			return err
		}
	}
	closed := func(typ string) bool {
		return slices.ContainsFunc(q.Limits, func(l driver.LimitInfo) bool {
			if l.PerKey || l.Type != "" && l.Type != typ {
				return false
			}
			at, _ := strconv.ParseFloat(st["a:"+l.RateKey()], 64)
			return l.Concurrency > 0 && l.Held >= l.Concurrency || l.Rate > 0 && l.Opens(driver.Arrival(at)) > now
		})
	}
	for _, shard := range waits {
		for _, n := range shard[q.Name] {
			if closed(n.typ) {
				q.Parked += n.available
			} else {
				q.Parked += min(n.available, n.parked)
			}
		}
	}
	return nil
}

// sweep has all keys of a queue looked at again after its configuration has changed. Should it be cut short, workers go on.
func (s *Store) sweep(ctx context.Context, sh *shard, queue string) error {
	for {
		keys := append(sh.keysOf(sweepScript, ""), sh.shareKeys(queue)...)
		reply, err := s.script(ctx, s.control, sh, sweepScript, keys, s.head(sh, "", ""), sh.numbersOf(queue))
		if err != nil {
			return err
		}
		parts, err := reply.ToArray()
		if err != nil || len(parts) != 2 {
			return driver.Errorf(driver.ErrUnavailable, "%s gave an unexpected reply", s.where)
		}
		woken, _ := parts[1].AsIntSlice()
		s.signalNumbers(ctx, sh, woken)
		if left, _ := parts[0].AsInt64(); left == 0 {
			return nil
		}
	}
}

// flowEntry is an entry of a flow.
type flowEntry struct {
	key   string
	pair  int
	prio  int // as it is stored
	order int64
	id    string // packed
}

func parseFlow(member string) (flowEntry, bool) {
	key, rest, ok := strings.Cut(member, "\x00")
	if !ok || len(rest) <= flowingHead {
		return flowEntry{}, false
	}
	return flowEntry{key: key, pair: uint24(rest[flowingPair:]), prio: int(rest[flowingPriority]), order: uint48(rest[flowingOrder:]), id: rest[flowingHead:]}, true
}

// parseLone reads an entry of heads that is the only task of its key.
func parseLone(head string) (flowEntry, bool) {
	if len(head) <= headHead {
		return flowEntry{}, false
	}
	key, id, ok := strings.Cut(head[headHead:], "\x00")
	if !ok || id == "" {
		return flowEntry{}, false
	}
	return flowEntry{key: key, pair: uint24(head[headPair:]), prio: int(head[headPriority]), order: uint48(head[headOrder:]), id: id}, true
}

// member is the entry of flow for it, in a queue whose order is fair.
func (f *flowEntry) member() string {
	b := append([]byte(f.key+"\x00"+pairBytes(f.pair)), byte(f.prio), 0, 0, 0, 0, 0, 0)
	return string(appendUint48(b, f.order)) + f.id
}

func pairBytes(pair int) string { return string([]byte{byte(pair >> 16), byte(pair >> 8), byte(pair)}) }

// countsHeld reports whether the active tasks of each key of a queue are counted: only where something depends on it.
func countsHeld(c *driver.QueueConfig) bool {
	return c.Keys.Ordered() || slices.ContainsFunc(c.Limits, func(l driver.Limit) bool { return l.PerKey })
}
