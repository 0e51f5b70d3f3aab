package drivertest

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/waggleq/waggle/driver"
)

var boundCases = []testCase{
	{"a bad bound is refused and changes nothing", boundInvalid},
	{"a full queue refuses new tasks, each by itself", boundRefuses},
	{"what waits in any way counts, what is active or has ended does not", boundCounts},
	{"what is there already is answered, not refused", boundExisting},
	{"a task takes the place of the one that it replaces", boundReplaces},
	{"what was accepted comes back to a full queue", boundReturns},
	{"expired tasks don't count", boundExpired},
	{"a bound is changed and taken away at run time", boundChanges},
	{"drop-oldest discards what has stood in line longest", boundDrops},
	{"a call that brings more than the bound leaves its last tasks", boundDropsOwn},
	{"drop-oldest goes by the place in line, whatever the priority and key", boundDropsAny},
	{"drop-oldest refuses where nothing is available", boundDropsNone},
	{"a queue above its bound comes down by new tasks", boundComesDown},
	{"a plan's step is not refused", planned(boundPlans)},
	{"many producers never pass the bound", boundProducers},
}

// bound gives a queue a bound.
func (h *harness) bound(queue string, n int, full driver.FullPolicy) {
	h.Helper()
	h.setQueue(queue, driver.QueuePatch{Bound: &driver.Bound{Max: n, Full: full}})
}

// in is a task of a queue, in the shard that all that near returns live in.
func (h *harness) in(queue, id string, edit func(*driver.Task)) *driver.Task {
	t := task(h.near(id), edit)
	t.Queue = queue
	return t
}

// refused fails the test unless exactly these tasks were refused as too many.
func (h *harness) refused(results []driver.EnqueueResult, want ...bool) {
	h.Helper()
	for i, r := range results {
		if errors.Is(r.Err, driver.ErrQueueFull) != want[i] || !want[i] && r.Err != nil {
			h.Errorf("result %d of %d is %+v, want it refused: %v", i, len(results), r, want[i])
		}
	}
}

func boundInvalid(h *harness) {
	h.bound("q", 3, "")
	want := driver.Bound{Max: 3, Full: driver.FullRefuse}
	for _, b := range []driver.Bound{{Max: -1}, {Max: driver.MaxBound + 1}, {Max: 5, Full: "perhaps"}, {Full: driver.FullWait}} {
		if _, err := h.store.SetQueue(h.ctx(), "q", driver.QueuePatch{Bound: &b, Paused: new(true)}); !errors.Is(err, driver.ErrInvalid) {
			h.Errorf("the bound %+v: %v", b, err)
		}
	}
	if c := h.queue("q").Config; c.Paused || c.Bound != want {
		h.Errorf("configuration %+v, want the bound %+v", c, want)
	}
}

func boundRefuses(h *harness) {
	h.bound("q", 2, driver.FullWait)
	results := h.enqueue(h.in("q", "a", nil), h.in("q", "b", nil), h.in("q", "c", nil), h.in("other", "d", nil))
	h.refused(results, false, false, true, false)
	want := &driver.QueueFullError{Queue: "q", Bound: driver.Bound{Max: 2, Full: driver.FullWait}}
	if got, ok := errors.AsType[*driver.QueueFullError](results[2].Err); !ok || cmp.Diff(want, got) != "" {
		h.Errorf("the error is %#v, want %#v", results[2].Err, want)
	}
	if r := h.find(h.near("c")); r != nil || h.queue("q").Totals.Enqueued != 2 {
		h.Errorf("a refused task left %+v, totals %+v", r, h.queue("q").Totals)
	}
	h.register("w")
	h.claim("w", 1, "q")
	h.refused(h.enqueue(h.in("q", "c", nil), h.in("q", "e", nil)), false, true)
}

