package runner

import (
	"context"
	"slices"
	"time"

	"github.com/waggleq/waggle/driver"
)

// Gate keeps types of tasks from starting: see package breaker. Its methods may be called concurrently. Shuts and Ended are
// called for each job, under a lock: they don't block.
type Gate interface {
	// Look reads what others have decided and tells them what this worker has seen. now is the store's present, zero if it is
	// not known; room says that the worker could start a task, so that a trial can be its.
	// news says that the next fetch is to be another than the one that may be waiting.
	Look(ctx context.Context, worker string, now time.Time, lease time.Duration, room bool) (news bool, err error)
	// Urgent is filled when the next look should come at once.
	Urgent() <-chan struct{}
	// Serve returns the types that the next fetch may claim, and, if it is for a trial, of how many tasks; ok is false if all are
	// served as configured. After a fetch for a trial comes Claimed.
	Serve() (types []string, most int, ok bool)
	Claimed(ids []string)
	// Shuts reports whether a task that was claimed may not start.
	Shuts(typ, id string) bool
	// Ended tells how an attempt ended, or that its task was given back.
	Ended(typ, id string, o driver.Outcome)
}

// lookAtGate looks once. An error is of no consequence: what was known before holds on.
func (s *session) lookAtGate() error {
	call, cancel := context.WithTimeout(s.ctx, callTimeout(s.cfg.Lease))
	defer cancel()
	var now time.Time
	if s.clock.Load() != nil {
		now = s.now()
	}
	news, err := s.cfg.Gate.Look(call, s.id, now, s.cfg.Lease, s.hasRoom())
	if news {
		s.orders.cutWait()
	}
	return err
}

// hasRoom reports whether the session could start a task.
func (s *session) hasRoom() bool {
	s.desk.mu.Lock()
	defer s.desk.mu.Unlock()
	return !s.hushed && s.desk.want() > 0
}

// watchGate looks three times a lease, and whenever it is urgent.
func (s *session) watchGate() {
	tr := trouble{log: s.cfg.Logger, op: "look at breakers", limit: s.cfg.Lease}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		timer.Reset(s.cfg.Lease / 3)
		select {
		case <-s.ctx.Done():
			return
		case <-timer.C:
		case <-s.cfg.Gate.Urgent():
		}
		switch err := s.lookAtGate(); {
		case err == nil:
			tr.over()
		case s.ctx.Err() != nil:
			return
		default:
			tr.hit(s.ctx, err)
		}
	}
}

// gated returns the types and the number of tasks of the next fetch if the gate has a say in them. trial is whether it is for a
// trial: then it does not wait.
func (f *fetcher) gated(n int) (types []string, most int, trial, ok bool) {
	if f.s.cfg.Gate == nil {
		return nil, n, false, false
	}
	types, most, ok = f.s.cfg.Gate.Serve()
	if most > 0 {
		return types, min(n, most), true, ok
	}
	return types, n, false, ok
}

// tried tells what a fetch for a trial has claimed, before any of it starts.
func (f *fetcher) tried(claims []driver.Claim) {
	ids := make([]string, len(claims))
	for i := range claims {
		ids[i] = claims[i].ID
	}
	f.s.cfg.Gate.Claimed(ids)
}

// shut gives a job back, and those that it is run with, if its type was shut since it was claimed.
func (d *desk) shut(j *Job) (driver.Settlement, bool) {
	back := driver.Settlement{Outcome: driver.Release, Unbegun: true}
	if d.gate == nil || !d.gate.Shuts(j.Type, j.ID) {
		return back, false
	}
	if j.batch != nil {
		j.batch.ends = slices.Repeat([]driver.Settlement{back}, len(j.batch.jobs))
	}
	return back, true
}
