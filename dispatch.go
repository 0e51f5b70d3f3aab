package waggle

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/internal/guard"
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
			err = guard.Panicked(v)
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
	st := d.verdict(t, e, err)
	if most := (*Worker)(d).attempts(t.job); most != t.job.MaxAttempts && st.Outcome == driver.Retry {
		st.MaxAttempts = most
	}
	return st
}

// verdict says what an error of a handler means. The error may be of the user's making, and each of its methods may panic,
// end its goroutine, or stand on a nil pointer: then the attempt has failed, and no more.
func (d *dispatcher) verdict(t *Task, e *entry, err error) driver.Settlement {
	// The number of failures before this one is Attempt-1: attempts that spend none are not counted.
	delay := func() time.Duration { return e.opts.delay(t.Attempt, err) }
	if err == errGoexit {
		return d.fault(t, err.Error(), "", delay)
	}
	if p, ok := err.(*guard.Fault); ok { // as it is: no method of the user's must be called to find it
		return d.fault(t, p.Text, p.Stack, delay)
	}
	var st driver.Settlement
	if p := guard.Apart(func() {
		if st = settlementOf(&t.ctx, err, t.job.CancelAsked(), delay); st.Unbegun {
			t.job.Rest = pauseOf(err)
		}
	}); p != nil {
		return d.fault(t, fmt.Sprintf("the handler's error (%T) can't be read: %s", err, p.Text), p.Stack, delay)
	}
	return st
}

// fault is the outcome of an attempt that ended in a panic or the like.
func (d *dispatcher) fault(t *Task, text, stack string, delay func() time.Duration) driver.Settlement {
	st := driver.Settlement{Outcome: driver.Retry, Error: text, Stack: stack}
	if t.job.CancelAsked() {
		st.Outcome = driver.CancelOutcome
	} else {
		st.Delay = delay()
	}
	return st
}

// Ended implements [runner.Handler]. It logs how an attempt ended that did not complete its task, in the words of what the
// store has made of it. A failing handler is no trouble of Waggle's: Info. A task that is discarded is Warn, and so is a
// panic.
func (d *dispatcher) Ended(j *runner.Job, st *driver.Settlement, res driver.SettleResult) {
	if res.Err == nil && res.State == driver.Completed {
		return
	}
	level, message, outcome := slog.LevelInfo, "task did not complete", string(st.Outcome)
	switch {
	case res.Err != nil:
		message = "the outcome of a task came too late: it was taken from this worker"
	case res.State.Ended():
		outcome = string(res.State)
	}
	if st.Unbegun {
		message = "a task is given back: its work could not begin"
	}
	if res.State == driver.Discarded || st.Stack != "" || st.Unbegun && st.Error != "" {
		level = slog.LevelWarn
	}
	attrs := append(make([]slog.Attr, 0, 10),
		slog.String(logkey.TaskID, j.ID), slog.String(logkey.TaskType, j.Type), slog.String(logkey.Queue, j.Queue),
		slog.Int(logkey.Attempt, j.Attempt), slog.String(logkey.Outcome, outcome),
	)
	if res.Reason != "" {
		attrs = append(attrs, slog.String(logkey.Reason, string(res.Reason)))
	}
	if st.Delay > 0 && !res.State.Ended() {
		attrs = append(attrs, slog.Duration(logkey.Delay, st.Delay.Round(time.Millisecond)))
	}
	if st.Unbegun {
		attrs = append(attrs, slog.Duration(logkey.Pause, j.Rest))
	}
	if st.Error != "" {
		attrs = append(attrs, slog.String(logkey.Error, driver.CutText(st.Error, driver.MaxErrorBytes)))
	}
	if st.Stack != "" {
		attrs = append(attrs, slog.String(logkey.Stack, driver.CutText(st.Stack, driver.MaxErrorBytes)))
	}
	d.logger.LogAttrs(context.Background(), level, message, attrs...)
}