func boundCounts(h *harness) {
	for i, s := range []driver.State{driver.Active, driver.Completed, driver.Discarded, driver.Cancelled, driver.Retryable, driver.Scheduled, driver.Pending, driver.Available} {
		h.put(s, task(h.near("t-"+string(s)), func(t *driver.Task) { t.Queue, t.Type = "q", fmt.Sprint("t", i%3) }))
	}
	h.bound("q", 5, driver.FullRefuse)
	h.refused(h.enqueue(h.in("q", "a", nil), h.in("q", "b", nil)), false, true)
	h.applyOK(driver.OpCancel, h.near("t-pending"), h.near("t-retryable"))
	h.refused(h.enqueue(h.in("q", "b", nil), h.in("q", "c", func(t *driver.Task) { t.Delay = time.Hour }), h.in("q", "d", nil)), false, false, true)
}

func boundExisting(h *harness) {
	unique := func(c driver.OnConflict) func(*driver.Task) {
		return func(t *driver.Task) { t.Unique = &driver.Unique{Key: "k", Until: driver.UntilDone, OnConflict: c} }
	}
	h.bound("q", 1, driver.FullRefuse)
	h.add(h.in("q", "a", unique("")))
	results := h.enqueue(h.in("q", "a", nil), h.in("q", "b", unique(driver.ConflictReturn)), h.in("q", "c", unique(driver.ConflictReject)), h.in("q", "d", nil))
	if !results[0].Existing || !results[1].Existing || results[1].ID != h.near("a") || !errors.Is(results[2].Err, driver.ErrDuplicate) || !errors.Is(results[3].Err, driver.ErrQueueFull) {
		h.Errorf("results %+v", results)
	}
	h.setQueue("q", driver.QueuePatch{Draining: new(true)})
	if r := h.enqueue(h.in("q", "e", nil))[0]; !errors.Is(r.Err, driver.ErrQueueClosed) {
		h.Errorf("a full queue that drains says %v", r.Err)
	}
}

func boundReplaces(h *harness) {
	replace := func(t *driver.Task) {
		t.Unique = &driver.Unique{Key: "k", Until: driver.UntilDone, OnConflict: driver.ConflictReplace}
	}
	h.bound("q", 1, driver.FullRefuse)
	h.bound("full", 1, driver.FullRefuse)
	h.add(h.in("q", "a", replace), h.in("full", "x", nil))
	h.refused(h.enqueue(h.in("q", "b", replace)), false)
	h.wantState(driver.Cancelled, h.near("a"))
	h.refused(h.enqueue(h.in("full", "c", replace)), true)
	h.wantState(driver.Available, h.near("b"))
}

func boundReturns(h *harness) {
	h.register("w", "dead")
	h.add(h.in("q", "a", nil), h.in("q", "b", nil), h.in("q", "c", nil))
	c, lost := h.claim("w", 2, "q"), h.claim("dead", 1, "q")
	h.bound("q", 1, driver.FullRefuse)
	h.add(h.in("q", "d", nil))
	h.endWith("w", driver.Settlement{ID: c[0].ID, Token: c[0].Token, Outcome: driver.Retry, Delay: time.Minute})
	h.end("w", c[1], driver.Release)
	h.must(h.store.Unregister(h.ctx(), "dead"))
	h.wantState(driver.Retryable, c[0].ID)
	h.wantState(driver.Available, c[1].ID, lost[0].ID)
	h.refused(h.enqueue(h.in("q", "e", nil)), true)
	h.applyOK(driver.OpCancel, c[0].ID, c[1].ID, lost[0].ID)
	h.refused(h.enqueue(h.in("q", "e", nil)), true)
	h.applyOK(driver.OpRetry, c[0].ID)
	h.applyOK(driver.OpCancel, c[0].ID, h.near("d"))
	h.refused(h.enqueue(h.in("q", "e", nil)), false)
}

