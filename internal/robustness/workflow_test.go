package robustness

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/waggleq/waggle"
	"github.com/waggleq/waggle/driver"
)

// inWorkflow are points of a workflow's life at which a worker is killed: round the end of a step, the reading of the plan,
// and the step of the plan that follows. By number they come to lie at the children of the first step, the join, the signal,
// the step that fails, and the compensations.
func inWorkflow() (points []failPoint) {
	for _, nth := range []int64{1, 2, 4, 6} {
		points = append(points, failPoint{Op: "Advance", When: before, Nth: nth}, failPoint{Op: "Advance", When: during, Within: window, Nth: nth},
			failPoint{Op: "Advance", When: after, Nth: nth})
	}
	for _, nth := range []int64{1, 4} {
		points = append(points, failPoint{Op: "Settle", When: before, Nth: nth}, failPoint{Op: "Settle", When: after, Nth: nth})
	}
	return append(points, failPoint{Op: "GetPlans", When: after, Nth: 3})
}

// TestWorkflowKilledAt kills a worker at each of the points of a workflow with a fan, a join, a signal and compensations, and
// has another go on. The workflow comes to its end, each step has one task that ended once, and what was undone was undone
// in the right order.
func TestWorkflowKilledAt(t *testing.T) {
	onEachEngine(t, func(t *testing.T, e engine) {
		for _, point := range inWorkflow() {
			t.Run(strings.ToLower(fmt.Sprintf("%s %s %d", point.When, point.Op, point.Nth)), func(t *testing.T) {
				t.Parallel()
				s := newSite(t, e)
				w := fanAndUndo()
				_, err := s.client.StartWorkflow(t.Context(), w)
				must(t, err)
				rescuer := s.worker(role{Name: "rescuer", Wait: true})
				rescuer.awaitKind(lineReady, "")
				victim := s.worker(role{Name: "victim", Fail: &point})
				s.signalTwice(w.ID())
				victim.waitKilled()
				rescuer.tell("go")
				s.wantUndone(w.ID())
				rescuer.stop()
				rescuer.waitOK()
			})
		}
	})
}

// fanAndUndo is a workflow that fans out, joins, waits for a signal, fails, and undoes what it has done.
func fanAndUndo() *waggle.Workflow {
	w := waggle.NewWorkflow("undo", &waggle.WorkflowOptions{OnFailure: waggle.CompensateWorkflow})
	a := w.Task("a", taskType, act{Result: 10}, nil).Compensate(taskType, act{}, nil)
	var fan []*waggle.WorkflowStep
	for i := range 3 {
		fan = append(fan, w.Task(fmt.Sprintf("b%d", i), taskType, act{}, nil).After(a))
	}
	join := w.Task("join", taskType, act{}, nil).After(fan...).Compensate(taskType, act{}, nil)
	signal := w.Wait("wait", "go-on", 0).After(join)
	w.Task("fails", taskType, act{Do: doDiscard}, nil).After(signal)
	return w
}

// signalTwice sends the workflow's signal, and again, as somebody does whose reply was lost.
func (s *site) signalTwice(id string) {
	s.Helper()
	for range 2 {
		must(s, s.client.SignalWorkflow(s.Context(), id, "go-on", "the-signal", map[string]string{"by": "test"}))
	}
}

// wantUndone waits for the end of the workflow and looks at what is left of it.
func (s *site) wantUndone(id string) {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.Context(), patience)
	defer cancel()
	info, err := s.client.WaitWorkflow(ctx, id)
	must(s, err)
	want := map[string]string{"a": "compensated", "b0": "completed", "b1": "completed", "b2": "completed", "join": "compensated", "wait": "completed", "fails": "failed"}
	if info.State != waggle.WorkflowFailed || len(info.Steps) != len(want) {
		s.Errorf("the workflow is %s with %d steps", info.State, len(info.Steps))
	}
	for _, step := range info.Steps {
		if step.State != want[step.Name] {
			s.Errorf("step %s is %s, want %s", step.Name, step.State, want[step.Name])
		}
	}
	var all []string
	byStep := map[string]*driver.Record{}
	for t, err := range s.client.All(s.Context(), driver.Filter{}) {
		must(s, err)
		r := s.get(t.ID)
		all = append(all, r.Plan.Step)
		byStep[r.Plan.Step] = r
	}
	slices.Sort(all)
	if got := strings.Join(all, " "); got != "a a:undo b0 b1 b2 fails join join:undo" {
		s.Errorf("the workflow has brought about %s", got)
		return
	}
	for step, r := range byStep {
		state := driver.Completed
		if step == "fails" {
			state = driver.Discarded
		}
		if r.State != state || r.Attempt != 1 {
			s.Errorf("the task of %s is %s after %d attempts", step, r.State, r.Attempt)
		}
	}
	order := []string{"a", "b0", "join", "fails", "join:undo", "a:undo"}
	for i := 1; i < len(order); i++ {
		if first, then := byStep[order[i-1]], byStep[order[i]]; then.EnqueuedAt.Before(first.EndedAt) {
			s.Errorf("%s was enqueued at %v, before %s had ended at %v", order[i], then.EnqueuedAt, order[i-1], first.EndedAt)
		}
	}
}
