package workflow

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/memstore"
)

// rig runs workflows in a memory store, one worker and no goroutines.
type rig struct {
	rapid.TB
	store driver.Store
	cache *Cache
	news  int      // that one look sees
	began []string // labels of steps, in the order in which they were claimed
	ran   map[string]int
}

const rigWorker = "w"

func newRig(t rapid.TB) *rig {
	store, err := memstore.Open(nil)
	r := &rig{TB: t, store: store, cache: NewCache(), news: 3, ran: map[string]int{}}
	r.must(err)
	r.must(r.store.Register(context.Background(), driver.WorkerInfo{ID: rigWorker, Queues: []string{"default"}, Slots: 10}, time.Hour))
	return r
}

func (r *rig) must(err error) {
	r.Helper()
	if err != nil {
		r.Fatalf("%v", err)
	}
}

func (r *rig) start(g *Graph) {
	r.Helper()
	step, err := Start(g, time.Now())
	r.must(err)
	res, err := r.store.Advance(context.Background(), []driver.PlanStep{*step})
	r.must(err)
	r.must(res[0].Err)
}

func (r *rig) plan(id string) *driver.Plan {
	r.Helper()
	plans, err := r.store.GetPlans(context.Background(), []driver.PlanRef{Ref(id)}, driver.PlanRead{AllParts: true, News: r.news})
	r.must(err)
	if plans[0] == nil {
		r.Fatalf("there is no workflow %s", id)
	}
	return plans[0]
}

func (r *rig) info(id string) *Info {
	r.Helper()
	info, err := Describe(r.plan(id))
	r.must(err)
	return info
}

// look does the steps of a plan until it has no news and is not due.
func (r *rig) look(id string) {
	r.Helper()
	for range 100_000 {
		p := r.plan(id)
		if due := p.Due(); due.IsZero() || due.After(time.Now()) {
			return
		}
		m := r.advance(p, time.Now())
		r.do(m.Step)
		for _, id := range m.Cancel {
			_, err := r.store.Apply(context.Background(), driver.Change{Op: driver.OpCancel, IDs: []string{id}})
			r.must(err)
		}
		if len(m.Cancel) > 0 && r.plan(id).Waiting == 0 {
			return // running tasks have to end first
		}
	}
	r.Fatalf("the workflow does not come to rest")
}

// advance works out what to do as a worker does, with a cache of graphs and with the parts that it asks for, and compares that
// with what the whole plan and no cache give.
func (r *rig) advance(p *driver.Plan, now time.Time) Move {
	r.Helper()
	all := *p
	all.Parts = map[string][]byte{partGraph: p.Parts[partGraph], partSignals: p.Parts[partSignals]}
	for i := range resultParts {
		name := fmt.Sprintf("r%d", i)
		all.Parts[name] = p.Parts[name]
	}
	want, err := Advance(nil, &all, now)
	r.must(err)
	some := *p
	some.Parts = map[string][]byte{}
	for need := r.cache.Parts(p.PlanRef); ; {
		for _, name := range need {
			if _, twice := some.Parts[name]; twice {
				r.Fatalf("part %s is asked for twice", name)
			}
			some.Parts[name] = p.Parts[name]
		}
		m, err := Advance(r.cache, &some, now)
		r.must(err)
		if need = m.Need; need == nil {
			if diff := cmp.Diff(want, m); diff != "" {
				r.Fatalf("with a cache it goes on in another way (-want +got):\n%s", diff)
			}
			return m
		}
	}
}

func (r *rig) do(step *driver.PlanStep) {
	r.Helper()
	if step == nil {
		return
	}
	res, err := r.store.Advance(context.Background(), []driver.PlanStep{*step})
	r.must(err)
	r.must(res[0].Err)
}

