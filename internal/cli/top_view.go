package cli

import (
	"fmt"
	"strings"
	"time"

	"github.com/charmbracelet/x/ansi"

	"github.com/waggleq/waggle"
)

// topView is what the screen of top shows.
type topView struct {
	s, before     *snapshot
	term          terminal
	width, height int // a width of 0 cuts nothing

	at      place
	focus   int // of the overview's tables
	row     int // the row with the bar
	filter  string
	help    bool
	said    string // what came of the last key
	prompt  string // a question, or the filter while it is typed
	trouble error  // why the last look failed
}

const topKeys = "q quit  ? keys  ↑↓ Tab move  Enter open  Esc back  / filter  p pause  r retry  c cancel"

const topHelp = `  Tab, Shift-Tab   the next table, the one before
  ↑ ↓, j k         move; PgUp and PgDn by ten, Home and End to the ends
  Enter, →         open a queue (its newest tasks) or a task
  Esc, ←           back
  /                show only rows with this text; Esc takes it away
  p                pause the chosen queue, or resume it
  r                retry the chosen task, if it has ended
  c                cancel the chosen task, or tell it to stop
  q                quit`

// frame draws the screen.
func (v *topView) frame() string {
	var text string
	switch {
	case v.help:
		text = v.head() + "\n" + topHelp + "\n"
	case v.at.task != "":
		text = v.taskPage()
	case v.at.queue != "":
		text = v.queuePage()
	default:
		text = v.overview()
	}
	return v.fit(text)
}

// head is the first line, and the warnings.
func (v *topView) head() string {
	var b strings.Builder
	fmt.Fprintln(&b, v.term.paint(bold, "waggle top")+"  "+v.s.Now.Local().Format(time.TimeOnly)+"  "+size(v.s.Bytes)+v.rates()+"  "+visible(v.s.Store))
	if v.trouble != nil {
		fmt.Fprintln(&b, v.term.paint(red, "the store does not answer, trying again: "+oneLine(v.trouble)))
	}
	for _, w := range v.s.Warn {
		fmt.Fprintln(&b, v.term.paint(yellow, visible(w)))
	}
	if v.filter != "" {
		fmt.Fprintln(&b, v.term.paint(dim, "only rows with ")+visible(v.filter))
	}
	return b.String()
}

func (v *topView) rates() string {
	if v.before == nil {
		return ""
	}
	secs := v.s.Now.Sub(v.before.Now).Seconds()
	if secs <= 0 {
		return ""
	}
	rate := func(now, then int64) string { return grouped(int64(float64(now-then)/secs+0.5)) + "/s" }
	return fmt.Sprintf("  in %s  done %s  failed %s", rate(v.s.totals.Enqueued, v.before.totals.Enqueued),
		rate(v.s.totals.Completed, v.before.totals.Completed), rate(v.s.totals.Failed, v.before.totals.Failed))
}

// overview draws the three tables.
func (v *topView) overview() string {
	queues, workers, tasks := v.queues(), v.workers(), v.running()
	rows := max(v.height-9, 3) // without headings, the lines between and the footer
	nq := min(len(queues), max(rows/3, rows-len(workers)-len(tasks)))
	nw := min(len(workers), max(rows/4, rows-nq-len(tasks)))
	nt := min(len(tasks), max(rows-nq-nw, 1))

	var b strings.Builder
	b.WriteString(v.head())
	b.WriteByte('\n')
	v.block(&b, tableQueues, nq, "no queues", []column{left(fmt.Sprintf("QUEUES %d", len(queues))), right("AVAIL"), right("ACTIVE"),
		right("SCHED"), right("RETRY"), right("DONE"), right("DISC"), right("OLDEST"), left("NOTE")}, len(queues), func(i int) []string {
		cells := queueCells(queues[i])
		return []string{ansi.Truncate(cells[0], 24, "…"), cells[1], cells[2], cells[3], cells[4], cells[6], cells[7], cells[9], cells[10]}
	})
	b.WriteByte('\n')
	v.block(&b, tableWorkers, nw, "no workers", []column{left(fmt.Sprintf("WORKERS %d", len(workers))), left("HOST"), right("PID"),
		right("BUSY"), right("UP"), left("STATE"), left("QUEUES")}, len(workers), func(i int) []string {
		w := &workers[i]
		return []string{ansi.Truncate(w.ID, 32, "…"), ansi.Truncate(w.Host, 16, "…"), fmt.Sprint(w.PID), w.busyText(),
			roughly(v.s.Now.Sub(w.Since)), w.State, strings.Join(w.Queues, ",")}
	})
	b.WriteByte('\n')
	v.block(&b, tableRunning, nt, "nothing is running", []column{left(fmt.Sprintf("RUNNING %d", len(tasks))), left("TYPE"), right("FOR"),
		right("TRY"), left("PROGRESS"), left("WORKER")}, len(tasks), func(i int) []string {
		t := tasks[i]
		progress := ""
		if t.Progress != nil {
			progress = progressText(t.Progress)
		}
		return []string{ansi.Truncate(t.ID, 36, "…"), ansi.Truncate(t.Type, 20, "…"), roughly(v.s.Now.Sub(t.ClaimedAt)), fmt.Sprint(t.Attempt),
			progress, ansi.Truncate(t.Worker, 20, "…")}
	})
	return b.String()
}

