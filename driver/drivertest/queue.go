package drivertest

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/waggleq/waggle/driver"
)

var queueCases = []testCase{
	{"the queues that are named are returned alone", queuesNamed},
	{"counts are exact in every state", queueCounts},
	{"queues are sorted and stay when they are empty", queueSorted},
	{"a new queue has the default configuration", queueDefaults},
	{"nil fields of a patch stay as they are", queuePatch},
	{"a bad patch is refused", queueInvalid},
	{"the oldest available task is the one that waits longest", queueOldest},
	{"types are those with tasks that have not ended", queueTypes},
	{"totals follow a mixed life and balance", queueTotals},
	{"totals survive that tasks are deleted and pruned", queueTotalsSurvive},
	{"a paused queue accepts tasks and settlements", queuePausedWorks},
	{"a draining queue is worked off", queueDrainingWorks},
	{"limits need the capability", queueLimits},
	{"settings made at the same time: none is lost, and all of the queue goes by the same", concurrentSettings},
	{"single limits are put and dropped, and the others stay", queueSingleLimits},
	{"a queue that holds nothing can be deleted, and comes anew", queueDelete},
	{"a queue that holds tasks stays", queueDeleteHolds},
}

func queueCounts(h *harness) {
	want := map[driver.State]int{}
	for i, s := range driver.States {
		want[s] = i + 1
		for j := range i + 1 {
			// In a queue of all, a task is claimed to be brought further only if it comes before those put there earlier.
			h.put(s, task(h.near(fmt.Sprintf("%s-%d", s, j)), func(t *driver.Task) { t.Queue, t.Priority = "q", -i }))
		}
	}
	if diff := cmp.Diff(want, h.queue("q").Counts); diff != "" {
		h.Errorf("counts (-want +got):\n%s", diff)
	}
}

func queueSingleLimits(h *harness) {
	if !h.caps.Limits {
		h.Skipf("the %s store has no limits", h.caps.Engine)
	}
	all, a, keys := driver.Limit{Concurrency: 3}, driver.Limit{Type: "a", Concurrency: 2}, driver.Limit{Type: "a", PerKey: true, Concurrency: 1}
	more := a
	more.Concurrency = 5
	for _, step := range []struct {
		patch driver.QueuePatch
		want  []driver.Limit
	}{
		{driver.QueuePatch{DropLimits: []driver.Limit{a}}, nil},
		{driver.QueuePatch{PutLimits: []driver.Limit{all, a}}, []driver.Limit{all, a}},
		{driver.QueuePatch{PutLimits: []driver.Limit{keys}}, []driver.Limit{all, a, keys}},
		{driver.QueuePatch{PutLimits: []driver.Limit{more}}, []driver.Limit{all, more, keys}},
		{driver.QueuePatch{DropLimits: []driver.Limit{{}}, PutLimits: []driver.Limit{a}}, []driver.Limit{a, keys}},
		{driver.QueuePatch{Limits: &[]driver.Limit{all}, PutLimits: []driver.Limit{keys}}, []driver.Limit{all, keys}},
		{driver.QueuePatch{DropLimits: []driver.Limit{keys, all}}, nil},
	} {
		if diff := cmp.Diff(step.want, h.setQueue("q", step.patch).Limits); diff != "" {
			h.Errorf("limits after %+v (-want +got):\n%s", step.patch, diff)
		}
	}
	h.setQueue("q", driver.QueuePatch{PutLimits: []driver.Limit{all}})
	full := make([]driver.Limit, driver.MaxLimits)
	for i := range full {
		full[i] = driver.Limit{Type: fmt.Sprint("t-", i), Concurrency: 1}
	}
	for _, bad := range [][]driver.Limit{{{}}, {a, more}, full} {
		if _, err := h.store.SetQueue(h.ctx(), "q", driver.QueuePatch{Paused: new(true), PutLimits: bad}); !errors.Is(err, driver.ErrInvalid) {
			h.Errorf("%d limits that can't be: %v", len(bad), err)
		}
	}
	if c := h.queue("q").Config; c.Paused || !slices.Equal(c.Limits, []driver.Limit{all}) {
		h.Errorf("what was refused has changed the queue: %+v", c)
	}
	h.register("w")
	h.add(task("a-1", func(t *driver.Task) { t.Queue, t.Type = "q", "a" }))
	h.setQueue("q", driver.QueuePatch{Limits: &[]driver.Limit{}, PutLimits: []driver.Limit{a}})
	h.claimOne("w", "a-1", "q")
}

