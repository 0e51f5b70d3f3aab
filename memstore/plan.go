package memstore

import (
	"cmp"
	pq "container/heap"
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/waggleq/waggle/driver"
)

// plan is a plan with its inbox and its place among those that are to be looked at.
type plan struct {
	driver.Plan // with all parts and the news that wait; Waiting is set only in copies
	lastNews    int64
	reserved    time.Time // until then it is another worker's to look at
	signals     []string  // ids of the newest signals
	at          time.Time // its time in the index; zero: it is not in it
	pos         int       // in the index
}

// plans are all plans, and those with something to come ordered by its time.
type plans struct {
	byRef map[driver.PlanRef]*plan
	index planIndex
	news  bool // the earliest time has changed with no worker waiting to be told
}

// planIndex is a heap by time.
type planIndex []*plan

func (x planIndex) Len() int           { return len(x) }
func (x planIndex) Less(i, j int) bool { return x[i].at.Before(x[j].at) }
func (x planIndex) Swap(i, j int) {
	x[i], x[j] = x[j], x[i]
	x[i].pos, x[j].pos = i, j
}

// Push implements heap.Interface.
func (x *planIndex) Push(v any) {
	p := v.(*plan)
	p.pos = len(*x)
	*x = append(*x, p)
}

// Pop implements heap.Interface.
func (x *planIndex) Pop() any {
	p := (*x)[len(*x)-1]
	*x = (*x)[:len(*x)-1]
	return p
}

func (x planIndex) top() *plan {
	if len(x) == 0 {
		return nil
	}
	return x[0]
}

// due returns when a plan is to be looked at, zero: never.
func (p *plan) due() time.Time {
	p.Waiting = len(p.News)
	return p.Plan.Due()
}

// place returns where a plan belongs in the index: when it is due, or when its reservation or its time ends.
func (p *plan) place(now time.Time) time.Time {
	p.Waiting = len(p.News)
	return p.Place(p.reserved, now)
}

// indexPlan puts a plan where it belongs, and wakes a worker if it is due, or is the next to be.
func (s *Store) indexPlan(p *plan) {
	x, before := &s.plans.index, p.at
	at := p.place(s.now)
	switch {
	case at.IsZero() && before.IsZero():
		return
	case at.IsZero():
		pq.Remove(x, p.pos)
	case before.IsZero():
		p.at = at
		pq.Push(x, p)
	default:
		p.at = at
		pq.Fix(x, p.pos)
	}
	p.at = at
	isNew := !at.IsZero() && !at.After(s.now) && (before.IsZero() || before.After(s.now))
	if isNew || x.top() == p && !at.Equal(before) {
		s.plans.news = !s.wakePlanner()
	}
}

// wakePlanner wakes the longest waiting worker that takes plans, and reports whether there was one.
func (s *Store) wakePlanner() bool {
	return s.wakeFirst(func(w *waiter) bool { return w.plans })
}

// tell adds news to a plan, if there is one.
func (s *Store) tell(ref driver.PlanRef, n driver.News) {
	if p := s.plans.byRef[ref]; p != nil {
		p.lastNews++
		n.No = p.lastNews
		p.News = append(p.News, n)
		s.indexPlan(p)
	}
}

// tellEnd tells a task's plan that the task has ended, or was deleted before it had.
func (s *Store) tellEnd(t *task, state driver.State) {
	if t.Plan != nil {
		s.tell(t.Plan.PlanRef, t.endNews(s.now, state))
	}
}

func (t *task) endNews(now time.Time, state driver.State) driver.News {
	var last *driver.Attempt
	if n := len(t.Attempts); n > 0 {
		last = &t.Attempts[n-1]
	}
	n := driver.EndNews(now, t.ID, t.Plan.Step, state, t.Reason, last)
	if state == driver.Completed {
		n.Result, n.ResultEncoding = t.Result, t.ResultEncoding
	}
	return n
}

// offerPlans removes plans whose time is over, and reserves up to most of those that are due.
func (s *Store) offerPlans(most int) (refs []driver.PlanRef) {
	s.expirePlans(maxSweep)
	for p := s.plans.index.top(); p != nil && !p.at.After(s.now); p = s.plans.index.top() {
		if len(refs) == most || !p.Expires.IsZero() && !p.Expires.After(s.now) {
			s.wakePlanner()
			break
		}
		s.reserve(p)
		refs = append(refs, p.PlanRef)
	}
	s.plans.news = false
	return refs
}

