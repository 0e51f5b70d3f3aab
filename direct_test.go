package waggle_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/waggleq/waggle"
)

// direct tells all workers something.
func (e *env) direct(d waggle.Directive) {
	e.t.Helper()
	for _, w := range e.workers() {
		if err := e.client.DirectWorker(e.t.Context(), w.ID, d); err != nil {
			e.t.Fatal(err)
		}
	}
}

// A quiet worker finishes what runs, gives back what it had fetched ahead, and takes tasks again when it is told to.
func TestQuietWorker(t *testing.T) {
	bubble(t, func(t *testing.T, e *env) {
		var c counter
		r := e.work(&waggle.WorkerOptions{Slots: 2}, func(w *waggle.Worker) { w.HandleFunc("x", c.until(10*time.Second), nil) })
		var ids []string
		for range 4 {
			ids = append(ids, e.enqueue("x", nil, nil))
		}
		synctest.Wait()
		e.direct(waggle.DirectQuiet)
		time.Sleep(time.Minute)
		for i, want := range []waggle.State{waggle.Completed, waggle.Completed, waggle.Available, waggle.Available} {
			e.wantState(ids[i], want)
		}
		later := e.enqueue("x", nil, nil) // wakes nobody
		time.Sleep(time.Minute)
		e.wantState(later, waggle.Available)
		if ws := e.workers(); len(ws) != 1 || ws[0].Directive != waggle.DirectQuiet || ws[0].Held != 0 {
			t.Errorf("workers %+v", ws)
		}
		e.direct(waggle.DirectServe)
		time.Sleep(time.Minute)
		for _, id := range append(ids, later) {
			if info := e.wantState(id, waggle.Completed); info.Attempt != 1 || info.Crashes != 0 {
				t.Errorf("attempt %d, %d crashes", info.Attempt, info.Crashes)
			}
		}
		r.stop()
	})
}

// An idle worker that waits for work hears of it at once, though its fetch is in the store.
func TestQuietIdleWorker(t *testing.T) {
	bubble(t, func(t *testing.T, e *env) {
		var c counter
		r := e.work(&waggle.WorkerOptions{PollInterval: time.Hour}, func(w *waggle.Worker) { w.HandleFunc("x", c.until(0), nil) })
		synctest.Wait()
		e.direct(waggle.DirectQuiet)
		time.Sleep(time.Second)
		id := e.enqueue("x", nil, nil)
		time.Sleep(2 * time.Hour)
		e.wantState(id, waggle.Available)
		e.direct(waggle.DirectServe)
		time.Sleep(time.Second)
		e.wantState(id, waggle.Completed)
		r.stop()
	})
}

// A worker that is told to stop drains as if its context had ended, also while it is quiet.
func TestStoppedWorker(t *testing.T) {
	for name, quiet := range map[string]bool{"busy": false, "quiet": true} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, e *env) {
				var c counter
				r := e.work(&waggle.WorkerOptions{Slots: 1}, func(w *waggle.Worker) { w.HandleFunc("x", c.until(10*time.Second), nil) })
				runs, waits := e.enqueue("x", nil, nil), e.enqueue("x", nil, nil)
				synctest.Wait()
				if quiet {
					e.direct(waggle.DirectQuiet)
					time.Sleep(time.Second)
				}
				id := e.workers()[0].ID
				e.direct(waggle.DirectStop)
				if err := <-r.done; err != nil {
					t.Errorf("Run returned %v", err)
				}
				e.wantState(runs, waggle.Completed)
				e.wantState(waits, waggle.Available)
				if err := e.client.DirectWorker(context.Background(), id, waggle.DirectStop); !errors.Is(err, waggle.ErrNotFound) {
					t.Errorf("a worker that is gone: %v", err)
				}
			})
		})
	}
}

// A busy worker, whose fetches renew its lease, hears of it within a heartbeat though no hint comes through.
func TestBusyWorkerHearsWithoutHints(t *testing.T) {
	bubble(t, func(t *testing.T, e *env) {
		var c counter
		r := e.work(&waggle.WorkerOptions{Slots: 1}, func(w *waggle.Worker) { w.HandleFunc("x", c.until(100*time.Millisecond), nil) })
		for range 1000 {
			e.enqueue("x", nil, nil)
		}
		time.Sleep(time.Second)
		e.store.set(func(op string) fault {
			if op == "await-control" {
				return before
			}
			return none
		})
		e.direct(waggle.DirectQuiet)
		time.Sleep(waggle.DefaultLease)
		completed := func() int {
			q, err := e.client.Queue(t.Context(), waggle.DefaultQueue)
			if err != nil {
				t.Fatal(err)
			}
			return q.Counts[waggle.Completed]
		}
		earlier := completed()
		time.Sleep(time.Minute)
		if after := completed(); after != earlier || after == 0 {
			t.Errorf("%d tasks were completed a lease after the directive, %d a minute later", earlier, after)
		}
		r.stop()
	})
}
