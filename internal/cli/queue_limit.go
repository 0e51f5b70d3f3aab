package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/waggleq/waggle"
	"github.com/waggleq/waggle/driver"
)

// limitRow is a limit in `queue get -o json`.
type limitRow struct {
	Type        string `json:"type,omitzero"`
	PerKey      bool   `json:"per_key,omitzero"`
	Concurrency int    `json:"concurrency,omitzero"`
	Rate        int    `json:"rate,omitzero"`
	PerMS       int64  `json:"per_ms,omitzero"`
	Burst       int    `json:"burst,omitzero"`
	Held        int    `json:"held"` // active tasks that it concerns
}

func limitRowOf(l driver.LimitInfo) limitRow {
	return limitRow{l.Type, l.PerKey, l.Concurrency, l.Rate, l.Per.Milliseconds(), l.Burst, l.Held}
}

func (l *limitRow) scope() string { return driver.Limit{Type: l.Type, PerKey: l.PerKey}.Scope() }

// bounds tells a limit's bounds: "3 at once, 100/s".
func (l *limitRow) bounds() string {
	var parts []string
	if l.Concurrency > 0 {
		parts = append(parts, fmt.Sprintf("%d at once", l.Concurrency))
	}
	if l.Rate > 0 {
		parts = append(parts, fmt.Sprintf("%s, burst %d", rateText(l.Rate, time.Duration(l.PerMS)*time.Millisecond), l.Burst))
	}
	return strings.Join(parts, ", ")
}

// note is what fits into a column: "3/3", "type slow 1/2", "each key 100/s".
func (l *limitRow) note() string {
	var parts []string
	if l.PerKey || l.Type != "" {
		parts = append(parts, l.scope())
	}
	switch {
	case l.Concurrency > 0 && l.PerKey:
		parts = append(parts, fmt.Sprintf("limit %d", l.Concurrency))
	case l.Concurrency > 0:
		parts = append(parts, fmt.Sprintf("limit %d/%d", l.Held, l.Concurrency))
	}
	if l.Rate > 0 {
		parts = append(parts, rateText(l.Rate, time.Duration(l.PerMS)*time.Millisecond))
	}
	return strings.Join(parts, " ")
}

// orderLines tell a queue's limits and how its tasks are ordered.
func orderLines(d *queueDetail) []string {
	var lines []string
	for _, l := range d.Limits {
		lines = append(lines, fmt.Sprintf("limit of %s: %s; %d active", l.scope(), l.bounds(), l.Held))
	}
	if d.Parked > 0 {
		lines = append(lines, fmt.Sprintf("%s of the available tasks are parked: a limit or their key keeps them from starting", grouped(int64(d.Parked))))
	}
	if d.Bound != nil {
		lines = append(lines, d.Bound.line())
	}
	if d.Order == driver.OrderDeadline {
		lines = append(lines, "the first deadline comes first")
	}
	switch d.Keys {
	case driver.KeysHold:
		lines = append(lines, "the tasks of a key run one after the other; one that waits for a retry holds its key")
	case driver.KeysPass:
		lines = append(lines, "the tasks of a key run one after the other; one that waits for a retry lets its key pass")
	}
	return lines
}

func keyText(t *waggle.TaskInfo) string {
	if t.Weight > 0 {
		return fmt.Sprintf("%s, weight %d", t.Key, t.Weight)
	}
	return t.Key
}

// rate is a number of starts per time, as in 100/s, 5/min or 3/10s.
type rate struct {
	n   *int
	per *time.Duration
}

var rateUnits = map[string]time.Duration{"ms": time.Millisecond, "s": time.Second, "m": time.Minute, "min": time.Minute, "h": time.Hour, "d": 24 * time.Hour}

func (r *rate) Type() string { return "N/TIME" }
func (r *rate) String() string {
	if *r.n == 0 {
		return ""
	}
	return rateText(*r.n, *r.per)
}

func rateText(n int, per time.Duration) string {
	for _, unit := range []string{"s", "min", "h", "d"} {
		if rateUnits[unit] == per {
			return fmt.Sprintf("%d/%s", n, unit)
		}
	}
	return fmt.Sprintf("%d/%s", n, per)
}

func (r *rate) Set(s string) error {
	number, unit, found := strings.Cut(s, "/")
	n, err := strconv.Atoi(strings.TrimSpace(number))
	if !found {
		unit = "s"
	}
	per := rateUnits[strings.TrimSpace(unit)]
	if per == 0 {
		per, _ = time.ParseDuration(strings.TrimSpace(unit))
	}
	switch {
	case err != nil || n < 1:
		return fmt.Errorf("write a number of starts, 1 or more, and a time: 100/s, 5/min or 3/10s")
	case per < time.Millisecond || per > driver.MaxRatePer:
		return fmt.Errorf("write the time as s, min, h, d or a duration between 1ms and 31 days: 100/s, 5/min or 3/10s")
	case int64(n) > per.Microseconds():
		return fmt.Errorf("one start a microsecond is the most")
	}
	*r.n, *r.per = n, per
	return nil
}

