package drivertest

import (
	"fmt"
	"slices"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/waggleq/waggle/driver"
)

var fetchCases = []testCase{
	{"a claim carries the whole task", fetchClaim},
	{"a claimed task is active and held by the worker", fetchActive},
	{"tokens of a task grow", fetchTokens},
	{"queues are served in the order of the request", fetchQueueOrder},
	{"no task of a later queue is given while an earlier one has any, in whatever shard", fetchStrict},
	{"a queue named twice counts once", fetchQueueTwice},
	{"lower priority numbers come first", fetchPriority},
	{"equal priorities come in the order of enqueueing, across types", fetchFIFO},
	{"unique keys don't change the order of a call's tasks", fetchUniqueFIFO},
	{"tasks of undeclared types are not touched, even at the head", fetchUndeclared},
	{"nil types declare all", fetchNilTypes},
	{"a released task keeps its place", fetchReleasedPlace},
	{"a task of a dead worker keeps its place", fetchCrashedPlace},
	{"what an unregistered worker held keeps its place", fetchUnregisteredPlace},
	{"a retried task goes to the end", fetchRetriedPlace},
	{"tasks that are promoted come in the order in which they were due", fetchDueOrder},
	{"a task that a person retried goes to the end", fetchPersonRetried},
	{"paused queues give nothing, others do", fetchPaused},
	{"Max 0 claims nothing and does the rest", fetchMaxZero},
	{"at most 1000 claims are given", fetchCap},
	{"More tells whether work was left behind", fetchMore},
	{"NextDue is not later than the next due task", fetchNextDue},
	{"NextDue is not later than the next lease that runs out", fetchNextLease},
	{"a bad request is refused", fetchInvalid},
	{"an unregistered worker gets nothing", fetchUnregistered},
}

// fetchStrict has tasks of two queues in all shards, and more of the first come while they are claimed. However many are
// claimed at a time, and in whatever order the queues are named, the order of the request holds.
func fetchStrict(h *harness) {
	h.register("w")
	n := 0
	add := func(queue string, count int) {
		for range count {
			n++
			h.add(task(fmt.Sprint(queue, "-", n), func(t *driver.Task) { t.Queue = queue }))
		}
	}
	for _, c := range []struct {
		queues []string
		max    int
	}{{[]string{"hi", "lo"}, 1}, {[]string{"lo", "hi"}, 3}, {[]string{"hi", "none", "lo"}, 20}} {
		add("hi", 40)
		add("lo", 40)
		waiting := map[string]int{"hi": 40, "lo": 40}
		for round := 0; waiting["hi"]+waiting["lo"] > 0; round++ {
			if round > 200 {
				h.Fatalf("by %d from %v: %v are not given", c.max, c.queues, waiting)
			}
			if round == 10 {
				add(c.queues[0], 5)
				waiting[c.queues[0]] += 5
			}
			for _, got := range h.fetch(request("w", c.max, c.queues...)).Claims {
				if got.Queue != c.queues[0] && waiting[c.queues[0]] > 0 {
					h.Fatalf("by %d from %v: %s is given while %d of %s wait", c.max, c.queues, got.ID, waiting[c.queues[0]], c.queues[0])
				}
				waiting[got.Queue]--
				h.end("w", got, driver.Complete)
			}
		}
	}
}

// wantOrder claims n tasks, one call, and compares their ids where the engine promises an order; elsewhere as a set.
func (h *harness) wantOrder(worker string, want []string, queues ...string) []driver.Claim {
	h.Helper()
	claims := h.claim(worker, len(want), queues...)
	got := claimIDs(claims)
	if !h.ordered(want) {
		got, want = slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(want))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		h.Errorf("claims (-want +got):\n%s", diff)
	}
	return claims
}

func idsOf(list []*driver.Task) []string {
	ids := make([]string, len(list))
	for i, t := range list {
		ids[i] = t.ID
	}
	return ids
}

func fetchClaim(h *harness) {
	h.add(full("a"))
	r := h.get("a")
	h.register("w")
	before := h.now()
	c := h.claimOne("w", "a", "mail:eu")
	want := driver.Claim{Task: *full("a"), Token: c.Token, Attempt: 1, EnqueuedAt: r.EnqueuedAt, ClaimedAt: c.ClaimedAt}
	if diff := cmp.Diff(want, c, equateEmpty); diff != "" {
		h.Errorf("claim (-want +got):\n%s", diff)
	}
	if c.Token <= 0 || c.ClaimedAt.Before(before) || c.ClaimedAt.After(h.now()) {
		h.Errorf("token %d, claimed at %v", c.Token, c.ClaimedAt)
	}
}

