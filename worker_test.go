package waggle_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/waggleq/waggle"
)

var errBoom = errors.New("boom")

func TestVerdicts(t *testing.T) {
	type want struct {
		state    waggle.State
		reason   waggle.Reason
		attempt  int
		error    string
		dueAfter time.Duration
	}
	for _, tt := range []struct {
		name    string
		verdict error
		opts    *waggle.EnqueueOptions
		want    want
	}{
		{"nil", nil, nil, want{waggle.Completed, "", 1, "", 0}},
		{"error", errBoom, nil, want{waggle.Retryable, "", 1, "boom", 10 * time.Second}},
		{"last attempt", errBoom, &waggle.EnqueueOptions{MaxAttempts: 1}, want{waggle.Discarded, "attempts", 1, "boom", 0}},
		{"retry after", waggle.RetryAfter(time.Minute, errBoom), nil, want{waggle.Retryable, "", 1, "boom", time.Minute}},
		{"wrapped", fmt.Errorf("outer: %w", waggle.RetryAfter(time.Minute, errBoom)), nil, want{waggle.Retryable, "", 1, "outer: boom", time.Minute}},
		{"snooze", waggle.Snooze(time.Hour), nil, want{waggle.Scheduled, "", 0, "", time.Hour}},
		{"discard", waggle.Discard(errBoom), nil, want{waggle.Discarded, "handler", 1, "boom", 0}},
		{"cancel", waggle.Cancel(errBoom), nil, want{waggle.Cancelled, "handler", 1, "boom", 0}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, e *env) {
				r := e.work(nil, func(w *waggle.Worker) {
					w.HandleFunc("x", func(context.Context, *waggle.Task) error { return tt.verdict },
						&waggle.HandleOptions{Backoff: &waggle.Backoff{Base: 10 * time.Second, Fixed: true}})
				})
				began := time.Now()
				id := e.enqueue("x", nil, tt.opts)
				synctest.Wait()
				info := e.get(id)
				got := want{info.State, info.Reason, info.Attempt, info.LastError(), 0}
				if !info.State.Ended() {
					got.dueAfter = info.DueAt.Sub(began)
				}
				if diff := cmp.Diff(tt.want, got, cmp.AllowUnexported(want{})); diff != "" {
					t.Errorf("want -, got +:\n%s", diff)
				}
				r.stop()
			})
		})
	}
}

func TestGiveBack(t *testing.T) {
	bubble(t, func(t *testing.T, e *env) {
		began := time.Now()
		var starts []time.Duration
		var pauses atomic.Int64
		first := e.work(&waggle.WorkerOptions{Slots: 1}, func(w *waggle.Worker) {
			w.HandleFunc("x", func(context.Context, *waggle.Task) error {
				starts = append(starts, time.Since(began).Round(time.Second))
				return fmt.Errorf("outer: %w", waggle.GiveBack(time.Minute<<(pauses.Add(1)-1), errBoom))
			}, nil)
		})
		id := e.enqueue("x", nil, &waggle.EnqueueOptions{MaxAttempts: 1})
		time.Sleep(5 * time.Minute)
		info := e.wantState(id, waggle.Available)
		if want := []time.Duration{0, time.Minute, 3 * time.Minute}; !slices.Equal(starts, want) {
			t.Errorf("it ran at %v, want %v", starts, want)
		}
		if info.Attempt != 0 || len(info.Attempts) != 0 {
			t.Errorf("attempt %d, history %+v", info.Attempt, info.Attempts)
		}
		if n := e.logs.count(slog.LevelWarn, "a task is given back: its work could not begin"); n != 3 {
			t.Errorf("%d warnings say why, want 3", n)
		}
		// Another worker has it at once, and a stop does not wait for the pause.
		second := e.work(nil, func(w *waggle.Worker) {
			w.HandleFunc("x", func(context.Context, *waggle.Task) error { return nil }, nil)
		})
		synctest.Wait()
		e.wantState(id, waggle.Completed)
		stopped := time.Now()
		first.stop()
		second.stop()
		if took := time.Since(stopped); took > time.Second {
			t.Errorf("the stop took %v", took)
		}
	})
}

