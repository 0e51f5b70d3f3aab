package runner

import (
	"context"
	"sync"
	"time"

	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/internal/logkey"
)

// orders are what a session was told about its work as a whole: see [driver.Directive].
type orders struct {
	mu   sync.Mutex
	last driver.Directive
	turn chan struct{}      // closed when it is told something else
	wait context.CancelFunc // ends the fetch that waits for work; nil: none does
}

// direct obeys what a heartbeat has delivered.
func (s *session) direct(d driver.Directive) {
	o := &s.orders
	o.mu.Lock()
	if d == o.last || o.last == driver.DirectStop {
		o.mu.Unlock()
		return
	}
	o.last = d
	close(o.turn)
	o.turn = make(chan struct{})
	if o.wait != nil && d != driver.DirectServe {
		o.wait()
	}
	o.mu.Unlock()
	s.desk.hush(s, d != driver.DirectServe)
	switch d {
	case driver.DirectServe:
		s.cfg.Logger.Info("asked to take tasks again", logkey.Worker, s.id)
	case driver.DirectStop:
		s.cfg.Logger.Info("asked to stop", logkey.Worker, s.id)
		s.stop()
	default: // also one that a later version knows
		s.cfg.Logger.Info("asked to be quiet: takes no new tasks until it is asked to resume", logkey.Worker, s.id)
	}
}

// quiet reports whether this session takes no new tasks, and returns what is closed when it is told something else.
func (o *orders) quiet() (bool, <-chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.last != driver.DirectServe, o.turn
}

// waiting notes what ends a fetch that waits for work, nil when it is over. It ends at once in a quiet session.
func (o *orders) waiting(end context.CancelFunc) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.wait = end
	if end != nil && o.last != driver.DirectServe {
		end()
	}
}

// cutWait ends a fetch that waits for work, so that another can be made.
func (o *orders) cutWait() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.wait != nil {
		o.wait()
	}
}

// awaitTurn waits until the session is told something else, at most until a time.
func (f *fetcher) awaitTurn(idle context.Context, turn <-chan struct{}, until time.Time) {
	timer := time.NewTimer(time.Until(until))
	defer timer.Stop()
	select {
	case <-turn:
	case <-timer.C:
	case <-idle.Done():
	}
}

// hush has a session's claims that have not begun, and those that still come in, given back, or no more.
func (d *desk) hush(s *session, on bool) {
	d.mu.Lock()
	s.hushed = on
	d.mu.Unlock()
	if on {
		d.releaseWaiting(s)
	}
}
