package drivertest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/waggleq/waggle/driver"
)

// lease is what the suite's workers ask for: long, so that a store with a running clock does not end it during a test.
const lease = 5 * time.Minute

// patience is how long a test waits for what must come. It is a limit for failures, never a duration that passes.
const patience = 30 * time.Second

// harness is one test's store with the calls that tests make, each failing the test on an error that was not expected.
type harness struct {
	testing.TB
	store   driver.Store
	fixture *Fixture
	caps    driver.Capabilities
	closed  bool            // the test closed the store itself
	limit   context.Context // ends with the test, or when patience is at its end
}

func newHarness(t testing.TB, e Engine) *harness {
	t.Helper()
	f := e.Open(t)
	h := &harness{TB: t, store: f.Store, fixture: f, caps: f.Store.Capabilities()}
	if h.caps.Ordered == (f.Shard != nil) {
		t.Fatal("a fixture tells the shards of its ids where the store is not Ordered, and only there")
	}
	var cancel context.CancelFunc
	h.limit, cancel = context.WithTimeout(t.Context(), 2*patience)
	t.Cleanup(func() {
		cancel()
		if !h.closed {
			Audit(t, f.Store)
		}
	})
	return h
}

func (h *harness) ctx() context.Context { return h.limit }

// close audits and closes the store before the test ends.
func (h *harness) close() {
	h.Helper()
	Audit(h, h.store)
	h.closed = true
	h.must(h.store.Close())
}

func (h *harness) advance(d time.Duration) { h.fixture.Advance(d) }

// now returns the store's present.
func (h *harness) now() time.Time {
	h.Helper()
	info, err := h.store.Info(h.ctx())
	h.must(err)
	return info.Now
}

// must fails the test on an error.
func (h *harness) must(err error) {
	h.Helper()
	if err != nil {
		h.Fatalf("unexpected error: %v", err)
	}
}

// wantErr fails the test unless err wraps want; a nil want wants nil.
func (h *harness) wantErr(what string, err, want error) {
	h.Helper()
	if want == nil && err != nil || !errors.Is(err, want) {
		h.Errorf("%s: got error %v, want %v", what, err, want)
	}
}

// reopen returns another handle on the same data, or skips the test on an engine that has none.
func (h *harness) reopen() *harness {
	h.Helper()
	if !h.caps.Shared {
		h.Skipf("the %s store can't be shared", h.caps.Engine)
	}
	if h.fixture.Reopen == nil {
		h.Fatalf("the %s store can be shared, but its fixture has no Reopen", h.caps.Engine)
	}
	other := *h
	other.store = h.fixture.Reopen(h.TB)
	return &other
}

// enqueue returns the results of one call.
func (h *harness) enqueue(tasks ...*driver.Task) []driver.EnqueueResult {
	h.Helper()
	results, err := h.store.Enqueue(h.ctx(), tasks, driver.EnqueueOptions{})
	h.must(err)
	if len(results) != len(tasks) {
		h.Fatalf("Enqueue of %d tasks returned %d results", len(tasks), len(results))
	}
	return results
}

// add enqueues tasks that must be accepted, and returns their ids.
func (h *harness) add(tasks ...*driver.Task) []string {
	h.Helper()
	ids := make([]string, len(tasks))
	for i, r := range h.enqueue(tasks...) {
		if r.Err != nil || r.Existing {
			h.Fatalf("task %d was not accepted: %+v", i, r)
		}
		ids[i] = r.ID
	}
	return ids
}

// task returns a task with an id; edit may be nil.
func task(id string, edit func(*driver.Task)) *driver.Task {
	t := &driver.Task{ID: id, Type: "t", Payload: []byte(`{"n":1}`)}
	if edit != nil {
		edit(t)
	}
	return t
}

// tasks returns n tasks with the ids prefix-000, prefix-001, …
func tasks(prefix string, n int) []*driver.Task {
	list := make([]*driver.Task, n)
	for i := range list {
		list[i] = task(fmt.Sprintf("%s-%03d", prefix, i), nil)
	}
	return list
}

// near returns an id for a task that is to be ordered among others: all that it returns live in one shard.
func (h *harness) near(id string) string {
	if h.caps.Ordered {
		return id
	}
	for i := 0; ; i++ {
		if other := fmt.Sprintf("%s.%d", id, i); h.fixture.Shard(other) == 0 {
			return other
		}
	}
}

