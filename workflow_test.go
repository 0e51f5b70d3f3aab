package waggle_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/waggleq/waggle"
	"github.com/waggleq/waggle/driver"
)

// stepsOf is a workflow's state and its steps' in one line.
func stepsOf(w *waggle.WorkflowInfo) string {
	var list []string
	for _, s := range w.Steps {
		list = append(list, s.Name+"="+s.State)
	}
	return w.State + ": " + strings.Join(list, " ")
}

func (e *env) start(w *waggle.Workflow) {
	e.t.Helper()
	r, err := e.client.StartWorkflow(e.t.Context(), w)
	if err != nil || r.Existing {
		e.t.Fatalf("start: %+v, %v", r, err)
	}
}

func (e *env) ended(id string) *waggle.WorkflowInfo {
	e.t.Helper()
	w, err := e.client.WaitWorkflow(e.t.Context(), id)
	if err != nil {
		e.t.Fatal(err)
	}
	return w
}

// TestWorkflowRuns runs a graph in two workers: results are handed on, steps in parallel are joined, and a step that runs
// twice finds the same.
func TestWorkflowRuns(t *testing.T) {
	bubble(t, func(t *testing.T, e *env) {
		var mu sync.Mutex
		var order []string
		register := func(w *waggle.Worker) {
			waggle.Handle(w, "half", func(ctx context.Context, t *waggle.Task, in int) error {
				id, step := t.Workflow()
				mu.Lock()
				order = append(order, step)
				mu.Unlock()
				if id != "sum" {
					return fmt.Errorf("the workflow is %q", id)
				}
				if t.Attempt == 1 {
					return errors.New("not yet")
				}
				return t.SetResult(in / 2)
			}, nil)
			waggle.Handle(w, "sum", func(ctx context.Context, t *waggle.Task, _ any) error {
				a, errA := waggle.StepResult[int](ctx, t, "a")
				b, errB := waggle.StepResult[int](ctx, t, "b")
				mu.Lock()
				order = append(order, "sum")
				mu.Unlock()
				return errors.Join(errA, errB, t.SetResult(a+b))
			}, nil)
			waggle.Handle(w, "show", func(ctx context.Context, t *waggle.Task, in int) error { return t.SetResult(in) }, nil)
		}
		w := waggle.NewWorkflow("sum", nil)
		a, b := w.Task("a", "half", 10, nil), w.Task("b", "half", 32, nil)
		sum := w.Task("sum", "sum", nil, nil).After(a, b)
		w.Task("show", "show", nil, nil).Input(sum)
		e.start(w)
		if r, err := e.client.StartWorkflow(t.Context(), w); err != nil || !r.Existing || r.State != waggle.WorkflowRunning {
			t.Errorf("started again: %+v, %v", r, err)
		}
		one, two := e.work(nil, register), e.work(nil, register)
		info := e.ended("sum")
		if got, want := stepsOf(info), "completed: a=completed b=completed sum=completed show=completed"; got != want {
			t.Errorf("%s, want %s", got, want)
		}
		if got := string(info.Steps[3].Result); got != "21" {
			t.Errorf("the last result is %s, want 21", got)
		}
		if order[len(order)-1] != "sum" || len(order) != 5 {
			t.Errorf("the steps ran in the order %v", order)
		}
		one.stop()
		two.stop()
		for w, err := range e.client.Workflows(t.Context(), waggle.WorkflowCompleted) {
			if err != nil || w.ID != "sum" || len(w.Steps) != 0 {
				t.Errorf("listed: %+v, %v", w, err)
			}
		}
	})
}

// TestWorkflowFansOut has a step add steps to its own workflow, as many as it found, twice.
func TestWorkflowFansOut(t *testing.T) {
	bubble(t, func(t *testing.T, e *env) {
		var mu sync.Mutex
		ran := map[string]int{}
		r := e.work(nil, func(w *waggle.Worker) {
			waggle.Handle(w, "list", func(ctx context.Context, t *waggle.Task, _ any) error {
				more := waggle.NewWorkflow("", nil)
				for i := range 5 {
					more.Task(fmt.Sprint("page-", i), "page", i, nil)
				}
				if err := t.AddSteps(ctx, more, "join"); err != nil {
					return err
				}
				if t.Attempt == 1 {
					return errors.New("after it has added them")
				}
				return nil
			}, nil)
			count := func(ctx context.Context, t *waggle.Task, _ any) error {
				mu.Lock()
				defer mu.Unlock()
				_, step := t.Workflow()
				ran[step]++
				if step == "join" && len(ran) != 6 {
					return fmt.Errorf("joined after %v", ran)
				}
				return nil
			}
			waggle.Handle(w, "page", count, nil)
			waggle.Handle(w, "join", count, nil)
		})
		w := waggle.NewWorkflow("crawl", nil)
		w.Task("join", "join", nil, nil).After(w.Task("list", "list", nil, nil))
		e.start(w)
		if info := e.ended("crawl"); info.State != waggle.WorkflowCompleted || len(info.Steps) != 7 {
			t.Errorf("%s", stepsOf(info))
		}
		for step, n := range ran {
			if n != 1 {
				t.Errorf("%s ran %d times", step, n)
			}
		}
		r.stop()
	})
}

