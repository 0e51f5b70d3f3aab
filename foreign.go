package waggle

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/internal/guard"
	"github.com/waggleq/waggle/internal/logkey"
)

// Where the user's code runs outside of a handler: package guard calls it, and what it does becomes an error.

// logPatience is how long the end of a worker or a client waits for a log handler to take the last lines.
const logPatience = time.Second

// wrapEnqueue puts one middleware round an EnqueueFunc.
func wrapEnqueue(m EnqueueMiddleware, next EnqueueFunc) (f EnqueueFunc, err error) {
	if fault := guard.Call(func() { f = m(next) }); fault != nil {
		return nil, driver.Invalidf("an enqueue middleware does not wrap: %w", fault)
	}
	if f == nil {
		return nil, driver.Invalidf("an enqueue middleware returned nil")
	}
	return f, nil
}

// guarded turns a panic of a middleware into an error of the call, and logs its stack. Whether tasks were stored is
// unknown then.
func (c *Client) guarded(next EnqueueFunc) EnqueueFunc {
	return func(ctx context.Context, tasks []NewTask) (results []EnqueueResult, err error) {
		if fault := guard.Call(func() { results, err = next(ctx, tasks) }); fault != nil {
			c.logger.Error("an enqueue middleware panicked", logkey.Error, fault.Text, logkey.Stack, fault.Stack)
			return nil, fmt.Errorf("an enqueue middleware panicked, and the outcome is unknown: %w", fault)
		}
		return results, err
	}
}

// inCallback is the error of a call whose callback panicked.
func inCallback(f *guard.Fault) error {
	return fmt.Errorf("the progress callback: %w\n%s", f, f.Stack)
}

// readable returns err if its methods can be called, else an error that says what they do.
func readable(err error) error {
	if fault := guard.Apart(func() { _ = err.Error(); _ = errors.Is(err, ErrInvalid) }); fault != nil {
		return fmt.Errorf("an error (%T) that can't be read: %w", err, fault)
	}
	return err
}
