package drivertest

import (
	"fmt"
	"slices"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/waggleq/waggle/driver"
)

var eventCases = []testCase{
	{"a task's life is told in order", eventsOfLife},
	{"the ways that lead off the straight life are told", eventsOfDetours},
	{"workers that join, leave and are lost are told", eventsOfWorkers},
	{"changes of a queue's configuration are told", eventsOfQueues},
	{"an event carries time, queue, type and worker", eventsFields},
	{"the end of a task as discarded or cancelled is told with its reason, and no other event has one", eventsReason},
	{"Max bounds a page and the cursor goes on from it", eventsPages},
	{"now is the cursor behind the newest event", eventsFromNow},
	{"without events the cursor stays", eventsCursorStays},
	{"a waiting reader is woken by an event", eventsWait},
	{"a reader that waits in vain gets an empty page", eventsWaitVain},
	{"a reader that is overtaken by the log's bound sees a gap", eventsGap},
	{"a refused call makes no event", eventsRefused},
	{"an event is visible no earlier than its change", eventsNotEarlier},
	{"events of another handle are read too", eventsOtherHandle},
}

func (h *harness) events(q driver.EventQuery) *driver.EventPage {
	h.Helper()
	page, err := h.store.Events(h.ctx(), q)
	h.must(err)
	return page
}

// log returns all events after a cursor, as "kind id", and the cursor behind them.
func (h *harness) log(after string) ([]string, string) {
	h.Helper()
	var list []string
	for range 1000 {
		page := h.events(driver.EventQuery{After: after})
		if page.Gap {
			h.Error("the log has a gap")
		}
		for _, e := range page.Events {
			list = append(list, string(e.Kind)+" "+e.ID)
		}
		if len(page.Events) == 0 {
			return list, page.Next
		}
		after = page.Next
	}
	h.Fatal("the log has no end")
	return nil, ""
}

// kindsOf returns the kinds of a task's events.
func kindsOf(log []string, id string) []string {
	var kinds []string
	for _, e := range log {
		var kind, of string
		if _, err := fmt.Sscan(e, &kind, &of); err == nil && of == id {
			kinds = append(kinds, kind)
		}
	}
	return kinds
}

func (h *harness) wantKinds(id string, want ...string) {
	h.Helper()
	log, _ := h.log("")
	if diff := cmp.Diff(want, kindsOf(log, id)); diff != "" {
		h.Errorf("events of %s (-want +got):\n%s", id, diff)
	}
}

func eventsOfLife(h *harness) {
	h.add(task("a", func(t *driver.Task) { t.Delay = time.Minute }))
	h.register("w")
	h.advance(time.Minute)
	c := h.claimOne("w", "a")
	h.reportOK("w", driver.Report{ID: "a", Token: c.Token, Progress: &driver.Progress{Done: 1}})
	h.end("w", c, driver.Retry)
	h.end("w", h.claimOne("w", "a"), driver.Complete)
	h.wantKinds("a", "scheduled", "available", "active", "progress", "retryable", "available", "active", "completed")
}

func eventsOfDetours(h *harness) {
	h.register("w")
	h.add(task("held", func(t *driver.Task) { t.Hold = true }))
	h.applyOK(driver.OpRun, "held")
	h.end("w", h.claimOne("w", "held"), driver.Release)
	h.end("w", h.claimOne("w", "held"), driver.Discard)
	h.applyOK(driver.OpRetry, "held")
	h.applyOK(driver.OpDelete, "held")
	h.wantKinds("held", "pending", "available", "active", "available", "active", "discarded", "available", "deleted")

	h.add(task("called-off", nil))
	h.applyOK(driver.OpCancel, "called-off")
	h.wantKinds("called-off", "available", "cancelled")

	h.add(task("stale", func(t *driver.Task) { t.ExpiresIn = time.Minute }))
	h.advance(2 * time.Minute)
	h.maintain()
	h.wantKinds("stale", "available", "discarded")

	h.add(task("crashed", nil))
	h.claimOne("w", "crashed")
	h.lose()
	h.wantKinds("crashed", "available", "active", "available")
}

func eventsOfWorkers(h *harness) {
	h.register("a", "b")
	h.must(h.store.Unregister(h.ctx(), "a"))
	h.lose()
	var got []string
	for _, e := range h.events(driver.EventQuery{}).Events {
		got = append(got, string(e.Kind)+" "+e.Worker)
	}
	if diff := cmp.Diff([]string{"worker_joined a", "worker_joined b", "worker_left a", "worker_lost b"}, got); diff != "" {
		h.Errorf("events (-want +got):\n%s", diff)
	}
}