// queuePage draws the newest tasks of the queue that is open.
func (v *topView) queuePage() string {
	tasks := v.tasks()
	var b strings.Builder
	b.WriteString(v.head())
	b.WriteByte('\n')
	v.block(&b, v.focus, max(v.height-5, 3), "no tasks", []column{left("TASKS OF " + v.at.queue), left("TYPE"), left("STATE"), right("TRY"),
		right("AGE"), left("NOTE")}, len(tasks), func(i int) []string {
		t := tasks[i]
		return []string{t.ID, ansi.Truncate(t.Type, 20, "…"), string(t.State), fmt.Sprint(t.Attempt), roughly(v.s.Now.Sub(t.EnqueuedAt)),
			taskNote(t, v.s.Now)}
	})
	return b.String()
}

// taskPage draws the task that is open.
func (v *topView) taskPage() string {
	if v.s.open == nil || v.s.open.ID != v.at.task {
		return v.head() + "\n" + "task " + v.at.task + " is not there any more\n"
	}
	return v.head() + "\n" + taskText(v.s.open, v.term)
}

// block draws up to n rows of a table of total rows, those round the bar if the table has it.
func (v *topView) block(b *strings.Builder, which, n int, none string, columns []column, total int, row func(i int) []string) {
	if total == 0 {
		fmt.Fprintln(b, v.term.paint(dim, none))
		return
	}
	n = min(n, total)
	focused := v.term.is && which == v.focus
	from := 0
	if focused {
		v.row = min(max(v.row, 0), total-1)
		from = min(max(0, v.row-n/2), total-n)
	}
	var text strings.Builder
	plain := terminal{colour: v.term.colour} // the frame is cut to its width as a whole
	t := newTable(&text, plain, columns)
	for i := from; i < from+n; i++ {
		_ = t.add(row(i)) // a string takes everything
	}
	_ = t.flush()
	for i, line := range strings.Split(strings.TrimRight(text.String(), "\n"), "\n") {
		switch {
		case !v.term.is:
		case focused && from+i-1 == v.row:
			line = v.term.paint(bold, "▸") + " " + v.term.paint(bold, ansi.Strip(line))
		default:
			line = "  " + line
		}
		fmt.Fprintln(b, line)
	}
}

// matches reports whether a row is shown under the filter.
func (v *topView) matches(texts ...string) bool {
	return v.filter == "" || strings.Contains(strings.ToLower(strings.Join(texts, "\n")), strings.ToLower(v.filter))
}

func filtered[T any](all []T, keep func(T) bool) []T {
	var some []T
	for _, x := range all {
		if keep(x) {
			some = append(some, x)
		}
	}
	return some
}

func (v *topView) queues() []queueRow {
	return filtered(v.s.Queues, func(q queueRow) bool { return v.matches(q.Name, queueNote(q)) })
}

func (v *topView) workers() []workerRow {
	return filtered(v.s.Workers, func(w workerRow) bool { return v.matches(w.ID, w.Host, w.State, strings.Join(w.Queues, ",")) })
}

func (v *topView) running() []*waggle.TaskInfo { return filtered(v.s.Active, v.matchesTask) }

func (v *topView) tasks() []*waggle.TaskInfo { return filtered(v.s.queue, v.matchesTask) }

func (v *topView) matchesTask(t *waggle.TaskInfo) bool {
	return v.matches(t.ID, t.Type, t.Queue, string(t.State), t.Worker, t.LastError())
}

// selectedQueue is the queue that is open or under the bar, nil if there is none.
func (v *topView) selectedQueue() *queueRow {
	for i := range v.s.Queues {
		if v.at.queue != "" && v.s.Queues[i].Name == v.at.queue {
			return &v.s.Queues[i]
		}
	}
	if queues := v.queues(); v.focus == tableQueues && v.at == (place{}) && v.row < len(queues) {
		return &queues[v.row]
	}
	return nil
}

// selectedTask is the task that is open or under the bar, nil if there is none.
func (v *topView) selectedTask() *waggle.TaskInfo {
	switch {
	case v.at.task != "":
		if v.s.open != nil && v.s.open.ID == v.at.task {
			return v.s.open.TaskInfo
		}
		return nil
	case v.at.queue != "":
		return nth(v.tasks(), v.row)
	case v.focus == tableRunning:
		return nth(v.running(), v.row)
	}
	return nil
}

func nth(tasks []*waggle.TaskInfo, i int) *waggle.TaskInfo {
	if i < 0 || i >= len(tasks) {
		return nil
	}
	return tasks[i]
}

// fit cuts a text to the screen, and puts the footer on its last line.
func (v *topView) fit(text string) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	lines = lines[:min(len(lines), max(v.height-1, 0))]
	for len(lines) < v.height-1 {
		lines = append(lines, "")
	}
	footer := v.term.paint(dim, topKeys)
	switch {
	case v.prompt != "":
		footer = v.term.paint(yellow, v.prompt)
	case v.said != "":
		footer = visible(v.said)
	}
	lines = append(lines, footer)
	for i := range lines {
		lines[i] = ansi.Truncate(lines[i], v.width, "…")
	}
	return strings.Join(lines, "\n")
}
