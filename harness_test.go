package waggle_test

import (
	"context"
	"io"
	"log/slog"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/waggleq/waggle"
	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/memstore"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// env is a store, faults on the way to it, and a client, inside a bubble with its own time.
type env struct {
	t      *testing.T
	mem    *memstore.Store
	store  *faulty
	client *waggle.Client
	logs   *logRecorder
}

// bubble runs a test in a bubble. Afterwards the store is audited.
func bubble(t *testing.T, test func(t *testing.T, e *env)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		mem, err := memstore.Open(nil)
		if err != nil {
			t.Fatal(err)
		}
		e := &env{t: t, mem: mem, store: &faulty{Store: mem}, logs: &logRecorder{}}
		e.client, err = waggle.NewClient(e.store, &waggle.ClientOptions{Logger: slog.New(e.logs)})
		if err != nil {
			t.Fatal(err)
		}
		test(t, e)
		if err := e.client.Close(context.Background()); err != nil {
			t.Error(err)
		}
		findings, err := mem.Audit(context.Background(), false)
		if err != nil || len(findings) > 0 {
			t.Errorf("the audit of the store: %v, %v", findings, err)
		}
		if err := mem.Close(); err != nil {
			t.Error(err)
		}
	})
}

// running is a worker that runs.
type running struct {
	e      *env
	w      *waggle.Worker
	cancel context.CancelFunc
	done   chan error
}

// work starts a worker.
func (e *env) work(opts *waggle.WorkerOptions, register func(w *waggle.Worker)) *running {
	e.t.Helper()
	var o waggle.WorkerOptions
	if opts != nil {
		o = *opts
	}
	o.Logger = slog.New(e.logs)
	w, err := waggle.NewWorker(e.store, &o)
	if err != nil {
		e.t.Fatal(err)
	}
	register(w)
	ctx, cancel := context.WithCancel(e.t.Context())
	r := &running{e, w, cancel, make(chan error, 1)}
	go func() { r.done <- w.Run(ctx) }()
	return r
}

// stop stops the worker and returns how long that took.
func (r *running) stop() time.Duration {
	r.e.t.Helper()
	began := time.Now()
	r.cancel()
	if err := <-r.done; err != nil {
		r.e.t.Errorf("Run = %v", err)
	}
	return time.Since(began)
}

func (e *env) enqueue(typ string, payload any, opts *waggle.EnqueueOptions) string {
	e.t.Helper()
	r, err := e.client.Enqueue(e.t.Context(), typ, payload, opts)
	if err != nil {
		e.t.Fatal(err)
	}
	return r.ID
}

func (e *env) get(id string) *waggle.TaskInfo {
	e.t.Helper()
	info, err := e.client.Get(e.t.Context(), id)
	if err != nil {
		e.t.Fatal(err)
	}
	return info
}

func (e *env) wait(id string) *waggle.TaskInfo {
	e.t.Helper()
	info, err := e.client.Wait(e.t.Context(), id)
	if err != nil {
		e.t.Fatal(err)
	}
	return info
}

func (e *env) wantState(id string, want waggle.State) *waggle.TaskInfo {
	e.t.Helper()
	info := e.get(id)
	if info.State != want {
		e.t.Errorf("task %s is %s (%s), want %s", id, info.State, info.LastError(), want)
	}
	return info
}

// faulty is a store with faults: what fault says of each call.
type faulty struct {
	driver.Store
	mu      sync.Mutex
	fault   func(op string) fault
	calls   map[string]int
	err     error // of every call, instead of its result
	dropped bool  // see gap
	partly  bool  // fetches ask some shards only, and so don't renew the lease as a whole
}

// fault is what befalls one call.
type fault int

const (
	none   fault = iota
	before       // it fails, nothing was done
	after        // it was done, and its reply is lost
	hang         // it is not done, and no reply comes until its context ends
	twice        // it is done twice, and the second reply is the one that comes
)

var errDown = driver.Errorf(driver.ErrUnavailable, "the store is down")

func (f *faulty) set(fn func(op string) fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fault = fn
}

// storm has calls meet faults of every kind at random, and nearly all hang now and then for longer than a lease.
func (f *faulty) storm(rnd *rand.Rand) {
	f.set(func(string) fault { // called under the lock
		if time.Now().Unix()%20 < 3 && rnd.IntN(10) > 0 {
			return hang
		}
		switch n := rnd.IntN(100); {
		case n < 8:
			return before
		case n < 16:
			return after
		case n < 20:
			return twice
		case n < 22:
			return hang
		}
		return none
	})
}

// fail has every call return an error; nil ends that.
func (f *faulty) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = err
}

func (f *faulty) count(op string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls[op]
}

// do makes a call, with its fault.
func do[T any](ctx context.Context, f *faulty, op string, call func() (T, error)) (T, error) {
	var zero T
	f.mu.Lock()
	if f.calls == nil {
		f.calls = make(map[string]int)
	}
	f.calls[op]++
	what, err := none, f.err
	if f.fault != nil {
		what = f.fault(op)
	}
	f.mu.Unlock()
	if err != nil {
		return zero, err
	}
	switch what {
	case before:
		return zero, errDown
	case hang:
		<-ctx.Done()
		return zero, ctx.Err()
	}
	v, err := call()
	switch what {
	case twice:
		return call()
	case after:
		return zero, errDown
	}
	return v, err
}

type nothing struct{}

