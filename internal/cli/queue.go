package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/waggleq/waggle"
	"github.com/waggleq/waggle/driver"
)

func (a *app) queueCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "queue", Short: "Inspect and control queues", GroupID: "watch",
		Args: noCommand, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	pause, resume := true, false
	cmd.AddCommand(a.queueListCommand(), a.queueGetCommand(),
		a.queuePauseCommand("pause", "Stop handing out tasks of a queue; running ones go on", "paused", driver.QueuePatch{Paused: &pause}),
		a.queuePauseCommand("resume", "Hand out tasks again after pause, accept them again after drain", "resumed",
			driver.QueuePatch{Paused: &resume, Draining: &resume}),
		a.queueConfigureCommand(), a.queueLimitCommand(), a.queueBoundCommand(), a.queueOrderCommand(), a.queueDrainCommand(), a.queuePurgeCommand(),
		a.queueDeleteCommand())
	return cmd
}

// queueRow is one queue in `queue list -o json`.
type queueRow struct {
	Name            string `json:"name"`
	Available       int    `json:"available"`
	Active          int    `json:"active"`
	Scheduled       int    `json:"scheduled"`
	Retryable       int    `json:"retryable"`
	Pending         int    `json:"pending"`
	Completed       int    `json:"completed"`
	Discarded       int    `json:"discarded"`
	Cancelled       int    `json:"cancelled"`
	OldestAvailable int64  `json:"oldest_available_ms"` // for how long the longest waiting available task has waited
	Paused          bool   `json:"paused"`
	Draining        bool   `json:"draining"`
	Parked          int    `json:"parked"` // available tasks that a limit or an ordered key keeps from starting
	Damaged         bool   `json:"damaged,omitzero"`

	Limits []limitRow     `json:"limits,omitzero"`
	Bound  *boundRow      `json:"bound,omitzero"`
	Order  driver.Order   `json:"order,omitzero"`
	Keys   driver.KeyMode `json:"keys,omitzero"`

	// Obstacles say why available tasks do not run, type by type.
	Obstacles []typeObstacle `json:"obstacles,omitzero"`
}

func rowOf(q *driver.QueueInfo, workers *crew, now time.Time) queueRow {
	n := q.Counts
	row := queueRow{
		Name: q.Name, Available: n[driver.Available], Active: n[driver.Active], Scheduled: n[driver.Scheduled],
		Retryable: n[driver.Retryable], Pending: n[driver.Pending], Completed: n[driver.Completed],
		Discarded: n[driver.Discarded], Cancelled: n[driver.Cancelled], Paused: q.Config.Paused, Draining: q.Config.Draining,
	}
	row.Parked, row.Order, row.Keys, row.Damaged = q.Parked, q.Config.Order, q.Config.Keys, q.Damaged
	for _, l := range q.Limits {
		row.Limits = append(row.Limits, limitRowOf(l))
	}
	row.Bound = boundRowOf(q)
	row.Obstacles = workers.obstacles(q)
	if !q.OldestAvailable.IsZero() {
		row.OldestAvailable = max(0, now.Sub(q.OldestAvailable).Milliseconds())
	}
	return row
}

func (a *app) queueListCommand() *cobra.Command {
	return &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List the queues with their figures", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withClient(cmd.Context(), func(c *waggle.Client) error { return a.listQueues(cmd.Context(), c) })
		},
	}
}

func (a *app) listQueues(ctx context.Context, c *waggle.Client) error {
	info, err := c.Info(ctx)
	if err != nil {
		return err
	}
	queues, err := c.Queues(ctx)
	if err != nil {
		return err
	}
	workers, err := readCrew(ctx, c, info.Now)
	if err != nil {
		return err
	}
	rows := make([]queueRow, len(queues))
	for i := range queues {
		rows[i] = rowOf(&queues[i], workers, info.Now)
	}
	columns, cells := queueColumns, queueCells
	if a.outTerm.small() {
		columns, cells = withoutZeros(rows)
	}
	l := a.newList(columns...)
	for _, row := range rows {
		if err := l.add(row, func() []string { return cells(row) }); err != nil {
			return l.close(err)
		}
	}
	if len(queues) == 0 {
		a.say("no queues yet: `waggle enqueue` makes one")
	}
	return l.close(nil)
}

