package drivertest

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/waggleq/waggle/driver"
)

var planCases = []testCase{
	{"without Capabilities.Plans all is ErrUnsupported", planUnsupported},
	{"a step makes a plan, and the next changes it", planned(planSteps)},
	{"a step that expects another version changes nothing", planned(planConflict)},
	{"of steps from the same version one is accepted", planned(planRace)},
	{"the tasks of a step are stored with it, once", planned(planTasks)},
	{"an invalid step changes nothing", planned(planInvalid)},
	{"a plan that is made anew has a greater version", planned(planAnew)},
	{"a task that ends in any way is news", planned(planNewsOfEnds)},
	{"a live task that is deleted is news, an ended one is not", planned(planNewsOfDelete)},
	{"a crash that discards a task is news", planned(planNewsOfCrash)},
	{"a task that could not be stored is news", planned(planNewsOfRefused)},
	{"a step's task that has ended before is news", planned(planNewsOfExisting)},
	{"news are dropped up to what a step has seen", planned(planSeen)},
	{"a task whose plan is gone ends as others do", planned(planGone)},
	{"tasks with a unique key tell their plan too", planned(planNewsOfUnique)},
	{"a signal is news, once", planned(planSignal)},
	{"a signal to nothing, or to what has ended, is refused", planned(planSignalRefused)},
	{"large news come a part at a time", planned(planNewsBytes)},
	{"parts are read and replaced one by one", planned(planParts)},
}

// planned skips a test where the store offers no plans.
func planned(run func(*harness)) func(*harness) {
	return func(h *harness) {
		if !h.caps.Plans {
			h.Skipf("the %s store offers no plans", h.caps.Engine)
		}
		run(h)
	}
}

func planUnsupported(h *harness) {
	if h.caps.Plans {
		h.Skip("this store offers plans")
	}
	for name, call := range planCalls {
		h.wantErr(name, call(h.ctx(), h.store), driver.ErrUnsupported)
	}
}

func planRef(name string) driver.PlanRef { return driver.PlanRef{Kind: "k", Name: name} }

// advance1 does one step and returns what became of it.
func (h *harness) advance1(s driver.PlanStep) driver.PlanResult {
	h.Helper()
	results, err := h.store.Advance(h.ctx(), []driver.PlanStep{s})
	h.must(err)
	if len(results) != 1 {
		h.Fatalf("Advance of one step returned %d results", len(results))
	}
	return results[0]
}

// step does one step, which must be accepted, and returns the plan's version.
func (h *harness) step(s driver.PlanStep) int64 {
	h.Helper()
	r := h.advance1(s)
	h.must(r.Err)
	return r.Version
}

// makePlan makes a plan with tasks that are its steps.
func (h *harness) makePlan(name string, edit func(*driver.PlanStep), steps ...string) int64 {
	h.Helper()
	s := driver.PlanStep{PlanRef: planRef(name), State: "on", Body: []byte("body")}
	for _, label := range steps {
		s.Tasks = append(s.Tasks, stepTask(name, label))
	}
	if edit != nil {
		edit(&s)
	}
	return h.step(s)
}

func stepTask(plan, label string) *driver.Task {
	ref := planRef(plan)
	return task(driver.PlanTaskID(ref, label), func(t *driver.Task) { t.Plan = &driver.TaskPlan{PlanRef: ref, Step: label} })
}

func (h *harness) getPlan(name string) *driver.Plan {
	h.Helper()
	p := h.readPlan(name, driver.PlanRead{AllParts: true, News: 1000})
	if p == nil {
		h.Fatalf("there is no plan %s", name)
	}
	return p
}

func (h *harness) readPlan(name string, read driver.PlanRead) *driver.Plan {
	h.Helper()
	plans, err := h.store.GetPlans(h.ctx(), []driver.PlanRef{planRef(name)}, read)
	h.must(err)
	if len(plans) != 1 {
		h.Fatalf("GetPlans of one plan returned %d", len(plans))
	}
	return plans[0]
}

// news waits until a plan has n news: with several shards they may have a way to go.
func (h *harness) news(name string, n int) []driver.News {
	h.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		p := h.getPlan(name)
		if p.Waiting >= n || time.Now().After(end) {
			if p.Waiting != n || len(p.News) != n {
				h.Fatalf("plan %s has %d news, %d were given, want %d: %+v", name, p.Waiting, len(p.News), n, p.News)
			}
			return p.News
		}
		h.maintain()
	}
}

