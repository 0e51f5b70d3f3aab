package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/waggleq/waggle"
	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/internal/plainjson"
)

func (a *app) taskCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "task", Short: "Inspect and change tasks", GroupID: "watch",
		Args: noCommand, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.taskListCommand(), a.taskGetCommand(), a.taskWaitCommand(), a.taskLogsCommand(),
		a.taskChangeCommand(&taskChange{op: driver.OpCancel, short: "Cancel tasks; running ones are told to stop", done: "cancelled"}),
		a.taskChangeCommand(&taskChange{op: driver.OpRetry, short: "Make discarded and cancelled tasks available again; completed ones with --state completed", done: "made available again"}),
		a.taskChangeCommand(&taskChange{op: driver.OpRun, short: "Run tasks now that wait for their time or are held back", done: "made available"}),
		a.taskChangeCommand(&taskChange{op: driver.OpDelete, short: "Delete tasks that are not running, with their history", done: "deleted", destroys: true}))
	return cmd
}

// filterFlags are the flags that select tasks.
type filterFlags struct{ filter waggle.Filter }

func (f *filterFlags) register(a *app, cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.Var(&states{&f.filter.States}, "state", "tasks in this state; may be repeated")
	flags.Var(&names{&f.filter.Types, "task type"}, "type", "tasks of this type; may be repeated")
	flags.Var(&names{&f.filter.Queues, "queue"}, "queue", "tasks in this queue; may be repeated")
	flags.Var(&names{&f.filter.Tags, "tag"}, "tag", "tasks with this tag; with all, if repeated")
	flags.StringVar(&f.filter.Error, "error", "", "tasks that did not complete and have this `TEXT` in their last error, in any case")
	flags.Var(&anyError{&f.filter}, "any-error", "tasks with this TEXT in any of their errors, even if they completed")
	flags.Var(&moment{&f.filter.After}, "after", "tasks added at this time or later")
	flags.Var(&moment{&f.filter.Before}, "before", "tasks added before this time")
	stateNames := make([]string, len(driver.States))
	for i, s := range driver.States {
		stateNames[i] = string(s)
	}
	_ = cmd.RegisterFlagCompletionFunc("type", a.completeTypes)
	_ = cmd.RegisterFlagCompletionFunc("queue", a.completeQueues)
	_ = cmd.RegisterFlagCompletionFunc("state", cobra.FixedCompletions(stateNames, cobra.ShellCompDirectiveNoFileComp))
}

func (f *filterFlags) empty() bool {
	x := &f.filter
	return len(x.States)+len(x.Types)+len(x.Queues)+len(x.Tags) == 0 && x.Error == "" && x.After.IsZero() && x.Before.IsZero()
}

func (a *app) taskGetCommand() *cobra.Command {
	return &cobra.Command{
		Use: "get ID", Aliases: []string{"show"}, Short: "Show everything about a task", Args: taskID, ValidArgsFunction: a.completeTasks,
		Long: "Shows everything about a task. A prefix of its id is enough if no other id starts with it.",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withClient(cmd.Context(), func(c *waggle.Client) error {
				t, err := a.findTask(cmd.Context(), c, args[0])
				if err != nil {
					return err
				}
				d := taskDetail{TaskInfo: t}
				if t.State == driver.Available {
					if d.Obstacle, err = a.obstacleOf(cmd.Context(), c, t); err != nil {
						return err
					}
				}
				return a.printObject(d, func() error { return a.describeTask(&d) })
			})
		},
	}
}

// taskDetail is a task, and why it is not running.
type taskDetail struct {
	*waggle.TaskInfo
	Obstacle *obstacle `json:"obstacle,omitzero"` // of an available task: what keeps it waiting
}

// obstacleOf tells what keeps an available task waiting.
func (a *app) obstacleOf(ctx context.Context, c *waggle.Client, t *waggle.TaskInfo) (*obstacle, error) {
	info, err := c.Info(ctx)
	if err != nil {
		return nil, err
	}
	q, err := c.Queue(ctx, t.Queue)
	if err != nil {
		return nil, err
	}
	crew, err := readCrew(ctx, c, info.Now)
	if err != nil {
		return nil, err
	}
	return crew.obstacle(q.Config, t.Queue, t.Type), nil
}

