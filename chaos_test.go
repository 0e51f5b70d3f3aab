package waggle_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/waggleq/waggle"
	"github.com/waggleq/waggle/driver"
)

// overlap watches that no two handlers believe to hold the same task at once.
type overlap struct {
	mu      sync.Mutex
	running map[string]context.Context
	runs    map[string]int
	bad     []string
}

func (o *overlap) middleware(next waggle.Handler) waggle.Handler {
	return func(ctx context.Context, t *waggle.Task) error {
		o.mu.Lock()
		if other := o.running[t.ID]; other != nil && other.Err() == nil {
			o.bad = append(o.bad, t.ID)
		}
		o.running[t.ID] = ctx
		o.runs[t.ID]++
		o.mu.Unlock()
		defer func() {
			o.mu.Lock()
			if o.running[t.ID] == ctx {
				delete(o.running, t.ID)
			}
			o.mu.Unlock()
		}()
		return next(ctx, t)
	}
}

// Whatever is refused, lost or hangs on the way to the store: every accepted task runs until it ends, never twice at
// once under leases that are trusted, and the store stays sound.
func TestFaultsEverywhere(t *testing.T) {
	for seed := range uint64(3) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			bubble(t, func(t *testing.T, e *env) {
				rnd := rand.New(rand.NewPCG(seed, 7))
				e.store.storm(rnd)
				o := &overlap{running: map[string]context.Context{}, runs: map[string]int{}}
				var workers []*running
				for range 3 {
					workers = append(workers, e.work(&waggle.WorkerOptions{Slots: 10, Lease: 2 * time.Second, Middleware: []waggle.Middleware{o.middleware}}, chaotic))
				}
				ids := e.enqueueThroughFaults(300)
				time.Sleep(2 * time.Minute)
				workers[0].stop()
				e.store.set(nil)
				for _, id := range ids {
					if info := e.wait(id); info.State != waggle.Completed {
						t.Errorf("task %s ended as %s (%s) after %d runs: %s", id, info.State, info.Reason, o.runs[id], info.LastError())
					}
				}
				for _, r := range workers[1:] {
					r.stop()
				}
				if n := e.logs.count(slog.LevelError, "the lease was lost: registering again"); n == 0 {
					t.Error("no lease was lost: the test is too kind")
				}
				if len(o.bad) > 0 {
					t.Errorf("tasks that ran twice at once: %v", o.bad)
				}
				for _, id := range ids {
					if o.runs[id] == 0 {
						t.Errorf("task %s never ran", id)
					}
				}
			})
		})
	}
}

// chaotic registers handlers that end in every way.
func chaotic(w *waggle.Worker) {
	waggle.Handle(w, "x", func(ctx context.Context, t *waggle.Task, in int) error {
		t.Progress(0, 1, "begun")
		select {
		case <-time.After(time.Duration(in%7) * time.Second):
		case <-ctx.Done():
			return ctx.Err()
		}
		switch {
		case in%5 == 1 && t.Attempt < 2:
			return errBoom
		case in%5 == 2 && t.Attempt < 2:
			panic("oh no")
		case in%11 == 3 && time.Since(t.EnqueuedAt) < 20*time.Second:
			return waggle.Snooze(time.Second)
		}
		return nil
	}, &waggle.HandleOptions{Backoff: &waggle.Backoff{Base: 100 * time.Millisecond, Cap: time.Second}})
}

// enqueueThroughFaults enqueues tasks, each again with the same id until it is accepted.
func (e *env) enqueueThroughFaults(n int) []string {
	var ids []string
	for i := range n {
		opts := &waggle.EnqueueOptions{ID: fmt.Sprint("task-", i), CrashLimit: 1000}
		for {
			r, err := e.client.Enqueue(e.t.Context(), "x", i, opts)
			if err == nil {
				ids = append(ids, r.ID)
				break
			}
			if !errors.Is(err, waggle.ErrUnavailable) && !errors.Is(err, context.DeadlineExceeded) {
				e.t.Fatal(err)
			}
		}
	}
	return ids
}

// distant is a store at the end of a long line.
type distant struct {
	driver.Store
	trip time.Duration
}

func (d *distant) Fetch(ctx context.Context, r driver.FetchRequest) (*driver.FetchResult, error) {
	time.Sleep(d.trip)
	return d.Store.Fetch(ctx, r)
}

func (d *distant) Settle(ctx context.Context, w string, items []driver.Settlement) ([]driver.SettleResult, error) {
	time.Sleep(d.trip)
	return d.Store.Settle(ctx, w, items)
}

// Handlers that do nothing are not starved by round trips: jobs are fetched ahead, and more of them the faster they go.
func TestFetchesAhead(t *testing.T) {
	bubble(t, func(t *testing.T, e *env) {
		const n = 20_000
		for i := 0; i < n; i += 1000 {
			if _, err := e.client.EnqueueBatch(t.Context(), batchOf(1000)); err != nil {
				t.Fatal(err)
			}
		}
		w, err := waggle.NewWorker(&distant{e.mem, 5 * time.Millisecond}, &waggle.WorkerOptions{Slots: 10, UntilEmpty: true, Logger: quiet})
		if err != nil {
			t.Fatal(err)
		}
		w.HandleFunc("noop", func(context.Context, *waggle.Task) error { return nil }, nil)
		began := time.Now()
		if err := w.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		// 10 slots and a round trip of 5ms make 2000/s without fetching ahead: 10s.
		if took := time.Since(began); took > time.Second {
			t.Errorf("%d tasks took %v", n, took)
		}
		e.wantCompleted("default", n)
	})
}

func (e *env) wantCompleted(name string, n int64) {
	e.t.Helper()
	q, err := e.client.Queue(e.t.Context(), name)
	if err != nil {
		e.t.Fatal(err)
	}
	if got := q.Totals.Completed; got != n {
		e.t.Errorf("%d tasks were completed, want %d", got, n)
	}
}