func boundExpired(h *harness) {
	h.bound("q", 2, driver.FullRefuse)
	expiring := func(t *driver.Task) { t.ExpiresIn = time.Minute }
	h.add(h.in("q", "a", expiring), h.in("q", "b", func(t *driver.Task) { t.Delay, t.ExpiresIn = time.Minute, 2*time.Minute }))
	h.refused(h.enqueue(h.in("q", "c", nil)), true)
	h.advance(time.Minute)
	h.refused(h.enqueue(h.in("q", "c", nil), h.in("q", "d", nil)), false, true)
	h.advance(time.Minute)
	h.refused(h.enqueue(h.in("q", "d", nil), h.in("q", "e", nil)), false, true)
}

func boundChanges(h *harness) {
	h.add(h.in("q", "a", nil), h.in("q", "b", nil))
	h.bound("q", 1, driver.FullRefuse)
	h.refused(h.enqueue(h.in("q", "c", nil)), true)
	h.bound("q", 3, driver.FullRefuse)
	h.refused(h.enqueue(h.in("q", "c", nil), h.in("q", "d", nil)), false, true)
	h.setQueue("q", driver.QueuePatch{Bound: &driver.Bound{}})
	h.refused(h.enqueue(h.in("q", "d", nil), h.in("q", "e", nil)), false, false)
	if b := h.queue("q").Config.Bound; b != (driver.Bound{}) {
		h.Errorf("a bound that was taken away is %+v", b)
	}
}

func boundDrops(h *harness) {
	h.bound("q", 2, driver.FullDropOldest)
	h.add(h.in("q", "a", nil), h.in("q", "b", nil))
	h.advance(time.Millisecond)
	h.refused(h.enqueue(h.in("q", "c", nil)), false)
	h.wantState(driver.Discarded, h.near("a"))
	if r := h.get(h.near("a")); r.Reason != driver.ReasonDropped || r.EndedAt.IsZero() || len(r.Attempts) != 0 {
		h.Errorf("a dropped task is %+v", r)
	}
	h.wantKinds(h.near("a"), "available", "discarded")
	q := h.queue("q")
	if q.Counts[driver.Available] != 2 || q.Counts[driver.Discarded] != 1 || q.Totals.Discarded != 1 {
		h.Errorf("queue %+v", q)
	}
	h.register("w")
	h.claimOne("w", h.near("b"), "q")
	h.refused(h.enqueue(h.in("q", "d", nil)), false)
	h.wantState(driver.Available, h.near("c"), h.near("d"))
}

func boundDropsOwn(h *harness) {
	h.bound("q", 3, driver.FullDropOldest)
	h.add(h.in("q", "a", nil), h.in("q", "later", func(t *driver.Task) { t.Delay = time.Hour }))
	list := h.line("n", 8)
	for _, t := range list {
		t.Queue = "q"
	}
	for i, r := range h.enqueue(list...) {
		if r.Err != nil || r.State != driver.Available {
			h.Errorf("result %d is %+v", i, r)
		}
	}
	h.wantState(driver.Discarded, h.near("a"), list[0].ID, list[5].ID)
	h.wantState(driver.Available, list[6].ID, list[7].ID)
	h.wantState(driver.Scheduled, h.near("later"))
}

func boundDropsAny(h *harness) {
	if !h.caps.Keys {
		h.Skip("this store offers no keys")
	}
	h.bound("q", 4, driver.FullDropOldest)
	key := "k"
	for i := 0; h.fixture.KeyShard != nil && h.fixture.KeyShard(key) != 0; i++ {
		key = fmt.Sprint("k", i)
	}
	edits := []func(*driver.Task){
		func(t *driver.Task) { t.Priority = -5 },
		func(t *driver.Task) { t.Key = key },
		nil,
		func(t *driver.Task) { t.Priority, t.Type = 7, "u" },
	}
	var ids []string
	for i, edit := range edits {
		t := h.in("q", fmt.Sprint("t", i), edit)
		if h.fixture.KeyShard != nil && t.Key != "" {
			t.ID = ""
		}
		ids = append(ids, h.add(t)...)
		h.advance(time.Millisecond)
	}
	for i := range edits {
		h.refused(h.enqueue(h.in("q", fmt.Sprint("new", i), nil)), false)
		h.wantState(driver.Discarded, ids[:i+1]...)
		h.wantState(driver.Available, ids[i+1:]...)
		h.advance(time.Millisecond)
	}
}

