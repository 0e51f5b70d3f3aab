package runner

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/internal/logkey"
)

// intakeBusy is how long a mover leaves a list alone that another one is at; that one goes on until the list is empty.
const intakeBusy = 20 * time.Millisecond

// movers make tasks of what other programs put into lists, one loop a list, beside the sessions: they need no lease.
type movers struct {
	cfg  *Config
	ctx  context.Context
	stop context.CancelCauseFunc
	wg   sync.WaitGroup

	mu  sync.Mutex
	err error // what ended a loop that no further try could mend
}

// startMovers starts a loop for each list. Their ctx ends with the given one, or with an error that trying again does not
// mend as its cause.
func startMovers(ctx context.Context, cfg *Config) *movers {
	m := &movers{cfg: cfg}
	m.ctx, m.stop = context.WithCancelCause(ctx)
	for _, in := range cfg.Intake {
		m.wg.Go(func() { m.run(in) })
	}
	return m
}

// errMoversDone is why movers are stopped that have done nothing wrong.
var errMoversDone = errors.New("the worker has stopped")

// end stops the loops and returns the error that ended one of them.
func (m *movers) end() error {
	m.stop(errMoversDone)
	m.wg.Wait()
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.err
}

// fail ends all loops, and the worker with them.
func (m *movers) fail(err error) {
	m.mu.Lock()
	m.err = err
	m.mu.Unlock()
	m.stop(err)
}

func (m *movers) run(in driver.Intake) {
	tr := trouble{log: m.cfg.Logger, op: "intake " + in.List, limit: m.cfg.Lease}
	for m.ctx.Err() == nil {
		r, err := move(m.ctx, m.cfg, in)
		switch {
		case err == nil && r.More:
			tr.over()
			continue
		case err == nil && r.Busy:
			sleep(m.ctx, intakeBusy/2+rand.N(intakeBusy))
			continue
		case err == nil:
			tr.over()
			err = m.wait(in)
		}
		switch {
		case err == nil || m.ctx.Err() != nil:
		case fatal(err):
			m.fail(err)
		default:
			tr.hit(m.ctx, err)
		}
	}
}

// wait sleeps until the list may hold something. It looks by itself now and then, for what a dead worker left half done.
func (m *movers) wait(in driver.Intake) error {
	poll := m.cfg.Poll + rand.N(m.cfg.Poll/4+1)
	call, cancel := context.WithTimeout(m.ctx, poll+callTimeout(m.cfg.Lease))
	defer cancel()
	err := m.cfg.Store.(driver.Intaker).AwaitIntake(call, in, poll)
	if call.Err() != nil {
		return nil // if the store did not keep to poll, the next move will tell whether it is alive
	}
	return err
}

// move makes tasks of one batch of a list.
func move(ctx context.Context, cfg *Config, in driver.Intake) (*driver.IntakeResult, error) {
	r, err := cfg.Store.(driver.Intaker).MoveIntake(ctx, in, 0)
	if err != nil {
		return nil, err
	}
	if r.Refused > 0 {
		cfg.Logger.Error("elements of an intake list can't be tasks: they are kept in another list", logkey.List, in.List,
			logkey.Count, r.Refused, logkey.Kept, r.RefusedList)
	}
	return r, nil
}

// intakeEmpty reports whether there is nothing left in the lists. It moves what there is.
func (f *fetcher) intakeEmpty(idle context.Context) bool {
	for _, in := range f.s.cfg.Intake {
		r, err := move(idle, f.s.cfg, in)
		if err != nil {
			if idle.Err() == nil {
				f.tr.hit(idle, err)
			}
			return false
		}
		if r.More || r.Busy {
			return false
		}
	}
	return true
}
