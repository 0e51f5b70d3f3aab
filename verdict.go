package waggle

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/waggleq/waggle/driver"
)

// verdict is what a handler decides about its task, as an error.
type verdict struct {
	outcome Outcome
	delay   time.Duration
	err     error
	pause   time.Duration // of the slot, with Release
}

func (v *verdict) Error() string {
	if v.err != nil {
		return v.err.Error()
	}
	return string(v.outcome)
}

func (v *verdict) Unwrap() error { return v.err }

// RetryAfter is a verdict: it fails the attempt and has the next one wait for d instead of what the backoff says.
// A negative d counts as 0. err says what went wrong; it may be nil.
func RetryAfter(d time.Duration, err error) error {
	return &verdict{outcome: driver.Retry, delay: max(d, 0), err: err}
}

// Snooze is a verdict: it has the task run again after d. It spends no attempt. A negative d counts as 0.
func Snooze(d time.Duration) error { return &verdict{outcome: driver.Snooze, delay: max(d, 0)} }

// Discard is a verdict: it gives the task up, which ends as discarded, whatever attempts are left. err says why.
func Discard(err error) error { return &verdict{outcome: driver.Discard, err: err} }

// Cancel is a verdict: it ends the task as cancelled. err says why; it may be nil.
func Cancel(err error) error { return &verdict{outcome: driver.CancelOutcome, err: err} }

// GiveBack is a verdict for work that could not begin, by no fault of the task: a program or a device is missing here, say.
// The task goes back to its place at once, for this worker or another, with no attempt spent and no entry in its history.
// The slot takes no other task for pause, so that a worker that can't work does not go through its queues in vain. err,
// which may be nil, is logged as a warning.
func GiveBack(pause time.Duration, err error) error {
	return &verdict{outcome: driver.Release, pause: max(pause, 0), err: err}
}

// pauseOf is how long a slot pauses after a handler has returned err.
func pauseOf(err error) time.Duration {
	v, _ := errors.AsType[*verdict](err)
	return v.pause
}

// settlementOf turns what a handler returned into the outcome of the attempt. It calls the error's own methods, which may
// do anything: see [dispatcher.verdict].
//
//   - nil: completed, even if cancellation was asked for: the work is done.
//   - Discard: discarded.
//   - any other, if cancellation was asked for: cancelled.
//   - Snooze, Cancel and GiveBack: as they say.
//   - any other, if the worker shuts down: given back, no attempt spent.
//   - RetryAfter and all other errors: a failed attempt.
func settlementOf(ctx context.Context, err error, cancelAsked bool, backoff func() time.Duration) driver.Settlement {
	if err == nil {
		return driver.Settlement{Outcome: driver.Complete}
	}
	v, decided := errors.AsType[*verdict](err)
	cause := context.Cause(ctx)
	st := driver.Settlement{Outcome: driver.Retry, Error: errorText(err, v, cause)}
	switch {
	case decided && v.outcome == driver.Discard:
		st.Outcome = driver.Discard
	case cancelAsked:
		st.Outcome = driver.CancelOutcome
	case decided && v.outcome != driver.Retry:
		st.Outcome, st.Delay, st.Unbegun = v.outcome, v.delay, v.outcome == driver.Release
	case errors.Is(cause, ErrShutdown):
		st.Outcome, st.Error = driver.Release, ""
	case decided:
		st.Delay = v.delay
	default:
		st.Delay = backoff()
	}
	st.Delay = min(st.Delay, maxDelay)
	return st
}

// maxDelay is what a store takes.
const maxDelay = 100 * 365 * 24 * time.Hour

// errorText returns the text to be kept. An error that only says that the context ended gets the reason.
func errorText(err error, v *verdict, cause error) string {
	text := err.Error()
	if v != nil && v.err == nil {
		if text == string(v.outcome) { // nothing but the verdict was said
			return ""
		}
		return text
	}
	if cause != nil && (errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)) && !errors.Is(err, cause) {
		return fmt.Sprintf("%v: %s", cause, text)
	}
	return text
}
