package drivertest

import (
	"fmt"
	"slices"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/waggleq/waggle/driver"
)

var applyCases = []testCase{
	{"every operation in every state does what the table says, by id", applyTable},
	{"an unknown id is not found, the others are done", applyNotFound},
	{"by filter only tasks in fitting states are matched", applyFilter},
	{"Max bounds an operation and More says that more may match", applyMax},
	{"an operation goes on where the last one ended", applyCursor},
	{"a dry run counts and changes nothing", applyDryRun},
	{"a malformed change is refused", applyInvalid},
	{"cancel of an active task is asked for and delivered by heartbeats until it is settled", cancelActive},
	{"a fetch delivers cancellations too", cancelByFetch},
	{"asking twice to cancel an active task is no error", cancelTwice},
	{"a cancellation survives that its worker gives the task back", cancelUnregistered},
	{"a person's retry starts the counts anew and keeps the history", retryFresh},
	{"a person's retry of a completed task removes its result", retryResult},
	{"run lets a task go now, at the end of the line", runNow},
	{"run of a task on hold with a later time lets it go now", runHeldLater},
	{"a deleted task is gone and its id is free", deleteGone},
	{"ids named twice are done once", applyTwice},
}

func applyTable(h *harness) {
	for _, op := range []driver.Op{driver.OpCancel, driver.OpRetry, driver.OpRun, driver.OpDelete} {
		for _, s := range driver.States {
			id := h.put(s, task(fmt.Sprintf("%s-%s", op, s), nil))
			before := h.get(id)
			err := h.apply(op, id)[0]
			if !slices.Contains(op.From(), s) {
				h.wantErr(id, err, driver.ErrState)
				if diff := cmp.Diff(before, h.get(id), equateEmpty); diff != "" {
					h.Errorf("%s changed the task (-before +after):\n%s", id, diff)
				}
				continue
			}
			h.wantErr(id, err, nil)
			h.wantApplied(op, s, id)
		}
	}
}

func (h *harness) wantApplied(op driver.Op, s driver.State, id string) {
	h.Helper()
	r := h.find(id)
	switch {
	case op == driver.OpDelete:
		if r != nil {
			h.Errorf("%s: the deleted task is still there", id)
		}
	case r == nil:
		h.Errorf("%s: the task is gone", id)
	case op == driver.OpCancel && s == driver.Active:
		if r.State != driver.Active || !r.CancelRequested {
			h.Errorf("%s: the task is %s, cancel requested %v", id, r.State, r.CancelRequested)
		}
	case op == driver.OpCancel:
		if r.State != driver.Cancelled || r.Reason != driver.ReasonRequested || r.EndedAt.IsZero() {
			h.Errorf("%s: the task is %s (%s), ended %v", id, r.State, r.Reason, r.EndedAt)
		}
	case r.State != driver.Available || r.Reason != "" || !r.EndedAt.IsZero() || r.DueAt.After(h.now()):
		h.Errorf("%s: the task is %s (%s), ended %v, due %v", id, r.State, r.Reason, r.EndedAt, r.DueAt)
	}
}

func applyNotFound(h *harness) {
	h.add(tasks("a", 2)...)
	res, err := h.store.Apply(h.ctx(), driver.Change{Op: driver.OpCancel, IDs: []string{"a-000", "nothing", "a-001"}})
	h.must(err)
	if res.Changed != 2 || len(res.Errors) != 3 {
		h.Fatalf("changed %d with errors %v, want 2 and three entries", res.Changed, res.Errors)
	}
	for i, want := range []error{nil, driver.ErrNotFound, nil} {
		h.wantErr(fmt.Sprint("id ", i), res.Errors[i], want)
	}
	h.wantState(driver.Cancelled, "a-000", "a-001")
}

