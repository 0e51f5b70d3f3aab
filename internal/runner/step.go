package runner

import (
	"context"
	"time"

	"github.com/waggleq/waggle/driver"
)

// stepLease is the lease of a session without a heartbeat.
const stepLease = time.Hour

// Step runs what is available now, one task after another on the calling goroutine, at most limit of them, and returns
// how many have run. It makes the same calls as Run, one task at a time: it is for tests. A handler that ends its
// goroutine ends the caller's.
func Step(ctx context.Context, cfg Config, limit int) (int, error) {
	cfg.Lease = stepLease
	id := cfg.NewWorkerID()
	r := New(cfg)
	info := r.info()
	info.ID = id
	sent := time.Now()
	if err := cfg.Store.Register(ctx, info, cfg.Lease); err != nil {
		return 0, err
	}
	s := newSession(ctx, &r.cfg, r.desk, id)
	s.renew(sent)
	defer func() {
		s.halt(ErrShutdown)
		_ = cfg.Store.Unregister(context.WithoutCancel(ctx), id) // the lease runs out otherwise
	}()
	for n := range limit {
		ran, err := step(ctx, newFetcher(s))
		if !ran || err != nil {
			return n, err
		}
	}
	return limit, nil
}

// step runs one task. It reports whether there was one.
func step(ctx context.Context, f *fetcher) (bool, error) {
	s := f.s
	sent := time.Now()
	res, err := s.cfg.Store.Fetch(ctx, driver.FetchRequest{
		Worker: s.id, Lease: s.cfg.Lease, Queues: f.order(), Types: s.cfg.Types, Max: 1, Plans: s.planner.want(),
	})
	if err == nil && len(res.Plans) > 0 {
		s.tell(res.Now)
		s.planner.offer(res.Plans)
		s.planner.work()
		if len(res.Claims) == 0 { // there may be some now
			return step(ctx, f)
		}
	}
	if err != nil || len(res.Claims) == 0 {
		return false, err
	}
	s.renew(sent)
	began := time.Now()
	j := &newJobs(s, res.Claims, began)[0]
	defer j.cancel(nil)
	st := s.desk.run(j, began)
	st.ID, st.Token, st.Ran = j.ID, j.Token, time.Since(began)
	if err := s.reporter.send(ctx, []*Job{j}); err != nil {
		return true, err
	}
	errs, err := s.cfg.Store.Settle(context.WithoutCancel(ctx), s.id, []driver.Settlement{st})
	if err == nil {
		err = errs[0]
	}
	if err == nil && s.planner != nil {
		s.planner.settled([]driver.Settlement{st}, []*Job{j})
		s.planner.work()
	}
	return true, err
}
