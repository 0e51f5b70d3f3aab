package waggle_test

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/waggleq/waggle"
	"github.com/waggleq/waggle/driver"
)

// endsLine returns level and attributes of the only line that tells how a task did not complete.
func (e *env) endsLine() (slog.Level, map[string]string) {
	e.t.Helper()
	e.logs.mu.Lock()
	defer e.logs.mu.Unlock()
	var level slog.Level
	var attrs map[string]string
	for _, r := range e.logs.lines {
		if r.Message != "task did not complete" {
			continue
		}
		if attrs != nil {
			e.t.Errorf("a second line tells of the end: %v", r)
		}
		level, attrs = r.Level, map[string]string{}
		r.Attrs(func(a slog.Attr) bool { attrs[a.Key] = a.Value.String(); return true })
	}
	return level, attrs
}

// meanwhile is a store in which something happens just before an outcome arrives.
type meanwhile struct {
	driver.Store
	do func()
}

func (s *meanwhile) Settle(ctx context.Context, w string, items []driver.Settlement) ([]driver.SettleResult, error) {
	s.do()
	return s.Store.Settle(ctx, w, items)
}

// What a log line and the figures say of an end is what the store has made of it, not what the worker thinks it will.
func TestEndsAreTheStoresAnswer(t *testing.T) {
	oops := errors.New("oops")
	for name, tt := range map[string]struct {
		run    waggle.Handler
		cancel bool // somebody asks for it while the outcome is on its way
		lost   bool // the reply to the outcome is lost
		level  slog.Level
		want   map[string]string
		stats  waggle.WorkerStats
	}{
		"last failure": {
			run:   func(context.Context, *waggle.Task) error { return oops },
			level: slog.LevelWarn, want: map[string]string{"outcome": "discarded", "reason": "attempts", "error": "oops"},
			stats: waggle.WorkerStats{Done: 1, Discarded: 1, Failed: 1},
		},
		"last failure whose reply is lost": {
			run: func(context.Context, *waggle.Task) error { return oops }, lost: true,
			level: slog.LevelWarn, want: map[string]string{"outcome": "discarded", "reason": "attempts", "error": "oops"},
			stats: waggle.WorkerStats{Done: 1, Discarded: 1, Failed: 1},
		},
		"last failure of a task that is cancelled": {
			run: func(context.Context, *waggle.Task) error { return oops }, cancel: true,
			level: slog.LevelInfo, want: map[string]string{"outcome": "cancelled", "reason": "requested", "error": "oops"},
			stats: waggle.WorkerStats{Done: 1, Cancelled: 1},
		},
		"given up": {
			run:   func(context.Context, *waggle.Task) error { return waggle.Discard(oops) },
			level: slog.LevelWarn, want: map[string]string{"outcome": "discarded", "reason": "handler", "error": "oops"},
			stats: waggle.WorkerStats{Done: 1, Discarded: 1},
		},
		"snoozed": {
			run:   func(context.Context, *waggle.Task) error { return waggle.Snooze(time.Hour) },
			level: slog.LevelInfo, want: map[string]string{"outcome": "snooze", "delay": "1h0m0s"},
			stats: waggle.WorkerStats{Done: 1, Snoozed: 1},
		},
		"done, though it was to be cancelled": {
			run: func(context.Context, *waggle.Task) error { return nil }, cancel: true,
			stats: waggle.WorkerStats{Done: 1, Completed: 1},
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, e *env) {
				id := e.enqueue("t", 1, &waggle.EnqueueOptions{MaxAttempts: 1})
				var store driver.Store = e.store
				if tt.cancel {
					store = &meanwhile{e.store, func() {
						if err := e.client.Cancel(t.Context(), id); err != nil {
							t.Error(err)
						}
					}}
				}
				if tt.lost {
					first := true
					e.store.set(func(op string) fault {
						if op == "settle" && first {
							first = false
							return after
						}
						return none
					})
				}
				w, err := waggle.NewWorker(store, &waggle.WorkerOptions{Logger: slog.New(e.logs)})
				if err != nil {
					t.Fatal(err)
				}
				w.HandleFunc("t", tt.run, nil)
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan error, 1)
				go func() { done <- w.Run(ctx) }()
				time.Sleep(time.Minute)
				synctest.Wait()
				cancel()
				if err := <-done; err != nil {
					t.Error(err)
				}
				if got := w.Stats(); got != tt.stats {
					t.Errorf("stats %+v, want %+v", got, tt.stats)
				}
				level, attrs := e.endsLine()
				if level != tt.level || (tt.want == nil) != (attrs == nil) {
					t.Errorf("the line is %v %v, want %v %v", level, attrs, tt.level, tt.want)
				}
				for k, want := range tt.want {
					if attrs[k] != want {
						t.Errorf("%s=%q, want %q", k, attrs[k], want)
					}
				}
			})
		})
	}
}

// An outcome that comes too late is told with what the handler had to say.
func TestLateEnd(t *testing.T) {
	bubble(t, func(t *testing.T, e *env) {
		id, runs := e.enqueue("t", 1, nil), 0
		r := e.work(&waggle.WorkerOptions{Lease: time.Second}, func(w *waggle.Worker) {
			w.HandleFunc("t", func(ctx context.Context, _ *waggle.Task) error {
				if runs++; runs == 1 {
					e.store.set(func(string) fault { return hang })
					<-ctx.Done()
					e.store.set(nil)
					return errors.New("cut off")
				}
				return nil
			}, nil)
		})
		time.Sleep(time.Minute)
		synctest.Wait()
		e.wantState(id, waggle.Completed)
		r.stop()
		if st := r.w.Stats(); st.Late != 1 || st.Completed != 1 {
			t.Errorf("stats %+v, want 1 late and 1 completed", st)
		}
		if n := e.logs.count(slog.LevelInfo, "the outcome of a task came too late: it was taken from this worker"); n != 1 {
			t.Errorf("%d lines tell of the late outcome, want 1", n)
		}
	})
}
