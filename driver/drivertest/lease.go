package drivertest

import (
	"slices"
	"strings"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/waggleq/waggle/driver"
)

var leaseCases = []testCase{
	{"a registered worker is listed as it said", leaseRegister},
	{"registering again updates what is known and renews the lease", leaseRegisterTwice},
	{"bad workers and leases are refused", leaseInvalid},
	{"a heartbeat renews the lease", leaseHeartbeat},
	{"one heartbeat renews everything a worker holds", leaseRenewsAll},
	{"a fetch renews the lease", leaseFetchRenews},
	{"a lease lasts as long as fetches and heartbeats say", leaseLasts},
	{"a lease that ran out is renewed if nobody recovered it", leaseLateHeartbeat},
	{"a fetch renews its own lease that ran out before it recovers", leaseLateFetch},
	{"after recovery every call of the worker is refused", leaseLost},
	{"after unregistering every call of the worker is refused", leaseUnregistered},
	{"a worker that was never registered is refused", leaseUnknown},
	{"unregistering gives everything back at no cost", leaseGivesBack},
	{"unregistering an unknown worker is no error", leaseUnregisterUnknown},
	{"a worker with nothing to lose is lost too", leaseIdleLost},
	{"what a worker is told comes with its heartbeats and is shown", directDelivered},
	{"a worker that was told to stop can't be told otherwise", directStop},
	{"only a registered worker can be told something known", directRefused},
	{"what a worker was told ends with its life", directEnds},
	{"a directive wakes the worker that waits for control, once", directWakes},
	{"a directive from another handle wakes its worker", directOtherHandle},
}

func (h *harness) workers() map[string]driver.WorkerStatus {
	h.Helper()
	list, err := h.store.Workers(h.ctx())
	h.must(err)
	byID := map[string]driver.WorkerStatus{}
	for _, w := range list {
		byID[w.ID] = w
	}
	return byID
}

func leaseRegister(h *harness) {
	info := driver.WorkerInfo{ID: "w:1", Host: "höst <b>", PID: 42, Build: "v1.2.3", Queues: []string{"a", "b"}, Types: []string{"t"}, Slots: 100}
	before := h.now()
	h.must(h.store.Register(h.ctx(), info, time.Minute))
	after := h.now()
	got := h.workers()["w:1"]
	if diff := cmp.Diff(info, got.WorkerInfo, equateEmpty); diff != "" {
		h.Errorf("worker (-want +got):\n%s", diff)
	}
	if got.Since.Before(before) || got.Since.After(after) || !got.LeaseEnd.Equal(got.Since.Add(time.Minute)) || got.Held != 0 {
		h.Errorf("since %v, lease end %v, held %d; registered between %v and %v", got.Since, got.LeaseEnd, got.Held, before, after)
	}
	info.Queues[0] = "changed"
	if q := h.workers()["w:1"].Queues[0]; q != "a" {
		h.Errorf("changing the caller's slice changed the store: %q", q)
	}
}

func leaseRegisterTwice(h *harness) {
	h.register("w")
	first := h.workers()["w"]
	h.add(task("a", nil))
	c := h.claimOne("w", "a")
	h.advance(time.Minute)
	h.must(h.store.Register(h.ctx(), driver.WorkerInfo{ID: "w", Host: "elsewhere", Slots: 3}, 2*lease))
	got := h.workers()["w"]
	if got.Host != "elsewhere" || got.Slots != 3 || got.Held != 1 {
		h.Errorf("after the second call: %+v", got)
	}
	if !got.Since.Equal(first.Since) || !got.LeaseEnd.After(first.LeaseEnd.Add(lease)) {
		h.Errorf("since %v and lease end %v, first they were %v and %v", got.Since, got.LeaseEnd, first.Since, first.LeaseEnd)
	}
	h.end("w", c, driver.Complete)
}

