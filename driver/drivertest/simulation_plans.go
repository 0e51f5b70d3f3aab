package drivertest

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/waggleq/waggle/driver"
)

// The plans of the simulation: few, so that their steps and the ends of their tasks meet.
var (
	simPlans   = []driver.PlanRef{{Kind: "flow", Name: "p1"}, {Kind: "flow", Name: "p2"}, {Kind: "cron", Name: "p1"}}
	simSteps   = []string{"a", "b", "c"}
	simSignals = []string{"sig-1", "sig-2", "sig-3"}
)

// plansOf returns the plans of the simulation as one side has them, nil where there is none.
func (s *simulation) plansOf(of *side) []*driver.Plan {
	plans, err := of.GetPlans(s.ctx, simPlans, driver.PlanRead{AllParts: true, News: 1000})
	s.must(err)
	if len(plans) != len(simPlans) {
		s.Fatalf("GetPlans of %d plans returned %d", len(simPlans), len(plans))
	}
	return plans
}

// comparePlans fails the run unless both sides have the same plans with the same news. In which order what ended in one step
// became news is open.
func (s *simulation) comparePlans() {
	if !s.caps.Plans {
		return
	}
	mine, theirs := s.plansOf(s.model), s.plansOf(s.engine)
	for i, ref := range simPlans {
		s.same("plan "+ref.String(), s.plainPlan(s.model, mine[i]), s.plainPlan(s.engine, theirs[i]))
	}
}

// plainPlan is a plan without what differs between two stores that do the same.
func (s *simulation) plainPlan(of *side, p *driver.Plan) *driver.Plan {
	if p == nil {
		return nil
	}
	c := *p
	c.Version = 0
	for _, t := range []*time.Time{&c.Wake, &c.Expires, &c.Created, &c.Updated} {
		*t = of.epoch(*t)
	}
	c.News = slices.Clone(p.News)
	for i := range c.News {
		n := &c.News[i]
		if i > 0 && n.No <= p.News[i-1].No {
			s.Fatalf("%s: news %d comes after news %d", p.PlanRef, n.No, p.News[i-1].No)
		}
		n.No, n.Time = 0, of.epoch(n.Time)
		n.Error = "" // whether an attempt that was given back is told is open
	}
	key := func(n driver.News) string { b, _ := json.Marshal(n); return string(b) }
	slices.SortFunc(c.News, func(a, b driver.News) int { return cmp.Compare(key(a), key(b)) })
	return &c
}

// advance hands in a step of a plan: of one that is new, from the version that it has, or from another one.
func (s *simulation) advance() {
	i := draw(s, "plan", 0, 1, 2)
	mine, theirs := s.plansOf(s.model)[i], s.plansOf(s.engine)[i]
	step := driver.PlanStep{PlanRef: simPlans[i], State: draw(s, "state", "one", "two"), Body: []byte(draw(s, "body", "", "x", "yy"))}
	if s.chance("wake", 3) {
		step.Wake = time.Unix(int64(draw(s, "ticks to wake", 1, 2, 4)), 0)
	}
	if s.chance("ended", 6) {
		step.Expires = time.Unix(100_000, 0)
	}
	if s.chance("parts", 2) {
		step.Parts = map[string][]byte{draw(s, "part", "one", "two"): draw(s, "bytes", []byte("bytes"), []byte{}, nil)}
	}
	taken := map[string]map[int]bool{}
	for _, label := range some(s, "steps", simSteps...)[:draw(s, "tasks", 1, 0)] {
		t := s.task(taken)
		t.ID, t.Unique, t.Delay, t.At, t.ExpiresIn, t.Priority = driver.PlanTaskID(step.PlanRef, label), nil, 0, time.Time{}, 0, 0
		s.house(t)
		t.Plan = &driver.TaskPlan{PlanRef: step.PlanRef, Step: label}
		step.Tasks = append(step.Tasks, t)
	}
	version := draw(s, "expected", "present", "present", "present", "other", "none")
	seen := s.chance("seen", 2)
	at := func(of *side, p *driver.Plan) driver.PlanStep {
		c := step
		for _, t := range []*time.Time{&c.Wake, &c.Expires} {
			if !t.IsZero() {
				*t = s.now(of).Add(later(int(t.Unix())))
			}
		}
		c.Tasks = nil
		for _, t := range step.Tasks {
			c.Tasks = append(c.Tasks, t.Clone())
		}
		if p != nil && version != "none" {
			c.Expect = p.Version
			if n := len(p.News); seen && n > 0 {
				c.Seen = p.News[n-1].No
			}
		}
		if version == "other" {
			c.Expect++
		}
		return c
	}
	want, err := s.model.Advance(s.ctx, []driver.PlanStep{at(s.model, mine)})
	s.must(err)
	got, err := s.engine.Advance(s.ctx, []driver.PlanStep{at(s.engine, theirs)})
	s.must(err)
	s.same("Advance: the error", class(want[0].Err), class(got[0].Err))
	if got[0].Err == nil && theirs != nil && got[0].Version <= theirs.Version {
		s.Fatalf("Advance: version %d follows on %d", got[0].Version, theirs.Version)
	}
}

// signalPlans sends signals, some of them again.
func (s *simulation) signalPlans() {
	var signals []driver.Signal
	for _, id := range some(s, "signals", simSignals...) {
		ref := simPlans[draw(s, "plan", 0, 1, 2)]
		signals = append(signals, driver.Signal{PlanRef: ref, ID: id, Signal: draw(s, "signal", "go", "stop"), Payload: []byte(`1`)})
	}
	want, err := s.model.Signal(s.ctx, signals)
	s.must(err)
	got, err := s.engine.Signal(s.ctx, signals)
	s.must(err)
	s.same("Signal", classes(want), classes(got))
}

// deletePlans removes one or all.
func (s *simulation) deletePlans() {
	refs := simPlans[:draw(s, "plans", 1, 1, 2)]
	want, err := s.model.DeletePlans(s.ctx, refs)
	s.must(err)
	got, err := s.engine.DeletePlans(s.ctx, refs)
	s.must(err)
	s.same("DeletePlans", classes(want), classes(got))
}

// listPlans compares a walk in pages.
func (s *simulation) listPlans() {
	q := driver.PlanQuery{Kind: draw(s, "kind", "flow", "cron"), Prefix: draw(s, "prefix", "", "p", "p2")}
	if s.chance("by state", 2) {
		q.States = []string{"one"}
	}
	size := draw(s, "size", 1, 10)
	walk := func(of *side) []string {
		var all []string
		for cursor := ""; ; {
			page, err := of.Plans(s.ctx, q, driver.Page{Cursor: cursor, Size: size})
			s.must(err)
			for _, p := range page.Plans {
				all = append(all, fmt.Sprintf("%s %s %q %d", p.PlanRef, p.State, p.Body, p.Waiting))
			}
			if cursor = page.Next; cursor == "" {
				return all
			}
		}
	}
	s.same("Plans", walk(s.model), walk(s.engine))
}

// sameOffers compares the plans that a fetch has offered: those that are due and that no other worker was offered.
func (s *simulation) sameOffers(want, got []driver.PlanRef) {
	sorted := func(refs []driver.PlanRef) []driver.PlanRef {
		return slices.SortedFunc(slices.Values(refs), func(a, b driver.PlanRef) int { return strings.Compare(a.String(), b.String()) })
	}
	s.same("Fetch: the plans", sorted(want), sorted(got))
}
