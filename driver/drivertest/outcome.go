package drivertest

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/waggleq/waggle/driver"
)

var outcomeCases = []testCase{
	{"every outcome leads to its state, with and without a cancellation asked for", outcomeTable},
	{"failures up to MaxAttempts discard the task with that reason", outcomeMaxAttempts},
	{"a settlement tells the state that it has led to, and a repeat the one of now", outcomeTold},
	{"a settlement's own MaxAttempts takes the place of the task's, in both directions", outcomeOwnMaxAttempts},
	{"a snooze spends no attempt", func(h *harness) { outcomeFree(h, driver.Snooze) }},
	{"a release spends no attempt", func(h *harness) { outcomeFree(h, driver.Release) }},
	{"a retry without a delay is due at once", outcomeRetryNow},
	{"a snooze without a delay is due at once", outcomeSnoozeNow},
	{"bad settlements are refused item by item and change nothing", outcomeInvalid},
	{"a result is kept with a completed task", outcomeResult},
	{"a result of the largest size is kept", outcomeLargestResult},
	{"a result is kept with no other outcome", outcomeNoResult},
	{"the history tells each attempt's worker, host, build, times and error", outcomeHistory},
	{"the history tells which attempt discarded the task, and why", outcomeHistoryEnd},
	{"a release of what had not begun, and one by unregistering, are not in the history", outcomeUnbegun},
	{"long errors are cut, bad bytes replaced", outcomeLongError},
	{"the history keeps the first 50 and the newest 50 attempts", outcomeHistoryCap},
	{"snoozes leave failures in the history, and those in a row are one entry", outcomeSnoozesFold},
	{"a task that ended tells when and gives no more work", outcomeEnded},
	{"slices of a settlement are not retained", outcomeNotRetained},
	{"a settlement of nothing is no error", outcomeNothing},
	{"a full life counts once in the totals", outcomeTotals},
}

type outcomeCase struct {
	outcome driver.Outcome
	state   driver.State
	reason  driver.Reason
	attempt int
}

var plainOutcomes = []outcomeCase{
	{driver.Complete, driver.Completed, "", 1},
	{driver.Retry, driver.Retryable, "", 1},
	{driver.Snooze, driver.Scheduled, "", 0},
	{driver.Release, driver.Available, "", 0},
	{driver.Discard, driver.Discarded, driver.ReasonHandler, 1},
	{driver.CancelOutcome, driver.Cancelled, driver.ReasonHandler, 1},
}

func outcomeTable(h *harness) {
	h.register("w")
	for _, cancel := range []bool{false, true} {
		for _, c := range plainOutcomes {
			id := fmt.Sprintf("%s-%v", c.outcome, cancel)
			h.add(inQueue(id, []*driver.Task{task(id, nil)})...)
			claim := h.claimOne("w", id, id)
			if cancel {
				h.applyOK(driver.OpCancel, id)
				if c.outcome != driver.Complete && c.outcome != driver.Discard {
					c.state, c.reason = driver.Cancelled, driver.ReasonRequested
				}
			}
			item := driver.Settlement{ID: id, Token: claim.Token, Outcome: c.outcome, Delay: time.Hour, Error: "oops"}
			first, repeat := h.settleResults("w", item)[0], h.settleResults("w", item)[0]
			r := h.get(id)
			if want := (driver.SettleResult{State: r.State, Reason: r.Reason}); first != want || repeat != want {
				h.Errorf("%s: Settle told %+v, and then %+v; the task is %s (%s)", id, first, repeat, r.State, r.Reason)
			}
			if r.State != c.state || r.State.Ended() && !h.fits(r.Reason, c.reason, cancel) || !r.State.Ended() && r.Reason != "" || r.CancelRequested {
				h.Errorf("%s: the task is %s (%s), cancel requested %v; want %s (%s)", id, r.State, r.Reason, r.CancelRequested, c.state, c.reason)
			}
			if !cancel && r.Attempt != c.attempt {
				h.Errorf("%s: attempt %d, want %d", id, r.Attempt, c.attempt)
			}
			if len(r.Attempts) != 1 || r.Attempts[0].Outcome != c.outcome {
				h.Errorf("%s: the history is %+v", id, r.Attempts)
			}
		}
	}
}

