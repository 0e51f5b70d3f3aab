package drivertest

import (
	"fmt"
	"time"

	"github.com/waggleq/waggle/driver"
)

var uniqueCases = []testCase{
	{"every end of uniqueness with every policy in every state of the owner", uniqueTable},
	{"the defaults are until done and return", uniqueDefaults},
	{"two tasks of one batch compete for a key", uniqueInBatch},
	{"a key is one namespace for the whole store", uniqueAcrossQueues},
	{"a retry keeps the key", func(h *harness) { uniqueKept(h, driver.Retry) }},
	{"a snooze keeps the key", func(h *harness) { uniqueKept(h, driver.Snooze) }},
	{"a release keeps the key", func(h *harness) { uniqueKept(h, driver.Release) }},
	{"a crash keeps the key", func(h *harness) { uniqueKept(h, driver.Crash) }},
	{"until started is over with the first claim, also after a release", uniqueStartedOnce},
	{"every end of the owner frees a key until done", uniqueFreed},
	{"a TTL is counted from the enqueue", uniqueTTL},
	{"replacing an owner gives the key to the newcomer", uniqueReplace},
	{"what was replaced earlier in a batch is reported as cancelled", uniqueReplacedInBatch},
	{"a batch reports what it replaces as of its order, whatever the ids and keys", uniqueBatchInOrder},
	{"a repeated id in a batch replaces nothing", uniqueRepeatReplacesNothing},
	{"an id that is there anew has no claim to the key of its earlier life", uniqueEarlierLife},
	{"a person's retry takes the key again", uniqueRetried},
	{"a person's retry fails if the key is taken", uniqueRetryTaken},
	{"the owner's own id is existing, not a duplicate", uniqueSameID},
	{"of many callers one gets the key", uniqueRace},
}

// owned tells whether the owner of a key until u still owns it, when it is in state s; "" stands for deleted.
func owned(u driver.UniqueUntil, s driver.State) bool {
	switch u {
	case driver.UntilDone:
		return s != "" && !s.Ended()
	case driver.UntilStarted:
		return s != "" && s != driver.Active && !s.Ended()
	default:
		return true
	}
}

func unique(until driver.UniqueUntil, on driver.OnConflict, key string) *driver.Unique {
	u := &driver.Unique{Key: key, Until: until, OnConflict: on}
	if until == driver.UntilTTL {
		u.TTL = time.Hour
	}
	return u
}

func uniqueTable(h *harness) {
	untils := []driver.UniqueUntil{driver.UntilDone, driver.UntilStarted, driver.UntilTTL}
	policies := []driver.OnConflict{driver.ConflictReturn, driver.ConflictReject, driver.ConflictReplace}
	// Retryable owners were claimed once: uniqueKept has them.
	states := []driver.State{driver.Scheduled, driver.Pending, driver.Available, driver.Active, driver.Completed, driver.Cancelled, driver.Discarded, ""}
	for _, until := range untils {
		for _, policy := range policies {
			for _, state := range states {
				h.uniqueCase(until, policy, state)
			}
		}
	}
}

