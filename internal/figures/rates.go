package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/waggleq/waggle"
	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/internal/bareloop"
	"github.com/waggleq/waggle/stores"
)

const (
	batchSize = 500
	callers   = 50
	slots     = 100
	taskType  = "figure"
)

// rates measures what goes in and out of a SQLite file, beside the bare loop. Each round has files of its own.
type rates struct{ *lab }

func startRates(_ context.Context, l *lab) (probe, error) { return rates{l}, nil }

func (r rates) close(context.Context) error { return nil }

func (r rates) round(ctx context.Context) (err error) {
	dir, err := os.MkdirTemp(r.dir, "rates-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := r.bare(filepath.Join(dir, "bare.db")); err != nil {
		return fmt.Errorf("bare loop: %w", err)
	}
	if r.wants("bulk") || r.wants("process") {
		if err := r.bulkAndProcess(ctx, filepath.Join(dir, "bulk.db")); err != nil {
			return err
		}
	}
	if r.wants("single") {
		return r.single(ctx, filepath.Join(dir, "single.db"))
	}
	return nil
}

func (r rates) bare(path string) (err error) {
	loop, err := bareloop.Open(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, loop.Close()) }()
	began := time.Now()
	for left := r.rate; left > 0; left -= batchSize {
		if err := loop.Enqueue(payloadOf(left), min(left, batchSize)); err != nil {
			return err
		}
	}
	r.board.add(bareEnqueue, perSecond(r.rate, began))
	began = time.Now()
	done := 0
	for {
		n, err := loop.Process(batchSize)
		if err != nil {
			return err
		}
		if n == 0 {
			break
		}
		done += n
	}
	r.board.add(bareProcess, perSecond(done, began))
	if done != r.rate {
		return fmt.Errorf("%d rows went in, %d came out", r.rate, done)
	}
	return nil
}

func (r rates) bulkAndProcess(ctx context.Context, path string) (err error) {
	s, err := openStore(ctx, path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close(ctx)) }()
	began := time.Now()
	if err := s.fill(ctx, 0, r.rate); err != nil {
		return err
	}
	r.board.add(bulk, perSecond(r.rate, began))
	if !r.wants("process") {
		return nil
	}
	began = time.Now()
	if err := s.drain(ctx, newLedger(r.rate)); err != nil {
		return err
	}
	r.board.add(process, perSecond(r.rate, began))
	r.board.tasks += r.rate
	return nil
}

func (r rates) single(ctx context.Context, path string) (err error) {
	s, err := openStore(ctx, path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close(ctx)) }()
	total := r.rate / 2
	perS, err := s.singly(ctx, total, nil)
	if err != nil {
		return err
	}
	r.board.add(single, perS)
	r.board.tasks += total
	return s.drain(ctx, newLedger(total))
}

// singly has 50 callers enqueue that many tasks one by one, and returns how many a second. Each receipt must be for the
// level that was asked for.
func (s *site) singly(ctx context.Context, total int, o *waggle.EnqueueOptions) (perS float64, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var taken atomic.Int64
	var all sync.WaitGroup
	began := time.Now()
	for range callers {
		all.Go(func() {
			for n := int(taken.Add(1)); n <= total && ctx.Err() == nil; n = int(taken.Add(1)) {
				receipt, err := s.client.Enqueue(ctx, taskType, payloadOf(n-1), o)
				if err == nil && o != nil && receipt.Durability != o.Durability {
					err = fmt.Errorf("a task that was to be stored at level %s is at %s", o.Durability, receipt.Durability)
				}
				if err != nil {
					cancel(err)
				}
			}
		})
	}
	all.Wait()
	return perSecond(total, began), context.Cause(ctx)
}

func perSecond(n int, began time.Time) float64 { return float64(n) / time.Since(began).Seconds() }

// site is a store with a client.
type site struct {
	store  driver.Store
	client *waggle.Client
}

// openStore opens a store by its URL, or a SQLite file by its path.
func openStore(ctx context.Context, where string) (*site, error) {
	store, err := stores.Open(ctx, where)
	if err != nil {
		return nil, err
	}
	return newSite(store)
}

func newSite(store driver.Store) (*site, error) {
	client, err := waggle.NewClient(store, &waggle.ClientOptions{Logger: quiet})
	if err != nil {
		return nil, errors.Join(err, store.Close())
	}
	return &site{store, client}, nil
}

func (s *site) close(ctx context.Context) error {
	return errors.Join(s.client.Close(ctx), s.store.Close())
}

// fill enqueues the tasks with the numbers from first on, in batches.
func (s *site) fill(ctx context.Context, first, n int) error { return s.spread(ctx, first, n, 1) }

// inARow is how many tasks in a row go into one of several queues.
const inARow = 50

// spread does the same into so many queues in turn; one is the default queue.
func (s *site) spread(ctx context.Context, first, n, queues int) error {
	batch := make([]waggle.NewTask, 0, batchSize)
	for end := first + n; first < end; first += len(batch) {
		batch = batch[:0]
		for i := range min(end-first, batchSize) {
			batch = append(batch, waggle.NewTask{Type: taskType, Payload: payloadOf(first + i), Options: inQueue(first+i, queues)})
		}
		results, err := s.client.EnqueueBatch(ctx, batch)
		if err != nil {
			return err
		}
		for i := range results {
			if results[i].Err != nil {
				return fmt.Errorf("task %d: %w", first+i, results[i].Err)
			}
		}
	}
	return nil
}

// inQueue returns the options of a task that goes into its queue of several.
func inQueue(n, queues int) *waggle.EnqueueOptions {
	if queues < 2 {
		return nil
	}
	return &waggle.EnqueueOptions{Queue: queueName(n / inARow % queues)}
}

func queueName(n int) string { return fmt.Sprintf("queue-%05d", n) }

// queuesOf returns so many queues for a worker to serve; one is the default queue.
func queuesOf(n int) []waggle.Queue {
	if n < 2 {
		return nil
	}
	queues := make([]waggle.Queue, n)
	for i := range queues {
		queues[i].Name = queueName(i)
	}
	return queues
}

// worker returns a worker with these options, by default with a hundred slots, whose handlers call run.
func (s *site) worker(o *waggle.WorkerOptions, run func(*waggle.Task)) (*waggle.Worker, error) {
	o.Slots, o.Logger = cmp.Or(o.Slots, slots), quiet
	w, err := waggle.NewWorker(s.store, o)
	if err != nil {
		return nil, err
	}
	w.HandleFunc(taskType, func(_ context.Context, t *waggle.Task) error {
		run(t)
		return nil
	}, nil)
	return w, nil
}

// drain runs everything there is and returns when all of it is settled; book has a line for each of the tasks.
func (s *site) drain(ctx context.Context, book *ledger) error {
	w, err := s.worker(&waggle.WorkerOptions{UntilEmpty: true}, func(t *waggle.Task) { book.run(t.Payload) })
	if err != nil {
		return err
	}
	if err := w.Run(ctx); err != nil {
		return err
	}
	return errors.Join(context.Cause(ctx), book.check())
}
