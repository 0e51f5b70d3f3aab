package waggle

import (
	"context"
	"time"

	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/internal/guard"
	"github.com/waggleq/waggle/internal/runner"
)

// BatchOptions say when a batch is complete, and are the options of its type. The zero value of a field means its default.
type BatchOptions struct {
	// Max is how many tasks one call gets at most. Default: 100; at most 1000.
	Max int
	// Wait is how long the first task of a batch waits for others, at the longest. Default: 1s; 1ms to 1h.
	Wait time.Duration
	// Quiet has a batch run as soon as no other task has come for this time: it then waits for Quiet after the last, and not
	// longer than Wait after the first. Default: 0, only Wait counts.
	Quiet time.Duration

	HandleOptions
}

const (
	defaultBatch     = 100
	maxBatch         = 1000
	defaultBatchWait = time.Second
	maxBatchWait     = time.Hour
)

// BatchItem is one task of a batch, with its payload.
type BatchItem[T any] struct {
	*Task
	In T
}

// End says how this task ends, whatever the handler returns: nil completes it, an error is what it is as the return of a
// [Handler]. The last call counts, and calls after the handler has returned do nothing.
func (i BatchItem[T]) End(err error) { i.decide(err) }

// Ended reports whether it was said how this task ends, and how: by [BatchItem.End], or because its payload could not be
// read.
func (i BatchItem[T]) Ended() (ended bool, err error) { return i.decision() }

// BatchHandler runs a batch whose payloads are not read yet. What holds for the fn of [HandleBatch] holds for it.
type BatchHandler func(ctx context.Context, batch []BatchItem[[]byte]) error

// BatchMiddleware wraps handlers of batches: see [WorkerOptions]. It is called once for each call of a handler, with all
// tasks of the batch. It may end some of them and hand on the others; those that it hands on to nobody end as it returns. What it puts
// into ctx is in the context of the handler, not in [BatchItem.Context].
type BatchMiddleware func(next BatchHandler) BatchHandler

// HandleBatch registers fn for a task type whose tasks are run many at a time: a worker gathers tasks of one queue and one
// key (see [EnqueueOptions]; those without a key are one group) until there are Max or the time is over, and calls fn once.
// A call takes one slot.
//
// Each task keeps its own life. It ends as [BatchItem.End] has said, and otherwise as fn returns: nil completes it, an
// error or a panic fails it. Each has its own result, attempts, timeout (tasks with different ones are not in one batch)
// and log. ctx ends when all of the batch are of no more use; [BatchItem.Context] ends when that task is. A payload that
// can't be read as a T fails that task alone.
//
// While a batch gathers, and while it runs, its tasks are active: they hold their leases and their places in limits. If
// the worker stops they are given back with no attempt spent; if it dies each comes back as any task of a dead worker.
// A worker holds 1000 tasks (or Max) in batches that are not complete; with more, the oldest of those runs as it is. A batch that finds no free
// slot for a second is given back. With [WorkerOptions.UntilEmpty] a batch does not wait when nothing else is there. A task that has crashed its workers twice
// is run alone, and so are tasks of an ordered key.
//
// [WorkerOptions.BatchMiddleware] wraps fn.
//
// Mistakes are reported by [Worker.Run]. nil opts mean the defaults.
func HandleBatch[T any](w *Worker, typ string, fn func(ctx context.Context, batch []BatchItem[T]) error, opts *BatchOptions) {
	var run BatchHandler
	if fn != nil {
		run = func(ctx context.Context, batch []BatchItem[[]byte]) error { return runItems(ctx, batch, fn) }
	}
	w.handleBatch(typ, run, opts)
}

// HandleBatch registers a handler of batches of the type: see the function [HandleBatch].
func (t Type[T]) HandleBatch(w *Worker, fn func(ctx context.Context, batch []BatchItem[T]) error, opts ...*BatchOptions) {
	o, err := atMostOne(opts)
	if err != nil {
		w.mu.Lock()
		w.refuse(err)
		w.mu.Unlock()
	}
	HandleBatch(w, t.name, fn, o)
}

// Context ends when the task is of no more use to its handler: with that of the batch, or when the task alone is
// cancelled. See [Handler]. It leads to the task: see [TaskFrom].
func (i BatchItem[T]) Context() context.Context { return &i.ctx }

