package drivertest

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/waggleq/waggle/driver"
)

var listCases = []testCase{
	{"Get is parallel to the ids, nil where there is none", getParallel},
	{"the newest comes first", listNewestFirst},
	{"each filter selects what it says", listFilters},
	{"the error filter looks at the last error", listErrors},
	{"any error is looked at when asked for", listAnyError},
	{"the time filters take from After up to before Before", listTimes},
	{"pages hold what was asked for and end", listPages},
	{"paging sees every old record once while others are enqueued", listWhileInserting},
	{"paging sees every old record once while others are deleted", listWhileDeleting},
	{"a filtered list is paged too", listFilteredPages},
	{"a bad filter, page or cursor is refused", listInvalid},
	{"an empty store has an empty page", listEmpty},
}

func getParallel(h *harness) {
	h.add(tasks("a", 3)...)
	got, err := h.store.Get(h.ctx(), []string{"a-002", "nothing", "a-000", "a-002", "not a name"})
	h.must(err)
	var ids []string
	for _, r := range got {
		if r == nil {
			ids = append(ids, "-")
			continue
		}
		ids = append(ids, r.ID)
	}
	if diff := cmp.Diff([]string{"a-002", "-", "a-000", "a-002", "-"}, ids); diff != "" {
		h.Errorf("records (-want +got):\n%s", diff)
	}
	if got, err := h.store.Get(h.ctx(), nil); err != nil || len(got) != 0 {
		h.Errorf("Get of nothing returned %v, %v", got, err)
	}
}

func listedIDs(records []*driver.Record) []string {
	ids := make([]string, len(records))
	for i, r := range records {
		ids[i] = r.ID
	}
	return ids
}

func listNewestFirst(h *harness) {
	var want []string
	for i := range 5 {
		batch := tasks(fmt.Sprint("b-", 9-i), 4)
		h.add(batch...)
		want = append(want, idsOf(batch)...)
	}
	slices.Reverse(want)
	got := listedIDs(h.listAll(driver.Filter{}))
	if !h.caps.Ordered {
		slices.Sort(got)
		slices.Sort(want)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		h.Errorf("records (-want +got):\n%s", diff)
	}
}

// wantListed compares the ids that a filter selects, as sets.
func (h *harness) wantListed(name string, f driver.Filter, want ...string) {
	h.Helper()
	got := listedIDs(h.listAll(f))
	slices.Sort(got)
	slices.Sort(want)
	if diff := cmp.Diff(want, got, equateEmpty); diff != "" {
		h.Errorf("%s (-want +got):\n%s", name, diff)
	}
}

func listFilters(h *harness) {
	for _, s := range driver.States {
		h.put(s, task(string(s), nil))
	}
	h.add(
		task("x-1", func(t *driver.Task) { t.Queue, t.Type, t.Tags = "qx", "tx", []string{"red", "big"} }),
		task("x-2", func(t *driver.Task) { t.Queue, t.Type, t.Tags = "qx", "ty", []string{"red"} }),
		task("y-1", func(t *driver.Task) { t.Queue, t.Type, t.Tags = "qy", "ty", []string{"big"} }))
	for _, s := range driver.States {
		f := driver.Filter{States: []driver.State{s}}
		if s == driver.Available {
			f.Queues = []string{"q-available"}
		}
		h.wantListed(string(s), f, string(s))
	}
	h.wantListed("two states", driver.Filter{States: []driver.State{driver.Pending, driver.Active}}, "pending", "active")
	h.wantListed("ids", driver.Filter{IDs: []string{"x-1", "nothing", "active"}}, "x-1", "active")
	h.wantListed("a queue", driver.Filter{Queues: []string{"qx"}}, "x-1", "x-2")
	h.wantListed("two queues", driver.Filter{Queues: []string{"qx", "qy", "absent"}}, "x-1", "x-2", "y-1")
	h.wantListed("a type", driver.Filter{Types: []string{"ty"}}, "x-2", "y-1")
	h.wantListed("a tag", driver.Filter{Tags: []string{"red"}}, "x-1", "x-2")
	h.wantListed("all tags", driver.Filter{Tags: []string{"big", "red"}}, "x-1")
	h.wantListed("queue and type", driver.Filter{Queues: []string{"qx"}, Types: []string{"ty"}}, "x-2")
	h.wantListed("ids and queue", driver.Filter{IDs: []string{"x-1", "y-1"}, Queues: []string{"qy"}}, "y-1")
	h.wantListed("state and tag", driver.Filter{States: []driver.State{driver.Completed}, Tags: []string{"red"}})
	h.wantListed("nothing known", driver.Filter{Queues: []string{"absent"}})
}

