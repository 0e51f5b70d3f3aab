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

func TestForeignCallbacks(t *testing.T) {
	bubble(t, func(t *testing.T, e *env) {
		e.enqueue("x", nil, nil)
		boom := func(int) { panic("boom") }
		err := e.client.Drain(t.Context(), "default", boom)
		if err == nil || !strings.Contains(err.Error(), "panic: boom") {
			t.Errorf("Drain = %v", err)
		}
		if n, err := e.client.Purge(t.Context(), "default", nil, boom); n != 1 || err == nil || !strings.Contains(err.Error(), "panic: boom") {
			t.Errorf("Purge = %d, %v", n, err)
		}
	})
}