func (h *harness) wantPlan(want driver.Plan) {
	h.Helper()
	got := h.getPlan(want.Name)
	ignore := cmpopts.IgnoreFields(driver.Plan{}, "Created", "Updated")
	if diff := cmp.Diff(&want, got, ignore, equateEmpty); diff != "" {
		h.Errorf("plan %s (-want +got):\n%s", want.Name, diff)
	}
}

func planSteps(h *harness) {
	before := h.now()
	wake, expires := before.Add(time.Hour), before.Add(2*time.Hour)
	v := h.makePlan("p", func(s *driver.PlanStep) { s.Wake = wake })
	if v <= 0 {
		h.Errorf("the new plan has version %d", v)
	}
	h.wantPlan(driver.Plan{PlanRef: planRef("p"), Version: v, State: "on", Wake: wake, Body: []byte("body")})
	if p := h.getPlan("p"); p.Created.Before(before) || !p.Updated.Equal(p.Created) {
		h.Errorf("made at %v, changed at %v, want both not before %v", p.Created, p.Updated, before)
	}
	h.advance(time.Minute)
	next := h.step(driver.PlanStep{PlanRef: planRef("p"), Expect: v, State: "off", Expires: expires, Body: []byte("more")})
	if next <= v {
		h.Errorf("version %d came after %d", next, v)
	}
	h.wantPlan(driver.Plan{PlanRef: planRef("p"), Version: next, State: "off", Expires: expires, Body: []byte("more")})
	if p := h.getPlan("p"); p.Updated.Sub(p.Created) < time.Minute {
		h.Errorf("made at %v and changed at %v, a minute later", p.Created, p.Updated)
	}
}

func planConflict(h *harness) {
	v := h.makePlan("p", nil)
	want := *h.getPlan("p")
	for name, s := range map[string]driver.PlanStep{
		"a plan that exists":         {PlanRef: planRef("p")},
		"a version of long ago":      {PlanRef: planRef("p"), Expect: v - 1},
		"a version that is to come":  {PlanRef: planRef("p"), Expect: v + 1},
		"a plan that does not exist": {PlanRef: planRef("q"), Expect: v},
	} {
		s.State, s.Body, s.Parts = "off", []byte("other"), map[string][]byte{"x": []byte("y")}
		s.Tasks = []*driver.Task{stepTask("p", "a")}
		h.wantErr(name, h.advance1(s).Err, driver.ErrConflict)
	}
	h.wantPlan(want)
	if h.find(driver.PlanTaskID(planRef("p"), "a")) != nil || h.readPlan("q", driver.PlanRead{}) != nil {
		h.Error("a refused step left something behind")
	}
}

func planRace(h *harness) {
	v := h.makePlan("p", nil)
	var wg sync.WaitGroup
	errs := make([]error, 8)
	for i := range errs {
		wg.Go(func() {
			label := fmt.Sprint("s", i)
			r, err := h.store.Advance(h.limit, []driver.PlanStep{{PlanRef: planRef("p"), Expect: v, State: label, Tasks: []*driver.Task{stepTask("p", label)}}})
			if errs[i] = err; err == nil {
				errs[i] = r[0].Err
			}
		})
	}
	wg.Wait()
	accepted := ""
	for i, err := range errs {
		switch {
		case err == nil && accepted == "":
			accepted = fmt.Sprint("s", i)
		case !errors.Is(err, driver.ErrConflict):
			h.Errorf("step %d: got %v, want ErrConflict", i, err)
		}
	}
	if p := h.getPlan("p"); p.State != accepted {
		h.Errorf("the plan's state is %s, the step that was accepted says %q", p.State, accepted)
	}
	if got := h.listAll(driver.Filter{}); len(got) != 1 || got[0].Plan == nil || got[0].Plan.Step != accepted {
		h.Errorf("%d tasks are stored, want that of the step that was accepted", len(got))
	}
}

