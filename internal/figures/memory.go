package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/waggleq/waggle"
	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/memstore"
)

// memory measures the engine in memory: its three calls in turn, and the whole library on it.
type memory struct{ *lab }

func startMemory(_ context.Context, l *lab) (probe, error) { return memory{l}, nil }

func (m memory) close(context.Context) error { return nil }

func (m memory) round(ctx context.Context) error {
	if err := m.loop(ctx); err != nil {
		return err
	}
	return m.endToEnd(ctx)
}

// loop makes the calls that a client and a worker make at their best, with nothing between them.
func (m memory) loop(ctx context.Context) (err error) {
	store, err := memstore.Open(nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	if err := store.Register(ctx, driver.WorkerInfo{ID: "figures"}, time.Hour); err != nil {
		return err
	}
	began := time.Now()
	for left := m.sizes.memory; left > 0; left -= batchSize {
		if err := turn(ctx, store, min(left, batchSize)); err != nil {
			return err
		}
	}
	m.board.add(memoryLoop, perSecond(m.sizes.memory, began))
	return nil
}

// turn enqueues, fetches and settles a batch.
func turn(ctx context.Context, store driver.Store, n int) error {
	tasks := make([]*driver.Task, n)
	for i := range tasks {
		tasks[i] = &driver.Task{Type: taskType, Payload: payloadOf(i)}
	}
	if _, err := store.Enqueue(ctx, tasks, driver.EnqueueOptions{}); err != nil {
		return err
	}
	res, err := store.Fetch(ctx, driver.FetchRequest{
		Worker: "figures", Lease: time.Hour, Queues: []string{driver.DefaultQueue}, Types: []string{taskType}, Max: n,
	})
	if err != nil {
		return err
	}
	if len(res.Claims) != n {
		return fmt.Errorf("%d tasks were enqueued, %d fetched", n, len(res.Claims))
	}
	items := make([]driver.Settlement, n)
	for i, c := range res.Claims {
		items[i] = driver.Settlement{ID: c.ID, Token: c.Token, Outcome: driver.Complete}
	}
	refused, err := driver.SettleErrors(store.Settle(ctx, "figures", items))
	return errors.Join(append(refused, err)...)
}

// endToEnd has a client enqueue in batches and a worker run what comes, at the same time.
func (m memory) endToEnd(ctx context.Context) (err error) {
	store, err := memstore.Open(nil)
	if err != nil {
		return err
	}
	s, err := newSite(store)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close(ctx)) }()
	n := m.sizes.memory
	book := newLedger(n)
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	w, err := s.worker(&waggle.WorkerOptions{}, func(t *waggle.Task) {
		if book.run(t.Payload) == int64(n) {
			stop()
		}
	})
	if err != nil {
		return err
	}
	began := time.Now()
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	if err := s.fill(context.WithoutCancel(ctx), 0, n); err != nil {
		stop()
		return errors.Join(err, <-ended)
	}
	if err := <-ended; err != nil {
		return err
	}
	m.board.add(memoryProcess, perSecond(n, began))
	m.board.tasks += n
	return book.check()
}