func applyFilter(h *harness) {
	for _, s := range driver.States {
		h.put(s, task(string(s), func(t *driver.Task) { t.Tags = []string{"mine"} }))
	}
	h.add(task("foreign", nil))
	for _, c := range []struct {
		op      driver.Op
		changed int
		after   map[driver.State]int // of the eight
	}{
		{driver.OpRun, 3, nil},
		{driver.OpRetry, 2, nil}, // what is completed is named or left alone
		{driver.OpCancel, 7, nil},
		{driver.OpDelete, 7, nil},
	} {
		res, err := h.store.Apply(h.ctx(), driver.Change{Op: c.op, Filter: driver.Filter{Tags: []string{"mine"}}})
		h.must(err)
		if res.Changed != c.changed || res.Errors != nil || res.More {
			h.Errorf("%s: changed %d, errors %v, More %v; want %d", c.op, res.Changed, res.Errors, res.More, c.changed)
		}
	}
	left := h.listAll(driver.Filter{})
	if len(left) != 2 || h.get("foreign").State != driver.Available || !h.get("active").CancelRequested {
		h.Errorf("%d tasks are left, want the foreign one and the active one", len(left))
	}
}

func applyMax(h *harness) {
	h.add(tasks("a", 25)...)
	sum, rounds := 0, 0
	for more := true; more && rounds < 25; rounds++ {
		res, err := h.store.Apply(h.ctx(), driver.Change{Op: driver.OpCancel, Filter: driver.Filter{Types: []string{"t"}}, Max: 10})
		h.must(err)
		if res.Changed > 10 {
			h.Errorf("changed %d, want up to 10", res.Changed)
		}
		sum, more = sum+res.Changed, res.More
	}
	if sum != 25 || rounds > 4 {
		h.Errorf("changed %d in %d rounds, want 25 in up to 4", sum, rounds)
	}
	h.add(tasks("b", 3)...)
	res, err := h.store.Apply(h.ctx(), driver.Change{Op: driver.OpCancel, Filter: driver.Filter{States: []driver.State{driver.Available}}})
	h.must(err)
	if res.Changed != 3 || res.More {
		h.Errorf("with the default Max: changed %d, More %v", res.Changed, res.More)
	}
}

// applyCursor does operations page by page. A dry run changes nothing, so only the cursor keeps a page from beginning where
// the one before it began.
func applyCursor(h *harness) {
	const n = 137
	h.add(tasks("a", n)...)
	h.add(tasks("other", 20)...)
	h.applyOK(driver.OpCancel, "a-003")
	filter := driver.Filter{States: []driver.State{driver.Available}}
	for _, c := range []driver.Change{
		{Op: driver.OpDelete, Filter: filter, DryRun: true, Max: 10},
		{Op: driver.OpDelete, Filter: filter, DryRun: true, Max: 156},
		{Op: driver.OpCancel, Filter: driver.Filter{All: true}, DryRun: true, Max: 1},
		{Op: driver.OpCancel, Filter: driver.Filter{All: true}, Max: 20},
		{Op: driver.OpRetry, Filter: driver.Filter{All: true}, Max: 50},
		{Op: driver.OpDelete, Filter: driver.Filter{All: true}, Max: 100},
	} {
		want := n + 19
		if c.Op == driver.OpRetry || c.Op == driver.OpDelete && len(c.Filter.States) == 0 {
			want++ // a-003 too
		}
		changed, pages := 0, 0
		for more := true; more; pages++ {
			res, err := h.store.Apply(h.ctx(), c)
			h.must(err)
			changed, more, c.Cursor = changed+res.Changed, res.More, res.Next
			if res.More != (res.Next != "") || res.Changed > c.Max {
				h.Fatalf("%s by %d: %+v, want a cursor just where there is more", c.Op, c.Max, res)
			}
			if pages > want {
				h.Fatalf("%s by %d does not come to an end", c.Op, c.Max)
			}
		}
		if changed != want || pages > (want+c.Max-1)/c.Max+h.whole(1) {
			h.Errorf("%s by %d: changed %d in %d pages, want %d", c.Op, c.Max, changed, pages, want)
		}
	}
	for _, c := range []driver.Change{
		{Op: driver.OpDelete, Filter: driver.Filter{All: true}, Cursor: "nonsense"},
		{Op: driver.OpDelete, Cursor: "nonsense", IDs: []string{"a"}},
	} {
		_, err := h.store.Apply(h.ctx(), c)
		h.wantErr("an unknown cursor", err, driver.ErrInvalid)
	}
}