func leaseInvalid(h *harness) {
	for name, c := range map[string]struct {
		worker driver.WorkerInfo
		lease  time.Duration
	}{
		"empty id":       {driver.WorkerInfo{}, lease},
		"bad id":         {driver.WorkerInfo{ID: "a b"}, lease},
		"long id":        {driver.WorkerInfo{ID: strings.Repeat("w", driver.MaxNameLen+1)}, lease},
		"bad queue":      {driver.WorkerInfo{ID: "w", Queues: []string{"{}"}}, lease},
		"no lease":       {driver.WorkerInfo{ID: "w"}, 0},
		"negative lease": {driver.WorkerInfo{ID: "w"}, -lease},
		"short lease":    {driver.WorkerInfo{ID: "w"}, driver.MinLease - time.Millisecond},
		"endless lease":  {driver.WorkerInfo{ID: "w"}, driver.MaxLease + time.Millisecond},
	} {
		h.wantErr(name, h.store.Register(h.ctx(), c.worker, c.lease), driver.ErrInvalid)
	}
	if n := len(h.workers()); n != 0 {
		h.Errorf("%d workers are registered, want none", n)
	}
	h.register("w")
	_, err := h.store.Heartbeat(h.ctx(), "w", driver.MinLease-time.Millisecond)
	h.wantErr("heartbeat with a short lease", err, driver.ErrInvalid)
	h.must(h.store.Register(h.ctx(), driver.WorkerInfo{ID: "short"}, driver.MinLease))
}

func (h *harness) heartbeat(worker string) *driver.HeartbeatResult {
	h.Helper()
	res, err := h.store.Heartbeat(h.ctx(), worker, lease)
	h.must(err)
	return res
}

// leaseLasts has a worker that fetches all the time, one task a call, and that sends a heartbeat when the end of its lease
// comes near that it was told last. It must not lose anything, in whichever shard.
func leaseLasts(h *harness) {
	h.add(tasks("a", 40)...)
	h.register("w")
	end := h.heartbeat("w").LeaseEnd
	h.survivor("other")
	for range 40 {
		h.advance(lease / 4)
		if end.Sub(h.now()) <= lease/2 {
			end = h.heartbeat("w").LeaseEnd
		}
		res := h.fetch(request("w", 1))
		if len(res.Claims) != 1 {
			h.Fatalf("got %d claims, want 1", len(res.Claims))
		}
		if !res.LeaseEnd.IsZero() {
			end = res.LeaseEnd
		}
		h.fetch(request("other", 0)) // recovers what others lost
		if held, err := h.store.Held(h.ctx(), "w"); err != nil || !slices.ContainsFunc(held, func(c driver.Claim) bool { return c.ID == res.Claims[0].ID }) {
			h.Fatalf("at %v, with a lease until %v, the worker does not hold what it claimed: %v", h.now(), end, err)
		}
	}
	if held, err := h.store.Held(h.ctx(), "w"); err != nil || len(held) != 40 {
		h.Errorf("the worker holds %d tasks, %v, want 40", len(held), err)
	}
}

func leaseHeartbeat(h *harness) {
	h.register("w")
	before := h.now()
	res := h.heartbeat("w")
	if res.Now.Before(before) || res.Now.After(h.now()) || !res.LeaseEnd.Equal(res.Now.Add(lease)) || len(res.Cancels) != 0 {
		h.Errorf("got %+v after %v", res, before)
	}
	if got := h.workers()["w"].LeaseEnd; !got.Equal(res.LeaseEnd) {
		h.Errorf("the worker's lease ends at %v, the heartbeat said %v", got, res.LeaseEnd)
	}
}

func leaseRenewsAll(h *harness) {
	h.add(tasks("a", 20)...)
	h.register("w")
	claims := h.claim("w", 20)
	for range 5 {
		h.advance(lease - time.Minute)
		h.heartbeat("w")
		if sum := h.maintain(); sum.Recovered != 0 {
			h.Fatalf("%d tasks were taken from a worker whose lease runs", sum.Recovered)
		}
	}
	for _, c := range claims {
		h.end("w", c, driver.Complete)
	}
}

func leaseFetchRenews(h *harness) {
	h.add(task("a", nil))
	h.register("w")
	c := h.claimOne("w", "a")
	for range 3 {
		h.advance(lease - time.Minute)
		h.fetch(request("w", 0))
		h.maintain()
	}
	h.end("w", c, driver.Complete)
}

func leaseLateHeartbeat(h *harness) {
	h.add(task("a", nil))
	h.register("w")
	c := h.claimOne("w", "a")
	h.advance(2 * lease)
	if res := h.heartbeat("w"); !res.LeaseEnd.Equal(res.Now.Add(lease)) {
		h.Errorf("the lease ends at %v, want %v", res.LeaseEnd, res.Now.Add(lease))
	}
	if sum := h.maintain(); sum.Recovered != 0 {
		h.Errorf("%d tasks were recovered after the renewal", sum.Recovered)
	}
	h.end("w", c, driver.Complete)
}

