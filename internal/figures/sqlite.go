package main

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// sqliteSuite measures the default engine, a SQLite file, beside a bare loop over one, and the engine in memory.
var sqliteSuite = &suite{
	figures: sqliteFigures,
	groups: []group{
		{"bulk", startRates}, {"single", startRates}, {"process", startRates}, {"memory", startMemory}, {"backlog", startBacklog},
		{"pickup", startPickup}, {"lateness", startLateness}, {"again", startAgain}, {"recovery", startRecovery}, {"idle", startIdle}, {"idle_workers", startCrowd}, {"shares", startShares},
		{"flows", startFlows}, {"ticks", startTicks},
	},
	full:     sizes{rounds: 5, rate: 100_000, memory: 400_000, backlog: 1_000_000, windows: 4, pickups: 80, scheduled: 80, agains: 20, short: 5, long: 2, idle: 2 * time.Second, crowd: 20 * time.Second, watches: 2, steps: 10_000, hops: 1000, schedules: 10_000, seconds: 4},
	quick:    sizes{rounds: 3, rate: 20_000, memory: 100_000, backlog: 100_000, windows: 1, pickups: 30, scheduled: 30, agains: 20, short: 2, long: 1, idle: time.Second, crowd: 7 * time.Second, watches: 1, steps: 2000, hops: 100, schedules: 1000, seconds: 2},
	describe: describe,
	page:     sqlitePage,
}

// The ids of the figures of the default engine.
const (
	bareEnqueue   = "bare_enqueue"
	bareProcess   = "bare_process"
	bulk          = "enqueue_bulk"
	single        = "enqueue_single"
	process       = "process"
	shallow       = "process_at_10000"
	deep          = "process_at_backlog"
	workerMemory  = "worker_memory"
	diskBytes     = "disk_bytes"
	hereMedian    = "pickup_same_p50"
	hereTail      = "pickup_same_p99"
	thereMedian   = "pickup_other_p50"
	thereTail     = "pickup_other_p99"
	lateness      = "lateness_p99"
	recoverLong   = "recovery_default"
	recoverShort  = "recovery_1s"
	idleCPU       = "idle_cpu"
	idleMemory    = "idle_memory"
	crowdSmall    = "idle_workers_20"
	crowdLarge    = "idle_workers_40"
	crowdPickup   = "idle_workers_pickup_p99"
	memoryLoop    = "memory_loop"
	memoryProcess = "memory_end_to_end"

	sharePlain      = "share_plain"
	shareKeys       = "share_keys"
	shareWeights    = "share_weights"
	shareLone       = "share_lone_p99"
	shareAlone      = "share_alone"
	shareBeside     = "share_beside_parked"
	shareEfficiency = "limit_efficiency"
	shareAccuracy   = "limit_rate"
)

var sqliteFigures = slices.Concat([]figure{
	{id: bareEnqueue, what: "bare SQLite: insert, batches of 500", unit: "tasks/s"},
	{id: bareProcess, what: "bare SQLite: claim and delete, batches of 500", unit: "tasks/s"},
	{id: bulk, what: "enqueue, batches of 500", unit: "tasks/s", goal: atLeast(60_000), of: bareEnqueue},
	{id: single, what: "enqueue, 50 single callers", unit: "tasks/s", goal: atLeast(25_000), of: bareEnqueue},
	{id: process, what: "process, one worker, 100 slots", unit: "tasks/s", goal: atLeast(40_000), of: bareProcess, ratio: atLeast(0.4)},
	{id: shallow, what: "process with 10 000 queued", unit: "tasks/s"},
	{id: deep, what: "process with %s queued, against 10 000", unit: "tasks/s", of: shallow, ratio: atLeast(0.8)},
	{id: workerMemory, what: "that worker's memory at its peak", unit: "MiB", goal: atMost(150), worst: true},
	{id: diskBytes, what: "disk for a queued task, without its payload", unit: "bytes", goal: atMost(350)},
	{id: hereMedian, what: "idle pick-up, same process, p50", unit: "ms", goal: atMost(2), pool: 0.5},
	{id: hereTail, what: "idle pick-up, same process, p99", unit: "ms", goal: atMost(10), pool: 0.99},
	{id: thereMedian, what: "idle pick-up, another process, p50", unit: "ms", goal: atMost(10), pool: 0.5},
	{id: thereTail, what: "idle pick-up, another process, p99", unit: "ms", goal: atMost(30), pool: 0.99},
	{id: lateness, what: "lateness of scheduled tasks, p99", unit: "ms", goal: atMost(20), pool: 0.99},
}, againFigures("a file", "", 10), []figure{
	{id: recoverLong, what: "recovery after SIGKILL, default lease, worst", unit: "s", goal: atMost(11), worst: true},
	{id: recoverShort, what: "recovery after SIGKILL, lease 1s, worst", unit: "s", goal: atMost(2), worst: true},
	{id: idleCPU, what: "idle worker, share of a core", unit: "%", goal: atMost(1)},
	{id: idleMemory, what: "idle worker's memory at its peak", unit: "MiB", goal: atMost(40), worst: true},
	{id: crowdSmall, what: "20 idle workers on one file, of a core", unit: "%", goal: atMost(5)},
	{id: crowdLarge, what: "40 idle workers, 10 000 queues, of a core", unit: "%", goal: atMost(10)},
	{id: crowdPickup, what: "a task starts among those, p99", unit: "ms", goal: atMost(30), pool: 0.99},
	{id: memoryLoop, what: "in memory: the engine alone, batches of 500", unit: "tasks/s", goal: atLeast(300_000)},
	{id: memoryProcess, what: "in memory: enqueue and process, end to end", unit: "tasks/s", goal: atLeast(300_000), of: memoryLoop},
}, shareFigures(""), flowFigures, tickFigures)

