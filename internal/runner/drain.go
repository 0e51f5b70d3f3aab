package runner

import (
	"context"
	"time"

	"github.com/waggleq/waggle/internal/logkey"
)

// stopGrace is how long handlers are waited for after they were cancelled at the end of the drain.
const stopGrace = 3 * time.Second

// drain ends a session in order: claims that have not started go back at once; handlers that run get Config.Drain to
// finish, then they are cancelled with ErrShutdown and get a moment to return; what has ended is settled; what is left
// goes back with the worker's registration, with no attempt spent and no crash counted.
func (r *Runner) drain(s *session) {
	d := r.desk
	d.releaseWaiting(s)
	if n := d.activeOf(s); n > 0 {
		r.cfg.Logger.Info("stopping: waiting for handlers", logkey.Worker, s.id, logkey.Count, n, logkey.After, r.cfg.Drain)
	}
	if !d.awaitQuietOr(s, r.cfg.Drain, r.cfg.Abort) {
		d.interruptAll(s, ErrShutdown)
		if !d.awaitQuiet(s, stopGrace) {
			r.cfg.Logger.Warn("handlers ignore the shutdown: their tasks are given back while they run",
				logkey.Worker, s.id, logkey.Count, d.activeOf(s))
		}
	}
	if s.ctx.Err() != nil {
		return // lost meanwhile
	}
	s.settler.finish(callTimeout(s.cfg.Lease))
	r.unregister(s)
}

func (r *Runner) unregister(s *session) {
	s.leaving.Store(true)
	t := trouble{log: r.cfg.Logger, op: "unregister", limit: r.cfg.Lease}
	call, cancel := context.WithTimeout(s.ctx, r.callTimeout())
	defer cancel()
	for call.Err() == nil {
		err := r.cfg.Store.Unregister(call, s.id)
		if err == nil || s.failed(err) {
			return
		}
		t.hit(call, err)
	}
}

// finish has the settler deliver what it has and end, or gives up after a time.
func (t *settler) finish(limit time.Duration) {
	close(t.quit)
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-t.ended:
	case <-timer.C:
	}
}

// releaseWaiting gives back the claims that have not started.
func (d *desk) releaseWaiting(s *session) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.giveBack(d.takeWaiting(s))
}

func (d *desk) activeOf(s *session) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return s.active
}

// awaitQuiet waits until no handler of a session runs, for a limited time. It reports whether that is so.
func (d *desk) awaitQuiet(s *session, limit time.Duration) bool { return d.awaitQuietOr(s, limit, nil) }

func (d *desk) awaitQuietOr(s *session, limit time.Duration, abort <-chan struct{}) bool {
	d.mu.Lock()
	if s.active == 0 {
		d.mu.Unlock()
		return true
	}
	if s.quiet == nil {
		s.quiet = make(chan struct{})
	}
	quiet := s.quiet
	d.mu.Unlock()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-quiet:
		return true
	case <-timer.C:
	case <-abort:
	}
	return d.activeOf(s) == 0
}