// line is tasks with ids of one shard, see near.
func (h *harness) line(prefix string, n int) []*driver.Task {
	list := tasks(prefix, n)
	for _, t := range list {
		t.ID = h.near(t.ID)
	}
	return list
}

// ordered reports whether the store promises the order of these tasks.
func (h *harness) ordered(ids []string) bool {
	return h.caps.Ordered || !slices.ContainsFunc(ids, func(id string) bool { return h.fixture.Shard(id) != h.fixture.Shard(ids[0]) })
}

// whole is the bound for a store of which one shard gets part as its share.
func (h *harness) whole(part int) int { return part * max(h.fixture.Shards, 1) }

// register makes workers known.
func (h *harness) register(workers ...string) {
	h.Helper()
	for _, w := range workers {
		h.must(h.store.Register(h.ctx(), driver.WorkerInfo{ID: w, Host: "host-" + w, PID: 7, Build: "v1", Slots: 10}, lease))
	}
}

// request asks for tasks of all types in the default queue, or in the queues given.
func request(worker string, n int, queues ...string) driver.FetchRequest {
	if len(queues) == 0 {
		queues = []string{driver.DefaultQueue}
	}
	return driver.FetchRequest{Worker: worker, Lease: lease, Queues: queues, Max: n}
}

func (h *harness) fetch(req driver.FetchRequest) *driver.FetchResult {
	h.Helper()
	res, err := h.store.Fetch(h.ctx(), req)
	h.must(err)
	return res
}

// claim fetches up to n tasks and returns the claims.
func (h *harness) claim(worker string, n int, queues ...string) []driver.Claim {
	h.Helper()
	return h.fetch(request(worker, n, queues...)).Claims
}

// claimOne fetches one task and fails the test if there is none, or another one than id.
func (h *harness) claimOne(worker, id string, queues ...string) driver.Claim {
	h.Helper()
	claims := h.claim(worker, 1, queues...)
	if len(claims) != 1 || claims[0].ID != id {
		h.Fatalf("%s fetched %v, want the task %s", worker, claimIDs(claims), id)
	}
	return claims[0]
}

func claimIDs(claims []driver.Claim) []string {
	ids := make([]string, len(claims))
	for i, c := range claims {
		ids[i] = c.ID
	}
	return ids
}

// settle returns the errors of one call.
func (h *harness) settle(worker string, items ...driver.Settlement) []error {
	h.Helper()
	errs, err := driver.SettleErrors(h.settleResults(worker, items...), nil)
	h.must(err)
	return errs
}

// settleResults returns the results of one call. One with an error has no state, and one without has one.
func (h *harness) settleResults(worker string, items ...driver.Settlement) []driver.SettleResult {
	h.Helper()
	results, err := h.store.Settle(h.ctx(), worker, items)
	h.must(err)
	if len(results) != len(items) {
		h.Fatalf("Settle of %d items returned %d results", len(items), len(results))
	}
	for i, r := range results {
		if (r.Err == nil) == (r.State == "") || r.Reason != "" && !r.State.Ended() {
			h.Errorf("the settlement of %s has the result %+v", items[i].ID, r)
		}
	}
	return results
}

// end settles one claim with an outcome, which must be accepted.
func (h *harness) end(worker string, c driver.Claim, o driver.Outcome) {
	h.Helper()
	h.endWith(worker, driver.Settlement{ID: c.ID, Token: c.Token, Outcome: o})
}

func (h *harness) endWith(worker string, s driver.Settlement) {
	h.Helper()
	h.must(h.settle(worker, s)[0])
}

// get returns a record that must exist.
func (h *harness) get(id string) *driver.Record {
	h.Helper()
	r := h.find(id)
	if r == nil {
		h.Fatalf("there is no record of task %s", id)
	}
	return r
}

// find returns a record, or nil.
func (h *harness) find(id string) *driver.Record {
	h.Helper()
	records, err := h.store.Get(h.ctx(), []string{id})
	h.must(err)
	if len(records) != 1 {
		h.Fatalf("Get of one id returned %d records", len(records))
	}
	return records[0]
}

// wantState fails the test unless all tasks are in a state.
func (h *harness) wantState(want driver.State, ids ...string) {
	h.Helper()
	for _, id := range ids {
		if r := h.get(id); r.State != want {
			h.Errorf("task %s is %s, want %s", id, r.State, want)
		}
	}
}