// fits compares reasons. A handler that cancels a task whose cancellation was asked for may be given either reason.
func (h *harness) fits(got, want driver.Reason, cancel bool) bool {
	return got == want || cancel && want == driver.ReasonRequested && got == driver.ReasonHandler
}

func outcomeMaxAttempts(h *harness) {
	h.add(task("a", func(t *driver.Task) { t.MaxAttempts = 3 }))
	h.register("w")
	for i := 1; i <= 3; i++ {
		c := h.claimOne("w", "a")
		if c.Attempt != i {
			h.Errorf("claim %d is attempt %d", i, c.Attempt)
		}
		h.endWith("w", driver.Settlement{ID: "a", Token: c.Token, Outcome: driver.Retry, Error: fmt.Sprint("failure ", i)})
	}
	r := h.get("a")
	if r.State != driver.Discarded || r.Reason != driver.ReasonAttempts || r.Attempt != 3 || len(r.Attempts) != 3 || r.EndedAt.IsZero() {
		h.Errorf("the task is %s (%s), attempt %d, %d entries, ended %v", r.State, r.Reason, r.Attempt, len(r.Attempts), r.EndedAt)
	}
	if t := h.queue(driver.DefaultQueue).Totals; t.Failed != 3 || t.Discarded != 1 {
		h.Errorf("totals %+v, want 3 failed and 1 discarded", t)
	}
}

func outcomeOwnMaxAttempts(h *harness) {
	h.add(task("fewer", func(t *driver.Task) { t.MaxAttempts = 5 }), task("more", func(t *driver.Task) { t.MaxAttempts = 1 }))
	h.register("w")
	for i := 1; i <= 4; i++ {
		for _, c := range h.claim("w", 2) {
			most := map[string]int{"fewer": 2, "more": 4}[c.ID]
			want := driver.SettleResult{State: driver.Retryable}
			if i == most {
				want = driver.SettleResult{State: driver.Discarded, Reason: driver.ReasonAttempts}
			}
			if got := h.settleResults("w", driver.Settlement{ID: c.ID, Token: c.Token, Outcome: driver.Retry, MaxAttempts: most})[0]; got != want {
				h.Errorf("failure %d of %s has led to %+v, want %+v", i, c.ID, got, want)
			}
		}
	}
	for id, want := range map[string]int{"fewer": 2, "more": 4} {
		r := h.get(id)
		if n := len(r.Attempts); r.State != driver.Discarded || n != want || r.Attempts[n-1].Reason != driver.ReasonAttempts {
			h.Errorf("%s is %s after %+v, want %d attempts, the last with the reason", id, r.State, r.Attempts, want)
		}
	}
	h.add(task("bad", nil))
	c := h.claimOne("w", "bad")
	for _, n := range []int{-1, driver.MaxAttemptsCap + 1} {
		h.wantErr("that number", h.settle("w", driver.Settlement{ID: "bad", Token: c.Token, Outcome: driver.Retry, MaxAttempts: n})[0], driver.ErrInvalid)
	}
}

func outcomeTold(h *harness) {
	h.register("w")
	told := func(item driver.Settlement, want driver.SettleResult) {
		h.Helper()
		if got := h.settleResults("w", item)[0]; got != want {
			h.Errorf("the settlement %s of %s is told %+v, want %+v", item.Outcome, item.ID, got, want)
		}
	}
	h.add(task("last", func(t *driver.Task) { t.MaxAttempts = 2 }))
	for _, want := range []driver.SettleResult{{State: driver.Retryable}, {State: driver.Discarded, Reason: driver.ReasonAttempts}} {
		c := h.claimOne("w", "last")
		item := driver.Settlement{ID: "last", Token: c.Token, Outcome: driver.Retry, Error: "oops"}
		told(item, want)
		if want.State.Ended() {
			told(item, want)
		}
	}
	h.add(task("again", nil))
	c := h.claimOne("w", "again")
	item := driver.Settlement{ID: "again", Token: c.Token, Outcome: driver.Complete}
	told(item, driver.SettleResult{State: driver.Completed})
	told(item, driver.SettleResult{State: driver.Completed})
	h.applyOK(driver.OpRetry, "again")
	told(item, driver.SettleResult{State: driver.Available})
	h.applyOK(driver.OpCancel, "again")
	told(item, driver.SettleResult{State: driver.Cancelled, Reason: driver.ReasonRequested})
}

