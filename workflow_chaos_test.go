package waggle_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/waggleq/waggle"
)

// flowRun is a random workflow under faults, and what its handlers have seen.
type flowRun struct {
	*env
	rnd   *rand.Rand
	flow  *waggle.Workflow
	after map[string][]string // of each step, those it waits for
	fails string              // the step that fails, if there is one
	goOn  bool                // the workflow goes on without it
	mu    sync.Mutex
	done  map[string]bool // steps whose handler has returned nil
	undos []string        // steps, as their compensations have returned nil
	bad   []string
}

// flowPayload is that of every step.
type flowPayload struct {
	Fail bool
	Fan  bool
	Undo string // of a compensation: the step
}

// newFlowRun draws a workflow of some layers: each step comes after some of those before, may be undone, and may add steps that
// the last one waits for; one of them may fail.
func newFlowRun(e *env, rnd *rand.Rand) *flowRun {
	r := &flowRun{env: e, rnd: rnd, after: map[string][]string{}, done: map[string]bool{}}
	policy := []waggle.FailurePolicy{waggle.FailWorkflow, waggle.CompensateWorkflow, waggle.ContinueWorkflow}[rnd.IntN(3)]
	r.flow, r.goOn = waggle.NewWorkflow("flow", &waggle.WorkflowOptions{OnFailure: policy}), policy == waggle.ContinueWorkflow
	n := 4 + rnd.IntN(12)
	if rnd.IntN(3) > 0 {
		r.fails = fmt.Sprint("s", rnd.IntN(n))
	}
	var steps []*waggle.WorkflowStep
	patient := &waggle.StepOptions{CrashLimit: 1000, MaxAttempts: 1000}
	for i := range n {
		name := fmt.Sprint("s", i)
		s := r.flow.Task(name, "step", flowPayload{Fail: name == r.fails, Fan: rnd.IntN(6) == 0 && name != r.fails}, patient)
		for _, on := range steps {
			if rnd.IntN(len(steps)) < 2 {
				s.After(on)
				r.after[name] = append(r.after[name], on.Name())
			}
		}
		if rnd.IntN(2) == 0 {
			s.Compensate("step", flowPayload{Undo: name}, patient)
		}
		steps = append(steps, s)
	}
	wait := r.flow.Wait("wait", "go", 0).After(steps[0])
	last := r.flow.Task("last", "step", flowPayload{}, patient).After(append(steps, wait)...)
	for _, s := range steps {
		r.after[last.Name()] = append(r.after[last.Name()], s.Name())
	}
	return r
}

// handle notes what is wrong when a step runs too early, or is undone in the wrong order.
func (r *flowRun) handle(ctx context.Context, t *waggle.Task, in flowPayload) error {
	_, step := t.Workflow()
	r.mu.Lock()
	if in.Undo == "" {
		for _, on := range r.after[step] {
			if !r.done[on] && !(on == r.fails && r.goOn) {
				r.bad = append(r.bad, step+" runs before "+on)
			}
		}
	}
	r.mu.Unlock()
	select {
	case <-time.After(time.Duration(len(t.ID)*int(t.ID[0])%9) * 300 * time.Millisecond):
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if in.Fail {
		return waggle.Discard(errBoom)
	}
	if in.Fan {
		more := waggle.NewWorkflow("", nil)
		for i := range 3 {
			more.Task(fmt.Sprintf("%s-%d", step, i), "step", flowPayload{}, &waggle.StepOptions{CrashLimit: 1000, MaxAttempts: 1000})
		}
		if err := t.AddSteps(ctx, more, "last"); err != nil && !errors.Is(err, waggle.ErrState) {
			return err // the store fails, or the workflow has ended meanwhile
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if in.Undo != "" {
		r.undos = append(r.undos, in.Undo)
	} else {
		r.done[step] = true
	}
	return nil
}

// check compares how the workflow has ended with what was drawn.
func (r *flowRun) check(info *waggle.WorkflowInfo) {
	r.t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.bad) > 0 {
		r.t.Errorf("%v", r.bad)
	}
	want := waggle.WorkflowCompleted
	if r.fails != "" && !r.goOn {
		want = waggle.WorkflowFailed
	}
	if info.State != want {
		r.t.Errorf("the workflow is %s (%s), want %s", info.State, info.Reason, want)
	}
	state := map[string]string{}
	for _, s := range info.Steps {
		if state[s.Name] != "" {
			r.t.Errorf("step %s is there twice", s.Name)
		}
		state[s.Name] = s.State
		if well := s.State == "completed" || s.Name == r.fails && s.State == "failed"; want == waggle.WorkflowCompleted && !well {
			r.t.Errorf("step %s is %s", s.Name, s.State)
		}
		if s.State == "completed" && s.Name != "wait" && !r.done[s.Name] {
			r.t.Errorf("step %s has completed and never ran", s.Name)
		}
	}
	for step, list := range r.after { // the last first
		for _, on := range list {
			if state[step] == "compensated" && state[on] == "compensated" && slices.Index(r.undos, step) > slices.Index(r.undos, on) {
				r.t.Errorf("%s was undone before %s: %v", on, step, r.undos)
			}
		}
	}
	for task, err := range r.client.All(r.t.Context(), waggle.Filter{}) {
		if err != nil {
			r.t.Fatal(err)
		}
		if !task.State.Ended() {
			r.t.Errorf("the workflow has ended, and task %s is %s", task.ID, task.State)
		}
	}
}

// through does a call again until it gets through.
func through(t *testing.T, call func() error) {
	t.Helper()
	for {
		err := call()
		if err == nil {
			return
		}
		if !errors.Is(err, waggle.ErrUnavailable) && !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
	}
}

// Whatever is refused, lost, doubled or hangs on the way to the store: a workflow comes to the end that it was drawn for. No step runs
// before those that it waits for, steps that are added are there once, and what was done is undone, the last first.
func TestWorkflowsThroughFaults(t *testing.T) {
	seeds := uint64(40)
	if testing.Short() {
		seeds = 10
	}
	for seed := range seeds {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			bubble(t, func(t *testing.T, e *env) {
				rnd := rand.New(rand.NewPCG(seed, 11))
				e.store.storm(rnd)
				r := newFlowRun(e, rnd)
				var workers []*running
				for range 3 {
					workers = append(workers, e.work(&waggle.WorkerOptions{Slots: 3, Lease: 2 * time.Second}, func(w *waggle.Worker) {
						waggle.Handle(w, "step", r.handle, &waggle.HandleOptions{Backoff: &waggle.Backoff{Base: 100 * time.Millisecond, Cap: time.Second}})
					}))
				}
				limited := func(call func(context.Context) error) func() error {
					return func() error {
						ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
						defer cancel()
						return call(ctx)
					}
				}
				through(t, limited(func(ctx context.Context) error {
					_, err := e.client.StartWorkflow(ctx, r.flow)
					return err
				}))
				through(t, limited(func(ctx context.Context) error {
					err := e.client.SignalWorkflow(ctx, "flow", "go", "once", nil)
					if errors.Is(err, waggle.ErrState) {
						return nil // it has ended without it
					}
					return err
				}))
				time.Sleep(time.Minute)
				workers[0].stop()
				e.store.set(nil)
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
				defer cancel()
				info, err := e.client.WaitWorkflow(ctx, "flow")
				if err != nil {
					info, _ := e.client.Workflow(t.Context(), "flow")
					t.Fatalf("%v: %+v", err, info)
				}
				for _, w := range workers[1:] {
					w.stop()
				}
				r.check(info)
			})
		})
	}
}
