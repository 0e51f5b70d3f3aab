package cli

import (
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

func (a *app) typeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "type", Short: "Stop and start types of tasks (circuit breakers)", GroupID: "watch",
		Args: noCommand, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.typeListCommand(), a.typeGetCommand(), a.typeOpenCommand(), a.typeCloseCommand(), a.typeSetCommand())
	return cmd
}

// typeRow is the breaker of a type in `type list -o json`.
type typeRow struct {
	Type       string              `json:"type"`
	State      waggle.BreakerState `json:"state"`
	Since      *time.Time          `json:"since"`
	Until      *time.Time          `json:"until"` // open: when tasks are tried
	ByHand     bool                `json:"by_hand"`
	Attempts   int                 `json:"attempts"`
	Failed     int                 `json:"failed"`
	Rule       *ruleRow            `json:"rule"` // null: it opens only by hand
	RuleByHand bool                `json:"rule_by_hand"`
	Worker     string              `json:"worker,omitzero"` // half-open: who tries
}

type ruleRow struct {
	Rate       float64 `json:"rate"`
	WindowMS   int64   `json:"window_ms"`
	Min        int     `json:"min"`
	CoolDownMS int64   `json:"cool_down_ms"`
	Probes     int     `json:"probes"`
}

func typeRowOf(t waggle.TypeStatus) typeRow {
	row := typeRow{Type: t.Type, State: t.State, ByHand: t.ByHand, Attempts: t.Attempts, Failed: t.Failed, RuleByHand: t.RuleByHand, Worker: t.Worker}
	if !t.Since.IsZero() {
		row.Since = &t.Since
	}
	if !t.Until.IsZero() {
		row.Until = &t.Until
	}
	if b := t.Breaker; b != nil {
		row.Rule = &ruleRow{b.Rate, b.Window.Milliseconds(), b.Min, b.CoolDown.Milliseconds(), b.Probes}
	}
	return row
}

// whyText says why a breaker is in its state.
func (t *typeRow) whyText(now time.Time) string {
	switch {
	case t.State == waggle.BreakerHalfOpen:
		return "tasks are tried by worker " + t.Worker
	case t.State == waggle.BreakerOpen && t.Until == nil:
		return "opened by hand"
	case t.State == waggle.BreakerOpen:
		why := fmt.Sprintf("%d of %d attempts failed", t.Failed, t.Attempts)
		if t.ByHand {
			why = "opened by hand"
		}
		if left := t.Until.Sub(now); left > 0 {
			return why + "; tasks are tried in " + roughly(left)
		}
		return why + "; tasks are tried when there are some"
	case t.Attempts > 0:
		return fmt.Sprintf("%d of %d attempts failed", t.Failed, t.Attempts)
	}
	return ""
}

func (r *ruleRow) text() string {
	if r == nil {
		return "by hand"
	}
	return fmt.Sprintf("%s of %d+ in %s, tries %d after %s", percent(r.Rate), r.Min, shortDuration(time.Duration(r.WindowMS)*time.Millisecond),
		r.Probes, shortDuration(time.Duration(r.CoolDownMS)*time.Millisecond))
}

func percent(f float64) string { return strconv.FormatFloat(100*f, 'f', -1, 64) + "%" }

func (a *app) typeListCommand() *cobra.Command {
	return &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List the types that have a breaker", Args: noArgs,
		Long: "Lists the types that have a rule, from a program or set here, and those that were opened by hand.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withClient(cmd.Context(), func(c *waggle.Client) error { return a.listTypes(cmd.Context(), c) })
		},
	}
}

func (a *app) listTypes(ctx context.Context, c *waggle.Client) error {
	info, err := c.Info(ctx)
	if err != nil {
		return err
	}
	types, err := c.Types(ctx)
	if err != nil {
		return err
	}
	l := a.newList(left("TYPE"), left("STATE"), right("FOR"), left("OPENS AT"), left("NOTE"))
	for _, t := range types {
		row := typeRowOf(t)
		if err := l.add(row, func() []string {
			return []string{row.Type, string(row.State), roughly(max(0, info.Now.Sub(t.Since))), row.Rule.text(), row.whyText(info.Now)}
		}); err != nil {
			return l.close(err)
		}
	}
	if len(types) == 0 {
		a.say("no type has a breaker: all types start")
	}
	return l.close(nil)
}

func typeArg(cmd *cobra.Command, args []string) error {
	if err := oneArg("task type")(cmd, args); err != nil {
		return err
	}
	return driver.CheckName("task type", args[0], driver.MaxNameLen)
}

func (a *app) typeGetCommand() *cobra.Command {
	return &cobra.Command{
		Use: "get TYPE", Aliases: []string{"show"}, Short: "Show the breaker of a type", Args: typeArg, ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withClient(cmd.Context(), func(c *waggle.Client) error { return a.showType(cmd.Context(), c, args[0]) })
		},
	}
}

// typeOf returns the breaker of a type; a type without one is closed.
func typeOf(ctx context.Context, c *waggle.Client, name string) (typeRow, error) {
	types, err := c.Types(ctx)
	if err != nil {
		return typeRow{}, err
	}
	for _, t := range types {
		if t.Type == name {
			return typeRowOf(t), nil
		}
	}
	return typeRow{Type: name, State: waggle.BreakerClosed}, nil
}

func (a *app) showType(ctx context.Context, c *waggle.Client, name string) error {
	info, err := c.Info(ctx)
	if err != nil {
		return err
	}
	row, err := typeOf(ctx, c, name)
	if err != nil {
		return err
	}
	return a.printObject(row, func() error {
		lines := []string{fmt.Sprintf("type %s is %s", name, row.State), "it opens at: " + row.Rule.text()}
		if row.Rule == nil {
			lines[1] = "it opens only by hand"
		}
		if why := row.whyText(info.Now); why != "" {
			lines = append(lines, why)
		}
		_, err := fmt.Fprintln(a.out, strings.Join(lines, "\n"))
		return err
	})
}

