package waggle

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"log/slog"
	"maps"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/internal/logkey"
	"github.com/waggleq/waggle/internal/runner"
	"github.com/waggleq/waggle/internal/sidelog"
)

// Queue is a queue that a worker serves. Weight is its share among the worker's queues; 0 means 1.
type Queue struct {
	Name   string `json:"name"`
	Weight int    `json:"weight,omitzero"`
}

// WorkerOptions configure a worker. The zero value of a field means its default.
type WorkerOptions struct {
	// Queues are the queues to serve. Default: "default".
	Queues []Queue
	// StrictQueues serves queues in the given order: a task of the second starts only when the first has none. Otherwise
	// of the tasks that start, and of the slots, each has the share that its weight says (of more than 64 queues on average).
	StrictQueues bool
	// Slots is how many handlers run at once. Default: 100.
	Slots int
	// Lease is after what time without a sign of life the store gives this worker's tasks to others. Default: 10s; at
	// least 100ms.
	Lease time.Duration
	// DrainTimeout is how long Run waits for handlers after its ctx has ended, before it cancels them with the cause
	// [ErrShutdown]. Default: 25s; [NoDrain]: they are cancelled at once.
	DrainTimeout time.Duration
	// Abort, when it is closed, ends a drain under way at once: a second interrupt, for instance.
	Abort <-chan struct{}
	// PollInterval is how long an idle worker goes without asking the store, at the longest; wake-ups and due times come
	// earlier by themselves. Default and least: 1s.
	PollInterval time.Duration
	// UntilEmpty has Run return nil when nothing that this worker's queues and types hold is left to run, here or in any
	// other worker: no task is available, active, scheduled or retryable. Pending tasks don't count, and those of a
	// paused queue do. If those or tasks that are due later are all that is left, the log says so once.
	UntilEmpty bool
	// Logger gets what the worker has to say. A failing handler is Info, Waggle's own trouble is Error. The worker never
	// waits for it: lines that it does not take in time are dropped, and their number is told. Default: slog.Default().
	Logger *slog.Logger
	// Middleware wraps every handler of single tasks, the first outermost.
	Middleware []Middleware
	// BatchMiddleware wraps every handler of batches, the first outermost: see [HandleBatch].
	BatchMiddleware []BatchMiddleware
	// Client is what [Task.Client] returns, so that tasks which handlers enqueue go through the same middleware as all
	// others. The worker does not close it. Default: a client of its own, without middleware.
	Client *Client
	// Backoff and BackoffFunc are how long failed tasks wait whose type's options have neither: see [HandleOptions].
	Backoff     *Backoff
	BackoffFunc func(attempt int, err error) time.Duration
	// Intake are lists that other programs fill, with RPUSH for instance: the worker makes tasks of their elements, of
	// which none is lost and none becomes two. A task's payload is the element as a JSON string if it is valid UTF-8,
	// else its bytes. Any number of workers may take in the same list. An empty Queue is the first of Queues. It needs a
	// store that has such lists.
	Intake []Intake
	// Schedules are put into the store when the worker starts, and changed there when they change here. One that somebody
	// has edited since ([Client.PutSchedule], the command) is left as it is, and the worker says so. One that is not
	// declared any more stays until it is deleted.
	Schedules Schedules
	// AnyType, if not nil, runs tasks of every type that has no handler of its own.
	AnyType Handler
	// AnyTypeOptions are the options of AnyType.
	AnyTypeOptions *HandleOptions
	// Name is the first part of the worker's id. Default: the host's name. Build is the version of the program, kept with
	// each attempt. Default: the main module's version.
	Name, Build string
}

// NoDrain is a DrainTimeout of none.
const NoDrain time.Duration = -1

const (
	defaultSlots = 100
	defaultDrain = 25 * time.Second
	minPoll      = time.Second
	maxSlots     = 100_000
)

func (o *WorkerOptions) withDefaults() WorkerOptions {
	var v WorkerOptions
	if o != nil {
		v = *o
	}
	if len(v.Queues) == 0 {
		v.Queues = []Queue{{Name: DefaultQueue}}
	}
	v.Queues = slices.Clone(v.Queues)
	for i := range v.Queues {
		v.Queues[i].Weight = cmp.Or(v.Queues[i].Weight, 1)
	}
	v.Intake = slices.Clone(v.Intake)
	for i := range v.Intake {
		v.Intake[i].Queue = cmp.Or(v.Intake[i].Queue, v.Queues[0].Name)
	}
	v.Slots = cmp.Or(v.Slots, defaultSlots)
	v.Lease = cmp.Or(v.Lease, DefaultLease)
	v.DrainTimeout = cmp.Or(v.DrainTimeout, defaultDrain)
	v.PollInterval = cmp.Or(v.PollInterval, minPoll)
	if v.Logger == nil {
		v.Logger = slog.Default()
	}
	if v.Name == "" {
		v.Name, _ = os.Hostname() // a worker without a host's name is called worker
	}
	v.Name = cmp.Or(nameOf(v.Name), "worker")
	v.Build = cmp.Or(v.Build, buildVersion())
	return v
}

