package history

import (
	"context"
	"time"

	"github.com/waggleq/waggle/driver"
)

// Wrap returns a store that passes every call to s and records those that matter to the checker: Enqueue, Fetch,
// Heartbeat, Unregister, Settle and Apply. An Apply by filter is recorded for every task that matches when it begins.
// The starts and ends of handlers are the caller's to record.
func Wrap(s driver.Store, r *Recorder) driver.Store { return &recorded{Store: s, r: r} }

type recorded struct {
	driver.Store
	r *Recorder
}

func (s *recorded) Enqueue(ctx context.Context, tasks []*driver.Task, opts driver.EnqueueOptions) ([]driver.EnqueueResult, error) {
	called := time.Now()
	results, err := s.Store.Enqueue(ctx, tasks, opts)
	for i, t := range tasks {
		switch {
		case t == nil:
		case err != nil:
			s.r.EnqueueFailed(called, t, err)
		default:
			s.r.Enqueued(called, t, results[i])
		}
	}
	return results, err
}

func (s *recorded) Fetch(ctx context.Context, req driver.FetchRequest) (*driver.FetchResult, error) {
	res, err := s.Store.Fetch(ctx, req)
	if err == nil && !res.LeaseEnd.IsZero() {
		s.r.Leased(req.Worker, res.LeaseEnd)
	}
	return res, err
}

func (s *recorded) Heartbeat(ctx context.Context, worker string, lease time.Duration) (*driver.HeartbeatResult, error) {
	res, err := s.Store.Heartbeat(ctx, worker, lease)
	if err == nil {
		s.r.Leased(worker, res.LeaseEnd)
	}
	return res, err
}

func (s *recorded) Unregister(ctx context.Context, worker string) error {
	s.r.LeaseGivenUp(worker)
	return s.Store.Unregister(ctx, worker)
}

func (s *recorded) Settle(ctx context.Context, worker string, items []driver.Settlement) ([]driver.SettleResult, error) {
	called := time.Now()
	results, err := s.Store.Settle(ctx, worker, items)
	for i, item := range items {
		if err != nil {
			s.r.Settled(called, worker, item, err)
			continue
		}
		s.r.Settled(called, worker, item, results[i].Err)
	}
	return results, err
}

func (s *recorded) Apply(ctx context.Context, c driver.Change) (*driver.ChangeResult, error) {
	if !c.DryRun {
		ids, err := s.matching(ctx, c)
		if err != nil {
			return nil, err
		}
		for _, id := range ids {
			s.r.Applied(c.Op, id)
		}
	}
	return s.Store.Apply(ctx, c)
}

func (s *recorded) matching(ctx context.Context, c driver.Change) ([]string, error) {
	if len(c.IDs) > 0 {
		return c.IDs, nil
	}
	records, err := list(ctx, s.Store, c.Filter)
	ids := make([]string, len(records))
	for i, r := range records {
		ids[i] = r.ID
	}
	return ids, err
}

// Dump is what a store holds at rest.
type Dump struct {
	Now      time.Time             `json:"now"`
	Records  []*driver.Record      `json:"records"`
	Queues   []driver.QueueInfo    `json:"queues"`
	Workers  []driver.WorkerStatus `json:"workers"`
	Findings []driver.Finding      `json:"findings"` // of an audit that repaired nothing
}

// TakeDump reads all that a store holds. Nobody else may use the store meanwhile.
func TakeDump(ctx context.Context, s driver.Store) (*Dump, error) {
	info, err := s.Info(ctx)
	if err != nil {
		return nil, err
	}
	d := &Dump{Now: info.Now}
	if d.Findings, err = s.Audit(ctx, false); err != nil {
		return nil, err
	}
	if d.Records, err = list(ctx, s, driver.Filter{}); err != nil {
		return nil, err
	}
	if d.Queues, err = s.Queues(ctx); err != nil {
		return nil, err
	}
	d.Workers, err = s.Workers(ctx)
	return d, err
}

func list(ctx context.Context, s driver.Store, f driver.Filter) ([]*driver.Record, error) {
	var records []*driver.Record
	for cursor := ""; ; {
		page, err := s.List(ctx, f, driver.Page{Cursor: cursor, Size: driver.MaxPage})
		if err != nil {
			return nil, err
		}
		records = append(records, page.Records...)
		if cursor = page.Next; cursor == "" {
			return records, nil
		}
	}
}
