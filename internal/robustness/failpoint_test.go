package robustness

import (
	"context"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/waggleq/waggle/driver"
)

// failPoint is where a child dies or freezes.
type failPoint struct {
	Op   string // a method of the store, or "Handler"
	When string // before, during or after
	Nth  int64  // which call it is, of those that fit; 0: the first
	// Min is how many items the call must have to fit: tasks enqueued or claimed, outcomes settled, tasks recovered.
	Min int
	// Outcome, if set, is one that the settled batch must have.
	Outcome driver.Outcome
	// Within is how long after the start of the call a death during it comes at the latest.
	Within time.Duration
	// Freeze has the process stop instead of die, until the parent thaws it and opens the gate "thawed".
	Freeze bool
}

// The times of a death. During is somewhere between the start of the call and its return.
const (
	before = "before"
	during = "during"
	after  = "after"
)

// failStore is a store whose process dies at a fail point.
type failStore struct {
	driver.Store
	point failPoint
	seen  atomic.Int64
	die   func()
}

// withFailPoint returns s itself if there is no fail point.
func withFailPoint(s driver.Store, p *failPoint, die func()) driver.Store {
	if p == nil {
		return s
	}
	return &failStore{Store: s, point: *p, die: die}
}

// fits reports whether this is the call to die at, by what is known before or after it.
func (f *failStore) fits(op string, when string, items int) bool {
	p := &f.point
	if p.Op != op || p.When != when || items < p.Min {
		return false
	}
	return f.seen.Add(1) == max(p.Nth, 1)
}

// around makes a call and dies where it should. asked is the number of items that are known before it; given returns
// the number known after it.
func (f *failStore) around(op string, asked int, call func(), given func() int) {
	if f.fits(op, before, asked) {
		f.die()
	}
	if f.fits(op, during, asked) {
		time.AfterFunc(rand.N(max(f.point.Within, 1)), f.die)
		call()
		f.die()
	}
	call()
	if f.fits(op, after, given()) {
		f.die()
	}
}

func (f *failStore) Enqueue(ctx context.Context, tasks []*driver.Task, opts driver.EnqueueOptions) (res []driver.EnqueueResult, err error) {
	f.around("Enqueue", len(tasks), func() { res, err = f.Store.Enqueue(ctx, tasks, opts) }, func() int { return len(res) })
	return res, err
}

func (f *failStore) Fetch(ctx context.Context, req driver.FetchRequest) (res *driver.FetchResult, err error) {
	given := func() int {
		if res == nil {
			return 0
		}
		return len(res.Claims)
	}
	f.around("Fetch", req.Max, func() { res, err = f.Store.Fetch(ctx, req) }, given)
	return res, err
}

func (f *failStore) Heartbeat(ctx context.Context, worker string, lease time.Duration) (res *driver.HeartbeatResult, err error) {
	f.around("Heartbeat", 0, func() { res, err = f.Store.Heartbeat(ctx, worker, lease) }, func() int { return 0 })
	return res, err
}

func (f *failStore) Unregister(ctx context.Context, worker string) (err error) {
	f.around("Unregister", 0, func() { err = f.Store.Unregister(ctx, worker) }, func() int { return 0 })
	return err
}

func (f *failStore) Settle(ctx context.Context, worker string, items []driver.Settlement) (res []driver.SettleResult, err error) {
	n := 0
	for _, s := range items {
		if f.point.Outcome == "" || s.Outcome == f.point.Outcome {
			n++
		}
	}
	f.around("Settle", n, func() { res, err = f.Store.Settle(ctx, worker, items) }, func() int { return n })
	return res, err
}

func (f *failStore) GetPlans(ctx context.Context, refs []driver.PlanRef, read driver.PlanRead) (res []*driver.Plan, err error) {
	f.around("GetPlans", len(refs), func() { res, err = f.Store.GetPlans(ctx, refs, read) }, func() int { return len(res) })
	return res, err
}

func (f *failStore) Advance(ctx context.Context, steps []driver.PlanStep) (res []driver.PlanResult, err error) {
	f.around("Advance", len(steps), func() { res, err = f.Store.Advance(ctx, steps) }, func() int { return len(res) })
	return res, err
}

func (f *failStore) Maintain(ctx context.Context, limit int) (res *driver.MaintainResult, err error) {
	given := func() int {
		if res == nil {
			return 0
		}
		return res.Recovered
	}
	f.around("Maintain", 0, func() { res, err = f.Store.Maintain(ctx, limit) }, given)
	return res, err
}
