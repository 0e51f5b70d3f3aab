package cli

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/charmbracelet/x/ansi"
	"github.com/spf13/cobra"

	"github.com/waggleq/waggle"
	"github.com/waggleq/waggle/driver"
)

const (
	tableLimit = 100     // tasks that a table shows by default
	sortLimit  = 100_000 // tasks that are sorted at most
	narrow     = 110     // columns of a terminal below which a table of tasks is made smaller
)

// taskColumn is a column of a table of tasks.
type taskColumn struct {
	column
	cell func(t *waggle.TaskInfo, now time.Time) string
	less func(a, b *waggle.TaskInfo) int // nil: nothing to sort by
}

// taskColumns are all columns, by the names that --columns and --sort take.
var taskColumns = map[string]taskColumn{
	"id":       {left("ID"), func(t *waggle.TaskInfo, _ time.Time) string { return t.ID }, by(func(t *waggle.TaskInfo) string { return t.ID })},
	"type":     {left("TYPE"), func(t *waggle.TaskInfo, _ time.Time) string { return t.Type }, by(func(t *waggle.TaskInfo) string { return t.Type })},
	"queue":    {left("QUEUE"), func(t *waggle.TaskInfo, _ time.Time) string { return t.Queue }, by(func(t *waggle.TaskInfo) string { return t.Queue })},
	"state":    {left("STATE"), func(t *waggle.TaskInfo, _ time.Time) string { return string(t.State) }, by(func(t *waggle.TaskInfo) string { return string(t.State) })},
	"attempt":  {right("TRY"), func(t *waggle.TaskInfo, _ time.Time) string { return fmt.Sprint(t.Attempt) }, by(func(t *waggle.TaskInfo) int { return t.Attempt })},
	"priority": {right("PRIO"), func(t *waggle.TaskInfo, _ time.Time) string { return fmt.Sprint(t.Priority) }, by(func(t *waggle.TaskInfo) int { return t.Priority })},
	"age":      {right("AGE"), func(t *waggle.TaskInfo, now time.Time) string { return roughly(now.Sub(t.EnqueuedAt)) }, by(func(t *waggle.TaskInfo) int64 { return -t.EnqueuedAt.UnixNano() })},
	"added":    momentColumn("ADDED", func(t *waggle.TaskInfo) time.Time { return t.EnqueuedAt }),
	"due":      momentColumn("DUE", func(t *waggle.TaskInfo) time.Time { return t.DueAt }),
	"claimed":  momentColumn("CLAIMED", func(t *waggle.TaskInfo) time.Time { return t.ClaimedAt }),
	"ended":    momentColumn("ENDED", func(t *waggle.TaskInfo) time.Time { return t.EndedAt }),
	"worker":   {left("WORKER"), func(t *waggle.TaskInfo, _ time.Time) string { return t.Worker }, by(func(t *waggle.TaskInfo) string { return t.Worker })},
	"tags":     {column: left("TAGS"), cell: func(t *waggle.TaskInfo, _ time.Time) string { return strings.Join(t.Tags, ",") }},
	"error":    {column: left("ERROR"), cell: func(t *waggle.TaskInfo, _ time.Time) string { return t.LastError() }},
	"payload":  {column: left("PAYLOAD"), cell: func(t *waggle.TaskInfo, _ time.Time) string { return dataText(t.Payload) }},
	"result":   {column: left("RESULT"), cell: func(t *waggle.TaskInfo, _ time.Time) string { return resultText(t) }},
	"note":     {column: left("NOTE"), cell: taskNote},
}

var (
	usualColumns  = []string{"id", "type", "queue", "state", "attempt", "age", "note"}
	narrowColumns = []string{"id", "type", "state", "attempt", "age", "note"}
)

func by[T cmp.Ordered](key func(t *waggle.TaskInfo) T) func(a, b *waggle.TaskInfo) int {
	return func(a, b *waggle.TaskInfo) int { return cmp.Compare(key(a), key(b)) }
}

func momentColumn(title string, of func(t *waggle.TaskInfo) time.Time) taskColumn {
	return taskColumn{left(title), func(t *waggle.TaskInfo, _ time.Time) string { return clock(of(t)) },
		func(a, b *waggle.TaskInfo) int { return of(a).Compare(of(b)) }}
}

// columnNames is a flag that lists columns with commas.
type columnNames struct{ value *[]string }

func (c *columnNames) Type() string   { return "NAMES" }
func (c *columnNames) String() string { return strings.Join(*c.value, ",") }

func (c *columnNames) Set(s string) error {
	var names []string
	for name := range strings.SplitSeq(s, ",") {
		if _, ok := taskColumns[name]; !ok {
			return fmt.Errorf("there is no column %q: use %s", driver.CutText(name, 64), orList(columnList(func(taskColumn) bool { return true })))
		}
		names = append(names, name)
	}
	*c.value = names
	return nil
}

