package main

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/redis/rueidis"
)

func redisListSpec() *spec {
	return &spec{
		name: "redis-list", label: "raw Redis list", store: redisStore, open: openRedisList, limit: true,
		settings: "`LPUSH` and `RPOP`, one value a command; bulk and processing in pipelines of 500 commands, 4 at once. " +
			"Not a queue: what a process had popped is lost with it.",
	}
}

// What the bare loops use.
const (
	rawKey      = "tasks"
	rawLoops    = 4   // loops at once, so that the server always has a next request
	rawPipeline = 500 // tasks a round trip
)

type redisList struct{ client rueidis.Client }

func openRedisList(_ context.Context, url string) (contestant, error) {
	client, err := openRueidis(url)
	if err != nil {
		return nil, err
	}
	return &redisList{client}, nil
}

func openRueidis(url string) (rueidis.Client, error) {
	o, err := rueidis.ParseURL(url)
	if err != nil {
		return nil, err
	}
	o.DisableCache = true
	return rueidis.NewClient(o)
}

func (r *redisList) push(m message) rueidis.Completed {
	return r.client.B().Lpush().Key(rawKey).Element(string(m.encode())).Build()
}

func (r *redisList) Enqueue(ctx context.Context, m message) error {
	return r.client.Do(ctx, r.push(m)).Error()
}

func (r *redisList) EnqueueBatch(ctx context.Context, ms []message) error {
	commands := make([]rueidis.Completed, len(ms))
	for i, m := range ms {
		commands[i] = r.push(m)
	}
	var errs []error
	for _, reply := range r.client.DoMulti(ctx, commands...) {
		errs = append(errs, reply.Error())
	}
	return errors.Join(errs...)
}

func (r *redisList) Work(ctx context.Context, _ int, handle func(message)) (func() error, error) {
	return rawWorkers(ctx, func(ctx context.Context) (int, error) { return r.pop(ctx, handle) }), nil
}

// pop takes up to rawPipeline values and handles them.
func (r *redisList) pop(ctx context.Context, handle func(message)) (n int, err error) {
	commands := make([]rueidis.Completed, rawPipeline)
	for i := range commands {
		commands[i] = r.client.B().Rpop().Key(rawKey).Build()
	}
	for _, reply := range r.client.DoMulti(ctx, commands...) {
		value, err := reply.AsBytes()
		if rueidis.IsRedisNil(err) {
			continue
		}
		if err != nil {
			return n, err
		}
		m, err := decodeMessage(value)
		if err != nil {
			return n, err
		}
		handle(m)
		n++
	}
	return n, nil
}

func (r *redisList) Left(ctx context.Context) (int, error) {
	n, err := r.client.Do(ctx, r.client.B().Llen().Key(rawKey).Build()).AsInt64()
	return int(n), err
}

func (r *redisList) Close() error {
	r.client.Close()
	return nil
}

// rawWorkers calls step in rawLoops goroutines, each until it finds nothing. stop waits for them and returns their
// errors.
func rawWorkers(ctx context.Context, step func(context.Context) (int, error)) (stop func() error) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	errs := make([]error, rawLoops)
	for i := range errs {
		wg.Go(func() {
			for ctx.Err() == nil {
				n, err := step(ctx)
				if err != nil {
					errs[i] = fmt.Errorf("loop %d: %w", i, err)
				}
				if n == 0 || err != nil {
					return
				}
			}
		})
	}
	return func() error {
		wg.Wait() // each ends by itself when nothing is left
		cancel()
		return errors.Join(errs...)
	}
}