// fetch claims up to n tasks.
func (r *rig) fetch(n int) []driver.Claim {
	r.Helper()
	res, err := r.store.Fetch(context.Background(), driver.FetchRequest{Worker: rigWorker, Lease: time.Hour, Queues: []string{"default"}, Max: n})
	r.must(err)
	for _, c := range res.Claims {
		r.began = append(r.began, c.Plan.Step)
		r.ran[c.Plan.Step]++
	}
	return res.Claims
}

// settle ends a claim; what makes it fail discards it.
func (r *rig) settle(c driver.Claim, fails bool) {
	r.Helper()
	s := driver.Settlement{ID: c.ID, Token: c.Token, Outcome: driver.Complete, Result: []byte(`"` + c.Plan.Step + `"`), ResultEncoding: driver.EncodingJSON}
	if fails {
		s = driver.Settlement{ID: c.ID, Token: c.Token, Outcome: driver.Discard, Error: "broken"}
	}
	errs, err := driver.SettleErrors(r.store.Settle(context.Background(), rigWorker, []driver.Settlement{s}))
	r.must(err)
	r.must(errs[0])
}

// run works off a workflow; fails says which labels do not complete.
func (r *rig) run(id string, fails func(label string) bool) *Info {
	r.Helper()
	for range 100_000 {
		r.look(id)
		claims := r.fetch(100)
		for _, c := range claims {
			r.settle(c, fails(c.Plan.Step))
		}
		if len(claims) == 0 && r.plan(id).Waiting == 0 {
			return r.info(id)
		}
	}
	r.Fatalf("the workflow does not end")
	return nil
}

func never(string) bool { return false }

func task(name string, after ...string) Step { return Step{Name: name, Type: "t", After: after} }

func states(w *Info) string {
	var list []string
	for _, s := range w.Steps {
		list = append(list, s.Name+"="+s.State)
	}
	return w.State + ": " + strings.Join(list, " ")
}

func TestChainHandsResultsOn(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.start(&Graph{ID: "chain", Steps: []Step{task("a"), {Name: "b", Type: "t", After: []string{"a"}, Input: "a"}, task("c", "b")}})
	r.look("chain")
	r.settle(r.fetch(10)[0], false)
	r.look("chain")
	b := r.fetch(10)
	if len(b) != 1 || string(b[0].Payload) != `"a"` {
		t.Fatalf("step b got %s, want the result of a", b[0].Payload)
	}
	r.settle(b[0], false)
	info := r.run("chain", never)
	if got, want := states(info), "completed: a=completed b=completed c=completed"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if string(info.Steps[2].Result) != `"c"` {
		t.Errorf("the result of c is %s", info.Steps[2].Result)
	}
}

func TestPolicies(t *testing.T) {
	t.Parallel()
	undo := func(s Step) Step { s.Compensate = &Step{Type: "undo"}; return s }
	graph := func(p Policy) *Graph {
		return &Graph{ID: "w", OnFailure: p, Steps: []Step{undo(task("a")), undo(task("b", "a")), task("bad", "b"), task("after", "bad"), task("side", "a")},
			Success: &Step{Type: "ok"}, Failure: &Step{Type: "ko"}, Always: &Step{Type: "end"}}
	}
	for policy, want := range map[Policy]string{
		Fail:       "failed: a=completed b=completed bad=failed after=skipped side=completed|a b side bad :failure :always",
		Continue:   "completed: a=completed b=completed bad=failed after=completed side=completed|a b side bad after :success :always",
		Compensate: "failed: a=compensated b=compensated bad=failed after=skipped side=completed|a b side bad b:undo a:undo :failure :always",
	} {
		t.Run(string(policy), func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.start(graph(policy))
			info := r.run("w", func(label string) bool { return label == "bad" })
			if got := states(info) + "|" + strings.Join(r.began, " "); got != want {
				t.Errorf("got  %s\nwant %s", got, want)
			}
		})
	}
}