func TestRetriesUntilItWorks(t *testing.T) {
	bubble(t, func(t *testing.T, e *env) {
		r := e.work(nil, func(w *waggle.Worker) {
			waggle.Handle(w, "x", func(_ context.Context, t *waggle.Task, in string) error {
				if t.Attempt < 4 {
					return fmt.Errorf("attempt %d of %s", t.Attempt, in)
				}
				return nil
			}, &waggle.HandleOptions{Backoff: &waggle.Backoff{Base: time.Second, Fixed: true}})
		})
		began := time.Now()
		info := e.wait(e.enqueue("x", "job", nil))
		if took := time.Since(began); took < 7*time.Second || took > 7100*time.Millisecond {
			t.Errorf("took %v, want 1s + 2s + 4s", took)
		}
		var texts []string
		for _, a := range info.Attempts {
			texts = append(texts, a.Error)
			if a.Worker == "" || a.Host == "" {
				t.Errorf("attempt without worker or host: %+v", a)
			}
		}
		want := []string{"attempt 1 of job", "attempt 2 of job", "attempt 3 of job", ""}
		if diff := cmp.Diff(want, texts); diff != "" {
			t.Error(diff)
		}
		if n := e.logs.count(slog.LevelError, ""); n > 0 {
			t.Errorf("%d lines at level Error for a failing handler", n)
		}
		r.stop()
	})
}

func TestPanicAndGoexit(t *testing.T) {
	for name, handler := range map[string]waggle.Handler{
		"panic":       func(context.Context, *waggle.Task) error { panic("oh no") },
		"panic error": func(context.Context, *waggle.Task) error { panic(errBoom) },
		"goexit":      func(context.Context, *waggle.Task) error { runtime.Goexit(); return nil },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, e *env) {
				var calls atomic.Int32
				r := e.work(&waggle.WorkerOptions{Slots: 1}, func(w *waggle.Worker) {
					w.HandleFunc("bad", func(ctx context.Context, t *waggle.Task) error {
						calls.Add(1)
						return handler(ctx, t)
					}, &waggle.HandleOptions{Backoff: &waggle.Backoff{Base: time.Second, Fixed: true}})
					w.HandleFunc("good", func(context.Context, *waggle.Task) error { return nil }, nil)
				})
				bad := e.enqueue("bad", nil, &waggle.EnqueueOptions{MaxAttempts: 2})
				info := e.wait(bad)
				if info.State != waggle.Discarded || calls.Load() != 2 || info.Crashes != 0 {
					t.Errorf("state %s after %d calls, %d crashes", info.State, calls.Load(), info.Crashes)
				}
				if a := info.Attempts[0]; a.Error == "" || (name != "goexit") != strings.Contains(a.Stack, "worker_test.go") {
					t.Errorf("attempt: %+v", a)
				}
				if good := e.wait(e.enqueue("good", nil, nil)); good.State != waggle.Completed {
					t.Errorf("the slot is gone: %s", good.State)
				}
				r.stop()
			})
		})
	}
}

func TestTimeout(t *testing.T) {
	bubble(t, func(t *testing.T, e *env) {
		var cause error
		r := e.work(nil, func(w *waggle.Worker) {
			w.HandleFunc("x", func(ctx context.Context, _ *waggle.Task) error {
				if _, ok := ctx.Deadline(); !ok {
					t.Error("the context has no deadline")
				}
				<-ctx.Done()
				cause = context.Cause(ctx)
				return ctx.Err()
			}, &waggle.HandleOptions{Timeout: 3 * time.Second})
		})
		began := time.Now()
		info := e.wait(e.enqueue("x", nil, &waggle.EnqueueOptions{MaxAttempts: 1}))
		if took := time.Since(began); took != 3*time.Second {
			t.Errorf("took %v", took)
		}
		if !errors.Is(cause, waggle.ErrTimeout) || !strings.Contains(info.LastError(), waggle.ErrTimeout.Error()) {
			t.Errorf("cause %v, error %q", cause, info.LastError())
		}
		// The task's own timeout takes precedence over that of its type.
		began = time.Now()
		e.wait(e.enqueue("x", nil, &waggle.EnqueueOptions{MaxAttempts: 1, Timeout: time.Second}))
		if took := time.Since(began); took != time.Second {
			t.Errorf("took %v", took)
		}
		r.stop()
	})
}