// limitFlags are the flags of waggle queue limit.
type limitFlags struct {
	limit  driver.Limit
	none   bool
	create bool
}

func (a *app) queueLimitCommand() *cobra.Command {
	f := &limitFlags{}
	cmd := &cobra.Command{
		Use: "limit QUEUE", Short: "Limit how many tasks run at once, or start in a given time", Args: queueArg, ValidArgsFunction: a.completeQueues,
		Long: "Sets a limit of a queue, over all its workers: for all its tasks together, for one type (--type), for each key\n" +
			"(--per-key), or for each key of one type. It replaces the earlier limit for the same tasks; others stay.\n" +
			"It takes effect at once. Running tasks go on, and count. --none removes the limit, and without --type and --per-key all\n" +
			"limits of the queue.",
		Example: "  waggle queue limit mail --concurrency 10\n" +
			"  waggle queue limit mail --type mail.bulk --rate 100/s --burst 20\n" +
			"  waggle queue limit mail --per-key --concurrency 2\n" +
			"  waggle queue limit mail --none",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.check(); err != nil {
				return err
			}
			return a.withSettable(cmd.Context(), f.create, func(c *waggle.Client) error { return a.limitQueue(cmd.Context(), c, args[0], f) })
		},
	}
	flags := cmd.Flags()
	flags.Var(&name{&f.limit.Type, "task type"}, "type", "for tasks of this type")
	flags.BoolVar(&f.limit.PerKey, "per-key", false, "for each key by itself")
	flags.Var(&count{&f.limit.Concurrency, 1, driver.MaxConcurrency}, "concurrency", "how many may be active at once")
	flags.Var(&rate{&f.limit.Rate, &f.limit.Per}, "rate", "how many may start in a time, as in 100/s, 5/min or 3/10s")
	flags.Var(&count{&f.limit.Burst, 1, driver.MaxConcurrency}, "burst", "how many may start at once after a rest (default: as many as start in a tenth of a second)")
	flags.BoolVar(&f.none, "none", false, "take the limit away")
	flags.BoolVar(&f.create, "create", false, createUsage)
	flags.Lookup("concurrency").DefValue, flags.Lookup("burst").DefValue = "", ""
	return cmd
}

func (f *limitFlags) check() error {
	switch bounds := f.limit.Concurrency > 0 || f.limit.Rate > 0; {
	case f.none && (bounds || f.limit.Burst > 0):
		return driver.Invalidf("--none takes a limit away: leave out --concurrency, --rate and --burst")
	case f.none:
		return nil
	case !bounds:
		return driver.Invalidf("say what the limit is: --concurrency N, --rate N/TIME, or --none to take it away")
	}
	_, err := f.limit.WithDefaults()
	return err
}

// patch names what is to change alone: others may be setting other limits at this moment.
func (f *limitFlags) patch() driver.QueuePatch {
	switch {
	case !f.none:
		return driver.QueuePatch{PutLimits: []driver.Limit{f.limit}}
	case f.limit.Type == "" && !f.limit.PerKey:
		return driver.QueuePatch{Limits: &[]driver.Limit{}}
	}
	return driver.QueuePatch{DropLimits: []driver.Limit{f.limit}}
}

func (a *app) limitQueue(ctx context.Context, c *waggle.Client, name string, f *limitFlags) error {
	q, err := a.orderedQueue(ctx, c, name, f.create, f.none)
	if err != nil {
		return err
	}
	config, err := a.setQueue(ctx, c, q, name, f.create, f.patch())
	if err != nil {
		return err
	}
	v := orderingOf(name, config)
	return a.printObject(v, func() error {
		if len(v.Limits) == 0 {
			a.say("queue %s has no limits", name)
		}
		for _, l := range v.Limits {
			of := l.scope() + " in queue " + name
			if l.Type == "" && !l.PerKey {
				of = "queue " + name
			}
			a.say("limit of %s: %s", of, l.bounds())
		}
		return nil
	})
}

// withSettable is withClient, and makes the store too with --create.
func (a *app) withSettable(ctx context.Context, create bool, use func(*waggle.Client) error) error {
	if create {
		return a.withClientOf(ctx, a.openOrMake, use)
	}
	return a.withClient(ctx, use)
}