func queueDelete(h *harness) {
	if err := h.store.DeleteQueue(h.ctx(), "typo"); !errors.Is(err, driver.ErrNotFound) {
		h.Errorf("deleting a queue that never was: %v", err)
	}
	if err := h.store.DeleteQueue(h.ctx(), "no name"); !errors.Is(err, driver.ErrInvalid) {
		h.Errorf("deleting a queue with no name that can be: %v", err)
	}
	h.add(task("in-typo", func(t *driver.Task) { t.Queue = "typo" }))
	h.setQueue("typo", driver.QueuePatch{Paused: new(true)})
	h.setQueue("configured", driver.QueuePatch{Draining: new(true)})
	h.applyOK(driver.OpDelete, "in-typo")
	for _, q := range []string{"typo", "configured"} {
		h.must(h.store.DeleteQueue(h.ctx(), q))
		if err := h.store.DeleteQueue(h.ctx(), q); !errors.Is(err, driver.ErrNotFound) {
			h.Errorf("deleting queue %s twice: %v", q, err)
		}
	}
	if list, err := h.store.Queues(h.ctx()); err != nil || len(list) > 0 {
		h.Errorf("queues: %v, %v", list, err)
	}
	h.add(task("again", func(t *driver.Task) { t.Queue = "typo" }))
	got := h.queue("typo")
	if diff := cmp.Diff(driver.QueueConfig{Retention: driver.DefaultRetention()}, got.Config); diff != "" {
		h.Errorf("the configuration of a queue that came anew (-want +got):\n%s", diff)
	}
	if got.Totals != (driver.Totals{Enqueued: 1}) || got.Counts[driver.Available] != 1 {
		h.Errorf("a queue that came anew has %+v, %v", got.Totals, got.Counts)
	}
	h.register("w")
	h.claimOne("w", "again", "typo")
}

func queueDeleteHolds(h *harness) {
	for _, s := range driver.States {
		q := "q-" + string(s)
		h.put(s, task(h.near("held-"+string(s)), func(t *driver.Task) { t.Queue = q }))
		before := h.queue(q)
		if err := h.store.DeleteQueue(h.ctx(), q); !errors.Is(err, driver.ErrState) {
			h.Errorf("deleting a queue with a task that is %s: %v", s, err)
		}
		if diff := cmp.Diff(before, h.queue(q)); diff != "" {
			h.Errorf("a refused deletion changed a queue with a task that is %s (-want +got):\n%s", s, diff)
		}
	}
}

func queueSorted(h *harness) {
	for _, q := range []string{"m", "a", "Z", "z", "a.b"} {
		h.add(task("in-"+q, func(t *driver.Task) { t.Queue = q }))
		h.applyOK(driver.OpDelete, "in-"+q)
	}
	h.setQueue("configured", driver.QueuePatch{})
	list, err := h.store.Queues(h.ctx())
	h.must(err)
	var got []string
	for _, q := range list {
		got = append(got, q.Name)
	}
	if diff := cmp.Diff([]string{"Z", "a", "a.b", "configured", "m", "z"}, got); diff != "" {
		h.Errorf("queues (-want +got):\n%s", diff)
	}
}