func outcomeFree(h *harness, o driver.Outcome) {
	h.add(task("a", func(t *driver.Task) { t.MaxAttempts = 1 }))
	h.register("w")
	for range 5 {
		c := h.claimOne("w", "a")
		if c.Attempt != 1 || c.Crashes != 0 {
			h.Fatalf("attempt %d, %d crashes, want 1 and 0", c.Attempt, c.Crashes)
		}
		h.endWith("w", driver.Settlement{ID: "a", Token: c.Token, Outcome: o, Delay: time.Minute})
		if r := h.get("a"); r.Attempt != 0 || r.Reason != "" {
			h.Errorf("the task is %s (%s), attempt %d; want attempt 0", r.State, r.Reason, r.Attempt)
		}
		h.advance(time.Minute)
	}
	runs := 0
	for _, a := range h.get("a").Attempts {
		runs += max(a.Count, 1)
	}
	if runs != 5 {
		h.Errorf("the history has %d runs, want 5", runs)
	}
	for i, a := range h.get("a").Attempts {
		if a.Number != 1 {
			h.Errorf("entry %d counts as attempt %d, want 1", i, a.Number)
		}
	}
}

func outcomeRetryNow(h *harness) {
	h.add(task("a", nil))
	h.register("w")
	h.end("w", h.claimOne("w", "a"), driver.Retry)
	if c := h.claimOne("w", "a"); c.Attempt != 2 {
		h.Errorf("the next claim is attempt %d, want 2", c.Attempt)
	}
}

func outcomeSnoozeNow(h *harness) {
	h.add(task("a", nil))
	h.register("w")
	h.end("w", h.claimOne("w", "a"), driver.Snooze)
	h.claimOne("w", "a")
}

func outcomeInvalid(h *harness) {
	h.add(task("a", nil))
	h.register("w")
	c := h.claimOne("w", "a")
	before := h.get("a")
	for name, edit := range map[string]func(*driver.Settlement){
		"no outcome":       func(s *driver.Settlement) { s.Outcome = "" },
		"unknown outcome":  func(s *driver.Settlement) { s.Outcome = "explode" },
		"crash":            func(s *driver.Settlement) { s.Outcome = driver.Crash },
		"negative delay":   func(s *driver.Settlement) { s.Delay = -1 },
		"delay of ages":    func(s *driver.Settlement) { s.Delay = 101 * 365 * 24 * time.Hour },
		"negative run":     func(s *driver.Settlement) { s.Ran = -1 },
		"result too large": func(s *driver.Settlement) { s.Result = make([]byte, driver.MaxResultBytes+1) },
		"broken JSON":      func(s *driver.Settlement) { s.Result, s.ResultEncoding = []byte("{"), driver.EncodingJSON },
		"unknown encoding": func(s *driver.Settlement) { s.Result, s.ResultEncoding = []byte("1"), "xml" },
	} {
		s := driver.Settlement{ID: "a", Token: c.Token, Outcome: driver.Retry, ResultEncoding: driver.EncodingRaw}
		edit(&s)
		h.wantErr(name, h.settle("w", s)[0], driver.ErrInvalid)
	}
	if diff := cmp.Diff(before, h.get("a")); diff != "" {
		h.Errorf("refused settlements changed the task (-before +after):\n%s", diff)
	}
	h.end("w", c, driver.Complete)
}

func (h *harness) complete(id string, result []byte, e driver.Encoding) *driver.Record {
	h.Helper()
	h.add(task(id, nil))
	c := h.claimOne("w", id)
	h.endWith("w", driver.Settlement{ID: id, Token: c.Token, Outcome: driver.Complete, Result: result, ResultEncoding: e})
	return h.get(id)
}