var queueColumns = []column{left("QUEUE"), right("AVAIL"), right("ACTIVE"), right("SCHED"), right("RETRY"), right("PEND"),
	right("DONE"), right("DISC"), right("CANC"), right("OLDEST"), left("NOTE")}

// withoutZeros leaves out the columns that are 0 in all rows, so that a small terminal has room for the note. The
// columns of available and active tasks stay.
func withoutZeros(rows []queueRow) ([]column, func(queueRow) []string) {
	var kept []int
	for i := range queueColumns {
		zero := func(q queueRow) bool { return queueCells(q)[i] == "0" }
		if i <= 2 || len(rows) == 0 || slices.ContainsFunc(rows, func(q queueRow) bool { return !zero(q) }) {
			kept = append(kept, i)
		}
	}
	columns := make([]column, len(kept))
	for to, from := range kept {
		columns[to] = queueColumns[from]
	}
	return columns, func(q queueRow) []string {
		all, cells := queueCells(q), make([]string, len(kept))
		for to, from := range kept {
			cells[to] = all[from]
		}
		return cells
	}
}

func queueCells(q queueRow) []string {
	cells := []string{q.Name}
	for _, n := range []int{q.Available, q.Active, q.Scheduled, q.Retryable, q.Pending, q.Completed, q.Discarded, q.Cancelled} {
		cells = append(cells, fmt.Sprint(n))
	}
	oldest := "-"
	if q.Available > 0 {
		oldest = roughly(time.Duration(q.OldestAvailable) * time.Millisecond)
	}
	return append(cells, oldest, queueNote(q))
}

// queueNote is what is worth knowing of a queue.
func queueNote(q queueRow) string {
	var notes []string
	if q.Damaged {
		notes = append(notes, "DAMAGED: not certain")
	}
	if q.Draining {
		notes = append(notes, "draining")
	}
	if q.Paused {
		notes = append(notes, "paused")
	}
	if q.Parked > 0 {
		notes = append(notes, fmt.Sprint(q.Parked, " parked"))
	}
	for _, l := range q.Limits {
		notes = append(notes, l.note())
	}
	if q.Bound != nil {
		notes = append(notes, q.Bound.note())
	}
	if note := obstacleNote(q.Obstacles); note != "" {
		notes = append(notes, note)
	}
	return strings.Join(notes, ", ")
}

// queueDetail is `queue get -o json`: a row of the list, and more.
type queueDetail struct {
	queueRow
	Retention map[driver.State]retentionOf    `json:"retention"`
	Totals    driver.Totals                   `json:"totals"`
	Types     map[string]map[driver.State]int `json:"types"`
}

// retentionOf says how long ended tasks of a state are kept; -1 is without bound.
type retentionOf struct {
	Seconds float64 `json:"seconds"`
	Count   int     `json:"count"`
	Bytes   int64   `json:"bytes"`
}

func retentionsOf(r driver.Retention) map[driver.State]retentionOf {
	m := map[driver.State]retentionOf{}
	for _, s := range endedStates {
		k := r.Of(s)
		m[s] = retentionOf{Seconds: k.Age.Seconds(), Count: k.Count, Bytes: k.Bytes}
	}
	return m
}

func detailOf(q *driver.QueueInfo, workers *crew, now time.Time) queueDetail {
	d := queueDetail{
		queueRow: rowOf(q, workers, now), Totals: q.Totals,
		Retention: retentionsOf(q.Config.Retention), Types: map[string]map[driver.State]int{},
	}
	for _, t := range q.Types {
		d.Types[t.Type] = t.Counts
	}
	return d
}

func queueArg(cmd *cobra.Command, args []string) error {
	if err := oneArg("queue")(cmd, args); err != nil {
		return err
	}
	return driver.CheckName("queue", args[0], driver.MaxNameLen)
}

func (a *app) queueGetCommand() *cobra.Command {
	return &cobra.Command{
		Use: "get QUEUE", Aliases: []string{"show"}, Short: "Show a queue: figures, settings, types", Args: queueArg, ValidArgsFunction: a.completeQueues,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withClient(cmd.Context(), func(c *waggle.Client) error { return a.getQueue(cmd.Context(), c, args[0]) })
		},
	}
}

