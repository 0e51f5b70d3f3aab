package drivertest_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/driver/drivertest"
	"github.com/waggleq/waggle/memstore"
)

// lossy returns a memory store behind a plan.
func lossy(t *testing.T, seed uint64, rules ...drivertest.Rule) (*drivertest.Faulty, driver.Store) {
	t.Helper()
	s, err := memstore.Open(nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { drivertest.Audit(t, s) })
	return drivertest.NewFaulty(s, &drivertest.FaultPlan{Seed: seed, Rules: rules}), s
}

func enqueue(t *testing.T, s driver.Store, id string) ([]driver.EnqueueResult, error) {
	t.Helper()
	return s.Enqueue(t.Context(), []*driver.Task{{ID: id, Type: "t"}}, driver.EnqueueOptions{})
}

func stored(t *testing.T, s driver.Store, id string) bool {
	t.Helper()
	records, err := s.Get(t.Context(), []string{id})
	if err != nil {
		t.Fatal(err)
	}
	return records[0] != nil
}

func TestFaultsTakeEffectBeforeOrAfter(t *testing.T) {
	t.Parallel()
	for fault, done := range map[drivertest.Fault]bool{drivertest.FailBefore: false, drivertest.FailAfter: true} {
		faulty, s := lossy(t, 0, drivertest.Rule{Method: "Enqueue", Fault: fault, Skip: 1, Count: 1})
		for i, wantErr := range []bool{false, true, false} {
			id := fmt.Sprint("t-", i)
			_, err := enqueue(t, faulty, id)
			if wantErr != errors.Is(err, driver.ErrUnavailable) || !wantErr && err != nil {
				t.Errorf("%s, call %d: got error %v, want one: %v", fault, i, err, wantErr)
			}
			if got, want := stored(t, s, id), !wantErr || done; got != want {
				t.Errorf("%s, call %d: stored %v, want %v", fault, i, got, want)
			}
		}
		if n := faulty.Hits("Enqueue"); n != 1 {
			t.Errorf("%s: %d calls were hit, want 1", fault, n)
		}
	}
}

func TestTwiceDoesItTwice(t *testing.T) {
	t.Parallel()
	faulty, s := lossy(t, 0, drivertest.Rule{Method: "Enqueue", Fault: drivertest.Twice})
	res, err := enqueue(t, faulty, "a")
	if err != nil || !res[0].Existing {
		t.Errorf("got %+v, %v; want the reply of the second call, for which the task exists", res, err)
	}
	if !stored(t, s, "a") {
		t.Error("the task is not stored")
	}
}

func TestDelayEndsWithItsContext(t *testing.T) {
	t.Parallel()
	faulty, s := lossy(t, 0, drivertest.Rule{Fault: drivertest.Delay, Delay: time.Hour})
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("enough")
	cancel(cause)
	if _, err := faulty.Enqueue(ctx, []*driver.Task{{ID: "a", Type: "t"}}, driver.EnqueueOptions{}); !errors.Is(err, cause) {
		t.Errorf("got error %v, want %v", err, cause)
	}
	if stored(t, s, "a") {
		t.Error("the delayed call was made")
	}
	faulty.Script(drivertest.Rule{Fault: drivertest.Delay, Delay: time.Millisecond})
	if _, err := enqueue(t, faulty, "a"); err != nil || !stored(t, s, "a") {
		t.Errorf("after its delay the call was not made: %v", err)
	}
}

func TestScriptReplacesTheRules(t *testing.T) {
	t.Parallel()
	own := errors.New("own")
	faulty, _ := lossy(t, 0, drivertest.Rule{Fault: drivertest.FailBefore, Err: own})
	if _, err := enqueue(t, faulty, "a"); !errors.Is(err, own) {
		t.Errorf("got error %v, want the rule's", err)
	}
	faulty.Script()
	if _, err := enqueue(t, faulty, "a"); err != nil {
		t.Errorf("without rules: %v", err)
	}
}

func TestTheSameSeedHitsTheSameCalls(t *testing.T) {
	t.Parallel()
	hits := func(seed uint64) []bool {
		faulty, _ := lossy(t, seed, drivertest.Rule{Method: "Enqueue", Fault: drivertest.FailAfter, Chance: 0.3})
		list := make([]bool, 100)
		for i := range list {
			_, err := enqueue(t, faulty, fmt.Sprint("t-", i))
			list[i] = err != nil
		}
		return list
	}
	first := hits(1)
	if !slices.Equal(first, hits(1)) {
		t.Error("two runs with one seed differ")
	}
	if slices.Equal(first, hits(2)) {
		t.Error("two seeds hit the same calls")
	}
	n := 0
	for _, hit := range first {
		if hit {
			n++
		}
	}
	if n < 10 || n > 60 {
		t.Errorf("%d of 100 calls were hit, want about 30", n)
	}
}

func TestEveryMethodCanBeHit(t *testing.T) {
	t.Parallel()
	own := errors.New("own")
	faulty, _ := lossy(t, 0, drivertest.Rule{Fault: drivertest.FailBefore, Err: own})
	ctx := t.Context()
	for name, call := range map[string]func() error{
		"Register":   func() error { return faulty.Register(ctx, driver.WorkerInfo{}, 0) },
		"Fetch":      func() error { _, err := faulty.Fetch(ctx, driver.FetchRequest{}); return err },
		"Heartbeat":  func() error { _, err := faulty.Heartbeat(ctx, "", 0); return err },
		"Held":       func() error { _, err := faulty.Held(ctx, ""); return err },
		"Await":      func() error { return faulty.Await(ctx, driver.AwaitRequest{}) },
		"Unregister": func() error { return faulty.Unregister(ctx, "") },
		"Settle":     func() error { _, err := faulty.Settle(ctx, "", nil); return err },
		"Report":     func() error { _, err := faulty.Report(ctx, "", nil); return err },
		"Get":        func() error { _, err := faulty.Get(ctx, nil); return err },
		"List":       func() error { _, err := faulty.List(ctx, driver.Filter{}, driver.Page{}); return err },
		"Queues":     func() error { _, err := faulty.Queues(ctx); return err },
		"Workers":    func() error { _, err := faulty.Workers(ctx); return err },
		"Events":     func() error { _, err := faulty.Events(ctx, driver.EventQuery{}); return err },
		"Info":       func() error { _, err := faulty.Info(ctx); return err },
		"Apply":      func() error { _, err := faulty.Apply(ctx, driver.Change{}); return err },
		"SetQueue":   func() error { _, err := faulty.SetQueue(ctx, "", driver.QueuePatch{}); return err },
		"Maintain":   func() error { _, err := faulty.Maintain(ctx, 0); return err },
		"Audit":      func() error { _, err := faulty.Audit(ctx, false); return err },
		"Advance":    func() error { _, err := faulty.Advance(ctx, nil); return err },
		"Signal":     func() error { _, err := faulty.Signal(ctx, nil); return err },
		"GetPlans":   func() error { _, err := faulty.GetPlans(ctx, nil, driver.PlanRead{}); return err },
		"Plans":      func() error { _, err := faulty.Plans(ctx, driver.PlanQuery{}, driver.Page{}); return err },
		"Delete":     func() error { _, err := faulty.DeletePlans(ctx, nil); return err },
	} {
		if err := call(); !errors.Is(err, own) {
			t.Errorf("%s: got error %v, want the rule's", name, err)
		}
	}
}