func eventsOfQueues(h *harness) {
	h.setQueue("q", driver.QueuePatch{Paused: new(true)})
	page := h.events(driver.EventQuery{})
	if n := len(page.Events); n != 1 || page.Events[0].Kind != driver.EventQueueChanged || page.Events[0].Queue != "q" {
		h.Errorf("got %+v, want one change of q", page.Events)
	}
}

func eventsFields(h *harness) {
	before := h.now()
	h.add(task("a", func(t *driver.Task) { t.Queue, t.Type = "mail", "send" }))
	h.register("w")
	c := h.claimOne("w", "a", "mail")
	h.end("w", c, driver.Complete)
	after, seen := h.now(), 0
	for _, e := range h.events(driver.EventQuery{}).Events {
		if e.Time.Before(before) || e.Time.After(after) || e.Time.Location() != time.UTC {
			h.Errorf("%s: time %v, want between %v and %v", e.Kind, e.Time, before, after)
		}
		if e.ID == "" {
			continue
		}
		seen++
		if e.Queue != "mail" || e.Type != "send" || e.Kind == "active" && e.Worker != "w" {
			h.Errorf("got %+v", e)
		}
	}
	if seen != 3 {
		h.Errorf("%d events of the task, want 3", seen)
	}
}

func eventsReason(h *harness) {
	h.register("w")
	h.add(
		task("failed", func(t *driver.Task) { t.MaxAttempts = 1 }), task("given-up", nil), task("called-off", nil), task("asked", nil),
		task("done", nil), task("again", nil), task("stale", func(t *driver.Task) { t.Queue, t.ExpiresIn = "other", time.Minute }),
	)
	outcomes := map[string]driver.Outcome{"failed": driver.Retry, "given-up": driver.Discard, "called-off": driver.CancelOutcome,
		"asked": driver.Release, "done": driver.Complete, "again": driver.Retry}
	var items []driver.Settlement
	for _, c := range h.claim("w", 10) {
		items = append(items, driver.Settlement{ID: c.ID, Token: c.Token, Outcome: outcomes[c.ID]})
	}
	h.applyOK(driver.OpCancel, "asked")
	h.settle("w", items...)
	h.applyOK(driver.OpCancel, "again")
	h.applyOK(driver.OpRetry, "given-up")
	h.advance(2 * time.Minute)
	h.maintain()
	want := map[string]driver.Reason{
		"discarded failed": driver.ReasonAttempts, "discarded given-up": driver.ReasonHandler, "discarded stale": driver.ReasonExpired,
		"cancelled called-off": driver.ReasonHandler, "cancelled asked": driver.ReasonRequested, "cancelled again": driver.ReasonRequested,
	}
	got := map[string]driver.Reason{}
	for _, e := range h.events(driver.EventQuery{}).Events {
		if e.Reason != "" {
			got[string(e.Kind)+" "+e.ID] = e.Reason
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		h.Errorf("reasons of events (-want +got):\n%s", diff)
	}
}

func eventsPages(h *harness) {
	h.add(tasks("a", 25)...)
	after, got := "", []string(nil)
	for range 10 {
		page := h.events(driver.EventQuery{After: after, Max: 10})
		if len(page.Events) > 10 || page.Gap {
			h.Errorf("a page of 10 has %d events, gap %v", len(page.Events), page.Gap)
		}
		for _, e := range page.Events {
			got = append(got, e.ID)
		}
		after = page.Next
	}
	want := idsOf(tasks("a", 25))
	if !h.caps.Ordered {
		slices.Sort(got)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		h.Errorf("events (-want +got):\n%s", diff)
	}
}

func eventsFromNow(h *harness) {
	h.add(task("old", nil))
	page := h.events(driver.EventQuery{After: driver.EventsFromNow})
	if len(page.Events) != 0 || page.Next == "" || page.Next == driver.EventsFromNow || page.Gap {
		h.Errorf("got %+v, want no events and a cursor", page)
	}
	h.add(task("new", nil))
	if log, _ := h.log(page.Next); len(log) != 1 || log[0] != "available new" {
		h.Errorf("after it: %v, want the new task's event alone", log)
	}
}

func eventsCursorStays(h *harness) {
	h.add(task("a", nil))
	_, end := h.log("")
	page := h.events(driver.EventQuery{After: end})
	if len(page.Events) != 0 || page.Gap {
		h.Errorf("got %+v", page)
	}
	h.add(task("b", nil))
	if log, _ := h.log(page.Next); len(log) != 1 || log[0] != "available b" {
		h.Errorf("got %v, want the event of b alone", log)
	}
	for name, cursor := range map[string]string{"foreign": "no cursor of mine", "NUL": "\x00"} {
		if _, err := h.store.Events(h.ctx(), driver.EventQuery{After: cursor}); err == nil {
			h.Errorf("a %s cursor is accepted", name)
		} else {
			h.wantErr(name+" cursor", err, driver.ErrInvalid)
		}
	}
}

func eventsWait(h *harness) {
	for _, after := range []string{driver.EventsFromNow, h.events(driver.EventQuery{After: driver.EventsFromNow}).Next} {
		done := make(chan *driver.EventPage, 1)
		go func() {
			page, err := h.store.Events(h.limit, driver.EventQuery{After: after, Wait: 2 * patience})
			if err != nil {
				h.Errorf("events: %v", err)
			}
			done <- page
		}()
		h.wantEventPage(done)
	}
}

// wantEventPage makes events until the reader has one: whether it waits already can't be seen from here.
func (h *harness) wantEventPage(done <-chan *driver.EventPage) {
	h.Helper()
	timeout := time.After(patience)
	for {
		h.add(&driver.Task{Type: "t"})
		select {
		case page := <-done:
			if page == nil || len(page.Events) == 0 || page.Events[0].Kind != "available" {
				h.Errorf("got %+v, want the event", page)
			}
			return
		case <-timeout:
			h.Fatal("the waiting reader was not woken")
		case <-time.After(time.Millisecond):
		}
	}
}

func eventsWaitVain(h *harness) {
	page := h.events(driver.EventQuery{After: driver.EventsFromNow, Wait: moment})
	if len(page.Events) != 0 || page.Next == "" {
		h.Errorf("got %+v, want an empty page with a cursor", page)
	}
}

func eventsGap(h *harness) {
	h.add(task("first", nil))
	start := h.events(driver.EventQuery{Max: 1}).Next
	for round := range 1000 {
		ids := h.add(tasks(fmt.Sprint("r-", round), 500)...)
		h.applyOK(driver.OpDelete, ids...)
		page := h.events(driver.EventQuery{After: start, Max: 1})
		if len(page.Events) == 0 {
			h.Fatal("there are no events after the first")
		}
		if page.Gap {
			h.wantAfterGap(page)
			return
		}
	}
	h.Error("the event log has no bound that a million events pass")
}

func (h *harness) wantAfterGap(page *driver.EventPage) {
	h.Helper()
	oldest := h.events(driver.EventQuery{Max: 1})
	if diff := cmp.Diff(oldest.Events, page.Events); diff != "" {
		h.Errorf("after a gap the oldest that are left follow (-oldest +got):\n%s", diff)
	}
	if next := h.events(driver.EventQuery{After: page.Next, Max: 5}); next.Gap || len(next.Events) != 5 {
		h.Errorf("going on behind the gap: gap %v, %d events", next.Gap, len(next.Events))
	}
}

func eventsRefused(h *harness) {
	c := h.running("w", "a")
	h.end("w", c, driver.Complete)
	_, end := h.log("")
	h.enqueue(task("a", nil), task("bad name", nil))
	h.settle("w", driver.Settlement{ID: "a", Token: c.Token, Outcome: driver.Complete}, driver.Settlement{ID: "a", Token: c.Token + 1, Outcome: driver.Discard})
	h.apply(driver.OpRun, "a", "nothing")
	h.claim("w", 1)
	h.heartbeat("w")
	if log, _ := h.log(end); len(log) != 0 {
		h.Errorf("calls that changed nothing made the events %v", log)
	}
}

func eventsNotEarlier(h *harness) {
	const n = 200
	after := h.events(driver.EventQuery{After: driver.EventsFromNow}).Next
	go func() {
		for i := range n {
			if _, err := h.store.Enqueue(h.limit, tasks(fmt.Sprint("a-", i), 2), driver.EnqueueOptions{}); err != nil {
				h.Errorf("enqueue: %v", err)
			}
		}
	}()
	for seen := 0; seen < 2*n; {
		page := h.events(driver.EventQuery{After: after, Wait: patience})
		if len(page.Events) == 0 {
			h.Fatalf("%d of %d events came", seen, 2*n)
		}
		for _, e := range page.Events {
			h.get(e.ID)
		}
		seen, after = seen+len(page.Events), page.Next
	}
}

func eventsOtherHandle(h *harness) {
	other := h.reopen()
	h.add(task("a", nil))
	other.add(task("b", nil))
	h.wantKinds("a", "available")
	h.wantKinds("b", "available")
	other.wantKinds("a", "available")
	other.wantKinds("b", "available")
	done := make(chan *driver.EventPage, 1)
	go func() {
		page, err := h.store.Events(h.limit, driver.EventQuery{After: driver.EventsFromNow, Wait: 2 * patience})
		if err != nil {
			h.Errorf("events: %v", err)
		}
		done <- page
	}()
	other.wantEventPage(done)
}
