package main

import (
	"fmt"
	"strings"
)

// redisPage is docs/scaling.md.
func redisPage(r *report, s *settings) string {
	how := r.Settings.(redisSizing)
	server := "Redis " + how.Redis
	if how.Server == "valkey" {
		server = "Valkey " + how.Valkey
	}
	machine := fmt.Sprintf("%s; Go %s. Appending 4 KiB to a file and fsync took %s ms there.", r.Machine.text(), r.Machine.Go, number(r.Machine.FsyncMS))
	return fmt.Sprintf(redisIntroduction, server, how.Redis, how.Valkey, machine, r.Machine.alone(), r.Seconds) + "\n" + r.table() + extrapolate(r) +
		fmt.Sprintf(redisMethod, s.rounds, number(float64(s.rate)), number(float64(s.sizes.backlog)), s.rounds*s.windows,
			number(float64(s.sizes.queues)), number(float64(s.spread)), s.sizes.idle.Seconds(), s.watches, s.rounds*s.wakes, number(float64(shardRounds*s.rate)),
			s.rounds*s.sizes.alone, s.long, s.failovers, number(float64(s.steps)), number(float64(s.hops)), number(float64(s.schedules)), s.seconds,
			number(float64(s.atOnce)), s.agains)
}

// extrapolate says what the measured processor times come to on more machines, and what they don't tell.
func extrapolate(r *report) string {
	servers, client, apart := r.value(cpuServers), r.value(cpuClient), r.value(cpuApart)
	verdict := "Spreading the queue costs nothing much then: the same work is done in more places."
	if apart > 1.25 {
		verdict = "That exceeds the goal of a quarter: the fixed costs of shards show, so a queue should have no more of them than it needs."
	}
	return fmt.Sprintf(inference, number(r.value(cpuOne)), number(r.value(cpuSixteen)), number(r.value(cpuMany)), number(apart), verdict,
		number(servers), number(client), roughly(servers), roughly(client), ratioText(client, servers),
		number(r.value(aloneOne)), number(r.value(aloneSixteen)), number(r.value(aloneMany)),
		number(r.value(idleOne)), number(r.value(idleFour)), number(r.value(idleSixteen)))
}

// roughly is how many tasks a second one core does at so many microseconds a task, in thousands.
func roughly(us float64) string {
	if us <= 0 {
		return "?"
	}
	return number(float64(int(1000/us))) + " 000"
}

// ratioText is how many cores of the first go with one of the second.
func ratioText(a, b float64) string {
	if b <= 0 {
		return "?"
	}
	return strings.TrimSuffix(fmt.Sprintf("%.1f", a/b), ".0")
}

const redisIntroduction = `# Scaling

What the Redis engine can sustain, and what one machine can tell about several. This page is
written by ` + "`make figures-redis`" + ` on servers that it starts itself: %s, and for the level ` + "`disk`" + ` Redis %s and Valkey %s,
all with their defaults otherwise, clients and servers on the same cores, over loopback.

The machine: %s %s The run took %d seconds.
`

const inference = `
## More machines

**Measured.** The same tasks, put in and run by one client and one worker on a Cluster of three masters, take %s µs of
processor time each (servers and client, user and system) with 1 shard, %s µs with 16 and %s µs with 64: a factor of %s
between the most and the least. %s With 16 shards %s µs of it are the servers', %s µs the client's and the worker's.

**Inferred.** A server runs commands in one thread. At that cost a master with a core to itself is at its limit with about
%s tasks a second in and out, and a core of clients and workers with about %s: so for each core of the masters
there should be about %s of clients and workers. No command of a task touches two shards, except a unique key or an own id
that belongs elsewhere, and one wake token. So with N masters the limit should be N times as high as long as there are as
many shards as masters, better several for each, and the shards are as full as each other; with a queue that is never
empty nothing that is done for a task depends on N. That was not measured: two cores can't feed more than one master.

**What would break it.**

- *The hub.* Wake tokens live in the first shard's slot. A task that comes into a queue in which nothing waits costs
  the hub one small script, whichever shard it goes to; idle workers of all shards wait there. Busy workers don't: while a
  shard has tasks left, no token is looked for. So the hub's master has its own share of tasks and all the waking. A
  queue that is mostly empty, with thousands of idle workers, meets that first.
- *Fixed costs of a shard.* A worker that finds nothing has asked every shard, and it renews its lease in each. A
  task on its own, enqueued when the one before it has run, costs %s µs of processor time with 1 shard, %s µs with 16 and
  %s µs with 64. An idle worker sends each shard %s, %s and %s commands a second with 1, 4 and 16 shards. More shards than
  the masters need are paid for by idle workers, not by busy ones.
- *Clients.* One client's connection to a node carries one command after another. What a process can do is bounded by its
  cores long before the Cluster is: add processes.
- *Uneven shards.* What one client makes within two milliseconds goes to one shard, the next to another, at random; own ids
  and unique keys go by their hash. A shard whose master is on a slower machine, or has the busiest clients by chance, is
  emptied later than the others.
- *Short batches.* What is done for a batch is shared by its tasks. Many small clients, and many queues with a task or
  two in each, have short ones.
- *The network.* Everything here went over loopback. A round trip of half a millisecond slows a single caller, not many:
  calls that overlap share it.
- *Durability.* On a Cluster, ` + "`disk`" + ` and ` + "`replicated`" + ` are waited for once a batch and shard; replicas take the processor time of
  another server each.
`