func columnList(keep func(taskColumn) bool) []string {
	var names []string
	for name, c := range taskColumns {
		if keep(c) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// sortKey is a flag that names a column to sort by, with a dash before it for the largest first.
type sortKey struct{ value *string }

func (k *sortKey) Type() string   { return "[-]COLUMN" }
func (k *sortKey) String() string { return *k.value }

func (k *sortKey) Set(s string) error {
	if c, ok := taskColumns[strings.TrimPrefix(s, "-")]; !ok || c.less == nil {
		return fmt.Errorf("tasks are not sorted by %q: use %s, with a dash before it for the largest first", driver.CutText(s, 64),
			orList(columnList(func(c taskColumn) bool { return c.less != nil })))
	}
	*k.value = s
	return nil
}

// taskList holds the flags of task list.
type taskList struct {
	filterFlags
	limit      int
	since      time.Duration
	endedAfter time.Time
	sort       string
	columns    []string
	watch      time.Duration
}

func (a *app) taskListCommand() *cobra.Command {
	f := &taskList{limit: -1}
	cmd := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List tasks, the newest first", Args: noArgs,
		Example: "  waggle task list --state discarded --since 1h\n  waggle task list --type email.welcome -o jsonl\n" +
			"  waggle task list --columns id,ended,error --sort -ended",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withClient(cmd.Context(), func(c *waggle.Client) error { return a.showTasks(cmd.Context(), c, f) })
		},
	}
	f.register(a, cmd)
	flags := cmd.Flags()
	flags.Var(&count{&f.limit, 1, math.MaxInt}, "limit", "show at most N (default 100 in a table, else all)")
	flags.Lookup("limit").DefValue = ""
	flags.Var(&span{&f.since, time.Millisecond}, "since", "tasks added in the last D")
	flags.Var(&moment{&f.endedAfter}, "ended-after", "tasks that ended at this time or later")
	flags.Var(&sortKey{&f.sort}, "sort", "sort by a column; with a dash before it, the largest first")
	flags.Var(&columnNames{&f.columns}, "columns", "the columns of the table: "+strings.Join(columnList(func(taskColumn) bool { return true }), ", "))
	flags.Lookup("columns").DefValue = ""
	flags.Var(&span{&f.watch, 100 * time.Millisecond}, "watch", "repeat every D")
	flags.Lookup("watch").NoOptDefVal = "2s"
	_ = cmd.RegisterFlagCompletionFunc("sort", cobra.FixedCompletions(columnList(func(c taskColumn) bool { return c.less != nil }), cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// showTasks prints the list, with --watch again and again.
func (a *app) showTasks(ctx context.Context, c *waggle.Client, f *taskList) error {
	for {
		if f.watch > 0 && a.outTerm.is {
			fmt.Fprint(a.out, "\x1b[H\x1b[2J")
		}
		if err := a.listTasks(ctx, c, f); err != nil || f.watch == 0 {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(f.watch):
		}
	}
}

func (a *app) listTasks(ctx context.Context, c *waggle.Client, f *taskList) error {
	now, err := a.storeTime(ctx, c)
	if err != nil {
		return err
	}
	limit := f.limit
	if limit < 0 && a.format == formatTable {
		limit = tableLimit
	}
	columns := f.columns
	small := a.outTerm.small()
	if len(columns) == 0 {
		columns = usualColumns
		if small {
			columns = narrowColumns
		}
	}
	tasks, id := f.matching(ctx, c, now), func(t *waggle.TaskInfo) string { return t.ID }
	if f.sort != "" {
		if tasks, err = f.sorted(tasks); err != nil {
			return err
		}
	}
	if small && len(f.columns) == 0 {
		tasks, id = shortIDs(tasks, limit)
	}
	n, more, err := a.printTasks(tasks, limit, columns, id, now)
	switch {
	case err != nil:
	case more && f.limit < 0:
		a.say("there are more: set --limit, or select with --state, --type or --queue")
	case n == 0:
		a.say("no tasks")
	}
	return err
}

// storeTime is the store's present.
func (a *app) storeTime(ctx context.Context, c *waggle.Client) (time.Time, error) {
	info, err := c.Info(ctx)
	if err != nil {
		return time.Time{}, err
	}
	return info.Now, nil
}

// printTasks prints up to limit tasks (negative: all) and returns how many it printed, and whether there are more.
func (a *app) printTasks(tasks taskSeq, limit int, names []string, id func(*waggle.TaskInfo) string, now time.Time) (n int, more bool, err error) {
	columns := make([]column, len(names))
	for i, name := range names {
		columns[i] = taskColumns[name].column
	}
	l := a.newList(columns...)
	for t, err := range tasks {
		if err != nil {
			return l.count, false, l.close(err)
		}
		if l.count == limit {
			return l.count, true, l.close(nil)
		}
		if err := l.add(t, func() []string {
			cells := make([]string, len(names))
			for i, name := range names {
				cells[i] = taskColumns[name].cell(t, now)
				if name == "id" {
					cells[i] = id(t)
				}
			}
			return cells
		}); err != nil {
			return l.count, false, l.close(err)
		}
	}
	return l.count, false, l.close(nil)
}

// taskSeq yields tasks; an error is the last pair.
type taskSeq = iter.Seq2[*waggle.TaskInfo, error]

// matching yields the tasks that the flags select.
func (f *taskList) matching(ctx context.Context, c *waggle.Client, now time.Time) taskSeq {
	filter := f.filter
	if from := now.Add(-f.since); f.since > 0 && from.After(filter.After) {
		filter.After = from
	}
	return func(yield func(*waggle.TaskInfo, error) bool) {
		for t, err := range c.All(ctx, filter) {
			if err == nil && !f.endedAfter.IsZero() && (t.EndedAt.IsZero() || t.EndedAt.Before(f.endedAfter)) {
				continue
			}
			if !yield(t, err) {
				return
			}
		}
	}
}

// sorted yields the same tasks in the order of --sort.
func (f *taskList) sorted(tasks taskSeq) (taskSeq, error) {
	var all []*waggle.TaskInfo
	for t, err := range tasks {
		switch {
		case err != nil:
			return nil, err
		case len(all) == sortLimit:
			return nil, driver.Invalidf("more than %s tasks match, too many to sort: select with --state, --type, --queue or --since", grouped(sortLimit))
		}
		all = append(all, t)
	}
	less := taskColumns[strings.TrimPrefix(f.sort, "-")].less
	if strings.HasPrefix(f.sort, "-") {
		up := less
		less = func(a, b *waggle.TaskInfo) int { return up(b, a) }
	}
	slices.SortStableFunc(all, less)
	return each(all, nil), nil
}

// each yields tasks, and then an error if there is one.
func each(tasks []*waggle.TaskInfo, last error) taskSeq {
	return func(yield func(*waggle.TaskInfo, error) bool) {
		for _, t := range tasks {
			if !yield(t, nil) {
				return
			}
		}
		if last != nil {
			yield(nil, last)
		}
	}
}

// shortIDs yields the same tasks, and a function that shortens the ids of the first limit of them, each still different
// from the others, so that it can be given to a command.
func shortIDs(tasks taskSeq, limit int) (taskSeq, func(*waggle.TaskInfo) string) {
	const least = 13 // of a UUIDv7: the millisecond it was made in
	var (
		shown []*waggle.TaskInfo
		ids   []string
		last  error
	)
	for t, err := range tasks {
		if last = err; err != nil {
			break
		}
		shown = append(shown, t)
		if len(shown) > limit { // one more, to tell that there are more
			break
		}
		ids = append(ids, t.ID)
	}
	slices.Sort(ids)
	n := least
	for i := 1; i < len(ids); i++ {
		same := 0
		for same < min(len(ids[i]), len(ids[i-1])) && ids[i][same] == ids[i-1][same] {
			same++
		}
		n = max(n, same+1)
	}
	return each(shown, last), func(t *waggle.TaskInfo) string { return ansi.Truncate(t.ID, n, "") }
}

// taskNote is what is worth knowing of a task in its state.
func taskNote(t *waggle.TaskInfo, now time.Time) string {
	var notes []string
	switch t.State {
	case driver.Scheduled, driver.Retryable:
		notes = append(notes, dueText(t.DueAt.Sub(now)))
	case driver.Active:
		notes = append(notes, "on "+t.Worker+" for "+roughly(now.Sub(t.ClaimedAt)))
		if p := t.Progress; p != nil && p.Total > 0 {
			notes = append(notes, fmt.Sprintf("%.0f %%", 100*p.Done/p.Total))
		}
		if t.CancelRequested {
			notes = append(notes, "asked to stop")
		}
	case driver.Completed:
		if text := resultText(t); text != "" {
			notes = append(notes, "= "+text)
		}
	case driver.Discarded, driver.Cancelled:
		notes = append(notes, string(t.Reason))
	}
	if t.Crashes > 0 {
		notes = append(notes, plural(t.Crashes, "crash"))
	}
	if e := t.LastError(); e != "" && t.State != driver.Completed {
		notes = append(notes, e)
	}
	return strings.Join(notes, " · ")
}

// dueText says when a task is due that has left to wait.
func dueText(left time.Duration) string {
	if left <= 0 {
		return "due now"
	}
	return "due in " + roughly(left)
}
