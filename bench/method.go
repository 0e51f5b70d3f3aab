package main

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

func (p *page) method() {
	amounts := p.amounts()
	p.line("## Method")
	p.line("")
	for _, text := range []string{
		"**Rounds.** In each of the {rounds} rounds every contestant is measured once for each figure, one after the other, each " +
			"round beginning with another one. Nothing else is measured at that time.",
		"**Processes and stores.** Each measurement runs in a new process (Go or Node.js) on a new empty store: a Redis server " +
			"of its own without append-only file and snapshots, a database of its own in a PostgreSQL server as initdb configures it " +
			"(fsync on), a SQLite file (fsync on). Client and server share the machine's cores. Redis and PostgreSQL are reached over " +
			"loopback TCP.",
		"**Checked.** Payloads carry a number. A measurement counts only if each task was handled exactly once and the queue's own " +
			"count of what has not ended is what it must be, before and after; otherwise the whole run fails.",
		"**Enqueue, {callers} callers.** {callers} goroutines (promises in Node.js) each enqueue one task after the other for {run} s, after {warm} s " +
			"of warm-up. The clock stops when the last call has returned.",
		"**Enqueue in batches.** The same with {bulk callers} callers and batches of {batch}, through the call that the tool's documentation " +
			"names for it.",
		"**Process.** The queue is filled first. One worker process then works it off; the clock runs from the end of the first " +
			"tenth, which warms up, to the call of the last handler; what a tool still has to note down then is not in it. How many tasks are queued is chosen for each tool in a trial run so that " +
			"this takes about {run} s: see the table below.",
		"**Idle pick-up.** From the call that enqueues a task to the start of its handler, both in one process and on one clock, one task at a time, " +
			"{pickups} samples. With SQLite that is a wake-up inside the process; between processes it takes longer. The worker has had nothing to do for at least 150 ms, and up to 100 ms more at random; for asynq, whose idle " +
			"worker looks once a second, up to a second more, so that tasks come at any moment between two looks. p50 and p99 are of all samples, " +
			"the bracket is the range of the rounds' medians.",
		"**Bytes.** What the store grows by for {byte tasks} tasks, nobody connected: Redis's `used_memory`, `pg_database_size`, the SQLite " +
			"files.",
		"**Recovery.** Two worker processes on one store; one of them starts a task and is killed with SIGKILL. The time until the other " +
			"one's handler is called for it. {kills} samples, all taken at the same time, each killed at another moment; given up after {cap} s.",
		"**CPU.** User and system time of the client's process and the server's, all tasks of the measurement and its warm-up " +
			"counted.",
	} {
		p.line("- %s", amounts.Replace(text))
	}
	p.line("")
	p.line("What this does not show: work that takes time (all queues are equal where handlers are slow), many machines, a store that")
	p.line("is far away, and a store that has been in use for months.")
	p.line("")
}

// amounts puts the settings into a text.
func (p *page) amounts() *strings.Replacer {
	s := p.Settings
	return strings.NewReplacer(
		"{rounds}", strconv.Itoa(s.Rounds), "{callers}", strconv.Itoa(s.Callers), "{bulk callers}", strconv.Itoa(s.BulkCallers),
		"{batch}", strconv.Itoa(s.BulkBatch), "{run}", short(s.RunSeconds), "{warm}", short(s.WarmSeconds),
		"{pickups}", strconv.Itoa(s.PickupSamples*s.Rounds), "{byte tasks}", grouped(int64(s.ByteTasks)),
		"{kills}", strconv.Itoa(s.RecoverySamples), "{cap}", short(s.RecoveryCapSeconds),
	)
}

func (p *page) settingsTable() {
	p.line("## Settings")
	p.line("")
	var rows [][]string
	for _, s := range p.specs {
		version := p.Versions[s.product()]
		if s.ours || s.limit {
			version = none
		}
		slots := none
		if !s.limit {
			slots = fmt.Sprintf("%d (%s)", s.defaultSlots, s.defaultNote)
		}
		var queued []string
		for _, m := range []measure{workDefault, work100} {
			if n := p.Of[s.name].Tasks[m]; n > 0 {
				queued = append(queued, grouped(int64(n)))
			}
		}
		rows = append(rows, []string{s.label, version, slots, strings.Join(queued, ", "), s.settings, documented(s)})
	}
	p.table(false, []string{"", "version", "concurrency by default", "tasks queued to process", "settings and calls", "what it documents of recovery"}, rows)
}

func documented(s *spec) string {
	if s.limit {
		return none
	}
	return s.recovery
}

func (p *page) machine() {
	m := p.Machine
	p.line("## Machine")
	p.line("")
	p.line("%d cores (%s), %s GiB of memory, %s; writing 4 KiB and fsync takes %s ms (median).", m.Cores, m.CPU, short(m.Memory), m.System, short(m.FsyncMS))
	var list []string
	for _, name := range slices.Sorted(maps.Keys(p.Versions)) {
		list = append(list, name+" "+p.Versions[name])
	}
	p.line("%s.", strings.Join(list, ", "))
	p.line("")
}

func (p *page) repeat() {
	p.line("## To repeat it")
	p.line("")
	p.line("On Debian or Ubuntu, with Go:")
	p.line("")
	p.line("```sh")
	p.line("apt-get install redis-server postgresql nodejs npm   # PostgreSQL 15 and Node.js 20 or later; stop their services")
	p.line("make compare")
	p.line("```")
	p.line("")
	p.line("That installs the Node.js packages at the versions of `bench/bullmq/package-lock.json`, measures (this run took %s),", p.Took)
	p.line("writes every sample to `bench/results.json`, and from that this page. The Go modules' versions are in `bench/go.mod`.")
	p.line("`cd bench && go run . -help` lists what can be changed; `-quick` tries it out in about two minutes.")
}