func outcomeResult(h *harness) {
	h.register("w")
	for i, c := range []struct {
		result   []byte
		encoding driver.Encoding
	}{{[]byte(`{"ok":true}`), driver.EncodingJSON}, {[]byte{0, 0xff, 1}, driver.EncodingRaw}} {
		r := h.complete(fmt.Sprint("r-", i), c.result, c.encoding)
		if string(r.Result) != string(c.result) || r.ResultEncoding != c.encoding {
			h.Errorf("the result is %q (%s), want %q (%s)", r.Result, r.ResultEncoding, c.result, c.encoding)
		}
	}
	if r := h.complete("none", nil, ""); len(r.Result) != 0 {
		h.Errorf("a task without a result has %q", r.Result)
	}
}

func outcomeLargestResult(h *harness) {
	h.register("w")
	result := []byte(strings.Repeat("r", driver.MaxResultBytes))
	if r := h.complete("a", result, driver.EncodingRaw); !bytes.Equal(r.Result, result) {
		h.Errorf("%d bytes are kept, want %d", len(r.Result), len(result))
	}
}

func outcomeNoResult(h *harness) {
	h.register("w")
	for _, o := range []driver.Outcome{driver.Retry, driver.Snooze, driver.Release, driver.Discard, driver.CancelOutcome} {
		id := string(o)
		h.add(inQueue(id, []*driver.Task{task(id, nil)})...)
		c := h.claimOne("w", id, id)
		h.endWith("w", driver.Settlement{ID: id, Token: c.Token, Outcome: o, Delay: time.Hour, Result: []byte("1"), ResultEncoding: driver.EncodingJSON})
		if r := h.get(id); len(r.Result) != 0 {
			h.Errorf("the %s task has the result %q", r.State, r.Result)
		}
	}
}

func outcomeHistory(h *harness) {
	h.add(task("a", nil))
	h.register("w")
	c := h.claimOne("w", "a")
	h.advance(time.Minute)
	before := h.now()
	h.endWith("w", driver.Settlement{ID: "a", Token: c.Token, Outcome: driver.Retry, Error: "it broke", Stack: "main.go:1", Ran: 10 * time.Second})
	after, r := h.now(), h.get("a")
	if len(r.Attempts) != 1 {
		h.Fatalf("the history has %d entries, want 1", len(r.Attempts))
	}
	got := r.Attempts[0]
	want := driver.Attempt{Number: 1, Outcome: driver.Retry, Worker: "w", Host: "host-w", Build: "v1",
		Started: got.Ended.Add(-10 * time.Second), Ended: got.Ended, Error: "it broke", Stack: "main.go:1"}
	if diff := cmp.Diff(want, got); diff != "" {
		h.Errorf("history entry (-want +got):\n%s", diff)
	}
	if got.Ended.Before(before) || got.Ended.After(after) {
		h.Errorf("ended at %v, settled between %v and %v", got.Ended, before, after)
	}
}

func outcomeHistoryEnd(h *harness) {
	h.register("w")
	for _, c := range []struct {
		id   string
		ends []driver.Outcome
		want []driver.Attempt
	}{
		{"failed", []driver.Outcome{driver.Retry, driver.Retry}, []driver.Attempt{{Outcome: driver.Retry}, {Outcome: driver.Discard, Reason: driver.ReasonAttempts}}},
		{"given-up", []driver.Outcome{driver.Retry, driver.Discard}, []driver.Attempt{{Outcome: driver.Retry}, {Outcome: driver.Discard, Reason: driver.ReasonHandler}}},
		{"cancelled", []driver.Outcome{driver.Retry, driver.CancelOutcome}, []driver.Attempt{{Outcome: driver.Retry}, {Outcome: driver.CancelOutcome}}},
	} {
		h.add(task(c.id, func(t *driver.Task) { t.MaxAttempts = 2 }))
		for _, o := range c.ends {
			h.end("w", h.claimOne("w", c.id), o)
		}
		h.wantEndings(c.id, c.want)
	}
	h.add(task("crashed", func(t *driver.Task) { t.CrashLimit = 2 }))
	h.claimOne("w", "crashed")
	h.lose()
	h.register("x")
	h.claimOne("x", "crashed")
	h.lose()
	h.wantEndings("crashed", []driver.Attempt{{Outcome: driver.Crash}, {Outcome: driver.Crash, Reason: driver.ReasonCrashes}})
}