func (a *app) getQueue(ctx context.Context, c *waggle.Client, name string) error {
	info, err := c.Info(ctx)
	if err != nil {
		return err
	}
	q, err := c.Queue(ctx, name)
	if err != nil {
		return err
	}
	workers, err := readCrew(ctx, c, info.Now)
	if err != nil {
		return err
	}
	d := detailOf(q, workers, info.Now)
	return a.printObject(d, func() error { return a.describeQueueInfo(q, &d, info.Now) })
}

func (a *app) describeQueueInfo(q *driver.QueueInfo, d *queueDetail, now time.Time) error {
	l := a.newList(left("QUEUE "+q.Name), right("NOW"), right("IN ALL"), left("KEPT"))
	totals := map[driver.State]int64{
		driver.Completed: q.Totals.Completed, driver.Cancelled: q.Totals.Cancelled, driver.Discarded: q.Totals.Discarded,
	}
	for _, s := range driver.States {
		row := []string{string(s), fmt.Sprint(q.Counts[s]), "", ""}
		if s.Ended() {
			row[2], row[3] = fmt.Sprint(totals[s]), keepText(q.Config.Retention.Of(s))
		}
		if err := l.add(nil, func() []string { return row }); err != nil {
			return err
		}
	}
	if err := l.close(nil); err != nil {
		return err
	}
	lines := []string{fmt.Sprintf("%s added, %s retried by hand, %s failed attempts, %s crashes", grouped(q.Totals.Enqueued),
		grouped(q.Totals.Retried), grouped(q.Totals.Failed), grouped(q.Totals.Crashed))}
	if !q.OldestAvailable.IsZero() {
		lines = append(lines, "the oldest available task has waited for "+roughly(now.Sub(q.OldestAvailable)))
	}
	switch {
	case q.Config.Draining && q.Config.Paused:
		lines = append(lines, "the queue is draining and paused")
	case q.Config.Draining:
		lines = append(lines, "the queue is draining")
	case q.Config.Paused:
		lines = append(lines, "the queue is paused")
	}
	lines = append(lines, orderLines(d)...)
	for _, t := range q.Types {
		lines = append(lines, fmt.Sprintf("type %s: %s available, %s active", t.Type, grouped(int64(t.Counts[driver.Available])), grouped(int64(t.Counts[driver.Active]))))
	}
	for _, o := range d.Obstacles {
		if o.Kind != "paused" { // said above
			lines = append(lines, "type "+o.Type+" waits: "+o.Text)
		}
	}
	for _, line := range lines {
		if _, err := fmt.Fprintln(a.out, line); err != nil {
			return err
		}
	}
	return nil
}

func keepText(k driver.Keep) string {
	if k.Age == 0 || k.Count == 0 || k.Bytes == 0 {
		return "not at all"
	}
	text := "for " + roughly(k.Age)
	if k.Count > 0 {
		text += ", " + grouped(int64(k.Count)) + " tasks"
	}
	if k.Bytes > 0 {
		text += ", " + size(k.Bytes)
	}
	return text
}

// queuePauseCommand makes the commands that pause a queue, and resume it.
func (a *app) queuePauseCommand(verb, short, done string, patch driver.QueuePatch) *cobra.Command {
	var create bool
	cmd := &cobra.Command{
		Use: verb + " QUEUE", Short: short, Args: queueArg, ValidArgsFunction: a.completeQueues,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withSettable(cmd.Context(), create, func(c *waggle.Client) error {
				q, err := a.settableQueue(cmd.Context(), c, args[0], *patch.Paused)
				if err != nil {
					return err
				}
				config, err := a.setQueue(cmd.Context(), c, q, args[0], create, patch)
				if err != nil {
					return err
				}
				return a.printObject(settingOf(args[0], *config), func() error {
					a.say("queue %s is %s", args[0], done)
					return nil
				})
			})
		},
	}
	if *patch.Paused {
		cmd.Flags().BoolVar(&create, "create", false, createUsage)
	}
	return cmd
}

type queueSetting struct {
	Name      string                       `json:"name"`
	Paused    bool                         `json:"paused"`
	Draining  bool                         `json:"draining"`
	Retention map[driver.State]retentionOf `json:"retention"`
}

func settingOf(name string, c driver.QueueConfig) queueSetting {
	return queueSetting{Name: name, Paused: c.Paused, Draining: c.Draining, Retention: retentionsOf(c.Retention)}
}