func listErrors(h *harness) {
	h.register("w")
	fail := func(id string, texts ...string) {
		h.add(inQueue(id, []*driver.Task{task(id, nil)})...)
		for _, text := range texts {
			c := h.claimOne("w", id, id)
			h.endWith("w", driver.Settlement{ID: id, Token: c.Token, Outcome: driver.Retry, Error: text})
		}
	}
	fail("a", "dial tcp: timeout")
	fail("b", "dial tcp: timeout", "100% _broken_")
	fail("c", "Timeout")
	fail("none")
	h.wantListed("part of the text", driver.Filter{Error: "tcp: time"}, "a")
	h.wantListed("lower case", driver.Filter{Error: "timeout"}, "a", "c")
	h.wantListed("upper case", driver.Filter{Error: "TIME"}, "a", "c")
	h.wantListed("no wildcards", driver.Filter{Error: "%"}, "b")
	h.wantListed("no wildcards either", driver.Filter{Error: "_broken"}, "b")
	h.wantListed("nothing", driver.Filter{Error: "d_al"})
}

func listAnyError(h *harness) {
	h.register("w")
	fail := func(id string, then driver.Outcome, texts ...string) {
		h.add(inQueue(id, []*driver.Task{task(id, nil)})...)
		for _, text := range texts {
			c := h.claimOne("w", id, id)
			h.endWith("w", driver.Settlement{ID: id, Token: c.Token, Outcome: driver.Retry, Error: text})
		}
		if then != "" {
			h.end("w", h.claimOne("w", id, id), then)
		}
	}
	fail("first", "", "timeout", "refused")
	fail("last", "", "refused", "timeout")
	fail("done", driver.Complete, "timeout")
	fail("called-off", driver.CancelOutcome, "timeout")
	fail("snoozed", driver.Snooze, "timeout")
	fail("other", "", "refused")
	h.wantListed("the last error of what did not complete", driver.Filter{Error: "timeout"}, "last", "called-off", "snoozed")
	h.wantListed("any error", driver.Filter{Error: "timeout", AnyError: true}, "first", "last", "done", "called-off", "snoozed")
	h.wantListed("any error of what completed", driver.Filter{Error: "timeout", AnyError: true, States: []driver.State{driver.Completed}}, "done")
	_, err := h.store.List(h.ctx(), driver.Filter{AnyError: true}, driver.Page{})
	h.wantErr("any error without a text", err, driver.ErrInvalid)

	change := driver.Change{Op: driver.OpDelete, Filter: driver.Filter{Error: "refused", AnyError: true}}
	res, err := h.store.Apply(h.ctx(), change)
	h.must(err)
	if res.Changed != 3 {
		h.Errorf("%d tasks with any such error were deleted, want 3", res.Changed)
	}
	h.wantListed("what is left", driver.Filter{}, "done", "called-off", "snoozed")
}

func listTimes(h *harness) {
	var at []time.Time
	for i := range 3 {
		id := fmt.Sprint("a-", i)
		h.add(task(id, nil))
		at = append(at, h.get(id).EnqueuedAt)
		h.advance(time.Minute)
	}
	h.wantListed("after", driver.Filter{After: at[1]}, "a-1", "a-2")
	h.wantListed("before", driver.Filter{Before: at[1]}, "a-0")
	h.wantListed("between", driver.Filter{After: at[0].Add(time.Millisecond), Before: at[2]}, "a-1")
	h.wantListed("a whole store", driver.Filter{After: at[0], Before: at[2].Add(time.Millisecond)}, "a-0", "a-1", "a-2")
}

func (h *harness) page(f driver.Filter, p driver.Page) *driver.RecordPage {
	h.Helper()
	page, err := h.store.List(h.ctx(), f, p)
	h.must(err)
	return page
}