func planTasks(h *harness) {
	h.makePlan("p", nil, "a", "b")
	id := driver.PlanTaskID(planRef("p"), "a")
	r := h.get(id)
	if r.State != driver.Available || r.Plan == nil || *r.Plan != (driver.TaskPlan{PlanRef: planRef("p"), Step: "a"}) {
		h.Errorf("the task is %s and names the plan %v", r.State, r.Plan)
	}
	h.register("w")
	c := h.claim("w", 1)[0]
	if c.Plan == nil || c.Plan.PlanRef != planRef("p") {
		h.Errorf("the claim names the plan %v", c.Plan)
	}
	p := h.getPlan("p") // an id that is known is left alone, whatever its state
	h.step(driver.PlanStep{PlanRef: p.PlanRef, Expect: p.Version, State: "on", Tasks: []*driver.Task{stepTask("p", "a"), stepTask("p", "b"), stepTask("p", "c")}})
	if n := len(h.listAll(driver.Filter{})); n != 3 {
		h.Errorf("%d tasks are stored, want 3", n)
	}
	h.wantState(driver.Active, c.ID)
	if p := h.getPlan("p"); p.Waiting != 0 {
		h.Errorf("the plan has news: %+v", p.News)
	}
}

func planInvalid(h *harness) {
	v := h.makePlan("p", nil)
	want := *h.getPlan("p")
	for name, edit := range map[string]func(*driver.PlanStep){
		"kind":            func(s *driver.PlanStep) { s.Kind = "a/b" },
		"name":            func(s *driver.PlanStep) { s.Name = "" },
		"state":           func(s *driver.PlanStep) { s.State = "two words" },
		"body":            func(s *driver.PlanStep) { s.Body = make([]byte, driver.MaxPlanBody+1) },
		"part":            func(s *driver.PlanStep) { s.Parts = map[string][]byte{"a b": nil} },
		"wake":            func(s *driver.PlanStep) { s.Wake = time.Date(1, 1, 2, 0, 0, 0, 0, time.UTC) },
		"expires":         func(s *driver.PlanStep) { s.Expires = time.Date(10_000, 1, 2, 0, 0, 0, 0, time.UTC) },
		"seen":            func(s *driver.PlanStep) { s.Seen = -1 },
		"task":            func(s *driver.PlanStep) { s.Tasks[0].Type = "" },
		"task's id":       func(s *driver.PlanStep) { s.Tasks[0].ID = "x" },
		"task without id": func(s *driver.PlanStep) { s.Tasks[0].ID = "" },
		"task's plan":     func(s *driver.PlanStep) { s.Tasks[0].Plan.Step = "?" },
	} {
		s := driver.PlanStep{PlanRef: planRef("p"), Expect: v, State: "off", Tasks: []*driver.Task{stepTask("p", "a")}}
		edit(&s)
		h.wantErr(name, h.advance1(s).Err, driver.ErrInvalid)
	}
	h.wantPlan(want)
	results, err := h.store.Advance(h.ctx(), []driver.PlanStep{{PlanRef: planRef("p"), Expect: v + 7, State: "on"}, {PlanRef: planRef("q"), State: "on"}})
	h.must(err)
	h.wantErr("the first of two", results[0].Err, driver.ErrConflict)
	h.wantErr("the second of two", results[1].Err, nil)
}

func planAnew(h *harness) {
	v := h.makePlan("p", nil, "a")
	v = h.step(driver.PlanStep{PlanRef: planRef("p"), Expect: v, State: "on", Parts: map[string][]byte{"x": []byte("1")}})
	h.must(h.deletePlan("p"))
	if h.readPlan("p", driver.PlanRead{}) != nil {
		h.Error("the plan is still there")
	}
	h.wantErr("deleting it again", h.deletePlan("p"), driver.ErrNotFound)
	h.advance(time.Second)
	next := h.makePlan("p", nil)
	if next <= v {
		h.Errorf("the new plan has version %d, the old one had %d", next, v)
	}
	if p := h.getPlan("p"); len(p.Parts)+p.Waiting != 0 {
		h.Errorf("the new plan has the old one's parts or news: %+v", p)
	}
}

func (h *harness) deletePlan(name string) error {
	h.Helper()
	errs, err := h.store.DeletePlans(h.ctx(), []driver.PlanRef{planRef(name)})
	h.must(err)
	return errs[0]
}

