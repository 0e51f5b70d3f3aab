package drivertest

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/waggleq/waggle/driver"
)

var limitCases = offered([]testCase{
	{"a queue's concurrency is not exceeded, whoever claims", limitQueue},
	{"every way out of active frees a slot", limitFreed},
	{"a crash frees the slots of its worker", limitCrash},
	{"a type's limit holds up no other type", limitType},
	{"a key's limit holds up no other key", limitKey},
	{"a limit of each key of a type is for that type alone", limitKeyOfType},
	{"several limits hold together", limitSeveral},
	{"what is parked is shown and not reported as left behind", limitShown},
	{"a limit that is lowered holds at once", limitLowered},
	{"a limit for each key counts what was active before it came", limitComes},
	{"a limit that is raised or taken away lets more start at once", limitRaised},
	{"a rate lets a burst start, then one at a time", limitRate},
	{"a rate does not save up while nothing waits", limitRateIdle},
	{"a changed rate begins anew", limitRateChanged},
	{"a rate of each key parks that key until its time", limitRateKey},
	{"parked tasks can be cancelled, deleted and expire", limitParkedEnds},
	{"parked tasks keep their order", limitParkedOrder},
	{"a freed slot wakes a waiting worker", limitWakes},
	{"what is parked wakes nobody", limitIdle},
	{"limits hold in paused and resumed queues", limitPaused},
	{"retried by a person, a task counts again", limitPersonRetried},
	{"bad limits are refused and change nothing", limitInvalid},
	{"limits are kept with their defaults", limitDefaults},
	{"many workers at once never exceed a limit, and use it", limitConcurrent},
}, "limits", func(c driver.Capabilities) bool { return c.Limits && c.Keys })

// limit1 sets the limits of the default queue.
func (h *harness) limit1(limits ...driver.Limit) {
	h.Helper()
	h.setQueue(driver.DefaultQueue, driver.QueuePatch{Limits: &limits})
}

// wantGot claims all it can and wants so many.
func (h *harness) wantGot(what, worker string, n int) []driver.Claim {
	h.Helper()
	claims := h.claim(worker, 1000)
	if len(claims) != n {
		h.Errorf("%s: %s got %d tasks, want %d", what, worker, len(claims), n)
	}
	return claims
}

func limitQueue(h *harness) {
	h.limit1(driver.Limit{Concurrency: 3})
	h.add(tasks("a", 10)...)
	h.register("v", "w")
	first := h.claim("v", 2)
	h.wantGot("with two active of three", "w", 1)
	h.wantGot("with three active", "v", 0)
	h.end("v", first[0], driver.Complete)
	h.wantGot("after one was done", "w", 1)
}

func limitFreed(h *harness) {
	for name, limit := range map[string]driver.Limit{"queue": {Concurrency: 1}, "type": {Type: "t", Concurrency: 1}, "key": {PerKey: true, Concurrency: 1}} {
		h.limit1(limit)
		for _, o := range []driver.Outcome{driver.Complete, driver.Retry, driver.Snooze, driver.Release, driver.Discard, driver.CancelOutcome} {
			prefix := name + "-" + string(o)
			h.add(h.keyed(prefix, "k", 2, func(t *driver.Task) { t.MaxAttempts = 1 })...)
			h.register("w-" + prefix)
			c := h.wantGot(prefix, "w-"+prefix, 1)[0]
			h.wantGot(prefix+", at the limit", "w-"+prefix, 0)
			h.endWith("w-"+prefix, driver.Settlement{ID: c.ID, Token: c.Token, Outcome: o, Delay: time.Hour})
			h.wantGot(prefix+", freed", "w-"+prefix, 1)
			h.must(h.store.Unregister(h.ctx(), "w-"+prefix))
			for _, r := range h.listAll(driver.Filter{States: []driver.State{driver.Available, driver.Scheduled, driver.Retryable}}) {
				h.applyOK(driver.OpDelete, r.ID)
			}
		}
	}
}

func limitCrash(h *harness) {
	h.limit1(driver.Limit{Concurrency: 2}, driver.Limit{PerKey: true, Concurrency: 1})
	h.add(h.keyed("a", "a", 2)...)
	h.add(h.keyed("b", "b", 2)...)
	h.register("w")
	h.wantGot("at first", "w", 2)
	h.lose()
	h.register("x")
	h.wantGot("after the crash", "x", 2)
	h.wantGot("at the limit", "x", 0)
}

