package waggle_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/waggleq/waggle"
)

// typedNil is the classic: a nil pointer returned as an error is an error that is not nil.
type typedNil struct{ code int }

func (e *typedNil) Error() string { return fmt.Sprint("code ", e.code) }

// nasty is an error and a value whose methods do what do says.
type nasty struct{ in, do string }

func (n nasty) act(in string) {
	switch {
	case n.in != in:
	case n.do == "exit":
		runtime.Goexit()
	default:
		panic("nasty " + in)
	}
}

func (n nasty) Error() string                { n.act("Error"); return "nasty" }
func (n nasty) Unwrap() error                { n.act("Unwrap"); return nil }
func (n nasty) Is(error) bool                { n.act("Is"); return false }
func (n nasty) As(any) bool                  { n.act("As"); return false }
func (n nasty) String() string               { n.act("String"); return "nasty" }
func (n nasty) LogValue() slog.Value         { n.act("LogValue"); return slog.StringValue("nasty") }
func (n nasty) MarshalJSON() ([]byte, error) { n.act("MarshalJSON"); return []byte("1"), nil }
func (n *nasty) UnmarshalJSON([]byte) error {
	nasty{"UnmarshalJSON", n.do}.act("UnmarshalJSON")
	return nil
}

// nastyLog is a slog handler that panics, ends its goroutine or blocks in each of its methods.
type nastyLog struct {
	do   string
	wait chan struct{}
}

func (l *nastyLog) act() {
	switch l.do {
	case "panic":
		panic("nasty log")
	case "exit":
		runtime.Goexit()
	case "block":
		<-l.wait
	}
}

func (l *nastyLog) Enabled(context.Context, slog.Level) bool  { l.act(); return true }
func (l *nastyLog) Handle(context.Context, slog.Record) error { l.act(); return nil }
func (l *nastyLog) WithAttrs([]slog.Attr) slog.Handler        { l.act(); return l }
func (l *nastyLog) WithGroup(string) slog.Handler             { l.act(); return l }