func planNewsOfEnds(h *harness) {
	h.register("w")
	for name, c := range map[string]struct {
		edit func(*driver.Task)
		end  func(c driver.Claim)
		want driver.News
	}{
		"complete": {nil, func(c driver.Claim) {
			h.endWith("w", driver.Settlement{ID: c.ID, Token: c.Token, Outcome: driver.Complete, Result: []byte(`"r"`), ResultEncoding: driver.EncodingJSON})
		}, driver.News{State: driver.Completed, Result: []byte(`"r"`), ResultEncoding: driver.EncodingJSON}},
		"plain": {nil, func(c driver.Claim) { h.end("w", c, driver.Complete) }, driver.News{State: driver.Completed}},
		"fail": {func(t *driver.Task) { t.MaxAttempts = 1 }, func(c driver.Claim) {
			h.endWith("w", driver.Settlement{ID: c.ID, Token: c.Token, Outcome: driver.Retry, Error: "boom"})
		}, driver.News{State: driver.Discarded, Reason: driver.ReasonAttempts, Error: "boom"}},
		"discard": {nil, func(c driver.Claim) {
			h.endWith("w", driver.Settlement{ID: c.ID, Token: c.Token, Outcome: driver.Discard, Error: "no"})
		}, driver.News{State: driver.Discarded, Reason: driver.ReasonHandler, Error: "no"}},
		"cancelled by its handler": {nil, func(c driver.Claim) { h.end("w", c, driver.CancelOutcome) },
			driver.News{State: driver.Cancelled, Reason: driver.ReasonHandler}},
		"cancelled while it ran": {nil, func(c driver.Claim) {
			h.applyOK(driver.OpCancel, c.ID)
			h.end("w", c, driver.Release)
		}, driver.News{State: driver.Cancelled, Reason: driver.ReasonRequested}},
		"cancelled while it waited": {func(t *driver.Task) { t.Delay = time.Hour }, nil, driver.News{State: driver.Cancelled, Reason: driver.ReasonRequested}},
		"expired":                   {func(t *driver.Task) { t.ExpiresIn = time.Minute }, nil, driver.News{State: driver.Discarded, Reason: driver.ReasonExpired}},
	} {
		plan := driver.NewID()
		h.makePlan(plan, func(s *driver.PlanStep) {
			if s.Tasks[0].Queue = plan; c.edit != nil {
				c.edit(s.Tasks[0])
			}
		}, "a")
		id := driver.PlanTaskID(planRef(plan), "a")
		switch {
		case c.end != nil:
			c.end(h.claimOne("w", id, plan))
		case c.want.Reason == driver.ReasonExpired:
			h.advance(2 * time.Minute)
			h.maintain()
		default:
			h.applyOK(driver.OpCancel, id)
		}
		got := h.news(plan, 1)[0]
		c.want.No, c.want.Task, c.want.Step = 1, id, "a"
		if diff := cmp.Diff(c.want, got, cmpopts.IgnoreFields(driver.News{}, "Time"), equateEmpty); diff != "" {
			h.Errorf("%s: news (-want +got):\n%s", name, diff)
		}
		if got.Time.Before(h.get(id).EndedAt) {
			h.Errorf("%s: the news are of %v, the task ended at %v", name, got.Time, h.get(id).EndedAt)
		}
	}
}

func planNewsOfDelete(h *harness) {
	h.makePlan("p", nil, "a", "b")
	id := driver.PlanTaskID(planRef("p"), "a")
	h.applyOK(driver.OpDelete, id)
	if n := h.news("p", 1)[0]; n.Task != id || n.State != "" || n.Reason != "" {
		h.Errorf("deleting a live task gave the news %+v", n)
	}
	h.applyOK(driver.OpCancel, driver.PlanTaskID(planRef("p"), "b"))
	h.applyOK(driver.OpDelete, driver.PlanTaskID(planRef("p"), "b"))
	if list := h.news("p", 2); list[1].State != driver.Cancelled {
		h.Errorf("after the other was cancelled and deleted the news are %+v", list)
	}
}

func planNewsOfCrash(h *harness) {
	h.makePlan("p", func(s *driver.PlanStep) { s.Tasks[0].CrashLimit = 1 }, "a")
	h.register("w")
	h.claimOne("w", driver.PlanTaskID(planRef("p"), "a"))
	h.lose()
	if n := h.news("p", 1)[0]; n.State != driver.Discarded || n.Reason != driver.ReasonCrashes {
		h.Errorf("the crash gave the news %+v", n)
	}
}

