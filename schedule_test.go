package waggle_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/waggleq/waggle"
	"github.com/waggleq/waggle/memstore"
)

// scheduled runs workers with a handler for type "tick", which notes the ticks of the tasks, in a synctest bubble.
type scheduled struct {
	*testing.T
	store  *memstore.Store
	client *waggle.Client
	mu     sync.Mutex
	ticks  []string
	late   time.Duration
}

func newScheduled(t *testing.T) *scheduled {
	t.Helper()
	store, err := memstore.Open(nil)
	if err != nil {
		t.Fatal(err)
	}
	c, err := waggle.NewClient(store, nil)
	if err != nil {
		t.Fatal(err)
	}
	return &scheduled{T: t, store: store, client: c}
}

// start runs a worker and returns what stops it.
func (s *scheduled) start(opts waggle.WorkerOptions) (stop func()) {
	s.Helper()
	w, err := waggle.NewWorker(s.store, &opts)
	if err != nil {
		s.Fatal(err)
	}
	waggle.Handle(w, "tick", func(_ context.Context, task *waggle.Task, _ struct{}) error {
		at, err := time.Parse(time.RFC3339Nano, task.Headers["waggle-tick"])
		if err != nil {
			return err
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.ticks = append(s.ticks, at.UTC().Format("05.000"))
		s.late = max(s.late, time.Since(at))
		return nil
	}, nil)
	ctx, cancel := context.WithCancel(s.Context())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			s.Error(err)
		}
	}
}

// fired are the ticks that have fired, sorted.
func (s *scheduled) fired() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(slices.Values(s.ticks))
}

// TestScheduleFiresEachTickOnce has three workers look at one schedule; they are stopped for two seconds in between.
func TestScheduleFiresEachTickOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newScheduled(t)
		if _, err := s.client.PutSchedule(t.Context(), waggle.Schedule{Name: "s", Line: "@every 1s", Type: "tick"}); err != nil {
			t.Fatal(err)
		}
		var stops []func()
		for range 3 {
			stops = append(stops, s.start(waggle.WorkerOptions{}))
		}
		time.Sleep(4500 * time.Millisecond)
		for _, stop := range stops {
			stop()
		}
		if s.late > 0 {
			t.Errorf("the latest tick came %v late", s.late)
		}
		time.Sleep(2 * time.Second)
		stops = stops[:0]
		for range 3 {
			stops = append(stops, s.start(waggle.WorkerOptions{}))
		}
		time.Sleep(3 * time.Second)
		for _, stop := range stops {
			stop()
		}
		fired := s.fired()
		if len(fired) != 9 || len(slices.Compact(slices.Clone(fired))) != 9 {
			t.Errorf("fired %v, want each of nine ticks once", fired)
		}
		info, err := s.client.Schedule(t.Context(), "s")
		if err != nil || info.Fired != 9 || info.LastRun == nil || info.LastRun.State != waggle.Completed {
			t.Errorf("the schedule says %+v, %v", info, err)
		}
	})
}

// TestScheduleFiresWhileWorkersAreBusy has the only worker's only slot taken for half a minute: ticks are enqueued in time all
// the same, though there are tasks that are due and have to wait.
func TestScheduleFiresWhileWorkersAreBusy(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newScheduled(t)
		w, err := waggle.NewWorker(s.store, &waggle.WorkerOptions{Slots: 1})
		if err != nil {
			t.Fatal(err)
		}
		waggle.Handle(w, "long", func(ctx context.Context, _ *waggle.Task, _ struct{}) error {
			time.Sleep(30 * time.Second)
			return nil
		}, nil)
		var late time.Duration
		fired := 0
		waggle.Handle(w, "tick", func(_ context.Context, task *waggle.Task, _ struct{}) error {
			at, err := time.Parse(time.RFC3339Nano, task.Headers["waggle-tick"])
			late = max(late, task.EnqueuedAt.Sub(at))
			fired++
			return err
		}, nil)
		if _, err := s.client.PutSchedule(t.Context(), waggle.Schedule{Name: "s", Line: "@every 1s", Type: "tick"}); err != nil {
			t.Fatal(err)
		}
		for i := range 3 {
			opts := &waggle.EnqueueOptions{Priority: -1, Delay: time.Duration(i) * 1700 * time.Millisecond}
			if _, err := s.client.Enqueue(t.Context(), "long", struct{}{}, opts); err != nil {
				t.Fatal(err)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- w.Run(ctx) }()
		time.Sleep(95 * time.Second)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if fired < 90 || late > 500*time.Millisecond {
			t.Errorf("%d ticks ran, the latest was enqueued %v late", fired, late)
		}
		t.Logf("%d ticks, the latest %v late", fired, late)
	})
}

