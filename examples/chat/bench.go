package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"slices"
	"time"

	"github.com/waggleq/waggle/examples/chat/check"
	"github.com/waggleq/waggle/examples/chat/crowd"
	"github.com/waggleq/waggle/examples/chat/system"
)

// The parts of a measurement.
const (
	defaultBench = 38 * time.Second

	idlePart   = 5 * time.Second
	loadedPart = 6 * time.Second
	loadRate   = 200 // messages a second
	faultRate  = 50  // the same while nodes die
	messageLen = 1 << 10
	quietMost  = 20 * time.Second // for what is under way at the end
	senders    = 16
)

// results are the figures of the last line.
type results struct {
	Messages   int       `json:"messages"`
	Delivered  int       `json:"delivered"`
	Lost       int       `json:"lost"`
	Duplicated int       `json:"duplicated"`
	OutOfOrder int       `json:"out_of_order"`
	Faults     int       `json:"faults"`
	IdleMS     quantiles `json:"idle_ms"`
	LoadedMS   quantiles `json:"loaded_ms"`
	PauseMS    pauses    `json:"pause_ms"`
}

type quantiles struct {
	P50 float64 `json:"p50"`
	P99 float64 `json:"p99"`
}

// pauses are for how long nothing was delivered after a fault, at the longest.
type pauses struct {
	Killed float64 `json:"killed"`
	Frozen float64 `json:"frozen"`
}

// bench measures a chat while its nodes die.
func bench(ctx context.Context, f *flags) (err error) {
	slog.SetDefault(slog.New(slog.NewTextHandler(io.Discard, nil)))
	begun := time.Now()
	s, err := system.Start(ctx, &f.Options)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	b := &benchmark{system: s, out: os.Stderr, end: begun.Add(f.duration)}
	history := check.NewHistory()
	b.crowd = crowd.Gather(s.Addresses(), s.Room(), senders, history)
	defer b.crowd.Leave()
	if err := b.run(ctx); err != nil {
		return err
	}
	report := history.Check()
	for _, fault := range report.Faults {
		fmt.Fprintln(os.Stderr, "FAULT:", fault)
	}
	b.Messages, b.Delivered, b.Lost, b.Duplicated = report.Messages, report.Delivered, report.Lost, report.Duplicated
	b.OutOfOrder, b.Faults = report.OutOfOrder, s.Figures().Faults
	if err := b.print(f.output); err != nil {
		return err
	}
	if !report.OK() {
		return errFailed
	}
	return nil
}

func (b *benchmark) print(format string) error {
	if format == "json" {
		return json.NewEncoder(os.Stdout).Encode(b.results)
	}
	fmt.Printf("%d messages, %d delivered, %d lost, %d doubled, %d out of order, over %d faults\n",
		b.Messages, b.Delivered, b.Lost, b.Duplicated, b.OutOfOrder, b.Faults)
	fmt.Printf("from send to seen by another user: idle p50 %.1f ms, p99 %.1f ms; at %d a second p50 %.1f ms, p99 %.1f ms\n",
		b.IdleMS.P50, b.IdleMS.P99, loadRate, b.LoadedMS.P50, b.LoadedMS.P99)
	if b.system.OwnsDatabase() {
		fmt.Printf("delivery stopped for %.1f s when the master was killed, %.1f s when it was frozen\n", b.PauseMS.Killed/1000, b.PauseMS.Frozen/1000)
	}
	return nil
}

// benchmark is a measurement under way.
type benchmark struct {
	results
	system *system.System
	crowd  *crowd.Crowd
	out    io.Writer
	end    time.Time
}

func (b *benchmark) say(format string, args ...any) { fmt.Fprintf(b.out, format+"\n", args...) }

func (b *benchmark) run(ctx context.Context) error {
	b.say("Idle: one message at a time, for %v.", idlePart)
	idle, err := b.crowd.OneByOne(ctx, idlePart, messageLen)
	if err != nil {
		return err
	}
	b.IdleMS = quantilesOf(idle)
	b.say("Loaded: %d messages of %d bytes a second, for %v.", loadRate, messageLen, loadedPart)
	loaded, err := b.crowd.Load(ctx, loadedPart, loadRate, messageLen)
	if err != nil {
		return err
	}
	b.LoadedMS = quantilesOf(loaded)
	if err := b.faults(ctx); err != nil {
		return err
	}
	b.say("Waiting until everything is delivered.")
	quiet, cancel := context.WithTimeout(ctx, quietMost)
	defer cancel()
	return b.crowd.AwaitAll(quiet)
}

// faults breaks nodes, one after the other, while messages are sent.
func (b *benchmark) faults(ctx context.Context) error {
	load, stop := context.WithCancel(ctx)
	loaded := make(chan error, 1)
	go func() {
		_, err := b.crowd.Load(load, time.Until(b.end)+time.Hour, faultRate, messageLen)
		loaded <- err
	}()
	err := b.breakAll(ctx)
	stop()
	return errors.Join(err, <-loaded)
}

// breakAll does the faults that are measured, and if there is time more of them.
func (b *benchmark) breakAll(ctx context.Context) error {
	chaos := system.NewChaos(b.system, b.crowd.LastSeen, func(text string) { b.say("  %s", text) })
	if b.system.OwnsDatabase() {
		killed, err := chaos.FellMaster(ctx, system.Kill)
		if err != nil {
			return err
		}
		frozen, err := chaos.FellMaster(ctx, system.Freeze)
		if err != nil {
			return err
		}
		b.PauseMS = pauses{milliseconds(killed), milliseconds(frozen)}
	}
	return chaos.Break(ctx, b.end, func(fault system.Fault) {
		switch {
		case fault.Node != "master":
		case fault.Action == system.Kill:
			b.PauseMS.Killed = max(b.PauseMS.Killed, milliseconds(fault.Pause))
		default:
			b.PauseMS.Frozen = max(b.PauseMS.Frozen, milliseconds(fault.Pause))
		}
	})
}

func quantilesOf(samples []time.Duration) quantiles {
	if len(samples) == 0 {
		return quantiles{}
	}
	slices.Sort(samples)
	at := func(q float64) float64 {
		return milliseconds(samples[min(len(samples)-1, int(math.Ceil(q*float64(len(samples))))-1)])
	}
	return quantiles{at(0.5), at(0.99)}
}

// milliseconds is a duration to a tenth of one.
func milliseconds(d time.Duration) float64 { return math.Round(float64(d.Microseconds())/100) / 10 }