// runItems reads the payloads and calls fn with the tasks that have one.
func runItems[T any](ctx context.Context, batch []BatchItem[[]byte], fn func(context.Context, []BatchItem[T]) error) error {
	items := make([]BatchItem[T], 0, len(batch))
	for _, read := range batch {
		item := BatchItem[T]{Task: read.Task}
		if raw, ok := any(&item.In).(*[]byte); ok {
			*raw = read.In
		} else if err := bind(read.Task, &item.In); err != nil {
			read.decide(err)
			continue
		}
		items = append(items, item)
	}
	if len(items) == 0 {
		return nil
	}
	return fn(ctx, items)
}

// bind reads a payload. A fault in a method of the user's is the task's own.
func bind(t *Task, in any) error {
	var err error
	if fault := guard.Call(func() { err = t.Bind(in) }); fault != nil {
		return fault
	}
	if err != nil {
		return driver.Errorf(ErrInvalid, "the payload of a %s task can't be read: %w", t.Type, err)
	}
	return nil
}

// batchEntry is a registered handler of batches.
type batchEntry struct {
	run  BatchHandler // with the middleware round it
	rule runner.Gather
}

func (w *Worker) handleBatch(typ string, run BatchHandler, opts *BatchOptions) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var b BatchOptions
	if opts != nil {
		b = *opts
	}
	rule, errs := b.rule()
	for _, err := range errs {
		w.refuse(driver.Errorf(ErrInvalid, "options of type %q: %w", typ, err))
	}
	o := b.HandleOptions.withDefaults(&w.opts)
	if !w.mayRegister(typ, run == nil, &o) {
		return
	}
	run, err := wrap(w.opts.BatchMiddleware, run, func(h BatchHandler) bool { return h == nil })
	if err != nil {
		w.refuse(driver.Errorf(ErrInvalid, "type %q: %w", typ, err))
		return
	}
	w.entries[typ] = &entry{opts: o, batch: &batchEntry{run, rule}}
}

func (b *BatchOptions) rule() (runner.Gather, []error) {
	rule := runner.Gather{Max: b.Max, Wait: b.Wait, Quiet: b.Quiet}
	if rule.Max == 0 {
		rule.Max = defaultBatch
	}
	if rule.Wait == 0 {
		rule.Wait = defaultBatchWait
	}
	var errs []error
	if rule.Max < 1 || rule.Max > maxBatch {
		errs = append(errs, driver.Invalidf("Max of a batch must be between 1 and %d, got %d", maxBatch, rule.Max))
	}
	if rule.Wait < time.Millisecond || rule.Wait > maxBatchWait {
		errs = append(errs, driver.Invalidf("Wait of a batch must be between 1ms and 1h, got %v", rule.Wait))
	}
	if rule.Quiet != 0 && rule.Quiet < time.Millisecond {
		errs = append(errs, driver.Invalidf("Quiet of a batch must be 0 or at least 1ms, got %v", rule.Quiet))
	}
	return rule, errs
}

// gathers returns when the batches of this worker's types are complete.
func (w *Worker) gathers() map[string]runner.Gather {
	var rules map[string]runner.Gather
	for typ, e := range w.entries {
		if e.batch != nil {
			if rules == nil {
				rules = make(map[string]runner.Gather)
			}
			rules[typ] = e.batch.rule
		}
	}
	return rules
}

// RunBatch implements [runner.Handler].
func (d *dispatcher) RunBatch(ctx context.Context, jobs []*runner.Job) []driver.Settlement {
	e := d.entry(jobs[0].Type)
	tasks, batch := make([]*Task, len(jobs)), make([]BatchItem[[]byte], len(jobs))
	for i, j := range jobs {
		tasks[i] = newTask(j.Context(), (*Worker)(d), j)
		j.Owner = tasks[i]
		batch[i] = BatchItem[[]byte]{Task: tasks[i], In: tasks[i].Payload}
	}
	var err error
	if fault := guard.Apart(func() { err = e.batch.run(ctx, batch) }); fault != nil {
		err = fault
	}
	ends := make([]driver.Settlement, len(jobs))
	for i, t := range tasks {
		ends[i] = d.settle(t, e, t.verdictOr(err))
		jobs[0].Rest = max(jobs[0].Rest, jobs[i].Rest)
	}
	return ends
}
