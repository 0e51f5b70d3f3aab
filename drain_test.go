package waggle_test

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/waggleq/waggle"
)

func TestStopWaitsForHandlers(t *testing.T) {
	bubble(t, func(t *testing.T, e *env) {
		var c counter
		r := e.work(&waggle.WorkerOptions{Slots: 2}, func(w *waggle.Worker) { w.HandleFunc("x", c.until(10*time.Second), nil) })
		var ids []string
		for range 4 {
			ids = append(ids, e.enqueue("x", nil, nil))
		}
		synctest.Wait()
		if took := r.stop(); took != 10*time.Second {
			t.Errorf("stopped after %v", took)
		}
		for i, want := range []waggle.State{waggle.Completed, waggle.Completed, waggle.Available, waggle.Available} {
			if info := e.wantState(ids[i], want); info.Crashes != 0 {
				t.Errorf("%d crashes", info.Crashes)
			}
		}
		if n := len(e.workers()); n != 0 {
			t.Errorf("%d workers are still registered", n)
		}
	})
}

func TestStopCancelsAfterTheDrain(t *testing.T) {
	for name, tt := range map[string]struct {
		opts waggle.WorkerOptions
		want time.Duration
	}{
		"default":  {waggle.WorkerOptions{}, 25 * time.Second},
		"5s":       {waggle.WorkerOptions{DrainTimeout: 5 * time.Second}, 5 * time.Second},
		"no drain": {waggle.WorkerOptions{DrainTimeout: waggle.NoDrain}, 0},
		"abort":    {waggle.WorkerOptions{}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, e *env) {
				if name == "abort" {
					ch := make(chan struct{})
					close(ch)
					tt.opts.Abort = ch
				}
				var c counter
				r := e.work(&tt.opts, func(w *waggle.Worker) { w.HandleFunc("x", c.until(time.Hour), nil) })
				id := e.enqueue("x", nil, nil)
				synctest.Wait()
				if took := r.stop(); took != tt.want {
					t.Errorf("stopped after %v, want %v", took, tt.want)
				}
				if !errors.Is(c.lastCause(), waggle.ErrShutdown) {
					t.Errorf("cause %v", c.lastCause())
				}
				info := e.wantState(id, waggle.Available)
				if info.Attempt != 0 || info.Crashes != 0 {
					t.Errorf("attempt %d, %d crashes: the stop must cost nothing", info.Attempt, info.Crashes)
				}
			})
		})
	}
}

// What a handler decides while the worker shuts down counts.
func TestVerdictsDuringShutdown(t *testing.T) {
	for name, tt := range map[string]struct {
		verdict error
		want    waggle.State
	}{
		"complete":    {nil, waggle.Completed},
		"error":       {errBoom, waggle.Available},
		"retry after": {waggle.RetryAfter(time.Hour, errBoom), waggle.Available},
		"snooze":      {waggle.Snooze(time.Hour), waggle.Scheduled},
		"discard":     {waggle.Discard(errBoom), waggle.Discarded},
		"cancel":      {waggle.Cancel(nil), waggle.Cancelled},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, e *env) {
				r := e.work(&waggle.WorkerOptions{DrainTimeout: time.Second}, func(w *waggle.Worker) {
					w.HandleFunc("x", func(ctx context.Context, _ *waggle.Task) error {
						<-ctx.Done()
						return tt.verdict
					}, nil)
				})
				id := e.enqueue("x", nil, nil)
				synctest.Wait()
				r.stop()
				e.wantState(id, tt.want)
			})
		})
	}
}

// Handlers that ignore the shutdown don't keep the worker.
func TestStopWithStuckHandler(t *testing.T) {
	bubble(t, func(t *testing.T, e *env) {
		free := make(chan struct{})
		r := e.work(&waggle.WorkerOptions{DrainTimeout: time.Second}, func(w *waggle.Worker) {
			w.HandleFunc("x", func(context.Context, *waggle.Task) error { <-free; return nil }, nil)
		})
		id := e.enqueue("x", nil, nil)
		synctest.Wait()
		if took := r.stop(); took > 5*time.Second {
			t.Errorf("stopped after %v", took)
		}
		e.wantState(id, waggle.Available)
		close(free)
		synctest.Wait()
		e.wantState(id, waggle.Available) // its outcome came too late
	})
}

// A stop while the store is away does not hang.
func TestStopDuringOutage(t *testing.T) {
	for name, what := range map[string]fault{"refused": before, "blackhole": hang} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, e *env) {
				var c counter
				r := e.work(&waggle.WorkerOptions{DrainTimeout: 5 * time.Second}, func(w *waggle.Worker) { w.HandleFunc("x", c.until(time.Hour), nil) })
				e.enqueue("x", nil, nil)
				synctest.Wait()
				e.store.set(func(string) fault { return what })
				if took := r.stop(); took > 30*time.Second {
					t.Errorf("stopped after %v", took)
				}
				e.store.set(nil)
			})
		})
	}
}

// A worker that can't even register stops when it is told to.
func TestStopBeforeRegistration(t *testing.T) {
	bubble(t, func(t *testing.T, e *env) {
		e.store.set(outage)
		var c counter
		r := e.work(nil, func(w *waggle.Worker) { w.HandleFunc("x", c.until(0), nil) })
		time.Sleep(time.Minute)
		if took := r.stop(); took > time.Second {
			t.Errorf("stopped after %v", took)
		}
		e.store.set(nil)
	})
}

// A worker that runs until its queues are empty says once what it waits for if that is none of its own doing.
func TestUntilEmptyTellsWhatItWaitsFor(t *testing.T) {
	bubble(t, func(t *testing.T, e *env) {
		done := func(w *waggle.Worker) {
			w.HandleFunc("x", func(context.Context, *waggle.Task) error { return nil }, nil)
		}
		e.enqueue("x", nil, &waggle.EnqueueOptions{Delay: time.Hour})
		if err := <-e.work(&waggle.WorkerOptions{UntilEmpty: true}, done).done; err != nil {
			t.Fatal(err)
		}
		if n := e.logs.count(slog.LevelInfo, "not empty: waiting for tasks that are due later"); n != 1 {
			t.Errorf("a task that is due in an hour is told %d times, want once", n)
		}
		if err := e.client.Pause(t.Context(), "default"); err != nil {
			t.Fatal(err)
		}
		e.enqueue("x", nil, nil)
		r := e.work(&waggle.WorkerOptions{UntilEmpty: true}, done)
		time.Sleep(time.Minute)
		if n := e.logs.count(slog.LevelWarn, "not empty: tasks are available in queues that are paused"); n != 1 {
			t.Errorf("a paused queue is told %d times, want once", n)
		}
		r.stop()
	})
}

// A worker that is on its way out takes the store's word that its id is unknown for no loss: it does not register again.
func TestUnregisteringIsNoLoss(t *testing.T) {
	bubble(t, func(t *testing.T, e *env) {
		e.store.set(once("unregister", after, 3)) // done, but the worker hears of it later than its other calls do
		var c counter
		e.enqueue("x", nil, nil)
		r := e.work(&waggle.WorkerOptions{UntilEmpty: true}, func(w *waggle.Worker) { w.HandleFunc("x", c.until(time.Second), nil) })
		if err := <-r.done; err != nil {
			t.Fatal(err)
		}
		if n := e.store.count("register"); n != 1 {
			t.Errorf("the worker registered %d times, want once", n)
		}
		if n := e.logs.count(slog.LevelError, "the lease was lost: registering again"); n != 0 {
			t.Error("the worker says that its lease was lost")
		}
	})
}
