package main

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/waggleq/waggle"
	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/stores"
)

const (
	// lease is how soon the orders that a dead café had in hand go to others.
	lease = 2 * time.Second
	// hands is how many things the people in front, and those at the till, do at once.
	hands = 4
	drain = 2 * time.Second
)

// open is a café: people in front who take orders, look customers up and serve; a till; and one machine of each kind. Each of
// these is a worker, which is offered what it can do and nothing else. A machine has one slot: it takes the next cup, from
// whatever café the order came in, as soon as it is free.
func (c *cafe) open(ctx context.Context, log *slog.Logger) error {
	store, err := stores.Open(ctx, c.role.Store)
	if err != nil {
		return err
	}
	defer store.Close()
	var workers []*waggle.Worker
	var errs []error
	worker := func(what string, slots int) *waggle.Worker {
		w, err := waggle.NewWorker(store, &waggle.WorkerOptions{
			Name: c.role.Name + "." + what, Queues: []waggle.Queue{{Name: c.role.Queue}}, Slots: slots, Lease: lease, DrainTimeout: drain,
			Logger: log, Middleware: []waggle.Middleware{c.telling}, Backoff: &waggle.Backoff{Base: 300 * time.Millisecond, Factor: 1, Fixed: true},
		})
		workers, errs = append(workers, w), append(errs, err)
		return w
	}
	front, till := worker("front", hands), worker("till", hands)
	if err := errors.Join(errs...); err != nil {
		return err
	}
	TakeOrder.Handle(front, c.take)
	FindCustomer.Handle(front, c.find)
	Serve.Handle(front, c.serve)
	ChargeCard.Handle(till, c.charge)
	for _, kind := range machines {
		w := worker(kind.Name(), 1)
		if err := errors.Join(errs...); err != nil {
			return err
		}
		kind.Handle(w, (&machine{kind: kind.Name(), cafe: c}).use)
	}
	c.tell(News{Kind: newsReady})
	return runAll(ctx, workers)
}

// runAll runs workers until ctx ends or one of them fails.
func runAll(ctx context.Context, workers []*waggle.Worker) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	errs := make([]error, len(workers))
	var wg sync.WaitGroup
	for i, w := range workers {
		wg.Go(func() {
			defer cancel()
			errs[i] = w.Run(ctx)
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// telling tells when a step begins and how it ends.
func (c *cafe) telling(next waggle.Handler) waggle.Handler {
	return func(ctx context.Context, t *waggle.Task) error {
		order, step := t.Workflow()
		n := News{Kind: newsStart, Order: order, Step: step, Task: t.ID}
		c.tell(n)
		err := next(ctx, t)
		if n.Kind = newsDone; err != nil {
			n.Kind, n.Text = newsFailed, driver.CutText(err.Error(), 200)
		}
		c.tell(n)
		return err
	}
}
