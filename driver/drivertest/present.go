package drivertest

import (
	"slices"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/waggleq/waggle/driver"
)

// What is shown and what decides is the state at the store's present, though nobody has come by to record it.
var presentCases = []testCase{
	{"a due task is shown as available", presentDue},
	{"an expired task is shown as discarded", presentExpired},
	{"a task that was due and has expired since is shown as discarded", presentDueExpired},
	{"figures are those of the present", presentFigures},
	{"figures are those of the present while other workers are busy", presentBusy},
	{"the oldest available task is one that has not expired", presentOldest},
	{"an expired task does not keep a unique key", presentUnique},
	{"an expired task keeps a unique key for its time", presentUniqueTTL},
	{"an expired task stands in the way of no retry", presentUniqueRetry},
	{"the id of an expired task is known, and its state", presentID},
	{"operations meet the state of the present", presentApply},
	{"an expired task can be retried and deleted", presentApplyEnded},
	{"what is shown stays what it is when it is recorded", presentRecorded},
}

// delayed returns a task that waits for a minute.
func delayed(id string) *driver.Task {
	return task(id, func(t *driver.Task) { t.Delay = time.Minute })
}

// situation is one in which nobody records what is due or has expired of the type t. look is done before one looks.
type situation struct {
	name        string
	begin, look func(h *harness)
}

func nothing(*harness) {}

var unserved = []situation{
	{"nobody", nothing, nothing},
	{"busy", func(h *harness) {
		h.register("busy")
		h.add(task("held", func(t *driver.Task) { t.Queue = "elsewhere" }))
		h.claimOne("busy", "held", "elsewhere")
		_, err := h.store.Heartbeat(h.ctx(), "busy", driver.MaxLease)
		h.must(err)
	}, nothing},
	{"foreign", func(h *harness) { h.register("foreign") }, func(h *harness) {
		req := request("foreign", 10)
		req.Types, req.Lease = []string{"another"}, driver.MaxLease
		if got := h.fetch(req).Claims; len(got) > 0 {
			h.Errorf("the worker of another type was given %v", claimIDs(got))
		}
	}},
}

// unwatched runs f with no worker, a busy worker and another type's worker. The ids of its tasks end with the name.
func (h *harness) unwatched(f func(name string, look func())) {
	h.Helper()
	for _, s := range unserved {
		s.begin(h)
		f(s.name, func() { s.look(h) })
	}
}

func presentDue(h *harness) {
	h.unwatched(func(x string, look func()) {
		id := h.add(delayed("a-" + x))[0]
		h.wantState(driver.Scheduled, id)
		h.advance(time.Minute)
		look()
		h.wantState(driver.Available, id)
		h.wantListedAs(id, driver.Available)
	})
}

func presentExpired(h *harness) {
	h.unwatched(func(x string, look func()) {
		id := h.add(expiring("a-"+x, time.Minute))[0]
		h.wantState(driver.Available, id)
		h.advance(time.Minute)
		look()
		h.wantLapsed(id)
	})
}

func presentDueExpired(h *harness) {
	h.unwatched(func(x string, look func()) {
		id := h.add(task("a-"+x, func(t *driver.Task) { t.Delay, t.ExpiresIn = time.Minute, 2*time.Minute }))[0]
		h.advance(2 * time.Minute)
		look()
		h.wantLapsed(id)
	})
}

// wantLapsed wants a task shown as one that has expired, wherever one can look.
func (h *harness) wantLapsed(id string) {
	h.Helper()
	r := h.get(id)
	if r.State != driver.Discarded || r.Reason != driver.ReasonExpired || r.EndedAt.Before(r.ExpiresAt) || r.EndedAt.After(h.now()) {
		h.Errorf("task %s is %s (%s), ended at %v, want discarded (expired) at %v", id, r.State, r.Reason, r.EndedAt, r.ExpiresAt)
	}
	h.wantListedAs(id, driver.Discarded)
}

// wantListedAs wants a task in the lists of one state, and in no other's.
func (h *harness) wantListedAs(id string, want driver.State) {
	h.Helper()
	for _, state := range driver.States {
		ids := recordIDs(h.listAll(driver.Filter{States: []driver.State{state}}))
		if slices.Contains(ids, id) != (state == want) {
			h.Errorf("task %s is %s, the list of %s has %v", id, want, state, ids)
		}
	}
}