func fetchActive(h *harness) {
	h.add(task("a", nil))
	h.register("w")
	before := h.now()
	res := h.fetch(request("w", 5))
	if len(res.Claims) != 1 {
		h.Fatalf("got %d claims, want 1", len(res.Claims))
	}
	c, r := res.Claims[0], h.get("a")
	if r.State != driver.Active || r.Worker != "w" || r.Token != c.Token || r.Attempt != 1 || !r.ClaimedAt.Equal(c.ClaimedAt) {
		h.Errorf("the record is %+v, the claim %+v", r, c)
	}
	h.wantLeaseFrom(before, res)
	if again := h.claim("w", 5); len(again) != 0 {
		h.Errorf("the held task was given again: %v", claimIDs(again))
	}
}

// wantLeaseFrom wants a fetch that was called at a time, and asked all shards, to have renewed the lease.
func (h *harness) wantLeaseFrom(called time.Time, res *driver.FetchResult) {
	h.Helper()
	end := res.Now.Add(lease)
	if late := h.caps.Ordered && !res.LeaseEnd.Equal(end); late || res.LeaseEnd.After(end) || res.LeaseEnd.Before(called.Add(lease)) {
		h.Errorf("the lease ends at %v after a call at %v, and now it is %v", res.LeaseEnd, called, res.Now)
	}
}

func fetchTokens(h *harness) {
	h.add(task("a", nil))
	last := driver.Token(0)
	for i, o := range []driver.Outcome{driver.Release, driver.Retry, driver.Crash, driver.Snooze, driver.Complete} {
		w := fmt.Sprint("w-", i)
		h.register(w)
		c := h.claimOne(w, "a")
		if c.Token <= last {
			h.Errorf("claim %d has token %d after %d", i, c.Token, last)
		}
		last = c.Token
		if o == driver.Crash {
			h.lose()
			continue
		}
		h.end(w, c, o)
	}
	h.applyOK(driver.OpRetry, "a")
	h.register("w-last")
	if c := h.claimOne("w-last", "a"); c.Token <= last {
		h.Errorf("the claim after a person's retry has token %d after %d", c.Token, last)
	}
}

func inQueue(q string, list []*driver.Task) []*driver.Task {
	for _, t := range list {
		t.Queue = q
	}
	return list
}

func fetchQueueOrder(h *harness) {
	low := h.add(inQueue("low", h.line("low", 3))...)
	high := h.add(inQueue("high", h.line("high", 3))...)
	h.register("w")
	h.wantOrder("w", high[:2], "high", "low")
	h.wantOrder("w", []string{high[2], low[0]}, "high", "low")
	h.wantOrder("w", low[1:2], "high", "low")
}

func fetchQueueTwice(h *harness) {
	h.add(tasks("a", 2)...)
	h.register("w")
	h.wantOrder("w", []string{"a-000", "a-001"}, "default", "default")
}

func fetchPriority(h *harness) {
	var want []string
	list := h.line("p", 7)
	for i, p := range []int{5, -100, 0, 100, -1, 1, 0} {
		list[i].Priority = p
	}
	h.add(list...)
	slices.SortStableFunc(list, func(a, b *driver.Task) int { return a.Priority - b.Priority })
	want = idsOf(list)
	h.register("w")
	h.wantOrder("w", want)
}

func fetchFIFO(h *harness) {
	var want []string
	for i := range 4 { // several calls, and several tasks in each
		list := h.line(fmt.Sprint("call-", i), 5)
		for j, t := range list {
			t.Type = []string{"z", "a", "m"}[(i+j)%3]
		}
		h.add(list...)
		want = append(want, idsOf(list)...)
	}
	h.register("w")
	h.wantOrder("w", want[:7])
	h.wantOrder("w", want[7:])
}

