package waggle

import (
	"context"
	"time"

	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/internal/breaker"
	"github.com/waggleq/waggle/internal/guard"
)

// Handler runs one task. Its error is the verdict on the attempt: nil completes the task, [RetryAfter], [Snooze],
// [Discard] and [Cancel] say what they say, every other error fails the attempt, and so do a panic and runtime.Goexit.
//
// ctx ends when the attempt is of no more use, and context.Cause tells why: [ErrTimeout], [ErrCancelled], [ErrShutdown]
// or [ErrLeaseLost]. A handler should then return soon; its slot is free only when it has.
//
// A task may run more than once: a handler must bear that. [Task.Token] helps where it can't.
type Handler func(ctx context.Context, t *Task) error

// Middleware wraps handlers: see [WorkerOptions]. [BatchMiddleware] does the same for handlers of batches.
type Middleware func(next Handler) Handler

// HandleOptions are the options of one task type. The zero value of a field means its default.
//
// How often a task may fail, and how long it waits before it is tried again, is decided by the first of these that says so:
// the task ([EnqueueOptions].MaxAttempts, or that of its [NewType]; a handler that returns [RetryAfter] or [Snooze]), its type
// (HandleOptions), the worker ([WorkerOptions]), the client ([ClientOptions]), the defaults.
type HandleOptions struct {
	// MaxAttempts is how often tasks of the type may fail that don't say so themselves. A task says so if its number is
	// neither the default, 25, nor that of the worker's client. Default: the task's number.
	MaxAttempts int
	// Backoff is how long a failed task waits for its next attempt. Default: the worker's, else its client's, else
	// exponential with full jitter, from 1s doubling to a week: of 25 attempts the first five or so come within a minute, and
	// the last after about three weeks. Backoff{Base: d, Factor: 1, Fixed: true} waits for d each time.
	Backoff *Backoff
	// BackoffFunc, if not nil, says instead of Backoff how long a task waits whose attempt, counted from 1, has failed with
	// err. Less than 0 counts as 0. If it panics Backoff is used.
	BackoffFunc func(attempt int, err error) time.Duration
	// Timeout is how long one attempt may run if the task itself does not say. 0: no limit.
	Timeout time.Duration
	// Breaker, if not nil, stops the type in all workers when too many of its attempts fail, until it works again. What a
	// person has set since ([Client.SetBreaker]) comes before it.
	Breaker *Breaker
}

// backoffFunc is the form of BackoffFunc.
type backoffFunc = func(attempt int, err error) time.Duration

func (o *HandleOptions) withDefaults(w *WorkerOptions) HandleOptions {
	var v HandleOptions
	if o != nil {
		v = *o
	}
	said := func(b *Backoff, f backoffFunc) {
		if v.Backoff == nil && v.BackoffFunc == nil {
			v.BackoffFunc = f
		}
		if v.Backoff == nil { // also what a function falls back to
			v.Backoff = b
		}
	}
	said(w.Backoff, w.BackoffFunc)
	if w.Client != nil {
		said(w.Client.opts.Backoff, w.Client.opts.BackoffFunc)
	}
	said(new(Backoff), nil)
	return v
}

// attempts is how often a task of the type may fail that was enqueued with a number of its own, or a default.
func (o *HandleOptions) attempts(task, ofClient int) int {
	if o.MaxAttempts > 0 && (task == driver.DefaultMaxAttempts || task == ofClient) {
		return o.MaxAttempts
	}
	return task
}

// delay is how long a task waits whose attempt failed with err.
func (o *HandleOptions) delay(attempt int, err error) time.Duration {
	if o.BackoffFunc != nil {
		var d time.Duration
		if guard.Apart(func() { d = o.BackoffFunc(attempt, err) }) == nil {
			return min(max(d, 0), maxDelay)
		}
	}
	return o.Backoff.Delay(attempt)
}