func presentFigures(h *harness) {
	h.add(task("now", nil), delayed("due"), expiring("gone", time.Minute),
		task("both", func(t *driver.Task) { t.Delay, t.ExpiresIn = time.Minute, time.Minute+time.Second }),
		task("later", func(t *driver.Task) { t.Delay = time.Hour }), task("other", func(t *driver.Task) { t.Type, t.ExpiresIn = "u", time.Second }))
	h.advance(2 * time.Minute)
	q := h.queue(driver.DefaultQueue)
	h.wantCounts(q.Counts, map[driver.State]int{driver.Available: 2, driver.Discarded: 3, driver.Scheduled: 1})
	if len(q.Types) != 1 || q.Types[0].Type != "t" {
		h.Fatalf("the types with tasks that have not ended are %+v, want t", q.Types)
	}
	h.wantCounts(q.Types[0].Counts, map[driver.State]int{driver.Available: 2, driver.Scheduled: 1, driver.Discarded: q.Types[0].Counts[driver.Discarded]})
	if q.Totals.Discarded != 3 || q.Totals.Enqueued != 6 {
		h.Errorf("the totals are %+v, want 6 enqueued and 3 discarded", q.Totals)
	}
}

// wantCounts compares counts without those that are 0.
func (h *harness) wantCounts(got, want map[driver.State]int) {
	h.Helper()
	for _, state := range driver.States {
		if got[state] != want[state] {
			h.Errorf("%d tasks are %s, want %d: %v", got[state], state, want[state], got)
		}
	}
}

func presentBusy(h *harness) {
	for _, s := range unserved {
		s.begin(h)
	}
	h.add(delayed("due"), expiring("gone", time.Minute))
	h.advance(time.Minute)
	for _, s := range unserved {
		s.look(h)
	}
	h.wantCounts(h.queue(driver.DefaultQueue).Counts, map[driver.State]int{driver.Available: 1, driver.Discarded: 1})
}

func presentOldest(h *harness) {
	h.add(expiring("gone", time.Minute))
	h.advance(time.Second)
	h.add(delayed("due"))
	h.advance(time.Second)
	h.add(expiring("stays", time.Hour))
	want := h.get("stays").DueAt
	h.advance(time.Minute - 2*time.Second)
	if got := h.queue(driver.DefaultQueue).OldestAvailable; !together(got, want) {
		h.Errorf("the oldest available task is of %v, want that of %v", got, want)
	}
	h.applyOK(driver.OpDelete, "stays")
	h.advance(time.Second)
	if got, want := h.queue(driver.DefaultQueue).OldestAvailable, h.get("due").DueAt; !together(got, want) {
		h.Errorf("the oldest available task is of %v, want the due one's %v", got, want)
	}
	h.applyOK(driver.OpCancel, "due")
	if got := h.queue(driver.DefaultQueue).OldestAvailable; !got.IsZero() {
		h.Errorf("the oldest available task is of %v, but there is none", got)
	}
}

func together(a, b time.Time) bool { return a.Sub(b).Abs() < 100*time.Millisecond }

func presentUnique(h *harness) {
	policies := []driver.OnConflict{driver.ConflictReturn, driver.ConflictReject, driver.ConflictReplace}
	h.unwatched(func(x string, look func()) {
		for _, until := range []driver.UniqueUntil{driver.UntilDone, driver.UntilStarted} {
			for _, policy := range policies {
				for _, delay := range []time.Duration{0, time.Minute} {
					h.wantKeyFree(string(until)+string(policy)+delay.String()+"-"+x, driver.Unique{Until: until, OnConflict: policy}, delay, look)
				}
			}
		}
	})
}

// wantKeyFree wants the unique key of a task that has expired, delay after it was enqueued, to be free for the next.
func (h *harness) wantKeyFree(name string, u driver.Unique, delay time.Duration, look func()) {
	h.Helper()
	u.Key = "key-" + name
	first := task("first-"+name, func(t *driver.Task) { t.Unique, t.Delay, t.ExpiresIn = &u, delay, delay+time.Minute })
	h.add(first)
	h.advance(delay + time.Minute)
	look()
	// One with an id of its own may live in another shard, one without in the key's.
	h.add(task("second-"+name, func(t *driver.Task) { t.Unique = &u }))
	h.wantLapsed(first.ID)
	h.wantState(driver.Available, "second-"+name)
	reject := u
	reject.OnConflict = driver.ConflictReject
	h.wantErr("a third task of key "+name, h.enqueue(task("", func(t *driver.Task) { t.Unique = &reject }))[0].Err, driver.ErrDuplicate)
}