// fetchUniqueFIFO enqueues tasks of one shard whose unique keys may be other shards'.
func fetchUniqueFIFO(h *harness) {
	list := h.line("a", 8)
	for i, t := range list {
		if i%2 != 0 {
			t.Unique = &driver.Unique{Key: fmt.Sprint("k-", i/2)}
		}
	}
	h.register("w")
	h.wantOrder("w", h.add(list...))
}

func fetchUndeclared(h *harness) {
	list := tasks("a", 6)
	for i, t := range list {
		t.Type = []string{"foreign", "mine"}[i%2]
	}
	list[0].Priority, list[2].ExpiresIn, list[4].Delay = -100, time.Minute, time.Minute
	h.add(list...)
	h.advance(2 * time.Minute)
	before := h.listAll(driver.Filter{Types: []string{"foreign"}})
	h.register("w")
	req := request("w", 10)
	req.Types = []string{"mine", "absent"}
	res := h.fetch(req)
	if got := claimIDs(res.Claims); h.caps.Ordered && !slices.Equal(got, []string{"a-001", "a-003", "a-005"}) || len(got) != 3 {
		h.Errorf("got %v, want just the declared type in order", got)
	}
	if res.More {
		h.Error("More is set, but only undeclared types are left")
	}
	if diff := cmp.Diff(before, h.listAll(driver.Filter{Types: []string{"foreign"}})); diff != "" {
		h.Errorf("undeclared tasks were touched (-before +after):\n%s", diff)
	}
}

func fetchNilTypes(h *harness) {
	h.add(task("a", func(t *driver.Task) { t.Type = "x" }), task("b", func(t *driver.Task) { t.Type = "y" }))
	h.register("w")
	h.wantOrder("w", []string{"a", "b"})
}

func fetchReleasedPlace(h *harness) {
	ids := h.add(h.line("a", 4)...)
	h.register("w")
	claims := h.wantOrder("w", ids[:2])
	for _, c := range slices.Backward(claims) {
		h.end("w", c, driver.Release)
	}
	urgent := h.add(task(h.near("urgent"), func(t *driver.Task) { t.Priority = -1 }))
	h.wantOrder("w", append(urgent, ids...))
}

func fetchCrashedPlace(h *harness) {
	ids := h.add(h.line("a", 4)...)
	h.register("dead")
	h.wantOrder("dead", ids[:2])
	h.lose()
	h.register("w")
	h.wantOrder("w", ids)
}

func fetchUnregisteredPlace(h *harness) {
	ids := h.add(h.line("a", 4)...)
	h.register("gone", "w")
	h.wantOrder("gone", ids[:2])
	h.must(h.store.Unregister(h.ctx(), "gone"))
	h.wantOrder("w", ids)
}

func fetchRetriedPlace(h *harness) {
	ids := h.add(h.line("a", 3)...)
	h.register("w")
	c := h.wantOrder("w", ids[:1])[0]
	h.endWith("w", driver.Settlement{ID: c.ID, Token: c.Token, Outcome: driver.Retry})
	h.wantOrder("w", append(ids[1:], c.ID))
}

func fetchDueOrder(h *harness) {
	list := h.line("a", 5)
	for i, minutes := range []int{4, 2, 5, 1, 3} {
		list[i].Delay = time.Duration(minutes) * time.Minute
	}
	ids := h.add(list...)
	h.advance(10 * time.Minute)
	h.register("w")
	h.wantOrder("w", []string{ids[3], ids[1], ids[4], ids[0], ids[2]})
}

func fetchPersonRetried(h *harness) {
	ids := h.add(h.line("a", 3)...)
	h.register("w")
	c := h.wantOrder("w", ids[:1])[0]
	h.end("w", c, driver.Discard)
	h.applyOK(driver.OpRetry, c.ID)
	h.wantOrder("w", append(ids[1:], c.ID))
}

func fetchPaused(h *harness) {
	h.add(inQueue("stopped", tasks("s", 2))...)
	h.add(inQueue("open", tasks("o", 2))...)
	h.setQueue("stopped", driver.QueuePatch{Paused: new(true)})
	h.register("w")
	res := h.fetch(request("w", 10, "stopped", "open"))
	if got := claimIDs(res.Claims); len(got) != 2 || got[0][0] != 'o' || got[1][0] != 'o' {
		h.Errorf("got %v, want just the open queue's tasks", got)
	}
	if res.More {
		h.Error("More is set, but only a paused queue has work")
	}
	h.setQueue("stopped", driver.QueuePatch{Paused: new(false)})
	h.wantOrder("w", []string{"s-000", "s-001"}, "stopped", "open")
}

