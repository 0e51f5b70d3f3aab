package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/waggleq/waggle"
	"github.com/waggleq/waggle/driver"
)

func (a *app) scheduleCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "schedule", Short: "Add tasks at set times", GroupID: "use",
		Args: noCommand, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.scheduleListCommand(), a.scheduleGetCommand(), a.schedulePutCommand(),
		a.scheduleChangeCommand("pause", "Pause a schedule until it is resumed", "paused", (*waggle.Client).PauseSchedule),
		a.scheduleChangeCommand("resume", "Resume a schedule; the ticks of the pause do not fire", "active", (*waggle.Client).ResumeSchedule),
		a.scheduleRunCommand(), a.scheduleDeleteCommand(), a.scheduleNextCommand(), a.scheduleImportCommand())
	return cmd
}

func scheduleArg(cmd *cobra.Command, args []string) error {
	if err := oneArg("schedule")(cmd, args); err != nil {
		return err
	}
	if isLine(args[0]) {
		return driver.Invalidf("%q is a line; `%s` takes the name of a schedule: `waggle schedule list` shows them", args[0], cmd.CommandPath())
	}
	return driver.CheckName("schedule", args[0], driver.MaxNameLen)
}

// isLine reports whether a word looks like the line of a schedule: no name does.
func isLine(s string) bool { return strings.ContainsAny(s, " *@") }

// scheduleView is a schedule as commands print it.
type scheduleView struct {
	*waggle.ScheduleInfo
	Jitter   string     `json:"jitter,omitzero"`
	Upcoming []string   `json:"upcoming,omitzero"` // the next five ticks
	Notes    []tickNote `json:"notes,omitzero"`
}

// tickNote says what a change of the clock does to a tick.
type tickNote struct {
	At   string `json:"at"`
	Note string `json:"note"`
}

func viewOf(s *waggle.ScheduleInfo, now time.Time) (*scheduleView, error) {
	v := &scheduleView{ScheduleInfo: s}
	if s.Jitter > 0 {
		v.Jitter = shortDuration(s.Jitter)
	}
	if s.State == "paused" {
		return v, nil
	}
	ticks, err := s.NextTicks(now, 5)
	for _, t := range ticks {
		v.Upcoming = append(v.Upcoming, tickText(t.At))
		if t.Note != "" {
			v.Notes = append(v.Notes, tickNote{tickText(t.At), t.Note})
		}
	}
	return v, err
}

func tickText(t time.Time) string { return t.Format(time.RFC3339Nano) }

func (a *app) scheduleListCommand() *cobra.Command {
	return &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List the schedules", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withClient(cmd.Context(), func(c *waggle.Client) error { return a.listSchedules(cmd.Context(), c) })
		},
	}
}

func (a *app) listSchedules(ctx context.Context, c *waggle.Client) error {
	info, err := c.Info(ctx)
	if err != nil {
		return err
	}
	l := a.newList(left("SCHEDULE"), left("STATE"), left("LINE"), left("NEXT"), left("LAST"), left("TYPE"), left("ZONE"))
	n := 0
	for s, err := range c.Schedules(ctx) {
		if err != nil {
			return l.close(err)
		}
		n++
		err := l.add(s, func() []string {
			return []string{s.Name, s.State, s.Line, nextText(s.Next, info.Now), lastText(s), s.Type, s.Zone}
		})
		if err != nil {
			return l.close(err)
		}
	}
	if n == 0 {
		a.say("no schedules yet: `waggle schedule put` makes one")
	}
	return l.close(nil)
}

// nextText says in how much time a schedule fires next; `schedule get` has the time itself.
func nextText(next, now time.Time) string {
	switch left := next.Sub(now); {
	case next.IsZero():
		return "-"
	case left <= 0:
		return "now"
	default:
		return "in " + roughly(left)
	}
}

// lastText says in a word how the last run of a schedule ended.
func lastText(s *waggle.ScheduleInfo) string {
	switch r := s.LastRun; {
	case r == nil:
		return "-"
	case r.State != "":
		return string(r.State)
	case r.Reason != "":
		return string(r.Reason)
	case !r.Ended.IsZero():
		return "deleted"
	}
	return "not ended"
}

func (a *app) scheduleGetCommand() *cobra.Command {
	return &cobra.Command{
		Use: "get NAME", Aliases: []string{"show"}, Short: "Show a schedule: next ticks, last run, why a tick was skipped",
		Args: scheduleArg, ValidArgsFunction: a.completeSchedules,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withClient(cmd.Context(), func(c *waggle.Client) error {
				s, err := c.Schedule(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				return a.printSchedule(cmd.Context(), c, s)
			})
		},
	}
}

func (a *app) printSchedule(ctx context.Context, c *waggle.Client, s *waggle.ScheduleInfo) error {
	info, err := c.Info(ctx)
	if err != nil {
		return err
	}
	v, err := viewOf(s, info.Now)
	if err != nil {
		return err
	}
	return a.printObject(v, func() error {
		for _, line := range describeSchedule(v) {
			if _, err := fmt.Fprintln(a.out, line); err != nil {
				return err
			}
		}
		return nil
	})
}