// TestForeignCode has user code panic, or end its goroutine, wherever Waggle calls it on behalf of a task. That attempt
// fails, with the stack of a panic; no other task notices, and no worker dies.
func TestForeignCode(t *testing.T) {
	type handler = func(context.Context, *waggle.Task) error
	for name, tt := range map[string]struct {
		run   handler
		error string
		stack string // "": none
	}{
		"typed nil":          {func(context.Context, *waggle.Task) error { var e *typedNil; return e }, "can't be read: panic: runtime error: invalid memory", "typedNil"},
		"typed nil, wrapped": {func(context.Context, *waggle.Task) error { var e *typedNil; return waggle.Discard(e) }, "can't be read: panic", "typedNil"},
		"Error panics":       {func(context.Context, *waggle.Task) error { return nasty{in: "Error"} }, "panic: nasty Error", "nasty.Error"},
		"Error exits":        {func(context.Context, *waggle.Task) error { return nasty{"Error", "exit"} }, "runtime.Goexit", ""},
		"Unwrap panics":      {func(context.Context, *waggle.Task) error { return nasty{in: "Unwrap"} }, "panic: nasty Unwrap", "nasty.Unwrap"},
		"Unwrap exits":       {func(context.Context, *waggle.Task) error { return nasty{"Unwrap", "exit"} }, "runtime.Goexit", ""},
		"As panics":          {func(context.Context, *waggle.Task) error { return nasty{in: "As"} }, "panic: nasty As", "nasty.As"},
		"Is panics":          {func(context.Context, *waggle.Task) error { return waggle.RetryAfter(1, nasty{in: "Is"}) }, "nasty", ""},
		"Is panics in a task that was cut short": {func(ctx context.Context, _ *waggle.Task) error {
			<-ctx.Done()
			return nasty{in: "Is"}
		}, "panic: nasty Is", "nasty.Is"},
		"panic with a nasty value":      {func(context.Context, *waggle.Task) error { panic(nasty{in: "Error"}) }, "panic: ", "foreign_test.go"},
		"panic with a value that exits": {func(context.Context, *waggle.Task) error { panic(nasty{"Error", "exit"}) }, "panic: a waggle_test.nasty", "foreign_test.go"},
		"result encoder panics":         {func(_ context.Context, t *waggle.Task) error { return t.SetResult(nasty{in: "MarshalJSON"}) }, "panic: nasty MarshalJSON", ""},
		"result encoder exits":          {func(_ context.Context, t *waggle.Task) error { return t.SetResult(nasty{"MarshalJSON", "exit"}) }, "runtime.Goexit", ""},
		"payload decoder panics":        {func(_ context.Context, t *waggle.Task) error { var n nasty; return t.Bind(&n) }, "panic: nasty UnmarshalJSON", "UnmarshalJSON"},
		"LogValue exits": {func(_ context.Context, t *waggle.Task) error {
			t.Logger().Info("look", "at", nasty{"LogValue", "exit"})
			return nil
		}, "runtime.Goexit", ""},
		"middleware panics": {func(_ context.Context, t *waggle.Task) error { return nil }, "panic: middleware", "foreign_test.go"},
		"enqueue in a handler panics": {func(ctx context.Context, t *waggle.Task) error {
			_, err := t.Client().Enqueue(ctx, "good", nasty{in: "MarshalJSON"}, nil)
			return err
		}, "panic: nasty MarshalJSON", ""},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, e *env) {
				slow := make(chan struct{})
				middleware := func(next waggle.Handler) waggle.Handler {
					return func(ctx context.Context, task *waggle.Task) error {
						if task.Type == "bad" && name == "middleware panics" {
							panic("middleware")
						}
						return next(ctx, task)
					}
				}
				r := e.work(&waggle.WorkerOptions{Middleware: []waggle.Middleware{middleware}}, func(w *waggle.Worker) {
					w.HandleFunc("bad", tt.run, nil)
					w.HandleFunc("good", func(context.Context, *waggle.Task) error { <-slow; return nil }, nil)
				})
				good := []string{e.enqueue("good", 1, nil), e.enqueue("good", 1, nil)}
				bad := e.enqueue("bad", 1, &waggle.EnqueueOptions{MaxAttempts: 1, Timeout: time.Second})
				time.Sleep(time.Second)
				synctest.Wait()
				info := e.wantState(bad, waggle.Discarded)
				if len(info.Attempts) != 1 || !strings.Contains(info.LastError(), tt.error) || !strings.Contains(info.Attempts[0].Stack, tt.stack) {
					t.Errorf("history %+v, want one attempt that failed with %q and the stack of %q", info.Attempts, tt.error, tt.stack)
				}
				close(slow)
				synctest.Wait()
				for _, id := range good {
					if info := e.wantState(id, waggle.Completed); info.Attempt != 1 || info.Crashes != 0 {
						t.Errorf("attempt %d, %d crashes", info.Attempt, info.Crashes)
					}
				}
				r.stop()
			})
		})
	}
}

// TestForeignLog has a worker log to a handler that panics, ends its goroutine or blocks for ever. Tasks fail, are timed
// out, cancelled and done as ever, and the worker stops in time.
func TestForeignLog(t *testing.T) {
	for _, do := range []string{"panic", "exit", "block"} {
		t.Run(do, func(t *testing.T) {
			bubble(t, func(t *testing.T, e *env) {
				log := &nastyLog{do, make(chan struct{})}
				w, err := waggle.NewWorker(e.store, &waggle.WorkerOptions{Logger: slog.New(log), Slots: 2000, DrainTimeout: waggle.NoDrain})
				if err != nil {
					t.Fatal(err)
				}
				w.HandleFunc("fails", func(context.Context, *waggle.Task) error { return errBoom }, nil)
				w.HandleFunc("waits", func(ctx context.Context, _ *waggle.Task) error { <-ctx.Done(); return ctx.Err() }, nil)
				w.HandleFunc("logs", func(_ context.Context, t *waggle.Task) error { t.Logger().Info("here"); return nil }, nil)
				ctx, cancel := context.WithCancel(t.Context())
				done := make(chan error, 1)
				go func() { done <- w.Run(ctx) }()
				once := &waggle.EnqueueOptions{MaxAttempts: 1}
				var fails []string
				for range 1500 { // more than a log may be behind
					fails = append(fails, e.enqueue("fails", nil, once))
				}
				late := e.enqueue("waits", nil, &waggle.EnqueueOptions{MaxAttempts: 1, Timeout: waggle.DefaultLease})
				off := e.enqueue("waits", nil, nil)
				held := e.enqueue("waits", nil, nil)
				logs := e.enqueue("logs", nil, once)
				synctest.Wait()
				for _, id := range fails {
					e.wantState(id, waggle.Discarded)
				}
				if do != "block" { // the handler has called the log itself, and fails or waits with it
					e.wantState(logs, waggle.Discarded)
				}
				if err := e.client.Cancel(t.Context(), off); err != nil {
					t.Error(err)
				}
				if info := e.wait(off); info.State != waggle.Cancelled {
					t.Errorf("the cancelled task is %s", info.State)
				}
				if info := e.wait(late); info.State != waggle.Discarded {
					t.Errorf("the task beyond its timeout is %s", info.State)
				}
				cancel()
				if err := <-done; err != nil {
					t.Errorf("Run = %v", err)
				}
				e.wantState(held, waggle.Available)
				close(log.wait)
				synctest.Wait()
			})
		})
	}
}

