package waggle

import (
	"context"
	"errors"
	"log/slog"
	"runtime/debug"
	"time"

	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/internal/logkey"
	"github.com/waggleq/waggle/internal/runner"
)

// dispatcher is a worker as the runner sees it.
type dispatcher Worker

// entry returns the handler of a type. The entries don't change while the worker runs.
func (d *dispatcher) entry(typ string) *entry {
	if e := d.entries[typ]; e != nil {
		return e
	}
	return d.anyType
}

// Timeout implements [runner.Handler]: the task's own, else its type's.
func (d *dispatcher) Timeout(j *runner.Job) time.Duration {
	if j.Timeout > 0 {
		return j.Timeout
	}
	if e := d.entry(j.Type); e != nil {
		return e.opts.Timeout
	}
	return 0
}

// Run implements [runner.Handler].
func (d *dispatcher) Run(ctx context.Context, j *runner.Job) driver.Settlement {
	e := d.entry(j.Type)
	if e == nil { // the store gave a type that was not asked for
		return driver.Settlement{Outcome: driver.Snooze, Delay: time.Minute, Error: "this worker has no handler for the type"}
	}
	t := newTask(ctx, (*Worker)(d), j)
	j.Owner = t
	return d.settle(t, e, invoke(&t.ctx, e.run, t))
}

// Exited implements [runner.Handler].
func (d *dispatcher) Exited(j *runner.Job) driver.Settlement {
	t, e := j.Owner.(*Task), d.entry(j.Type)
	return d.settle(t, e, errGoexit)
}

var errGoexit = errors.New("the handler ended its goroutine (runtime.Goexit)")

// invoke calls a handler and turns a panic into an error. A handler that ends its goroutine ends this call too, without a
// return: the runner sees to that.
func invoke(ctx context.Context, h Handler, t *Task) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &panicError{v, string(debug.Stack())}
		}
	}()
	return h(ctx, t)
}

// settle turns the end of a handler into the outcome of the attempt.
func (d *dispatcher) settle(t *Task, e *entry, err error) driver.Settlement {
	result := t.end()
	if err == nil {
		return driver.Settlement{Outcome: driver.Complete, Result: result.Bytes, ResultEncoding: result.Encoding}
	}
	// The number of failures before this one is Attempt-1: attempts that spend none are not counted.
	delay := func() time.Duration { return e.opts.Backoff.Delay(t.Attempt) }
	p, panicked := errors.AsType[*panicError](err)
	var st driver.Settlement
	if panicked || errors.Is(err, errGoexit) {
		st = driver.Settlement{Outcome: driver.Retry, Delay: delay(), Error: err.Error()}
		if t.job.CancelAsked() {
			st.Outcome, st.Delay = driver.CancelOutcome, 0
		}
		if panicked {
			st.Stack = p.stack
		}
	} else {
		st = settlementOf(&t.ctx, err, t.job.CancelAsked(), delay)
	}
	d.log(t, &st)
	return st
}

// log says how an attempt ended that did not complete the task. A failing handler is no trouble of Waggle's: Info.
func (d *dispatcher) log(t *Task, st *driver.Settlement) {
	l := d.opts.Logger
	if !l.Enabled(context.Background(), slog.LevelInfo) {
		return
	}
	attrs := []slog.Attr{
		slog.String(logkey.TaskID, t.ID), slog.String(logkey.TaskType, t.Type), slog.String(logkey.Queue, t.Queue),
		slog.Int(logkey.Attempt, t.Attempt), slog.String(logkey.Outcome, string(st.Outcome)),
	}
	if st.Delay > 0 {
		attrs = append(attrs, slog.Duration(logkey.Delay, st.Delay))
	}
	if st.Error != "" {
		attrs = append(attrs, slog.String(logkey.Error, st.Error))
	}
	if st.Stack != "" {
		attrs = append(attrs, slog.String(logkey.Stack, st.Stack))
	}
	l.LogAttrs(context.Background(), slog.LevelInfo, "task did not complete", attrs...)
}