// nameOf returns s with what can't be in a name left out, cut so that a worker's id fits.
func nameOf(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < 0x80 && driver.CheckName("", string(r), 1) == nil {
			return r
		}
		return -1
	}, s)
	return s[:min(len(s), 64)]
}

func buildVersion() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		return info.Main.Version
	}
	return ""
}

func (o *WorkerOptions) validate() error {
	var errs []error
	bad := func(wrong bool, format string, args ...any) {
		if wrong {
			errs = append(errs, driver.Invalidf(format, args...))
		}
	}
	seen := map[string]bool{}
	for _, q := range o.Queues {
		if err := driver.CheckName("queue", q.Name, driver.MaxNameLen); err != nil {
			errs = append(errs, err)
		}
		bad(q.Weight < 1 || q.Weight > 1_000_000, "the weight of queue %q must be between 1 and 1000000, got %d", q.Name, q.Weight)
		bad(seen[q.Name], "queue %q is named twice", q.Name)
		seen[q.Name] = true
	}
	lists := map[string]bool{}
	for _, in := range o.Intake {
		if err := in.Validate(); err != nil {
			errs = append(errs, err)
		}
		bad(lists[in.List], "the intake list %q is named twice", in.List)
		lists[in.List] = true
	}
	bad(o.Slots < 1 || o.Slots > maxSlots, "the number of slots must be between 1 and %d, got %d", maxSlots, o.Slots)
	if err := driver.CheckLease(o.Lease); err != nil {
		errs = append(errs, err)
	}
	bad(o.DrainTimeout < 0 && o.DrainTimeout != NoDrain, "the drain timeout must not be negative, got %v", o.DrainTimeout)
	bad(o.PollInterval < minPoll, "the poll interval must be at least %v, got %v", minPoll, o.PollInterval)
	if o.Backoff != nil {
		if err := o.Backoff.Validate(); err != nil {
			errs = append(errs, err)
		}
	}
	any := o.AnyTypeOptions.withDefaults(o)
	errs = append(errs, any.validate()...)
	bad(slices.ContainsFunc(o.Middleware, func(m Middleware) bool { return m == nil }), "a middleware is nil")
	bad(slices.ContainsFunc(o.BatchMiddleware, func(m BatchMiddleware) bool { return m == nil }), "a batch middleware is nil")
	return errors.Join(errs...)
}

// Worker runs tasks. Register handlers with [Handle], then call [Worker.Run].
type Worker struct {
	store  driver.Store
	opts   WorkerOptions
	side   *sidelog.Handler
	logger *slog.Logger // to side: nothing that decides waits for the user's handler
	client *Client
	wakes  wakes // tasks that wait for others

	mu       sync.Mutex
	entries  map[string]*entry
	anyType  *entry
	mistakes []error
	started  bool
	runner   *runner.Runner
}

// NewWorker returns a worker of a store. nil opts mean the defaults. The error joins all that is wrong with opts.
func NewWorker(store driver.Store, opts *WorkerOptions) (*Worker, error) {
	if noStore(store) {
		return nil, failed("new worker", driver.Invalidf("the store is nil"))
	}
	o := opts.withDefaults()
	if err := o.validate(); err != nil {
		return nil, failed("new worker", err)
	}
	if err := checkIntake(store, o.Intake); err != nil {
		return nil, failed("new worker", err)
	}
	client, err := o.client(store)
	if err != nil {
		return nil, err
	}
	if err := o.Schedules.validate(client); err != nil {
		return nil, failed("new worker", err)
	}
	w := &Worker{store: store, opts: o, client: client, side: client.side, logger: client.logger, entries: make(map[string]*entry)}
	if o.AnyType != nil {
		h, err := wrap(w.opts.Middleware, o.AnyType, func(h Handler) bool { return h == nil })
		if err != nil {
			return nil, failed("new worker", err)
		}
		w.anyType = &entry{run: h, opts: o.AnyTypeOptions.withDefaults(&o)}
	}
	return w, nil
}

// client returns the client of the worker's handlers.
func (o *WorkerOptions) client(store driver.Store) (*Client, error) {
	switch {
	case o.Client == nil:
		return NewClient(store, &ClientOptions{Logger: o.Logger})
	case o.Client.store != store:
		return nil, failed("new worker", driver.Invalidf("the worker's client is one of another store"))
	}
	return o.Client, nil
}

// checkIntake refuses intake lists on a store that has none.
func checkIntake(store driver.Store, lists []Intake) error {
	caps := store.Capabilities()
	if _, ok := store.(driver.Intaker); len(lists) == 0 || ok && caps.Intake {
		return nil
	}
	return driver.Errorf(driver.ErrUnsupported, "the %s store has no lists that other programs could fill: use one on Redis or Valkey, or enqueue the tasks", caps.Engine)
}

