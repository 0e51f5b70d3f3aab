package sqlitestore

import (
	"container/heap"
	"slices"

	"github.com/waggleq/waggle/driver"
	"zombiezen.com/go/sqlite"
)

// turn is a flow as claims find it. It counts only if the flow still begins so.
type turn struct {
	prio, tag, ord int64
	lane           *lane
	name           string
}

// turns is a heap of turns, the next one first.
type turns []turn

func (h turns) Len() int { return len(h) }
func (h turns) Less(i, j int) bool {
	return compareTurns(h[i].prio, h[i].tag, h[i].ord, h[j].prio, h[j].tag, h[j].ord) < 0
}
func (h turns) Swap(i, j int) { h[i], h[j] = h[j], h[i] }

// Push implements heap.Interface.
func (h *turns) Push(v any) { *h = append(*h, v.(turn)) }

// Pop implements heap.Interface.
func (h *turns) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}

// sharing is a claim from a queue that has keys or limits.
type sharing struct {
	*tx
	w       *worker
	q       *queue
	token   int64
	lanes   []*lane
	cursors []*cursor
	flows   turns
	res     *driver.FetchResult
	claims  []driver.Claim
	unfit   []picked // at the fronts of lanes
}

// claimShared is claim for a queue with keys, limits or an order of its own.
func (t *tx) claimShared(res *driver.FetchResult, w *worker, token int64, q *queue, lanes []*lane, limit int) ([]driver.Claim, error) {
	want := limit - len(res.Claims)
	if want <= 0 {
		return res.Claims, nil
	}
	if err := t.saveKeys(); err != nil {
		return nil, err
	}
	s := &sharing{tx: t, w: w, q: q, token: token, lanes: lanes, res: res, claims: res.Claims}
	err := s.collect(want)
	for err == nil && len(s.claims) < limit {
		var more bool
		if more, err = s.next(); !more {
			break
		}
	}
	for _, c := range s.cursors {
		c.reset()
	}
	if err != nil {
		return nil, err
	}
	return s.claims, s.settleFronts()
}

// collect opens the fronts of the lanes. No more flows can have a turn than tasks are wanted.
func (s *sharing) collect(want int) error {
	for _, l := range s.lanes {
		if l.startable(s.now) == 0 {
			continue
		}
		if l.count[available] > l.flowing {
			c := &cursor{stmt: s.tx.w.cursor(len(s.cursors)), lane: l}
			c.n = 0
			c.ints(l.no)
			s.cursors = append(s.cursors, c)
			if err := c.next(); err != nil {
				return err
			}
		}
		if l.flowing <= l.parked {
			continue
		}
		err := s.stmt("flow_heads").ints(l.no, int64(want)).rows(func(row *sqlite.Stmt) error {
			name := row.ColumnText(flowColumns + 1 + 2)
			s.flows = append(s.flows, turn{row.ColumnInt64(2), row.ColumnInt64(4), row.ColumnInt64(6), l, name})
			s.meet(row, name)
			return nil
		})
		if err != nil {
			return err
		}
	}
	heap.Init(&s.flows)
	return nil
}

// meet makes known the key of a row of flow_heads, if it has this flow alone: most keys have, and need not be looked up then.
// What is damaged is left to who looks.
func (s *sharing) meet(row *sqlite.Stmt, name string) {
	const keyed = flowColumns + 1
	if s.q.share.keys[name] != nil || row.ColumnInt64(keyed+6) != row.ColumnInt64(3) || row.ColumnInt64(keyed+1) != s.q.no ||
		!intact(row, 0, flowColumns) || !intact(row, keyed, keyedColumns) {
		return
	}
	if k := newKey(s.q, name); k.scan(row, keyed) == nil {
		k.flows = append(k.flows, s.flowOf(k, row))
		s.q.know(k)
	}
}

// next takes the first task that may start; more is false if there is none.
func (s *sharing) next() (more bool, err error) {
	var best *cursor
	for _, c := range s.cursors {
		if !c.ok || best != nil && compareTurns(c.prio, 0, c.ord, best.prio, 0, best.ord) > 0 {
			continue
		}
		if open, _ := c.lane.opens(s.now); open {
			best = c
		}
	}
	f, err := s.flow()
	switch {
	case err != nil || f == nil && best == nil:
		return false, err
	case f == nil, best != nil && compareTurns(best.prio, s.q.share.plain, best.ord, f.prio, s.tag(f), f.ord) < 0:
		return true, s.takePlain(best)
	}
	return true, s.takeKeyed(f)
}

func (s *sharing) tag(f *flow) int64 {
	if s.q.config.Order == driver.OrderDeadline {
		return f.rank
	}
	return f.key.tag
}