const redisMethod = `
## How it was measured

Measured is the median of %d rounds unless the figure says worst; the spread is the lowest and the highest of the rounds.
A ratio is the median of the ratios within each round. All groups take turns within a round. Payloads are 100 bytes of
JSON. Where tasks are said to be counted, a ledger has a line for each, and one that did not run, or ran twice, ends the
measurement with an error.

- **Level disk**: %s tasks a round by 50 callers with one task each, who share one client. Every receipt is for ` + "`disk`" + `: on
  Valkey the append-only file is synced each second and WAITAOF asked for, on Redis 7.0 it is synced before each reply.
- **The full queue**: %s tasks on a server without append-only file. Worker processes take turns on it and on one
  with 10 000: each runs 5 000 tasks, then 10 000 against the clock, %d times on both; in the end one process runs all
  that is left. Memory is the growth of ` + "`used_memory`" + ` by those tasks. The slow log of both servers (10 ms) is counted over
  all of it: filling, windows, emptying. It is wall-clock time, so a server that did not get to run counts as well.
- **Many queues**: the same with %s queues, all served by each worker, on one server, and one queue on another, with
  %s tasks on each, fifty in a row into the same queue.
- **The idle worker** is watched for %g s, %d times, after 1.5 s to come up, by MONITOR on every server. What scripts call
  inside the server does not count as a command; the client library's PINGs do.
- **A hundred idle workers** of one process wait, a task is enqueued, and it is counted how many workers fetch within 100 ms
  after it ran; %d tasks. Fetches that a worker makes because its poll interval is over don't count.
- **Processor time**: %s tasks a round through one client in batches of 500, then run by one worker with 100 slots, on a Cluster
  of three masters without replicas, in a new namespace each time: what the threads of the servers and of the measuring
  process have used by then. A task on its own: %d of them, each enqueued when the one before it has run.
- **Recovery of a worker**: a worker process runs a task and gets SIGKILL at a random moment; until the first line of the
  handler in another process that was idle. %d times, with the default lease of 10 s.
- **Recovery of a master**: of a Cluster with three masters and three replicas, and 16 shards, the master that has the hub
  gets SIGKILL while a worker runs tasks of all shards; until the first line of a handler of a task that was in a shard of
  that master. %d times. Then all tasks must run; some may twice, whose settlement the replica had not received.
` + flowMethod + `
- **Due at once**: %s tasks for the same second, stored before it. Until the last has started, in one worker with 100 slots; and
  the longest command in the slow log of the server (1 ms), by the clock on the wall.
- **Delays, retries, snoozes**: an idle worker runs one task at a time, on one server and on a Cluster of three masters: one with
  a delay of 50 to 100 ms, one whose handler asks once for a retry or a snooze after 50 ms, or for a retry at once. Measured
  from the time it is due, or from the handler's return, settlement included, to the next start; %d of each kind a round.

## Measure it yourself

` + "```sh" + `
make figures-redis         # all of it, and writes this page; a machine with nothing else to do
make figures-redis-quick   # less of everything, in about a minute
go run ./internal/figures -engine redis -server valkey -only queues,shards -o json
` + "```" + `

` + "`-dir`" + ` puts the servers' files on another disk: where fsync is slow, so is the level ` + "`disk`" + `.
`
