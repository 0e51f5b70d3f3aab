package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
)

// report is the outcome of a run.
type report struct {
	Machine  machine `json:"machine"`
	Settings sizing  `json:"measured"`
	Seconds  int     `json:"seconds"`
	Tasks    int     `json:"tasks"` // each of which has run once
	Rows     []row   `json:"figures"`
}

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
}

func describe(s *settings) sizing {
	return sizing{s.quick, s.rounds, s.rate, s.sizes.memory, s.sizes.backlog, s.windows, s.pickups, s.scheduled, int(s.sizes.idle.Milliseconds())}
}

// missed returns the figures that fell short of their goals.
func (r *report) missed() []string {
	var ids []string
	for _, row := range r.Rows {
		if row.Met != nil && !*row.Met {
			ids = append(ids, row.ID)
		}
	}
	return ids
}

func (r *report) print(w io.Writer, format string) error {
	if format == "json" {
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		return enc.Encode(r)
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, strings.Join(headings, "\t"))
	for _, row := range r.Rows {
		fmt.Fprintln(t, strings.Join(row.cells(), "\t"))
	}
	return t.Flush()
}

var headings = []string{"figure", "goal", "measured", "unit", "spread", "ratio", "met"}

func (r *row) cells() []string {
	ratio, met := "", ""
	if r.Ratio != nil {
		ratio = strconv.FormatFloat(*r.Ratio, 'f', 2, 64) + " ×"
	}
	if r.Met != nil {
		met = map[bool]string{true: "yes", false: "no"}[*r.Met]
	}
	return []string{r.What, r.Goal, number(r.Value), r.Unit, number(r.Low) + " … " + number(r.High), ratio, met}
}

// number writes three digits that count, or all of a whole number, grouped by thousands.
func number(v float64) string {
	if math.Abs(v) < 100 {
		digits := 2
		if math.Abs(v) >= 10 {
			digits = 1
		}
		text := strconv.FormatFloat(v, 'f', digits, 64)
		return strings.TrimSuffix(strings.TrimRight(text, "0"), ".")
	}
	text := strconv.FormatInt(int64(math.Round(v)), 10)
	for at := len(text) - 3; at > 0 && text[at-1] != '-'; at -= 3 {
		text = text[:at] + " " + text[at:]
	}
	return text
}

// write makes the report a page.
func (r *report) write(path string) error {
	var b strings.Builder
	fmt.Fprintf(&b, introduction, r.machineText(), r.Seconds)
	b.WriteString("\n| " + strings.Join(headings, " | ") + " |\n|---|--:|--:|---|--:|--:|---|\n")
	for _, row := range r.Rows {
		cells := row.cells()
		if row.Met != nil && !*row.Met {
			cells[len(cells)-1] = "**no**"
		}
		b.WriteString("| " + strings.Join(cells, " | ") + " |\n")
	}
	b.WriteString("\n" + r.summary() + "\n")
	s := r.Settings
	fmt.Fprintf(&b, method, s.Rounds, number(float64(s.Rate)), number(float64(s.Rate/2)), number(float64(s.Backlog)), s.Rounds*s.Windows,
		s.Rounds*s.Pickups, s.Rounds*s.Scheduled, s.Rounds, float64(s.IdleMS)/1000, number(float64(s.Memory)))
	return os.WriteFile(path, []byte(b.String()), 0o644)
}

func (r *report) machineText() string {
	m := r.Machine
	return fmt.Sprintf("%d cores (%s), %.0f GiB of memory, %s; Go %s, SQLite %s (%s). Appending 4 KiB to a file and fsync took %s ms there.",
		m.Cores, m.CPU, m.Memory, m.System, m.Go, m.SQLite, m.Driver, number(m.FsyncMS))
}

func (r *report) summary() string {
	text := "Every goal was met."
	if missed := r.missed(); len(missed) > 0 {
		text = fmt.Sprintf("Goals missed: %d (%s).", len(missed), strings.Join(missed, ", "))
	}
	return fmt.Sprintf("%s %s tasks were counted: each was run once.", text, number(float64(r.Tasks)))
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

%d rounds take turns: in each, every figure is measured once, the bare loop beside the others, so that what changes on
the machine meanwhile touches all alike. Payloads are 100 bytes of JSON. Handlers do nothing but count: a task that did not
run, or ran twice, makes the measurement fail.

- **The bare loop** is one table of a SQLite file with the same journal, fsync and cache settings: rows inserted in
  transactions of 500, then claimed in one transaction and deleted in another, 500 at a time. It has one caller, no
  leases, no results and no history: it is what SQLite itself can do.
- **Rates**: %s tasks through one client in batches of 500, then run by one worker with 100 slots until all are settled;
  %s tasks by 50 callers with one task each, who share one client.
- **The full queue**: %s tasks in a file. Worker processes take turns on it and on one with 10 000: each runs 5 000 tasks,
  then 10 000 against the clock, %d times on both. In the end one process runs all that is left. The memory is the peak
  of what was resident in any of the worker processes on the full queue (VmHWM).
- **Disk** is the growth of the file, closed, by those tasks, divided by their number, less the payload.
- **Pick-up** is from the call of Enqueue, with its fsync, to the first line of the handler, in a worker that was left
  alone for 5 to 60 ms, at random: %d tasks each in the same process and in another one. Percentiles are of all samples.
- **Lateness**: %d tasks due at random milliseconds, from their time to the first line of the handler.
- **Recovery**: a worker process runs a task and gets SIGKILL at a random moment; until the first line of the handler
  in another process that was idle. Five times with a lease of 1s, twice with the default of 10s.
- **The idle worker** is ` + "`waggle work`" + ` with an empty queue, watched %d times for %g s, after 1.5 s to come up: processor
  time of all its threads, and the peak of its resident memory.
- **In memory**: %s tasks a round through memstore's calls one after another, in batches of 500, and as many enqueued by
  a client in batches of 500 while a worker with 100 slots runs them, until the last is settled.

## Do it again

` + "```sh" + `
make bench              # all of it, about five minutes; a machine with nothing else to do
make bench-quick        # less of everything, in under a minute
go run ./internal/figures -only pickup,recovery -o json
make figures            # all of it, and writes this page
` + "```" + `

` + "`-dir`" + ` puts the databases on another disk: where fsync is slow, all that waits for it is.
`