func describeSchedule(v *scheduleView) []string {
	lines := []string{
		fmt.Sprintf("schedule %s is %s: %s (%s)", v.Name, v.State, v.Line, v.Zone),
		fmt.Sprintf("adds a task of type %s to queue %s", v.Type, v.Queue),
		fmt.Sprintf("missed ticks: %s, overlap: %s", v.Missed, v.Overlap),
	}
	if v.Jitter != "" {
		lines = append(lines, "jitter: up to "+v.Jitter)
	}
	if v.ByCode {
		lines = append(lines, "declared in a program")
	}
	notes := map[string]string{}
	for _, n := range v.Notes {
		notes[n.At] = "  (" + n.Note + ")"
	}
	for i, at := range v.Upcoming {
		head := "then:"
		if i == 0 {
			head = "next:"
		}
		lines = append(lines, head+" "+at+notes[at])
	}
	if r := v.LastRun; r != nil {
		text := fmt.Sprintf("last run: %s, task %s, %s", tickText(r.Tick), r.Task, lastText(v.ScheduleInfo))
		if r.Error != "" {
			text += ": " + r.Error
		}
		lines = append(lines, text)
	}
	if v.Skipped != nil {
		lines = append(lines, fmt.Sprintf("left out: %s: %s", tickText(v.Skipped.Tick), v.Skipped.Why))
	}
	return append(lines, fmt.Sprintf("fired %s times", grouped(v.Fired)))
}

// putFlags are the flags of schedule put.
type putFlags struct {
	schedule waggle.Schedule
	options  waggle.EnqueueOptions
	payload  string
	missed   string
	overlap  string
}

func (a *app) schedulePutCommand() *cobra.Command {
	f := &putFlags{}
	cmd := &cobra.Command{
		Use: "put NAME LINE", Short: "Make a schedule, or change the one of that name",
		Long: "Adds a task at each time that LINE names: five fields as in crontab(5), six with seconds first,\n" +
			"@hourly, @daily, @weekly, @monthly, @yearly, \"@every 90s\", or \"@at\" with times like 2030-12-24T18:00:00Z.\n" +
			"Any worker does it, whatever types it serves; each tick fires once, however many workers there are.",
		Example: "  waggle schedule put report '0 3 * * *' --tz Europe/Berlin --type report.nightly\n" +
			"  waggle schedule put ping '@every 30s' --type ping --overlap skip --payload '{\"host\": \"db\"}'",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 2 {
				return driver.Invalidf("expected a name and a line, got %s: put quotes around the line", plural(len(args), "argument"))
			}
			if isLine(args[0]) && !isLine(args[1]) {
				return driver.Invalidf("%q is a line: the name comes first, as in `%s NAME LINE`", args[0], cmd.CommandPath())
			}
			return driver.CheckName("schedule", args[0], driver.MaxNameLen)
		},
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.putSchedule(cmd.Context(), f, args[0], args[1])
		},
	}
	flags, s, o := cmd.Flags(), &f.schedule, &f.options
	flags.Var(&name{&s.Type, "task type"}, "type", "the type of its tasks (required)")
	flags.StringVar(&f.payload, "payload", "", "their payload, `JSON`")
	flags.Var(&name{&o.Queue, "queue"}, "queue", "their queue (default \"default\")")
	flags.StringVar(&s.Zone, "tz", "", "the time `ZONE` of the line (default \"UTC\")")
	flags.Var(&choice{&f.missed, []string{"skip", "once", "catch-up"}}, "missed", "what happens to ticks while no worker runs (default \"catch-up\")")
	flags.Var(&count{&s.CatchUp, 1, 1000}, "catch-up", "how many missed ticks fire, with --missed catch-up (default 10)")
	flags.Var(&choice{&f.overlap, []string{"allow", "skip", "replace", "wait"}}, "overlap", "if the task of an earlier tick has not ended (default \"allow\")")
	flags.Var(&span{value: &s.Jitter}, "jitter", "delay each task by up to this time")
	flags.Var(&count{&o.Priority, -driver.MaxPriority, driver.MaxPriority}, "priority", "-100 to 100, lower runs first")
	flags.Var(&count{&o.MaxAttempts, 1, driver.MaxAttemptsCap}, "max-attempts", "how often a task may fail (default 25)")
	flags.Var(&span{&o.Timeout, time.Millisecond}, "timeout", "how long one attempt may run (default no limit)")
	flags.Var(&span{&o.ExpiresIn, time.Millisecond}, "expires-in", "drop a task that has not started within this time")
	flags.Var(&names{&o.Tags, "tag"}, "tag", "a tag to search by; may be repeated")
	for _, n := range []string{"catch-up", "priority", "max-attempts"} {
		flags.Lookup(n).DefValue = "" // told in the text
	}
	return cmd
}

