package drivertest

import (
	"fmt"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/waggleq/waggle/driver"
)

var fenceCases = []testCase{
	{"a settlement under an old token is refused and changes nothing", fenceStale},
	{"a settlement under a token that was never given is refused", fenceForeignToken},
	{"a settlement by another worker is refused", fenceOtherWorker},
	{"a settlement of a task that was never claimed is refused", fenceNeverClaimed},
	{"a settlement of an unknown task is refused", fenceUnknownTask},
	{"repeating an accepted settlement is accepted and changes nothing", fenceRepeat},
	{"repeating it with another outcome changes nothing either", fenceRepeatOther},
	{"a repetition after the next claim is refused", fenceRepeatTooLate},
	{"a repetition after the task was removed is refused", fenceRepeatRemoved},
	{"two settlements of one claim in a call end it once", fenceTwiceInCall},
	{"a settlement after the lease ran out is accepted if nobody recovered the task", fenceLate},
	{"a report under an old token is refused and changes nothing", fenceReport},
	{"of many settlements of one claim exactly one outcome is kept", fenceRace},
	{"one refused item leaves the others of the call alone", fenceMixed},
}

// wantRefused settles and reports under s, wants ErrLeaseLost each time, and the task unchanged.
func (h *harness) wantRefused(worker, id string, token driver.Token) {
	h.Helper()
	before := h.find(id)
	for _, o := range []driver.Outcome{driver.Complete, driver.Retry, driver.Snooze, driver.Release, driver.Discard, driver.CancelOutcome} {
		err := h.settle(worker, driver.Settlement{ID: id, Token: token, Outcome: o, Error: "late"})[0]
		h.wantErr(string(o), err, driver.ErrLeaseLost)
	}
	errs, err := h.store.Report(h.ctx(), worker, []driver.Report{{ID: id, Token: token, Progress: &driver.Progress{Done: 9}, Logs: []driver.LogLine{{Message: "late"}}}})
	h.must(err)
	if len(errs) != 1 {
		h.Fatalf("Report of one item returned %d errors", len(errs))
	}
	h.wantErr("report", errs[0], driver.ErrLeaseLost)
	if diff := cmp.Diff(before, h.find(id)); diff != "" {
		h.Errorf("a refused call changed the task (-before +after):\n%s", diff)
	}
}

func fenceStale(h *harness) {
	h.add(task("a", nil))
	h.register("w")
	old := h.claimOne("w", "a")
	h.end("w", old, driver.Release)
	c := h.claimOne("w", "a") // the same worker, under a new token
	h.wantRefused("w", "a", old.Token)
	h.end("w", c, driver.Complete)
	h.wantRefused("w", "a", old.Token)
}

func fenceForeignToken(h *harness) {
	h.add(task("a", nil))
	h.register("w")
	c := h.claimOne("w", "a")
	for _, token := range []driver.Token{0, -1, c.Token - 1, c.Token + 1, 1 << 62} {
		h.wantRefused("w", "a", token)
	}
	h.end("w", c, driver.Complete)
}

func fenceOtherWorker(h *harness) {
	h.add(task("a", nil))
	h.register("w", "thief")
	c := h.claimOne("w", "a")
	h.wantRefused("thief", "a", c.Token)
	h.wantRefused("nobody", "a", c.Token)
	h.end("w", c, driver.Complete)
	h.wantRefused("thief", "a", c.Token)
}

func fenceNeverClaimed(h *harness) {
	h.add(task("a", nil))
	h.register("w")
	h.wantRefused("w", "a", 0)
	h.wantRefused("w", "a", 1)
}

func fenceUnknownTask(h *harness) {
	h.register("w")
	h.wantRefused("w", "nothing", 1)
}

func fenceRepeat(h *harness) {
	h.register("w")
	for _, o := range []driver.Outcome{driver.Complete, driver.Retry, driver.Snooze, driver.Release, driver.Discard, driver.CancelOutcome} {
		id := string(o)
		h.add(inQueue(id, []*driver.Task{task(id, nil)})...)
		c := h.claimOne("w", id, id)
		s := driver.Settlement{ID: id, Token: c.Token, Outcome: o, Delay: time.Hour, Error: "oops", Ran: time.Second}
		if o == driver.Complete {
			s.Result, s.ResultEncoding = []byte("1"), driver.EncodingJSON
		}
		h.endWith("w", s)
		before, totals := h.get(id), h.queue(id).Totals
		for range 3 {
			h.wantErr("repeat "+id, h.settle("w", s)[0], nil)
		}
		if diff := cmp.Diff(before, h.get(id)); diff != "" {
			h.Errorf("repeating %s changed the task (-before +after):\n%s", id, diff)
		}
		if diff := cmp.Diff(totals, h.queue(id).Totals); diff != "" {
			h.Errorf("repeating %s changed the totals (-before +after):\n%s", id, diff)
		}
	}
}