// TestWorkflowFails compensates, tells its callbacks, and can be retried.
func TestWorkflowFails(t *testing.T) {
	bubble(t, func(t *testing.T, e *env) {
		var mu sync.Mutex
		var ran []string
		broken := true
		note := func(what string) waggle.Handler {
			return func(ctx context.Context, t *waggle.Task) error {
				mu.Lock()
				defer mu.Unlock()
				ran = append(ran, what)
				if what == "ship" && broken {
					return waggle.Discard(errors.New("no stock"))
				}
				return t.SetResult(what)
			}
		}
		r := e.work(nil, func(w *waggle.Worker) {
			for _, typ := range []string{"charge", "refund", "ship", "apologize"} {
				w.HandleFunc(typ, note(typ), nil)
			}
		})
		w := waggle.NewWorkflow("order", &waggle.WorkflowOptions{OnFailure: waggle.CompensateWorkflow})
		charge := w.Task("charge", "charge", nil, nil).Compensate("refund", nil, nil)
		w.Task("ship", "ship", nil, nil).After(charge)
		w.OnFailure("apologize", nil, nil)
		e.start(w)
		info := e.ended("order")
		if got, want := stepsOf(info), "failed: charge=compensated ship=failed"; got != want || !strings.Contains(info.Reason, "no stock") {
			t.Errorf("%s (%s), want %s", got, info.Reason, want)
		}
		if got := strings.Join(ran, " "); got != "charge ship refund apologize" {
			t.Errorf("ran %s", got)
		}
		mu.Lock()
		broken = false
		mu.Unlock()
		if err := e.client.RetryWorkflow(t.Context(), "order", ""); err != nil {
			t.Fatal(err)
		}
		if got, want := stepsOf(e.ended("order")), "completed: charge=completed ship=completed"; got != want {
			t.Errorf("retried: %s, want %s", got, want)
		}
		r.stop()
	})
}

// TestWorkflowWaits waits for a signal and a time, and is cancelled while it does.
func TestWorkflowWaits(t *testing.T) {
	bubble(t, func(t *testing.T, e *env) {
		r := e.work(nil, func(w *waggle.Worker) {
			waggle.Handle(w, "t", func(ctx context.Context, t *waggle.Task, in string) error { return t.SetResult("got " + in) }, nil)
		})
		w := waggle.NewWorkflow("approval", nil)
		asked := w.Wait("ask", "approved", time.Hour)
		slept := w.Wait("sleep", "", time.Minute).After(asked)
		w.Task("go", "t", nil, nil).After(slept).Input(asked)
		began := time.Now()
		e.start(w)
		if err := e.client.SignalWorkflow(t.Context(), "approval", "approved", "", "by Kim"); err != nil {
			t.Fatal(err)
		}
		info := e.ended("approval")
		if got := string(info.Steps[2].Result); got != `"got by Kim"` {
			t.Errorf("the result is %s", got)
		}
		if took := time.Since(began); took < time.Minute || took > 2*time.Minute {
			t.Errorf("it took %v", took)
		}
		if err := e.client.SignalWorkflow(t.Context(), "approval", "approved", "", nil); !errors.Is(err, waggle.ErrState) {
			t.Errorf("a signal to what has ended: %v", err)
		}
		late := waggle.NewWorkflow("late", &waggle.WorkflowOptions{Deadline: time.Minute})
		late.Wait("ever", "never", 0)
		e.start(late)
		if info := e.ended("late"); info.State != waggle.WorkflowFailed || info.Reason != "the deadline has passed" {
			t.Errorf("%s (%s)", stepsOf(info), info.Reason)
		}
		dropped := waggle.NewWorkflow("dropped", nil)
		dropped.Wait("ever", "never", 0)
		e.start(dropped)
		if err := e.client.CancelWorkflow(t.Context(), "dropped"); err != nil {
			t.Fatal(err)
		}
		if info := e.ended("dropped"); info.State != waggle.WorkflowCancelled {
			t.Errorf("%s", stepsOf(info))
		}
		r.stop()
	})
}