func TestCancelRunning(t *testing.T) {
	for name, tt := range map[string]struct {
		verdict error
		want    waggle.State
	}{
		"error":    {errBoom, waggle.Cancelled},
		"snooze":   {waggle.Snooze(time.Hour), waggle.Cancelled},
		"complete": {nil, waggle.Completed},
		"discard":  {waggle.Discard(errBoom), waggle.Discarded},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, e *env) {
				var cause error
				r := e.work(nil, func(w *waggle.Worker) {
					w.HandleFunc("x", func(ctx context.Context, _ *waggle.Task) error {
						<-ctx.Done()
						cause = context.Cause(ctx)
						return tt.verdict
					}, nil)
				})
				id := e.enqueue("x", nil, nil)
				synctest.Wait()
				e.wantState(id, waggle.Active)
				began := time.Now()
				if err := e.client.Cancel(t.Context(), id); err != nil {
					t.Fatal(err)
				}
				info := e.wait(id)
				if info.State != tt.want || !errors.Is(cause, waggle.ErrCancelled) {
					t.Errorf("state %s, cause %v", info.State, cause)
				}
				if took := time.Since(began); took > 100*time.Millisecond {
					t.Errorf("the cancellation took %v", took)
				}
				r.stop()
			})
		})
	}
}

// A handler that ignores the end of its context keeps its slot, and is reported.
func TestStuckHandler(t *testing.T) {
	bubble(t, func(t *testing.T, e *env) {
		free := make(chan struct{})
		r := e.work(&waggle.WorkerOptions{Slots: 1}, func(w *waggle.Worker) {
			w.HandleFunc("x", func(context.Context, *waggle.Task) error { <-free; return errBoom }, nil)
			w.HandleFunc("y", func(context.Context, *waggle.Task) error { return nil }, nil)
		})
		x := e.enqueue("x", nil, &waggle.EnqueueOptions{Timeout: time.Second, MaxAttempts: 1})
		synctest.Wait()
		y := e.enqueue("y", nil, nil)
		time.Sleep(30 * time.Second)
		if st := r.w.Stats(); st.Stuck != 1 || st.Running != 1 {
			t.Errorf("stats: %+v", st)
		}
		e.wantState(x, waggle.Active)
		e.wantState(y, waggle.Available)
		if n := e.logs.count(slog.LevelWarn, ""); n != 1 {
			t.Errorf("%d warnings", n)
		}
		close(free)
		synctest.Wait()
		e.wantState(x, waggle.Discarded)
		e.wantState(y, waggle.Completed)
		if st := r.w.Stats(); st.Stuck != 0 || st.Running != 0 {
			t.Errorf("stats: %+v", st)
		}
		r.stop()
	})
}

func TestUntilEmpty(t *testing.T) {
	bubble(t, func(t *testing.T, e *env) {
		var ran atomic.Int32
		for i := range 250 {
			e.enqueue("x", i, &waggle.EnqueueOptions{Delay: time.Duration(i%3) * time.Second})
		}
		e.enqueue("x", nil, &waggle.EnqueueOptions{Hold: true})
		e.enqueue("other", nil, nil)
		r := e.work(&waggle.WorkerOptions{UntilEmpty: true}, func(w *waggle.Worker) {
			w.HandleFunc("x", func(_ context.Context, t *waggle.Task) error {
				ran.Add(1)
				if t.Attempt == 1 && ran.Load() == 7 {
					return waggle.RetryAfter(10*time.Second, errBoom)
				}
				return nil
			}, nil)
		})
		began := time.Now()
		if err := <-r.done; err != nil {
			t.Fatal(err)
		}
		if ran.Load() != 251 {
			t.Errorf("%d runs, want 251", ran.Load())
		}
		if took := time.Since(began); took < 10*time.Second || took > 13*time.Second {
			t.Errorf("took %v, want until the retry has run", took)
		}
		r.cancel()
	})
}

func TestWeightedQueues(t *testing.T) {
	for _, slots := range []int{1, 4, 20, 100} {
		for _, took := range []time.Duration{0, 10 * time.Millisecond} {
			t.Run(fmt.Sprintf("%d slots, %v a task", slots, took), func(t *testing.T) {
				bubble(t, func(t *testing.T, e *env) { weightedQueues(t, e, slots, took) })
			})
		}
	}
}

