package cli

import (
	"context"
	"fmt"
	"sync"

	"github.com/spf13/cobra"

	"github.com/waggleq/waggle"
	"github.com/waggleq/waggle/driver"
)

// boundRow is the bound of a queue in JSON.
type boundRow struct {
	Max     int               `json:"max"`
	Policy  driver.FullPolicy `json:"policy"`
	Waiting int               `json:"waiting"` // tasks that count against it
}

// boundRowOf returns nil for a queue without a bound.
func boundRowOf(q *driver.QueueInfo) *boundRow {
	if q.Config.Bound.Max == 0 {
		return nil
	}
	row := &boundRow{Max: q.Config.Bound.Max, Policy: q.Config.Bound.Full}
	for _, s := range driver.States {
		if s.Waits() {
			row.Waiting += q.Counts[s]
		}
	}
	return row
}

// note is what fits into a column: "bound 17/100 drop-oldest", or "full" for 17.
func (b *boundRow) note() string {
	if b.Waiting >= b.Max {
		return fmt.Sprintf("full %d/%d %s", b.Waiting, b.Max, b.Policy)
	}
	return fmt.Sprintf("bound %d/%d %s", b.Waiting, b.Max, b.Policy)
}

var fullWords = map[driver.FullPolicy]string{
	driver.FullRefuse:     "new tasks are refused when it is full",
	driver.FullDropOldest: "the oldest available task is dropped when it is full",
	driver.FullWait:       "producers wait when it is full",
}

func (b *boundRow) line() string {
	return fmt.Sprintf("bound: %s of %s wait; %s", grouped(int64(b.Waiting)), plural(b.Max, "task"), fullWords[b.Policy])
}

type boundFlags struct {
	most   int
	policy string
	none   bool
	create bool
}

func (a *app) queueBoundCommand() *cobra.Command {
	f := &boundFlags{}
	cmd := &cobra.Command{
		Use: "bound QUEUE", Short: "Bound how many tasks may wait, and say what happens to new ones", Args: queueArg, ValidArgsFunction: a.completeQueues,
		Long: "Bounds how many tasks of a queue wait: available, scheduled, held back and waiting for a retry together. When it is\n" +
			"full, --policy refuse refuses new tasks (`waggle enqueue` ends with exit code 5), drop-oldest discards the available\n" +
			"task that has waited longest, and wait makes the producer wait for room.\n" +
			"It takes effect at once, for new tasks. Retries and everything else that was accepted come back as before. --none takes\n" +
			"the bound away.",
		Example: "  waggle queue bound mail --max 10000 --policy refuse\n" +
			"  waggle queue bound positions --max 500 --policy drop-oldest\n" +
			"  waggle queue bound mail --none",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.check(); err != nil {
				return err
			}
			return a.withSettable(cmd.Context(), f.create, func(c *waggle.Client) error { return a.boundQueue(cmd.Context(), c, args[0], f) })
		},
	}
	flags := cmd.Flags()
	flags.Var(&count{&f.most, 1, driver.MaxBound}, "max", "how many tasks may wait")
	flags.Var(&choice{&f.policy, []string{string(driver.FullRefuse), string(driver.FullDropOldest), string(driver.FullWait)}}, "policy", "what happens to a new task when it is full (default \"refuse\")")
	flags.BoolVar(&f.none, "none", false, "take the bound away")
	flags.BoolVar(&f.create, "create", false, createUsage)
	flags.Lookup("max").DefValue = ""
	return cmd
}

func (f *boundFlags) check() error {
	switch {
	case f.none && (f.most > 0 || f.policy != ""):
		return driver.Invalidf("--none takes the bound away: leave out --max and --policy")
	case !f.none && f.most == 0:
		return driver.Invalidf("say how many tasks may wait: --max N, or --none to take the bound away")
	}
	return nil
}

// queueBounding is what `queue bound` prints as JSON.
type queueBounding struct {
	Name  string        `json:"name"`
	Bound *driver.Bound `json:"bound"` // null: none
}

func (a *app) boundQueue(ctx context.Context, c *waggle.Client, name string, f *boundFlags) error {
	q, err := a.orderedQueue(ctx, c, name, f.create, f.none)
	if err != nil {
		return err
	}
	config, err := a.setQueue(ctx, c, q, name, f.create, driver.QueuePatch{Bound: &driver.Bound{Max: f.most, Full: driver.FullPolicy(f.policy)}})
	if err != nil {
		return err
	}
	v := queueBounding{Name: name}
	if config.Bound.Max > 0 {
		v.Bound = &config.Bound
	}
	return a.printObject(v, func() error {
		if v.Bound == nil {
			a.say("queue %s has no bound", name)
			return nil
		}
		a.say("queue %s: %s may wait; %s", name, plural(v.Bound.Max, "task"), fullWords[v.Bound.Full])
		return nil
	})
}

// roomWait is what this command knows of its waits for room in full queues.
type roomWait struct {
	mu    sync.Mutex
	told  map[string]bool
	began func() // is called when a wait begins; may be nil
}

// tellFull says once of a queue that a task waits for room in it.
func (a *app) tellFull(queue string) {
	a.room.mu.Lock()
	defer a.room.mu.Unlock()
	if a.room.told == nil {
		a.room.told = map[string]bool{}
	}
	if !a.room.told[queue] {
		a.room.told[queue] = true
		a.say("queue %s is full: waiting for room", queue)
	}
	if a.room.began != nil {
		a.room.began()
	}
}

// untilFull returns a context that ends with ctx only once something waits for room; what it returns ends it.
func (a *app) untilFull(ctx context.Context) (context.Context, func()) {
	free, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	a.room.mu.Lock()
	defer a.room.mu.Unlock()
	a.room.began = func() { context.AfterFunc(ctx, func() { cancel(context.Cause(ctx)) }) }
	return free, func() { cancel(nil) }
}
