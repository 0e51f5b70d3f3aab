package main

import (
	"context"
	"slices"
	"time"

	"github.com/waggleq/waggle/internal/redisserver"
)

// redisSuite measures what package redisstore promises beyond one server and beyond a moderate load, on servers of its
// own.
var redisSuite = &suite{
	figures: redisFigures,
	groups: []group{
		{"disk", startDisk}, {"backlog", startRedisBacklog}, {"queues", startQueues}, {"idle", startRedisIdle}, {"wake", startWake},
		{"shards", startShards}, {"recovery", startRedisRecovery}, {"failover", startFailover},
		{"flows", startRedisFlows}, {"ticks", startRedisTicks}, {"due", startDue}, {"again", startRedisAgain},
		{"shares", startRedisShares}, {"shares_16", startClusterShares},
	},
	full: sizes{rounds: 5, rate: 20_000, backlog: 2_000_000, windows: 4, queues: 10_000, spread: 500_000, idle: 20 * time.Second, watches: 2,
		workers: 100, wakes: 10, alone: 200, long: 2, failovers: 3, pickups: 80, agains: 20, steps: 10_000, hops: 1000, schedules: 10_000, seconds: 4, atOnce: 1_000_000},
	quick: sizes{rounds: 2, rate: 5_000, backlog: 100_000, windows: 1, queues: 1_000, spread: 50_000, idle: 5 * time.Second, watches: 1,
		workers: 100, wakes: 5, alone: 50, long: 1, failovers: 1, pickups: 30, agains: 20, steps: 2000, hops: 100, schedules: 1000, seconds: 2, atOnce: 50_000},
	describe: describeRedis,
	page:     redisPage,
}

// The ids of the figures of package redisstore; those of the full queue are the same as above.
const (
	diskAOF       = "disk_single_valkey"
	diskAlways    = "disk_single_redis"
	taskMemory    = "memory_task"
	backlogSlow   = "backlog_slowlog"
	oneQueue      = "process_one_queue"
	manyQueues    = "process_many_queues"
	queuesSlow    = "queues_slowlog"
	idleOne       = "idle_1_shard"
	idleFour      = "idle_4_shards"
	idleSixteen   = "idle_16_shards"
	wakeOne       = "wake_1_shard"
	wakeSixteen   = "wake_16_shards"
	cpuOne        = "cpu_1_shard"
	cpuSixteen    = "cpu_16_shards"
	cpuMany       = "cpu_64_shards"
	cpuApart      = "cpu_apart"
	cpuServers    = "cpu_16_shards_servers"
	cpuClient     = "cpu_16_shards_client"
	aloneOne      = "alone_1_shard"
	aloneSixteen  = "alone_16_shards"
	aloneMany     = "alone_64_shards"
	recoverWorker = "recovery_worker"
	recoverMaster = "recovery_master"
)

var redisFigures = slices.Concat([]figure{
	{id: diskAOF, what: "level disk, 50 single callers, Valkey: everysec and WAITAOF", unit: "tasks/s", goal: atLeast(10_000)},
	{id: diskAlways, what: "level disk, 50 single callers, Redis 7.0: always", unit: "tasks/s", goal: atLeast(10_000)},
	{id: shallow, what: "process with 10 000 queued", unit: "tasks/s"},
	{id: deep, what: "process with %s queued, against 10 000", unit: "tasks/s", of: shallow, ratio: atLeast(0.8)},
	{id: taskMemory, what: "server memory for a queued task, payload included", unit: "bytes", goal: atMost(350)},
	{id: backlogSlow, what: "commands of 10 ms and more meanwhile", unit: "in SLOWLOG", goal: atMost(0), worst: true},
	{id: workerMemory, what: "that worker's memory at its peak", unit: "MiB", worst: true},
	{id: oneQueue, what: "process from one queue", unit: "tasks/s"},
	{id: manyQueues, what: "process from ten thousand queues, against one", unit: "tasks/s", of: oneQueue, ratio: atLeast(0.8)},
	{id: queuesSlow, what: "commands of 10 ms and more meanwhile", unit: "in SLOWLOG", goal: atMost(0), worst: true},
	{id: idleOne, what: "one idle worker, 1 shard: commands to a shard", unit: "a second", goal: atMost(5)},
	{id: idleFour, what: "one idle worker, 4 shards: commands to a shard", unit: "a second", goal: atMost(5)},
	{id: idleSixteen, what: "one idle worker, 16 shards: commands to a shard", unit: "a second", goal: atMost(5)},
	{id: wakeOne, what: "100 idle workers, one task, 1 shard: fetches, worst", unit: "fetches", goal: atMost(2), worst: true},
	{id: wakeSixteen, what: "100 idle workers, one task, 16 shards: fetches, worst", unit: "fetches", goal: atMost(2), worst: true},
	{id: cpuOne, what: "processor time a task, 1 shard", unit: "µs"},
	{id: cpuSixteen, what: "processor time a task, 16 shards, against 1", unit: "µs", of: cpuOne},
	{id: cpuServers, what: "of that, in the servers", unit: "µs"},
	{id: cpuClient, what: "of that, in the client and worker", unit: "µs"},
	{id: cpuMany, what: "processor time a task, 64 shards, against 1", unit: "µs", of: cpuOne},
	{id: cpuApart, what: "the most of these three by the least", unit: "×", goal: atMost(1.25)},
	{id: aloneOne, what: "processor time of a task on its own, 1 shard", unit: "µs"},
	{id: aloneSixteen, what: "processor time of a task on its own, 16 shards, against 1", unit: "µs", of: aloneOne},
	{id: aloneMany, what: "processor time of a task on its own, 64 shards, against 1", unit: "µs", of: aloneOne},
	{id: recoverWorker, what: "recovery after SIGKILL of a worker, default lease, worst", unit: "s", goal: atMost(11), worst: true},
	{id: recoverMaster, what: "claims go on after SIGKILL of a Cluster master, node timeout 2 s, worst", unit: "s", goal: atMost(6), worst: true},
}, flowFigures, tickFigures, dueFigures, againFigures("1 shard", "_1", 10), againFigures("16 shards", "_16", 20), shareFigures(""), shareFigures("_16"))

// redisSizing says how much is measured, and on which servers.
type redisSizing struct {
	Quick     bool   `json:"quick"`
	Rounds    int    `json:"rounds"`
	Server    string `json:"server"`
	Redis     string `json:"redis"`
	Valkey    string `json:"valkey"`
	Rate      int    `json:"tasks_a_rate"`
	Backlog   int    `json:"tasks_queued"`
	Queues    int    `json:"queues"`
	IdleMS    int    `json:"idle_ms"`
	Workers   int    `json:"idle_workers"`
	Wakes     int    `json:"wakes_a_round"`
	Failovers int    `json:"failovers"`
}

func describeRedis(ctx context.Context, s *settings) (any, error) {
	redis, err := redisserver.Find(ctx, redisserver.Redis)
	if err != nil {
		return nil, err
	}
	valkey, err := redisserver.Find(ctx, redisserver.Valkey)
	if err != nil {
		return nil, err
	}
	return redisSizing{s.quick, s.rounds, s.server, redis.Version, valkey.Version, s.rate, s.sizes.backlog, s.queues,
		int(s.sizes.idle.Milliseconds()), s.workers, s.wakes, s.failovers}, nil
}

// flavour is the product that all but the level disk is measured on.
func (s *settings) flavour() redisserver.Flavour { return redisserver.Flavour(s.server) }

// slowConfig has a server note every command that takes ten milliseconds.
var slowConfig = []string{"slowlog-log-slower-than 10000", "slowlog-max-len 1024"}