// Run runs tasks until ctx ends; it is the one way to run a worker, and ending ctx the one way for its program to stop it.
// An operator can stop it too: see [Client.DirectWorker]. A worker runs once.
//
// When ctx ends, or the worker is told to stop, Run fetches no more, gives back what has not started, and waits for the handlers that run, at most
// DrainTimeout. Then it cancels them with the cause [ErrShutdown] and gives them a moment; a handler that returns an
// error now has its task given back, with no attempt spent. What has not returned by then is given back too. Then Run
// returns nil.
//
// A worker that loses its lease (it was held up, or cut off from the store) cancels its handlers with the cause
// [ErrLeaseLost], registers under a new id and goes on. An unreachable store is waited for.
//
// The error joins the mistakes made in registering handlers, or is one of the store that trying again does not mend.
func (w *Worker) Run(ctx context.Context) error {
	r, err := w.start()
	if err != nil {
		return failed("run worker", err)
	}
	defer w.side.Flush(logPatience)
	defer w.wakes.open(ctx)()
	if len(w.opts.Schedules) > 0 {
		applying, cancel := context.WithCancel(ctx)
		var wg sync.WaitGroup
		wg.Go(func() { w.applySchedules(applying) })
		defer func() { cancel(); wg.Wait() }()
	}
	w.logger.Info("worker starts", logkey.Queues, w.queueNames(), logkey.Types, w.Types(), logkey.Slots, w.opts.Slots,
		logkey.Lease, w.opts.Lease, logkey.Durability, w.store.Capabilities().DefaultDurability)
	err = r.Run(ctx)
	w.logger.Info("worker has stopped", logkey.Worker, r.WorkerID())
	if w.opts.Client == nil { // its own
		if cerr := w.client.Close(context.WithoutCancel(ctx)); err == nil {
			err = cerr
		}
	}
	return failed("run worker", err)
}

func (w *Worker) start() (*runner.Runner, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.started {
		return nil, driver.Invalidf("a worker runs once: make a new one")
	}
	if len(w.entries) == 0 && w.anyType == nil {
		w.refuse(driver.Invalidf("the worker has no handlers: register one with waggle.Handle"))
	}
	if err := errors.Join(w.mistakes...); err != nil {
		return nil, err
	}
	gate, err := w.gate()
	if err != nil {
		return nil, err
	}
	cfg := w.config()
	if gate != nil {
		cfg.Gate = gate
	}
	w.started = true
	w.runner = runner.New(cfg)
	return w.runner, nil
}

func (w *Worker) config() runner.Config {
	host, _ := os.Hostname() // only shown
	cfg := runner.Config{
		Store: w.store, Handler: (*dispatcher)(w), Logger: w.logger, NewWorkerID: w.newID,
		Host: host, PID: os.Getpid(), Build: w.opts.Build,
		Strict: w.opts.StrictQueues, Slots: w.opts.Slots, Lease: w.opts.Lease, Drain: max(w.opts.DrainTimeout, 0),
		Poll: w.opts.PollInterval, UntilEmpty: w.opts.UntilEmpty, Abort: w.opts.Abort, Intake: w.opts.Intake, Plans: planKinds(),
	}
	for _, q := range w.opts.Queues {
		cfg.Queues = append(cfg.Queues, runner.Queue(q))
	}
	cfg.Gather = w.gathers()
	if w.anyType == nil {
		cfg.Types = slices.Sorted(maps.Keys(w.entries))
	}
	return cfg
}

// newID returns an id for one registration.
func (w *Worker) newID() string {
	var b [6]byte
	_, _ = rand.Read(b[:]) // never fails: it crashes the program instead
	return w.opts.Name + ":" + hex.EncodeToString(b[:])
}

func (w *Worker) queueNames() []string {
	names := make([]string, len(w.opts.Queues))
	for i, q := range w.opts.Queues {
		names[i] = q.Name
	}
	return names
}

// ID returns the id under which the worker is registered now or was last; "" before the first time. It changes when a
// lease was lost.
func (w *Worker) ID() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.runner == nil {
		return ""
	}
	return w.runner.WorkerID()
}

// WorkerStats is what a worker holds at one moment, and what has become of the tasks that it has run, as the store has told.
type WorkerStats = runner.Stats

// Stats returns what the worker holds now, and what it has done.
func (w *Worker) Stats() WorkerStats {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.runner == nil {
		return WorkerStats{}
	}
	return w.runner.Stats()
}

// Options returns the worker's options with their defaults, to be shown when it starts.
func (w *Worker) Options() WorkerOptions { return w.opts }

// Types returns the registered types, sorted; nil if the worker serves every type.
func (w *Worker) Types() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.anyType != nil {
		return nil
	}
	return slices.Sorted(maps.Keys(w.entries))
}