func applyDryRun(h *harness) {
	h.add(tasks("a", 5)...)
	h.put(driver.Completed, task("done", nil))
	before := h.listAll(driver.Filter{})
	for _, c := range []driver.Change{
		{Op: driver.OpCancel, Filter: driver.Filter{All: true}, DryRun: true},
		{Op: driver.OpDelete, Filter: driver.Filter{Types: []string{"t"}, States: []driver.State{driver.Available}}, DryRun: true},
		{Op: driver.OpCancel, IDs: []string{"a-000", "a-001", "a-002", "a-003", "a-004", "done", "nothing"}, DryRun: true},
	} {
		res, err := h.store.Apply(h.ctx(), c)
		h.must(err)
		if res.Changed != 5 {
			h.Errorf("%s would change %d, want 5", c.Op, res.Changed)
		}
		if len(c.IDs) > 0 && len(res.Errors) == len(c.IDs) {
			h.wantErr("a completed task", res.Errors[5], driver.ErrState)
			h.wantErr("an unknown task", res.Errors[6], driver.ErrNotFound)
		} else if len(c.IDs) > 0 {
			h.Errorf("got %d errors for %d ids", len(res.Errors), len(c.IDs))
		}
	}
	if diff := cmp.Diff(before, h.listAll(driver.Filter{}), equateEmpty); diff != "" {
		h.Errorf("a dry run changed the store (-before +after):\n%s", diff)
	}
}

func applyInvalid(h *harness) {
	h.add(task("a", nil))
	for name, c := range map[string]driver.Change{
		"no operation":      {},
		"no selection":      {Op: driver.OpDelete},
		"no selection, dry": {Op: driver.OpDelete, DryRun: true},
		"no ids":            {Op: driver.OpCancel, IDs: []string{}},
		"no ids, a filter":  {Op: driver.OpCancel, IDs: []string{}, Filter: driver.Filter{All: true}},
		"no ids to filter":  {Op: driver.OpDelete, Filter: driver.Filter{IDs: []string{}}},
		"no queues":         {Op: driver.OpDelete, Filter: driver.Filter{Queues: []string{}, Types: []string{"t"}}},
		"no tags":           {Op: driver.OpRetry, Filter: driver.Filter{Tags: []string{}}},
		"all and some":      {Op: driver.OpDelete, Filter: driver.Filter{All: true, Types: []string{"t"}}},
		"unknown operation": {Op: "explode"},
		"negative max":      {Op: driver.OpCancel, Max: -1},
		"max too large":     {Op: driver.OpCancel, Max: driver.MaxApply + 1},
		"too many ids":      {Op: driver.OpCancel, IDs: make([]string, driver.MaxApply+1)},
		"unknown state":     {Op: driver.OpCancel, Filter: driver.Filter{States: []driver.State{"asleep"}}},
		"bad queue":         {Op: driver.OpCancel, Filter: driver.Filter{Queues: []string{"a b"}}},
	} {
		_, err := h.store.Apply(h.ctx(), c)
		h.wantErr(name, err, driver.ErrInvalid)
	}
	h.wantState(driver.Available, "a")
}

func cancelActive(h *harness) {
	c := h.running("w", "a")
	h.applyOK(driver.OpCancel, "a")
	want := []driver.Ref{{ID: "a", Token: c.Token}}
	for range 3 {
		if got := h.heartbeat("w").Cancels; !slices.Equal(got, want) {
			h.Errorf("the heartbeat delivers %v, want %v", got, want)
		}
	}
	h.register("x")
	if got := h.heartbeat("x").Cancels; len(got) != 0 {
		h.Errorf("another worker's heartbeat delivers %v", got)
	}
	h.end("w", c, driver.CancelOutcome)
	if got := h.heartbeat("w").Cancels; len(got) != 0 {
		h.Errorf("after the settlement the heartbeat delivers %v", got)
	}
	h.wantState(driver.Cancelled, "a")
}

func cancelByFetch(h *harness) {
	c := h.running("w", "a")
	h.applyOK(driver.OpCancel, "a")
	if got := h.fetch(request("w", 1)).Cancels; !slices.Equal(got, []driver.Ref{{ID: "a", Token: c.Token}}) {
		h.Errorf("the fetch delivers %v", got)
	}
	h.end("w", c, driver.Release)
	h.wantState(driver.Cancelled, "a")
}

