package runner

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/internal/logkey"
)

// PlanKind understands plans of one kind: see [driver.Planner].
type PlanKind struct {
	// Parts are the names of the parts of a plan that Step will want to see, as far as that is known before. nil: none.
	Parts func(driver.PlanRef) []string
	// Step says what is to be done about a plan at a time. It is a pure function: it changes nothing, looks at no clock, and
	// says the same for the same plan and time, so that it does not matter how many workers ask it. ok is false if there is
	// nothing to do, and the store is to ask again at the plan's Wake. An error is logged, and the plan is looked at again
	// when its reservation ends. A part that was read and does not exist is in the plan as nil.
	Step func(p *driver.Plan, now time.Time) (m PlanMove, ok bool, err error)
}

// PlanMove is what is to be done about a plan.
type PlanMove struct {
	// Need are parts of the plan that Step has to see to say: it is asked again with them. Then nothing else counts.
	Need []string
	// First are operations on tasks that are done before the step: such that may be done twice.
	First []driver.Change
	// Step is the step; its PlanRef and Expect are filled in.
	Step driver.PlanStep
}

const (
	// maxPlans is how many plans one fetch asks for, newsAPlan how many of its news are read at once.
	maxPlans  = 200
	newsAPlan = 1000
	// planRounds is how often a plan is looked at again at once, as long as each look leads to a step.
	planRounds = 100
)

// planner looks at plans that are due: those that a fetch has offered, and those whose tasks were just settled.
type planner struct {
	s     *session
	kinds map[string]PlanKind
	wake  chan struct{}

	mu      sync.Mutex
	offered []driver.PlanRef             // reserved for this worker
	touched []driver.PlanRef             // their tasks were settled: to be reserved
	wakes   map[driver.PlanRef]time.Time // of the plans that were stepped here, some of them: see planner.alarm
	working bool
	met     bool // there have been plans in this session
}

// maxWakes is how many wakes a planner remembers.
const maxWakes = 1000

// remember notes when a plan wants to be looked at again, if the fetcher may not look before.
func (p *planner) remember(step *driver.PlanStep) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.wakes, step.PlanRef)
	if in := step.Wake.Sub(p.s.now()); !step.Wake.IsZero() && in < p.s.cfg.Lease/2 && len(p.wakes) < maxWakes {
		p.wakes[step.PlanRef] = time.Now().Add(in)
	}
}

// nextWake is how long it is until the first of the wakes that are remembered, at most a minute.
func (p *planner) nextWake() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	next := time.Minute
	for _, at := range p.wakes {
		next = min(next, time.Until(at))
	}
	return max(next, 0)
}

// alarm sees to plans whose wake has come while the worker has no room: then it does not fetch, and nobody offers them. A
// worker with room is offered them.
func (p *planner) alarm() {
	busy := p.s.desk.waitsForRoom()
	p.mu.Lock()
	defer p.mu.Unlock()
	for ref, at := range p.wakes {
		if time.Until(at) > 0 {
			continue
		}
		delete(p.wakes, ref)
		if busy {
			p.touched = append(p.touched, ref)
		}
	}
}