// TestWorkflowMistakes are told at the start, all at once.
func TestWorkflowMistakes(t *testing.T) {
	bubble(t, func(t *testing.T, e *env) {
		w := waggle.NewWorkflow("w", nil)
		other := waggle.NewWorkflow("x", nil).Task("a", "t", nil, nil)
		w.Task("a", "t", func() {}, nil).After(other)
		if _, err := e.client.StartWorkflow(t.Context(), w); !errors.Is(err, waggle.ErrInvalid) || !strings.Contains(err.Error(), "another workflow") || !strings.Contains(err.Error(), "step a: ") {
			t.Errorf("%v", err)
		}
		if _, err := e.client.Workflow(t.Context(), "w"); !errors.Is(err, waggle.ErrNotFound) {
			t.Errorf("a refused workflow: %v", err)
		}
		if _, err := waggle.ParseWorkflow([]byte(`{"id":"a","stepz":[]}`)); !errors.Is(err, waggle.ErrInvalid) {
			t.Errorf("a mistyped field: %v", err)
		}
	})
}

// forgetful is a store that loses the first reply that offers a plan.
type forgetful struct {
	driver.Store
	lost atomic.Bool
}

func (s *forgetful) Fetch(ctx context.Context, req driver.FetchRequest) (*driver.FetchResult, error) {
	res, err := s.Store.Fetch(ctx, req)
	if err == nil && len(res.Plans) > 0 && s.lost.CompareAndSwap(false, true) {
		return nil, driver.Errorf(driver.ErrUnavailable, "the reply is lost")
	}
	return res, err
}

// TestWorkflowUntilEmpty has a worker end only when the workflow has: also when a fetch has reserved the plan and its
// reply was lost.
func TestWorkflowUntilEmpty(t *testing.T) {
	bubble(t, func(t *testing.T, e *env) {
		store := &forgetful{Store: e.mem}
		w := waggle.NewWorkflow("w", nil)
		prev := w.Task("s0", "t", nil, nil)
		for i := range 5 {
			prev = w.Task(fmt.Sprint("s", i+1), "t", nil, nil).After(prev)
		}
		e.start(w)
		worker, err := waggle.NewWorker(store, &waggle.WorkerOptions{UntilEmpty: true, Logger: slog.New(e.logs)})
		if err != nil {
			t.Fatal(err)
		}
		worker.HandleFunc("t", func(context.Context, *waggle.Task) error { time.Sleep(time.Millisecond); return nil }, nil)
		if err := worker.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		info, err := e.client.Workflow(t.Context(), "w")
		if err != nil || info.State != waggle.WorkflowCompleted {
			t.Errorf("the worker has ended, the workflow not: %v, %v", info, err)
		}
	})
}

// TestTypedSteps links the result of a step to the payload of the next by their types.
func TestTypedSteps(t *testing.T) {
	type order struct{ Cents int }
	type receipt struct{ Paid int }
	charge := waggle.NewType[order]("charge", &waggle.EnqueueOptions{Queue: "cards"})
	bill := waggle.NewType[receipt]("bill")
	bubble(t, func(t *testing.T, e *env) {
		r := e.work(&waggle.WorkerOptions{Queues: []waggle.Queue{{Name: "default"}, {Name: "cards"}}}, func(w *waggle.Worker) {
			charge.Handle(w, func(_ context.Context, t *waggle.Task, in order) error {
				if t.Queue != "cards" {
					return fmt.Errorf("the queue is %s", t.Queue)
				}
				return t.SetResult(receipt{Paid: in.Cents})
			})
			bill.Handle(w, func(_ context.Context, t *waggle.Task, in receipt) error { return t.SetResult(in.Paid) })
		})
		w := waggle.NewWorkflow("typed", nil)
		paid := waggle.AddStep[receipt](w, "charge", charge, order{350}, nil)
		waggle.Then[int](w, "bill", bill, paid, nil)
		e.start(w)
		info := e.ended("typed")
		if got, want := stepsOf(info), "completed: charge=completed bill=completed"; got != want {
			t.Fatalf("%s, want %s", got, want)
		}
		if got := string(info.Steps[1].Result); got != "350" {
			t.Errorf("the bill is over %s, want 350", got)
		}
		r.stop()
	})
}
