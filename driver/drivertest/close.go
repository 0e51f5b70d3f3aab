package drivertest

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/waggleq/waggle/driver"
)

var closeCases = []testCase{
	{"after Close every method returns ErrClosed", closeAll},
	{"a second Close returns nil", closeTwice},
	{"Close ends calls under way", closeWaiting},
	{"Close under load leaves no call hanging", closeUnderLoad},
	{"Capabilities stay the same after Close", closeCapabilities},
	{"an engine is an Intaker exactly if Capabilities.Intake is set", intakeCapability},
	{"Close leaves tasks, leases and registrations as they are", closeLeaves},
}

// calls is one harmless call of each method that can fail.
var calls = []struct {
	name string
	call func(ctx context.Context, s driver.Store) error
}{
	{"Enqueue", func(ctx context.Context, s driver.Store) error {
		_, err := s.Enqueue(ctx, tasks("call", 1), driver.EnqueueOptions{})
		return err
	}},
	{"Register", func(ctx context.Context, s driver.Store) error {
		return s.Register(ctx, driver.WorkerInfo{ID: "w"}, lease)
	}},
	{"Fetch", func(ctx context.Context, s driver.Store) error {
		_, err := s.Fetch(ctx, request("w", 0))
		return err
	}},
	{"Heartbeat", func(ctx context.Context, s driver.Store) error {
		_, err := s.Heartbeat(ctx, "w", lease)
		return err
	}},
	{"Held", func(ctx context.Context, s driver.Store) error {
		_, err := s.Held(ctx, "w")
		return err
	}},
	{"Await", func(ctx context.Context, s driver.Store) error {
		return s.Await(ctx, driver.AwaitRequest{Worker: "w", Queues: []string{"empty"}, Max: time.Millisecond})
	}},
	{"Unregister", func(ctx context.Context, s driver.Store) error { return s.Unregister(ctx, "nobody") }},
	{"Settle", func(ctx context.Context, s driver.Store) error {
		_, err := s.Settle(ctx, "w", []driver.Settlement{{ID: "a", Token: 1 << 60, Outcome: driver.Complete}})
		return err
	}},
	{"Report", func(ctx context.Context, s driver.Store) error {
		_, err := s.Report(ctx, "w", []driver.Report{{ID: "a", Token: 1 << 60}})
		return err
	}},
	{"Get", func(ctx context.Context, s driver.Store) error {
		_, err := s.Get(ctx, []string{"a"})
		return err
	}},
	{"List", func(ctx context.Context, s driver.Store) error {
		_, err := s.List(ctx, driver.Filter{}, driver.Page{})
		return err
	}},
	{"Queues", func(ctx context.Context, s driver.Store) error {
		_, err := s.Queues(ctx)
		return err
	}},
	{"Workers", func(ctx context.Context, s driver.Store) error {
		_, err := s.Workers(ctx)
		return err
	}},
	{"Events", func(ctx context.Context, s driver.Store) error {
		_, err := s.Events(ctx, driver.EventQuery{})
		return err
	}},
	{"Info", func(ctx context.Context, s driver.Store) error {
		_, err := s.Info(ctx)
		return err
	}},
	{"Apply", func(ctx context.Context, s driver.Store) error {
		_, err := s.Apply(ctx, driver.Change{Op: driver.OpCancel, IDs: []string{"nothing"}})
		return err
	}},
	{"SetQueue", func(ctx context.Context, s driver.Store) error {
		_, err := s.SetQueue(ctx, "q", driver.QueuePatch{})
		return err
	}},
	{"Direct", func(ctx context.Context, s driver.Store) error { return s.Direct(ctx, "w", driver.DirectServe) }},
	{"Maintain", func(ctx context.Context, s driver.Store) error {
		_, err := s.Maintain(ctx, 1)
		return err
	}},
	{"Audit", func(ctx context.Context, s driver.Store) error {
		_, err := s.Audit(ctx, false)
		return err
	}},
}

// planCalls is one call of each method that needs Capabilities.Plans.
var planCalls = map[string]func(ctx context.Context, s driver.Store) error{
	"Advance": func(ctx context.Context, s driver.Store) error {
		_, err := s.Advance(ctx, []driver.PlanStep{{PlanRef: driver.PlanRef{Kind: "k", Name: "n"}, State: "on"}})
		return err
	},
	"Signal": func(ctx context.Context, s driver.Store) error {
		_, err := s.Signal(ctx, []driver.Signal{{PlanRef: driver.PlanRef{Kind: "k", Name: "n"}, ID: "1", Signal: "go"}})
		return err
	},
	"GetPlans": func(ctx context.Context, s driver.Store) error {
		_, err := s.GetPlans(ctx, []driver.PlanRef{{Kind: "k", Name: "n"}}, driver.PlanRead{})
		return err
	},
	"Plans": func(ctx context.Context, s driver.Store) error {
		_, err := s.Plans(ctx, driver.PlanQuery{Kind: "k"}, driver.Page{})
		return err
	},
	"DeletePlans": func(ctx context.Context, s driver.Store) error {
		_, err := s.DeletePlans(ctx, []driver.PlanRef{{Kind: "k", Name: "n"}})
		return err
	},
}

