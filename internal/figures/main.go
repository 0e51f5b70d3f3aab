// Command figures measures what Waggle promises on one machine, and says of each figure whether it was met: `make bench`.
//
// It works on package sqlitestore with its default options, so with fsync, through package waggle, with payloads of 100
// bytes. What is given as a rate is measured in rounds that take turns with a loop over a bare SQLite file; every task's
// run is counted, and one that did not run, or ran twice, makes the command fail.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	if role := os.Getenv(roleVariable); role != "" {
		os.Exit(runRole(role))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
		os.Exit(2)
	case err != nil:
		fmt.Fprintf(os.Stderr, "figures: %v\n", err)
		os.Exit(1)
	}
}

// timeLimit ends a run in which a task got lost.
const timeLimit = 20 * time.Minute

// settings are what the flags say.
type settings struct {
	quick  bool
	strict bool
	only   []string
	dir    string
	format string
	write  string
	sizes
}

// sizes are how much is measured.
type sizes struct {
	rounds    int // of everything that takes turns
	rate      int // tasks a round, of each rate over SQLite
	memory    int // tasks a round, in memory
	backlog   int // tasks queued in the deep queue
	windows   int // processed a round at each depth, of windowSize tasks
	pickups   int // a round and process
	scheduled int // a round
	short     int // recoveries with a lease of a second
	long      int // recoveries with the default lease
	idle      time.Duration
}

var (
	full  = sizes{5, 100_000, 400_000, 1_000_000, 4, 80, 80, 5, 2, 2 * time.Second}
	quick = sizes{3, 20_000, 100_000, 100_000, 1, 30, 30, 2, 1, time.Second}
)

func parse(args []string) (*settings, error) {
	s := &settings{sizes: full}
	flags := flag.NewFlagSet("figures", flag.ContinueOnError)
	only := flags.String("only", "", "the groups to measure, comma-separated (default all): "+strings.Join(groupNames(), ","))
	flags.BoolVar(&s.quick, "quick", false, "less of everything, in under a minute: good for a look, not for the record")
	flags.BoolVar(&s.strict, "strict", false, "fail if a goal was missed")
	flags.StringVar(&s.dir, "dir", "", "where the databases are put (default: the system's directory for temporary files)")
	flags.StringVar(&s.format, "o", "table", "table or json")
	flags.StringVar(&s.write, "write", "", "write the report to this `file` as well, such as docs/figures.md")
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	if *only != "" {
		s.only = strings.Split(*only, ",")
	}
	if s.quick {
		s.sizes = quick
	}
	switch {
	case flags.NArg() > 0:
		return nil, fmt.Errorf("there are no arguments, only flags: got %q", flags.Arg(0))
	case s.format != "table" && s.format != "json":
		return nil, fmt.Errorf("-o is table or json, not %q", s.format)
	case s.write != "" && (s.quick || len(s.only) > 0):
		return nil, errors.New("-write is for a whole run: leave -quick and -only out")
	}
	for _, name := range s.only {
		if !slices.Contains(groupNames(), name) {
			return nil, fmt.Errorf("there is no group %q: take some of %s", name, strings.Join(groupNames(), ", "))
		}
	}
	return s, nil
}

func run(ctx context.Context, args []string) (err error) {
	s, err := parse(args)
	if err != nil {
		return err
	}
	l := &lab{settings: s, board: newBoard()}
	ctx, cancel := context.WithTimeoutCause(ctx, timeLimit, fmt.Errorf("not done within %v", timeLimit))
	defer cancel()
	if l.dir, err = os.MkdirTemp(s.dir, "waggle-figures-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(l.dir)) }()
	r := &report{Settings: describe(s)}
	if r.Machine, err = describeMachine(l.dir); err != nil {
		return err
	}
	began := time.Now()
	if err := l.measure(ctx); err != nil {
		return err
	}
	r.Seconds, r.Tasks, r.Rows = int(time.Since(began).Seconds()), l.board.tasks, l.board.rows()
	if err := r.print(os.Stdout, s.format); err != nil {
		return err
	}
	if s.write != "" {
		if err := r.write(s.write); err != nil {
			return err
		}
	}
	if missed := r.missed(); s.strict && len(missed) > 0 {
		return fmt.Errorf("goals missed: %s", strings.Join(missed, ", "))
	}
	return nil
}

// lab is one run of the measurements.
type lab struct {
	*settings
	board *board
	dir   string
}

// group measures some figures that belong together: once, or a part in each round.
type group struct {
	name  string
	start func(ctx context.Context, l *lab) (probe, error)
}

// probe is a group under way.
type probe interface {
	// round measures a part.
	round(ctx context.Context) error
	// close ends the measurement and checks that nothing was lost; it is called after a failed round too.
	close(ctx context.Context) error
}

// groups are in the order of the report. Those that need a quiet machine and those that load it are never at work at the
// same time.
var groups = []group{
	{"bulk", startRates}, {"single", startRates}, {"process", startRates}, {"memory", startMemory}, {"backlog", startBacklog},
	{"pickup", startPickup}, {"lateness", startLateness}, {"recovery", startRecovery}, {"idle", startIdle},
}

func groupNames() []string {
	names := make([]string, len(groups))
	for i, g := range groups {
		names[i] = g.name
	}
	return names
}

func (l *lab) wants(name string) bool { return len(l.only) == 0 || slices.Contains(l.only, name) }

// measure runs all groups, round by round, so that what changes on the machine meanwhile touches all alike.
func (l *lab) measure(ctx context.Context) (err error) {
	probes := map[string]probe{}
	var order []string
	defer func() {
		for _, name := range order {
			err = errors.Join(err, named(name, probes[name].close(context.WithoutCancel(ctx))))
		}
	}()
	for _, g := range groups {
		family := g.family()
		if !l.wants(g.name) || probes[family] != nil {
			continue
		}
		l.say("%s: preparing", family)
		p, err := g.start(ctx, l)
		if err != nil {
			return named(family, err)
		}
		probes[family], order = p, append(order, family)
	}
	for i := range l.rounds {
		for _, name := range order {
			l.say("round %d of %d: %s", i+1, l.rounds, name)
			debug.FreeOSMemory() // what the one before left is not for the next to clear up
			if err := probes[name].round(ctx); err != nil {
				return named(name, err)
			}
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
		}
	}
	return nil
}

// family is the name of the probe that a group belongs to: the rates over SQLite are measured together.
func (g group) family() string {
	switch g.name {
	case "bulk", "single", "process":
		return "rates"
	}
	return g.name
}

func named(name string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", name, err)
}

func (l *lab) say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, time.Now().Format(time.TimeOnly)+" "+format+"\n", args...)
}

var quiet = slog.New(slog.NewTextHandler(io.Discard, &slog.HandlerOptions{Level: slog.LevelError}))