func cancelTwice(h *harness) {
	c := h.running("w", "a")
	h.applyOK(driver.OpCancel, "a")
	h.applyOK(driver.OpCancel, "a")
	h.end("w", c, driver.Complete)
	h.wantState(driver.Completed, "a")
}

func cancelUnregistered(h *harness) {
	h.running("w", "a")
	h.applyOK(driver.OpCancel, "a")
	h.must(h.store.Unregister(h.ctx(), "w"))
	if r := h.get("a"); r.State != driver.Cancelled || r.Reason != driver.ReasonRequested {
		h.Errorf("the task is %s (%s), want cancelled (requested)", r.State, r.Reason)
	}
}

func retryFresh(h *harness) {
	h.add(task("a", func(t *driver.Task) { t.MaxAttempts, t.CrashLimit = 2, 2 }))
	h.register("dead")
	h.claimOne("dead", "a")
	h.lose()
	h.register("w")
	h.end("w", h.claimOne("w", "a"), driver.Retry)
	h.end("w", h.claimOne("w", "a"), driver.Retry)
	h.wantState(driver.Discarded, "a")
	h.applyOK(driver.OpRetry, "a")
	if r := h.get("a"); r.State != driver.Available || r.Attempt != 0 || r.Crashes != 0 || len(r.Attempts) != 3 {
		h.Errorf("the task is %s, attempt %d, %d crashes, %d entries; want available, 0, 0, 3", r.State, r.Attempt, r.Crashes, len(r.Attempts))
	}
	for i := range 2 {
		c := h.claimOne("w", "a")
		if c.Attempt != i+1 || c.Crashes != 0 {
			h.Errorf("the claim is attempt %d with %d crashes, want %d and 0", c.Attempt, c.Crashes, i+1)
		}
		h.end("w", c, driver.Retry)
	}
	h.wantState(driver.Discarded, "a")
}

func retryResult(h *harness) {
	h.register("w")
	h.complete("a", []byte("1"), driver.EncodingJSON)
	h.applyOK(driver.OpRetry, "a")
	if r := h.get("a"); len(r.Result) != 0 {
		h.Errorf("the %s task has the result %q", r.State, r.Result)
	}
	h.end("w", h.claimOne("w", "a"), driver.Complete)
}

func runNow(h *harness) {
	h.add(task("later", func(t *driver.Task) { t.Delay = time.Hour }), task("held", func(t *driver.Task) { t.Hold = true }))
	h.add(tasks("a", 2)...)
	h.applyOK(driver.OpRun, "later")
	h.applyOK(driver.OpRun, "held")
	h.register("w")
	h.wantOrder("w", []string{"a-000", "a-001", "later", "held"})
}

func runHeldLater(h *harness) {
	h.add(task("a", func(t *driver.Task) { t.Hold, t.Delay = true, time.Hour }))
	h.advance(2 * time.Hour)
	h.maintain()
	h.wantState(driver.Pending, "a")
	h.register("w")
	h.add(task("b", func(t *driver.Task) { t.Hold, t.Delay = true, time.Hour }))
	h.applyOK(driver.OpRun, "b")
	h.wantState(driver.Available, "b")
	h.claimOne("w", "b")
}

func deleteGone(h *harness) {
	h.add(task("a", nil))
	h.applyOK(driver.OpDelete, "a")
	h.wantErr("deleting again", h.apply(driver.OpDelete, "a")[0], driver.ErrNotFound)
	h.register("w")
	if got := h.claim("w", 1); len(got) != 0 {
		h.Errorf("the deleted task was given")
	}
	if got := h.queue(driver.DefaultQueue).Totals; got.DeletedLive != 1 || got.Enqueued != 1 {
		h.Errorf("totals %+v, want 1 enqueued and 1 deleted live", got)
	}
	h.add(task("a", nil))
	h.claimOne("w", "a")
}

func applyTwice(h *harness) {
	h.add(task("a", nil))
	res, err := h.store.Apply(h.ctx(), driver.Change{Op: driver.OpDelete, IDs: []string{"a", "a"}})
	h.must(err)
	if res.Changed != 1 || len(res.Errors) != 2 || res.Errors[0] != nil {
		h.Errorf("changed %d with errors %v, want 1", res.Changed, res.Errors)
	}
}
