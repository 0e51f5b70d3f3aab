package drivertest

import (
	"fmt"
	"time"

	"github.com/waggleq/waggle/driver"
)

var dueCases = []testCase{
	{"a delayed task never starts early", dueDelay},
	{"a retry never starts early", func(h *harness) { dueSettled(h, driver.Retry, driver.Retryable) }},
	{"a snooze never ends early", func(h *harness) { dueSettled(h, driver.Snooze, driver.Scheduled) }},
	{"what is due together is given at once", dueBurst},
	{"more than one call promotes is promoted by the next", dueBounded},
	{"Maintain promotes for all queues and types", dueMaintain},
	{"a task whose expiry has passed is discarded, never given", expiryAvailable},
	{"a task that has not expired is given", expiryInTime},
	{"a scheduled task that expired before it was looked at is never given", expiryScheduled},
	{"a retry that is due after the expiry is never given", expiryRetry},
	{"an active task does not expire", expiryActive},
	{"a released task can expire", expiryReleased},
	{"a task on hold that expired is discarded when it is let go", expiryPending},
}

// wantNotBefore advances to a millisecond before due, then past it, and wants the task id only from then on.
func (h *harness) wantNotBefore(worker, id string, due time.Time) driver.Claim {
	h.Helper()
	if left := due.Sub(h.now()); left > time.Millisecond {
		h.advance(left - time.Millisecond)
	}
	for range 1000 {
		called := h.now()
		res := h.fetch(request(worker, 1))
		if len(res.Claims) == 0 && !called.Before(due) {
			h.Fatalf("at %v the task that was due at %v was not given", called, due)
		}
		if len(res.Claims) == 1 {
			if res.Now.Before(due) || res.Claims[0].ClaimedAt.Before(due) {
				h.Errorf("a task that is due at %v was given at %v", due, res.Now)
			}
			return res.Claims[0]
		}
		h.advance(time.Millisecond)
	}
	h.Fatalf("task %s was never given", id)
	return driver.Claim{}
}

func dueDelay(h *harness) {
	h.add(task("a", func(t *driver.Task) { t.Delay = time.Hour }))
	h.register("w")
	if got := h.claim("w", 1); len(got) != 0 {
		h.Fatalf("the task was given at once")
	}
	h.advance(59 * time.Minute)
	h.register("x")
	h.wantNotBefore("x", "a", h.get("a").DueAt)
}

func dueSettled(h *harness, o driver.Outcome, state driver.State) {
	h.add(task("a", nil))
	h.register("w")
	c := h.claimOne("w", "a")
	before := h.now()
	h.endWith("w", driver.Settlement{ID: "a", Token: c.Token, Outcome: o, Delay: time.Minute})
	r := h.get("a")
	if r.State != state || r.DueAt.Before(before.Add(time.Minute)) || r.DueAt.After(h.now().Add(time.Minute)) {
		h.Errorf("the task is %s and due at %v, a minute after the store's present %v", r.State, r.DueAt, before)
	}
	h.wantNotBefore("w", "a", r.DueAt)
}

func dueBurst(h *harness) {
	list := tasks("a", 50)
	at := h.now().Add(time.Minute)
	for _, t := range list {
		t.At = at
	}
	h.add(list...)
	h.register("w")
	h.advance(time.Minute)
	if got := h.claim("w", 100); len(got) != 50 {
		h.Errorf("got %d tasks, want 50", len(got))
	}
}

func dueBounded(h *harness) {
	const n = 2500
	for i := range n / 500 {
		list := tasks(fmt.Sprint("b-", i), 500)
		for _, t := range list {
			t.Delay = time.Minute
		}
		h.add(list...)
	}
	h.advance(2 * time.Minute)
	h.register("w")
	got := 0
	for range n {
		res := h.fetch(request("w", 1000))
		got += len(res.Claims)
		if got == n {
			break
		}
		if !res.More && (res.NextDue.IsZero() || res.NextDue.After(res.Now)) {
			h.Fatalf("after %d of %d tasks the result tells no worker to come again: More %v, NextDue %v at %v", got, n, res.More, res.NextDue, res.Now)
		}
	}
	if got != n {
		h.Errorf("got %d tasks, want %d", got, n)
	}
}

