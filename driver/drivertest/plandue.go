package drivertest

import (
	"fmt"
	"time"

	"github.com/waggleq/waggle/driver"
)

var planDueCases = []testCase{
	{"a plan is offered when its time has come, not before", planned(planWake)},
	{"a plan with news is offered at once", planned(planDueNews)},
	{"an offered plan is another worker's when the reservation ends", planned(planReserved)},
	{"GetPlans reserves what is due, once", planned(planGetReserves)},
	{"a Fetch that asks for no plans gets none", planned(planNotAsked)},
	{"no more plans are offered than were asked for", planned(planOffers)},
	{"NextDue tells of the next plan", planned(planNextDue)},
	{"a plan that becomes due wakes a worker", planned(planAwait)},
	{"a plan that is to be looked at sooner wakes a worker", planned(planAwaitSooner)},
	{"a plan that has expired is removed", planned(planExpires)},
	{"plans are listed by name, a page at a time", planned(planList)},
}

// plansFor asks for plans, of which the store may give fewer from some of its shards, and returns their names.
func (h *harness) plansFor(worker string, n int) []string {
	h.Helper()
	var names []string
	for range max(h.fixture.Shards, 1) * 2 {
		for _, ref := range h.fetchPlans(worker, n-len(names)).Plans {
			names = append(names, ref.Name)
		}
		if len(names) >= n {
			break
		}
	}
	return names
}

func (h *harness) fetchPlans(worker string, n int) *driver.FetchResult {
	h.Helper()
	req := request(worker, 0)
	req.Plans = n
	return h.fetch(req)
}

func (h *harness) wantOffered(what, worker string, want ...string) {
	h.Helper()
	got := h.plansFor(worker, 10)
	if fmt.Sprint(got) != fmt.Sprint(want) {
		h.Errorf("%s: offered %v, want %v", what, got, want)
	}
}

// reserved reports whether a plan that was reserved at a time or after it is so still: the store's clock goes on while a
// case runs.
func (h *harness) reserved(since time.Time) bool {
	h.Helper()
	return h.now().Before(since.Add(driver.PlanReserve))
}

// wantReserved fails the case if a worker is offered plans while they are reserved.
func (h *harness) wantReserved(since time.Time, worker string) {
	h.Helper()
	if got := h.plansFor(worker, 10); len(got) > 0 && h.reserved(since) {
		h.Errorf("while it is reserved: offered %v", got)
	}
}

func planWake(h *harness) {
	h.register("w")
	v := h.makePlan("p", func(s *driver.PlanStep) { s.Wake = h.now().Add(time.Hour) })
	h.makePlan("never", nil)
	h.wantOffered("an hour before", "w")
	h.advance(time.Hour - time.Minute)
	h.wantOffered("a minute before", "w")
	h.advance(time.Minute)
	h.wantOffered("in time", "w", "p")
	h.step(driver.PlanStep{PlanRef: planRef("p"), Expect: v, State: "on", Wake: h.now().Add(time.Hour)})
	h.advance(time.Minute)
	h.wantOffered("after a step with a later time", "w")
	h.advance(time.Hour)
	h.wantOffered("an hour later", "w", "p")
}

func planDueNews(h *harness) {
	h.register("w")
	v := h.makePlan("p", func(s *driver.PlanStep) { s.Wake = h.now().Add(time.Hour) }, "a")
	h.wantOffered("before the news", "w")
	h.applyOK(driver.OpCancel, driver.PlanTaskID(planRef("p"), "a"))
	h.wantOffered("with news", "w", "p")
	v = h.step(driver.PlanStep{PlanRef: planRef("p"), Expect: v, State: "on", Wake: h.now().Add(time.Hour)})
	h.wantOffered("after a step that has seen nothing", "w", "p")
	h.step(driver.PlanStep{PlanRef: planRef("p"), Expect: v, State: "on", Wake: h.now().Add(time.Hour), Seen: 1})
	h.wantOffered("after a step that has seen all", "w")
}

func planReserved(h *harness) {
	h.register("w", "x")
	h.makePlan("p", func(s *driver.PlanStep) { s.Wake = h.now() }, "a")
	since := h.now()
	h.wantOffered("at first", "w", "p")
	h.must(h.signal("p", "1", "go", ""))
	h.wantReserved(since, "x")
	if due := h.fetchPlans("x", 1).NextDue; h.reserved(since) && (due.IsZero() || due.After(h.now().Add(driver.PlanReserve))) {
		h.Errorf("NextDue is %v, want the end of the reservation", due)
	}
	h.advance(driver.PlanReserve)
	h.wantOffered("when the reservation has ended", "x", "p")
}