func limitType(h *harness) {
	h.limit1(driver.Limit{Type: "slow", Concurrency: 1})
	h.add(h.keyed("slow", "", 5, ofType("slow"))...)
	h.add(h.keyed("fast", "", 5, ofType("fast"))...)
	h.register("w")
	h.wantGot("of both types", "w", 6)
}

func limitKey(h *harness) {
	h.limit1(driver.Limit{PerKey: true, Concurrency: 2})
	h.add(h.keyed("a", "a", 5)...)
	h.add(h.keyed("b", "b", 5)...)
	h.add(h.keyed("plain", "", 5)...)
	h.register("w")
	claims := h.wantGot("two a key and all without", "w", 9)
	i := slices.IndexFunc(claims, func(c driver.Claim) bool { return c.Key == h.key("a") })
	h.end("w", claims[i], driver.Complete)
	h.wantTurns("after a task of key a was done", "a", h.claim("w", 10))
}

func limitKeyOfType(h *harness) {
	h.limit1(driver.Limit{Type: "x", PerKey: true, Concurrency: 1})
	h.add(h.keyed("x", "a", 3, ofType("x"))...)
	h.add(h.keyed("y", "a", 3, ofType("y"))...)
	h.register("w")
	h.wantGot("one of the type and all of the other", "w", 4)
}

func limitSeveral(h *harness) {
	h.limit1(driver.Limit{Concurrency: 4}, driver.Limit{Type: "x", Concurrency: 3}, driver.Limit{PerKey: true, Concurrency: 2})
	h.add(h.keyed("a", "a", 5, ofType("x"))...)
	h.add(h.keyed("b", "b", 5, ofType("x"))...)
	h.add(h.keyed("y", "", 5, ofType("y"))...)
	h.register("w")
	claims := h.wantGot("under three limits", "w", 4)
	count := map[string]int{}
	for _, c := range claims {
		count[c.Type]++
		count[c.Key]++
	}
	if count["x"] > 3 || count[h.key("a")] > 2 || count[h.key("b")] > 2 {
		h.Errorf("the claims are %v", count)
	}
}

func limitShown(h *harness) {
	h.limit1(driver.Limit{PerKey: true, Concurrency: 1}, driver.Limit{Type: "slow", Concurrency: 1})
	h.add(h.keyed("a", "a", 3)...)
	h.add(h.keyed("slow", "", 4, ofType("slow"))...)
	h.register("w")
	res := h.fetch(request("w", 100))
	if len(res.Claims) != 2 || res.More {
		h.Errorf("got %d claims and More %v, want 2 and nothing that is left behind", len(res.Claims), res.More)
	}
	q := h.queue(driver.DefaultQueue)
	want := []driver.LimitInfo{{Limit: driver.Limit{PerKey: true, Concurrency: 1}, Held: 1}, {Limit: driver.Limit{Type: "slow", Concurrency: 1}, Held: 1}}
	if diff := cmp.Diff(want, q.Limits); diff != "" {
		h.Errorf("limits (-want +got):\n%s", diff)
	}
	if q.Parked != 5 || q.Counts[driver.Available] != 5 {
		h.Errorf("%d tasks are parked and %d available, want 5 each", q.Parked, q.Counts[driver.Available])
	}
	h.limit1()
	if q := h.queue(driver.DefaultQueue); q.Parked != 0 || len(q.Limits) != 0 {
		h.Errorf("without limits %d tasks are parked, the limits are %v", q.Parked, q.Limits)
	}
	h.wantGot("without limits", "w", 5)
}

func limitLowered(h *harness) {
	h.limit1(driver.Limit{Concurrency: 5}, driver.Limit{PerKey: true, Concurrency: 5})
	h.add(h.keyed("a", "a", 10)...)
	h.register("w")
	claims := h.claim("w", 4)
	for _, l := range [][]driver.Limit{{{Concurrency: 2}}, {{PerKey: true, Concurrency: 2}}} {
		h.limit1(l...)
		h.wantGot("with four active of two", "w", 0)
	}
	for i, c := range claims[:3] {
		h.end("w", c, driver.Complete)
		h.wantGot(fmt.Sprint("with ", 3-i, " of the four left"), "w", max(0, i-1))
	}
}

