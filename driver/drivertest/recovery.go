package drivertest

import (
	"fmt"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/waggleq/waggle/driver"
)

var recoveryCases = []testCase{
	{"a crash spends no attempt and is counted", recoveryCounts},
	{"a crash is written into the history", recoveryHistory},
	{"nothing is recovered before the lease runs out", recoveryNotEarly},
	{"a fetch recovers workers whose lease has run out", recoveryByFetch},
	{"a fetch of other types and queues still recovers", recoveryByForeignFetch},
	{"crashes up to the limit discard the task with that reason", recoveryLimit},
	{"a task whose cancellation was asked for ends as cancelled", recoveryCancelled},
	{"only the dead worker's tasks are recovered", recoveryOnlyDead},
	{"a worker that holds more than a batch is recovered to the last task", recoveryLarge},
	{"a recovered task is given to exactly one worker", recoveryOnce},
	{"an attempt that failed before still counts after a crash", recoveryMixed},
}

func recoveryCounts(h *harness) {
	h.add(task("a", nil))
	h.register("dead")
	h.claimOne("dead", "a")
	h.lose()
	if r := h.get("a"); r.State != driver.Available || r.Attempt != 0 || r.Crashes != 1 {
		h.Errorf("the task is %s, attempt %d, %d crashes; want available, 0, 1", r.State, r.Attempt, r.Crashes)
	}
	h.register("w")
	if c := h.claimOne("w", "a"); c.Attempt != 1 || c.Crashes != 1 {
		h.Errorf("the next claim has attempt %d and %d crashes, want 1 and 1", c.Attempt, c.Crashes)
	}
}

func recoveryHistory(h *harness) {
	h.add(task("a", nil))
	h.register("dead")
	c := h.claimOne("dead", "a")
	before := h.now()
	h.lose()
	r := h.get("a")
	if len(r.Attempts) != 1 {
		h.Fatalf("the history has %d entries, want 1", len(r.Attempts))
	}
	got := r.Attempts[0]
	want := driver.Attempt{Number: 1, Outcome: driver.Crash, Worker: "dead", Host: "host-dead", Build: "v1",
		Started: c.ClaimedAt, Ended: got.Ended, Error: got.Error}
	if diff := cmp.Diff(want, got); diff != "" {
		h.Errorf("history entry (-want +got):\n%s", diff)
	}
	if got.Ended.Before(before) || got.Ended.After(h.now()) {
		h.Errorf("ended at %v, recovered after %v", got.Ended, before)
	}
}

func recoveryNotEarly(h *harness) {
	h.add(task("a", nil))
	h.register("w")
	end := h.fetch(request("w", 2)).LeaseEnd
	h.advance(end.Sub(h.now()) - time.Minute)
	if sum := h.maintain(); sum.Recovered != 0 {
		h.Errorf("recovered %d tasks a minute early", sum.Recovered)
	}
	if !h.caps.Ordered {
		end = end.Add(time.Second) // it is the end in one shard, the others follow
	}
	h.advance(end.Sub(h.now()) + time.Millisecond)
	if sum := h.maintain(); sum.Recovered != 1 {
		h.Errorf("recovered %d tasks after the lease, want 1", sum.Recovered)
	}
}

// survivor registers a worker whose lease outlives that of all others.
func (h *harness) survivor(worker string) {
	h.Helper()
	h.must(h.store.Register(h.ctx(), driver.WorkerInfo{ID: worker}, 10*lease))
}

func recoveryByFetch(h *harness) {
	h.add(task("a", nil))
	h.register("dead")
	h.survivor("w")
	h.claimOne("dead", "a")
	h.advance(2 * lease)
	for range 10 {
		if claims := h.claim("w", 1); len(claims) == 1 {
			if claims[0].ID != "a" || claims[0].Crashes != 1 {
				h.Errorf("got %+v", claims[0])
			}
			return
		}
	}
	h.Error("the dead worker's task was not given")
}

func recoveryByForeignFetch(h *harness) {
	h.add(task("a", nil))
	h.register("dead")
	h.survivor("w")
	h.claimOne("dead", "a")
	h.advance(2 * lease)
	req := request("w", 1, "elsewhere")
	req.Types = []string{"other"}
	for range 10 {
		h.fetch(req)
		if h.get("a").State == driver.Available {
			return
		}
	}
	h.Error("the dead worker's task was not recovered")
}