func TestSignalsAndTimes(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.start(&Graph{ID: "w", Steps: []Step{
		{Name: "go", Wait: &Wait{Signal: "go"}}, task("work", "go"),
		{Name: "early", After: []string{"work"}, Wait: &Wait{Signal: "early"}},
		{Name: "past", After: []string{"early"}, Wait: &Wait{Signal: "never", Until: time.Now().Add(-time.Second)}},
		{Name: "vain", After: []string{"past"}, Wait: &Wait{Signal: "never", Until: time.Now(), Fail: true}, OnFailure: Continue},
	}})
	r.look("w")
	if got := states(r.info("w")); !strings.HasPrefix(got, "running: go=waiting work=pending") {
		t.Fatalf("%s", got)
	}
	for i, name := range []string{"early", "go", "go"} {
		errs, err := r.store.Signal(context.Background(), []driver.Signal{{PlanRef: Ref("w"), ID: fmt.Sprint("s", i), Signal: name, Payload: []byte(`{"by":"me"}`)}})
		r.must(err)
		r.must(errs[0])
	}
	info := r.run("w", never)
	if got, want := states(info), "completed: go=completed work=completed early=completed past=completed vain=failed"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if string(info.Steps[0].Result) != `{"by":"me"}` {
		t.Errorf("the payload of the signal is not the step's result: %s", info.Steps[0].Result)
	}
}

func TestDeadline(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.start(&Graph{ID: "w", Deadline: Duration(time.Millisecond), Steps: []Step{{Name: "wait", Wait: &Wait{Signal: "x"}}, task("a", "wait")}})
	for r.info("w").State == Running {
		r.look("w")
	}
	if got, want := states(r.info("w")), "failed: wait=skipped a=skipped"; got != want || r.info("w").Reason != "the deadline has passed" {
		t.Errorf("%s (%s), want %s", got, r.info("w").Reason, want)
	}
}

func TestCancelAndRetry(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.start(&Graph{ID: "w", Steps: []Step{task("a"), task("b", "a"), task("c", "b")}})
	r.look("w")
	r.settle(r.fetch(1)[0], false)
	r.look("w")
	b := r.fetch(1)[0]
	step, cancel, err := Cancel(r.plan("w"), time.Now())
	r.must(err)
	r.do(step)
	if !slices.Equal(cancel, []string{b.ID}) {
		t.Fatalf("to be cancelled: %v, want %s", cancel, b.ID)
	}
	r.settle(b, true)
	r.look("w")
	if got, want := states(r.info("w")), "cancelled: a=completed b=failed c=skipped"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if _, _, err := Cancel(r.plan("w"), time.Now()); !errors.Is(err, driver.ErrState) {
		t.Errorf("cancelled twice: %v", err)
	}
	retry := func(from, want string) {
		t.Helper()
		step, err := Retry(r.plan("w"), from, time.Now())
		r.must(err)
		r.do(step)
		r.began = nil
		if got := states(r.run("w", never)) + "|" + strings.Join(r.began, " "); got != want {
			t.Errorf("retried from %q: %s, want %s", from, got, want)
		}
	}
	retry("", "completed: a=completed b=completed c=completed|b:2 c")
	retry("b", "completed: a=completed b=completed c=completed|b:3 c:2")
	if _, err := Retry(r.plan("w"), "", time.Now()); !errors.Is(err, driver.ErrState) {
		t.Errorf("retried with nothing to do: %v", err)
	}
	if _, err := Retry(r.plan("w"), "nope", time.Now()); !errors.Is(err, driver.ErrNotFound) {
		t.Errorf("retried from no step: %v", err)
	}
}

