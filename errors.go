package waggle

import (
	"context"
	"fmt"
	"strings"

	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/internal/runner"
)

// The errors a caller can tell apart with errors.Is. What is returned wraps them with what happened.
var (
	ErrInvalid     = driver.ErrInvalid     // the input breaks a rule; the text says which
	ErrNotFound    = driver.ErrNotFound    // there is no such task
	ErrDuplicate   = driver.ErrDuplicate   // the unique key is taken
	ErrState       = driver.ErrState       // not possible in the task's state
	ErrQueueClosed = driver.ErrQueueClosed // the queue is draining
	ErrQueueFull   = driver.ErrQueueFull   // the queue's bound is reached
	ErrLeaseLost   = driver.ErrLeaseLost   // the task was taken from this worker
	ErrNotDurable  = driver.ErrNotDurable  // the durability level was not confirmed; the outcome is unknown
	ErrStoreFull   = driver.ErrStoreFull   // the store has no room
	ErrUnavailable = driver.ErrUnavailable // the store can't be reached; the outcome is unknown
	ErrCorrupt     = driver.ErrCorrupt     // the store's content is damaged
	ErrUnsupported = driver.ErrUnsupported // this store does not offer that
	ErrClosed      = driver.ErrClosed      // the store or the client is closed
	ErrConflict    = driver.ErrConflict    // something else has changed it meanwhile
)

// Why a handler's context ended, besides [ErrLeaseLost]: context.Cause tells which.
var (
	ErrShutdown  = runner.ErrShutdown  // the worker stops and has waited long enough
	ErrCancelled = runner.ErrCancelled // somebody cancelled the task
	ErrTimeout   = runner.ErrTimeout   // the attempt ran longer than it may
)

// failed names the operation in an error, once.
func failed(op string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("waggle: %s: %w", strings.TrimSpace(op), err) // an id may be empty
}

// causeOf returns why ctx ended, so that a caller sees more than "context canceled".
func causeOf(ctx context.Context) error { return context.Cause(ctx) }