func fetchMaxZero(h *harness) {
	h.add(task("now", nil), task("due", func(t *driver.Task) { t.Delay = time.Minute }),
		task("old", func(t *driver.Task) { t.ExpiresIn = time.Minute }))
	h.register("w")
	h.advance(2 * time.Minute)
	before := h.now()
	res := h.fetch(request("w", 0))
	if len(res.Claims) != 0 || !res.More {
		h.Errorf("got claims %v and More %v, want none and true", claimIDs(res.Claims), res.More)
	}
	h.wantLeaseFrom(before, res)
	h.wantState(driver.Available, "now", "due")
	h.wantState(driver.Discarded, "old")
}

func fetchCap(h *harness) {
	for i := range 11 {
		h.add(tasks(fmt.Sprint("b-", i), 100)...)
	}
	h.register("w")
	res := h.fetch(request("w", 5000))
	if len(res.Claims) != 1000 || !res.More {
		h.Errorf("got %d claims and More %v, want 1000 and true", len(res.Claims), res.More)
	}
	if rest := h.claim("w", 5000); len(rest) != 100 {
		h.Errorf("got %d claims, want the other 100", len(rest))
	}
}

func fetchMore(h *harness) {
	h.add(tasks("a", 3)...)
	h.register("w")
	for i, want := range []bool{true, true, false, false} {
		res := h.fetch(request("w", 1))
		unsure := !h.caps.Ordered && len(res.Claims) > 0 // not all shards need have been asked
		if res.More != want && !(res.More && unsure) {
			h.Errorf("fetch %d: More is %v, want %v", i, res.More, want)
		}
	}
}

func fetchNextDue(h *harness) {
	h.register("w")
	h.add(task("later", func(t *driver.Task) { t.Delay = 2 * time.Minute }), task("soon", func(t *driver.Task) { t.Delay = time.Minute }))
	for _, id := range []string{"soon", "later"} {
		res, due := h.fetch(request("w", 10)), h.get(id).DueAt
		if res.NextDue.IsZero() || res.NextDue.After(due) || !res.NextDue.After(res.Now) {
			h.Errorf("at %v the next due is %v, want a time to come up to %v", res.Now, res.NextDue, due)
		}
		h.advance(time.Minute)
		h.claimOne("w", id)
	}
}

func fetchNextLease(h *harness) {
	h.add(tasks("a", 1)...)
	h.must(h.store.Register(h.ctx(), driver.WorkerInfo{ID: "short"}, time.Minute))
	req := request("short", 2)
	req.Lease = time.Minute
	end := h.fetch(req).LeaseEnd
	if !h.caps.Ordered {
		end = h.now().Add(time.Minute) // LeaseEnd is the earliest of the shards', and each was asked at a moment of its own
	}
	h.register("w")
	if res := h.fetch(request("w", 1)); res.NextDue.IsZero() || res.NextDue.After(end) {
		h.Errorf("the next due is %v, want up to %v, when another worker's lease ends", res.NextDue, end)
	}
}

func fetchInvalid(h *harness) {
	h.add(task("a", nil))
	h.register("w")
	for name, edit := range map[string]func(*driver.FetchRequest){
		"no queues":      func(r *driver.FetchRequest) { r.Queues = nil },
		"negative max":   func(r *driver.FetchRequest) { r.Max = -1 },
		"negative wait":  func(r *driver.FetchRequest) { r.Wait = -1 },
		"no lease":       func(r *driver.FetchRequest) { r.Lease = 0 },
		"lease too long": func(r *driver.FetchRequest) { r.Lease = driver.MaxLease + time.Millisecond },
	} {
		req := request("w", 1)
		edit(&req)
		_, err := h.store.Fetch(h.ctx(), req)
		h.wantErr(name, err, driver.ErrInvalid)
	}
	h.wantState(driver.Available, "a")
}

func fetchUnregistered(h *harness) {
	h.add(task("a", nil))
	_, err := h.store.Fetch(h.ctx(), request("nobody", 1))
	h.wantErr("fetch", err, driver.ErrLeaseLost)
	h.wantState(driver.Available, "a")
}