func boundDropsNone(h *harness) {
	h.bound("q", 2, driver.FullDropOldest)
	later := func(t *driver.Task) { t.Delay = time.Hour }
	h.add(h.in("q", "a", later), h.in("q", "b", func(t *driver.Task) { t.Hold = true }))
	h.refused(h.enqueue(h.in("q", "c", nil)), true)
	h.advance(time.Hour)
	h.refused(h.enqueue(h.in("q", "c", nil)), false) // a has become available, and so the oldest
	h.wantState(driver.Discarded, h.near("a"))
	h.wantState(driver.Pending, h.near("b"))
}

func boundComesDown(h *harness) {
	list := h.line("t", 20)
	for _, t := range list {
		t.Queue = "q"
	}
	h.add(list...)
	h.bound("q", 5, driver.FullDropOldest)
	h.refused(h.enqueue(h.in("q", "new", nil)), false)
	h.wantState(driver.Discarded, list[0].ID, list[15].ID)
	h.wantState(driver.Available, list[16].ID, list[19].ID, h.near("new"))
}

func boundPlans(h *harness) {
	h.bound("q", 1, driver.FullRefuse)
	h.add(h.in("q", "a", nil))
	h.makePlan("p", func(s *driver.PlanStep) {
		for _, t := range s.Tasks {
			t.Queue = "q"
		}
	}, "one", "two")
	if n := h.queue("q").Counts[driver.Available]; n != 3 {
		h.Errorf("queue q holds %d tasks after the step, want 3", n)
	}
	h.refused(h.enqueue(h.in("q", "b", nil)), true)
}

func boundProducers(h *harness) {
	const most, producers, calls, each = 40, 8, 10, 7
	h.bound("refuse", most, driver.FullRefuse)
	h.bound("drop", most, driver.FullDropOldest)
	slack := 0
	if !h.caps.Ordered {
		slack = (producers - 1) * each // what calls under way at the same time may add
	}
	var wg sync.WaitGroup
	other := h
	if h.caps.Shared {
		other = h.reopen() // as another process would
	}
	for p := range producers {
		h := []*harness{h, other}[p%2]
		wg.Go(func() {
			for c := range calls {
				for _, q := range []string{"refuse", "drop"} {
					var list []*driver.Task
					for i := range each {
						list = append(list, task(fmt.Sprintf("%s-%d-%d-%d", q, p, c, i), func(t *driver.Task) { t.Queue = q }))
					}
					for _, r := range h.enqueue(list...) {
						if r.Err != nil && (q == "drop" || !errors.Is(r.Err, driver.ErrQueueFull)) {
							h.Errorf("%s: %v", r.ID, r.Err)
						}
					}
					if n := h.queue(q).Counts[driver.Available]; n > most+slack {
						h.Errorf("queue %s holds %d tasks while tasks are added, its bound is %d and the slack %d", q, n, most, slack)
					}
				}
			}
		})
	}
	wg.Wait()
	for _, q := range []string{"refuse", "drop"} {
		least := map[string]int{"refuse": most, "drop": most - slack}[q] // calls at the same time may drop more than they need
		if n := h.queue(q).Counts[driver.Available]; n < least || n > most+slack {
			h.Errorf("queue %s holds %d tasks, its bound is %d and the slack %d", q, n, most, slack)
		}
	}
	if q := h.queue("drop"); q.Totals.Enqueued != producers*calls*each || q.Totals.Discarded != q.Totals.Enqueued-int64(q.Counts[driver.Available]) {
		h.Errorf("queue drop %+v", q)
	}
}