func listPages(h *harness) {
	h.add(tasks("a", 250)...)
	if n := len(h.page(driver.Filter{}, driver.Page{}).Records); n != 100 {
		h.Errorf("the default page has %d records, want 100", n)
	}
	seen, cursor, rounds := map[string]bool{}, "", 0
	for ; rounds < 50; rounds++ {
		page := h.page(driver.Filter{}, driver.Page{Cursor: cursor, Size: 30})
		if len(page.Records) > 30 {
			h.Errorf("a page of 30 has %d records", len(page.Records))
		}
		for _, r := range page.Records {
			if seen[r.ID] {
				h.Errorf("task %s came twice", r.ID)
			}
			seen[r.ID] = true
		}
		if cursor = page.Next; cursor == "" {
			break
		}
	}
	if len(seen) != 250 || rounds > 10 {
		h.Errorf("%d pages gave %d records, want 250", rounds+1, len(seen))
	}
}

// wantEachOnce pages through a list, does something between the pages, and wants each of the ids exactly once.
func (h *harness) wantEachOnce(f driver.Filter, ids []string, between func(round int)) {
	h.Helper()
	seen, cursor := map[string]int{}, ""
	for round := range 200 {
		page := h.page(f, driver.Page{Cursor: cursor, Size: 7})
		for _, r := range page.Records {
			seen[r.ID]++
		}
		if cursor = page.Next; cursor == "" {
			break
		}
		between(round)
	}
	for _, id := range ids {
		if seen[id] != 1 {
			h.Errorf("task %s came %d times, want once", id, seen[id])
		}
	}
}

func listWhileInserting(h *harness) {
	ids := h.add(tasks("old", 60)...)
	h.wantEachOnce(driver.Filter{}, ids, func(round int) { h.add(tasks(fmt.Sprint("new-", round), 3)...) })
}

func listWhileDeleting(h *harness) {
	victims := h.add(tasks("victim", 20)...)
	ids := h.add(tasks("old", 40)...)
	more := h.add(tasks("other", 20)...)
	victims = append(victims, more...)
	h.wantEachOnce(driver.Filter{}, ids, func(round int) {
		if round < len(victims) {
			h.applyOK(driver.OpDelete, victims[len(victims)-1-round])
		}
	})
}

func listFilteredPages(h *harness) {
	var odd []string
	for i := range 60 {
		t := task(fmt.Sprintf("a-%02d", i), nil)
		if i%3 == 1 {
			t.Type, t.Queue, t.Tags = "odd", "odd", []string{"odd"}
			odd = append(odd, t.ID)
		}
		h.add(t)
	}
	for name, f := range map[string]driver.Filter{
		"type":  {Types: []string{"odd"}},
		"queue": {Queues: []string{"odd"}},
		"tag":   {Tags: []string{"odd"}},
		"state": {States: []driver.State{driver.Available}, Queues: []string{"odd"}},
		"ids":   {IDs: odd},
	} {
		h.wantEachOnce(f, odd, func(int) {})
		if got := h.listAll(f); len(got) != len(odd) {
			h.Errorf("by %s: %d records, want %d", name, len(got), len(odd))
		}
	}
}

func listInvalid(h *harness) {
	h.add(tasks("a", 3)...)
	for name, c := range map[string]struct {
		filter driver.Filter
		page   driver.Page
	}{
		"unknown state":  {filter: driver.Filter{States: []driver.State{"asleep"}}},
		"bad queue":      {filter: driver.Filter{Queues: []string{"a b"}}},
		"bad type":       {filter: driver.Filter{Types: []string{""}}},
		"bad tag":        {filter: driver.Filter{Tags: []string{"\x00"}}},
		"bad id":         {filter: driver.Filter{IDs: []string{"../x"}}},
		"negative size":  {page: driver.Page{Size: -1}},
		"size too large": {page: driver.Page{Size: driver.MaxPage + 1}},
		"foreign cursor": {page: driver.Page{Cursor: "no cursor of mine"}},
		"long cursor":    {page: driver.Page{Cursor: strings.Repeat("9", 4000)}},
		"cursor of NUL":  {page: driver.Page{Cursor: "\x00"}},
	} {
		_, err := h.store.List(h.ctx(), c.filter, c.page)
		h.wantErr(name, err, driver.ErrInvalid)
	}
}

func listEmpty(h *harness) {
	page := h.page(driver.Filter{}, driver.Page{})
	if len(page.Records) != 0 || page.Next != "" {
		h.Errorf("got %d records and cursor %q", len(page.Records), page.Next)
	}
	if queues, err := h.store.Queues(h.ctx()); err != nil || len(queues) != 0 {
		h.Errorf("got queues %v, %v", queues, err)
	}
	if workers := h.workers(); len(workers) != 0 {
		h.Errorf("got workers %v", slices.Collect(maps.Keys(workers)))
	}
}
