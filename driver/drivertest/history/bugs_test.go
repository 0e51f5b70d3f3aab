package history_test

import (
	"context"
	"slices"
	"time"

	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/driver/drivertest/history"
)

// bug is a store with one known fault, and the rule that it must be seen to break.
type bug struct {
	make   func(driver.Store) driver.Store
	breaks history.Rule
}

var bugs = map[string]bug{
	"unfenced settle":          {func(s driver.Store) driver.Store { return &unfenced{Store: s} }, history.OneWinner},
	"one claim for two":        {func(s driver.Store) driver.Store { return &doubled{Store: s} }, history.Exclusion},
	"double promotion":         {func(s driver.Store) driver.Store { return &doubled{Store: s, newToken: 1} }, history.OneWinner},
	"stolen lease":             {func(s driver.Store) driver.Store { return &thief{Store: s} }, history.Exclusion},
	"lost unique key":          {func(s driver.Store) driver.Store { return &noUnique{Store: s} }, history.NoLeaks},
	"leaked lease":             {func(s driver.Store) driver.Store { return &immortal{Store: s} }, history.Liveness},
	"lost task":                {func(s driver.Store) driver.Store { return &forgetful{Store: s} }, history.NoLoss},
	"lost settlement":          {func(s driver.Store) driver.Store { return &deaf{Store: s} }, history.OneWinner},
	"counter drift":            {func(s driver.Store) driver.Store { return &drifting{Store: s} }, history.Conservation},
	"attempts never spent":     {func(s driver.Store) driver.Store { return &patient{Store: s} }, history.BoundedAttempts},
	"refused but stored":       {func(s driver.Store) driver.Store { return &liar{Store: s} }, history.UnknownOutcome},
	"finding of its own audit": {func(s driver.Store) driver.Store { return &unsound{Store: s} }, history.NoLeaks},
}

// unfenced settles for whoever asks, under the token of the present claim.
type unfenced struct{ driver.Store }

func (s *unfenced) Settle(ctx context.Context, worker string, items []driver.Settlement) ([]driver.SettleResult, error) {
	results, err := s.Store.Settle(ctx, worker, items)
	for i, item := range items {
		if err != nil || results[i].Err == nil {
			continue
		}
		records, err := s.Get(ctx, []string{item.ID})
		if err != nil {
			return nil, err
		}
		if r := records[0]; r != nil && r.State == driver.Active {
			item.Token = r.Token
			if _, err := s.Store.Settle(ctx, r.Worker, []driver.Settlement{item}); err != nil {
				return nil, err
			}
		}
		results[i].Err = nil
	}
	return results, err
}

// doubled gives what it gave to one worker to the next one too.
type doubled struct {
	driver.Store
	newToken driver.Token // added to the token of the copy
	last     []driver.Claim
	n        int
}

func (s *doubled) Fetch(ctx context.Context, req driver.FetchRequest) (*driver.FetchResult, error) {
	res, err := s.Store.Fetch(ctx, req)
	if err != nil {
		return nil, err
	}
	s.n++
	again := s.last
	s.last = slices.Clone(res.Claims)
	if s.n%4 == 0 && len(again) > 0 {
		c := again[len(again)-1]
		c.Token += s.newToken * 1000
		res.Claims = append(res.Claims, c)
	}
	return res, nil
}

// thief takes from a worker what it holds although its lease runs.
type thief struct {
	driver.Store
	last string
}

func (s *thief) Fetch(ctx context.Context, req driver.FetchRequest) (*driver.FetchResult, error) {
	if held, err := s.Held(ctx, s.last); err == nil && len(held) > 0 && s.last != req.Worker {
		if err := s.Unregister(ctx, s.last); err != nil {
			return nil, err
		}
	}
	s.last = req.Worker
	return s.Store.Fetch(ctx, req)
}

// noUnique forgets every other unique key.
type noUnique struct {
	driver.Store
	n int
}