// busy reports whether there are plans that it has not looked at yet.
func (p *planner) busy() bool {
	if p == nil {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.working || len(p.offered)+len(p.touched) > 0
}

// hasMet reports whether there have been plans in this session.
func (p *planner) hasMet() bool {
	if p == nil {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.met
}

func newPlanner(s *session) *planner {
	if len(s.cfg.Plans) == 0 || !s.cfg.Store.Capabilities().Plans {
		return nil
	}
	return &planner{s: s, kinds: s.cfg.Plans, wake: make(chan struct{}, 1), wakes: map[driver.PlanRef]time.Time{}}
}

// want is how many plans a fetch is to ask for. A nil planner wants none.
func (p *planner) want() int {
	if p == nil {
		return 0
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return max(maxPlans-len(p.offered), 1)
}

// offer takes in the plans of a fetch.
func (p *planner) offer(refs []driver.PlanRef) {
	if p == nil || len(refs) == 0 {
		return
	}
	p.mu.Lock()
	p.offered, p.met = append(p.offered, refs...), true
	p.mu.Unlock()
	p.signal()
}

// settled takes in the plans of tasks that were settled.
func (p *planner) settled(items []driver.Settlement, jobs []*Job) {
	if p == nil {
		return
	}
	var refs []driver.PlanRef
	seen := map[driver.PlanRef]bool{}
	for i, j := range jobs {
		if items[i].Outcome == driver.Release || items[i].Outcome == driver.Snooze {
			continue // it has not ended
		}
		if j.Plan != nil && !seen[j.Plan.PlanRef] {
			seen[j.Plan.PlanRef] = true
			refs = append(refs, j.Plan.PlanRef)
		}
	}
	if len(refs) == 0 {
		return
	}
	p.mu.Lock()
	p.touched, p.met = append(p.touched, refs...), true
	p.mu.Unlock()
	p.signal()
}

func (p *planner) signal() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// run looks at plans until the session ends.
func (p *planner) run() {
	timer := time.NewTimer(time.Minute)
	defer timer.Stop()
	for {
		timer.Reset(p.nextWake())
		select {
		case <-p.s.ctx.Done():
			return
		case <-timer.C:
			p.alarm()
		case <-p.wake:
		}
		p.work()
	}
}

// work looks at plans until there are none.
func (p *planner) work() {
	for p.s.ctx.Err() == nil {
		p.mu.Lock()
		offered, touched := p.offered, p.touched
		p.offered, p.touched = nil, nil
		p.working = len(offered)+len(touched) > 0
		p.mu.Unlock()
		if len(offered)+len(touched) == 0 {
			return
		}
		p.lookAll(unique(offered), false)
		p.lookAll(unique(touched), true)
	}
}

func unique(refs []driver.PlanRef) []driver.PlanRef {
	seen := make(map[driver.PlanRef]bool, len(refs))
	list := refs[:0]
	for _, r := range refs {
		if !seen[r] {
			seen[r] = true
			list = append(list, r)
		}
	}
	return list
}

// lookAll looks at plans, and again at those that a step was accepted for, which may have got news meanwhile.
func (p *planner) lookAll(refs []driver.PlanRef, reserve bool) {
	byKind := map[string][]driver.PlanRef{}
	for _, r := range refs {
		byKind[r.Kind] = append(byKind[r.Kind], r)
	}
	for kind, list := range byKind {
		k, ok := p.kinds[kind]
		if !ok {
			continue // of a newer program: another worker will
		}
		for round := 0; len(list) > 0 && round < planRounds; round++ {
			list = p.look(k, list, reserve)
			reserve = true
		}
	}
}

// look reads plans of a kind, and does the steps that are to be done. It returns the plans that may have news still.
func (p *planner) look(k PlanKind, refs []driver.PlanRef, reserve bool) (again []driver.PlanRef) {
	call, cancel := context.WithTimeout(p.s.ctx, callTimeout(p.s.cfg.Lease))
	defer cancel()
	plans, err := p.read(call, k, refs, reserve)
	if err != nil {
		p.trouble(err)
		return nil
	}
	now := p.s.now()
	var steps []driver.PlanStep
	var left []bool
	for plan, m := range p.moves(call, k, plans, now) {
		if !p.first(call, m.First) {
			continue
		}
		m.Step.PlanRef, m.Step.Expect = plan.PlanRef, plan.Version
		steps = append(steps, m.Step)
		left = append(left, plan.Waiting > len(plan.News) || !m.Step.Wake.IsZero() && !m.Step.Wake.After(now))
	}
	if len(steps) == 0 {
		return nil
	}
	results, err := p.s.cfg.Store.Advance(call, steps)
	if err != nil {
		p.trouble(err)
		return nil
	}
	for i, r := range results {
		if r.Err != nil && !errors.Is(r.Err, driver.ErrConflict) {
			p.s.cfg.Logger.Error("the store refuses the step of a plan", logkey.Plan, steps[i].PlanRef.String(), logkey.Error, r.Err)
		}
		if r.Err == nil {
			p.remember(&steps[i])
		}
		if r.Err == nil && left[i] {
			again = append(again, steps[i].PlanRef)
		}
	}
	return again
}

// read reads plans with the parts that are wanted in any case: those that want the same ones at once.
func (p *planner) read(ctx context.Context, k PlanKind, refs []driver.PlanRef, reserve bool) (plans []*driver.Plan, err error) {
	if k.Parts == nil {
		k.Parts = func(driver.PlanRef) []string { return nil }
	}
	for len(refs) > 0 {
		parts := k.Parts(refs[0])
		var same, others []driver.PlanRef
		for _, r := range refs {
			if slices.Equal(k.Parts(r), parts) {
				same = append(same, r)
			} else {
				others = append(others, r)
			}
		}
		list, err := p.s.cfg.Store.GetPlans(ctx, same, driver.PlanRead{Parts: parts, News: newsAPlan, Reserve: reserve})
		if err != nil {
			return nil, err
		}
		for _, plan := range list {
			if plan != nil && !plan.Busy {
				addParts(plan, parts, plan.Parts)
				plans = append(plans, plan)
			}
		}
		refs = others
	}
	return plans, nil
}

// addParts puts parts that were read into a plan; those that do not exist as nil.
func addParts(plan *driver.Plan, names []string, read map[string][]byte) {
	if plan.Parts == nil && len(names) > 0 {
		plan.Parts = make(map[string][]byte, len(names))
	}
	for _, name := range names {
		plan.Parts[name] = read[name]
	}
}

// needRounds is how often more parts are read for a step, at most: those of a plan that asks for more come later.
const needRounds = 5

// moves returns what is to be done about plans, for which it reads the parts that turn out to be needed.
func (p *planner) moves(ctx context.Context, k PlanKind, plans []*driver.Plan, now time.Time) map[*driver.Plan]*PlanMove {
	moves := make(map[*driver.Plan]*PlanMove, len(plans))
	for round := 0; len(plans) > 0 && round < needRounds; round++ {
		var waiting []*driver.Plan
		var need []string
		for _, plan := range plans {
			m, ok, err := guardStep(k, plan, now)
			switch {
			case err != nil:
				p.s.cfg.Logger.Error("a plan can't be worked out", logkey.Plan, plan.PlanRef.String(), logkey.Error, err)
			case !ok:
			case len(m.Need) > 0:
				waiting, need = append(waiting, plan), append(need, m.Need...)
			default:
				moves[plan] = &m
			}
		}
		plans = p.readMore(ctx, waiting, need)
	}
	return moves
}

// readMore reads further parts of plans. It returns those that have not changed meanwhile.
func (p *planner) readMore(ctx context.Context, plans []*driver.Plan, parts []string) (same []*driver.Plan) {
	if len(plans) == 0 {
		return nil
	}
	slices.Sort(parts)
	parts = slices.Compact(parts)
	refs := make([]driver.PlanRef, len(plans))
	for i, plan := range plans {
		refs[i] = plan.PlanRef
	}
	list, err := p.s.cfg.Store.GetPlans(ctx, refs, driver.PlanRead{Parts: parts})
	if err != nil {
		p.trouble(err)
		return nil
	}
	for i, more := range list {
		if more != nil && more.Version == plans[i].Version {
			addParts(plans[i], parts, more.Parts)
			same = append(same, plans[i])
		}
	}
	return same
}

// guardStep is the kind's Step, whose panic is an error: what somebody has put into a store must not end every worker.
func guardStep(k PlanKind, plan *driver.Plan, now time.Time) (m PlanMove, ok bool, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = driver.Errorf(driver.ErrCorrupt, "it makes this program panic: %v", v)
		}
	}()
	return k.Step(plan, now)
}

// first does what comes before a step. What can't be done on a task any more is done.
func (p *planner) first(ctx context.Context, changes []driver.Change) bool {
	for _, c := range changes {
		if _, err := p.s.cfg.Store.Apply(ctx, c); err != nil {
			p.trouble(err)
			return false
		}
	}
	return true
}

// trouble notes the failure of a call. The plans are due again when their reservation ends.
func (p *planner) trouble(err error) {
	if p.s.ctx.Err() != nil || p.s.failed(err) {
		return
	}
	p.s.cfg.Logger.Error("the store does not answer as it should: its plans wait", logkey.Error, err)
}