// sizing says how much was measured.
type sizing struct {
	Quick     bool `json:"quick"`
	Rounds    int  `json:"rounds"`
	Rate      int  `json:"tasks_a_rate"`
	Memory    int  `json:"tasks_in_memory"`
	Backlog   int  `json:"tasks_queued"`
	Windows   int  `json:"windows_a_round"`
	Pickups   int  `json:"pickups_a_round"`
	Scheduled int  `json:"scheduled_a_round"`
	IdleMS    int  `json:"idle_ms_a_round"`
	CrowdMS   int  `json:"idle_workers_ms"`
}

func describe(_ context.Context, s *settings) (any, error) {
	return sizing{s.quick, s.rounds, s.rate, s.sizes.memory, s.sizes.backlog, s.windows, s.pickups, s.scheduled, int(s.sizes.idle.Milliseconds()), int(s.crowd.Milliseconds())}, nil
}

// sqlitePage is docs/figures.md.
func sqlitePage(r *report, s *settings) string {
	m := r.Machine
	machine := fmt.Sprintf("%s; Go %s, SQLite %s (%s). Appending 4 KiB to a file and fsync took %s ms there.",
		m.text(), m.Go, m.SQLite, m.Driver, number(m.FsyncMS))
	return fmt.Sprintf(introduction, machine, r.Seconds) + "\n" + r.table() +
		fmt.Sprintf(method, s.rounds, number(float64(s.rate)), number(float64(s.rate/2)), number(float64(s.sizes.backlog)), s.rounds*s.windows,
			s.rounds*s.pickups, s.rounds*s.scheduled, s.agains, s.rounds, s.sizes.idle.Seconds(), s.watches, s.crowd.Seconds(), number(float64(s.steps)), number(float64(s.hops)), number(float64(s.schedules)), s.seconds, number(float64(s.sizes.memory)))
}

const introduction = `# Figures

What Waggle promises on one machine, measured with its default engine, a SQLite file, and its default options: every
change is on stable storage before a call returns. This page is written by ` + "`make figures`" + `; ` + "`make bench`" + ` measures the same
and prints it.

The machine: %s It had nothing else to do. The run took %d seconds.
`

const method = `
Measured is the median of the rounds unless the figure says otherwise; the spread is the lowest and the highest of the
rounds. A ratio is the median of the ratios within each round: to the bare SQLite loop for the rates of enqueueing and
processing, to the rate with 10 000 queued for the full queue, to the engine alone for what is in memory.

## Method

%d rounds take turns: in each, every figure is measured once, the bare loop beside the others, so that changes on the
machine affect all of them alike. Payloads are 100 bytes of JSON. Handlers do nothing but count: a task that did not
run, or ran twice, makes the measurement fail.

- **The bare loop** is one table of a SQLite file with the same journal, fsync and cache settings: rows inserted in
  transactions of 500, then claimed in one transaction and deleted in another, 500 at a time. It has one caller, no
  leases, no results and no history: it shows what SQLite itself can do.
- **Rates**: %s tasks through one client in batches of 500, then run by one worker with 100 slots until all are settled;
  %s tasks by 50 callers with one task each, who share one client.
- **The full queue**: %s tasks in a file. Worker processes take turns on it and on one with 10 000: each runs 5 000 tasks,
  then 10 000 against the clock, %d times on both. In the end one process runs all that is left. Memory is the peak
  resident memory of any worker process on the full queue (VmHWM).
- **Disk** is the growth of the file, closed, by those tasks, divided by their number, less the payload.
- **Pick-up** is from the call of Enqueue, with its fsync, to the first line of the handler, in a worker that had been idle
  for a random 5 to 60 ms: %d tasks each in the same process and in another one. Percentiles are of all samples.
- **Lateness**: %d tasks due at random milliseconds, from their time to the first line of the handler.
- **Again**: an idle worker runs one task at a time: one with a delay of 50 to 100 ms, one whose handler asks once for a
  retry or a snooze after 50 ms, or for a retry at once. Measured from the time it is due, or from the handler's return,
  settlement included, to the next start; %d of each kind a round.
- **Recovery**: a worker process runs a task and gets SIGKILL at a random moment; until the first line of the handler
  in another process that was idle. Five times with a lease of 1s, twice with the default of 10s.
- **The idle worker** is ` + "`waggle work`" + ` with an empty queue, watched %d times for %g s, after 1.5 s to come up: processor
  time of all its threads, and the peak of its resident memory.
- **Idle workers** are that many processes with the same file open, watched %d times for %g s: the processor time of all. Then
  tasks are enqueued among them one by one, as for the pick-up.
- **Keys and limits**: as many tasks as for the rates, without a key and each with a key of its own; 10 000 tasks of four keys
  that always have more; single tasks of a key beside a backlog of another, one at a time, in a worker with 10 slots; a worker
  that serves two queues, in one of which every task waits for the limit of its key, in turn with one that serves an empty queue
  instead, once the ended tasks have come to the number that is kept. The limits of concurrency and rate are
  shared by 8 workers, each with the file opened for itself.
` + flowMethod + `
- **In memory**: %s tasks a round through memstore's calls one after another, in batches of 500, and as many enqueued by
  a client in batches of 500 while a worker with 100 slots runs them, until the last is settled.

## Measure it yourself

` + "```sh" + `
make bench              # all of it, about ten minutes; a machine with nothing else to do
make bench-quick        # less of everything, in about two minutes
go run ./internal/figures -only pickup,recovery -o json
make figures            # all of it, and writes this page
` + "```" + `

` + "`-dir`" + ` puts the databases on another disk: where fsync is slow, so is everything that waits for it.
`