func planNewsOfRefused(h *harness) {
	h.add(task("owner", func(t *driver.Task) { t.Unique = &driver.Unique{Key: "u"} }))
	h.setQueue("closed", driver.QueuePatch{Draining: new(true)})
	h.makePlan("p", func(s *driver.PlanStep) {
		s.Tasks[0].Queue = "closed"
		s.Tasks[1].Unique = &driver.Unique{Key: "u"}
	}, "a", "b", "c")
	reasons := map[string]driver.Reason{}
	for _, n := range h.news("p", 2) {
		if reasons[n.Step] = n.Reason; n.State != "" || n.Error == "" {
			h.Errorf("news of a refused task: %+v", n)
		}
	}
	if diff := cmp.Diff(map[string]driver.Reason{"a": driver.ReasonRefused, "b": driver.ReasonRefused}, reasons); diff != "" {
		h.Errorf("refused (-want +got):\n%s", diff)
	}
	h.get(driver.PlanTaskID(planRef("p"), "c"))
}

func planNewsOfExisting(h *harness) {
	h.makePlan("p", nil, "a")
	h.register("w")
	id := driver.PlanTaskID(planRef("p"), "a")
	h.endWith("w", driver.Settlement{ID: id, Token: h.claimOne("w", id).Token, Outcome: driver.Complete, Result: []byte("1"), ResultEncoding: driver.EncodingJSON})
	h.must(h.deletePlan("p"))
	h.advance(time.Second)
	h.makePlan("p", nil, "a")
	if n := h.news("p", 1)[0]; n.Task != id || n.State != driver.Completed || string(n.Result) != "1" {
		h.Errorf("a task that had ended before is the news %+v", n)
	}
}

func planSeen(h *harness) {
	v := h.makePlan("p", nil, "a", "b", "c")
	for i, label := range []string{"a", "b", "c"} {
		h.applyOK(driver.OpCancel, driver.PlanTaskID(planRef("p"), label))
		if n := h.news("p", i+1)[i]; n.No != int64(i+1) || n.Step != label {
			h.Errorf("news %d is %+v, want that of %s", i, n, label)
		}
	}
	if p := h.readPlan("p", driver.PlanRead{News: 2}); len(p.News) != 2 || p.Waiting != 3 {
		h.Errorf("of two news asked for %d came, of %d", len(p.News), p.Waiting)
	}
	v = h.step(driver.PlanStep{PlanRef: planRef("p"), Expect: v, State: "on", Seen: 2})
	if n := h.news("p", 1)[0]; n.No != 3 {
		h.Errorf("after two of three were seen %+v is left", n)
	}
	h.step(driver.PlanStep{PlanRef: planRef("p"), Expect: v, State: "on", Seen: 100})
	h.news("p", 0)
}

func planGone(h *harness) {
	h.makePlan("p", nil, "a", "b")
	h.must(h.deletePlan("p"))
	h.register("w")
	for _, c := range h.claim("w", 2) {
		h.end("w", c, driver.Complete)
		h.wantState(driver.Completed, c.ID)
	}
	h.advance(time.Second)
	h.makePlan("p", nil)
	h.news("p", 0)
}

// planNewsOfUnique has tasks whose unique keys put them anywhere.
func planNewsOfUnique(h *harness) {
	const n = 20
	labels := make([]string, n)
	for i := range labels {
		labels[i] = fmt.Sprint("s", i)
	}
	h.makePlan("p", func(s *driver.PlanStep) {
		for i, t := range s.Tasks {
			t.Unique = &driver.Unique{Key: fmt.Sprint("key-", i)}
		}
	}, labels...)
	h.register("w")
	done := 0
	for range 10 * n {
		for _, c := range h.claim("w", n) {
			h.end("w", c, driver.Complete)
			done++
		}
		if done == n {
			break
		}
	}
	seen := map[string]bool{}
	for _, x := range h.news("p", n) {
		seen[x.Step] = true
	}
	if len(seen) != n {
		h.Errorf("news came of %d of %d steps", len(seen), n)
	}
}

func (h *harness) signal(name, id, signal, payload string) error {
	h.Helper()
	errs, err := h.store.Signal(h.ctx(), []driver.Signal{{PlanRef: planRef(name), ID: id, Signal: signal, Payload: []byte(payload)}})
	h.must(err)
	return errs[0]
}