func TestForeignEnqueueMiddleware(t *testing.T) {
	bubble(t, func(t *testing.T, e *env) {
		panics := func(waggle.EnqueueFunc) waggle.EnqueueFunc {
			return func(context.Context, []waggle.NewTask) ([]waggle.EnqueueResult, error) { panic("boom") }
		}
		c, err := waggle.NewClient(e.store, &waggle.ClientOptions{Middleware: []waggle.EnqueueMiddleware{panics}, Logger: slog.New(e.logs)})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Enqueue(t.Context(), "x", nil, nil); err == nil || !strings.Contains(err.Error(), "panic: boom") {
			t.Errorf("Enqueue = %v", err)
		}
		if _, err := c.EnqueueBatch(t.Context(), batchOf(2)); err == nil || !strings.Contains(err.Error(), "panic: boom") {
			t.Errorf("EnqueueBatch = %v", err)
		}
		if err := c.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if n := e.logs.count(slog.LevelError, "an enqueue middleware panicked"); n != 2 {
			t.Errorf("%d lines tell of it, want 2", n)
		}
		for name, m := range map[string]waggle.EnqueueMiddleware{
			"nil":    func(waggle.EnqueueFunc) waggle.EnqueueFunc { return nil },
			"panics": func(waggle.EnqueueFunc) waggle.EnqueueFunc { panic("boom") },
		} {
			if _, err := waggle.NewClient(e.store, &waggle.ClientOptions{Middleware: []waggle.EnqueueMiddleware{m}}); !errors.Is(err, waggle.ErrInvalid) {
				t.Errorf("%s: NewClient = %v", name, err)
			}
		}
		for name, m := range map[string]waggle.Middleware{
			"nil":    func(waggle.Handler) waggle.Handler { return nil },
			"panics": func(waggle.Handler) waggle.Handler { panic("boom") },
		} {
			w, err := waggle.NewWorker(e.store, &waggle.WorkerOptions{Middleware: []waggle.Middleware{m}, Logger: slog.New(e.logs)})
			if err != nil {
				t.Fatal(err)
			}
			w.HandleFunc("x", func(context.Context, *waggle.Task) error { return nil }, nil)
			if err := w.Run(t.Context()); !errors.Is(err, waggle.ErrInvalid) {
				t.Errorf("%s: Run = %v", name, err)
			}
		}
		for name, m := range map[string]waggle.BatchMiddleware{
			"nil":    func(waggle.BatchHandler) waggle.BatchHandler { return nil },
			"panics": func(waggle.BatchHandler) waggle.BatchHandler { panic("boom") },
		} {
			w, err := waggle.NewWorker(e.store, &waggle.WorkerOptions{BatchMiddleware: []waggle.BatchMiddleware{m}, Logger: slog.New(e.logs)})
			if err != nil {
				t.Fatal(err)
			}
			waggle.HandleBatch(w, "x", func(context.Context, []waggle.BatchItem[string]) error { return nil }, nil)
			if err := w.Run(t.Context()); !errors.Is(err, waggle.ErrInvalid) {
				t.Errorf("%s: Run = %v", name, err)
			}
		}
	})
}