// limitComes sets and takes away what holds for each key while tasks of keys are active and wait, alone and with others.
func limitComes(h *harness) {
	h.register("gone", "v", "w")
	h.add(h.keyed("a", "a", 6)...)
	h.add(h.keyed("b", "b", 1)...)
	h.add(h.keyed("c", "c", 1)...)
	of := map[string][]driver.Claim{}
	for _, worker := range []string{"v", "w"} {
		of[worker] = h.claim(worker, 2)
	}
	h.add(h.keyed("more-a", "a", 1)...)
	h.add(h.keyed("d", "d", 2)...)
	h.limit1(driver.Limit{PerKey: true, Concurrency: 1})
	h.wantTurns("each key has one active, but for d", "d", h.claim("gone", 10))
	h.wantGot("at the limit", "v", 0)
	h.limit1()
	q := h.queue(driver.DefaultQueue)
	if q.Counts[driver.Active] != 5 || q.Parked != 0 {
		h.Errorf("%d tasks are active and %d parked, want 5 and none", q.Counts[driver.Active], q.Parked)
	}
	for worker, claims := range of {
		h.end(worker, claims[0], driver.Complete)
	}
	rest := h.claim("v", 2)
	h.setQueue(driver.DefaultQueue, driver.QueuePatch{Keys: new(driver.KeysHold)})
	h.wantGot("in order, with one of each key active", "w", 0)
	h.lose()
	h.register("x")
	h.setQueue(driver.DefaultQueue, driver.QueuePatch{Keys: new(driver.KeysFree), Limits: &[]driver.Limit{{PerKey: true, Concurrency: 2}}})
	held := map[string]int{}
	for range 12 {
		claims := h.claim("x", 100)
		for _, c := range claims {
			if held[c.Key]++; held[c.Key] > 2 {
				h.Fatalf("%d tasks of key %s are active, want two at most", held[c.Key], c.Key)
			}
		}
		for _, c := range claims {
			held[c.Key]--
			h.end("x", c, driver.Complete)
		}
	}
	if n := h.queue(driver.DefaultQueue).Counts[driver.Completed]; n != 11 || len(rest) != 2 {
		h.Errorf("%d tasks are completed, want 11; two at last of %d claims", n, len(rest))
	}
}

func limitRaised(h *harness) {
	for i, l := range []driver.Limit{{Concurrency: 1}, {Type: "t", Concurrency: 1}, {PerKey: true, Concurrency: 1}} {
		w := fmt.Sprint("w-", i)
		h.register(w)
		h.limit1(l)
		h.add(h.keyed(fmt.Sprint("r", i), "a", 5)...)
		h.wantGot("at first", w, 1)
		l.Concurrency = 3
		h.limit1(l)
		h.wantGot("raised", w, 2)
		done := h.await(forWork(w))
		h.limit1()
		h.wantWoken("when the limit was taken away", done)
		for _, c := range h.wantGot("without limit", w, 2) {
			h.end(w, c, driver.Complete)
		}
		h.must(h.store.Unregister(h.ctx(), w))
		for _, r := range h.listAll(driver.Filter{States: []driver.State{driver.Available}}) {
			h.applyOK(driver.OpDelete, r.ID)
		}
	}
}

func limitRate(h *harness) {
	for i, l := range []driver.Limit{{Rate: 2, Per: time.Hour, Burst: 3}, {Type: "t", Rate: 2, Per: time.Hour, Burst: 3}} {
		w := fmt.Sprint("w-", i)
		h.limit1(l)
		h.add(tasks(fmt.Sprint("a", i), 20)...)
		h.register(w)
		h.wantGot("at once", w, 3)
		res := h.fetch(request(w, 10))
		if len(res.Claims) != 0 || res.More {
			h.Errorf("got %d claims and More %v right after the burst", len(res.Claims), res.More)
		}
		if at := res.NextDue; at.IsZero() || at.After(res.Now.Add(30*time.Minute)) {
			h.Errorf("the next look is to be at %v, want up to %v", at, res.Now.Add(30*time.Minute))
		}
		for range 2 {
			h.advance(30*time.Minute - lease/2)
			h.register(w + "-late")
			h.wantGot("before its time", w+"-late", 0)
			h.advance(lease / 2)
			h.advance(time.Second)
			h.wantGot("at its time", w+"-late", 1)
			w += "-next"
		}
		for _, r := range h.listAll(driver.Filter{States: []driver.State{driver.Available}}) {
			h.applyOK(driver.OpDelete, r.ID)
		}
	}
}

func limitRateIdle(h *harness) {
	h.limit1(driver.Limit{Rate: 1, Per: time.Minute, Burst: 2})
	h.add(tasks("a", 1)...)
	h.register("w")
	h.wantGot("the first", "w", 1)
	h.advance(24 * time.Hour)
	h.register("x")
	h.add(tasks("b", 10)...)
	h.wantGot("after a day, with one given back", "x", 2)
}