func recoveryLimit(h *harness) {
	h.add(task("a", func(t *driver.Task) { t.CrashLimit = 3 }))
	for i := range 3 {
		h.wantState(driver.Available, "a")
		w := fmt.Sprint("w-", i)
		h.register(w)
		h.claimOne(w, "a")
		if sum := h.lose(); sum.Recovered != 1 {
			h.Errorf("crash %d: recovered %d, want 1", i, sum.Recovered)
		}
	}
	r := h.get("a")
	if r.State != driver.Discarded || r.Reason != driver.ReasonCrashes || r.Crashes != 3 || r.Attempt != 0 || len(r.Attempts) != 3 {
		h.Errorf("the task is %s (%s) with %d crashes, attempt %d, %d entries", r.State, r.Reason, r.Crashes, r.Attempt, len(r.Attempts))
	}
	if t := h.queue(driver.DefaultQueue).Totals; t.Crashed != 3 || t.Discarded != 1 || t.Failed != 0 {
		h.Errorf("totals %+v, want 3 crashed, 1 discarded, 0 failed", t)
	}
}

func recoveryCancelled(h *harness) {
	h.add(task("a", nil))
	h.register("w")
	h.claimOne("w", "a")
	h.applyOK(driver.OpCancel, "a")
	h.lose()
	if r := h.get("a"); r.State != driver.Cancelled || r.Reason != driver.ReasonRequested || r.Crashes != 1 || r.CancelRequested {
		h.Errorf("the task is %s (%s), %d crashes, cancel requested %v", r.State, r.Reason, r.Crashes, r.CancelRequested)
	}
}

func recoveryOnlyDead(h *harness) {
	h.add(tasks("a", 4)...)
	h.register("dead")
	h.survivor("w")
	dead := h.claim("dead", 2)
	req := request("w", 2)
	req.Lease = 10 * lease
	alive := h.fetch(req).Claims
	h.advance(2 * lease)
	if sum := h.maintain(); sum.Recovered != 2 {
		h.Errorf("recovered %d, want 2", sum.Recovered)
	}
	h.wantState(driver.Available, claimIDs(dead)...)
	h.wantState(driver.Active, claimIDs(alive)...)
	for _, c := range alive {
		h.end("w", c, driver.Complete)
	}
}

func recoveryLarge(h *harness) {
	const n = 1700
	for i := range n / 100 {
		h.add(tasks(fmt.Sprint("b-", i), 100)...)
	}
	h.register("dead")
	for range 2 {
		h.claim("dead", 1000)
	}
	h.advance(2 * lease)
	first, err := h.store.Maintain(h.ctx(), 100)
	h.must(err)
	if first.Recovered > 100 || !first.More {
		h.Errorf("a Maintain of at most 100 recovered %d, More %v", first.Recovered, first.More)
	}
	if rest := h.maintain(); first.Recovered+rest.Recovered != n {
		h.Errorf("recovered %d and %d, want %d", first.Recovered, rest.Recovered, n)
	}
	if got := h.queue(driver.DefaultQueue).Counts[driver.Available]; got != n {
		h.Errorf("%d tasks are available, want %d", got, n)
	}
}

func recoveryOnce(h *harness) {
	h.add(tasks("a", 50)...)
	h.register("dead")
	h.claim("dead", 50)
	const workers = 8
	for i := range workers {
		h.survivor(fmt.Sprint("w-", i))
	}
	h.advance(2 * lease)
	got := make(chan []driver.Claim, workers)
	for i := range workers {
		go func() {
			var mine []driver.Claim
			req := request(fmt.Sprint("w-", i), 3)
			req.Lease = 10 * lease
			for range 50 {
				res, err := h.store.Fetch(h.limit, req)
				if err != nil {
					h.Errorf("fetch: %v", err)
					break
				}
				mine = append(mine, res.Claims...)
			}
			got <- mine
		}()
	}
	seen := map[string]bool{}
	for range workers {
		for _, c := range <-got {
			if seen[c.ID] {
				h.Errorf("task %s was given twice", c.ID)
			}
			seen[c.ID] = true
		}
	}
	if len(seen) != 50 {
		h.Errorf("%d tasks were given, want 50", len(seen))
	}
}

func recoveryMixed(h *harness) {
	h.add(task("a", func(t *driver.Task) { t.MaxAttempts = 2 }))
	h.register("w")
	h.end("w", h.claimOne("w", "a"), driver.Retry)
	h.register("dead")
	if c := h.claimOne("dead", "a"); c.Attempt != 2 {
		h.Errorf("the second claim is attempt %d, want 2", c.Attempt)
	}
	h.lose()
	if r := h.get("a"); r.Attempt != 1 || r.Crashes != 1 || r.State != driver.Available {
		h.Errorf("after the crash the task is %s, attempt %d, %d crashes", r.State, r.Attempt, r.Crashes)
	}
	h.register("x")
	h.end("x", h.claimOne("x", "a"), driver.Retry)
	if r := h.get("a"); r.State != driver.Discarded || r.Reason != driver.ReasonAttempts || r.Attempt != 2 {
		h.Errorf("after two failures the task is %s (%s), attempt %d", r.State, r.Reason, r.Attempt)
	}
}
