package runner

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/internal/logkey"
)

// PlanKind understands plans of one kind: see [driver.Planner].
type PlanKind struct {
	// Parts are the names of the parts that Step wants to see; AllParts wants all.
	Parts    []string
	AllParts bool
	// Step says what is to be done about a plan at a time. It is a pure function: it changes nothing, looks at no clock, and
	// says the same for the same plan and time, so that it does not matter how many workers ask it. ok is false if there is
	// nothing to do, and the store is to ask again at the plan's Wake. An error is logged, and the plan is looked at again
	// when its reservation ends.
	Step func(p *driver.Plan, now time.Time) (m PlanMove, ok bool, err error)
}

// PlanMove is what is to be done about a plan.
type PlanMove struct {
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
	offered []driver.PlanRef // reserved for this worker
	touched []driver.PlanRef // their tasks were settled: to be reserved
	working bool
	met     bool // there have been plans in this session
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
	return &planner{s: s, kinds: s.cfg.Plans, wake: make(chan struct{}, 1)}
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
	for {
		select {
		case <-p.s.ctx.Done():
			return
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
	store, log := p.s.cfg.Store, p.s.cfg.Logger
	plans, err := store.GetPlans(call, refs, driver.PlanRead{Parts: k.Parts, AllParts: k.AllParts, News: newsAPlan, Reserve: reserve})
	if err != nil {
		p.trouble(err)
		return nil
	}
	now := p.s.now()
	var steps []driver.PlanStep
	var left []bool
	for _, plan := range plans {
		if plan == nil || plan.Busy {
			continue
		}
		m, ok, err := guardStep(k, plan, now)
		if err != nil {
			log.Error("a plan can't be worked out", logkey.Plan, plan.PlanRef.String(), logkey.Error, err)
			continue
		}
		if !ok || !p.first(call, m.First) {
			continue
		}
		m.Step.PlanRef, m.Step.Expect = plan.PlanRef, plan.Version
		steps = append(steps, m.Step)
		left = append(left, plan.Waiting > len(plan.News) || !m.Step.Wake.IsZero() && !m.Step.Wake.After(now))
	}
	if len(steps) == 0 {
		return nil
	}
	results, err := store.Advance(call, steps)
	if err != nil {
		p.trouble(err)
		return nil
	}
	for i, r := range results {
		if r.Err != nil && !errors.Is(r.Err, driver.ErrConflict) {
			log.Error("the store refuses the step of a plan", logkey.Plan, steps[i].PlanRef.String(), logkey.Error, r.Err)
		}
		if r.Err == nil && left[i] {
			again = append(again, steps[i].PlanRef)
		}
	}
	return again
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
