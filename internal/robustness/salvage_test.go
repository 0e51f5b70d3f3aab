package robustness

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/waggleq/waggle"
	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/sqlitestore"
)

// TestSalvagedPlansGoOn saves the tasks and plans of a SQLite store with a schedule and a workflow that is half done, and puts them
// into a new one, where the task of one running step is missing. The workflow runs to its end there, and the schedule fires.
func TestSalvagedPlansGoOn(t *testing.T) {
	t.Parallel()
	s := newSite(t, engines["sqlite"])
	w := waggle.NewWorkflow("saved", nil)
	first := w.Task("first", taskType, act{Result: 5}, nil)
	here := w.Task("here", taskType, act{Do: doGate}, nil).After(first)
	lost := w.Task("lost", taskType, act{Do: doGate}, nil).After(first)
	w.Task("last", taskType, nil, nil).Input(first).After(here, lost)
	_, err := s.client.StartWorkflow(t.Context(), w)
	must(t, err)
	s.putTicking()
	ref := driver.PlanRef{Kind: "workflow", Name: "saved"}
	old := s.worker(role{Name: "old"})
	for _, step := range []string{"here", "lost"} {
		old.awaitKind(lineStarted, driver.PlanTaskID(ref, step))
	}
	s.pauseTicking()
	old.stop()
	old.waitOK()
	path := strings.TrimPrefix(s.url, "sqlite:")

	store, err := openStore(t.Context(), engines["sqlite"].create(t), 0)
	must(t, err)
	defer store.Close()
	client, err := waggle.NewClient(store, nil)
	must(t, err)
	_, err = sqlitestore.Salvage(t.Context(), path, func(r *driver.Record) error {
		if r.State.Ended() || r.ID == driver.PlanTaskID(ref, "lost") {
			return nil
		}
		res, err := store.Enqueue(t.Context(), []*driver.Task{&r.Task}, driver.EnqueueOptions{})
		if err != nil {
			return err
		}
		return res[0].Err
	})
	must(t, err)
	n, err := sqlitestore.SalvagePlans(t.Context(), path, func(p *driver.Plan) error { return client.RestorePlan(t.Context(), p) })
	must(t, err)
	if n != 0 {
		t.Errorf("%d plans are lost", n)
	}
	var ran []string
	worker, err := waggle.NewWorker(store, &waggle.WorkerOptions{Slots: 1})
	must(t, err)
	worker.HandleFunc(taskType, func(_ context.Context, task *waggle.Task) error {
		if _, step := task.Workflow(); step != "" {
			ran = append(ran, step)
		}
		return nil
	}, nil)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	run, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- worker.Run(run) }()
	info, err := client.WaitWorkflow(ctx, "saved")
	must(t, err)
	fired := func() (n int64) {
		for i, err := range client.Schedules(ctx) {
			must(t, err)
			n += i.Fired
		}
		return n
	}
	before := fired()
	for _, name := range ticking {
		_, err := client.ResumeSchedule(ctx, name)
		must(t, err)
	}
	for fired() < before+3 && ctx.Err() == nil {
		pause(ctx, 50*time.Millisecond)
	}
	stop()
	must(t, <-done)
	slices.Sort(ran[:len(ran)-1])
	if info.State != waggle.WorkflowCompleted || strings.Join(ran, " ") != "here lost last" || ctx.Err() != nil {
		t.Errorf("the workflow is %s, and %v ran; the schedules have fired %d times", info.State, ran, fired()-before)
	}
	if err := client.RestorePlan(t.Context(), &driver.Plan{PlanRef: driver.PlanRef{Kind: "dance", Name: "x"}}); driver.ClassOf(err).Code != "unsupported" {
		t.Errorf("a plan of an unknown kind: %v", err)
	}
}