func (s *noUnique) Enqueue(ctx context.Context, tasks []*driver.Task, opts driver.EnqueueOptions) ([]driver.EnqueueResult, error) {
	stripped := make([]*driver.Task, len(tasks))
	for i, t := range tasks {
		stripped[i] = t.Clone()
		if t.Unique != nil {
			if s.n++; s.n%2 == 0 {
				stripped[i].Unique = nil
			}
		}
	}
	return s.Store.Enqueue(ctx, stripped, opts)
}

// immortal renews the lease of every worker that ever was, so that nobody's tasks are recovered.
type immortal struct {
	driver.Store
	workers []string
}

func (s *immortal) Register(ctx context.Context, w driver.WorkerInfo, lease time.Duration) error {
	s.workers = append(s.workers, w.ID)
	return s.Store.Register(ctx, w, lease)
}

func (s *immortal) Fetch(ctx context.Context, req driver.FetchRequest) (*driver.FetchResult, error) {
	for _, w := range s.workers {
		if _, err := s.Heartbeat(ctx, w, req.Lease); err != nil {
			return nil, err
		}
	}
	return s.Store.Fetch(ctx, req)
}

func (s *immortal) Settle(ctx context.Context, worker string, items []driver.Settlement) ([]driver.SettleResult, error) {
	if len(s.workers) > 3 && slices.Index(s.workers, worker) < len(s.workers)-3 { // what dead workers say is lost
		return slices.Repeat([]driver.SettleResult{{Err: driver.ErrLeaseLost}}, len(items)), nil
	}
	return s.Store.Settle(ctx, worker, items)
}

// forgetful says that it has every task and drops each ninth.
type forgetful struct {
	driver.Store
	n int
}

func (s *forgetful) Enqueue(ctx context.Context, tasks []*driver.Task, opts driver.EnqueueOptions) ([]driver.EnqueueResult, error) {
	results, err := s.Store.Enqueue(ctx, tasks, opts)
	for i, r := range results {
		if r.Err == nil && !r.Existing {
			if s.n++; s.n%9 == 0 {
				if _, err := s.Apply(ctx, driver.Change{Op: driver.OpDelete, IDs: []string{results[i].ID}}); err != nil {
					return nil, err
				}
			}
		}
	}
	return results, err
}

// deaf accepts each seventh settlement and does nothing.
type deaf struct {
	driver.Store
	n int
}

func (s *deaf) Settle(ctx context.Context, worker string, items []driver.Settlement) ([]driver.SettleResult, error) {
	if s.n++; s.n%7 == 0 {
		return make([]driver.SettleResult, len(items)), nil
	}
	return s.Store.Settle(ctx, worker, items)
}

// drifting counts one completion too many.
type drifting struct{ driver.Store }

func (s *drifting) Queues(ctx context.Context, names ...string) ([]driver.QueueInfo, error) {
	queues, err := s.Store.Queues(ctx, names...)
	for i := range queues {
		queues[i].Totals.Completed++
	}
	return queues, err
}

// patient spends no attempt on a failure.
type patient struct{ driver.Store }

func (s *patient) Settle(ctx context.Context, worker string, items []driver.Settlement) ([]driver.SettleResult, error) {
	items = slices.Clone(items)
	for i := range items {
		if items[i].Outcome == driver.Retry {
			items[i].Outcome = driver.Snooze
		}
	}
	return s.Store.Settle(ctx, worker, items)
}

// liar refuses each tenth task that it has stored.
type liar struct {
	driver.Store
	n int
}

func (s *liar) Enqueue(ctx context.Context, tasks []*driver.Task, opts driver.EnqueueOptions) ([]driver.EnqueueResult, error) {
	results, err := s.Store.Enqueue(ctx, tasks, opts)
	for i := range results {
		if s.n++; s.n%10 == 0 && results[i].Err == nil {
			results[i] = driver.EnqueueResult{Err: driver.Invalidf("the task is not to my taste")}
		}
	}
	return results, err
}

// unsound finds something in its own structures.
type unsound struct{ driver.Store }

func (s *unsound) Audit(ctx context.Context, repair bool) ([]driver.Finding, error) {
	return []driver.Finding{{Kind: "orphan-index", ID: "t-000", Detail: "an entry without a record"}}, nil
}