func presentUniqueTTL(h *harness) {
	u := driver.Unique{Key: "k", Until: driver.UntilTTL, TTL: time.Hour}
	h.add(task("first", func(t *driver.Task) { t.Unique, t.ExpiresIn = &u, time.Minute }))
	h.advance(time.Minute)
	r := h.enqueue(task("", func(t *driver.Task) { t.Unique = &u }))[0]
	if r.ID != "first" || !r.Existing || r.State != driver.Discarded {
		h.Errorf("the result is %+v, want the discarded owner of the key", r)
	}
}

func presentUniqueRetry(h *harness) {
	u := driver.Unique{Key: "k", Until: driver.UntilDone}
	h.register("w")
	h.add(task("done", func(t *driver.Task) { t.Unique = &u }))
	h.end("w", h.claimOne("w", "done"), driver.Complete)
	h.add(task("owner", func(t *driver.Task) { t.Unique, t.ExpiresIn = &u, time.Minute }))
	h.wantErr("a retry while the key is owned", h.apply(driver.OpRetry, "done")[0], driver.ErrDuplicate)
	h.advance(time.Minute)
	h.applyOK(driver.OpRetry, "done")
	h.wantLapsed("owner")
	h.wantErr("a retry of the one that expired", h.apply(driver.OpRetry, "owner")[0], driver.ErrDuplicate)
}

func presentID(h *harness) {
	h.add(expiring("gone", time.Minute), delayed("due"))
	h.advance(time.Minute)
	for id, want := range map[string]driver.State{"gone": driver.Discarded, "due": driver.Available} {
		if r := h.enqueue(task(id, nil))[0]; r.Err != nil || !r.Existing || r.State != want {
			h.Errorf("the result for %s is %+v, want one that exists and is %s", id, r, want)
		}
	}
}

func presentApply(h *harness) {
	h.add(expiring("gone", time.Minute), delayed("due"), delayed("cancelled"))
	h.advance(time.Minute)
	for id, ops := range map[string][]driver.Op{"gone": {driver.OpCancel, driver.OpRun}, "due": {driver.OpRun, driver.OpRetry}} {
		for _, op := range ops {
			h.wantErr(string(op)+" of "+id, h.apply(op, id)[0], driver.ErrState)
		}
	}
	h.applyOK(driver.OpCancel, "cancelled")
	h.wantState(driver.Cancelled, "cancelled")
	res, err := h.store.Apply(h.ctx(), driver.Change{Op: driver.OpCancel, Filter: driver.Filter{States: []driver.State{driver.Available}}})
	h.must(err)
	if res.Changed != 1 {
		h.Errorf("cancelling what is available changed %d tasks, want the due one", res.Changed)
	}
	h.wantState(driver.Cancelled, "due")
}

func presentApplyEnded(h *harness) {
	h.add(expiring("again", time.Minute), expiring("deleted", time.Minute), expiring("filtered", time.Minute),
		task("scheduled", func(t *driver.Task) { t.Delay, t.ExpiresIn = time.Second, time.Minute }))
	h.advance(time.Minute)
	h.applyOK(driver.OpRetry, "again") // its expiry has passed, so it expires again at once
	h.wantLapsed("again")
	h.applyOK(driver.OpDelete, "deleted")
	res, err := h.store.Apply(h.ctx(), driver.Change{Op: driver.OpDelete, Filter: driver.Filter{States: []driver.State{driver.Discarded}}})
	h.must(err)
	if res.Changed != 3 {
		h.Errorf("deleting what is discarded changed %d tasks, want 3", res.Changed)
	}
	got := h.queue(driver.DefaultQueue).Totals
	if want := (driver.Totals{Enqueued: 4, Retried: 1, Discarded: 5}); got != want {
		h.Errorf("the totals are %+v, want %+v", got, want)
	}
}

func presentRecorded(h *harness) {
	h.add(task("now", nil), delayed("due"), expiring("gone", time.Minute),
		task("both", func(t *driver.Task) { t.Delay, t.ExpiresIn = time.Second, time.Minute }))
	h.advance(time.Minute)
	figures := h.queue(driver.DefaultQueue)
	if sum := h.maintain(); sum.Promoted != 2 || sum.Expired != 2 {
		h.Errorf("Maintain did %+v, want 2 promoted and 2 expired", sum)
	}
	if diff := gocmp.Diff(plainQueues([]driver.QueueInfo{figures}), plainQueues([]driver.QueueInfo{h.queue(driver.DefaultQueue)}), equateEmpty); diff != "" {
		h.Errorf("the figures have changed (-before +after):\n%s", diff)
	}
	h.wantLapsed("gone")
	h.wantLapsed("both")
	h.wantState(driver.Available, "due", "now")
}
