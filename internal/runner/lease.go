package runner

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/waggleq/waggle/driver"
)

// session is one registration of this worker: one id, one lease, and what is claimed under it.
type session struct {
	id   string
	cfg  *Config
	desk *desk
	ctx  context.Context // ends with the session; its cause says why
	halt context.CancelCauseFunc
	jobs context.Context // parent of the handlers' contexts: carries values only
	wg   sync.WaitGroup
	told error // the error with which the store said that the session is over; written before ctx ends

	// The lease is trusted until this time of the worker's monotonic clock, in nanoseconds after born: counted from
	// before the renewing request was sent, less a margin.
	born    time.Time
	trusted atomic.Int64
	sent    atomic.Int64 // when the last renewal that succeeded was sent
	poke    chan struct{}

	settler  settler
	reporter reporter
	planner  *planner // nil: it takes no plans

	// The store's clock when a fetch or heartbeat last told of it, and when that was heard here.
	clock atomic.Pointer[clockReading]

	orders orders
	stop   func() // ends the runner

	leaving atomic.Bool // it is being unregistered: that its id is unknown then is no loss

	// Guarded by desk.mu.
	active int // handlers running
	over   bool
	hushed bool          // what it claims goes back: it was told to take no more
	quiet  chan struct{} // closed when active falls to 0, if somebody waits for it
}

func newSession(ctx context.Context, cfg *Config, d *desk, id string, stop func()) *session {
	jobs := context.WithoutCancel(ctx)
	s := &session{id: id, cfg: cfg, desk: d, jobs: jobs, born: time.Now(), poke: make(chan struct{}, 1), stop: stop}
	s.orders.turn = make(chan struct{})
	s.ctx, s.halt = context.WithCancelCause(jobs)
	s.settler.init(s)
	s.reporter.init(s)
	s.planner = newPlanner(s)
	return s
}

func (s *session) start() {
	s.wg.Go(s.keepLease)
	s.wg.Go(s.watchLease)
	s.wg.Go(s.watchControl)
	s.wg.Go(s.settler.run)
	s.wg.Go(s.reporter.run)
	if s.planner != nil {
		s.wg.Go(s.planner.run)
	}
}

// clockReading is what the store's clock showed when this process heard of it.
type clockReading struct{ store, heard time.Time }

// tell notes what the store's clock has shown.
func (s *session) tell(now time.Time) { s.clock.Store(&clockReading{now, time.Now()}) }

// now returns the store's present, or a moment before it. It is not earlier than what the store has said last.
func (s *session) now() time.Time {
	r := s.clock.Load()
	if r == nil {
		return time.Now()
	}
	return r.store.Add(time.Since(r.heard))
}

// end ends the session and returns when all its loops have.
func (s *session) end(cause error) {
	s.halt(cause)
	s.wg.Wait()
}

func (s *session) why() error { return context.Cause(s.ctx) }

// lost reports whether the session ended because its lease did.
func (s *session) lost() bool { return errors.Is(s.why(), driver.ErrLeaseLost) }

// failed looks at the error of a store call and ends the session if the store said so. It reports whether the store did.
func (s *session) failed(err error) bool {
	if errors.Is(err, driver.ErrLeaseLost) && s.leaving.Load() {
		return true
	}
	if errors.Is(err, driver.ErrLeaseLost) || fatal(err) {
		s.desk.abandonBecause(s, err)
		return true
	}
	return false
}

// margin is what a lease is trusted less than it lasts: timers and the scheduler of a loaded machine are late.
func (s *session) margin() time.Duration { return s.cfg.Lease / 10 }

// renew notes that the store has renewed the lease on a request that was sent at the given time.
func (s *session) renew(sent time.Time) {
	raise(&s.sent, int64(sent.Sub(s.born)))
	raise(&s.trusted, int64(sent.Add(s.cfg.Lease-s.margin()).Sub(s.born)))
}