func (f *faulty) Enqueue(ctx context.Context, tasks []*driver.Task, o driver.EnqueueOptions) ([]driver.EnqueueResult, error) {
	return do(ctx, f, "enqueue", func() ([]driver.EnqueueResult, error) { return f.Store.Enqueue(ctx, tasks, o) })
}

func (f *faulty) Register(ctx context.Context, w driver.WorkerInfo, lease time.Duration) error {
	_, err := do(ctx, f, "register", func() (nothing, error) { return nothing{}, f.Store.Register(ctx, w, lease) })
	return err
}

// Fetch waits first, so that a fault that begins meanwhile befalls the claiming.
func (f *faulty) Fetch(ctx context.Context, r driver.FetchRequest) (*driver.FetchResult, error) {
	waited, err := driver.AwaitFirst(ctx, f, &r)
	if err != nil {
		return nil, err
	}
	r.Wait = 0
	res, err := do(ctx, f, "fetch", func() (*driver.FetchResult, error) { return f.Store.Fetch(ctx, r) })
	if err != nil {
		return nil, err
	}
	res.Waited = waited
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.partly {
		res.LeaseEnd = time.Time{}
	}
	return res, nil
}

func (f *faulty) Heartbeat(ctx context.Context, w string, lease time.Duration) (*driver.HeartbeatResult, error) {
	return do(ctx, f, "heartbeat", func() (*driver.HeartbeatResult, error) { return f.Store.Heartbeat(ctx, w, lease) })
}

func (f *faulty) Held(ctx context.Context, w string) ([]driver.Claim, error) {
	return do(ctx, f, "held", func() ([]driver.Claim, error) { return f.Store.Held(ctx, w) })
}

func (f *faulty) Await(ctx context.Context, r driver.AwaitRequest) error {
	op := "await"
	if r.For == driver.ForControl {
		op = "await-control"
	}
	_, err := do(ctx, f, op, func() (nothing, error) { return nothing{}, f.Store.Await(ctx, r) })
	return err
}

func (f *faulty) Unregister(ctx context.Context, w string) error {
	_, err := do(ctx, f, "unregister", func() (nothing, error) { return nothing{}, f.Store.Unregister(ctx, w) })
	return err
}

func (f *faulty) Advance(ctx context.Context, steps []driver.PlanStep) ([]driver.PlanResult, error) {
	return do(ctx, f, "advance", func() ([]driver.PlanResult, error) { return f.Store.Advance(ctx, steps) })
}

func (f *faulty) GetPlans(ctx context.Context, refs []driver.PlanRef, read driver.PlanRead) ([]*driver.Plan, error) {
	return do(ctx, f, "get plans", func() ([]*driver.Plan, error) { return f.Store.GetPlans(ctx, refs, read) })
}

func (f *faulty) Signal(ctx context.Context, signals []driver.Signal) ([]error, error) {
	return do(ctx, f, "signal", func() ([]error, error) { return f.Store.Signal(ctx, signals) })
}

func (f *faulty) Settle(ctx context.Context, w string, items []driver.Settlement) ([]driver.SettleResult, error) {
	return do(ctx, f, "settle", func() ([]driver.SettleResult, error) { return f.Store.Settle(ctx, w, items) })
}

func (f *faulty) Report(ctx context.Context, w string, items []driver.Report) ([]error, error) {
	return do(ctx, f, "report", func() ([]error, error) { return f.Store.Report(ctx, w, items) })
}

func (f *faulty) Get(ctx context.Context, ids []string) ([]*driver.Record, error) {
	return do(ctx, f, "get", func() ([]*driver.Record, error) { return f.Store.Get(ctx, ids) })
}

func (f *faulty) Events(ctx context.Context, q driver.EventQuery) (*driver.EventPage, error) {
	return f.dropEvents(do(ctx, f, "events", func() (*driver.EventPage, error) { return f.Store.Events(ctx, q) }))
}

// once returns a fault that befalls the first n calls of an operation.
func once(op string, what fault, n int) func(string) fault {
	return func(o string) fault {
		if o == op && n > 0 {
			n--
			return what
		}
		return none
	}
}

// outage fails every call but the looks of the test itself.
func outage(op string) fault {
	if op == "get" {
		return none
	}
	return before
}

// logRecorder is a slog handler that counts lines by level and message.
type logRecorder struct {
	mu    sync.Mutex
	lines []slog.Record
}

func (l *logRecorder) Enabled(context.Context, slog.Level) bool { return true }

func (l *logRecorder) Handle(_ context.Context, r slog.Record) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, r)
	return nil
}

func (l *logRecorder) WithAttrs([]slog.Attr) slog.Handler { return l }
func (l *logRecorder) WithGroup(string) slog.Handler      { return l }

// count returns how many lines of a level have a message; an empty one stands for all.
func (l *logRecorder) count(level slog.Level, message string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for _, r := range l.lines {
		if r.Level == level && (message == "" || r.Message == message) {
			n++
		}
	}
	return n
}

// newPlainEnv returns a store outside any bubble.
func newPlainEnv(t *testing.T) driver.Store {
	t.Helper()
	mem, err := memstore.Open(nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = mem.Close() })
	return mem
}

// quiet is a logger for what only counts if it goes wrong.
var quiet = slog.New(slog.NewTextHandler(io.Discard, &slog.HandlerOptions{Level: slog.LevelError}))

var payload = make([]byte, 100)

// batchOf returns n tasks of type noop.
func batchOf(n int) []waggle.NewTask {
	tasks := make([]waggle.NewTask, n)
	for i := range tasks {
		tasks[i] = waggle.NewTask{Type: "noop", Payload: payload}
	}
	return tasks
}