func TestStepsAreAdded(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.start(&Graph{ID: "w", Steps: []Step{task("list"), task("join", "list")}})
	r.look("w")
	c := r.fetch(1)[0]
	more := []Step{{Name: "x", Type: "t", Before: []string{"join"}}, {Name: "y", Type: "t", After: []string{"x"}, Before: []string{"join"}}}
	step, err := Add(r.plan("w"), more, time.Now())
	r.must(err)
	r.do(step)
	if step, err := Add(r.plan("w"), more, time.Now()); step != nil || err != nil {
		t.Errorf("added again: %v, %v", step, err)
	}
	if _, err := Add(r.plan("w"), []Step{{Name: "x", Type: "other"}}, time.Now()); !errors.Is(err, driver.ErrConflict) {
		t.Errorf("another step of the same name: %v", err)
	}
	if _, err := Add(r.plan("w"), []Step{{Name: "late", Type: "t", Before: []string{"list"}}}, time.Now()); !errors.Is(err, driver.ErrInvalid) {
		t.Errorf("a step before one that has begun: %v", err)
	}
	r.settle(c, false)
	if got, want := states(r.run("w", never))+"|"+strings.Join(r.began, " "), "completed: list=completed join=completed x=completed y=completed|list x y join"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestRefusedGraphs(t *testing.T) {
	t.Parallel()
	big := &Graph{ID: "w", Steps: make([]Step, MaxSteps+1)}
	for name, c := range map[string]struct {
		g    *Graph
		want string
	}{
		"empty":    {&Graph{ID: "w"}, "at least one step"},
		"no id":    {&Graph{Steps: []Step{task("a")}}, "has no id"},
		"circle":   {&Graph{ID: "w", Steps: []Step{task("a", "c"), task("b", "a"), task("c", "b")}}, "circle: "},
		"itself":   {&Graph{ID: "w", Steps: []Step{task("a", "a")}}, "circle: a → a"},
		"unknown":  {&Graph{ID: "w", Steps: []Step{task("a", "z")}}, `"z", which is not a step of this workflow`},
		"twice":    {&Graph{ID: "w", Steps: []Step{task("a"), task("a")}}, "two steps a"},
		"too many": {big, "at most 20000 steps, got 20001"},
		"no type":  {&Graph{ID: "w", Steps: []Step{{Name: "a"}}}, "needs a type"},
		"input":    {&Graph{ID: "w", Steps: []Step{task("a"), {Name: "b", Type: "t", Input: "a"}}}, "has to come after it"},
		"policy":   {&Graph{ID: "w", OnFailure: "explode", Steps: []Step{task("a")}}, "use fail, continue or compensate"},
		"nothing":  {&Graph{ID: "w", Steps: []Step{{Name: "a", Wait: &Wait{}}}}, "waits for nothing"},
		"year":     {&Graph{ID: "w", Steps: []Step{{Name: "a", Wait: &Wait{Until: time.Date(1, 2, 3, 0, 0, 0, 0, time.UTC)}}}}, "year 1"},
		"payload":  {&Graph{ID: "w", Steps: []Step{{Name: "a", Type: "t", Payload: []byte("{")}}}, "payload"},
	} {
		_, err := Start(c.g, time.Now())
		if !errors.Is(err, driver.ErrInvalid) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

// TestAnyGraphEnds draws graphs and failures at random, and holds every run to what a workflow promises: no step begins
// before those it waits for have ended well, none runs twice, and the whole comes to its end.
func TestAnyGraphEnds(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 12).Draw(t, "steps")
		g := &Graph{ID: "w", OnFailure: rapid.SampledFrom([]Policy{"", Fail, Continue, Compensate}).Draw(t, "policy")}
		bad := map[string]bool{}
		for i := range n {
			s := task(fmt.Sprint("s", i))
			for k := range i {
				if rapid.IntRange(0, 3).Draw(t, "edge") == 0 {
					s.After = append(s.After, fmt.Sprint("s", k))
				}
			}
			s.OnFailure = rapid.SampledFrom([]Policy{"", "", Fail, Continue}).Draw(t, "step policy")
			if rapid.Bool().Draw(t, "undo") {
				s.Compensate = &Step{Type: "undo"}
			}
			bad[s.Name] = rapid.IntRange(0, 5).Draw(t, "fails") == 0
			g.Steps = append(g.Steps, s)
		}
		r := newRig(t)
		r.start(g)
		ended := map[string]bool{} // well
		for range 10_000 {
			r.look("w")
			claims := r.fetch(rapid.IntRange(1, 3).Draw(t, "slots"))
			for _, c := range claims {
				if i := slices.IndexFunc(g.Steps, func(s Step) bool { return s.Name == c.Plan.Step }); i >= 0 {
					for _, on := range g.Steps[i].After {
						if !ended[on] {
							t.Fatalf("%s began before %s had ended", c.Plan.Step, on)
						}
					}
				}
				r.settle(c, bad[c.Plan.Step])
				i := slices.IndexFunc(g.Steps, func(s Step) bool { return s.Name == c.Plan.Step })
				if i >= 0 && (!bad[c.Plan.Step] || (&flow{graph: g}).policy(&g.Steps[i]) == Continue) {
					ended[c.Plan.Step] = true
				}
			}
			if len(claims) == 0 && r.plan("w").Waiting == 0 {
				break
			}
		}
		info := r.info("w")
		if info.State != Completed && info.State != Failed {
			t.Fatalf("it is stuck: %s", states(info))
		}
		for label, times := range r.ran {
			if times > 1 {
				t.Fatalf("%s ran %d times", label, times)
			}
		}
		if info.State == Completed && len(ended) != n {
			t.Fatalf("it is completed, but only %d of %d steps have ended well", len(ended), n)
		}
		if _, err := json.Marshal(info); err != nil {
			t.Fatal(err)
		}
	})
}