func raise(v *atomic.Int64, to int64) {
	for {
		old := v.Load()
		if to <= old || v.CompareAndSwap(old, to) {
			return
		}
	}
}

// holds reports whether the lease can be trusted at a time.
func (s *session) holds(at time.Time) bool { return int64(at.Sub(s.born)) < s.trusted.Load() }

// hearEvery bounds how often a heartbeat is sent that the lease does not need.
const hearEvery = time.Second

// nextBeat is when the next heartbeat is due, after one at heard.
func (s *session) nextBeat(heard time.Time) time.Time {
	due, news := s.born.Add(time.Duration(s.sent.Load())+s.cfg.Lease/3), heard.Add(max(s.cfg.Lease, hearEvery))
	if news.Before(due) {
		return news
	}
	return due
}

// keepLease renews the lease every third of it, unless a fetch has, and whenever it is poked. One a
// lease is sent in any case: only heartbeats deliver directives whose hint was lost.
func (s *session) keepLease() {
	t := trouble{log: s.cfg.Logger, op: "heartbeat", limit: s.cfg.Lease / 4}
	timer := time.NewTimer(0)
	defer timer.Stop()
	heard := s.born
	for {
		timer.Reset(time.Until(s.nextBeat(heard)))
		poked := false
		select {
		case <-s.ctx.Done():
			return
		case <-s.poke:
			poked = true
		case <-timer.C:
		}
		if !poked && time.Now().Before(s.nextBeat(heard)) {
			continue // a fetch has renewed it meanwhile
		}
		if err := s.heartbeat(); err != nil {
			if s.failed(err) || s.ctx.Err() != nil {
				return
			}
			t.hit(s.ctx, err)
			continue
		}
		heard = time.Now()
		t.over()
	}
}

func (s *session) heartbeat() error {
	sent := time.Now()
	// Short, so that two more tries fit into the lease if a connection hangs.
	call, cancel := context.WithTimeout(s.ctx, max(s.cfg.Lease/4, driver.MinLease/2))
	defer cancel()
	res, err := s.cfg.Store.Heartbeat(call, s.id, s.cfg.Lease)
	if err != nil {
		return err
	}
	s.tell(res.Now)
	s.renew(sent)
	s.desk.cancel(s, res.Cancels)
	s.direct(res.Directive)
	return nil
}

// watchLease ends the session when the lease was not renewed in time, whatever the other loops are stuck in.
func (s *session) watchLease() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		left := time.Until(s.born.Add(time.Duration(s.trusted.Load())))
		if left <= 0 {
			s.desk.abandonBecause(s, errNotRenewed)
			return
		}
		timer.Reset(left)
		select {
		case <-s.ctx.Done():
			return
		case <-timer.C:
		}
	}
}

var errNotRenewed = driver.Errorf(driver.ErrLeaseLost, "the lease could not be renewed in time")

// controlWait is how long one wait for them lasts. Lost hints are made up for by heartbeats.
const controlWait = 30 * time.Second

// watchControl has cancellations and directives delivered at once instead of with the next heartbeat.
func (s *session) watchControl() {
	t := trouble{log: s.cfg.Logger, op: "await", limit: s.cfg.Lease}
	for s.ctx.Err() == nil {
		began := time.Now()
		call, cancel := context.WithTimeout(s.ctx, controlWait+callTimeout(s.cfg.Lease))
		err := s.cfg.Store.Await(call, driver.AwaitRequest{Worker: s.id, For: driver.ForControl, Max: controlWait})
		cancel()
		switch {
		case s.ctx.Err() != nil:
			return
		case err != nil:
			if s.failed(err) {
				return
			}
			t.hit(s.ctx, err)
		case time.Since(began) < controlWait:
			t.over()
			select {
			case s.poke <- struct{}{}:
			default:
			}
			// The heartbeat needs a moment to fetch the news; without the pause the next wait would end at once.
			sleep(s.ctx, 10*time.Millisecond+rand.N(10*time.Millisecond))
		}
	}
}