func (s *Store) reserve(p *plan) {
	p.reserved = s.now.Add(driver.PlanReserve)
	p.at = p.place(s.now)
	pq.Fix(&s.plans.index, p.pos)
}

// expirePlans removes at most limit plans that have expired.
func (s *Store) expirePlans(limit int) (n int, more bool) {
	for p := s.plans.index.top(); p != nil && !p.Expires.IsZero() && !p.Expires.After(s.now); p = s.plans.index.top() {
		if n == limit {
			return n, true
		}
		s.dropPlan(p)
		n++
	}
	return n, false
}

func (s *Store) dropPlan(p *plan) {
	if !p.at.IsZero() {
		pq.Remove(&s.plans.index, p.pos)
	}
	delete(s.plans.byRef, p.PlanRef)
}

// Advance implements [driver.Planner].
func (s *Store) Advance(ctx context.Context, steps []driver.PlanStep) ([]driver.PlanResult, error) {
	results := make([]driver.PlanResult, len(steps))
	prepared := make([][]*driver.Task, len(steps))
	now := s.present()
	for i := range steps {
		prepared[i], results[i].Err = driver.PreparePlanStep(&steps[i], s.caps, now)
	}
	if err := s.lock(ctx); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	for i := range steps {
		if results[i].Err == nil {
			results[i] = s.advance(&steps[i], prepared[i])
		}
	}
	return results, nil
}

func (s *Store) advance(step *driver.PlanStep, tasks []*driver.Task) driver.PlanResult {
	p := s.plans.byRef[step.PlanRef]
	switch {
	case p == nil && step.Expect == 0:
		p = &plan{Plan: driver.Plan{PlanRef: step.PlanRef, Created: s.now, Version: driver.FirstPlanVersion(s.now), Parts: map[string][]byte{}}}
		s.plans.byRef[step.PlanRef] = p
	case p == nil:
		return driver.PlanResult{Err: driver.PlanConflict(step, 0)}
	case p.Version != step.Expect:
		return driver.PlanResult{Version: p.Version, Err: driver.PlanConflict(step, p.Version)}
	default:
		p.Version++
	}
	p.State, p.Wake, p.Expires, p.Updated, p.reserved = step.State, step.Wake, step.Expires, s.now, time.Time{}
	p.Body = slices.Clone(step.Body)
	for name, b := range step.Parts {
		if p.Parts[name] = slices.Clone(b); b == nil {
			delete(p.Parts, name)
		}
	}
	p.News = slices.DeleteFunc(p.News, func(n driver.News) bool { return n.No <= step.Seen })
	for _, t := range tasks {
		s.acceptOf(p, t)
	}
	s.indexPlan(p)
	return driver.PlanResult{Version: p.Version}
}

// acceptOf stores a task that a step of a plan brings about, or tells the plan why not.
func (s *Store) acceptOf(p *plan, in *driver.Task) {
	t := &task{}
	t.Task = *in
	r := s.accept(t)
	switch old := s.tasks[in.ID]; {
	case r.Err != nil:
		s.tell(p.PlanRef, driver.RefusedNews(s.now, in, r.Err))
	case r.Existing && r.ID != in.ID:
		s.tell(p.PlanRef, driver.RefusedNews(s.now, in, driver.PlanTaskTaken(in, r.ID)))
	case r.Existing && old.State.Ended() && old.Plan != nil:
		s.tell(p.PlanRef, old.endNews(s.now, old.State))
	}
}

// Signal implements [driver.Planner].
func (s *Store) Signal(ctx context.Context, signals []driver.Signal) ([]error, error) {
	if err := s.lock(ctx); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	errs := make([]error, len(signals))
	for i := range signals {
		errs[i] = s.signal(&signals[i])
	}
	return errs, nil
}

func (s *Store) signal(sig *driver.Signal) error {
	if err := driver.CheckSignal(sig); err != nil {
		return err
	}
	p := s.plans.byRef[sig.PlanRef]
	switch {
	case p == nil:
		return driver.PlanNotFound(sig.PlanRef)
	case slices.Contains(p.signals, sig.ID):
		return nil
	case !p.Expires.IsZero():
		return driver.PlanEnded(sig.PlanRef)
	case len(p.News) >= driver.MaxPlanNews:
		return driver.PlanFull(sig.PlanRef)
	}
	if p.signals = append(p.signals, sig.ID); len(p.signals) > driver.MaxSignalIDs {
		p.signals = slices.Delete(p.signals, 0, 1)
	}
	s.tell(sig.PlanRef, driver.News{Time: s.now, Signal: sig.Signal, SignalID: sig.ID, Payload: slices.Clone(sig.Payload)})
	return nil
}