// changeType does something to the breaker of a type and shows what it is then.
func (a *app) changeType(ctx context.Context, name string, said func(typeRow) string, change func(*waggle.Client) error) error {
	return a.withClient(ctx, func(c *waggle.Client) error {
		known, err := knownType(ctx, c, name)
		if err != nil {
			return err
		}
		if err := change(c); err != nil {
			return err
		}
		if !known {
			a.say("no task or worker has type %s: check the name", name)
		}
		row, err := typeOf(ctx, c, name)
		if err != nil {
			return err
		}
		return a.printObject(row, func() error {
			a.say("type %s %s", name, said(row))
			return nil
		})
	})
}

// saying says the same of every type.
func saying(text string) func(typeRow) string { return func(typeRow) string { return text } }

// knownType reports whether a task that has not ended, a worker or a breaker has the type.
func knownType(ctx context.Context, c *waggle.Client, name string) (bool, error) {
	row, err := typeOf(ctx, c, name)
	if err != nil || row.Since != nil {
		return true, err
	}
	queues, err := c.Queues(ctx)
	if err != nil {
		return false, err
	}
	for _, q := range queues {
		for _, t := range q.Types {
			if t.Type == name {
				return true, nil
			}
		}
	}
	workers, err := c.Workers(ctx)
	for _, w := range workers {
		for _, typ := range w.Types {
			if typ == name {
				return true, err
			}
		}
	}
	return false, err
}

func (a *app) typeOpenCommand() *cobra.Command {
	var d time.Duration
	cmd := &cobra.Command{
		Use: "open TYPE", Short: "Stop starting tasks of a type", Args: typeArg, ValidArgsFunction: cobra.NoFileCompletions,
		Long: "Opens the breaker of a type: none of its tasks starts, in any worker or queue; what runs goes on. Workers notice within\n" +
			"a third of their lease. With --for, a few tasks are tried after that time, and the breaker closes if they succeed.",
		Example: "  waggle type open mail.send\n  waggle type open mail.send --for 10m",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.changeType(cmd.Context(), args[0], saying("is open: none of its tasks starts"), func(c *waggle.Client) error {
				return c.OpenType(cmd.Context(), args[0], d)
			})
		},
	}
	cmd.Flags().Var(&span{&d, time.Second}, "for", "try tasks after this `TIME` (default: only after 'waggle type close')")
	return cmd
}

func (a *app) typeCloseCommand() *cobra.Command {
	return &cobra.Command{
		Use: "close TYPE", Short: "Start tasks of a type again", Args: typeArg, ValidArgsFunction: cobra.NoFileCompletions,
		Long: "Closes the breaker of a type, however it was opened, and forgets its counts. It opens again when its rule says so.",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.changeType(cmd.Context(), args[0], saying("is closed: its tasks start"), func(c *waggle.Client) error {
				return c.CloseType(cmd.Context(), args[0])
			})
		},
	}
}

// share is a share in percent, or as a number up to 1.
type share struct{ value *float64 }

func (s *share) Type() string { return "SHARE" }

func (s *share) String() string {
	if *s.value == 0 {
		return ""
	}
	return percent(*s.value)
}

func (s *share) Set(text string) error {
	number, isPercent := strings.CutSuffix(text, "%")
	f, err := strconv.ParseFloat(number, 64)
	if isPercent {
		f /= 100
	}
	if err != nil || !(f > 0 && f <= 1) {
		return errors.New("write a share above 0 and up to 1, as 0.5 or 50%")
	}
	*s.value = f
	return nil
}

func (a *app) typeSetCommand() *cobra.Command {
	var b waggle.Breaker
	var none bool
	cmd := &cobra.Command{
		Use: "set TYPE", Short: "Set when a type stops by itself", Args: typeArg, ValidArgsFunction: cobra.NoFileCompletions,
		Long: "Sets the rule of a type's breaker, in place of what programs say: it opens when at least --min attempts have ended within\n" +
			"--window and a share of --rate has failed, over all workers. After --cool-down, --probes tasks are tried. With --none it\n" +
			"opens only by hand.",
		Example: "  waggle type set mail.send --rate 50% --window 1m --min 20 --cool-down 30s\n  waggle type set mail.send --none",
		RunE: func(cmd *cobra.Command, args []string) error {
			if none && b != (waggle.Breaker{}) {
				return driver.Invalidf("--none takes the rule away: leave out the other flags")
			}
			rule, said := &b, func(row typeRow) string { return "opens at " + row.Rule.text() }
			if none {
				rule, said = nil, saying("opens only by hand")
			}
			return a.changeType(cmd.Context(), args[0], said, func(c *waggle.Client) error { return c.SetBreaker(cmd.Context(), args[0], rule) })
		},
	}
	flags := cmd.Flags()
	flags.Var(&share{&b.Rate}, "rate", "share of failed attempts at which it opens (default 50%)")
	flags.Var(&span{&b.Window, time.Second}, "window", "the time whose attempts count (default 1m)")
	flags.Var(&count{&b.Min, 1, 1_000_000}, "min", "attempts in the window before it may open (default 20)")
	flags.Var(&span{&b.CoolDown, 100 * time.Millisecond}, "cool-down", "how long it stays open before tasks are tried (default 30s)")
	flags.Var(&count{&b.Probes, 1, 1000}, "probes", "tasks that are tried, all of which have to succeed (default 1)")
	flags.BoolVar(&none, "none", false, "take the rule away")
	flags.Lookup("min").DefValue, flags.Lookup("probes").DefValue = "", ""
	return cmd
}
