package drivertest

import (
	"fmt"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/waggleq/waggle/driver"
)

var retentionCases = []testCase{
	{"ended tasks go by age, each state by its own", retainAge},
	{"ended tasks go by count, the oldest first", retainCount},
	{"ended tasks go by bytes of payload and result, the oldest first", retainBytes},
	{"a count holds however tasks are spread", retainSpread},
	{"nothing is kept under a bound of 0", retainNone},
	{"what is not set of a retention stays as it is", retainUnset},
	{"retention is a queue's own", retainPerQueue},
	{"a task that has not ended is never pruned", retainLive},
	{"a fetch prunes too", retainByFetch},
	{"a pruned task's id and key are free", retainFrees},
	{"the age counts from the last end", retainRetried},
}

// endAs brings new tasks to an end in a queue and returns their ids.
func (h *harness) endAs(o driver.Outcome, queue, prefix string, n int) []string {
	h.Helper()
	worker := "ends-" + prefix
	h.register(worker)
	ids := h.add(inQueue(queue, h.line(prefix, n))...)
	for _, id := range ids {
		h.end(worker, h.claimOne(worker, id, queue), o)
		h.advance(time.Millisecond)
	}
	h.must(h.store.Unregister(h.ctx(), worker))
	return ids
}

var unbounded = driver.Keep{Age: 1000 * time.Hour, Count: -1, Bytes: -1}

// keep sets one bound for all ended states of a queue.
func (h *harness) keep(queue string, k driver.Keep) {
	h.Helper()
	h.setQueue(queue, driver.QueuePatch{Retention: &driver.Retention{Completed: k, Cancelled: k, Discarded: k}})
}

var endings = map[driver.State]driver.Outcome{driver.Completed: driver.Complete, driver.Cancelled: driver.CancelOutcome, driver.Discarded: driver.Discard}

func retainAge(h *harness) {
	ages := []time.Duration{time.Hour, 2 * time.Hour, 3 * time.Hour}
	h.setQueue("q", driver.QueuePatch{Retention: &driver.Retention{
		Completed: driver.Keep{Age: ages[0], Count: -1, Bytes: -1},
		Cancelled: driver.Keep{Age: ages[1], Count: -1, Bytes: -1},
		Discarded: driver.Keep{Age: ages[2], Count: -1, Bytes: -1},
	}})
	for s, o := range endings {
		h.endAs(o, "q", string(s), 2)
	}
	h.advance(50 * time.Minute)
	for i := range 4 {
		if pruned := h.maintain().Pruned; i > 0 && pruned != 2 || i == 0 && pruned != 0 {
			h.Errorf("after %d hours %d were pruned", i, pruned)
		}
		for j, s := range []driver.State{driver.Completed, driver.Cancelled, driver.Discarded} {
			if got := h.queue("q").Counts[s]; (got == 2) != (j >= i) {
				h.Errorf("after %d hours %d tasks are %s", i, got, s)
			}
		}
		h.advance(time.Hour)
	}
}

func retainCount(h *harness) {
	for s, o := range endings {
		q := "q-" + string(s)
		h.keep(q, unbounded)
		ids := h.endAs(o, q, string(s), 6)
		k := unbounded
		k.Count = h.whole(4)
		h.keep(q, k)
		h.maintain()
		h.wantGone(ids[:2], ids[2:])
	}
}

// wantGone wants some tasks pruned and others kept.
func (h *harness) wantGone(gone, kept []string) {
	h.Helper()
	for _, id := range gone {
		if h.find(id) != nil {
			h.Errorf("task %s is still there", id)
		}
	}
	for _, id := range kept {
		if h.find(id) == nil {
			h.Errorf("task %s is gone", id)
		}
	}
}

func retainBytes(h *harness) {
	h.keep(driver.DefaultQueue, unbounded)
	h.register("w")
	var ids []string
	for i := range 5 {
		id := h.near(fmt.Sprint("a-", i))
		h.add(task(id, func(t *driver.Task) { t.Encoding, t.Payload = driver.EncodingRaw, make([]byte, 600) }))
		c := h.claimOne("w", id)
		h.endWith("w", driver.Settlement{ID: id, Token: c.Token, Outcome: driver.Complete, Result: make([]byte, 400), ResultEncoding: driver.EncodingRaw})
		h.advance(time.Millisecond)
		ids = append(ids, id)
	}
	k := unbounded
	k.Bytes = int64(h.whole(3500))
	h.keep(driver.DefaultQueue, k)
	h.maintain()
	h.wantGone(ids[:2], ids[2:])
}

