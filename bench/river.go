package main

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"
)

func riverSpec() *spec {
	return &spec{
		name: "river", label: "River", store: postgresStore, open: openRiver,
		defaultSlots: manySlots, defaultNote: "has none; its documentation's examples say 100",
		module: riverModule,
		settings: "`river.Config{}` with one queue of `MaxWorkers: 100`; `Client.Insert`, and `Client.InsertManyFast` (COPY) for bulk; " +
			"pgx pool of up to 50 connections, so that 50 callers do not wait for the 4 that are pgx's default on this machine. A fetch at most " +
			"every 100 ms (`FetchCooldown`) bounds this to 1000 tasks a second: see the next line.",
		recovery: "rescued when it has run for an hour (`RescueStuckJobsAfter`)",
	}
}

// riverTunedSpec is River as its own benchmark command sets it up, because its defaults hold processing back.
func riverTunedSpec() *spec {
	s := riverSpec()
	s.name, s.label, s.open = "river-tuned", "River, tuned", openRiverTuned
	s.only = []measure{workDefault, work100, pickup}
	s.defaultSlots, s.defaultNote = riverBenchWorkers, "of its benchmark command"
	s.settings = "As River's own benchmark command: `FetchCooldown: 2 ms`, `FetchPollInterval: 20 ms`, `MaxWorkers: 2000` instead of a default; " +
		"all else as above."
	return s
}

const (
	riverModule       = "github.com/riverqueue/river"
	riverBenchWorkers = 2000
)

// riverConnections is one for each caller of the single-caller measurement.
const riverConnections = 50

// riverArgs is the payload as River wants it.
type riverArgs struct{ message }

// Kind implements river.JobArgs.
func (riverArgs) Kind() string { return "bench" }

type riverContestant struct {
	pool   *pgxpool.Pool
	client *river.Client[pgx.Tx]

	// How its worker runs.
	config       river.Config
	defaultSlots int
}

func openRiver(ctx context.Context, url string) (contestant, error) {
	return connectRiver(ctx, url, river.Config{}, manySlots)
}

func openRiverTuned(ctx context.Context, url string) (contestant, error) {
	config := river.Config{FetchCooldown: 2 * time.Millisecond, FetchPollInterval: 20 * time.Millisecond}
	return connectRiver(ctx, url, config, riverBenchWorkers)
}

func connectRiver(ctx context.Context, url string, worker river.Config, slots int) (contestant, error) {
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, err
	}
	config.MaxConns = riverConnections
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, err
	}
	driver := riverpgxv5.New(pool)
	migrator, err := rivermigrate.New(driver, nil)
	if err == nil {
		_, err = migrator.Migrate(ctx, rivermigrate.DirectionUp, nil)
	}
	var client *river.Client[pgx.Tx]
	if err == nil {
		client, err = river.NewClient(driver, &river.Config{})
	}
	if err != nil {
		pool.Close()
		return nil, err
	}
	return &riverContestant{pool: pool, client: client, config: worker, defaultSlots: slots}, nil
}

func (r *riverContestant) Enqueue(ctx context.Context, m message) error {
	_, err := r.client.Insert(ctx, riverArgs{m}, nil)
	return err
}

func (r *riverContestant) EnqueueBatch(ctx context.Context, ms []message) error {
	params := make([]river.InsertManyParams, len(ms))
	for i, m := range ms {
		params[i].Args = riverArgs{m}
	}
	n, err := r.client.InsertManyFast(ctx, params)
	if err == nil && n != len(ms) {
		err = fmt.Errorf("river: %d of %d jobs were inserted", n, len(ms))
	}
	return err
}

func (r *riverContestant) Work(ctx context.Context, slots int, handle func(message)) (func() error, error) {
	workers := river.NewWorkers()
	river.AddWorker(workers, river.WorkFunc(func(_ context.Context, j *river.Job[riverArgs]) error {
		handle(j.Args.message)
		return nil
	}))
	config := r.config
	config.Queues = map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: cmp.Or(slots, r.defaultSlots)}}
	config.Workers = workers
	client, err := river.NewClient(riverpgxv5.New(r.pool), &config)
	if err != nil {
		return nil, err
	}
	if err := client.Start(ctx); err != nil {
		return nil, err
	}
	return func() error { return client.Stop(context.WithoutCancel(ctx)) }, nil
}

func (r *riverContestant) Left(ctx context.Context) (n int, err error) {
	err = r.pool.QueryRow(ctx, `SELECT count(*) FROM river_job WHERE state <> 'completed'`).Scan(&n)
	return n, err
}

func (r *riverContestant) Close() error {
	r.pool.Close()
	return nil
}