// GetPlans implements [driver.Planner].
func (s *Store) GetPlans(ctx context.Context, refs []driver.PlanRef, read driver.PlanRead) ([]*driver.Plan, error) {
	if err := s.lock(ctx); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	list := make([]*driver.Plan, len(refs))
	for i, ref := range refs {
		p := s.plans.byRef[ref]
		if p == nil {
			continue
		}
		if due := p.due(); read.Reserve && !due.IsZero() && !due.After(s.now) {
			if p.reserved.After(s.now) {
				list[i] = &driver.Plan{PlanRef: ref, Busy: true}
				continue
			}
			s.reserve(p)
		}
		list[i] = p.copy(&read)
	}
	return list, nil
}

// copy returns what is wanted of a plan.
func (p *plan) copy(read *driver.PlanRead) *driver.Plan {
	c := p.Plan
	c.Waiting, c.News, c.Parts, c.Body = len(p.News), nil, nil, slices.Clone(p.Body)
	size := 0
	for i := range p.News {
		if size += p.News[i].Size(); i == read.News || i > 0 && size > driver.NewsBytes {
			break
		}
		c.News = append(c.News, p.News[i])
	}
	for name, b := range p.Parts {
		if read.AllParts || slices.Contains(read.Parts, name) {
			if c.Parts == nil {
				c.Parts = map[string][]byte{}
			}
			c.Parts[name] = slices.Clone(b)
		}
	}
	return &c
}

// Plans implements [driver.Planner].
func (s *Store) Plans(ctx context.Context, q driver.PlanQuery, page driver.Page) (*driver.PlanPage, error) {
	size, err := driver.CheckPage(page)
	if err != nil {
		return nil, err
	}
	if err := driver.CheckPlanQuery(&q); err != nil {
		return nil, err
	}
	after := ""
	if page.Cursor != "" {
		var ok bool
		if after, ok = strings.CutPrefix(page.Cursor, "plans:"+s.incarnation+":"); !ok {
			return nil, errCursor(page.Cursor)
		}
	}
	if err := s.lock(ctx); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	res := &driver.PlanPage{}
	all := slices.SortedFunc(maps.Values(s.plans.byRef), func(a, b *plan) int { return cmp.Compare(a.Name, b.Name) })
	for _, p := range all {
		if p.Name <= after || !q.Match(&p.Plan) {
			continue
		}
		if len(res.Plans) == size {
			res.Next = "plans:" + s.incarnation + ":" + res.Plans[size-1].Name
			break
		}
		res.Plans = append(res.Plans, p.copy(&driver.PlanRead{}))
	}
	return res, nil
}

// DeletePlans implements [driver.Planner].
func (s *Store) DeletePlans(ctx context.Context, refs []driver.PlanRef) ([]error, error) {
	if err := s.lock(ctx); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	errs := make([]error, len(refs))
	for i, ref := range refs {
		if p := s.plans.byRef[ref]; p != nil {
			s.dropPlan(p)
		} else {
			errs[i] = driver.PlanNotFound(ref)
		}
	}
	return errs, nil
}

// checkPlans checks that the plans are where they belong in the index.
func (s *Store) checkPlans(a *audit) {
	placed := 0
	for ref, p := range s.plans.byRef {
		if at := p.place(s.now); at.IsZero() != p.at.IsZero() || at.Before(p.at) && p.at.After(s.now) {
			a.expect(false, "lost-plan", ref.String(), "is to be looked at at %v, but stands at %v in the index", at, p.at)
		}
		if !p.at.IsZero() {
			placed++
			a.expect(p.pos < len(s.plans.index) && s.plans.index[p.pos] == p, "missing-plan-index", ref.String(), "is not in the index")
		}
	}
	a.expect(placed == len(s.plans.index), "count-plans", "", "%d plans belong in the index, it has %d", placed, len(s.plans.index))
}

// rebuildPlans makes the index of plans anew.
func (s *Store) rebuildPlans() {
	s.plans.index = nil
	for _, p := range s.plans.byRef {
		if p.at = p.place(s.now); !p.at.IsZero() {
			pq.Push(&s.plans.index, p)
		}
	}
}
