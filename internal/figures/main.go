// Command figures measures what Waggle promises, and says of each figure whether it was met.
//
// With the default engine, package sqlitestore with its default options and so with fsync, that is `make bench`; with
// -engine redis it is what package redisstore promises, on servers that this program starts and stops: `make
// figures-redis`. All of it goes through package waggle, with payloads of 100 bytes. What is given as a ratio is measured
// in rounds that take turns; every task's run is counted, and one that did not run, or ran twice, makes the command fail.
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

	"github.com/waggleq/waggle/internal/redisserver"
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
	suite  *suite
	server string // the product that package redisstore is measured on
	quick  bool
	strict bool
	only   []string
	dir    string
	format string
	write  string
	sizes
}

// suite is what is measured of one engine.
type suite struct {
	figures     []figure
	groups      []group // in the order of the report
	full, quick sizes
	describe    func(context.Context, *settings) (any, error) // how much is measured, and on what
	page        func(*report, *settings) string
}

var suites = map[string]*suite{"sqlite": sqliteSuite, "redis": redisSuite}

// sizes are how much is measured. A suite uses some of them.
type sizes struct {
	rounds    int // of everything that takes turns
	rate      int // tasks a round, of each rate
	memory    int // tasks a round, in memory
	backlog   int // tasks queued in the deep queue
	windows   int // processed a round at each depth, of windowSize tasks
	pickups   int // a round and process
	scheduled int // a round
	short     int // recoveries with a lease of a second
	long      int // recoveries with the default lease
	idle      time.Duration
	crowd     time.Duration // that many idle workers are watched
	watches   int           // of rounds in which idle workers are watched
	queues    int           // that one worker serves
	spread    int           // tasks queued in those
	workers   int           // that wait for one task
	wakes     int           // of such tasks, a round
	agains    int           // tasks of each kind that run again, a round
	alone     int           // tasks a round that find the store empty
	failovers int
	steps     int // of a workflow that fans out and in
	hops      int // of a workflow that is a chain
	schedules int // in a store
	seconds   int // for which some of them fire, a round
	atOnce    int // tasks that are due in the same second
}

func parse(args []string) (*settings, error) {
	s := new(settings)
	flags := flag.NewFlagSet("figures", flag.ContinueOnError)
	engine := flags.String("engine", "sqlite", "sqlite or redis")
	flags.StringVar(&s.server, "server", string(redisserver.Redis), "the servers to start for -engine redis: redis or valkey; the level disk is measured on both")
	only := flags.String("only", "", "the groups to measure, comma-separated (default all); sqlite: "+
		strings.Join(sqliteSuite.groupNames(), ",")+"; redis: "+strings.Join(redisSuite.groupNames(), ","))
	flags.BoolVar(&s.quick, "quick", false, "less of everything, in about a minute: good for a look, not for the record")
	flags.BoolVar(&s.strict, "strict", false, "fail if a goal was missed")
	flags.StringVar(&s.dir, "dir", "", "where databases and servers keep their files (default: the system's directory for temporary files)")
	flags.StringVar(&s.format, "o", "table", "table or json")
	flags.StringVar(&s.write, "write", "", "write the report to this `file` as well, such as docs/figures.md")
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	if *only != "" {
		s.only = strings.Split(*only, ",")
	}
	if s.suite = suites[*engine]; s.suite == nil {
		return nil, fmt.Errorf("-engine is sqlite or redis, not %q", *engine)
	}
	s.sizes = s.suite.full
	if s.quick {
		s.sizes = s.suite.quick
	}
	switch {
	case !slices.Contains(redisserver.Flavours(), redisserver.Flavour(s.server)):
		return nil, fmt.Errorf("-server is redis or valkey, not %q", s.server)
	case flags.NArg() > 0:
		return nil, fmt.Errorf("there are no arguments, only flags: got %q", flags.Arg(0))
	case s.format != "table" && s.format != "json":
		return nil, fmt.Errorf("-o is table or json, not %q", s.format)
	case s.write != "" && (s.quick || len(s.only) > 0):
		return nil, errors.New("-write is for a whole run: leave -quick and -only out")
	}
	for _, name := range s.only {
		if names := s.suite.groupNames(); !slices.Contains(names, name) {
			return nil, fmt.Errorf("there is no group %q: take some of %s", name, strings.Join(names, ", "))
		}
	}
	return s, nil
}

func run(ctx context.Context, args []string) (err error) {
	s, err := parse(args)
	if err != nil {
		return err
	}
	l := &lab{settings: s, board: newBoard(s.suite.figures)}
	ctx, cancel := context.WithTimeoutCause(ctx, timeLimit, fmt.Errorf("not done within %v", timeLimit))
	defer cancel()
	if l.dir, err = os.MkdirTemp(s.dir, "waggle-figures-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(l.dir)) }()
	if err := os.Setenv("TMPDIR", l.dir); err != nil { // servers make their directories there
		return err
	}
	r := &report{}
	if r.Settings, err = s.suite.describe(ctx, s); err != nil {
		return err
	}
	if r.Machine, err = describeMachine(l.dir); err != nil {
		return err
	}
	began := time.Now()
	if err := l.measure(ctx); err != nil {
		return err
	}
	r.Seconds, r.Tasks, r.Rows, r.Notes = int(time.Since(began).Seconds()), l.board.tasks, l.board.rows(), l.board.notes
	if err := r.print(os.Stdout, s.format); err != nil {
		return err
	}
	if s.write != "" {
		if err := os.WriteFile(s.write, []byte(s.suite.page(r, s)), 0o644); err != nil {
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

func (s *suite) groupNames() []string {
	names := make([]string, len(s.groups))
	for i, g := range s.groups {
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
	for _, g := range l.suite.groups {
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
