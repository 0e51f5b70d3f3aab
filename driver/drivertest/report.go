package drivertest

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/waggleq/waggle/driver"
)

var reportCases = []testCase{
	{"progress is kept and replaced", reportProgress},
	{"a report without progress leaves it as it was", reportKeepsProgress},
	{"log lines are appended in order", reportLogs},
	{"log lines are capped to the newest", reportLogCap},
	{"a line that alone is too long is cut", reportLongLine},
	{"what is no number or no time is refused", reportInvalid},
	{"a long note is cut", reportLongNote},
	{"reports survive the settlement", reportSurvives},
	{"slices of a report are not retained", reportNotRetained},
	{"one refused item leaves the others of the call alone", reportMixed},
}

func (h *harness) report(worker string, items ...driver.Report) []error {
	h.Helper()
	errs, err := h.store.Report(h.ctx(), worker, items)
	h.must(err)
	if len(errs) != len(items) {
		h.Fatalf("Report of %d items returned %d errors", len(items), len(errs))
	}
	return errs
}

func (h *harness) reportOK(worker string, r driver.Report) {
	h.Helper()
	h.must(h.report(worker, r)[0])
}

// running stores a task and claims it.
func (h *harness) running(worker, id string) driver.Claim {
	h.Helper()
	h.add(task(id, nil))
	h.register(worker)
	return h.claimOne(worker, id)
}

func reportProgress(h *harness) {
	c := h.running("w", "a")
	if h.get("a").Progress != nil {
		h.Error("a task without reports has progress")
	}
	for _, want := range []driver.Progress{{Done: 1, Total: 3, Note: "first"}, {Done: 2.5, Total: 3}, {Done: 3}} {
		h.reportOK("w", driver.Report{ID: "a", Token: c.Token, Progress: &want})
		if diff := cmp.Diff(&want, h.get("a").Progress); diff != "" {
			h.Errorf("progress (-want +got):\n%s", diff)
		}
	}
	h.wantState(driver.Active, "a")
}

func reportInvalid(h *harness) {
	c := h.running("w", "a")
	h.reportOK("w", driver.Report{ID: "a", Token: c.Token, Progress: &driver.Progress{Done: 1, Total: 2}})
	before := h.get("a")
	for name, r := range map[string]driver.Report{
		"done is NaN":       {Progress: &driver.Progress{Done: math.NaN()}},
		"total is infinite": {Progress: &driver.Progress{Total: math.Inf(1)}},
		"done is -Inf":      {Progress: &driver.Progress{Done: math.Inf(-1), Total: 1}},
		"year 10000":        {Logs: []driver.LogLine{{Time: time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC), Message: "m"}}},
		"year 0":            {Logs: []driver.LogLine{{Time: time.Date(0, 1, 1, 0, 0, 0, 0, time.UTC), Message: "m"}}},
	} {
		r.ID, r.Token = "a", c.Token
		if r.Logs == nil {
			r.Logs = lines("l", 1, 0)
		}
		h.wantErr(name, h.report("w", r)[0], driver.ErrInvalid)
	}
	if diff := cmp.Diff(before, h.get("a"), equateEmpty); diff != "" {
		h.Errorf("a refused report changed the task (-want +got):\n%s", diff)
	}
}

func reportLongNote(h *harness) {
	c := h.running("w", "a")
	h.reportOK("w", driver.Report{ID: "a", Token: c.Token, Progress: &driver.Progress{Done: 1, Note: strings.Repeat("é\x00", driver.MaxErrorBytes)}})
	if n := len(h.get("a").Progress.Note); n > driver.MaxErrorBytes || n < driver.MaxErrorBytes/2 {
		h.Errorf("%d bytes of the note are kept", n)
	}
}

func reportKeepsProgress(h *harness) {
	c := h.running("w", "a")
	want := &driver.Progress{Done: 1, Total: 2, Note: "n"}
	h.reportOK("w", driver.Report{ID: "a", Token: c.Token, Progress: want})
	h.reportOK("w", driver.Report{ID: "a", Token: c.Token, Logs: []driver.LogLine{{Message: "m"}}})
	if diff := cmp.Diff(want, h.get("a").Progress); diff != "" {
		h.Errorf("progress (-want +got):\n%s", diff)
	}
}

