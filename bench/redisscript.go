package main

import (
	"context"
	_ "embed"
	"strconv"

	"github.com/redis/rueidis"
)

func redisScriptSpec() *spec {
	return &spec{
		name: "redis-script", label: "bare Lua loop", store: redisStore, open: openRedisScript, limit: true,
		settings: "Three scripts: enqueue (a hash of records and a list of ids), claim up to 500 (the ids move to a hash of what is " +
			"held), end up to 500; 4 loops at once. Not a queue: no leases, no recovery, no retries, no order kept.",
	}
}

// The scripts; each file's head says what it does.
var (
	//go:embed lua/enqueue.lua
	enqueueLua string
	//go:embed lua/claim.lua
	claimLua string
	//go:embed lua/finish.lua
	finishLua string
)

// The keys of the bare loop.
const (
	recordsKey = "records"
	readyKey   = "ready"
	heldKey    = "held"
)

type redisScript struct {
	client                 rueidis.Client
	enqueue, claim, finish *rueidis.Lua
}

func openRedisScript(_ context.Context, url string) (contestant, error) {
	client, err := openRueidis(url)
	if err != nil {
		return nil, err
	}
	return &redisScript{
		client: client, enqueue: rueidis.NewLuaScript(enqueueLua),
		claim: rueidis.NewLuaScript(claimLua), finish: rueidis.NewLuaScript(finishLua),
	}, nil
}

func (r *redisScript) Enqueue(ctx context.Context, m message) error {
	return r.EnqueueBatch(ctx, []message{m})
}

func (r *redisScript) EnqueueBatch(ctx context.Context, ms []message) error {
	args := make([]string, 0, 2*len(ms))
	for _, m := range ms {
		args = append(args, m.P[:numberDigits], string(m.encode()))
	}
	return r.enqueue.Exec(ctx, r.client, []string{recordsKey, readyKey}, args).Error()
}

func (r *redisScript) Work(ctx context.Context, _ int, handle func(message)) (func() error, error) {
	return rawWorkers(ctx, func(ctx context.Context) (int, error) { return r.step(ctx, handle) }), nil
}

// step claims tasks, handles them and ends them.
func (r *redisScript) step(ctx context.Context, handle func(message)) (int, error) {
	flat, err := r.claim.Exec(ctx, r.client, []string{recordsKey, readyKey, heldKey}, []string{strconv.Itoa(rawPipeline)}).AsStrSlice()
	if err != nil || len(flat) == 0 {
		return 0, err
	}
	ids := make([]string, 0, len(flat)/2)
	for i := 0; i < len(flat); i += 2 {
		m, err := decodeMessage([]byte(flat[i+1]))
		if err != nil {
			return 0, err
		}
		handle(m)
		ids = append(ids, flat[i])
	}
	return len(ids), r.finish.Exec(ctx, r.client, []string{recordsKey, heldKey}, ids).Error()
}

func (r *redisScript) Left(ctx context.Context) (int, error) {
	n, err := r.client.Do(ctx, r.client.B().Hlen().Key(recordsKey).Build()).AsInt64()
	return int(n), err
}

func (r *redisScript) Close() error {
	r.client.Close()
	return nil
}