func taskID(cmd *cobra.Command, args []string) error {
	if err := oneArg("task id")(cmd, args); err != nil {
		return err
	}
	return driver.CheckName("task id", args[0], driver.MaxIDLen)
}

// taskChange is a command that changes tasks by id or by filter.
type taskChange struct {
	op       driver.Op
	short    string
	done     string // what has become of the tasks
	destroys bool

	filterFlags
	care
	all bool
}

func (a *app) taskChangeCommand(t *taskChange) *cobra.Command {
	cmd := &cobra.Command{
		Use:               string(t.op) + " [ID...]",
		Short:             t.short,
		ValidArgsFunction: a.completeTasks,
		Long:              t.short + ".\n\nNames the tasks by id, or selects them with flags. With -o json it prints how many were changed.",
		RunE:              func(cmd *cobra.Command, args []string) error { return a.changeTasks(cmd.Context(), t, args) },
		Args: func(_ *cobra.Command, args []string) error {
			for _, id := range args {
				if err := driver.CheckName("task id", id, driver.MaxIDLen); err != nil {
					return err
				}
			}
			return nil
		},
	}
	t.register(a, cmd)
	cmd.Flags().BoolVar(&t.all, "all", false, "all tasks of the store for which this is possible")
	if t.asks() {
		t.care.flags(cmd)
	} else {
		t.care.dryFlag(cmd)
	}
	return cmd
}

// changed is what a change prints.
type changed struct {
	Changed int  `json:"changed"`
	DryRun  bool `json:"dry_run,omitzero"`
}

func (a *app) changeTasks(ctx context.Context, t *taskChange, ids []string) error {
	switch {
	case len(ids) > 0 && (!t.empty() || t.all):
		return driver.Invalidf("name tasks by id or select them with flags, not both")
	case len(ids) == 0 && t.empty() && !t.all:
		return driver.Invalidf("which tasks? Name their ids, select them with flags, or use --all")
	case t.all && !t.empty():
		return driver.Invalidf("--all selects every task: leave out the other selections")
	}
	if t.destroys || len(ids) == 0 && t.asks() {
		if err := t.check(a); err != nil {
			return err
		}
	}
	return a.withClient(ctx, func(c *waggle.Client) error {
		if len(ids) > 0 {
			return a.changeByID(ctx, c, t, ids)
		}
		return a.changeByFilter(ctx, c, t)
	})
}

func (a *app) changeByID(ctx context.Context, c *waggle.Client, t *taskChange, ids []string) error {
	if t.destroys && !t.dryRun {
		if err := t.confirm(ctx, a, fmt.Sprintf("Delete %s?", plural(len(ids), "task"))); err != nil {
			return err
		}
	}
	done, refused := 0, []error{}
	for len(ids) > 0 {
		batch := ids[:min(len(ids), driver.MaxApply)]
		ids = ids[len(batch):]
		batch, err := a.fullIDs(ctx, c, batch)
		if err != nil {
			return err
		}
		r, err := c.Apply(ctx, driver.Change{Op: t.op, IDs: batch, DryRun: t.dryRun})
		if err != nil {
			return err
		}
		done += r.Changed
		for _, err := range r.Errors {
			if err != nil {
				refused = append(refused, err)
			}
		}
	}
	return a.reportChange(t, done, refused)
}

func (a *app) reportChange(t *taskChange, done int, refused []error) error {
	switch {
	case len(refused) == 1 && done == 0:
		return refused[0]
	case len(refused) > 0 && done == 0:
		return driver.Errorf(driver.ClassOf(refused[0]).Err, "none of the %d tasks was changed: %w", len(refused), refused[0])
	}
	if err := a.printChanged(t, done); err != nil || len(refused) == 0 {
		return err
	}
	return partlyf("%s, %d refused: %w", plural(done, "task")+" "+t.done, len(refused), errors.Join(refused[:min(3, len(refused))]...))
}

func (a *app) printChanged(t *taskChange, done int) error {
	return a.printObject(changed{Changed: done, DryRun: t.dryRun}, func() error {
		if t.dryRun {
			a.say("%s would be %s", plural(done, "task"), t.done)
		} else {
			a.say("%s %s", plural(done, "task"), t.done)
		}
		return nil
	})
}