func queueDefaults(h *harness) {
	want := driver.QueueConfig{Retention: driver.DefaultRetention()}
	h.add(task("a", nil))
	if diff := cmp.Diff(want, h.queue(driver.DefaultQueue).Config, equateEmpty); diff != "" {
		h.Errorf("configuration (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(want, *h.setQueue("new", driver.QueuePatch{}), equateEmpty); diff != "" {
		h.Errorf("configuration (-want +got):\n%s", diff)
	}
}

func queuePatch(h *harness) {
	retention := driver.Retention{
		Completed: driver.Keep{Age: time.Minute, Count: 5, Bytes: 1000},
		Cancelled: driver.Keep{Age: time.Hour, Count: -1, Bytes: -1},
		Discarded: driver.Keep{Age: 2 * time.Hour, Count: 7, Bytes: -1},
	}
	want := driver.QueueConfig{Retention: driver.DefaultRetention()}
	for _, step := range []struct {
		patch driver.QueuePatch
		edit  func()
	}{
		{driver.QueuePatch{Paused: new(true)}, func() { want.Paused = true }},
		{driver.QueuePatch{Draining: new(true)}, func() { want.Draining = true }},
		{driver.QueuePatch{Retention: &retention}, func() { want.Retention = retention }},
		{driver.QueuePatch{Paused: new(false)}, func() { want.Paused = false }},
		{driver.QueuePatch{}, func() {}},
	} {
		step.edit()
		got := h.setQueue("q", step.patch)
		if diff := cmp.Diff(want, *got, equateEmpty); diff != "" {
			h.Errorf("returned configuration (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff(want, h.queue("q").Config, equateEmpty); diff != "" {
			h.Errorf("stored configuration (-want +got):\n%s", diff)
		}
	}
}

func queueInvalid(h *harness) {
	bad := driver.DefaultRetention()
	bad.Completed.Age = -1
	for name, c := range map[string]struct {
		queue string
		patch driver.QueuePatch
	}{
		"empty name":         {"", driver.QueuePatch{}},
		"bad name":           {"a b", driver.QueuePatch{}},
		"negative retention": {"q", driver.QueuePatch{Paused: new(true), Retention: &bad}},
	} {
		_, err := h.store.SetQueue(h.ctx(), c.queue, c.patch)
		h.wantErr(name, err, driver.ErrInvalid)
	}
	list, err := h.store.Queues(h.ctx())
	h.must(err)
	if len(list) != 0 {
		h.Errorf("%d queues exist, want none", len(list))
	}
}

func queueOldest(h *harness) {
	h.setQueue(driver.DefaultQueue, driver.QueuePatch{})
	wantOldest := func(what string, want time.Time) {
		h.Helper()
		if got := h.queue(driver.DefaultQueue).OldestAvailable; !got.Equal(want) {
			h.Errorf("%s: the oldest is from %v, want %v", what, got, want)
		}
	}
	wantOldest("an empty queue", time.Time{})
	h.add(task("first", func(t *driver.Task) { t.Priority = 5 }), task("later", func(t *driver.Task) { t.Delay = time.Hour }))
	h.advance(time.Minute)
	h.add(task("second", nil))
	wantOldest("two tasks", h.get("first").DueAt)
	h.applyOK(driver.OpCancel, "first")
	wantOldest("after the first was cancelled", h.get("second").DueAt)
	h.register("w")
	c := h.claimOne("w", "second")
	wantOldest("with all claimed", time.Time{})
	h.advance(time.Second)
	h.end("w", c, driver.Release)
	wantOldest("after a release", h.get("second").DueAt)
	h.claimOne("w", "second")
	h.applyOK(driver.OpRun, "later")
	wantOldest("after run now", h.get("later").DueAt)
}

func queueTypes(h *harness) {
	h.add(task("a", func(t *driver.Task) { t.Type = "z" }), task("b", func(t *driver.Task) { t.Type = "a" }),
		task("c", func(t *driver.Task) { t.Type, t.Delay = "a", time.Hour }), task("d", func(t *driver.Task) { t.Type = "gone" }))
	h.applyOK(driver.OpCancel, "d")
	var got []string
	for _, t := range h.queue(driver.DefaultQueue).Types {
		got = append(got, fmt.Sprintf("%s %d %d", t.Type, t.Counts[driver.Available], t.Counts[driver.Scheduled]))
	}
	if diff := cmp.Diff([]string{"a 1 1", "z 1 0"}, got); diff != "" {
		h.Errorf("types (-want +got):\n%s", diff)
	}
}

func queueTotals(h *harness) {
	for _, s := range driver.States {
		for _, op := range []driver.Op{"", driver.OpCancel, driver.OpRetry, driver.OpRun, driver.OpDelete} {
			id := h.put(s, task(fmt.Sprintf("%s-%s", s, op), func(t *driver.Task) {
				t.Queue, t.Priority = "q", -1 // claimed before what earlier rounds made available
			}))
			if op != "" {
				h.apply(op, id)
			}
			h.lowerPriority("q")
		}
	}
	got := h.queue("q")
	// 40 enqueued; retried: 3; cancel ended 4 of 5 (the active one is asked), and 5 were put as cancelled.
	want := driver.Totals{Enqueued: 40, Retried: 3, Completed: 5, Cancelled: 9, Discarded: 5, Failed: 5, DeletedLive: 4}
	if diff := cmp.Diff(want, got.Totals); diff != "" {
		h.Errorf("totals (-want +got):\n%s", diff)
	}
}

// lowerPriority claims what is available in a queue and keeps it: so that the next claim finds a new task.
func (h *harness) lowerPriority(queue string) {
	h.Helper()
	h.register("keeper")
	h.claim("keeper", 1000, queue)
}

func queueTotalsSurvive(h *harness) {
	h.register("w")
	for i, o := range []driver.Outcome{driver.Complete, driver.Discard, driver.CancelOutcome} {
		h.add(task(fmt.Sprint("a-", i), nil))
		h.end("w", h.claimOne("w", fmt.Sprint("a-", i)), o)
	}
	h.applyOK(driver.OpDelete, "a-0", "a-1")
	h.advance(31 * 24 * time.Hour)
	h.maintain()
	if h.find("a-2") != nil {
		h.Error("the cancelled task was not pruned")
	}
	want := driver.Totals{Enqueued: 3, Completed: 1, Cancelled: 1, Discarded: 1}
	if diff := cmp.Diff(want, h.queue(driver.DefaultQueue).Totals); diff != "" {
		h.Errorf("totals (-want +got):\n%s", diff)
	}
}

func queuePausedWorks(h *harness) {
	c := h.running("w", "a")
	h.setQueue(driver.DefaultQueue, driver.QueuePatch{Paused: new(true)})
	h.add(task("b", nil))
	h.end("w", c, driver.Release)
	if got := h.claim("w", 10); len(got) != 0 {
		h.Errorf("a paused queue gave %v", claimIDs(got))
	}
	h.setQueue(driver.DefaultQueue, driver.QueuePatch{Paused: new(false)})
	h.wantOrder("w", []string{"a", "b"})
}

func queueDrainingWorks(h *harness) {
	h.add(task("a", nil))
	h.setQueue(driver.DefaultQueue, driver.QueuePatch{Draining: new(true)})
	h.register("w")
	h.end("w", h.claimOne("w", "a"), driver.Retry)
	h.end("w", h.claimOne("w", "a"), driver.Complete)
	h.wantState(driver.Completed, "a")
}

func queueLimits(h *harness) {
	if h.caps.Limits {
		h.Skip("this store offers limits")
	}
	_, err := h.store.SetQueue(h.ctx(), "q", driver.QueuePatch{Limits: &[]driver.Limit{{Concurrency: 1}}})
	h.wantErr("limits", err, driver.ErrUnsupported)
}

func queuesNamed(h *harness) {
	for i, q := range []string{"b", "a", "c", "a", "a"} {
		h.add(task(fmt.Sprint(q, "-", i), func(t *driver.Task) { t.Queue = q }))
	}
	h.setQueue("set", driver.QueuePatch{Paused: new(true)})
	all, err := h.store.Queues(h.ctx())
	h.must(err)
	of := map[string]driver.QueueInfo{}
	for _, q := range all {
		of[q.Name] = q
	}
	for _, names := range [][]string{{"a"}, {"set"}, {"none"}, {"c", "a", "none", "c"}, {"a", "b", "c", "set"}} {
		got, err := h.store.Queues(h.ctx(), names...)
		h.must(err)
		want := []driver.QueueInfo{}
		for _, name := range slices.Compact(slices.Sorted(slices.Values(names))) {
			if q, ok := of[name]; ok {
				want = append(want, q)
			}
		}
		if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
			h.Errorf("Queues of %v (-want +got):\n%s", names, diff)
		}
	}
}