// retainSpread: with several shards it is a bound up to one task a shard.
func retainSpread(h *harness) {
	const n, most = 60, 8
	h.keep(driver.DefaultQueue, unbounded)
	h.add(tasks("a", n)...)
	h.register("w")
	for _, c := range h.claim("w", n) {
		h.end("w", c, driver.Complete)
	}
	k := unbounded
	k.Count = most
	h.keep(driver.DefaultQueue, k)
	pruned := h.maintain().Pruned
	kept, spare := h.queue(driver.DefaultQueue).Counts[driver.Completed], max(h.fixture.Shards-1, 0)
	if kept+pruned != n || kept > most+spare || kept < 1 || h.caps.Ordered && kept != most {
		h.Errorf("of %d tasks %d were pruned and %d are kept, want %d and up to %d more", n, pruned, kept, most, spare)
	}
}

func retainNone(h *harness) {
	h.keep("none", driver.KeepNone)
	ids := h.endAs(driver.Complete, "none", "none", 2)
	h.maintain()
	h.wantGone(ids, nil)
}

// retainUnset changes one bound of one state, and nothing else.
func retainUnset(h *harness) {
	want := driver.DefaultRetention()
	for _, step := range []struct {
		patch  driver.Retention
		change func()
	}{
		{driver.Retention{Completed: driver.Keep{Age: time.Minute}}, func() { want.Completed.Age = time.Minute }},
		{driver.Retention{}, func() {}},
		{driver.Retention{Discarded: driver.KeepNone, Cancelled: driver.Keep{Count: 7}},
			func() { want.Discarded, want.Cancelled.Count = driver.KeepNone, 7 }},
		{driver.Retention{Discarded: driver.Keep{Count: 3}}, func() { want.Discarded = driver.DefaultRetention().Discarded; want.Discarded.Count = 3 }},
	} {
		got := h.setQueue("q", driver.QueuePatch{Retention: &step.patch})
		step.change()
		if got.Retention != want {
			h.Errorf("after %+v: the retention is %+v, want %+v", step.patch, got.Retention, want)
		}
		if got := h.queue("q").Config.Retention; got != want {
			h.Errorf("after %+v: the queue has the retention %+v, want %+v", step.patch, got, want)
		}
	}
}

func retainPerQueue(h *harness) {
	h.keep("short", driver.Keep{Age: time.Minute, Count: -1, Bytes: -1})
	h.keep("long", unbounded)
	short, long := h.endAs(driver.Complete, "short", "short", 2), h.endAs(driver.Complete, "long", "long", 2)
	h.advance(time.Hour)
	h.maintain()
	h.wantGone(short, long)
}

func retainLive(h *harness) {
	h.keep("q", driver.KeepNone)
	var ids []string
	for i, s := range []driver.State{driver.Scheduled, driver.Pending, driver.Available, driver.Retryable} {
		ids = append(ids, h.put(s, task(string(s), func(t *driver.Task) { t.Queue, t.Priority = "q", -i })))
	}
	h.advance(time.Minute)
	h.maintain()
	h.wantGone(nil, ids)
}

func retainByFetch(h *harness) {
	h.keep(driver.DefaultQueue, driver.Keep{Age: time.Minute, Count: -1, Bytes: -1})
	ids := h.endAs(driver.Complete, driver.DefaultQueue, "a", 3)
	h.advance(time.Hour)
	h.register("w")
	for range 10 {
		h.fetch(request("w", 0))
	}
	h.wantGone(ids, nil)
}

func retainFrees(h *harness) {
	h.keep(driver.DefaultQueue, driver.KeepNone)
	h.add(withKey("a", "k"))
	h.register("w")
	h.end("w", h.claimOne("w", "a"), driver.Complete)
	h.maintain()
	h.add(withKey("a", "k"))
	h.wantState(driver.Available, "a")
}