func planGetReserves(h *harness) {
	h.register("w")
	v := h.makePlan("p", func(s *driver.PlanStep) { s.Wake = h.now().Add(time.Hour) })
	for range 2 {
		if p := h.readPlan("p", driver.PlanRead{Reserve: true}); p.Busy || p.Version != v {
			h.Fatalf("a plan that is not due can't be reserved, got %+v", p)
		}
	}
	h.must(h.signal("p", "1", "go", ""))
	since := h.now()
	if p := h.readPlan("p", driver.PlanRead{Reserve: true, News: 10}); p.Busy || len(p.News) != 1 {
		h.Errorf("the first got %+v", p)
	}
	if p := h.readPlan("p", driver.PlanRead{Reserve: true, News: 10}); (!p.Busy || p.Version != 0 || p.Name != "p") && h.reserved(since) {
		h.Errorf("the second got %+v", p)
	}
	if p := h.readPlan("p", driver.PlanRead{News: 10}); p.Busy || len(p.News) != 1 {
		h.Errorf("one who only reads got %+v", p)
	}
	h.wantReserved(since, "w")
	h.must(h.signal("p", "2", "go", ""))
	h.step(driver.PlanStep{PlanRef: planRef("p"), Expect: v, State: "on", Seen: 1})
	h.wantOffered("after a step that has not seen the newest news", "w", "p")
}

func planNotAsked(h *harness) {
	h.register("w")
	h.makePlan("p", func(s *driver.PlanStep) { s.Wake = h.now() })
	if res := h.fetch(request("w", 10)); len(res.Plans) != 0 || !res.NextDue.IsZero() {
		h.Errorf("a Fetch that asked for none got %v, and NextDue %v", res.Plans, res.NextDue)
	}
	h.wantOffered("one that asks", "w", "p")
	req := request("w", 1)
	req.Plans = -1
	_, err := h.store.Fetch(h.ctx(), req)
	h.wantErr("a negative number", err, driver.ErrInvalid)
}

func planOffers(h *harness) {
	h.register("w")
	for i := range 5 {
		h.makePlan(fmt.Sprint("p", i), func(s *driver.PlanStep) { s.Wake = h.now() })
	}
	seen := map[driver.PlanRef]time.Time{} // when it was offered last, or a little before
	for range 5 * h.whole(2) {
		since := h.now()
		res := h.fetchPlans("w", 2)
		if len(res.Plans) > 2 {
			h.Errorf("two were asked for, %d came", len(res.Plans))
		}
		for _, ref := range res.Plans {
			if last, ok := seen[ref]; ok && h.reserved(last) {
				h.Errorf("%s was offered twice", ref)
			}
			seen[ref] = since
		}
		if len(seen) < 5 && !res.More && (res.NextDue.IsZero() || res.NextDue.After(res.Now)) {
			h.Errorf("after %d of 5 the result tells no worker to come again: More %v, NextDue %v at %v", len(seen), res.More, res.NextDue, res.Now)
		}
	}
	if len(seen) != 5 {
		h.Errorf("%d of 5 plans were offered", len(seen))
	}
}

func planNextDue(h *harness) {
	h.register("w")
	at := h.now().Add(time.Hour)
	h.makePlan("p", func(s *driver.PlanStep) { s.Wake = at })
	h.makePlan("q", func(s *driver.PlanStep) { s.Wake = at.Add(time.Hour) })
	found := false
	for range h.whole(2) { // a Fetch need not ask all shards
		due := h.fetchPlans("w", 1).NextDue
		found = found || due.Equal(at)
		if !due.IsZero() && due.Before(at) {
			h.Errorf("NextDue is %v, want %v", due, at)
		}
	}
	if !found {
		h.Errorf("no Fetch told of %v", at)
	}
}

func forPlans(worker string) driver.AwaitRequest {
	return driver.AwaitRequest{Worker: worker, For: driver.ForWork, Queues: []string{driver.DefaultQueue}, Plans: true}
}