func fenceRepeatOther(h *harness) {
	h.add(task("a", nil))
	h.register("w")
	c := h.claimOne("w", "a")
	h.end("w", c, driver.Complete)
	before := h.get("a")
	h.wantErr("another outcome", h.settle("w", driver.Settlement{ID: "a", Token: c.Token, Outcome: driver.Discard})[0], nil)
	if diff := cmp.Diff(before, h.get("a")); diff != "" {
		h.Errorf("the task changed (-before +after):\n%s", diff)
	}
}

func fenceRepeatTooLate(h *harness) {
	h.add(task("a", nil))
	h.register("w", "x")
	old := h.claimOne("w", "a")
	h.end("w", old, driver.Release)
	c := h.claimOne("x", "a")
	h.wantRefused("w", "a", old.Token)
	h.end("x", c, driver.Retry)
	h.wantRefused("w", "a", old.Token)
}

func fenceRepeatRemoved(h *harness) {
	h.add(task("a", nil))
	h.register("w")
	c := h.claimOne("w", "a")
	h.end("w", c, driver.Complete)
	h.applyOK(driver.OpDelete, "a")
	h.wantRefused("w", "a", c.Token)
}

func fenceTwiceInCall(h *harness) {
	h.add(task("a", nil))
	h.register("w")
	c := h.claimOne("w", "a")
	errs := h.settle("w",
		driver.Settlement{ID: "a", Token: c.Token, Outcome: driver.Complete},
		driver.Settlement{ID: "a", Token: c.Token, Outcome: driver.Retry})
	if errs[0] != nil || errs[1] != nil {
		h.Errorf("got %v, want the first accepted and the second taken as its repetition", errs)
	}
	h.wantState(driver.Completed, "a")
	if n := len(h.get("a").Attempts); n != 1 {
		h.Errorf("the history has %d entries, want 1", n)
	}
}

func fenceLate(h *harness) {
	h.add(task("a", nil))
	h.register("w")
	c := h.claimOne("w", "a")
	h.advance(3 * lease)
	h.end("w", c, driver.Complete)
	h.wantState(driver.Completed, "a")
}

func fenceReport(h *harness) {
	h.add(task("a", nil))
	h.register("w", "x")
	old := h.claimOne("w", "a")
	errs, err := h.store.Report(h.ctx(), "w", []driver.Report{{ID: "a", Token: old.Token, Progress: &driver.Progress{Done: 1, Total: 2}}})
	h.must(err)
	h.must(errs[0])
	h.end("w", old, driver.Release)
	c := h.claimOne("x", "a")
	h.wantRefused("w", "a", old.Token)
	h.wantRefused("w", "a", c.Token)
	h.end("x", c, driver.Complete)
	errs, err = h.store.Report(h.ctx(), "x", []driver.Report{{ID: "a", Token: c.Token, Progress: &driver.Progress{Done: 2}}})
	h.must(err)
	h.wantErr("a report after the settlement", errs[0], driver.ErrLeaseLost)
}

func fenceRace(h *harness) {
	h.add(tasks("a", 20)...)
	h.register("w")
	outcomes := []driver.Outcome{driver.Complete, driver.Retry, driver.Snooze, driver.Discard, driver.CancelOutcome}
	for _, c := range h.claim("w", 20) {
		done := make(chan error, len(outcomes))
		for _, o := range outcomes {
			go func() {
				errs, err := driver.SettleErrors(h.store.Settle(h.limit, "w", []driver.Settlement{{ID: c.ID, Token: c.Token, Outcome: o, Delay: time.Hour, Error: string(o)}}))
				if err == nil {
					err = errs[0]
				}
				done <- err
			}()
		}
		for range outcomes {
			h.wantErr("settle", <-done, nil)
		}
		r := h.get(c.ID)
		if len(r.Attempts) != 1 {
			h.Fatalf("task %s has %d entries in its history, want 1", c.ID, len(r.Attempts))
		}
		want := map[driver.Outcome]driver.State{driver.Complete: driver.Completed, driver.Retry: driver.Retryable,
			driver.Snooze: driver.Scheduled, driver.Discard: driver.Discarded, driver.CancelOutcome: driver.Cancelled}
		if o := r.Attempts[0].Outcome; r.State != want[o] {
			h.Errorf("task %s is %s, its history says %s", c.ID, r.State, o)
		}
	}
}

func fenceMixed(h *harness) {
	h.add(tasks("a", 4)...)
	h.register("w")
	items := make([]driver.Settlement, 0, 6)
	for _, c := range h.claim("w", 4) {
		items = append(items, driver.Settlement{ID: c.ID, Token: c.Token, Outcome: driver.Complete})
	}
	items[1].Token += 5
	items[2].Outcome = "explode"
	items = append(items, driver.Settlement{ID: "nothing", Token: 1, Outcome: driver.Complete})
	errs := h.settle("w", items...)
	for i, want := range []error{nil, driver.ErrLeaseLost, driver.ErrInvalid, nil, driver.ErrLeaseLost} {
		h.wantErr(fmt.Sprintf("item %d", i), errs[i], want)
	}
	h.wantState(driver.Completed, items[0].ID, items[3].ID)
	h.wantState(driver.Active, items[1].ID, items[2].ID)
}