// flow returns the flow whose turn is next, nil if none may start. Turns of lanes that are closed are dropped: a lane
// does not open during a claim.
func (s *sharing) flow() (*flow, error) {
	for len(s.flows) > 0 {
		turn := s.flows[0]
		k, err := s.key(s.q, turn.name)
		if err != nil {
			return nil, err
		}
		if k.damaged {
			s.regate(k) // parks it, so that it stands in nobody's way
		}
		i := slices.IndexFunc(k.flows, func(f *flow) bool { return f.lane == turn.lane && f.prio == turn.prio })
		if i >= 0 {
			f := k.flows[i]
			open, _ := f.lane.opens(s.now)
			if open && f.n > 0 && !f.parked && f.ord == turn.ord && s.tag(f) == turn.tag {
				return f, nil
			}
		}
		heap.Pop(&s.flows)
	}
	return nil, nil
}

// takePlain claims the front task of a lane. Its row is moved at the end, with all of the lane's.
func (s *sharing) takePlain(c *cursor) error {
	p := picked{lane: c.lane, prio: c.prio, ord: c.ord}
	s.read(c, &p, s.w, s.token)
	c.passed, c.lastPrio, c.lastOrd = true, c.prio, c.ord
	if !p.fit() {
		s.undecodable(&p)
		s.unfit = append(s.unfit, p)
		return c.next()
	}
	if s.q.flowing() > 0 {
		s.q.share.plain, s.q.share.virtual = driver.TagServed(s.q.share.plain, s.q.share.virtual, 1)
		s.touchShare(s.q)
	}
	s.startedBy(s.q, c.lane.typ, "", nil)
	c.taken++
	s.count(c.lane, available, active, 1)
	if err := s.give(&p); err != nil {
		return err
	}
	return c.next()
}

// takeKeyed claims the first task of a flow.
func (s *sharing) takeKeyed(f *flow) error {
	c := &cursor{stmt: s.stmt("queued_rows").ints(f.lane.no, f.prio, f.key.no), lane: f.lane}
	err := c.next()
	p := picked{lane: f.lane, prio: c.prio, ord: c.ord}
	if err == nil && c.ok {
		s.read(c, &p, s.w, s.token)
	}
	c.reset()
	switch {
	case err != nil:
		return err
	case !c.ok:
		return corruptf("key %q has %d tasks in lane %d, and none is there", f.key.name, f.n, f.lane.no)
	case p.misplaced:
		f.key.damaged = true // what is counted of it can't be right
		s.regate(f.key)
	case p.taskMissing:
		s.count(f.lane, available, none, 1)
		if err := s.pop(f, p.seq); err != nil {
			return err
		}
		s.regate(f.key)
	case p.unfit != "":
		s.undecodable(&p)
		r, err := s.load(p.seq)
		if err == nil && r != nil {
			err = s.move(r, discarded, p.unfit)
		}
		if err != nil {
			return err
		}
	default:
		if err := s.start(f, &p); err != nil {
			return err
		}
	}
	s.again(f.key)
	return nil
}

// undecodable names a task that can't be read.
func (s *sharing) undecodable(p *picked) {
	if p.unfit == driver.ReasonUndecodable {
		s.res.Undecodable = append(s.res.Undecodable, p.claim.ID)
	}
}

// start makes the first task of a flow active.
func (s *sharing) start(f *flow, p *picked) error {
	k := f.key
	if s.q.config.Order != driver.OrderDeadline {
		k.tag, s.q.share.virtual = driver.TagServed(k.tag, s.q.share.virtual, p.claim.Weight)
		s.touchShare(s.q)
	}
	s.startedBy(s.q, f.lane.typ, p.claim.Key, k)
	if err := s.stmt("held_insert").ints(p.seq, s.w.no, s.token, f.lane.no, p.prio, p.ord, s.now,
		claimSum(f.lane.no, s.w.no, s.token, s.now)+p.seq*3+p.ord*5+p.prio*7).exec(); err != nil {
		return err
	}
	if err := s.pop(f, p.seq); err != nil {
		return err
	}
	s.count(f.lane, available, active, 1)
	if p.claim.Key != "" && s.q.counts() {
		k.count(f.lane, 1)
	}
	s.q.share.sweep.started++
	s.q.share.sweep.since++
	s.regate(k)
	if p.holding != nil {
		p.holding.key = p.claim.Key
	}
	return s.give(p)
}

// again puts a key back among the turns after one of its tasks was taken.
func (s *sharing) again(k *key) {
	for _, f := range k.flows {
		if f.n > 0 && !f.parked && slices.Contains(s.lanes, f.lane) {
			heap.Push(&s.flows, turn{f.prio, s.tag(f), f.ord, f.lane, k.name})
		}
	}
}

// give adds a claim.
func (s *sharing) give(p *picked) error {
	if err := s.started(p); err != nil {
		return err
	}
	if p.holding != nil {
		s.tx.w.held[p.claim.ID] = p.holding
	}
	s.stateEvent(active, p.lane, p.claim.ID, s.w.id)
	s.claims = append(s.claims, p.claim)
	return nil
}

// settleFronts moves what was claimed from the fronts of lanes.
func (s *sharing) settleFronts() error {
	for i := range s.unfit {
		if err := s.removeUnfit(&s.unfit[i]); err != nil {
			return err
		}
	}
	for _, c := range s.cursors {
		if err := s.takeRows(c, s.w, s.token); err != nil {
			return err
		}
	}
	return nil
}
