package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/waggleq/waggle"
	"github.com/waggleq/waggle/driver"
)

// storeFacts is what `info -o json` prints.
type storeFacts struct {
	Store        string               `json:"store"`
	Info         *waggle.StoreInfo    `json:"info"`
	Capabilities waggle.Capabilities  `json:"capabilities"`
	Queues       int                  `json:"queues"`
	Workers      int                  `json:"workers"` // with a lease that has not run out
	Slots        int                  `json:"slots"`   // of those workers
	Counts       map[driver.State]int `json:"counts"`
}

func (a *app) infoCommand() *cobra.Command {
	return &cobra.Command{
		Use: "info", Short: "Show the store: engine, size, durability, contents", GroupID: "watch", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withClient(cmd.Context(), func(c *waggle.Client) error { return a.info(cmd.Context(), c) })
		},
	}
}

func (a *app) info(ctx context.Context, c *waggle.Client) error {
	facts, err := a.readFacts(ctx, c)
	if err != nil {
		return err
	}
	return a.printObject(facts, func() error { return a.describeFacts(facts) })
}

func (a *app) readFacts(ctx context.Context, c *waggle.Client) (*storeFacts, error) {
	info, err := c.Info(ctx)
	if err != nil {
		return nil, err
	}
	queues, err := c.Queues(ctx)
	if err != nil {
		return nil, err
	}
	crew, err := readCrew(ctx, c, info.Now)
	if err != nil {
		return nil, err
	}
	if info.Warnings == nil {
		info.Warnings = []string{} // [] in JSON
	}
	f := &storeFacts{Store: a.storeURL(), Info: info, Capabilities: c.Store().Capabilities(), Queues: len(queues),
		Workers: len(crew.alive), Counts: map[driver.State]int{}}
	for _, w := range crew.alive {
		f.Slots += w.Slots
	}
	for _, s := range driver.States {
		f.Counts[s] = 0
		for i := range queues {
			f.Counts[s] += queues[i].Counts[s]
		}
	}
	return f, nil
}

func (a *app) describeFacts(f *storeFacts) error {
	var w fieldWriter
	w.term = a.outTerm
	w.field("store", f.Store)
	w.field("engine", f.Info.Engine+" "+f.Info.Version)
	w.field("durability", durabilityText(f.Capabilities))
	w.field("size", size(f.Info.Bytes))
	w.field("clock", clock(f.Info.Now)+skewText(f.Info.Now))
	w.field("queues", fmt.Sprint(f.Queues))
	w.field("workers", fmt.Sprintf("%d, with %s", f.Workers, plural(f.Slots, "slot")))
	for _, s := range driver.States {
		w.field(string(s), grouped(int64(f.Counts[s])))
	}
	w.field("schema", fmt.Sprint(f.Info.Schema))
	w.field("incarnation", f.Info.Incarnation)
	for _, warning := range f.Info.Warnings {
		w.field("warning", a.outTerm.paint(yellow, visible(warning)))
	}
	_, err := fmt.Fprint(a.out, w.String())
	return err
}

// durabilityText names the levels that a store offers, and its default.
func durabilityText(c waggle.Capabilities) string {
	text := ""
	for i, d := range c.Durability {
		if i > 0 {
			text += ", "
		}
		text += string(d)
		if d == c.DefaultDurability {
			text += " (default)"
		}
	}
	return text
}

// skewText tells of a store's clock that is far from this machine's.
func skewText(now time.Time) string {
	skew := time.Until(now).Round(time.Second)
	switch {
	case skew > 2*time.Second:
		return fmt.Sprintf(" (%s ahead of this machine's)", shortDuration(skew))
	case skew < -2*time.Second:
		return fmt.Sprintf(" (%s behind this machine's)", shortDuration(-skew))
	}
	return ""
}
