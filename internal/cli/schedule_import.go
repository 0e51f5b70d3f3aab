package cli

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/waggleq/waggle"
	"github.com/waggleq/waggle/driver"
)

func (a *app) scheduleImportCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "import", Short: "Import schedules from other programs", Args: noCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.importCrontabCommand())
	return cmd
}

// crontabFlags are the flags of schedule import crontab.
type crontabFlags struct {
	typ, queue, zone, prefix string
	system, dryRun           bool
}

func (a *app) importCrontabCommand() *cobra.Command {
	f := &crontabFlags{typ: "crontab", prefix: "crontab:"}
	cmd := &cobra.Command{
		Use: "crontab FILE", Short: "Make a schedule of each line of a crontab",
		Long: "Makes a schedule of each line of a crontab; - reads standard input. The command is the payload of its tasks, as text:\n" +
			"`waggle work --type TYPE -- sh -c {}` runs it. A file is imported as a whole: if a line is bad, nothing changes. The same\n" +
			"line makes the same schedule, so importing again changes nothing. CRON_TZ=ZONE and TZ=ZONE in the file take effect.",
		Example: "  crontab -l | waggle schedule import crontab - --type shell",
		Args:    oneArg("crontab"),
		RunE:    func(cmd *cobra.Command, args []string) error { return a.importCrontab(cmd.Context(), f, args[0]) },
	}
	flags := cmd.Flags()
	flags.Var(&name{&f.typ, "task type"}, "type", "the type of the tasks")
	flags.Var(&name{&f.queue, "queue"}, "queue", "their queue (default \"default\")")
	flags.StringVar(&f.zone, "tz", "", "the time `ZONE` of lines that name none (default \"UTC\")")
	flags.Var(&name{&f.prefix, "prefix"}, "prefix", "what the names of the schedules begin with")
	flags.BoolVar(&f.system, "system", false, "it is a system crontab, with a user's name before each command")
	flags.BoolVar(&f.dryRun, "dry-run", false, "only say what would be created")
	return cmd
}

func (a *app) importCrontab(ctx context.Context, f *crontabFlags, file string) error {
	in := a.in
	if file != "-" {
		opened, err := os.Open(file)
		if err != nil {
			return driver.Invalidf("the crontab can't be read: %w", err)
		}
		defer opened.Close()
		in = opened
	}
	list, err := f.read(in)
	if err != nil {
		return err
	}
	if f.dryRun {
		return a.printImported(list)
	}
	return a.withClientOf(ctx, a.openOrMake, func(c *waggle.Client) error {
		for i, s := range list {
			if _, err := c.PutSchedule(ctx, s); err != nil {
				return partlyf("%s imported, then it failed: %w", plural(i, "schedule"), err)
			}
		}
		return a.printImported(list)
	})
}

func (a *app) printImported(list []waggle.Schedule) error {
	type imported struct {
		Name    string `json:"name"`
		Line    string `json:"line"`
		Zone    string `json:"tz"`
		Command string `json:"command"`
	}
	l := a.newList(left("SCHEDULE"), left("LINE"), left("ZONE"), left("COMMAND"))
	for _, s := range list {
		v := imported{s.Name, s.Line, s.Zone, s.Options.Headers[headerCommand]}
		if err := l.add(v, func() []string { return []string{v.Name, v.Line, v.Zone, v.Command} }); err != nil {
			return l.close(err)
		}
	}
	if len(list) == 0 {
		a.say("the crontab has no lines")
	}
	return l.close(nil)
}

// headerCommand keeps the command where people see it.
const headerCommand = "crontab-command"

// read returns a schedule for each line, or what is wrong with all of them.
func (f *crontabFlags) read(in io.Reader) ([]waggle.Schedule, error) {
	zone := f.zone
	if zone == "" {
		zone = "UTC"
	}
	var list []waggle.Schedule
	var errs []error
	seen := map[string]bool{}
	scanner := bufio.NewScanner(in)
	for no := 1; scanner.Scan(); no++ {
		text := strings.TrimSpace(scanner.Text())
		if text == "" || text[0] == '#' {
			continue
		}
		if key, value, ok := crontabVariable(text); ok {
			if key == "CRON_TZ" || key == "TZ" {
				zone = value
			}
			continue
		}
		s, err := f.line(text, zone)
		if err != nil {
			errs = append(errs, fmt.Errorf("line %d: %w", no, err))
			continue
		}
		if !seen[s.Name] {
			seen[s.Name] = true
			list = append(list, s)
		}
	}
	if err := scanner.Err(); err != nil {
		errs = append(errs, err)
	}
	if len(errs) > 0 {
		return nil, driver.Errorf(driver.ErrInvalid, "%w", errors.Join(errs...))
	}
	return list, nil
}

// crontabVariable takes a line like NAME = value apart.
func crontabVariable(text string) (key, value string, ok bool) {
	key, value, ok = strings.Cut(text, "=")
	key = strings.TrimSpace(key)
	if !ok || key == "" || strings.ContainsAny(key, " \t*@") {
		return "", "", false
	}
	return key, strings.Trim(strings.TrimSpace(value), `"'`), true
}

// line makes a schedule of one line.
func (f *crontabFlags) line(text, zone string) (waggle.Schedule, error) {
	n := 5
	if text[0] == '@' {
		n = 1
	}
	fields := strings.Fields(text)
	if f.system {
		n++
	}
	if len(fields) <= n {
		return waggle.Schedule{}, driver.Invalidf("there is no command after the times")
	}
	rest := text
	for range n {
		rest = strings.TrimLeft(rest[strings.IndexAny(rest, " \t"):], " \t")
	}
	when := fields[:n]
	if f.system {
		when = when[:n-1]
	}
	line := strings.Join(when, " ")
	if line == "@reboot" {
		return waggle.Schedule{}, driver.Invalidf("@reboot is not a time: leave the line out")
	}
	if strings.Contains(strings.ReplaceAll(rest, `\%`, ""), "%") {
		return waggle.Schedule{}, driver.Invalidf("the command has a %% that cron takes for its standard input, which can't be imported")
	}
	command := strings.ReplaceAll(rest, `\%`, "%")
	s := waggle.Schedule{Name: f.nameOf(line, zone, command), Line: line, Zone: zone, Type: f.typ, Payload: payloadText(command),
		Options: &waggle.EnqueueOptions{Queue: f.queue, Headers: map[string]string{headerCommand: asciiOf(command)}}}
	_, err := s.NextTicks(time.Now(), 1)
	return s, err
}

// nameOf names a schedule by its program and what follows from the line.
func (f *crontabFlags) nameOf(line, zone, command string) string {
	sum := sha256.Sum256([]byte(line + "\x00" + zone + "\x00" + command))
	program := strings.Map(func(r rune) rune {
		if r < 0x80 && driver.CheckName("", string(r), 1) == nil {
			return r
		}
		return -1
	}, path.Base(strings.Fields(command)[0]))
	return f.prefix + program[:min(len(program), 40)] + "-" + hex.EncodeToString(sum[:4])
}

// asciiOf is a text as the value of a header.
func asciiOf(s string) string { return driver.CutText(strings.ToValidUTF8(s, "?"), 256) }
