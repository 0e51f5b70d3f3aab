// Package waggletest helps to test handlers and the code that enqueues tasks.
//
//   - [New] gives a test a store in memory and a client, and audits the store when the test ends.
//   - [RunTask] runs one attempt of one task, on the calling goroutine, as a worker would, and returns what became of it.
//   - [Drain] runs all that is available.
//   - [RequireEnqueued] finds a task that the code under test should have enqueued.
//
// All of it works in a bubble of testing/synctest, where time is the bubble's; outside one, [Env.Advance] moves the
// store's clock.
//
//	env := waggletest.New(t)
//	w := env.Worker(nil)
//	mail.Register(w)
//	info := waggletest.RunTask(t, w, "email.welcome", Welcome{Address: "ada@example.com"}, nil)
//	if info.State != waggle.Completed { … }
//	waggletest.RequireEnqueued(t, env.Client, "email.reminder", waggletest.InQueue("later"))
package waggletest

import (
	"context"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/waggleq/waggle"
	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/internal/stepping"
	"github.com/waggleq/waggle/memstore"
)

// Env is a store and a client for one test.
type Env struct {
	Store  driver.Store
	Client *waggle.Client

	t      testing.TB
	offset atomic.Int64
}

// New returns a new, empty store in memory with a client. When the test ends both are closed, after an audit of the
// store whose findings fail the test.
func New(t testing.TB) *Env {
	t.Helper()
	e := &Env{t: t}
	store, err := memstore.Open(&memstore.Options{Clock: func() time.Time { return time.Now().Add(time.Duration(e.offset.Load())) }})
	if err != nil {
		t.Fatalf("waggletest: %v", err)
	}
	e.Store = store
	e.Client, err = waggle.NewClient(store, &waggle.ClientOptions{Logger: logger(t)})
	if err != nil {
		t.Fatalf("waggletest: %v", err)
	}
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		if err := e.Client.Close(ctx); err != nil {
			t.Errorf("waggletest: %v", err)
		}
		findings, err := store.Audit(ctx, false)
		if err != nil {
			t.Errorf("waggletest: audit: %v", err)
		}
		for _, f := range findings {
			t.Errorf("waggletest: the store is not sound: %+v", f)
		}
		_ = store.Close() // never fails
	})
	return e
}

func logger(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
}

// Worker returns a worker of the store, to register handlers with. A nil opts means the defaults; without a logger in
// them, warnings and errors go to the test's log.
func (e *Env) Worker(opts *waggle.WorkerOptions) *waggle.Worker {
	e.t.Helper()
	var o waggle.WorkerOptions
	if opts != nil {
		o = *opts
	}
	if o.Logger == nil {
		o.Logger = logger(e.t)
	}
	w, err := waggle.NewWorker(e.Store, &o)
	if err != nil {
		e.t.Fatalf("waggletest: %v", err)
	}
	return w
}

// Advance moves the store's clock forward: what was to come due in that time is due. Workers that run sleep by real
// time, or by that of their bubble.
func (e *Env) Advance(d time.Duration) {
	if d < 0 {
		e.t.Fatalf("waggletest: time does not go back (%v)", d)
	}
	e.offset.Add(int64(d))
}

// Work runs a worker in the background until the test ends, and then stops it. An error that ends it fails the test.
func (e *Env) Work(t testing.TB, w *waggle.Worker) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("waggletest: %v", err)
		}
	})
}

// RunTask runs one attempt of a new task with a worker's handlers and middleware, on the calling goroutine, and returns
// the task as it is afterwards: completed, or retryable with the error in its attempts, and so on. A delay or hold in opts
// is shown to nobody but passed over.
//
// The task is kept apart from the worker's store: nothing else runs, and nothing is left. What its handler enqueues
// through [waggle.Task.Client] goes to the worker's store, where [RequireEnqueued] finds it. The worker is not to be
// running.
func RunTask(t testing.TB, w *waggle.Worker, typ string, payload any, opts *waggle.EnqueueOptions) *waggle.TaskInfo {
	t.Helper()
	own := New(t)
	ctx := t.Context()
	var o waggle.EnqueueOptions
	if opts != nil {
		o = *opts
	}
	if o.Queue == "" {
		o.Queue = w.Options().Queues[0].Name
	}
	r, err := own.Client.Enqueue(ctx, typ, payload, &o)
	if err != nil {
		t.Fatalf("waggletest: %v", err)
	}
	if r.State != waggle.Available {
		if err := own.Client.RunNow(ctx, r.ID); err != nil {
			t.Fatalf("waggletest: %v", err)
		}
	}
	n, err := stepping.Step(ctx, w, own.Store, 1)
	if err != nil {
		t.Fatalf("waggletest: run %s: %v", typ, err)
	}
	if n == 0 {
		t.Fatalf("waggletest: the worker does not run tasks of type %q in queue %q: it serves types %v", typ, o.Queue, w.Types())
	}
	info, err := own.Client.Get(ctx, r.ID)
	if err != nil {
		t.Fatalf("waggletest: %v", err)
	}
	return info
}

// MaxDrain is how many runs [Drain] takes for an endless loop.
const MaxDrain = 10_000

// Drain runs all tasks of env's store that are available to a worker, also those that become available through that, one
// after another on the calling goroutine, and returns how many runs there were. What is due later is left; see
// [Env.Advance]. More than [MaxDrain] runs fail the test. The worker is not to be running.
func Drain(t testing.TB, e *Env, w *waggle.Worker) int {
	t.Helper()
	n, err := stepping.Step(t.Context(), w, e.Store, MaxDrain)
	if err != nil {
		t.Fatalf("waggletest: drain: %v", err)
	}
	if n == MaxDrain {
		t.Fatalf("waggletest: %d runs and still tasks left: does a handler enqueue or snooze without end?", n)
	}
	return n
}