func (a *app) queueDrainCommand() *cobra.Command {
	return &cobra.Command{
		Use: "drain QUEUE", Short: "Refuse new tasks and wait until nothing is left", Args: queueArg, ValidArgsFunction: a.completeQueues,
		Long: "Refuses new tasks from now on and waits until nothing is left to run in the queue.\n" +
			"The queue goes on refusing, even if this command is interrupted, until `waggle queue resume`.",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withClient(cmd.Context(), func(c *waggle.Client) error { return a.drainQueue(cmd.Context(), c, args[0]) })
		},
	}
}

func (a *app) drainQueue(ctx context.Context, c *waggle.Client, name string) error {
	q, err := c.Queue(ctx, name)
	if err != nil {
		return err
	}
	total := 0
	for _, s := range driver.States {
		if !s.Ended() {
			total += q.Counts[s]
		}
	}
	a.say("queue %s takes no new tasks; %s left", name, plural(total, "task"))
	if err := a.sayStuck(ctx, c, q); err != nil {
		return err
	}
	bar := a.newProgress(total, "draining")
	err = c.Drain(ctx, name, func(left int) { bar.set(max(0, total-left)) })
	bar.close()
	if err != nil {
		return err
	}
	q.Config.Draining = true
	return a.printObject(settingOf(name, q.Config), func() error {
		a.say("queue %s is empty; `waggle queue resume %s` opens it again", name, name)
		return nil
	})
}

// sayStuck says why a queue that is to be emptied does not empty.
func (a *app) sayStuck(ctx context.Context, c *waggle.Client, q *waggle.QueueInfo) error {
	info, err := c.Info(ctx)
	if err != nil {
		return err
	}
	workers, err := readCrew(ctx, c, info.Now)
	if err != nil {
		return err
	}
	note := obstacleNote(workers.obstacles(q))
	if q.Config.Paused {
		note = "it is paused"
	}
	if note != "" {
		a.say("queue %s does not empty now: %s", q.Name, note)
	}
	return nil
}

// purge holds the flags of queue purge.
type purge struct {
	care
	states []driver.State
}

func (a *app) queuePurgeCommand() *cobra.Command {
	p := &purge{}
	cmd := &cobra.Command{
		Use: "purge QUEUE", Short: "Delete the tasks of a queue that are not running", Args: queueArg, ValidArgsFunction: a.completeQueues,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := p.check(a); err != nil {
				return err
			}
			for _, s := range p.states {
				if s == driver.Active {
					return driver.Invalidf("running tasks can't be purged: cancel them first with `waggle task cancel --state active --queue %s`", args[0])
				}
			}
			return a.withClient(cmd.Context(), func(c *waggle.Client) error { return a.purgeQueue(cmd.Context(), c, args[0], p) })
		},
	}
	p.flags(cmd)
	cmd.Flags().Var(&states{&p.states}, "state", "only tasks in this state; may be repeated")
	return cmd
}

func (a *app) purgeQueue(ctx context.Context, c *waggle.Client, name string, p *purge) error {
	if _, err := c.Queue(ctx, name); err != nil {
		return err
	}
	change := driver.Change{Op: driver.OpDelete, Filter: driver.Filter{Queues: []string{name}, States: p.states}}
	total, err := countMatching(ctx, c, change)
	if err != nil {
		return err
	}
	deleted := &taskChange{op: driver.OpDelete, done: "deleted", care: p.care}
	if p.dryRun {
		return a.printChanged(deleted, total)
	}
	if total > 0 {
		if err := p.confirm(ctx, a, fmt.Sprintf("Delete %s of queue %s?", plural(total, "task"), name)); err != nil {
			return err
		}
	}
	bar := a.newProgress(total, "deleting")
	done, err := applyAll(ctx, c, change, total, bar.add)
	bar.close()
	if err != nil {
		return partlyf("%s deleted, then it failed: %w", plural(done, "task"), err)
	}
	return a.printChanged(deleted, done)
}

// completeQueues completes names of queues.
func (a *app) completeQueues(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var list []string
	err := errors.Join(a.prepare(cmd), a.withClient(cmd.Context(), func(c *waggle.Client) error {
		queues, err := c.Queues(cmd.Context())
		for _, q := range queues {
			list = append(list, q.Name)
		}
		return err
	}))
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	return list, cobra.ShellCompDirectiveNoFileComp
}