// settableQueue returns a queue, and nil for one that does not exist and may be made.
func (a *app) settableQueue(ctx context.Context, c *waggle.Client, name string, mayBeNew bool) (*driver.QueueInfo, error) {
	q, err := c.Queue(ctx, name)
	if errors.Is(err, driver.ErrNotFound) && mayBeNew {
		return nil, nil
	}
	return q, err
}

// orderedQueue is settableQueue for what bounds or orders the tasks of a queue: set for a mistyped name, it would leave the right
// queue without. So only --create makes one.
func (a *app) orderedQueue(ctx context.Context, c *waggle.Client, name string, create, takesAway bool) (*driver.QueueInfo, error) {
	q, err := a.settableQueue(ctx, c, name, create && !takesAway)
	if errors.Is(err, driver.ErrNotFound) && !takesAway {
		return nil, driver.Errorf(driver.ErrNotFound, "there is no queue %s: the first task creates it, or --create does now", name)
	}
	return q, err
}

// setQueue changes a queue, or makes it where q is nil. It says so unless --create did.
func (a *app) setQueue(ctx context.Context, c *waggle.Client, q *driver.QueueInfo, name string, create bool, patch driver.QueuePatch) (*driver.QueueConfig, error) {
	config, err := c.Store().SetQueue(ctx, name, patch)
	if err == nil && q == nil && !create {
		a.say("queue %s is new: check its name if it should exist already", name)
	}
	return config, err
}

const createUsage = "create the queue and the store without comment if they don't exist yet"

// queueOrdering is what `queue limit` and `queue order` print as JSON.
type queueOrdering struct {
	Name   string         `json:"name"`
	Limits []limitSetting `json:"limits"`
	Order  driver.Order   `json:"order"`
	Keys   driver.KeyMode `json:"keys"`
}

// limitSetting is a limit without what counts against it.
type limitSetting struct {
	limitRow
	Held *int `json:"held,omitzero"` // not told
}

func orderingOf(name string, c *driver.QueueConfig) *queueOrdering {
	v := &queueOrdering{Name: name, Limits: []limitSetting{}, Order: cmp.Or(c.Order, driver.OrderFair), Keys: cmp.Or(c.Keys, driver.KeysFree)}
	for _, l := range c.Limits {
		v.Limits = append(v.Limits, limitSetting{limitRow: limitRowOf(driver.LimitInfo{Limit: l})})
	}
	return v
}

func (a *app) queueOrderCommand() *cobra.Command {
	var by, keys string
	var create bool
	cmd := &cobra.Command{
		Use: "order QUEUE", Short: "Set which waiting task comes first, and whether keys run in order", Args: queueArg, ValidArgsFunction: a.completeQueues,
		Long: "Says in which order the waiting tasks of a queue start, within a priority.\n\n" +
			"--by fair shares the queue out between keys; --by deadline starts the task first that expires first. That can be\n" +
			"changed while no task is available in the queue.\n" +
			"--keys hold and --keys pass run the tasks of a key one after the other, in the order of enqueueing. While one waits\n" +
			"for its retry it holds its key, or lets later ones pass. --keys free undoes it.",
		Example: "  waggle queue order accounts --keys hold\n  waggle queue order alerts --by deadline",
		RunE: func(cmd *cobra.Command, args []string) error {
			var patch driver.QueuePatch
			if by != "" {
				patch.Order = new(driver.Order(by))
			}
			if keys != "" {
				patch.Keys = new(driver.KeyMode(keys))
			}
			if by == "" && keys == "" {
				return driver.Invalidf("say what the order is: --by fair or deadline, --keys free, hold or pass")
			}
			return a.withSettable(cmd.Context(), create, func(c *waggle.Client) error { return a.orderQueue(cmd.Context(), c, args[0], patch, create) })
		},
	}
	cmd.Flags().Var(&choice{&by, []string{"fair", "deadline"}}, "by", "which waiting task comes first")
	cmd.Flags().Var(&choice{&keys, []string{"free", "hold", "pass"}}, "keys", "whether the tasks of a key run one after the other")
	cmd.Flags().BoolVar(&create, "create", false, createUsage)
	return cmd
}

func (a *app) orderQueue(ctx context.Context, c *waggle.Client, name string, patch driver.QueuePatch, create bool) error {
	q, err := a.orderedQueue(ctx, c, name, create, false)
	if err != nil {
		return err
	}
	config, err := a.setQueue(ctx, c, q, name, create, patch)
	if err != nil {
		return err
	}
	return a.printObject(orderingOf(name, config), func() error {
		a.say("queue %s: order %s, keys %s", name, cmp.Or(config.Order, driver.OrderFair), cmp.Or(config.Keys, driver.KeysFree))
		return nil
	})
}
