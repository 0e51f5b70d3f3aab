package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) == 2 && args[0] == childCommand {
		return runContestant(ctx, args[1])
	}
	o, err := parseOptions(args)
	if err != nil {
		return err
	}
	if !o.render {
		if err := measureAll(ctx, o); err != nil {
			return err
		}
	}
	r, err := readResults(o.results)
	if err != nil {
		return err
	}
	if o.out == "" {
		return writePage(os.Stdout, r, "img")
	}
	return renderFiles(r, o.out)
}

// runContestant does the job that another process of this program asks for.
func runContestant(ctx context.Context, arg string) error {
	var j job
	if err := json.Unmarshal([]byte(arg), &j); err != nil {
		return err
	}
	specs, err := find([]string{j.Contestant})
	if err != nil {
		return err
	}
	if specs[0].open == nil {
		return fmt.Errorf("%s is not run by this program", j.Contestant)
	}
	return perform(ctx, specs[0], j, os.Stdout)
}

type options struct {
	settings settings
	only     []string
	results  string
	out      string
	dir      string
	render   bool
}

func parseOptions(args []string) (*options, error) {
	o := new(options)
	full := fullSettings()
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	quick := flags.Bool("quick", false, "measure little, in about two minutes: a smoke test, not figures")
	rounds := flags.Int("rounds", full.Rounds, "samples of each figure")
	seconds := flags.Float64("seconds", full.RunSeconds, "length of the timed part of a measurement of throughput")
	samples := flags.Int("samples", full.PickupSamples, "pick-ups a round")
	kills := flags.Int("kills", full.RecoverySamples, "killed workers a queue")
	limit := flags.Float64("cap", full.RecoveryCapSeconds, "seconds to wait at most for a task of a killed worker")
	only := flags.String("only", "", "measure these contestants only, separated by commas")
	flags.StringVar(&o.results, "results", "", "file of the samples; empty: results.json, or results-quick.json with -quick")
	flags.StringVar(&o.out, "out", "", "page to write, with its plots in img beside it; empty: print it, without plots")
	flags.StringVar(&o.dir, "dir", "", "directory for the databases, on a real disk; empty: the system's temporary directory")
	flags.BoolVar(&o.render, "render", false, "measure nothing, render the samples in the results file")
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	if flags.NArg() > 0 {
		return nil, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	o.settings = full
	file := "results.json"
	if *quick {
		o.settings, file = quickSettings(), "results-quick.json"
	}
	o.results = cmp.Or(o.results, file)
	flags.Visit(func(f *flag.Flag) {
		switch f.Name {
		case "rounds":
			o.settings.Rounds = *rounds
		case "seconds":
			o.settings.RunSeconds = *seconds
		case "samples":
			o.settings.PickupSamples = *samples
		case "kills":
			o.settings.RecoverySamples = *kills
		case "cap":
			o.settings.RecoveryCapSeconds = *limit
		}
	})
	if *only != "" {
		o.only = strings.Split(*only, ",")
	}
	return o, o.settings.validate()
}

// measureAll measures and writes the results file.
func measureAll(ctx context.Context, o *options) (err error) {
	specs, err := find(o.only)
	if err != nil {
		return err
	}
	begin := time.Now()
	r := &results{Taken: begin.UTC().Truncate(time.Second), Settings: o.settings, Of: map[string]*series{}}
	if r.Versions, err = versions(ctx, specs); err != nil {
		return err
	}
	stores, err := newStores(o.dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stores.Close()) }()
	if r.Machine, err = describeMachine(stores.dir); err != nil {
		return err
	}
	var log io.Writer = os.Stderr
	l := &lab{settings: o.settings, specs: specs, stores: stores, results: r, log: log}
	if err := l.run(ctx); err != nil {
		return err
	}
	r.Took = time.Since(begin).Round(time.Second).String()
	return r.write(o.results)
}