func TestScheduleIsPausedRunAndDeleted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newScheduled(t)
		ctx := t.Context()
		put := func(line string) {
			if _, err := s.client.PutSchedule(ctx, waggle.Schedule{Name: "s", Line: line, Zone: "Europe/Berlin", Type: "tick"}); err != nil {
				t.Fatal(err)
			}
		}
		put("@every 1s")
		stop := s.start(waggle.WorkerOptions{})
		defer stop()
		if _, err := s.client.PauseSchedule(ctx, "s"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		if len(s.fired()) != 0 {
			t.Errorf("a paused schedule fired %v", s.fired())
		}
		for range 2 { // the same firing twice
			if err := s.client.RunSchedule(ctx, "s", "once"); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Second)
		if len(s.fired()) != 1 {
			t.Errorf("running it by hand fired %v", s.fired())
		}
		if _, err := s.client.ResumeSchedule(ctx, "s"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2500 * time.Millisecond)
		if len(s.fired()) != 3 {
			t.Errorf("after it was resumed %v fired, want one by hand and two", s.fired())
		}
		if err := s.client.DeleteSchedule(ctx, "s"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		if _, err := s.client.Schedule(ctx, "s"); !errors.Is(err, waggle.ErrNotFound) || len(s.fired()) != 3 {
			t.Errorf("after it was deleted: %v, %v", err, s.fired())
		}
		for name, err := range map[string]error{"pause": second(s.client.PauseSchedule(ctx, "s")), "run": s.client.RunSchedule(ctx, "s", ""), "delete": s.client.DeleteSchedule(ctx, "s")} {
			if !errors.Is(err, waggle.ErrNotFound) {
				t.Errorf("%s of a schedule that is not there: %v", name, err)
			}
		}
	})
}

func second[T any](_ T, err error) error { return err }

// TestDeclaredSchedules: what a program declares is applied when it starts; what somebody has edited stays.
func TestDeclaredSchedules(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newScheduled(t)
		ctx := t.Context()
		declare := func(line string) *waggle.ScheduleInfo {
			stop := s.start(waggle.WorkerOptions{Schedules: waggle.Schedules{{Name: "s", Line: line, Type: "tick", Payload: map[string]int{"n": 1}}}})
			time.Sleep(time.Second)
			stop()
			info, err := s.client.Schedule(ctx, "s")
			if err != nil {
				t.Fatal(err)
			}
			return info
		}
		first := declare("@daily")
		if !first.ByCode || first.Line != "@daily" || string(first.Payload) != `{"n":1}` {
			t.Errorf("got %+v", first)
		}
		if again := declare("@daily"); again.Updated != first.Updated {
			t.Error("declaring it again changed it")
		}
		if got := declare("@hourly"); got.Line != "@hourly" || !got.ByCode {
			t.Errorf("after another line was declared: %+v", got)
		}
		if _, err := s.client.PutSchedule(ctx, waggle.Schedule{Name: "s", Line: "@weekly", Type: "tick"}); err != nil {
			t.Fatal(err)
		}
		if got := declare("@hourly"); got.Line != "@weekly" || got.ByCode {
			t.Errorf("what was edited by hand became %+v", got)
		}
	})
	store, err := memstore.Open(nil)
	if err != nil {
		t.Fatal(err)
	}
	_, err = waggle.NewWorker(store, &waggle.WorkerOptions{Schedules: waggle.Schedules{{Name: "a", Line: "61 * * * *", Type: "t"}, {Name: "b", Line: "@daily"}}})
	if !errors.Is(err, waggle.ErrInvalid) || !strings.Contains(err.Error(), "minute 61") || !strings.Contains(err.Error(), "schedule b") {
		t.Errorf("what is wrong with two schedules: %v", err)
	}
}