func (a *app) putSchedule(ctx context.Context, f *putFlags, name, line string) error {
	s := f.schedule
	s.Name, s.Line, s.Options = name, line, &f.options
	s.Missed, s.Overlap = waggle.MissedPolicy(f.missed), waggle.OverlapPolicy(f.overlap)
	if s.Type == "" {
		return driver.Invalidf("the type of the schedule's tasks is missing: --type TYPE")
	}
	if s.CatchUp > 0 && f.missed != "" && f.missed != "catch-up" {
		return driver.Invalidf("--catch-up goes with --missed catch-up only")
	}
	if f.payload != "" {
		payload, err := jsonPayload([]byte(f.payload))
		if err != nil {
			return err
		}
		s.Payload = payload
	}
	if _, err := s.NextTicks(time.Now(), 1); err != nil {
		return err // before a store is made
	}
	return a.withClientOf(ctx, a.openOrMake, func(c *waggle.Client) error {
		info, err := c.PutSchedule(ctx, s)
		if err != nil {
			return err
		}
		return a.printSchedule(ctx, c, info)
	})
}

// scheduleChangeCommand makes a command that pauses or resumes.
func (a *app) scheduleChangeCommand(verb, short, done string, do func(*waggle.Client, context.Context, string) (*waggle.ScheduleInfo, error)) *cobra.Command {
	return &cobra.Command{
		Use: verb + " NAME", Short: short, Args: scheduleArg, ValidArgsFunction: a.completeSchedules,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withClient(cmd.Context(), func(c *waggle.Client) error {
				s, err := do(c, cmd.Context(), args[0])
				if err != nil {
					return err
				}
				return a.printObject(&scheduleView{ScheduleInfo: s}, func() error {
					a.say("schedule %s is %s", s.Name, done)
					return nil
				})
			})
		},
	}
}

func (a *app) scheduleRunCommand() *cobra.Command {
	id := ""
	cmd := &cobra.Command{
		Use: "run NAME", Short: "Fire a schedule once, now", Args: scheduleArg, ValidArgsFunction: a.completeSchedules,
		Long: "Fires the schedule once, now, even if it is paused. The next worker that looks adds the task.",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withClient(cmd.Context(), func(c *waggle.Client) error {
				if err := c.RunSchedule(cmd.Context(), args[0], id); err != nil {
					return err
				}
				return a.printObject(map[string]string{"name": args[0]}, func() error {
					a.say("schedule %s fires now", args[0])
					return nil
				})
			})
		},
	}
	cmd.Flags().StringVar(&id, "id", "", "an `ID` for this run: repeating the command with the same one changes nothing")
	return cmd
}

func (a *app) scheduleDeleteCommand() *cobra.Command {
	return &cobra.Command{
		Use: "delete NAME", Aliases: []string{"rm"}, Short: "Delete a schedule; the tasks that it has added stay", Args: scheduleArg, ValidArgsFunction: a.completeSchedules,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withClient(cmd.Context(), func(c *waggle.Client) error {
				if err := c.DeleteSchedule(cmd.Context(), args[0]); err != nil {
					return err
				}
				return a.printObject(map[string]string{"name": args[0]}, func() error {
					a.say("schedule %s is deleted", args[0])
					return nil
				})
			})
		},
	}
}

func (a *app) scheduleNextCommand() *cobra.Command {
	n, from := 5, time.Time{}
	cmd := &cobra.Command{
		Use: "next NAME", Short: "Show the next ticks of a schedule, and what clock changes do to them", Args: scheduleArg, ValidArgsFunction: a.completeSchedules,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withClient(cmd.Context(), func(c *waggle.Client) error { return a.nextTicks(cmd.Context(), c, args[0], n, from) })
		},
	}
	cmd.Flags().VarP(&count{&n, 1, 1000}, "number", "n", "how many")
	cmd.Flags().Var(&moment{&from}, "from", "those after this time (default now)")
	return cmd
}

func (a *app) nextTicks(ctx context.Context, c *waggle.Client, name string, n int, from time.Time) error {
	s, err := c.Schedule(ctx, name)
	if err != nil {
		return err
	}
	if from.IsZero() {
		info, err := c.Info(ctx)
		if err != nil {
			return err
		}
		from = info.Now
	}
	ticks, err := s.NextTicks(from, n)
	if err != nil {
		return err
	}
	l := a.newList(left("AT"), left("NOTE"))
	for _, t := range ticks {
		if err := l.add(tickText(t.At), func() []string { return []string{tickText(t.At), t.Note} }); err != nil {
			return l.close(err)
		}
	}
	switch {
	case len(ticks) == 0:
		a.say("schedule %s has no more ticks", name)
	case s.State == "paused":
		a.say("schedule %s is paused: none of these fires until `waggle schedule resume %s`", name, name)
	}
	return l.close(nil)
}

// completeSchedules completes names of schedules.
func (a *app) completeSchedules(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var list []string
	err := a.prepare(cmd)
	if err == nil {
		err = a.withClient(cmd.Context(), func(c *waggle.Client) error {
			for s, err := range c.Schedules(cmd.Context()) {
				if err != nil {
					return err
				}
				list = append(list, s.Name)
			}
			return nil
		})
	}
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	return list, cobra.ShellCompDirectiveNoFileComp
}

// payloadText is a command as the payload of a task.
func payloadText(command string) json.RawMessage {
	b, _ := json.Marshal(strings.TrimSpace(command)) // a string can't fail
	return b
}