func planSignal(h *harness) {
	v := h.makePlan("p", nil)
	for range 3 {
		h.must(h.signal("p", "1", "go", `{"a":1}`))
	}
	n := h.news("p", 1)[0]
	want := driver.News{No: 1, Signal: "go", SignalID: "1", Payload: []byte(`{"a":1}`)}
	if diff := cmp.Diff(want, n, cmpopts.IgnoreFields(driver.News{}, "Time"), equateEmpty); diff != "" {
		h.Errorf("news (-want +got):\n%s", diff)
	}
	h.step(driver.PlanStep{PlanRef: planRef("p"), Expect: v, State: "on", Seen: 1})
	h.must(h.signal("p", "1", "go", "")) // still remembered
	h.news("p", 0)
	h.must(h.signal("p", "2", "go", ""))
	h.news("p", 1)
	for i := range driver.MaxSignalIDs + 10 {
		h.must(h.signal("p", fmt.Sprint("x", i), "go", ""))
	}
	h.must(h.signal("p", "x20", "go", ""))
	if p := h.getPlan("p"); p.Waiting != driver.MaxSignalIDs+11 {
		h.Errorf("%d news wait, want %d", p.Waiting, driver.MaxSignalIDs+11)
	}
}

func planSignalRefused(h *harness) {
	h.wantErr("a plan that is not there", h.signal("p", "1", "go", ""), driver.ErrNotFound)
	v := h.makePlan("p", nil)
	for name, err := range map[string]error{
		"no id": h.signal("p", "", "go", ""), "no name": h.signal("p", "1", "", ""), "no JSON": h.signal("p", "1", "go", "{"),
	} {
		h.wantErr(name, err, driver.ErrInvalid)
	}
	h.step(driver.PlanStep{PlanRef: planRef("p"), Expect: v, State: "off", Expires: h.now().Add(time.Hour)})
	h.wantErr("a plan that has ended", h.signal("p", "1", "go", ""), driver.ErrState)
	h.news("p", 0)
}

func planNewsBytes(h *harness) {
	v := h.makePlan("p", nil)
	payload := `"` + string(make([]byte, 0)) + fmt.Sprintf("%060000d", 7) + `"`
	const n = 100
	for i := range n {
		h.must(h.signal("p", fmt.Sprint(i), "go", payload))
	}
	for got := 0; got < n; {
		p := h.readPlan("p", driver.PlanRead{News: 1000})
		if len(p.News) == 0 || p.Waiting != n-got {
			h.Fatalf("after %d of %d news %d came, %d wait", got, n, len(p.News), p.Waiting)
		}
		for i := range p.News {
			if string(p.News[i].Payload) != payload {
				h.Fatalf("a payload of %d bytes came with %d", len(payload), len(p.News[i].Payload))
			}
		}
		got += len(p.News)
		v = h.step(driver.PlanStep{PlanRef: planRef("p"), Expect: v, State: "on", Seen: p.News[len(p.News)-1].No})
	}
}

func planParts(h *harness) {
	v := h.makePlan("p", func(s *driver.PlanStep) {
		s.Parts = map[string][]byte{"a": []byte("1"), "b": []byte("2"), "empty": {}}
	})
	v = h.step(driver.PlanStep{PlanRef: planRef("p"), Expect: v, State: "on", Parts: map[string][]byte{"a": nil, "c": []byte("3"), "nothing": nil}})
	want := map[string][]byte{"b": []byte("2"), "c": []byte("3"), "empty": {}}
	if diff := cmp.Diff(want, h.getPlan("p").Parts, equateEmpty); diff != "" {
		h.Errorf("parts (-want +got):\n%s", diff)
	}
	p := h.readPlan("p", driver.PlanRead{Parts: []string{"c", "a"}})
	if diff := cmp.Diff(map[string][]byte{"c": []byte("3")}, p.Parts, equateEmpty); diff != "" {
		h.Errorf("two parts that were asked for, of which one exists (-want +got):\n%s", diff)
	}
	if p := h.readPlan("p", driver.PlanRead{}); len(p.Parts)+len(p.News) != 0 {
		h.Errorf("parts and news came that nobody asked for: %+v", p)
	}
	h.step(driver.PlanStep{PlanRef: planRef("p"), Expect: v, State: "on"})
	if diff := cmp.Diff(want, h.getPlan("p").Parts, equateEmpty); diff != "" {
		h.Errorf("parts after a step that names none (-want +got):\n%s", diff)
	}
}