func limitRateChanged(h *harness) {
	h.limit1(driver.Limit{Rate: 1, Per: 24 * time.Hour})
	h.add(tasks("a", 5)...)
	h.register("w")
	h.wantGot("one a day", "w", 1)
	h.limit1(driver.Limit{Rate: 2, Per: 24 * time.Hour, Burst: 2})
	h.wantGot("with another rate", "w", 2)
}

func limitRateKey(h *harness) {
	h.limit1(driver.Limit{PerKey: true, Rate: 1, Per: time.Hour})
	h.add(h.keyed("a", "a", 3)...)
	h.register("w")
	h.wantGot("one of a", "w", 1)
	h.advance(30 * time.Minute)
	h.register("x")
	h.add(h.keyed("b", "b", 3)...)
	h.wantTurns("one of b", "b", h.claim("x", 10))
	res := h.fetch(request("x", 10))
	if due := res.NextDue; due.IsZero() || due.After(res.Now.Add(30*time.Minute)) {
		h.Errorf("the next look is to be at %v, want within 30 minutes of %v", due, res.Now)
	}
	if n := h.queue(driver.DefaultQueue).Parked; n != 5 && n != 4 { // what the first worker held may be back
		h.Errorf("%d tasks are parked, want all that wait", n)
	}
	h.advance(30*time.Minute + time.Second)
	h.register("y")
	h.wantTurns("at its time", "a", h.claim("y", 10))
}

func limitParkedEnds(h *harness) {
	h.limit1(driver.Limit{PerKey: true, Concurrency: 1})
	list := h.keyed("a", "a", 4)
	list[3].ExpiresIn = lease / 2
	h.add(list...)
	h.register("w")
	c := h.wantGot("at first", "w", 1)[0]
	h.applyOK(driver.OpCancel, list[1].ID)
	h.applyOK(driver.OpDelete, list[2].ID)
	if n := h.queue(driver.DefaultQueue).Parked; n != 1 {
		h.Errorf("%d tasks are parked, want 1", n)
	}
	h.advance(lease/2 + time.Second)
	h.maintain()
	h.wantState(driver.Discarded, list[3].ID)
	h.wantState(driver.Cancelled, list[1].ID)
	if n := h.queue(driver.DefaultQueue).Parked; n != 0 {
		h.Errorf("%d tasks are parked, want none", n)
	}
	h.end("w", c, driver.Complete)
	h.applyOK(driver.OpRetry, list[1].ID)
	h.wantGot("retried", "w", 1)
}

func limitParkedOrder(h *harness) {
	h.limit1(driver.Limit{PerKey: true, Concurrency: 1})
	list := h.keyed("a", "a", 5)
	h.add(list...)
	h.register("w")
	for _, t := range list {
		h.end("w", h.claimOne("w", t.ID), driver.Complete)
	}
}

func limitWakes(h *harness) {
	for name, l := range map[string]driver.Limit{"queue": {Concurrency: 1}, "key": {PerKey: true, Concurrency: 1}} {
		h.limit1(l)
		h.add(h.keyed(name, name, 2)...)
		h.register("v-"+name, "w-"+name)
		c := h.wantGot(name, "v-"+name, 1)[0]
		done := h.await(forWork("w-" + name))
		h.end("v-"+name, c, driver.Complete)
		h.wantWoken(name, done)
		h.end("w-"+name, h.wantGot(name, "w-"+name, 1)[0], driver.Complete)
	}
}

func limitIdle(h *harness) {
	if !h.caps.Ordered {
		h.Skip("with several shards a wait may end in vain")
	}
	h.limit1(driver.Limit{PerKey: true, Concurrency: 1}, driver.Limit{Type: "slow", Concurrency: 1})
	h.add(h.keyed("a", "a", 2)...)
	h.add(h.keyed("slow", "", 2, ofType("slow"))...)
	h.register("w")
	h.wantGot("at first", "w", 2)
	h.wantIdle("with parked tasks", forWork("w"))
}

func limitPaused(h *harness) {
	h.limit1(driver.Limit{Concurrency: 1})
	h.add(tasks("a", 3)...)
	h.register("w")
	c := h.wantGot("at first", "w", 1)[0]
	h.setQueue(driver.DefaultQueue, driver.QueuePatch{Paused: new(true)})
	h.end("w", c, driver.Complete)
	h.wantGot("paused", "w", 0)
	h.setQueue(driver.DefaultQueue, driver.QueuePatch{Paused: new(false)})
	h.wantGot("resumed", "w", 1)
	if n := len(h.queue(driver.DefaultQueue).Config.Limits); n != 1 {
		h.Errorf("the queue has %d limits, want 1", n)
	}
}

