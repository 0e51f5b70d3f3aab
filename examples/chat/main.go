// Command chat is a chat that shows what a distributed system is: two web servers, a queue, three workers and a database of
// three nodes, on one machine, in a picture that lives, and every one of them can be killed with a click.
//
//	go run ./examples/chat          start it; prints two addresses to open
//	go run ./examples/chat bench    measure it, while nodes die
//
// docs/chat.md explains it. The path of a message is in package room, a file for each step.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/examples/chat/system"
	"github.com/waggleq/waggle/examples/chat/wire"
	"github.com/waggleq/waggle/examples/stage"
)

func main() { os.Exit(run(os.Args[1:])) }

// usageCode is the exit code for arguments that can't be; the others are those of the waggle command.
const usageCode = 2

func run(args []string) int {
	role, err := wire.RoleOf()
	if err == nil && role != nil {
		err = play(role)
	} else if err == nil {
		err = command(args)
	}
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return 0
	case errors.Is(err, errFailed):
		return 1
	}
	fmt.Fprintln(os.Stderr, "chat:", err)
	if errors.Is(err, errUsage) {
		return usageCode
	}
	return driver.ClassOf(err).Exit
}

var (
	errUsage = errors.New("wrong arguments")
	// errFailed is a result that says itself what is wrong.
	errFailed = errors.New("failed")
)

// flags are those of both commands.
type flags struct {
	system.Options
	output   string
	duration time.Duration
	verbose  bool
}

func (f *flags) parse(name string, args []string, more func(*flag.FlagSet)) error {
	set := flag.NewFlagSet(name, flag.ContinueOnError)
	set.StringVar(&f.Store, "store", "", "the `URL` of a deployment that exists: nothing of it is started, killed or frozen")
	set.IntVar(&f.Workers, "workers", 3, "how many worker processes")
	set.IntVar(&f.Port, "port", 0, "the port of A1; A2 has the next one (default: free ones)")
	set.StringVar(&f.Room, "room", "lobby", "the room that the page opens")
	set.StringVar(&f.output, "o", "text", "text, or json for one object of figures at the end")
	set.BoolVar(&f.verbose, "v", false, "show what the processes complain about")
	if more != nil {
		more(set)
	}
	if err := set.Parse(args); errors.Is(err, flag.ErrHelp) {
		return err
	} else if err != nil {
		return fmt.Errorf("%w (see -help)", errUsage)
	}
	switch {
	case set.NArg() > 0:
		return fmt.Errorf("%w: %q is no command: there is bench, or nothing", errUsage, set.Arg(0))
	case f.output != "text" && f.output != "json":
		return fmt.Errorf("%w: -o is text or json, not %q", errUsage, f.output)
	}
	if f.verbose {
		f.Log = os.Stderr
	}
	return nil
}

func command(args []string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx = stage.EndWithGoRun(ctx)
	f := &flags{}
	if len(args) > 0 && args[0] == "bench" {
		err := f.parse("chat bench", args[1:], func(set *flag.FlagSet) {
			set.DurationVar(&f.duration, "duration", defaultBench, "how long to measure, with faults all along if it is longer than a minute")
		})
		if err != nil {
			return err
		}
		return bench(ctx, f)
	}
	if err := f.parse("chat", args, nil); err != nil {
		return err
	}
	return show(ctx, f)
}

// show runs the chat until it is told to end.
func show(ctx context.Context, f *flags) (err error) {
	if !f.verbose {
		slog.SetDefault(slog.New(slog.NewTextHandler(io.Discard, nil)))
	}
	s, err := system.Start(ctx, &f.Options)
	if err != nil {
		return err
	}
	out := io.Writer(os.Stdout)
	if f.output == "json" {
		out = os.Stderr
	}
	introduce(out, s)
	<-ctx.Done()
	fmt.Fprintln(out, "\nStopping everything.")
	figures := s.Figures()
	if err := s.Close(); err != nil {
		return err
	}
	if f.output == "json" {
		return json.NewEncoder(os.Stdout).Encode(figures)
	}
	return nil
}

func introduce(out io.Writer, s *system.System) {
	at := s.Addresses()
	fmt.Fprintf(out, "The chat is ready, in two web servers that know nothing of each other:\n\n  A1  %s\n  A2  %s\n\n", at[0], at[1])
	fmt.Fprintf(out, "Store: %s. A message counts as sent at level %q.\n\n", s.StoreName(), s.Level())
	lines := []string{
		"Open both, in two windows, and write something.",
		"Kill the master of the database while you write: nothing is lost.",
		"Kill A1: its window goes on at A2 by itself.",
	}
	if !s.OwnsDatabase() {
		lines[1] = "Kill a worker while you write: the others finish what it had in hand."
	}
	fmt.Fprintf(out, "Try this:\n  - %s\n\nCtrl-C ends all of it.\n", strings.Join(lines, "\n  - "))
}