func leaseLateFetch(h *harness) {
	h.add(task("a", nil))
	h.register("w")
	c := h.claimOne("w", "a")
	h.advance(2 * lease)
	h.fetch(request("w", 0))
	h.wantState(driver.Active, "a")
	h.end("w", c, driver.Complete)
}

// wantDead wants every call of a worker refused that has, or had, a claim.
func (h *harness) wantDead(worker string, c driver.Claim) {
	h.Helper()
	_, err := h.store.Fetch(h.ctx(), request(worker, 1))
	h.wantErr("fetch", err, driver.ErrLeaseLost)
	_, err = h.store.Heartbeat(h.ctx(), worker, lease)
	h.wantErr("heartbeat", err, driver.ErrLeaseLost)
	_, err = h.store.Held(h.ctx(), worker)
	h.wantErr("held", err, driver.ErrLeaseLost)
	before := h.find(c.ID)
	for _, o := range []driver.Outcome{driver.Complete, driver.Retry, driver.Release} {
		h.wantErr("settle", h.settle(worker, driver.Settlement{ID: c.ID, Token: c.Token, Outcome: o})[0], driver.ErrLeaseLost)
	}
	errs, err := h.store.Report(h.ctx(), worker, []driver.Report{{ID: c.ID, Token: c.Token, Progress: &driver.Progress{Done: 1}}})
	h.must(err)
	h.wantErr("report", errs[0], driver.ErrLeaseLost)
	if diff := cmp.Diff(before, h.find(c.ID)); diff != "" {
		h.Errorf("refused calls changed the task (-before +after):\n%s", diff)
	}
	if _, listed := h.workers()[worker]; listed {
		h.Errorf("%s is still listed as a worker", worker)
	}
}

func leaseLost(h *harness) {
	h.add(task("a", nil))
	h.register("w")
	c := h.claimOne("w", "a")
	if sum := h.lose(); sum.Recovered != 1 {
		h.Errorf("Maintain recovered %d, want 1", sum.Recovered)
	}
	h.wantDead("w", c)
	// An engine need not remember every id that ever lived; but a second life starts with nothing.
	if err := h.store.Register(h.ctx(), driver.WorkerInfo{ID: "w"}, lease); err != nil {
		h.wantErr("registering the id of a life that is over", err, driver.ErrLeaseLost)
		return
	}
	h.wantErr("settle in the second life", h.settle("w", driver.Settlement{ID: "a", Token: c.Token, Outcome: driver.Complete})[0], driver.ErrLeaseLost)
	if held, err := h.store.Held(h.ctx(), "w"); err != nil || len(held) != 0 {
		h.Errorf("the second life holds %v, error %v", claimIDs(held), err)
	}
}

func leaseUnregistered(h *harness) {
	h.add(task("a", nil))
	h.register("w")
	c := h.claimOne("w", "a")
	h.must(h.store.Unregister(h.ctx(), "w"))
	h.wantDead("w", c)
}

func leaseUnknown(h *harness) {
	h.add(task("a", nil))
	h.register("other")
	h.wantDead("w", h.claimOne("other", "a"))
}

func leaseGivesBack(h *harness) {
	h.add(tasks("a", 2)...)
	h.register("w")
	h.claim("w", 2)
	h.must(h.store.Unregister(h.ctx(), "w"))
	for _, r := range h.listAll(driver.Filter{}) {
		if r.State != driver.Available || r.Attempt != 0 || r.Crashes != 0 {
			h.Errorf("task %s is %s with attempt %d and %d crashes", r.ID, r.State, r.Attempt, r.Crashes)
		}
	}
}

func leaseUnregisterUnknown(h *harness) {
	h.must(h.store.Unregister(h.ctx(), "nobody"))
}

func leaseIdleLost(h *harness) {
	h.register("w")
	h.lose()
	if n := len(h.workers()); n != 0 {
		h.Errorf("%d workers are listed, want none", n)
	}
	_, err := h.store.Heartbeat(h.ctx(), "w", lease)
	h.wantErr("heartbeat", err, driver.ErrLeaseLost)
}