// weightedQueues wants 4 of 5 tasks from the queue with weight 4, over 2000 within 3 %, in every window of 200 within 10 %.
func weightedQueues(t *testing.T, e *env, slots int, took time.Duration) {
	for i := range 6000 {
		e.enqueue("x", nil, &waggle.EnqueueOptions{Queue: []string{"low", "high"}[i%2]})
	}
	var mu sync.Mutex
	var started []int // 1 for one of high
	r := e.work(&waggle.WorkerOptions{Slots: slots, Queues: []waggle.Queue{{"low", 1}, {"high", 4}}}, func(w *waggle.Worker) {
		w.HandleFunc("x", func(_ context.Context, t *waggle.Task) error {
			mu.Lock()
			started = append(started, strings.Count(t.Queue, "high"))
			mu.Unlock()
			time.Sleep(took)
			return nil
		}, nil)
	})
	time.Sleep(time.Minute)
	r.stop()
	share := func(part []int) (n int) {
		for _, v := range part {
			n += v
		}
		return n
	}
	if n := share(started[:2000]); n < 1600-60 || n > 1600+60 {
		t.Errorf("%d of the first 2000 tasks are from the queue with weight 4, want 1600 ± 3 %%", n)
	}
	for from := range 1800 {
		if n := share(started[from : from+200]); n < 160-20 || n > 160+20 {
			t.Fatalf("%d of 200 tasks from the %dth on are from the queue with weight 4, want 160 ± 10 %%", n, from)
		}
	}
}

// Long tasks of a light queue hold their part of the slots, not all of them.
func TestWeightedSlots(t *testing.T) {
	bubble(t, func(t *testing.T, e *env) {
		for range 20 {
			e.enqueue("x", nil, &waggle.EnqueueOptions{Queue: "slow"})
		}
		for range 1000 {
			e.enqueue("x", nil, &waggle.EnqueueOptions{Queue: "mail"})
		}
		var mail, slow, most atomic.Int64
		r := e.work(&waggle.WorkerOptions{Slots: 6, Queues: []waggle.Queue{{"slow", 1}, {"mail", 5}}}, func(w *waggle.Worker) {
			w.HandleFunc("x", func(_ context.Context, t *waggle.Task) error {
				if t.Queue == "mail" {
					mail.Add(1)
					time.Sleep(time.Second)
					return nil
				}
				most.Store(max(most.Load(), slow.Add(1)))
				time.Sleep(time.Hour)
				slow.Add(-1)
				return nil
			}, nil)
		})
		time.Sleep(100 * time.Second)
		if n := mail.Load(); n < 490 || n > 510 {
			t.Errorf("%d tasks of the queue with weight 5 began within 100 s, want five a second", n)
		}
		if n := most.Load(); n != 1 {
			t.Errorf("up to %d tasks of the light queue ran at once, want 1 of 6 slots", n)
		}
		time.Sleep(200 * time.Second) // then it may have all that nobody else wants
		if n := slow.Load(); n != 6 {
			t.Errorf("%d tasks of the light queue run while the other is empty, want all 6 slots", n)
		}
		time.Sleep(5 * time.Hour)
		r.stop()
	})
}

func TestStrictQueues(t *testing.T) {
	bubble(t, func(t *testing.T, e *env) {
		for i := range 100 {
			e.enqueue("x", nil, &waggle.EnqueueOptions{Queue: []string{"second", "first"}[i%2]})
		}
		var order []string
		r := e.work(&waggle.WorkerOptions{Slots: 1, StrictQueues: true, Queues: []waggle.Queue{{Name: "first"}, {Name: "second"}}}, func(w *waggle.Worker) {
			w.HandleFunc("x", func(_ context.Context, t *waggle.Task) error {
				time.Sleep(10 * time.Millisecond)
				order = append(order, t.Queue)
				return nil
			}, nil)
		})
		time.Sleep(5 * time.Second)
		r.stop()
		if len(order) != 100 || slices.Contains(order[:50], "second") {
			t.Errorf("order: %v", order)
		}
	})
}

// Types without a handler are not touched, unless the worker serves every type.
func TestUnknownTypesWait(t *testing.T) {
	bubble(t, func(t *testing.T, e *env) {
		r := e.work(nil, func(w *waggle.Worker) {
			w.HandleFunc("known", func(context.Context, *waggle.Task) error { return nil }, nil)
		})
		id := e.enqueue("unknown", nil, nil)
		time.Sleep(time.Minute)
		if info := e.wantState(id, waggle.Available); info.Attempt != 0 {
			t.Errorf("attempt %d", info.Attempt)
		}
		r.stop()
		any := e.work(&waggle.WorkerOptions{AnyType: func(_ context.Context, t *waggle.Task) error { return t.SetResult(t.Type) }}, func(*waggle.Worker) {})
		if got, err := waggle.Result[string](e.wait(id)); got != "unknown" || err != nil {
			t.Errorf("result %q, %v", got, err)
		}
		any.stop()
	})
}

