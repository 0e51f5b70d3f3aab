package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"time"

	"github.com/hibiken/asynq"
)

func asynqSpec() *spec {
	return &spec{
		name: "asynq", label: "asynq", store: redisStore, open: openAsynq,
		noBulk:       true,
		defaultSlots: runtime.NumCPU(), defaultNote: "the number of CPUs",
		idlePoll: asynqIdlePoll,
		module:   "github.com/hibiken/asynq",
		settings: "`asynq.Config{}`, at 100 with `Concurrency: 100`; `Client.EnqueueContext` without options; no bulk call exists.",
		recovery: "lease 30 s, looked for once a minute, then its retry delay (an attempt is spent)",
	}
}

// asynqIdlePoll is how often asynq's idle worker looks for tasks (TaskCheckInterval's default).
const asynqIdlePoll = time.Second

// asynqType is the task type; asynq has no other name for what runs.
const asynqType = "bench"

type asynqContestant struct {
	redis     asynq.RedisConnOpt
	client    *asynq.Client
	inspector *asynq.Inspector
}

func openAsynq(_ context.Context, url string) (contestant, error) {
	redis, err := asynq.ParseRedisURI(url)
	if err != nil {
		return nil, err
	}
	return &asynqContestant{redis: redis, client: asynq.NewClient(redis), inspector: asynq.NewInspector(redis)}, nil
}

func (a *asynqContestant) Enqueue(ctx context.Context, m message) error {
	_, err := a.client.EnqueueContext(ctx, asynq.NewTask(asynqType, m.encode()))
	return err
}

func (a *asynqContestant) EnqueueBatch(context.Context, []message) error { return errNoBulk }

func (a *asynqContestant) Work(_ context.Context, slots int, handle func(message)) (func() error, error) {
	server := asynq.NewServer(a.redis, asynq.Config{Concurrency: slots})
	err := server.Start(asynq.HandlerFunc(func(_ context.Context, t *asynq.Task) error {
		var m message
		if err := json.Unmarshal(t.Payload(), &m); err != nil {
			return err
		}
		handle(m)
		return nil
	}))
	if err != nil {
		return nil, err
	}
	return func() error { server.Shutdown(); return nil }, nil
}

func (a *asynqContestant) Left(context.Context) (int, error) {
	info, err := a.inspector.GetQueueInfo("default")
	switch {
	case errors.Is(err, asynq.ErrQueueNotFound):
		return 0, nil
	case err != nil:
		return 0, err
	case info.Archived > 0 || info.Retry > 0:
		return 0, fmt.Errorf("asynq: %d tasks wait for a retry, %d are dead", info.Retry, info.Archived)
	}
	return info.Size - info.Completed, nil
}

func (a *asynqContestant) Close() error {
	return errors.Join(a.client.Close(), a.inspector.Close())
}