func (h *harness) uniqueCase(until driver.UniqueUntil, policy driver.OnConflict, state driver.State) {
	h.Helper()
	name := fmt.Sprintf("%s.%s.%s", until, policy, state)
	owner := task("owner."+name, func(t *driver.Task) { t.Unique = unique(until, policy, name) })
	if state == "" {
		h.add(owner)
		h.applyOK(driver.OpDelete, owner.ID)
	} else {
		h.put(state, owner)
	}
	// The owner decides how long it owns the key, the newcomer what becomes of the conflict.
	newcomer := task("new."+name, func(t *driver.Task) { t.Unique = unique(driver.UntilDone, policy, name) })
	r := h.enqueue(newcomer)[0]

	taken := owned(until, state)
	wantErr := taken && (policy == driver.ConflictReject || policy == driver.ConflictReplace && state == driver.Active)
	existing := taken && policy == driver.ConflictReturn
	switch {
	case wantErr:
		h.wantErr(name, r.Err, driver.ErrDuplicate)
		if r.ID != owner.ID {
			h.Errorf("%s: the result names %q, want the owner", name, r.ID)
		}
	case existing:
		if r.Err != nil || !r.Existing || r.ID != owner.ID || state != "" && r.State != state {
			h.Errorf("%s: got %+v, want the existing owner in state %q", name, r, state)
		}
	case r.Err != nil || r.Existing || r.ID != newcomer.ID:
		h.Errorf("%s: got %+v, want the newcomer accepted", name, r)
	}
	if accepted := h.find(newcomer.ID) != nil; accepted == (wantErr || existing) {
		h.Errorf("%s: newcomer stored: %v", name, accepted)
	}
	if state != "" {
		h.wantOwner(name, owner.ID, state, taken && policy == driver.ConflictReplace && state != driver.Active && !state.Ended())
	}
}

func (h *harness) wantOwner(name, id string, state driver.State, replaced bool) {
	h.Helper()
	r := h.get(id)
	if replaced && (r.State != driver.Cancelled || r.Reason != driver.ReasonReplaced) {
		h.Errorf("%s: the owner is %s (%s), want cancelled (replaced)", name, r.State, r.Reason)
	}
	if !replaced && (r.State != state || r.Reason == driver.ReasonReplaced) {
		h.Errorf("%s: the owner is %s (%s), want it left %s", name, r.State, r.Reason, state)
	}
}

func withKey(id, key string) *driver.Task {
	return task(id, func(t *driver.Task) { t.Unique = &driver.Unique{Key: key} })
}

// wantTaken fails the test unless a key is taken, or free, which it tells by trying.
func (h *harness) wantTaken(what, key string, taken bool) {
	h.Helper()
	probe := &driver.Task{Type: "probe", Queue: "probe", Unique: unique(driver.UntilDone, driver.ConflictReject, key)}
	r := h.enqueue(probe)[0]
	switch {
	case taken:
		h.wantErr(what, r.Err, driver.ErrDuplicate)
	case r.Err != nil:
		h.Errorf("%s: the key is taken: %v", what, r.Err)
	default:
		h.applyOK(driver.OpDelete, r.ID)
	}
}

func uniqueDefaults(h *harness) {
	h.add(withKey("a", "k"))
	if u := h.get("a").Unique; u == nil || *u != *unique(driver.UntilDone, driver.ConflictReturn, "k") {
		h.Errorf("the stored Unique is %+v", u)
	}
	if r := h.enqueue(withKey("b", "k"))[0]; r.Err != nil || !r.Existing || r.ID != "a" {
		h.Errorf("got %+v, want the existing a", r)
	}
}

func uniqueInBatch(h *harness) {
	results := h.enqueue(withKey("a", "k"), withKey("b", "k"), withKey("c", "other"))
	if results[0].Existing || !results[1].Existing || results[1].ID != "a" || results[2].Existing {
		h.Errorf("got %+v", results)
	}
}

func uniqueAcrossQueues(h *harness) {
	h.add(withKey("a", "k"))
	r := h.enqueue(&driver.Task{ID: "b", Type: "other", Queue: "other", Unique: &driver.Unique{Key: "k"}})[0]
	if !r.Existing || r.ID != "a" {
		h.Errorf("got %+v, want the existing a", r)
	}
}

func uniqueKept(h *harness, o driver.Outcome) {
	h.add(withKey("a", "k"))
	h.register("w")
	c := h.claimOne("w", "a")
	if o == driver.Crash {
		h.lose()
	} else {
		h.endWith("w", driver.Settlement{ID: "a", Token: c.Token, Outcome: o, Delay: time.Hour})
	}
	h.wantTaken("after "+string(o), "k", true)
}