// An idle worker starts a task at once, on time, and asks the store seldom.
func TestIdleWorker(t *testing.T) {
	bubble(t, func(t *testing.T, e *env) {
		var started time.Time
		r := e.work(nil, func(w *waggle.Worker) {
			w.HandleFunc("x", func(context.Context, *waggle.Task) error { started = time.Now(); return nil }, nil)
		})
		synctest.Wait()
		before := e.store.count("fetch")
		time.Sleep(10 * time.Minute)
		if n := e.store.count("fetch") - before; n < 450 || n > 601 {
			t.Errorf("%d fetches in 10 idle minutes", n)
		}
		began := time.Now()
		e.enqueue("x", nil, nil)
		synctest.Wait()
		if started.Sub(began) != 0 {
			t.Errorf("started after %v", started.Sub(began))
		}
		for _, delay := range []time.Duration{time.Millisecond, 333 * time.Millisecond, 7777 * time.Millisecond} {
			began = time.Now()
			e.wait(e.enqueue("x", nil, &waggle.EnqueueOptions{Delay: delay}))
			if late := started.Sub(began) - delay; late < 0 || late > 2*time.Millisecond {
				t.Errorf("with delay %v it started %v late", delay, late)
			}
		}
		r.stop()
	})
}

// A handler's context ends with it, at the latest.
func TestContextEndsWithHandler(t *testing.T) {
	bubble(t, func(t *testing.T, e *env) {
		var kept context.Context
		r := e.work(nil, func(w *waggle.Worker) {
			w.HandleFunc("x", func(ctx context.Context, _ *waggle.Task) error { kept = ctx; return nil }, nil)
		})
		e.wait(e.enqueue("x", nil, nil))
		synctest.Wait()
		select {
		case <-kept.Done():
		default:
			t.Error("the context goes on")
		}
		r.stop()
	})
}

func TestMiddleware(t *testing.T) {
	bubble(t, func(t *testing.T, e *env) {
		var trace []string
		mw := func(name string) waggle.Middleware {
			return func(next waggle.Handler) waggle.Handler {
				return func(ctx context.Context, t *waggle.Task) error {
					trace = append(trace, name+" in")
					err := next(ctx, t)
					trace = append(trace, name+" out")
					return err
				}
			}
		}
		r := e.work(&waggle.WorkerOptions{Middleware: []waggle.Middleware{mw("a"), mw("b")}}, func(w *waggle.Worker) {
			w.HandleFunc("x", func(ctx context.Context, t *waggle.Task) error {
				if got, ok := waggle.TaskFrom(ctx); !ok || got != t {
					trace = append(trace, "no task in the context")
				}
				return nil
			}, nil)
		})
		e.wait(e.enqueue("x", nil, nil))
		if diff := cmp.Diff([]string{"a in", "b in", "b out", "a out"}, trace); diff != "" {
			t.Error(diff)
		}
		r.stop()
	})
}

func TestProgressAndLog(t *testing.T) {
	bubble(t, func(t *testing.T, e *env) {
		r := e.work(nil, func(w *waggle.Worker) {
			w.HandleFunc("x", func(_ context.Context, t *waggle.Task) error {
				log := t.Logger().With("step", 1)
				log.Info("begun", "time", "user's own")
				log.Debug("not kept")
				t.Progress(1, 3, "first")
				time.Sleep(time.Second)
				log.WithGroup("g").Warn("half way", "k", "v")
				t.Progress(2, 3, "second")
				return nil
			}, nil)
		})
		id := e.enqueue("x", nil, nil)
		time.Sleep(500 * time.Millisecond)
		info := e.wantState(id, waggle.Active)
		if diff := cmp.Diff(&waggle.Progress{Done: 1, Total: 3, Note: "first"}, info.Progress); diff != "" {
			t.Error(diff)
		}
		info = e.wait(id)
		if diff := cmp.Diff(&waggle.Progress{Done: 2, Total: 3, Note: "second"}, info.Progress); diff != "" {
			t.Error(diff)
		}
		var lines []string
		for _, l := range info.Logs {
			lines = append(lines, l.Level+" "+l.Message+" "+l.Attrs)
		}
		want := []string{`info begun {"step":1,"time":"user's own"}`, `warn half way {"step":1,"g":{"k":"v"}}`}
		if diff := cmp.Diff(want, lines); diff != "" {
			t.Error(diff)
		}
		r.stop()
	})
}

