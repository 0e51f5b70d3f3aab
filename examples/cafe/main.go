// Command cafe is a morning in three cafés: orders come in, and whatever happens every guest gets one drink and pays once.
//
//	go run ./examples/cafe               sixty orders in a minute
//	go run ./examples/cafe -orders 10    fewer, in less time
//
// Each café is a process with one machine of each kind; the customer database, the payment service and the counter are
// processes of their own. On the way the payment service is frozen and a café killed. docs/cafe.md explains it; an order is
// in order.go, the steps in barista.go, the payment service in payments.go.
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
	"syscall"
	"time"

	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/examples/stage"
)

func main() { os.Exit(run(os.Args[1:])) }

// usageCode is the exit code for arguments that can't be; the others are those of the waggle command.
const usageCode = 2

func run(args []string) int {
	role, err := stage.RoleOf[Role](roleVariable)
	if err == nil && role != nil {
		err = perform(role)
	} else if err == nil {
		err = command(args)
	}
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return 0
	case errors.Is(err, errUsage):
		fmt.Fprintln(os.Stderr, "cafe:", err)
		return usageCode
	}
	fmt.Fprintln(os.Stderr, "cafe:", err)
	return driver.ClassOf(err).Exit
}

var errUsage = errors.New("wrong arguments")

const (
	maxOrders   = 2000
	mostTime    = time.Minute // over which orders come in, by default
	betweenMost = time.Second // two orders, by default
)

// options are what the command is told.
type options struct {
	orders int
	over   time.Duration
	store  string
	output string
	log    io.Writer // what the processes complain about
}

func parse(args []string) (*options, error) {
	o := &options{log: io.Discard}
	var verbose bool
	set := flag.NewFlagSet("cafe", flag.ContinueOnError)
	set.IntVar(&o.orders, "orders", 60, "how many orders")
	set.DurationVar(&o.over, "over", 0, "the time in which they come in (default: one a second, and no more than a minute)")
	set.StringVar(&o.store, "store", "", "the `URL` of the store (default: a SQLite file that is removed at the end)")
	set.StringVar(&o.output, "o", "text", "text, or json for one object of figures at the end")
	set.BoolVar(&verbose, "v", false, "show what the processes complain about")
	if err := set.Parse(args); errors.Is(err, flag.ErrHelp) {
		return nil, err
	} else if err != nil {
		return nil, fmt.Errorf("%w (see -help)", errUsage)
	}
	switch {
	case set.NArg() > 0:
		return nil, fmt.Errorf("%w: there is no command %q", errUsage, set.Arg(0))
	case o.orders < 1 || o.orders > maxOrders:
		return nil, fmt.Errorf("%w: the number of orders must be between 1 and %d, got %d", errUsage, maxOrders, o.orders)
	case o.over < 0 || o.over > time.Hour:
		return nil, fmt.Errorf("%w: orders come in over at most an hour, not %v", errUsage, o.over)
	case o.output != "text" && o.output != "json":
		return nil, fmt.Errorf("%w: -o is text or json, not %q", errUsage, o.output)
	}
	if o.over == 0 {
		o.over = min(mostTime, time.Duration(o.orders)*betweenMost)
	}
	if verbose {
		o.log = os.Stderr
	}
	return o, nil
}

func command(args []string) (err error) {
	o, err := parse(args)
	if err != nil {
		return err
	}
	if o.log == io.Discard {
		slog.SetDefault(slog.New(slog.NewTextHandler(io.Discard, nil)))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx = stage.EndWithGoRun(ctx)
	out := os.Stdout
	if o.output == "json" {
		out = os.Stderr
	}
	d, err := newDay(ctx, o, newStory(out))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.close()) }()
	broken := d.run(ctx)
	f, err := d.judge()
	switch {
	case err != nil:
	case o.output == "json":
		err = json.NewEncoder(os.Stdout).Encode(f)
	case broken == nil:
		d.conclude(f)
	}
	if err = errors.Join(broken, err); err == nil {
		err = d.verdict(f)
	}
	return err
}