func dueMaintain(h *harness) {
	h.add(task("a", func(t *driver.Task) { t.Delay = time.Minute }),
		task("b", func(t *driver.Task) { t.Delay, t.Type, t.Queue = time.Minute, "other", "other" }),
		task("c", func(t *driver.Task) { t.Delay = time.Hour }))
	if sum := h.maintain(); sum != (driver.MaintainResult{}) {
		h.Errorf("Maintain did %+v before anything was due", sum)
	}
	h.advance(2 * time.Minute)
	if sum := h.maintain(); sum.Promoted != 2 {
		h.Errorf("Maintain promoted %d, want 2", sum.Promoted)
	}
	h.wantState(driver.Available, "a", "b")
	h.wantState(driver.Scheduled, "c")
}

func expiring(id string, in time.Duration) *driver.Task {
	return task(id, func(t *driver.Task) { t.ExpiresIn = in })
}

// wantExpired fetches, wants nothing, and wants the task discarded as expired.
func (h *harness) wantExpired(worker, id string) {
	h.Helper()
	if got := h.claim(worker, 10); len(got) != 0 {
		h.Errorf("got %v, want nothing", claimIDs(got))
	}
	r := h.get(id)
	if r.State != driver.Discarded || r.Reason != driver.ReasonExpired || r.EndedAt.Before(r.ExpiresAt) {
		h.Errorf("the task is %s (%s), ended at %v, want discarded (expired) after %v", r.State, r.Reason, r.EndedAt, r.ExpiresAt)
	}
}

func expiryAvailable(h *harness) {
	h.add(expiring("a", time.Minute))
	h.register("w")
	h.advance(time.Minute)
	h.wantExpired("w", "a")
	h.add(expiring("b", time.Minute))
	h.advance(time.Minute)
	if sum := h.maintain(); sum.Expired != 1 {
		h.Errorf("Maintain discarded %d, want 1", sum.Expired)
	}
	h.wantExpired("w", "b")
}

func expiryInTime(h *harness) {
	h.add(expiring("a", time.Hour))
	h.register("w")
	h.advance(time.Minute)
	h.claimOne("w", "a")
}

func expiryScheduled(h *harness) {
	h.add(task("a", func(t *driver.Task) { t.Delay, t.ExpiresIn = time.Minute, 2*time.Minute }))
	h.register("w")
	h.advance(3 * time.Minute)
	if got := h.claim("w", 10); len(got) != 0 {
		h.Errorf("got %v, want nothing", claimIDs(got))
	}
	h.maintain()
	h.wantExpired("w", "a")
}

func expiryRetry(h *harness) {
	h.add(expiring("a", time.Minute))
	h.register("w")
	c := h.claimOne("w", "a")
	h.endWith("w", driver.Settlement{ID: "a", Token: c.Token, Outcome: driver.Retry, Delay: 2 * time.Minute})
	h.advance(3 * time.Minute)
	if got := h.claim("w", 10); len(got) != 0 {
		h.Errorf("got %v, want nothing", claimIDs(got))
	}
	h.maintain()
	h.wantExpired("w", "a")
}

func expiryActive(h *harness) {
	h.add(expiring("a", time.Minute))
	h.register("w")
	c := h.claimOne("w", "a")
	h.advance(2 * time.Minute)
	h.maintain()
	h.wantState(driver.Active, "a")
	h.end("w", c, driver.Complete)
	h.wantState(driver.Completed, "a")
}

func expiryReleased(h *harness) {
	h.add(expiring("a", time.Minute))
	h.register("w")
	c := h.claimOne("w", "a")
	h.advance(2 * time.Minute)
	h.end("w", c, driver.Release)
	h.wantExpired("w", "a")
}

func expiryPending(h *harness) {
	h.add(task("a", func(t *driver.Task) { t.Hold, t.ExpiresIn = true, time.Minute }))
	h.register("w")
	h.advance(2 * time.Minute)
	h.maintain()
	if r := h.get("a"); r.State == driver.Pending {
		h.applyOK(driver.OpRun, "a")
	}
	h.wantExpired("w", "a")
}