// wantEndings compares outcome and reason of the attempts in a task's history.
func (h *harness) wantEndings(id string, want []driver.Attempt) {
	var got []driver.Attempt
	for _, a := range h.get(id).Attempts {
		got = append(got, driver.Attempt{Outcome: a.Outcome, Reason: a.Reason})
	}
	if diff := cmp.Diff(want, got); diff != "" {
		h.Errorf("history of %s (-want +got):\n%s", id, diff)
	}
}

func outcomeUnbegun(h *harness) {
	h.add(task("a", nil))
	h.register("w")
	for range 2 {
		c := h.claimOne("w", "a")
		h.endWith("w", driver.Settlement{ID: "a", Token: c.Token, Outcome: driver.Release, Unbegun: true})
		if r := h.get("a"); r.State != driver.Available || r.Attempt != 0 || len(r.Attempts) != 0 {
			h.Errorf("the task is %s, attempt %d, with the history %+v", r.State, r.Attempt, r.Attempts)
		}
	}
	h.claimOne("w", "a")
	h.must(h.store.Unregister(h.ctx(), "w"))
	if r := h.get("a"); r.Attempt != 0 || len(r.Attempts) != 0 {
		h.Errorf("its worker unregistered, and it has attempt %d and the history %+v", r.Attempt, r.Attempts)
	}
	h.register("x")
	c := h.claimOne("x", "a")
	h.endWith("x", driver.Settlement{ID: "a", Token: c.Token, Outcome: driver.Retry, Delay: time.Hour, Unbegun: true})
	if r := h.get("a"); len(r.Attempts) != 1 || r.Attempt != 1 {
		h.Errorf("a failure is told whatever is said: attempt %d, history %+v", r.Attempt, r.Attempts)
	}
}

func outcomeLongError(h *harness) {
	h.add(task("a", nil))
	h.register("w")
	long := strings.Repeat("é", driver.MaxErrorBytes)
	c := h.claimOne("w", "a")
	h.endWith("w", driver.Settlement{ID: "a", Token: c.Token, Outcome: driver.Retry, Error: long, Stack: "bad \xff\x00 " + long})
	got := h.get("a").Attempts[0]
	if want := driver.CutText(long, driver.MaxErrorBytes); got.Error != want {
		h.Errorf("the kept error has %d bytes, want %d", len(got.Error), len(want))
	}
	if want := driver.CutText("bad \xff\x00 "+long, driver.MaxErrorBytes); got.Stack != want {
		h.Errorf("the kept stack has %d bytes, want %d", len(got.Stack), len(want))
	}
}

func outcomeHistoryCap(h *harness) {
	h.add(task("a", func(t *driver.Task) { t.MaxAttempts = 1000 }))
	h.register("w")
	const n = driver.MaxHistory + 7
	for i := range n {
		c := h.claimOne("w", "a")
		h.endWith("w", driver.Settlement{ID: "a", Token: c.Token, Outcome: driver.Retry, Error: fmt.Sprint(i + 1)})
	}
	got := h.get("a").Attempts
	if len(got) != driver.MaxHistory {
		h.Fatalf("the history has %d entries, want %d", len(got), driver.MaxHistory)
	}
	for i, a := range got {
		want := i + 1
		if i >= driver.MaxHistory/2 {
			want = n - driver.MaxHistory + i + 1
		}
		if a.Number != want || a.Error != fmt.Sprint(want) {
			h.Fatalf("entry %d is attempt %d (%s), want %d", i, a.Number, a.Error, want)
		}
	}
}