func closeAll(h *harness) {
	h.running("w", "a")
	h.close()
	for _, c := range calls {
		h.wantErr(c.name, c.call(h.ctx(), h.store), driver.ErrClosed)
	}
	for name, call := range planCalls {
		err := call(h.ctx(), h.store)
		if !errors.Is(err, driver.ErrClosed) && (h.caps.Plans || !errors.Is(err, driver.ErrUnsupported)) {
			h.Errorf("%s: got error %v, want %v", name, err, driver.ErrClosed)
		}
	}
}

func closeTwice(h *harness) {
	h.close()
	h.must(h.store.Close())
}

func closeWaiting(h *harness) {
	h.running("w", "a")
	work := h.await(forWork("w"))
	control := h.await(driver.AwaitRequest{Worker: "w", For: driver.ForControl})
	fetch := make(chan error, 1)
	go func() {
		req := request("w", 1)
		req.Wait = 2 * patience
		_, err := h.store.Fetch(h.limit, req)
		fetch <- err
	}()
	events := make(chan error, 1)
	go func() {
		_, err := h.store.Events(h.limit, driver.EventQuery{After: driver.EventsFromNow, Wait: 2 * patience})
		events <- err
	}()
	h.close()
	for what, done := range map[string]<-chan error{"Await for work": work, "Await for control": control, "Fetch": fetch, "Events": events} {
		select {
		case err := <-done:
			if err != nil {
				h.wantErr(what, err, driver.ErrClosed)
			}
		case <-time.After(patience):
			h.Errorf("%s did not return", what)
		}
	}
}

func closeCapabilities(h *harness) {
	h.close()
	if diff := cmp.Diff(h.caps, h.store.Capabilities()); diff != "" {
		h.Errorf("capabilities (-before +after):\n%s", diff)
	}
}

func intakeCapability(h *harness) {
	intaker, ok := h.store.(driver.Intaker)
	if ok != h.caps.Intake {
		h.Fatalf("Capabilities.Intake is %v, and that the store is a driver.Intaker is %v", h.caps.Intake, ok)
	}
	if !ok {
		return
	}
	in := driver.Intake{List: "list of " + driver.NewID(), Type: "a"}
	r, err := intaker.MoveIntake(h.ctx(), in, 0)
	h.must(err)
	if diff := cmp.Diff(&driver.IntakeResult{}, r); diff != "" {
		h.Errorf("a list that does not exist (-want +got):\n%s", diff)
	}
	h.must(intaker.AwaitIntake(h.ctx(), in, time.Millisecond))
	_, err = intaker.MoveIntake(h.ctx(), driver.Intake{List: "list"}, 0)
	h.wantErr("an intake without a type", err, driver.ErrInvalid)
	h.close()
	_, err = intaker.MoveIntake(h.ctx(), in, 0)
	h.wantErr("MoveIntake after Close", err, driver.ErrClosed)
	h.wantErr("AwaitIntake after Close", intaker.AwaitIntake(h.ctx(), in, time.Minute), driver.ErrClosed)
}

func closeLeaves(h *harness) {
	other := h.reopen()
	c := h.running("w", "a")
	h.add(task("b", nil))
	h.close()
	other.wantState(driver.Active, "a")
	other.wantState(driver.Available, "b")
	other.heartbeat("w")
	other.end("w", c, driver.Complete)
	Audit(other, other.store)
}

// closeUnderLoad closes while everything is called: each call has its result or ErrClosed, and none hangs.
func closeUnderLoad(h *harness) {
	h.register("w")
	var wg sync.WaitGroup
	begun := make(chan struct{}, len(calls))
	for _, c := range calls {
		if c.name == "Unregister" {
			continue
		}
		wg.Go(func() {
			for i := 0; ; i++ {
				err := c.call(h.limit, h.store)
				if errors.Is(err, driver.ErrClosed) {
					return
				}
				if err != nil {
					h.Errorf("%s: %v", c.name, err)
					return
				}
				if i == 0 {
					begun <- struct{}{}
				}
			}
		})
	}
	for range len(calls) - 1 {
		<-begun
	}
	h.closed = true
	h.must(h.store.Close())
	wg.Wait()
}