// put stores a task and brings it into a state, in a queue named like the task unless it names one. Claims are made by
// the worker "put".
func (h *harness) put(s driver.State, t *driver.Task) string {
	h.Helper()
	t.Queue = cmp.Or(t.Queue, "q-"+t.ID)
	switch s {
	case driver.Scheduled:
		t.Delay = time.Hour
	case driver.Pending:
		t.Hold = true
	}
	h.add(t)
	outcome, claimed := map[driver.State]driver.Outcome{driver.Active: "", driver.Retryable: driver.Retry,
		driver.Completed: driver.Complete, driver.Cancelled: driver.CancelOutcome, driver.Discarded: driver.Discard}[s]
	if claimed {
		h.register("put")
		c := h.claimOne("put", t.ID, t.Queue)
		if outcome == driver.Retry {
			h.endWith("put", driver.Settlement{ID: c.ID, Token: c.Token, Outcome: outcome, Delay: time.Hour})
		} else if outcome != "" {
			h.end("put", c, outcome)
		}
	}
	h.wantState(s, t.ID)
	return t.ID
}

// lose lets the leases of all workers run out and recovers what they held.
func (h *harness) lose() driver.MaintainResult {
	h.Helper()
	h.advance(lease + time.Second)
	return h.maintain()
}

// apply does an operation on ids and returns the error of each.
func (h *harness) apply(op driver.Op, ids ...string) []error {
	h.Helper()
	res, err := h.store.Apply(h.ctx(), driver.Change{Op: op, IDs: ids})
	h.must(err)
	if len(res.Errors) != len(ids) {
		h.Fatalf("Apply on %d ids returned %d errors", len(ids), len(res.Errors))
	}
	return res.Errors
}

// applyOK does an operation that must succeed on every id.
func (h *harness) applyOK(op driver.Op, ids ...string) {
	h.Helper()
	for i, err := range h.apply(op, ids...) {
		if err != nil {
			h.Fatalf("%s of %s: %v", op, ids[i], err)
		}
	}
}

// maintain runs Maintain with the default bound until nothing is left, and returns the sums.
func (h *harness) maintain() driver.MaintainResult {
	h.Helper()
	var sum driver.MaintainResult
	for range 1000 {
		r, err := h.store.Maintain(h.ctx(), 0)
		h.must(err)
		sum.Promoted, sum.Expired = sum.Promoted+r.Promoted, sum.Expired+r.Expired
		sum.Recovered, sum.Pruned = sum.Recovered+r.Recovered, sum.Pruned+r.Pruned
		if !r.More {
			return sum
		}
	}
	h.Fatal("Maintain says More for ever")
	return sum
}

// queue returns a queue's figures; the queue must exist.
func (h *harness) queue(name string) driver.QueueInfo {
	h.Helper()
	list, err := h.store.Queues(h.ctx())
	h.must(err)
	for _, q := range list {
		if q.Name == name {
			return q
		}
	}
	h.Fatalf("there is no queue %s", name)
	return driver.QueueInfo{}
}

func (h *harness) setQueue(queue string, patch driver.QueuePatch) *driver.QueueConfig {
	h.Helper()
	c, err := h.store.SetQueue(h.ctx(), queue, patch)
	h.must(err)
	return c
}

// await runs one Await in its own goroutine and returns the channel that gets its result.
func (h *harness) await(req driver.AwaitRequest) <-chan error {
	if req.Max == 0 {
		req.Max = 2 * patience // so that only a wake-up, or the test's failure, ends it in time
	}
	ctx, done := h.limit, make(chan error, 1)
	go func() { done <- h.store.Await(ctx, req) }()
	return done
}

// wantWoken waits for the end of an Await.
func (h *harness) wantWoken(what string, done <-chan error) {
	h.Helper()
	select {
	case err := <-done:
		if err != nil {
			h.Errorf("%s: Await returned %v, want nil", what, err)
		}
	case <-time.After(patience):
		h.Fatalf("%s: Await did not return", what)
	}
}

// listAll returns all records that match a filter.
func (h *harness) listAll(f driver.Filter) []*driver.Record {
	h.Helper()
	var all []*driver.Record
	for cursor := ""; ; {
		page, err := h.store.List(h.ctx(), f, driver.Page{Cursor: cursor, Size: driver.MaxPage})
		h.must(err)
		all = append(all, page.Records...)
		if cursor = page.Next; cursor == "" {
			return all
		}
	}
}