func outcomeSnoozesFold(h *harness) {
	h.add(task("a", func(t *driver.Task) { t.MaxAttempts = 1000 }))
	h.register("w")
	run := func(o driver.Outcome, text string) driver.Attempt {
		c := h.claimOne("w", "a")
		h.endWith("w", driver.Settlement{ID: "a", Token: c.Token, Outcome: o, Error: text, Ran: time.Millisecond})
		list := h.get("a").Attempts
		return list[len(list)-1]
	}
	var failures []string
	for i := range 3 {
		failures = append(failures, fmt.Sprint("failure ", i+1))
		run(driver.Retry, failures[i])
	}
	first := run(driver.Snooze, "")
	if first.Count != 0 {
		h.Errorf("one snooze has the count %d, want 0", first.Count)
	}
	var last driver.Attempt
	for range 139 {
		last = run(driver.Snooze, "")
	}
	if last.Count != 140 || !last.Started.Equal(first.Started) || last.Ended.Before(first.Ended) {
		h.Errorf("140 snoozes: the entry counts %d, from %v to %v; the first ran from %v to %v",
			last.Count, last.Started, last.Ended, first.Started, first.Ended)
	}
	for range driver.MaxHistory {
		run(driver.Snooze, "")
		run(driver.Release, "")
	}
	got := h.get("a").Attempts
	if len(got) != driver.MaxHistory {
		h.Fatalf("the history has %d entries, want %d", len(got), driver.MaxHistory)
	}
	var kept []string
	for _, a := range got {
		if a.Outcome == driver.Retry {
			kept = append(kept, a.Error)
		}
	}
	if !slices.Equal(kept, failures) {
		h.Errorf("the errors kept are %q, want %q", kept, failures)
	}
}

func outcomeEnded(h *harness) {
	h.register("w")
	for _, o := range []driver.Outcome{driver.Complete, driver.Discard, driver.CancelOutcome} {
		before := h.now()
		h.add(task(string(o), nil))
		h.end("w", h.claimOne("w", string(o)), o)
		if r := h.get(string(o)); r.EndedAt.Before(before) || r.EndedAt.After(h.now()) || r.Worker != "w" {
			h.Errorf("%s: ended at %v by %q", o, r.EndedAt, r.Worker)
		}
	}
	h.advance(time.Minute)
	if got := h.claim("w", 10); len(got) != 0 {
		h.Errorf("ended tasks were given: %v", claimIDs(got))
	}
}

func outcomeNotRetained(h *harness) {
	h.add(task("a", nil))
	h.register("w")
	c := h.claimOne("w", "a")
	items := []driver.Settlement{{ID: "a", Token: c.Token, Outcome: driver.Complete, Result: []byte("1234"), ResultEncoding: driver.EncodingJSON}}
	keep := slices.Clone(items[0].Result)
	h.must(h.settle("w", items...)[0])
	items[0].Result[0] = 'X'
	if r := h.get("a"); string(r.Result) != string(keep) {
		h.Errorf("changing the caller's result changed the store: %q", r.Result)
	}
	h.get("a").Result[0] = 'Y'
	if r := h.get("a"); string(r.Result) != string(keep) {
		h.Errorf("changing a returned result changed the store: %q", r.Result)
	}
}

func outcomeNothing(h *harness) {
	h.register("w")
	if errs := h.settle("w"); len(errs) != 0 {
		h.Errorf("got %v", errs)
	}
}

func outcomeTotals(h *harness) {
	h.add(task("a", nil))
	h.register("w")
	h.end("w", h.claimOne("w", "a"), driver.Retry)
	h.end("w", h.claimOne("w", "a"), driver.Release)
	h.end("w", h.claimOne("w", "a"), driver.Discard)
	h.applyOK(driver.OpRetry, "a")
	h.claimOne("w", "a")
	h.lose()
	h.register("x")
	h.end("x", h.claimOne("x", "a"), driver.Complete)
	want := driver.Totals{Enqueued: 1, Retried: 1, Completed: 1, Discarded: 1, Failed: 1, Crashed: 1}
	if diff := cmp.Diff(want, h.queue(driver.DefaultQueue).Totals); diff != "" {
		h.Errorf("totals (-want +got):\n%s", diff)
	}
}
