package waggle

import (
	"cmp"
	"context"

	"github.com/waggleq/waggle/driver"
)

// Type ties the name of a task type to what its payload is, once for the programs that enqueue such tasks and the programs
// that run them:
//
//	var Welcome = waggle.NewType[WelcomeArgs]("email.welcome")
//
//	Welcome.Enqueue(ctx, client, WelcomeArgs{UserID: 7}) // a producer needs no handler
//
//	Welcome.Handle(worker, func(ctx context.Context, t *waggle.Task, in WelcomeArgs) error { … })
//
// All methods take at most one set of options, or none for the defaults.
type Type[T any] struct {
	name string
	opts *EnqueueOptions
}

// NewType names a task type whose payload is a T. Options, if there are any, are those of tasks that are enqueued without
// their own, such as the queue of the type and its MaxAttempts; of a task that has its own, Queue, MaxAttempts and Timeout
// are the type's where those say nothing. A bad name is reported by the call that uses it.
func NewType[T any](name string, opts ...*EnqueueOptions) Type[T] {
	t := Type[T]{name: name}
	if o, err := atMostOne(opts); err != nil {
		t.name = "" // refused wherever it is used
	} else {
		t.opts = o
	}
	return t
}

// Name returns the type's name.
func (t Type[T]) Name() string { return t.name }

// Enqueue stores a task: see [Client.Enqueue].
func (t Type[T]) Enqueue(ctx context.Context, c *Client, args T, opts ...*EnqueueOptions) (Receipt, error) {
	n := t.New(args, opts...)
	return c.Enqueue(ctx, n.Type, n.Payload, n.Options)
}

// New returns a task for [Client.EnqueueBatch], which may have tasks of several types.
func (t Type[T]) New(args T, opts ...*EnqueueOptions) NewTask {
	n := NewTask{Type: t.name, Payload: args, Options: t.opts}
	switch o, err := atMostOne(opts); {
	case err != nil:
		n.Payload = refused{err} // told when the task is enqueued
	case o != nil:
		n.Options = t.optionsOver(o)
	}
	return n
}

// optionsOver returns a task's own options with what they leave to its type.
func (t Type[T]) optionsOver(o *EnqueueOptions) *EnqueueOptions {
	if t.opts == nil {
		return o
	}
	own := *o
	own.Queue = cmp.Or(own.Queue, t.opts.Queue)
	own.MaxAttempts = cmp.Or(own.MaxAttempts, t.opts.MaxAttempts)
	own.Timeout = cmp.Or(own.Timeout, t.opts.Timeout)
	return &own
}

// EnqueueBatch stores a task for each of args: see [Client.EnqueueBatch].
func (t Type[T]) EnqueueBatch(ctx context.Context, c *Client, args []T, opts ...*EnqueueOptions) ([]EnqueueResult, error) {
	tasks := make([]NewTask, len(args))
	for i, a := range args {
		tasks[i] = t.New(a, opts...)
	}
	return c.EnqueueBatch(ctx, tasks)
}

// Handle registers the handler of the type: see [Handle].
func (t Type[T]) Handle(w *Worker, fn func(ctx context.Context, t *Task, in T) error, opts ...*HandleOptions) {
	o, err := atMostOne(opts)
	if err != nil {
		w.mu.Lock()
		w.refuse(err)
		w.mu.Unlock()
	}
	Handle(w, t.name, fn, o)
}

// WaitResult waits until a task has ended and returns its result as an R: see [Client.Wait] and [Result].
func WaitResult[R any](ctx context.Context, c *Client, id string) (R, error) {
	info, err := c.Wait(ctx, id)
	if err != nil {
		var none R
		return none, err
	}
	return Result[R](info)
}

func atMostOne[O any](opts []*O) (*O, error) {
	switch len(opts) {
	case 0:
		return nil, nil
	case 1:
		return opts[0], nil
	}
	return nil, driver.Invalidf("at most one set of options is allowed, got %d", len(opts))
}

// refused is a payload that can't be stored.
type refused struct{ err error }

// MarshalJSON implements [encoding/json.Marshaler].
func (r refused) MarshalJSON() ([]byte, error) { return nil, r.err }