func uniqueStartedOnce(h *harness) {
	a := withKey("a", "k")
	a.Unique.Until = driver.UntilStarted
	h.add(a)
	h.wantTaken("before the claim", "k", true)
	h.register("w")
	c := h.claimOne("w", "a")
	h.wantTaken("after the claim", "k", false)
	h.end("w", c, driver.Release)
	h.wantTaken("after the release", "k", false)
}

func uniqueFreed(h *harness) {
	h.register("w")
	for _, o := range []driver.Outcome{driver.Complete, driver.Discard, driver.CancelOutcome} {
		key := string(o)
		h.add(withKey(key, key))
		h.end("w", h.claimOne("w", key), o)
		h.wantTaken("after "+key, key, false)
	}
	spent := withKey("spent", "spent")
	spent.MaxAttempts = 1
	h.add(spent)
	h.end("w", h.claimOne("w", "spent"), driver.Retry)
	h.wantTaken("after the last attempt", "spent", false)

	h.add(withKey("called-off", "called-off"))
	h.applyOK(driver.OpCancel, "called-off")
	h.wantTaken("after cancel", "called-off", false)

	expired := withKey("expired", "expired")
	expired.ExpiresIn = time.Minute
	h.add(expired)
	h.advance(2 * time.Minute)
	h.maintain()
	h.wantState(driver.Discarded, "expired")
	h.wantTaken("after the expiry", "expired", false)

	crashed := withKey("crashed", "crashed")
	crashed.CrashLimit = 1
	h.add(crashed)
	h.claimOne("w", "crashed")
	h.lose()
	h.wantState(driver.Discarded, "crashed")
	h.wantTaken("after the last crash", "crashed", false)
}

func uniqueTTL(h *harness) {
	a := withKey("a", "k")
	a.Unique.Until, a.Unique.TTL = driver.UntilTTL, time.Hour
	h.add(a)
	h.advance(59 * time.Minute)
	h.wantTaken("within the TTL", "k", true)
	h.advance(time.Minute)
	h.wantTaken("after the TTL", "k", false)
	h.wantState(driver.Available, "a")
}

func uniqueReplace(h *harness) {
	replacing := func(id string) *driver.Task {
		t := withKey(id, "k")
		t.Unique.OnConflict = driver.ConflictReplace
		return t
	}
	h.add(replacing("a"))
	h.add(replacing("b"))
	if r := h.enqueue(withKey("c", "k"))[0]; !r.Existing || r.ID != "b" {
		h.Errorf("got %+v, want the existing b", r)
	}
	if got := h.get("a"); got.State != driver.Cancelled || got.Reason != driver.ReasonReplaced || got.EndedAt.IsZero() {
		h.Errorf("the replaced task is %s (%s), ended %v", got.State, got.Reason, got.EndedAt)
	}
	h.register("w")
	h.end("w", h.claimOne("w", "b"), driver.Complete)
	h.wantTaken("after b completed", "k", false)
}

func uniqueReplacedInBatch(h *harness) {
	h.add(withKey("a", "k"))
	b := withKey("b", "k")
	b.Unique.OnConflict = driver.ConflictReplace
	res := h.enqueue(withKey("a", "other"), b, withKey("a", "k"))
	for i, want := range []driver.State{driver.Available, driver.Available, driver.Cancelled} {
		if r := res[i]; r.Err != nil || r.State != want || r.Existing != (i != 1) {
			h.Errorf("result %d: got %+v, want the state %s", i, r, want)
		}
	}
}