func lines(prefix string, n, size int) []driver.LogLine {
	at := time.UnixMilli(1_800_000_000_000).UTC()
	list := make([]driver.LogLine, n)
	for i := range list {
		list[i] = driver.LogLine{Time: at.Add(time.Duration(i) * time.Millisecond), Level: "INFO",
			Message: fmt.Sprintf("%s-%04d %s", prefix, i, strings.Repeat("x", size)), Attrs: `{"k":"v"}`}
	}
	return list
}

func reportLogs(h *harness) {
	c := h.running("w", "a")
	first, second := lines("first", 3, 0), lines("second", 2, 0)
	h.reportOK("w", driver.Report{ID: "a", Token: c.Token, Logs: first})
	h.reportOK("w", driver.Report{ID: "a", Token: c.Token, Logs: second})
	if diff := cmp.Diff(slices.Concat(first, second), h.get("a").Logs); diff != "" {
		h.Errorf("log lines (-want +got):\n%s", diff)
	}
}

func reportLogCap(h *harness) {
	c := h.running("w", "a")
	var all, want []driver.LogLine
	for i := range 10 {
		batch := lines(fmt.Sprint("batch-", i), 20, 700)
		all = append(all, batch...)
		h.reportOK("w", driver.Report{ID: "a", Token: c.Token, Logs: batch})
		want = driver.AppendLogs(want, batch)
	}
	got := h.get("a").Logs
	if len(want) >= len(all) {
		h.Fatalf("the test writes too few lines: %d", len(all))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		h.Errorf("log lines (-want +got):\n%s", diff)
	}
}

func reportLongLine(h *harness) {
	c := h.running("w", "a")
	long := driver.LogLine{Time: time.UnixMilli(0).UTC(), Message: strings.Repeat("é", driver.MaxLogBytes)}
	h.reportOK("w", driver.Report{ID: "a", Token: c.Token, Logs: []driver.LogLine{long}})
	if diff := cmp.Diff(driver.AppendLogs(nil, []driver.LogLine{long}), h.get("a").Logs); diff != "" {
		h.Errorf("log lines differ (-want +got):\n%.300s", diff)
	}
}

func reportSurvives(h *harness) {
	c := h.running("w", "a")
	h.reportOK("w", driver.Report{ID: "a", Token: c.Token, Progress: &driver.Progress{Done: 1}, Logs: lines("l", 2, 0)})
	h.end("w", c, driver.Complete)
	if r := h.get("a"); r.Progress == nil || r.Progress.Done != 1 || len(r.Logs) != 2 {
		h.Errorf("after the settlement: progress %v, %d lines", r.Progress, len(r.Logs))
	}
}

func reportNotRetained(h *harness) {
	c := h.running("w", "a")
	p, logs := &driver.Progress{Done: 1, Note: "mine"}, lines("l", 2, 0)
	h.reportOK("w", driver.Report{ID: "a", Token: c.Token, Progress: p, Logs: logs})
	p.Note, logs[0].Message = "changed", "changed"
	r := h.get("a")
	r.Progress.Done, r.Logs[1].Message = 9, "changed"
	if r = h.get("a"); r.Progress.Note != "mine" || r.Progress.Done != 1 {
		h.Errorf("the stored progress changed to %+v", *r.Progress)
	}
	if diff := cmp.Diff(lines("l", 2, 0), r.Logs); diff != "" {
		h.Errorf("the stored lines changed (-want +got):\n%s", diff)
	}
}

func reportMixed(h *harness) {
	h.add(tasks("a", 2)...)
	h.register("w")
	claims := h.claim("w", 2)
	done := &driver.Progress{Done: 1}
	errs := h.report("w",
		driver.Report{ID: claims[0].ID, Token: claims[0].Token + 1, Progress: done},
		driver.Report{ID: "nothing", Token: 1, Progress: done},
		driver.Report{ID: claims[1].ID, Token: claims[1].Token, Progress: done})
	for i, want := range []error{driver.ErrLeaseLost, driver.ErrLeaseLost, nil} {
		h.wantErr(fmt.Sprint("item ", i), errs[i], want)
	}
	if h.get(claims[0].ID).Progress != nil || h.get(claims[1].ID).Progress == nil {
		h.Error("progress is not where it belongs")
	}
}

