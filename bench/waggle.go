package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/waggleq/waggle"
	"github.com/waggleq/waggle/driver"
	open "github.com/waggleq/waggle/stores"
)

// waggleSpecs returns Waggle once for each kind of store that this build has an engine for and that the comparison can
// start.
func waggleSpecs() []*spec {
	var specs []*spec
	for _, kind := range []storeKind{redisStore, sqliteStore, postgresStore} {
		if slices.Contains(open.Schemes(), waggleScheme[kind]) {
			specs = append(specs, waggleSpec(kind))
		}
	}
	return specs
}

// waggleScheme is the URL scheme of the engine for a kind of store.
var waggleScheme = map[storeKind]string{redisStore: "redis", sqliteStore: "sqlite", postgresStore: "postgres"}

// storeLabel is how the page calls a kind of store.
var storeLabel = map[storeKind]string{redisStore: "Redis", sqliteStore: "SQLite", postgresStore: "PostgreSQL"}

func waggleSpec(kind storeKind) *spec {
	return &spec{
		name: "waggle-" + string(kind), label: "Waggle, " + storeLabel[kind], store: kind, open: openWaggle,
		ours:         true,
		defaultSlots: manySlots, defaultNote: "Waggle's default",
		module: "github.com/waggleq/waggle",
		settings: "`WorkerOptions{}`; `Client.Enqueue` with a struct as payload and no options, and `Client.EnqueueBatch` for bulk; " +
			"a typed handler (`waggle.Handle`).",
		recovery: "lease 10 s, and at most a second more; no attempt is spent",
	}
}

// waggleType is the task type.
const waggleType = "bench"

type waggleContestant struct {
	store  driver.Store
	client *waggle.Client
}

func openWaggle(ctx context.Context, url string) (contestant, error) {
	store, err := open.Open(ctx, url)
	if err != nil {
		return nil, err
	}
	client, err := waggle.NewClient(store, nil)
	if err != nil {
		return nil, errors.Join(err, store.Close())
	}
	return &waggleContestant{store, client}, nil
}

func (w *waggleContestant) Enqueue(ctx context.Context, m message) error {
	_, err := w.client.Enqueue(ctx, waggleType, m, nil)
	return err
}

func (w *waggleContestant) EnqueueBatch(ctx context.Context, ms []message) error {
	tasks := make([]waggle.NewTask, len(ms))
	for i, m := range ms {
		tasks[i] = waggle.NewTask{Type: waggleType, Payload: m}
	}
	results, err := w.client.EnqueueBatch(ctx, tasks)
	if err != nil {
		return err
	}
	for _, r := range results {
		if r.Err != nil || r.Existing {
			return fmt.Errorf("waggle: a task was not accepted as new: %+v", r)
		}
	}
	return nil
}

func (w *waggleContestant) Work(ctx context.Context, slots int, handle func(message)) (func() error, error) {
	worker, err := waggle.NewWorker(w.store, &waggle.WorkerOptions{Slots: slots})
	if err != nil {
		return nil, err
	}
	waggle.Handle(worker, waggleType, func(_ context.Context, _ *waggle.Task, m message) error {
		handle(m)
		return nil
	}, nil)
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- worker.Run(ctx) }()
	stop := func() error {
		cancel()
		return <-ended
	}
	if err := w.registered(ctx, ended); err != nil {
		cancel()
		return nil, err
	}
	return stop, nil
}

// registered waits until the store knows a worker of this program.
func (w *waggleContestant) registered(ctx context.Context, ended <-chan error) error {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		workers, err := w.client.Workers(ctx)
		if err != nil {
			return err
		}
		if slices.ContainsFunc(workers, func(s waggle.WorkerStatus) bool { return s.PID == os.Getpid() }) {
			return nil
		}
		select {
		case err := <-ended:
			return fmt.Errorf("waggle: the worker ended: %w", err)
		case <-tick.C:
		}
	}
}

func (w *waggleContestant) Left(ctx context.Context) (int, error) {
	q, err := w.client.Queue(ctx, driver.DefaultQueue)
	if errors.Is(err, driver.ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	left := 0
	for state, n := range q.Counts {
		if state != driver.Completed {
			left += n
		}
	}
	return left, nil
}

func (w *waggleContestant) Close() error {
	err := w.client.Close(context.Background())
	return errors.Join(err, w.store.Close())
}