// uniqueBatchInOrder has the owner of a key named before and after the task that replaces it, with ids that the caller
// chose and with ids that the store gave. The names vary so that in a store of several shards owner, key and newcomer are in different ones,
// each two in the same, and all in one.
func uniqueBatchInOrder(h *harness) {
	const each = 16
	for kind := range 4 {
		for i := range each {
			key := fmt.Sprintf("%d.%d", kind, i)
			owner, newcomer := withKey("", key), withKey("", key)
			newcomer.Unique.OnConflict = driver.ConflictReplace
			if kind&1 != 0 {
				owner.ID = fmt.Sprintf("owner.%s.%d", key, i/4)
			}
			if kind&2 != 0 {
				newcomer.ID = fmt.Sprintf("new.%s.%d", key, i/2)
			}
			id := h.add(owner)[0]
			res := h.enqueue(task(id, nil), newcomer, task(id, nil))
			for n, want := range []driver.EnqueueResult{
				{ID: id, State: driver.Available, Existing: true},
				{ID: newcomer.ID, State: driver.Available},
				{ID: id, State: driver.Cancelled, Existing: true},
			} {
				if want.Durability = res[n].Durability; res[n] != want {
					h.Errorf("owner %s, newcomer %s, result %d: got %+v, want %+v", id, newcomer.ID, n, res[n], want)
				}
			}
			h.wantState(driver.Cancelled, id)
			h.wantState(driver.Available, newcomer.ID)
		}
	}
}

// uniqueEarlierLife enqueues the id of a task that has ended and was removed again, with another key and with none.
func uniqueEarlierLife(h *harness) {
	for i := range 8 {
		id, key, other := fmt.Sprint("a-", i), fmt.Sprint("k-", i), ""
		if i%2 == 0 {
			other = fmt.Sprint("other-", i)
		}
		h.add(withKey(id, key))
		h.applyOK(driver.OpCancel, id)
		h.applyOK(driver.OpDelete, id)
		again := task(id, nil)
		if other != "" {
			again = withKey(id, other)
		}
		h.add(again)
		h.wantTaken("by "+id+", in its second life", key, false)
		replacing := withKey("", key)
		replacing.Unique.OnConflict = driver.ConflictReplace
		h.add(replacing)
		h.wantState(driver.Available, id)
	}
}

func uniqueRepeatReplacesNothing(h *harness) {
	h.add(withKey("owner", "k2"))
	first, again := withKey("a", "k1"), withKey("a", "k2")
	again.Unique.OnConflict = driver.ConflictReplace
	res := h.enqueue(first, again)
	if r := res[1]; r.Err != nil || !r.Existing || r.ID != "a" {
		h.Errorf("got %+v, want the existing a", r)
	}
	h.wantState(driver.Available, "owner")
	h.wantTaken("after the repeat", "k2", true)
}

func uniqueRetried(h *harness) {
	h.put(driver.Discarded, withKey("a", "k"))
	h.applyOK(driver.OpRetry, "a")
	h.wantTaken("after the retry", "k", true)
}

func uniqueRetryTaken(h *harness) {
	h.put(driver.Discarded, withKey("a", "k"))
	h.add(withKey("b", "k"))
	h.wantErr("retry", h.apply(driver.OpRetry, "a")[0], driver.ErrDuplicate)
	h.wantState(driver.Discarded, "a")
}

func uniqueSameID(h *harness) {
	reject := func() *driver.Task {
		t := withKey("a", "k")
		t.Unique.OnConflict = driver.ConflictReject
		return t
	}
	h.add(reject())
	if r := h.enqueue(reject())[0]; r.Err != nil || !r.Existing || r.ID != "a" {
		h.Errorf("got %+v, want the existing a", r)
	}
}

func uniqueRace(h *harness) {
	const callers = 16
	results := make(chan driver.EnqueueResult, callers)
	for i := range callers {
		go func() {
			res, err := h.store.Enqueue(h.limit, []*driver.Task{withKey(fmt.Sprint("c-", i), "k")}, driver.EnqueueOptions{})
			if err != nil {
				results <- driver.EnqueueResult{Err: err}
				return
			}
			results <- res[0]
		}()
	}
	owners, accepted := map[string]bool{}, 0
	for range callers {
		r := <-results
		h.must(r.Err)
		owners[r.ID] = true
		if !r.Existing {
			accepted++
		}
	}
	if accepted != 1 || len(owners) != 1 {
		h.Errorf("%d of %d callers were accepted, the results name %d owners", accepted, callers, len(owners))
	}
}