// TestForeignPayload: a payload that can't be encoded is the caller's error, whatever its encoder and its encoder's error do.
func TestForeignPayload(t *testing.T) {
	bubble(t, func(t *testing.T, e *env) {
		for name, v := range map[string]any{
			"panics":                 nasty{in: "MarshalJSON"},
			"fails with a typed nil": failing{(*typedNil)(nil)},
			"fails with a nasty Is":  failing{nasty{in: "Is"}},
			"fails with an exit":     failing{nasty{"Error", "exit"}},
		} {
			if _, err := e.client.Enqueue(t.Context(), "x", v, nil); !errors.Is(err, waggle.ErrInvalid) || err.Error() == "" {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}

type failing struct{ err error }

func (f failing) MarshalJSON() ([]byte, error) { return nil, f.err }

var _ json.Marshaler = failing{}

// TestForeignCallbacks has what a caller hands in panic or end its goroutine, wherever Waggle calls it outside of an attempt.
// The call returns an error, or does without; the client goes on as before.
func TestForeignCallbacks(t *testing.T) {
	type call func(t *testing.T, e *env, do string) error
	act := func(do string) {
		if do == "exit" {
			runtime.Goexit()
		}
		panic("nasty callback")
	}
	for name, tt := range map[string]struct {
		call   call
		exits  bool // runtime.Goexit is tried too: the code is not called on the caller's goroutine
		passes bool // the call does without what failed
	}{
		"progress of Drain": {call: func(t *testing.T, e *env, do string) error {
			return e.client.Drain(t.Context(), "other", func(int) { act(do) })
		}},
		"progress of Purge": {call: func(t *testing.T, e *env, do string) error {
			_, err := e.client.Purge(t.Context(), "other", nil, func(int) { act(do) })
			return err
		}},
		"payload of a step": {call: func(t *testing.T, e *env, do string) error {
			w := waggle.NewWorkflow("w", nil)
			w.Task("a", "x", nasty{"MarshalJSON", do}, nil).Compensate("y", nasty{"MarshalJSON", do}, nil)
			w.OnFailure("z", failing{(*typedNil)(nil)}, nil)
			_, err := e.client.StartWorkflow(t.Context(), w)
			return err
		}},
		"payload of a signal": {call: func(t *testing.T, e *env, do string) error {
			return e.client.SignalWorkflow(t.Context(), "w", "go", "", nasty{"MarshalJSON", do})
		}},
		"payload of a schedule": {call: func(t *testing.T, e *env, do string) error {
			_, err := e.client.PutSchedule(t.Context(), waggle.Schedule{Name: "s", Line: "@daily", Type: "x", Payload: nasty{"MarshalJSON", do}})
			return err
		}},
		"payload of a batch": {call: func(t *testing.T, e *env, do string) error {
			results, err := e.client.EnqueueBatch(t.Context(), []waggle.NewTask{{Type: "x", Payload: nasty{"MarshalJSON", do}}, {Type: "x"}})
			if err != nil || results[1].Err != nil {
				t.Errorf("the other task: %v, %+v", err, results)
				return err
			}
			return results[0].Err
		}},
		"result": {call: func(t *testing.T, e *env, do string) error {
			_, err := waggle.Result[nastyIn](&waggle.TaskInfo{ID: "x", State: waggle.Completed, Result: waggle.Data{Bytes: []byte("1"), Encoding: waggle.EncodingJSON}})
			return err
		}},
		"QueueWait": {exits: true, passes: true, call: func(t *testing.T, e *env, do string) error {
			c, err := waggle.NewClient(e.store, &waggle.ClientOptions{Logger: slog.New(e.logs), QueueWait: func(string) { act(do) }})
			if err != nil {
				return err
			}
			defer c.Close(t.Context())
			if _, err := c.QueueSettings(t.Context(), "small", waggle.QueuePatch{Bound: &waggle.Bound{Max: 1, Full: waggle.FullWait}}); err != nil {
				return err
			}
			ids := []string{}
			for i := range 2 {
				if i == 1 {
					go func() {
						time.Sleep(time.Second)
						if err := c.Cancel(t.Context(), ids[0]); err != nil {
							t.Error(err)
						}
					}()
				}
				r, err := c.Enqueue(t.Context(), "x", nil, &waggle.EnqueueOptions{Queue: "small"})
				if err != nil {
					return err
				}
				ids = append(ids, r.ID)
			}
			return nil
		}},
		"backoff of the worker": {exits: true, passes: true, call: func(t *testing.T, e *env, do string) error {
			return retriesOnce(t, e, &waggle.WorkerOptions{BackoffFunc: func(int, error) time.Duration { act(do); return 0 }})
		}},
		"backoff of the client": {exits: true, passes: true, call: func(t *testing.T, e *env, do string) error {
			c, err := waggle.NewClient(e.store, &waggle.ClientOptions{Logger: slog.New(e.logs), BackoffFunc: func(int, error) time.Duration { act(do); return 0 }})
			if err != nil {
				return err
			}
			defer c.Close(t.Context())
			return retriesOnce(t, e, &waggle.WorkerOptions{Client: c})
		}},
	} {
		for _, do := range []string{"panic", "exit"} {
			if do == "exit" && !tt.exits {
				continue // it would end the caller's goroutine, as it has asked for
			}
			t.Run(name+" "+do, func(t *testing.T) {
				bubble(t, func(t *testing.T, e *env) {
					e.enqueue("x", nil, &waggle.EnqueueOptions{Queue: "other"})
					err := tt.call(t, e, do)
					switch {
					case tt.passes && err != nil, !tt.passes && err == nil:
						t.Errorf("it returns %v", err)
					case err != nil && !strings.Contains(err.Error(), "panic: "):
						t.Errorf("the error does not tell of the panic: %v", err)
					}
					e.enqueue("x", nil, nil) // the client goes on
				})
			})
		}
	}
}

type nastyIn struct{}

func (nastyIn) UnmarshalJSON([]byte) error { panic("nasty UnmarshalJSON") }

// retriesOnce runs a task that fails once.
func retriesOnce(t *testing.T, e *env, opts *waggle.WorkerOptions) error {
	opts.Backoff = fixed(time.Second)
	r := e.work(opts, func(w *waggle.Worker) {
		w.HandleFunc("once", func(_ context.Context, task *waggle.Task) error {
			if task.Attempt == 1 {
				return errBoom
			}
			return nil
		}, nil)
	})
	e.wantSoon(t, e.enqueue("once", nil, nil))
	r.stop()
	return nil
}

// wantSoon waits until a task has been completed.
func (e *env) wantSoon(t *testing.T, id string) {
	t.Helper()
	if info := e.wait(id); info.State != waggle.Completed || info.Attempt != 2 {
		t.Errorf("task %s is %s after %d attempts", id, info.State, info.Attempt)
	}
}

// TestForeignBatches has a batch's handler, or the error that it gives a task, panic, exit or be a nil pointer: the tasks that
// it concerns fail, and no other.
func TestForeignBatches(t *testing.T) {
	type items = []waggle.BatchItem[int]
	for name, tt := range map[string]struct {
		run  func(items) error
		all  bool // all tasks fail, else the first alone
		want string
	}{
		"panics":           {func(items) error { panic("boom") }, true, "panic: boom"},
		"exits":            {func(items) error { runtime.Goexit(); return nil }, true, "Goexit"},
		"typed nil":        {func(items) error { var e *typedNil; return e }, true, "can't be read: panic"},
		"nasty error":      {func(items) error { return nasty{in: "Error"} }, true, "panic: nasty Error"},
		"typed nil of one": {func(b items) error { var e *typedNil; b[0].End(e); return nil }, false, "can't be read: panic"},
		"nasty end of one": {func(b items) error { b[0].End(nasty{"Unwrap", "exit"}); return nil }, false, "Goexit"},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, e *env) {
				var ids []string
				for i := range 3 {
					ids = append(ids, e.enqueue("b", i, &waggle.EnqueueOptions{MaxAttempts: 1}))
				}
				r := e.work(nil, func(w *waggle.Worker) {
					waggle.HandleBatch(w, "b", func(_ context.Context, batch items) error { return tt.run(batch) }, &waggle.BatchOptions{Max: 3})
				})
				time.Sleep(time.Minute)
				synctest.Wait()
				for i, id := range ids {
					if i > 0 && !tt.all {
						e.wantState(id, waggle.Completed)
						continue
					}
					if info := e.wantState(id, waggle.Discarded); !strings.Contains(info.LastError(), tt.want) || info.Crashes != 0 {
						t.Errorf("task %d: %q after %d crashes, want %q", i, info.LastError(), info.Crashes, tt.want)
					}
				}
				r.stop()
			})
		})
	}
}

// What is not there is refused in words, wherever a pointer may be handed in.
func TestNilArguments(t *testing.T) {
	bubble(t, func(t *testing.T, e *env) {
		for name, err := range map[string]error{
			"AddSteps":      e.client.AddSteps(t.Context(), "w", nil),
			"StartWorkflow": errOf(e.client.StartWorkflow(t.Context(), nil)),
			"Result":        errOf(waggle.Result[int](nil)),
			"NewWorker":     errOf(waggle.NewWorker(nil, nil)),
			"NewClient":     errOf(waggle.NewClient(nil, nil)),
		} {
			if !errors.Is(err, waggle.ErrInvalid) {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}

func errOf[T any](_ T, err error) error { return err }