func (a *app) changeByFilter(ctx context.Context, c *waggle.Client, t *taskChange) error {
	filter := t.filter // with --all nothing but the time
	if filter.Before.IsZero() {
		// Tasks that come in meanwhile are not meant, and a task that is changed may match again.
		info, err := c.Info(ctx)
		if err != nil {
			return err
		}
		filter.Before = info.Now.Add(time.Millisecond)
	}
	total, byState, err := countByState(ctx, c, driver.Change{Op: t.op, Filter: filter})
	if err != nil {
		return err
	}
	if t.dryRun {
		if total > 0 {
			a.say("%s", byState)
		}
		return a.printChanged(t, total)
	}
	if t.asks() && total > 0 {
		if err := t.confirm(ctx, a, fmt.Sprintf("%s %s (%s)?", t.verb(), plural(total, "task"), byState)); err != nil {
			return err
		}
	}
	bar := a.newProgress(total, string(t.op))
	done, err := applyAll(ctx, c, driver.Change{Op: t.op, Filter: filter}, total, bar.add)
	bar.close()
	if err != nil && done > 0 {
		err = partlyf("%s %s, then it failed: %w", plural(done, "task"), t.done, err)
	}
	return errors.Join(err, ifNil(err, func() error { return a.printChanged(t, done) }))
}

// asks reports whether the change of many tasks is asked about.
func (t *taskChange) asks() bool { return t.op != driver.OpRun }

// verb is what the question about a change begins with.
func (t *taskChange) verb() string { return strings.ToUpper(string(t.op[:1])) + string(t.op[1:]) }

// countByState tells how many tasks a change is possible for, in all and in words by state.
func countByState(ctx context.Context, c *waggle.Client, change driver.Change) (total int, words string, err error) {
	var parts []string
	for _, s := range possibleStates(change.Op, change.Filter.States) {
		change.Filter.States = []driver.State{s}
		n, err := countMatching(ctx, c, change)
		if err != nil {
			return 0, "", err
		}
		if n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, s))
		}
		total += n
	}
	return total, strings.Join(parts, ", "), nil
}

func ifNil(err error, do func() error) error {
	if err != nil {
		return nil
	}
	return do()
}

// countMatching tells how many tasks a change is possible for, by dry runs.
func countMatching(ctx context.Context, c *waggle.Client, change driver.Change) (int, error) {
	change.DryRun = true
	r, err := c.Apply(ctx, change)
	n := 0
	for ; err == nil; r, err = c.Apply(ctx, change) {
		n += r.Changed
		if !r.More {
			return n, nil
		}
		change.Cursor = r.Next
	}
	return 0, err
}

// possibleStates are the wanted states in which an operation is possible; none wanted are all.
func possibleStates(op driver.Op, wanted []driver.State) []driver.State {
	switch {
	case len(wanted) == 0 && op == driver.OpRetry: // what is done is done again only if that is said
		return []driver.State{driver.Cancelled, driver.Discarded}
	case len(wanted) == 0:
		return op.From()
	}
	var both []driver.State
	for _, s := range op.From() {
		for _, w := range wanted {
			if s == w {
				both = append(both, s)
			}
		}
	}
	return both
}

// applyAll repeats a change by filter until it has reached total tasks or nothing more matches. The bound keeps a
// change that its own tasks match again, such as asking active ones to stop, from going round for ever.
func applyAll(ctx context.Context, c *waggle.Client, change driver.Change, total int, tell func(n int)) (done int, err error) {
	for done < total {
		change.Max = min(total-done, driver.MaxApply)
		r, err := c.Apply(ctx, change)
		if err != nil {
			return done, err
		}
		done += r.Changed
		tell(r.Changed)
		if !r.More {
			break
		}
		change.Cursor = r.Next
	}
	return done, nil
}

// resultJSON is a task's result as it stands in the JSON form of the task.
func resultJSON(t *waggle.TaskInfo) (json.RawMessage, error) {
	text, err := plainjson.Marshal(t.Result)
	if err != nil || string(text) == "null" {
		return nil, err
	}
	return text, nil
}
