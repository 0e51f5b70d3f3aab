package cli

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/waggleq/waggle"
	"github.com/waggleq/waggle/driver"
)

// keepAge is how long ended tasks are kept: a length of time, or none.
type keepAge struct{ value **time.Duration }

func (k *keepAge) Type() string { return "AGE" }

func (k *keepAge) String() string {
	if *k.value == nil {
		return ""
	}
	return shortDuration(**k.value)
}

func (k *keepAge) Set(s string) error {
	var d time.Duration
	if s != "none" {
		var err error
		if d, err = parseDuration(s); err != nil {
			return fmt.Errorf("%w, or none to keep none", err)
		}
		if d == 0 {
			return errors.New("write none to keep none")
		}
	}
	*k.value = &d
	return nil
}

// keepCount is how many ended tasks are kept: a number, or all.
type keepCount struct{ value **int }

func (k *keepCount) Type() string { return "N" }

func (k *keepCount) String() string {
	if *k.value == nil {
		return ""
	}
	return strconv.Itoa(**k.value)
}

func (k *keepCount) Set(s string) error {
	n, err := strconv.Atoi(s)
	switch {
	case s == "all":
		n = -1
	case err != nil || n < 1:
		return errors.New("write a whole number, 1 or more, or all; --retention-… none keeps none")
	}
	*k.value = &n
	return nil
}

// queueSettings are the flags of queue set.
type queueSettings struct {
	care
	create bool
	age    map[driver.State]**time.Duration
	kept   map[driver.State]**int
}

var endedStates = []driver.State{driver.Completed, driver.Cancelled, driver.Discarded}

func (a *app) queueConfigureCommand() *cobra.Command {
	q := &queueSettings{age: map[driver.State]**time.Duration{}, kept: map[driver.State]**int{}}
	cmd := &cobra.Command{
		Use: "set QUEUE", Short: "Change how long ended tasks of a queue are kept", Args: queueArg, ValidArgsFunction: a.completeQueues,
		Long: "Changes how long ended tasks of a queue are kept, and how many of them; what is not named stays as it is.\n" +
			"An age is a length of time like 90m or 30d, or none to keep none. Tasks beyond the new bounds are removed by the\n" +
			"next sweep: the command says how many, and asks at a terminal.",
		Example: "  waggle queue set mail --retention-completed 1d --keep-completed 50000\n  waggle queue set mail --retention-discarded 90d",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withSettable(cmd.Context(), q.create, func(c *waggle.Client) error { return a.configureQueue(cmd.Context(), c, args[0], q) })
		},
	}
	for _, s := range endedStates {
		q.age[s], q.kept[s] = new(*time.Duration), new(*int)
		cmd.Flags().Var(&keepAge{q.age[s]}, "retention-"+string(s), "for how long "+string(s)+" tasks are kept, or none")
		cmd.Flags().Var(&keepCount{q.kept[s]}, "keep-"+string(s), "how many "+string(s)+" tasks are kept at most, or all")
	}
	q.care.flags(cmd)
	cmd.Flags().BoolVar(&q.create, "create", false, createUsage)
	return cmd
}

// patch returns what the flags change, and nothing of what others may be setting at this moment.
func (q *queueSettings) patch() driver.Retention {
	of := func(s driver.State) driver.Keep {
		age, n := *q.age[s], *q.kept[s]
		switch {
		case age != nil && *age == 0:
			return driver.KeepNone
		case age != nil && n != nil:
			return driver.Keep{Age: *age, Count: *n}
		case age != nil:
			return driver.Keep{Age: *age}
		case n != nil:
			return driver.Keep{Count: *n}
		}
		return driver.Keep{}
	}
	return driver.Retention{Completed: of(driver.Completed), Cancelled: of(driver.Cancelled), Discarded: of(driver.Discarded)}
}

func (a *app) configureQueue(ctx context.Context, c *waggle.Client, name string, q *queueSettings) error {
	info, err := a.settableQueue(ctx, c, name, true)
	if err != nil {
		return err
	}
	patch := q.patch()
	if patch == (driver.Retention{}) {
		return driver.Invalidf("say what to change: --retention-STATE or --keep-STATE")
	}
	if err := patch.Validate(); err != nil {
		return err
	}
	going := 0
	if info != nil {
		gone, err := c.BeyondRetention(ctx, name, patch)
		if err != nil {
			return err
		}
		for _, n := range gone {
			going += n
		}
	}
	if q.dryRun {
		return a.printObject(goingTasks{Going: going}, func() error {
			a.say("%s would go with the next sweep", plural(going, "ended task"))
			return nil
		})
	}
	if err := q.agree(ctx, a, name, going); err != nil {
		return err
	}
	config, err := a.setQueue(ctx, c, info, name, q.create, driver.QueuePatch{Retention: &patch})
	if err != nil {
		return err
	}
	return a.printObject(settingOf(name, *config), func() error { return a.describeRetention(name, config.Retention) })
}

type goingTasks struct {
	Going int `json:"going"` // ended tasks beyond the new bounds
}

// agree asks before ended tasks go. Away from a terminal it tells.
func (q *queueSettings) agree(ctx context.Context, a *app, name string, going int) error {
	switch {
	case going == 0:
		return nil
	case a.inTerm.is && !q.yes:
		return q.confirm(ctx, a, fmt.Sprintf("%s of queue %s will go with the next sweep. Go on?", plural(going, "ended task"), name))
	}
	a.say("%s of queue %s will go with the next sweep", plural(going, "ended task"), name)
	return nil
}

func (a *app) describeRetention(name string, r driver.Retention) error {
	for _, s := range endedStates {
		if r.Of(s) == driver.KeepNone {
			a.say("queue %s: %s tasks are not kept", name, s)
			continue
		}
		a.say("queue %s: %s tasks are kept %s", name, s, keepText(r.Of(s)))
	}
	return nil
}

func (a *app) queueDeleteCommand() *cobra.Command {
	return &cobra.Command{
		Use: "delete QUEUE", Short: "Remove a queue that holds no tasks, with its settings and totals", Args: queueArg, ValidArgsFunction: a.completeQueues,
		Long: "Removes a queue that holds no tasks, with its settings and totals: for example one made by a typo.\n" +
			"A queue that still holds tasks, even ended ones, is not removed: `waggle queue purge` deletes its tasks.",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withClient(cmd.Context(), func(c *waggle.Client) error {
				if err := c.DeleteQueue(cmd.Context(), args[0]); err != nil {
					if errors.Is(err, driver.ErrState) {
						return fmt.Errorf("%w: `waggle queue purge %s` deletes those that are not running", err, args[0])
					}
					return err
				}
				return a.printObject(deletedQueue{Name: args[0], Deleted: true}, func() error {
					a.say("queue %s is deleted", args[0])
					return nil
				})
			})
		},
	}
}

type deletedQueue struct {
	Name    string `json:"name"`
	Deleted bool   `json:"deleted"`
}
