package workflow

import (
	"fmt"
	"testing"
	"time"

	"github.com/waggleq/waggle/driver"
)

// A cache gives a graph only to the plan that names its sum, and keeps no more steps than it may.
func TestCache(t *testing.T) {
	t.Parallel()
	c := NewCache()
	plan := func(name string, steps int) *driver.Plan {
		g := &Graph{ID: name}
		for i := range steps {
			g.Steps = append(g.Steps, Step{Name: fmt.Sprintf("s%d", i), Type: "t"})
		}
		step, err := Start(g, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		return &driver.Plan{PlanRef: step.PlanRef, Version: 1, State: step.State, Body: step.Body, Parts: step.Parts}
	}
	needs := func(p *driver.Plan) bool {
		t.Helper()
		bare := *p
		bare.Parts = nil
		m, err := Advance(c, &bare, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		return len(m.Need) > 0
	}
	read := func(p *driver.Plan) {
		t.Helper()
		if m, err := Advance(c, p, time.Now()); err != nil || len(m.Need) > 0 {
			t.Fatalf("%+v, %v", m, err)
		}
	}
	one, other := plan("one", 2), plan("one", 3)
	if !needs(one) || len(c.Parts(one.PlanRef)) != 1 {
		t.Error("a graph is known that nobody has read")
	}
	read(one)
	if needs(one) || len(c.Parts(one.PlanRef)) != 0 {
		t.Error("a graph that was read is asked for again")
	}
	if !needs(other) {
		t.Error("a workflow gets the graph of an earlier one with its name")
	}
	read(other)
	if needs(other) || !needs(one) {
		t.Error("the newer graph of a name is not the one that is kept")
	}
	for i := range 4 {
		read(plan(fmt.Sprint("big-", i), 15_000))
	}
	if c.steps > cacheSteps || len(c.byName) > 4 || needs(plan("big-3", 15_000)) || !needs(other) {
		t.Errorf("%d steps of %d graphs are kept", c.steps, len(c.byName))
	}
}

// A plan of an earlier version, which names no sum, has its graph read each time; one that is wrong is not kept.
func TestCacheWithoutSum(t *testing.T) {
	t.Parallel()
	c := NewCache()
	step, err := Start(&Graph{ID: "old", Steps: []Step{{Name: "a", Type: "t"}}}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	p := &driver.Plan{PlanRef: step.PlanRef, Version: 1, Body: []byte(`{"state":"running","status":"R","started":"2026-01-02T03:04:05Z"}`), Parts: step.Parts}
	for range 2 {
		if _, err := Advance(c, p, time.Now()); err != nil || len(c.Parts(p.PlanRef)) != 1 {
			t.Errorf("%v, %v", err, c.Parts(p.PlanRef))
		}
	}
	p.Body = []byte(`{"state":"running","graph":"00","status":"R","started":"2026-01-02T03:04:05Z"}`)
	if m, err := Advance(c, p, time.Now()); err != nil || m.Step == nil || len(c.byName) > 0 {
		t.Errorf("%+v, %v, %d kept", m, err, len(c.byName))
	}
}