func planAwait(h *harness) {
	h.register("w")
	h.wantOffered("at first", "w")
	done := h.await(forPlans("w"))
	h.makePlan("p", func(s *driver.PlanStep) { s.Wake = h.now() })
	h.wantWoken("a new plan", done)
	h.wantWoken("a plan that was there before", h.await(forPlans("w")))
	h.wantOffered("the new plan", "w", "p")
	h.makePlan("q", nil)
	done = h.await(forPlans("w"))
	h.must(h.signal("q", "1", "go", ""))
	h.wantWoken("news", done)
}

func planAwaitSooner(h *harness) {
	h.register("w")
	h.makePlan("p", func(s *driver.PlanStep) { s.Wake = h.now().Add(time.Hour) })
	for range h.whole(2) {
		h.plansFor("w", 1)
	}
	done := h.await(forPlans("w"))
	h.makePlan("q", func(s *driver.PlanStep) { s.Wake = h.now().Add(time.Minute) })
	h.wantWoken("a plan due sooner than all others", done)
}

func planExpires(h *harness) {
	h.register("w")
	expire := func(name string, in time.Duration) {
		h.makePlan(name, func(s *driver.PlanStep) {
			s.State, s.Expires, s.Parts = "off", h.now().Add(in), map[string][]byte{"x": []byte("y")}
		})
	}
	expire("p", time.Hour)
	expire("q", time.Minute)
	h.must(h.deletePlan("q"))
	expire("q", time.Minute)
	h.advance(2 * time.Minute)
	h.wantOffered("what has expired", "w")
	for range 100 {
		if h.readPlan("q", driver.PlanRead{}) == nil {
			break
		}
		h.maintain()
	}
	if h.readPlan("q", driver.PlanRead{}) != nil || h.readPlan("p", driver.PlanRead{}) == nil {
		h.Error("want q removed and p kept")
	}
	h.advance(time.Hour)
	if n, err := h.store.Maintain(h.ctx(), 0); err != nil || n.Plans != 1 || h.readPlan("p", driver.PlanRead{}) != nil {
		h.Errorf("Maintain removed %+v, %v; want the plan p", n, err)
	}
}

func planList(h *harness) {
	want := []string{}
	for i := range 25 {
		name := fmt.Sprintf("p%02d", i)
		want = append(want, name)
		h.makePlan(name, func(s *driver.PlanStep) {
			if i%5 == 0 {
				s.State = "off"
			}
		})
	}
	h.step(driver.PlanStep{PlanRef: driver.PlanRef{Kind: "other", Name: "p03x"}, State: "on"})
	h.step(driver.PlanStep{PlanRef: driver.PlanRef{Kind: "k", Name: "q"}, State: "on", Body: []byte("b")})
	for name, c := range map[string]struct {
		q    driver.PlanQuery
		want []string
	}{
		"all of a kind": {driver.PlanQuery{Kind: "k"}, append(want, "q")},
		"a prefix":      {driver.PlanQuery{Kind: "k", Prefix: "p0"}, want[:10]},
		"a state":       {driver.PlanQuery{Kind: "k", States: []string{"off", "x"}}, []string{"p00", "p05", "p10", "p15", "p20"}},
		"another kind":  {driver.PlanQuery{Kind: "other"}, []string{"p03x"}},
		"nothing":       {driver.PlanQuery{Kind: "nothing"}, nil},
	} {
		for _, size := range []int{3, 1000} {
			var got []string
			for cursor := ""; ; {
				page, err := h.store.Plans(h.ctx(), c.q, driver.Page{Size: size, Cursor: cursor})
				h.must(err)
				if len(page.Plans) > size {
					h.Errorf("a page of %d has %d plans", size, len(page.Plans))
				}
				for _, p := range page.Plans {
					got = append(got, p.Name)
				}
				if cursor = page.Next; cursor == "" || len(got) > 100 {
					break
				}
			}
			if fmt.Sprint(got) != fmt.Sprint(c.want) {
				h.Errorf("%s, %d a page: got %v, want %v", name, size, got, c.want)
			}
		}
	}
	_, err := h.store.Plans(h.ctx(), driver.PlanQuery{Kind: "k"}, driver.Page{Cursor: "no-cursor"})
	h.wantErr("a foreign cursor", err, driver.ErrInvalid)
	_, err = h.store.Plans(h.ctx(), driver.PlanQuery{}, driver.Page{})
	h.wantErr("no kind", err, driver.ErrInvalid)
}
