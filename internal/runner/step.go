package runner

import (
	"context"
	"errors"
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
	s := newSession(ctx, &r.cfg, r.desk, id, func() {})
	s.renew(sent)
	defer func() {
		s.halt(ErrShutdown)
		_ = cfg.Store.Unregister(context.WithoutCancel(ctx), id) // the lease runs out otherwise
	}()
	for n := 0; n < limit; {
		ran, err := step(ctx, newFetcher(s), limit-n)
		n += ran
		if ran == 0 || err != nil {
			return n, err
		}
	}
	return limit, nil
}

// step runs one task, or one batch of at most limit. It returns how many there were.
func step(ctx context.Context, f *fetcher, limit int) (int, error) {
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
			return step(ctx, f, limit)
		}
	}
	if err != nil || len(res.Claims) == 0 {
		return 0, err
	}
	s.renew(sent)
	began := time.Now()
	j := &newJobs(s, res.Claims, began)[0]
	if rule, ok := s.cfg.Gather[j.Type]; ok {
		if err := stepGather(ctx, j, rule, limit); err != nil {
			return 0, err
		}
	}
	defer j.free()
	for _, j := range j.all() {
		j.began = true
	}
	st := s.desk.run(j, began)
	sts := []driver.Settlement{st}
	if j.batch != nil {
		sts = j.batch.ends
	}
	jobs := j.all()
	for i := range sts {
		sts[i].ID, sts[i].Token, sts[i].Ran = jobs[i].ID, jobs[i].Token, time.Since(began)
	}
	return len(jobs), stepSettle(ctx, s, sts, jobs)
}

// stepGather makes a batch of a job and those that go with it.
func stepGather(ctx context.Context, j *Job, rule Gather, limit int) error {
	s := j.s
	j.batch = &batch{crowd: crowdOf(j), rule: rule, jobs: []*Job{j}}
	var back []driver.Settlement
	for most := min(rule.Max, limit); len(j.batch.jobs) < most; {
		res, err := s.cfg.Store.Fetch(ctx, driver.FetchRequest{
			Worker: s.id, Lease: s.cfg.Lease, Queues: []string{j.Queue}, Types: []string{j.Type}, Max: most - len(j.batch.jobs),
		})
		if err != nil {
			return err
		}
		if len(res.Claims) == 0 {
			break
		}
		more := newJobs(s, res.Claims, j.offered)
		for i := range more {
			m := &more[i]
			if crowdOf(m) != j.batch.crowd {
				m.cancel(nil)
				back = append(back, driver.Settlement{ID: m.ID, Token: m.Token, Outcome: driver.Release, Unbegun: true})
				continue
			}
			m.batch = j.batch
			j.batch.jobs = append(j.batch.jobs, m)
		}
	}
	if len(back) == 0 {
		return nil
	}
	_, err := s.cfg.Store.Settle(ctx, s.id, back)
	return err
}

func stepSettle(ctx context.Context, s *session, sts []driver.Settlement, jobs []*Job) error {
	if err := s.reporter.send(ctx, jobs); err != nil {
		return err
	}
	results, err := s.cfg.Store.Settle(context.WithoutCancel(ctx), s.id, sts)
	if err == nil {
		s.desk.tell(sts, jobs, results)
	}
	errs, err := driver.SettleErrors(results, err)
	if err == nil {
		err = errors.Join(errs...)
	}
	if err == nil && s.planner != nil {
		s.planner.settled(sts, jobs)
		s.planner.work()
	}
	return err
}