// TestWideGraph fans out to many steps and joins them, in few and bounded steps of the plan.
func TestWideGraph(t *testing.T) {
	t.Parallel()
	const n = 3000
	g := &Graph{ID: "wide", Steps: []Step{task("source")}}
	join := Step{Name: "join", Type: "t"}
	for i := range n {
		name := fmt.Sprint("s", i)
		g.Steps = append(g.Steps, task(name, "source"))
		join.After = append(join.After, name)
	}
	g.Steps = append(g.Steps, join)
	r := newRig(t)
	r.news = 500
	r.start(g)
	if info := r.run("wide", never); info.State != Completed || len(r.began) != n+2 || r.began[n+1] != "join" {
		t.Errorf("%s after %d steps", info.State, len(r.began))
	}
}

// What a workflow was told and no worker has looked at is not lost when somebody adds steps, or cancels it.
func TestChangesHearTheNews(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.start(&Graph{ID: "w", Steps: []Step{{Name: "a", Type: "t"}, {Name: "wait", Wait: &Wait{Signal: "go"}}, {Name: "last", Type: "t", After: []string{"a", "wait"}}}})
	errs, err := r.store.Signal(t.Context(), []driver.Signal{{PlanRef: Ref("w"), ID: "s", Signal: "go", Payload: []byte("7")}})
	r.must(err)
	r.must(errs[0])
	for _, c := range r.fetch(10) {
		r.settle(c, false)
	}
	step, err := Add(r.plan("w"), []Step{{Name: "more", Type: "t", Before: []string{"last"}}}, time.Now())
	r.must(err)
	r.do(step)
	info := r.info("w")
	if got := info.Steps[0].State + " " + info.Steps[1].State + " " + string(info.Steps[1].Result); got != "completed completed 7" {
		t.Errorf("after steps were added: %s", got)
	}
	for _, c := range r.fetch(10) {
		r.settle(c, false) // more
	}
	step, _, err = Cancel(r.plan("w"), time.Now())
	r.must(err)
	r.do(step)
	r.look("w")
	if info := r.info("w"); info.Steps[3].State != "completed" {
		t.Errorf("after the workflow was cancelled, the step that had ended is %s", info.Steps[3].State)
	}
}