func retainRetried(h *harness) {
	h.keep(driver.DefaultQueue, driver.Keep{Age: time.Hour, Count: -1, Bytes: -1})
	ids := h.endAs(driver.Discard, driver.DefaultQueue, "a", 1)
	h.advance(50 * time.Minute)
	h.applyOK(driver.OpRetry, ids...)
	h.register("w")
	h.end("w", h.claimOne("w", ids[0]), driver.Discard)
	h.advance(50 * time.Minute)
	h.maintain()
	h.wantGone(nil, ids)
	h.advance(20 * time.Minute)
	h.maintain()
	h.wantGone(ids, nil)
}

var maintainCases = []testCase{
	{"with nothing to do it does nothing", maintainNothing},
	{"each step is bounded and More says that work is left", maintainBounded},
	{"Info tells of the engine, its clock and its incarnation", maintainInfo},
	{"the audit of a sound store finds nothing and repairs nothing", maintainAudit},
	{"another handle sees the same store", maintainOtherHandle},
}

func maintainNothing(h *harness) {
	h.put(driver.Completed, task("done", nil))
	h.add(tasks("a", 3)...)
	for range 2 {
		res, err := h.store.Maintain(h.ctx(), 0)
		h.must(err)
		if *res != (driver.MaintainResult{}) {
			h.Errorf("Maintain did %+v, want nothing", *res)
		}
	}
}

func maintainBounded(h *harness) {
	list := tasks("a", 30)
	for i, t := range list {
		if i%2 == 0 {
			t.Delay = time.Minute
		} else {
			t.ExpiresIn = time.Minute
		}
	}
	h.add(list...)
	h.advance(2 * time.Minute)
	promoted, expired := 0, 0
	for rounds := 0; ; rounds++ {
		res, err := h.store.Maintain(h.ctx(), 4)
		h.must(err)
		if res.Promoted > 4 || res.Expired > 4 || rounds > 30 {
			h.Fatalf("round %d of at most 4 a step did %+v", rounds, *res)
		}
		promoted, expired = promoted+res.Promoted, expired+res.Expired
		if !res.More {
			break
		}
	}
	if promoted != 15 || expired != 15 {
		h.Errorf("promoted %d and expired %d, want 15 and 15", promoted, expired)
	}
}

func maintainInfo(h *harness) {
	info, err := h.store.Info(h.ctx())
	h.must(err)
	if info.Engine != h.caps.Engine || info.Version == "" || info.Incarnation == "" || info.Now.Location() != time.UTC || info.Now.IsZero() {
		h.Errorf("got %+v", *info)
	}
	h.advance(time.Hour)
	later, err := h.store.Info(h.ctx())
	h.must(err)
	if later.Now.Before(info.Now.Add(time.Hour)) || later.Incarnation != info.Incarnation {
		h.Errorf("an hour later: %v in incarnation %s, before: %v in %s", later.Now, later.Incarnation, info.Now, info.Incarnation)
	}
}

func maintainAudit(h *harness) {
	for _, s := range driver.States {
		h.put(s, withKey(string(s), string(s)))
	}
	before := h.listAll(driver.Filter{})
	for _, repair := range []bool{false, true} {
		findings, err := h.store.Audit(h.ctx(), repair)
		h.must(err)
		for _, f := range findings {
			h.Errorf("finding with repair %v: %+v", repair, f)
		}
	}
	if diff := cmp.Diff(before, h.listAll(driver.Filter{}), equateEmpty); diff != "" {
		h.Errorf("the audit changed a sound store (-before +after):\n%s", diff)
	}
}

func maintainOtherHandle(h *harness) {
	other := h.reopen()
	h.add(tasks("a", 3)...)
	other.register("w")
	c := other.claimOne("w", "a-000")
	h.end("w", c, driver.Complete)
	other.wantState(driver.Completed, "a-000")
	other.setQueue(driver.DefaultQueue, driver.QueuePatch{Paused: new(true)})
	if got := h.claim("w", 1); len(got) != 0 {
		h.Errorf("a queue that was paused elsewhere gave %v", claimIDs(got))
	}
	a, err := h.store.Info(h.ctx())
	h.must(err)
	b, err := other.store.Info(h.ctx())
	h.must(err)
	if a.Incarnation != b.Incarnation {
		h.Errorf("the handles tell of incarnations %s and %s", a.Incarnation, b.Incarnation)
	}
	h.advance(time.Hour)
	if now := other.now(); now.Before(b.Now.Add(time.Hour)) {
		h.Errorf("the other handle's clock is %v, want it moved with the store's from %v", now, b.Now)
	}
}
