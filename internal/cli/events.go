package cli

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/charmbracelet/x/ansi"
	"github.com/spf13/cobra"

	"github.com/waggleq/waggle"
	"github.com/waggleq/waggle/driver"
)

// eventFlags select events.
type eventFlags struct {
	follow        bool
	kinds         []string
	queues, types []string
	ids           []string
	since         time.Duration
}

func (a *app) eventsCommand() *cobra.Command {
	f := &eventFlags{}
	cmd := &cobra.Command{
		Use: "events", Short: "Print what has happened, or follow what happens", GroupID: "watch", Args: noArgs,
		Long: "Prints the events that the store still keeps, the oldest first. With --follow it goes on with new events,\n" +
			"until it is interrupted. An event's kind is the new state of a task, or one of: progress, deleted,\n" +
			"queue_changed, queue_deleted, worker_joined, worker_left, worker_lost; gap stands for dropped events that were not read.",
		Example: "  waggle events --follow --kind discarded,worker_lost\n  waggle events --since 10m --queue mail -o jsonl",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withClient(cmd.Context(), func(c *waggle.Client) error { return a.printEvents(cmd.Context(), c, f) })
		},
	}
	flags := cmd.Flags()
	flags.BoolVarP(&f.follow, "follow", "f", false, "keep going with new events")
	flags.Var(&names{&f.kinds, "event kind"}, "kind", "events of this kind; may be repeated")
	flags.Var(&names{&f.queues, "queue"}, "queue", "events of this queue; may be repeated")
	flags.Var(&names{&f.types, "task type"}, "type", "events of tasks of this type; may be repeated")
	flags.Var(&names{&f.ids, "task id"}, "id", "events of this task; may be repeated")
	flags.Var(&span{&f.since, time.Millisecond}, "since", "events of the last D only")
	return cmd
}

func (f *eventFlags) match(e *waggle.Event) bool {
	in := func(set []string, v string) bool { return len(set) == 0 || slices.Contains(set, v) }
	return in(f.kinds, string(e.Kind)) && in(f.queues, e.Queue) && in(f.types, e.Type) && in(f.ids, e.ID)
}

var eventKinds = func() []string {
	var kinds []string
	for _, s := range driver.States {
		kinds = append(kinds, string(s))
	}
	for _, k := range []driver.EventKind{driver.EventProgress, driver.EventDeleted, driver.EventQueueChanged, driver.EventQueueDeleted, driver.EventWorkerJoined,
		driver.EventWorkerLeft, driver.EventWorkerLost, waggle.EventGap} {
		kinds = append(kinds, string(k))
	}
	return kinds
}()

func (f *eventFlags) validate() error {
	for _, k := range f.kinds {
		if !slices.Contains(eventKinds, k) {
			return driver.Invalidf("there is no event kind %q: use %s", driver.CutText(k, 64), orList(eventKinds))
		}
	}
	return nil
}

func (a *app) printEvents(ctx context.Context, c *waggle.Client, f *eventFlags) error {
	if err := f.validate(); err != nil {
		return err
	}
	l := a.newList(left("TIME"), left("EVENT"), left("TASK"), left("TYPE"), left("QUEUE"), left("WORKER"), left("REASON"))
	from, err := a.eventsFrom(ctx, c, f)
	if err != nil {
		return err
	}
	show := func(e waggle.Event) error {
		if e.Time.Before(from) && e.Kind != waggle.EventGap || !f.match(&e) {
			return nil
		}
		return l.add(e, func() []string {
			at, id := clock(e.Time), orDash(e.ID)
			if a.outTerm.small() {
				at, id = clockToday(e.Time), ansi.Truncate(id, eventID, "…")
			}
			return []string{at, string(e.Kind), id, orDash(e.Type), orDash(e.Queue), orDash(e.Worker), orDash(string(e.Reason))}
		})
	}
	after, err := a.keptEvents(ctx, c, show)
	if err != nil || !f.follow {
		if err == nil && l.count == 0 {
			a.say("no events")
		}
		return l.close(err)
	}
	return l.close(a.followEvents(ctx, c, after, l, show))
}

// eventID is how much of an id fits into a small terminal.
const eventID = 19

// eventsFrom is the time of the first event that is wanted.
func (a *app) eventsFrom(ctx context.Context, c *waggle.Client, f *eventFlags) (time.Time, error) {
	if f.since == 0 {
		return time.Time{}, nil
	}
	info, err := c.Info(ctx)
	if err != nil {
		return time.Time{}, err
	}
	return info.Now.Add(-f.since), nil
}

// keptEvents shows the events that the store keeps and returns the cursor behind them.
func (a *app) keptEvents(ctx context.Context, c *waggle.Client, show func(waggle.Event) error) (after string, err error) {
	for {
		page, err := c.Store().Events(ctx, driver.EventQuery{After: after})
		if err != nil {
			return after, err
		}
		for _, e := range page.Events {
			if err := show(e); err != nil {
				return after, err
			}
		}
		after = page.Next
		if len(page.Events) == 0 {
			return after, nil
		}
	}
}

// followEvents shows what happens after a cursor, each event as soon as it is there.
func (a *app) followEvents(ctx context.Context, c *waggle.Client, after string, l *list, show func(waggle.Event) error) error {
	if err := l.flush(); err != nil {
		return err
	}
	for e, err := range c.Events(ctx, after) {
		if err == nil {
			err = errors.Join(show(e), l.flush())
		}
		if err != nil {
			return err
		}
	}
	return context.Cause(ctx)
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