func limitPersonRetried(h *harness) {
	h.limit1(driver.Limit{PerKey: true, Concurrency: 1})
	list := h.keyed("a", "a", 1)
	h.add(list...)
	h.register("w")
	h.end("w", h.claimOne("w", list[0].ID), driver.Complete)
	h.applyOK(driver.OpRetry, list[0].ID)
	h.add(h.keyed("b", "a", 1)...)
	c := h.claimOne("w", list[0].ID)
	h.wantGot("at the limit", "w", 0)
	h.end("w", c, driver.Complete)
	h.wantGot("freed", "w", 1)
}

func limitInvalid(h *harness) {
	many := make([]driver.Limit, driver.MaxLimits+1)
	for i := range many {
		many[i] = driver.Limit{Type: fmt.Sprint("t", i), Concurrency: 1}
	}
	for name, limits := range map[string][]driver.Limit{
		"nothing bounded":      {{}},
		"negative concurrency": {{Concurrency: -1}},
		"huge concurrency":     {{Concurrency: 1_000_000_000}},
		"negative rate":        {{Rate: -1}},
		"a rate of 10^12":      {{Rate: 1_000_000_000_000}},
		"negative time":        {{Rate: 1, Per: -1}},
		"tiny time":            {{Rate: 1, Per: 1}},
		"huge time":            {{Rate: 1, Per: 1 << 62}},
		"negative burst":       {{Rate: 1, Burst: -1}},
		"huge burst":           {{Rate: 1, Burst: 1 << 40}},
		"burst without rate":   {{Concurrency: 1, Burst: 2}},
		"time without rate":    {{Concurrency: 1, Per: time.Second}},
		"bad type":             {{Type: "a b", Concurrency: 1}},
		"twice the same":       {{Concurrency: 1}, {Rate: 1}},
		"too many":             many,
	} {
		_, err := h.store.SetQueue(h.ctx(), "q", driver.QueuePatch{Paused: new(true), Limits: &limits})
		h.wantErr(name, err, driver.ErrInvalid)
	}
	list, err := h.store.Queues(h.ctx())
	h.must(err)
	if len(list) != 0 {
		h.Errorf("%d queues exist, want none", len(list))
	}
}

func limitDefaults(h *harness) {
	limits := []driver.Limit{{Rate: 100}, {Type: "t", Rate: 1, Per: time.Minute}, {PerKey: true, Concurrency: 3, Rate: 5, Burst: 7}}
	want := []driver.Limit{{Rate: 100, Per: time.Second, Burst: 10}, {Type: "t", Rate: 1, Per: time.Minute, Burst: 1},
		{PerKey: true, Concurrency: 3, Rate: 5, Per: time.Second, Burst: 7}}
	got := h.setQueue("q", driver.QueuePatch{Limits: &limits})
	if diff := cmp.Diff(want, got.Limits); diff != "" {
		h.Errorf("returned limits (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(want, h.queue("q").Config.Limits); diff != "" {
		h.Errorf("stored limits (-want +got):\n%s", diff)
	}
}

// limitConcurrent has workers claim and settle at once, and counts what is active.
func limitConcurrent(h *harness) {
	const bound, workers, n = 3, 6, 150
	h.limit1(driver.Limit{Concurrency: bound}, driver.Limit{PerKey: true, Concurrency: 2})
	for i := range n / 30 {
		h.add(h.keyed(fmt.Sprint("k", i), fmt.Sprint("k", i%2), 30)...)
	}
	var active, most, done atomic.Int64
	var wg sync.WaitGroup
	for i := range workers {
		w := fmt.Sprint("w-", i)
		h.register(w)
		wg.Go(func() {
			for done.Load() < n && h.limit.Err() == nil {
				claims := h.claim(w, 2)
				for v := active.Add(int64(len(claims))); ; {
					if old := most.Load(); v <= old || most.CompareAndSwap(old, v) {
						break
					}
				}
				for i, c := range claims {
					active.Add(-1) // before: what is settled counts no more
					h.end(w, c, []driver.Outcome{driver.Complete, driver.Release}[i%2])
					if i%2 == 0 {
						done.Add(1)
					}
				}
			}
		})
	}
	wg.Wait()
	if got := most.Load(); got > bound {
		h.Errorf("%d tasks were active at once, the limit is %d", got, bound)
	}
	if got := done.Load(); got < n {
		h.Errorf("%d of %d tasks were done", got, n)
	}
}
