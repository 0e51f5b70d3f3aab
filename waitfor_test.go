package waggle_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/waggleq/waggle"
)

// family registers a parent that waits for a child, which it adds itself.
func family(slow time.Duration) func(w *waggle.Worker) {
	return func(w *waggle.Worker) {
		waggle.Handle(w, "parent", func(ctx context.Context, t *waggle.Task, _ any) error {
			if _, err := t.Client().Enqueue(ctx, "child", 20, &waggle.EnqueueOptions{ID: "child"}); err != nil {
				return err
			}
			child, err := waggle.WaitFor(ctx, "child")
			if err != nil {
				return err
			}
			n, err := waggle.Result[int](child)
			return errors.Join(err, t.SetResult(n+1))
		}, nil)
		waggle.Handle(w, "child", func(_ context.Context, t *waggle.Task, in int) error {
			time.Sleep(slow)
			return t.SetResult(in)
		}, nil)
	}
}

// TestWaitForFreesTheSlot has a parent and its child share one slot.
func TestWaitForFreesTheSlot(t *testing.T) {
	bubble(t, func(t *testing.T, e *env) {
		r := e.work(&waggle.WorkerOptions{Slots: 1}, family(time.Minute))
		began := time.Now()
		info := e.wait(e.enqueue("parent", nil, nil))
		if got, err := waggle.Result[int](info); got != 21 || err != nil || info.Attempt != 1 {
			t.Errorf("the parent's result is %d at attempt %d, %v", got, info.Attempt, err)
		}
		if took := time.Since(began); took > time.Minute+time.Second {
			t.Errorf("it went on after %v, want at once when the child had ended", took)
		}
		r.stop()
	})
}

// TestWaitForSurvivesItsWorker has the worker end that would have told the parent.
func TestWaitForSurvivesItsWorker(t *testing.T) {
	bubble(t, func(t *testing.T, e *env) {
		first := e.work(&waggle.WorkerOptions{Slots: 1}, func(w *waggle.Worker) {
			family(0)(w)
		})
		hold := e.enqueue("parent", nil, nil)
		first.stop()
		second := e.work(&waggle.WorkerOptions{Slots: 1}, family(0))
		began := time.Now()
		if info := e.wait(hold); info.State != waggle.Completed {
			t.Errorf("the parent is %s", info.State)
		}
		if took := time.Since(began); took > 16*time.Second {
			t.Errorf("it went on after %v", took)
		}
		second.stop()
	})
}

// TestWaitForMistakes are told.
func TestWaitForMistakes(t *testing.T) {
	bubble(t, func(t *testing.T, e *env) {
		if _, err := waggle.WaitFor(t.Context(), "x"); !errors.Is(err, waggle.ErrState) {
			t.Errorf("outside a handler: %v", err)
		}
		errs := make(chan error, 2)
		r := e.work(nil, func(w *waggle.Worker) {
			waggle.Handle(w, "t", func(ctx context.Context, t *waggle.Task, _ any) error {
				_, itself := waggle.WaitFor(ctx, t.ID)
				_, nobody := waggle.WaitFor(ctx, "nobody")
				errs <- itself
				errs <- nobody
				return nil
			}, nil)
		})
		e.wait(e.enqueue("t", nil, nil))
		if err := <-errs; !errors.Is(err, waggle.ErrInvalid) {
			t.Errorf("for itself: %v", err)
		}
		if err := <-errs; !errors.Is(err, waggle.ErrNotFound) {
			t.Errorf("for nobody: %v", err)
		}
		r.stop()
	})
}
