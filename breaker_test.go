package waggle_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/waggleq/waggle"
	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/memstore"
)

// memoryStore is a store with a client; both end with the test.
func memoryStore(t *testing.T) (*memstore.Store, *waggle.Client) {
	t.Helper()
	store, err := memstore.Open(nil)
	if err != nil {
		t.Fatal(err)
	}
	c, err := waggle.NewClient(store, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close(context.Background()); _ = store.Close() })
	return store, c
}

// serve runs a worker until stop is called.
func serve(t *testing.T, store *memstore.Store, o *waggle.WorkerOptions, register func(*waggle.Worker)) (stop func()) {
	t.Helper()
	w, err := waggle.NewWorker(store, o)
	if err != nil {
		t.Fatal(err)
	}
	register(w)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	return sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func statusOf(t *testing.T, c *waggle.Client, typ string) waggle.TypeStatus {
	t.Helper()
	list, err := c.Types(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range list {
		if s.Type == typ {
			return s
		}
	}
	return waggle.TypeStatus{Type: typ, State: waggle.BreakerClosed}
}

func addTasks(t *testing.T, c *waggle.Client, typ string, n int) {
	t.Helper()
	for range n {
		if _, err := c.Enqueue(t.Context(), typ, nil, nil); err != nil {
			t.Fatal(err)
		}
	}
}

// TestBreakerOpensAndCloses has two workers share a breaker through an outage: it opens by what both see, nothing of the type
// starts meanwhile, one task at a time is tried, other types go on, and it closes when a try succeeds.
func TestBreakerOpensAndCloses(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store, c := memoryStore(t)
		var down atomic.Bool
		var begun, most, running, others atomic.Int64
		down.Store(true)
		register := func(w *waggle.Worker) {
			w.HandleFunc("call", func(context.Context, *waggle.Task) error {
				begun.Add(1)
				most.Store(max(most.Load(), running.Add(1)))
				defer running.Add(-1)
				time.Sleep(10 * time.Millisecond) // in the bubble's time
				if down.Load() {
					return errors.New("the other side is down")
				}
				return nil
			}, &waggle.HandleOptions{Breaker: &waggle.Breaker{Min: 10, CoolDown: 20 * time.Second}, Backoff: &waggle.Backoff{Base: time.Second, Factor: 1, Fixed: true}})
			w.HandleFunc("other", func(context.Context, *waggle.Task) error { others.Add(1); return nil }, nil)
		}
		addTasks(t, c, "call", 200)
		for range 2 {
			defer serve(t, store, &waggle.WorkerOptions{Slots: 5}, register)()
		}
		time.Sleep(10 * time.Second)
		s := statusOf(t, c, "call")
		if s.State != waggle.BreakerOpen || s.Failed < 10 || s.ByHand || s.Until.IsZero() {
			t.Fatalf("after 10 s of failures the breaker is %+v", s)
		}
		if n := begun.Load(); n > 1000 {
			t.Errorf("%d attempts began before it opened", n)
		}
		before := begun.Load()
		most.Store(0)
		addTasks(t, c, "other", 50)
		time.Sleep(2 * time.Minute)
		tried := begun.Load() - before
		if tried < 3 || tried > 7 { // each 20 s and the time of a look
			t.Errorf("%d tasks were tried in two minutes with a cool-down of 20 s", tried)
		}
		if most.Load() > 1 || others.Load() != 50 {
			t.Errorf("%d tasks were tried at once, and %d of 50 of another type have run", most.Load(), others.Load())
		}
		down.Store(false)
		time.Sleep(time.Minute)
		if s := statusOf(t, c, "call"); s.State != waggle.BreakerClosed || s.ByHand {
			t.Errorf("a minute after the outage the breaker is %+v", s)
		}
		if q, err := c.Queue(t.Context(), "default"); err != nil || q.Counts[waggle.Completed] != 250 {
			t.Errorf("queue %+v, error %v", q, err)
		}
	})
}

// TestBreakerByHand has a type stopped and started by a person, for workers that name their types and one that serves all.
func TestBreakerByHand(t *testing.T) {
	t.Parallel()
	for _, all := range []bool{false, true} {
		t.Run(fmt.Sprint("all types ", all), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				store, c := memoryStore(t)
				if err := c.OpenType(t.Context(), "call", 0); err != nil {
					t.Fatal(err)
				}
				var calls, others atomic.Int64
				run := func(_ context.Context, task *waggle.Task) error {
					if task.Type == "call" {
						calls.Add(1)
					} else {
						others.Add(1)
					}
					return nil
				}
				o := &waggle.WorkerOptions{}
				if all {
					o.AnyType = run
				}
				addTasks(t, c, "call", 20)
				addTasks(t, c, "other", 20)
				defer serve(t, store, o, func(w *waggle.Worker) {
					if !all {
						w.HandleFunc("call", run, nil)
						w.HandleFunc("other", run, nil)
					}
				})()
				time.Sleep(time.Minute)
				if calls.Load() != 0 || others.Load() != 20 {
					t.Errorf("%d tasks of the open type have run, %d of 20 others", calls.Load(), others.Load())
				}
				if err := c.CloseType(t.Context(), "call"); err != nil {
					t.Fatal(err)
				}
				time.Sleep(10 * time.Second)
				if calls.Load() != 20 {
					t.Errorf("%d of 20 tasks have run after the type was closed", calls.Load())
				}
				if err := c.OpenType(t.Context(), "call", 30*time.Second); err != nil {
					t.Fatal(err)
				}
				time.Sleep(5 * time.Second)
				addTasks(t, c, "call", 20)
				time.Sleep(20 * time.Second)
				if calls.Load() != 20 {
					t.Errorf("%d tasks have run while the type was open for a time", calls.Load()-20)
				}
				time.Sleep(30 * time.Second)
				if calls.Load() != 40 || statusOf(t, c, "call").State != waggle.BreakerClosed {
					t.Errorf("%d of 20 tasks have run after that, the breaker is %+v", calls.Load()-20, statusOf(t, c, "call"))
				}
			})
		})
	}
}