// A long task in one slot does not keep tasks that another worker could run.
func TestNoHoarding(t *testing.T) {
	bubble(t, func(t *testing.T, e *env) {
		var mu sync.Mutex
		by := map[string]int{}
		register := func(w *waggle.Worker) {
			waggle.Handle(w, "x", func(_ context.Context, t *waggle.Task, d time.Duration) error {
				time.Sleep(d)
				mu.Lock()
				defer mu.Unlock()
				by[t.Worker()]++
				return nil
			}, nil)
		}
		a := e.work(&waggle.WorkerOptions{Slots: 2}, register)
		for range 2000 { // fast ones, so that it learns to fetch ahead
			e.enqueue("x", 0, nil)
		}
		synctest.Wait()
		b := e.work(&waggle.WorkerOptions{Slots: 2}, register)
		clear(by)
		began := time.Now()
		var ids []string
		for range 8 {
			ids = append(ids, e.enqueue("x", 10*time.Second, nil))
		}
		for _, id := range ids {
			e.wait(id)
		}
		if took := time.Since(began); took > 21*time.Second {
			t.Errorf("8 tasks of 10s in 2 workers with 2 slots took %v: %v", took, by)
		}
		a.stop()
		b.stop()
	})
}

// The time that a slot waited for a job is no part of the job's attempt.
func TestIdleTimeIsNotRunTime(t *testing.T) {
	bubble(t, func(t *testing.T, e *env) {
		running := e.work(&waggle.WorkerOptions{Slots: 2}, func(w *waggle.Worker) {
			w.HandleFunc("t", func(context.Context, *waggle.Task) error { time.Sleep(time.Second); return nil }, nil)
		})
		for range 4 {
			id := e.enqueue("t", nil, nil)
			time.Sleep(time.Minute)
			if a := e.wantState(id, waggle.Completed).Attempts[0]; a.Ended.Sub(a.Started) != time.Second {
				t.Errorf("a handler that takes a second ran from %v to %v", a.Started, a.Ended)
			}
		}
		running.stop()
	})
}

func TestRegistrationMistakes(t *testing.T) {
	t.Parallel()
	e := newPlainEnv(t)
	w, err := waggle.NewWorker(e, nil)
	if err != nil {
		t.Fatal(err)
	}
	nop := func(context.Context, *waggle.Task) error { return nil }
	w.HandleFunc("twice", nop, nil)
	w.HandleFunc("twice", nop, nil)
	w.HandleFunc("bad name", nop, nil)
	w.HandleFunc("nil", nil, nil)
	w.HandleFunc("backoff", nop, &waggle.HandleOptions{Backoff: &waggle.Backoff{Base: -1}, Timeout: -1})
	err = w.Run(t.Context())
	for _, part := range []string{`type "twice" has two handlers`, `"bad name"`, `handler of type "nil" is nil`, "base and cap must not be negative", "timeout must be 0 or at least 1ms"} {
		if err == nil || !errors.Is(err, waggle.ErrInvalid) || !strings.Contains(err.Error(), part) {
			t.Errorf("Run = %v\nwant a part about %q", err, part)
		}
	}
	empty, err := waggle.NewWorker(e, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := empty.Run(t.Context()); !errors.Is(err, waggle.ErrInvalid) {
		t.Errorf("Run without handlers = %v", err)
	}
}

func TestWorkerOptionsJoinAllProblems(t *testing.T) {
	t.Parallel()
	_, err := waggle.NewWorker(newPlainEnv(t), &waggle.WorkerOptions{
		Queues: []waggle.Queue{{"a b", 1}, {"x", -1}, {"x", 1}}, Slots: -1, Lease: time.Millisecond,
		DrainTimeout: -5, PollInterval: time.Millisecond, Middleware: []waggle.Middleware{nil},
	})
	for _, part := range []string{`"a b"`, "weight of queue", "named twice", "slots", "lease", "drain timeout", "poll interval", "middleware"} {
		if !errors.Is(err, waggle.ErrInvalid) || !strings.Contains(err.Error(), part) {
			t.Errorf("NewWorker = %v\nwant a part about %q", err, part)
		}
	}
}