func (o *HandleOptions) validate() []error {
	var errs []error
	if err := o.Backoff.Validate(); err != nil {
		errs = append(errs, err)
	}
	if o.MaxAttempts < 0 || o.MaxAttempts > driver.MaxAttemptsCap {
		errs = append(errs, driver.Invalidf("max attempts must be between 1 and %d, got %d", driver.MaxAttemptsCap, o.MaxAttempts))
	}
	if o.Timeout < 0 || o.Timeout > 0 && o.Timeout < time.Millisecond {
		errs = append(errs, driver.Invalidf("the timeout must be 0 or at least 1ms, got %v", o.Timeout))
	}
	if o.Breaker != nil {
		if _, err := breaker.Rule(*o.Breaker).WithDefaults(); err != nil {
			errs = append(errs, err)
		}
	}
	return errs
}

// Handle registers fn for a task type. The payload is read into a T: JSON, or the raw bytes if T is []byte. A payload
// that can't be read as a T fails the attempt with an error that says so, and is tried again like any failure: a newer
// version of the program may be able to read it. nil opts mean the defaults.
//
// Mistakes (a bad name, a type registered twice, a nil fn, bad options) are reported by [Worker.Run].
func Handle[T any](w *Worker, typ string, fn func(ctx context.Context, t *Task, in T) error, opts *HandleOptions) {
	if fn == nil {
		w.HandleFunc(typ, nil, opts)
		return
	}
	w.HandleFunc(typ, func(ctx context.Context, t *Task) error {
		var in T
		if raw, ok := any(&in).(*[]byte); ok {
			*raw = t.Payload
		} else if err := t.Bind(&in); err != nil {
			return driver.Errorf(ErrInvalid, "the payload of a %s task can't be read: %w", t.Type, err)
		}
		return fn(ctx, t, in)
	}, opts)
}

// entry is a registered type.
type entry struct {
	run   Handler // with the middleware round it
	opts  HandleOptions
	batch *batchEntry // instead of run: see HandleBatch
}

// HandleFunc registers an untyped handler for a task type. See [Handle].
func (w *Worker) HandleFunc(typ string, h Handler, opts *HandleOptions) {
	w.mu.Lock()
	defer w.mu.Unlock()
	o := opts.withDefaults(&w.opts)
	if !w.mayRegister(typ, h == nil, &o) {
		return
	}
	h, err := wrap(w.opts.Middleware, h, func(h Handler) bool { return h == nil })
	if err != nil {
		w.refuse(driver.Errorf(ErrInvalid, "type %q: %w", typ, err))
		return
	}
	w.entries[typ] = &entry{run: h, opts: o}
}

// mayRegister looks for mistakes in the registration of a handler. It reports whether there can be one of that type.
func (w *Worker) mayRegister(typ string, missing bool, o *HandleOptions) bool {
	w.refuse(driver.CheckName("task type", typ, driver.MaxNameLen))
	for _, err := range o.validate() {
		w.refuse(driver.Errorf(ErrInvalid, "options of type %q: %w", typ, err))
	}
	switch {
	case missing:
		w.refuse(driver.Invalidf("the handler of type %q is nil", typ))
	case w.entries[typ] != nil:
		w.refuse(driver.Invalidf("type %q has two handlers", typ))
	case w.started:
		w.refuse(driver.Invalidf("type %q is registered after the worker was started", typ))
		w.logger.Error("a handler is registered after the worker was started: it is never called", "type", typ)
	default:
		return true
	}
	return false
}

// refuse keeps a mistake for Run to report.
func (w *Worker) refuse(err error) {
	if err != nil {
		w.mistakes = append(w.mistakes, err)
	}
}

// wrap puts middleware round a handler, the first outermost.
func wrap[H any, M ~func(H) H](middleware []M, h H, missing func(H) bool) (H, error) {
	for i := len(middleware) - 1; i >= 0; i-- {
		m, next := middleware[i], h
		if fault := guard.Call(func() { h = m(next) }); fault != nil {
			return next, driver.Invalidf("middleware %d does not wrap a handler: %w", i+1, fault)
		}
		if missing(h) {
			return next, driver.Invalidf("middleware %d returned a nil handler", i+1)
		}
	}
	return h, nil
}