var heldCases = []testCase{
	{"Held returns all claims just as Fetch gave them", heldClaims},
	{"Held returns claims whose reply was lost", heldAfterLostReply},
	{"what was settled is not held any more", heldSettled},
	{"a worker that holds nothing gets nothing", heldNothing},
	{"a cancellation that was asked for shows in Held", heldCancel},
	{"a thousand claims and more are all held", heldMany},
}

func (h *harness) held(worker string) []driver.Claim {
	h.Helper()
	claims, err := h.store.Held(h.ctx(), worker)
	h.must(err)
	slices.SortFunc(claims, func(a, b driver.Claim) int { return strings.Compare(a.ID, b.ID) })
	return claims
}

func heldClaims(h *harness) {
	h.add(full("full"))
	h.add(inQueue("mail:eu", tasks("a", 3))...)
	h.register("w", "x")
	want := h.claim("w", 3, "mail:eu")
	h.claim("x", 1, "mail:eu")
	slices.SortFunc(want, func(a, b driver.Claim) int { return strings.Compare(a.ID, b.ID) })
	if diff := cmp.Diff(want, h.held("w"), equateEmpty); diff != "" {
		h.Errorf("held (-fetched +held):\n%s", diff)
	}
}

func heldAfterLostReply(h *harness) {
	h.add(tasks("a", 3)...)
	h.register("w")
	lossy := NewFaulty(h.store, &FaultPlan{Rules: []Rule{{Method: "Fetch", Fault: FailAfter, Count: 1}}})
	if _, err := lossy.Fetch(h.ctx(), request("w", 2)); err == nil {
		h.Fatal("the reply was not lost")
	}
	for _, c := range h.held("w") {
		h.end("w", c, driver.Complete)
	}
	if got := h.queue(driver.DefaultQueue).Counts; got[driver.Completed] != 2 || got[driver.Available] != 1 {
		h.Errorf("counts %v, want 2 completed and 1 available", got)
	}
}

func heldSettled(h *harness) {
	h.add(tasks("a", 6)...)
	h.register("w")
	for i, o := range []driver.Outcome{driver.Complete, driver.Retry, driver.Snooze, driver.Release, driver.Discard, driver.CancelOutcome} {
		claims := h.claim("w", 1)
		h.endWith("w", driver.Settlement{ID: claims[0].ID, Token: claims[0].Token, Outcome: o, Delay: time.Hour})
		if held := h.held("w"); len(held) != 0 {
			h.Errorf("after settlement %d (%s): %v", i, o, claimIDs(held))
		}
	}
}

func heldNothing(h *harness) {
	h.register("w")
	if held := h.held("w"); len(held) != 0 {
		h.Errorf("got %v", claimIDs(held))
	}
}

func heldCancel(h *harness) {
	h.running("w", "a")
	h.applyOK(driver.OpCancel, "a")
	if held := h.held("w"); len(held) != 1 || !held[0].CancelRequested {
		h.Errorf("got %+v", held)
	}
}

func heldMany(h *harness) {
	for i := range 12 {
		h.add(tasks(fmt.Sprint("b-", i), 100)...)
	}
	h.register("w")
	h.claim("w", 1000)
	h.claim("w", 1000)
	if n := len(h.held("w")); n != 1200 {
		h.Errorf("%d tasks are held, want 1200", n)
	}
}

var contextCases = []testCase{
	{"calls with an ended context return its error or their result", contextEnded},
	{"a context that ends during an Await ends it", contextAwait},
}

func contextEnded(h *harness) {
	h.add(task("a", nil))
	h.register("w")
	ctx, cancel := context.WithCancel(h.ctx())
	cancel()
	for _, c := range calls {
		if err := c.call(ctx, h.store); err != nil {
			h.wantErr(c.name, err, context.Canceled)
		}
	}
}

func contextAwait(h *harness) {
	h.register("w")
	for _, what := range []driver.AwaitFor{driver.ForWork, driver.ForControl} {
		ctx, cancel := context.WithCancel(h.ctx())
		done := make(chan error, 1)
		go func() {
			done <- h.store.Await(ctx, driver.AwaitRequest{Worker: "w", For: what, Queues: []string{"default"}, Max: 2 * patience})
		}()
		cancel()
		select {
		case err := <-done:
			h.wantErr("await", err, context.Canceled)
		case <-time.After(patience):
			h.Fatal("Await did not return")
		}
	}
}