// cutStore is a store whose calls fail once it is cut off, as those of a process that is gone.
type cutStore struct {
	*memstore.Store
	cut atomic.Bool
}

var errCut = driver.Errorf(driver.ErrUnavailable, "cut off")

func (s *cutStore) Fetch(ctx context.Context, r driver.FetchRequest) (*driver.FetchResult, error) {
	if s.cut.Load() {
		return nil, errCut
	}
	return s.Store.Fetch(ctx, r)
}

func (s *cutStore) Heartbeat(ctx context.Context, w string, d time.Duration) (*driver.HeartbeatResult, error) {
	if s.cut.Load() {
		return nil, errCut
	}
	return s.Store.Heartbeat(ctx, w, d)
}

func (s *cutStore) Settle(ctx context.Context, w string, items []driver.Settlement) ([]driver.SettleResult, error) {
	if s.cut.Load() {
		return nil, errCut
	}
	return s.Store.Settle(ctx, w, items)
}

func (s *cutStore) Register(ctx context.Context, w driver.WorkerInfo, d time.Duration) error {
	if s.cut.Load() {
		return errCut
	}
	return s.Store.Register(ctx, w, d)
}

func (s *cutStore) Unregister(ctx context.Context, w string) error {
	if s.cut.Load() {
		return errCut
	}
	return s.Store.Unregister(ctx, w)
}

func (s *cutStore) GetPlans(ctx context.Context, refs []driver.PlanRef, r driver.PlanRead) ([]*driver.Plan, error) {
	if s.cut.Load() {
		return nil, errCut
	}
	return s.Store.GetPlans(ctx, refs, r)
}

func (s *cutStore) Advance(ctx context.Context, steps []driver.PlanStep) ([]driver.PlanResult, error) {
	if s.cut.Load() {
		return nil, errCut
	}
	return s.Store.Advance(ctx, steps)
}

// TestBreakerOfAWorkerThatDies has the worker that tries be gone: another takes over, and nothing is stuck.
func TestBreakerOfAWorkerThatDies(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		mem, c := memoryStore(t)
		store := &cutStore{Store: mem}
		first, err := waggle.NewWorker(store, &waggle.WorkerOptions{Lease: 5 * time.Second, DrainTimeout: waggle.NoDrain, Name: "first"})
		if err != nil {
			t.Fatal(err)
		}
		tried := make(chan struct{})
		first.HandleFunc("call", func(ctx context.Context, _ *waggle.Task) error {
			close(tried)
			<-ctx.Done()
			return ctx.Err()
		}, nil)
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		if err := c.OpenType(t.Context(), "call", time.Second); err != nil {
			t.Fatal(err)
		}
		addTasks(t, c, "call", 10)
		go func() { done <- first.Run(ctx) }()
		<-tried
		if s := statusOf(t, c, "call"); s.State != waggle.BreakerHalfOpen || s.Worker != first.ID() {
			t.Errorf("while a task is tried the breaker is %+v", s)
		}
		var begun atomic.Int64
		stop := serve(t, mem, &waggle.WorkerOptions{Lease: 5 * time.Second}, func(w *waggle.Worker) {
			w.HandleFunc("call", func(context.Context, *waggle.Task) error { begun.Add(1); return nil }, nil)
		})
		time.Sleep(10 * time.Second)
		if begun.Load() != 0 {
			t.Errorf("%d tasks began beside the one that is tried", begun.Load())
		}
		store.cut.Store(true)
		time.Sleep(30 * time.Second)
		if s := statusOf(t, c, "call"); begun.Load() != 10 || s.State != waggle.BreakerClosed {
			t.Errorf("half a minute after its worker was cut off %d of 10 tasks have run, the breaker is %+v", begun.Load(), s)
		}
		stop()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestBreakerOptionsAreChecked(t *testing.T) {
	t.Parallel()
	store, c := memoryStore(t)
	w, err := waggle.NewWorker(store, nil)
	if err != nil {
		t.Fatal(err)
	}
	w.HandleFunc("call", func(context.Context, *waggle.Task) error { return nil }, &waggle.HandleOptions{Breaker: &waggle.Breaker{Rate: 2}})
	if err := w.Run(t.Context()); !errors.Is(err, waggle.ErrInvalid) {
		t.Errorf("a rate of 2: %v", err)
	}
	if err := c.SetBreaker(t.Context(), "call", &waggle.Breaker{Window: -1}); !errors.Is(err, waggle.ErrInvalid) {
		t.Errorf("a window below 0: %v", err)
	}
	if err := c.OpenType(t.Context(), "no name", 0); !errors.Is(err, waggle.ErrInvalid) {
		t.Errorf("a type that can't be: %v", err)
	}
	if list, err := c.Types(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("types %+v, error %v", list, err)
	}
}
