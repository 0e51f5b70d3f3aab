package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"github.com/waggleq/waggle"
	"github.com/waggleq/waggle/driver"
)

const (
	benchCallers = 50
	benchBatch   = 500
	benchSlots   = 100
	benchPickups = 200
	benchType    = "bench"
	// benchPause lets the worker fall asleep between two pick-ups, so that it is an idle one that is measured.
	benchPause = 10 * time.Millisecond
)

// benchPayload is 100 bytes of JSON.
var benchPayload = json.RawMessage(`"` + strings.Repeat("x", 98) + `"`)

// benchFlags are the flags of waggle bench.
type benchFlags struct {
	tasks      int
	durability string
}

func (a *app) benchCommand() *cobra.Command {
	f := &benchFlags{tasks: 100_000}
	cmd := &cobra.Command{
		Use: "bench", Short: "Measure a store on this machine", GroupID: "about", Args: noArgs,
		Long: "Measures: adding tasks from 50 callers at once, and in batches of 500; processing them in one worker with 100\n" +
			"slots and handlers that do nothing; how soon an idle worker starts a task; and bytes stored a queued task.\n" +
			"Payloads have 100 bytes. Uses a store of its own, or with --store a queue of its own, and leaves nothing behind.",
		RunE: func(cmd *cobra.Command, _ []string) error { return a.bench(cmd.Context(), f) },
	}
	cmd.Flags().Var(&count{&f.tasks, 1000, 10_000_000}, "tasks", "how many tasks are added in batches; a quarter of it singly")
	cmd.Flags().Var(&choice{&f.durability, []string{"memory", "disk", "replicated"}}, "durability", "how safely they are stored (default: as the store does)")
	return cmd
}

// benchFigures is what `bench -o json` prints.
type benchFigures struct {
	Store        string      `json:"store"`
	SinglePerS   float64     `json:"enqueue_single_per_s"`
	BulkPerS     float64     `json:"enqueue_bulk_per_s"`
	ProcessPerS  float64     `json:"process_per_s"`
	PickupMS     percentiles `json:"pickup_ms"`
	BytesPerTask float64     `json:"bytes_per_task"`
}

type percentiles struct {
	P50 float64 `json:"p50"`
	P99 float64 `json:"p99"`
}

// bench is one run of the measurements.
type bench struct {
	*app
	flags  *benchFlags
	client *waggle.Client
	store  driver.Store
	opts   *waggle.EnqueueOptions
	bar    *progress
	out    benchFigures
}

func (a *app) bench(ctx context.Context, f *benchFlags) (err error) {
	name := a.store
	cleanUp, err := a.temporaryStore("waggle-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cleanUp()) }()
	store, err := a.openOrMake(ctx) // a store in memory will do here
	if err != nil {
		return fmt.Errorf("store %s: %w", a.storeURL(), err)
	}
	defer store.Close()
	client, err := waggle.NewClient(store, nil)
	if err != nil {
		return err
	}
	b := &bench{app: a, flags: f, client: client, store: store, bar: a.newProgress(f.tasks+f.tasks/4, "measuring"),
		opts: &waggle.EnqueueOptions{Queue: "bench-" + driver.NewID(), Durability: driver.Durability(f.durability)}}
	b.out.Store = "sqlite:(its own)"
	if name != "" {
		b.out.Store = a.storeURL()
	}
	defer func() { err = errors.Join(err, b.leave(context.WithoutCancel(ctx))) }()
	if err := b.run(ctx); err != nil {
		b.bar.close()
		return err
	}
	b.bar.close()
	return a.printObject(b.out, b.printTable)
}

func (b *bench) run(ctx context.Context) error {
	// Completed tasks would be pruned at a bound that has nothing to do with the measurement.
	keep := driver.DefaultRetention()
	keep.Completed = driver.KeepNone
	if err := b.client.SetRetention(ctx, b.opts.Queue, keep); err != nil {
		return err
	}
	for _, step := range []func(context.Context) error{b.pickup, b.bulk, b.single, b.process} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// leave removes what was put in.
func (b *bench) leave(ctx context.Context) error {
	change := driver.Change{Op: driver.OpDelete, Filter: driver.Filter{Queues: []string{b.opts.Queue}}}
	_, err := applyAll(ctx, b.client, change, 20_000_000, func(int) {})
	return err
}

// bulk adds tasks in batches, and weighs them.
func (b *bench) bulk(ctx context.Context) error {
	before, err := b.client.Info(ctx)
	if err != nil {
		return err
	}
	batch := make([]waggle.NewTask, benchBatch)
	for i := range batch {
		batch[i] = waggle.NewTask{Type: benchType, Payload: benchPayload, Options: b.opts}
	}
	start := time.Now()
	for left := b.flags.tasks; left > 0; left -= benchBatch {
		results, err := b.client.EnqueueBatch(ctx, batch[:min(left, benchBatch)])
		if err != nil {
			return err
		}
		for _, r := range results {
			if r.Err != nil {
				return r.Err
			}
		}
		b.bar.add(len(results))
	}
	b.out.BulkPerS = perSecond(b.flags.tasks, start)
	after, err := b.client.Info(ctx)
	if err != nil {
		return err
	}
	b.out.BytesPerTask = max(0, float64(after.Bytes-before.Bytes)/float64(b.flags.tasks))
	return nil
}

// single adds tasks from many callers, one by one.
func (b *bench) single(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	total := int64(b.flags.tasks / 4)
	var taken atomic.Int64
	var wg sync.WaitGroup
	start := time.Now()
	for range benchCallers {
		wg.Go(func() {
			for taken.Add(1) <= total {
				if _, err := b.client.Enqueue(ctx, benchType, benchPayload, b.opts); err != nil {
					cancel(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.out.SinglePerS = perSecond(int(total), start)
	b.bar.add(int(total))
	return context.Cause(ctx)
}

// worker returns a worker whose handlers call run.
func (b *bench) worker(run func(), untilEmpty bool) (*waggle.Worker, error) {
	w, err := waggle.NewWorker(b.store, &waggle.WorkerOptions{
		Queues: []waggle.Queue{{Name: b.opts.Queue}}, Slots: benchSlots, UntilEmpty: untilEmpty,
		Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	if err != nil {
		return nil, err
	}
	w.HandleFunc(benchType, func(context.Context, *waggle.Task) error {
		run()
		return nil
	}, nil)
	return w, nil
}

// process runs all that was added. The clock stops when the last handler's task is settled.
func (b *bench) process(ctx context.Context) error {
	var done atomic.Int64
	w, err := b.worker(func() { done.Add(1) }, true)
	if err != nil {
		return err
	}
	start := time.Now()
	if err := w.Run(ctx); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	b.out.ProcessPerS = perSecond(int(done.Load()), start)
	if want := int64(b.flags.tasks + b.flags.tasks/4); done.Load() != want {
		return failf("%d tasks were added but %d were run", want, done.Load())
	}
	return nil
}

// pickup measures from the call of Enqueue to the start of the handler, in a worker that has nothing else to do.
func (b *bench) pickup(ctx context.Context) error {
	started := make(chan time.Time, 1)
	w, err := b.worker(func() { started <- time.Now() }, false)
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	times, err := b.pickups(ctx, started, ended)
	stop()
	if err != nil {
		return err
	}
	slices.Sort(times)
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	b.out.PickupMS = percentiles{P50: ms(times[len(times)/2]), P99: ms(times[len(times)*99/100])}
	return <-ended
}

func (b *bench) pickups(ctx context.Context, started <-chan time.Time, ended chan error) ([]time.Duration, error) {
	var times []time.Duration
	pause := time.NewTicker(benchPause)
	defer pause.Stop()
	for i := range benchPickups + 1 {
		before := time.Now()
		if _, err := b.client.Enqueue(ctx, benchType, benchPayload, b.opts); err != nil {
			return nil, err
		}
		select {
		case at := <-started:
			if i > 0 { // the first one waits for the worker to come up
				times = append(times, at.Sub(before))
			}
		case err := <-ended:
			return nil, errors.Join(failf("the worker ended"), err)
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		<-pause.C
	}
	return times, nil
}

func perSecond(n int, start time.Time) float64 {
	return float64(int64(float64(n) / time.Since(start).Seconds()))
}

func (b *bench) printTable() error {
	_, err := fmt.Fprintf(b.app.out, "store              %s\nenqueue, 50 calls  %s/s\nenqueue, bulk      %s/s\nprocess            %s/s\npick-up            p50 %.2f ms, p99 %.2f ms\nbytes a task       %.0f\n",
		b.out.Store, grouped(int64(b.out.SinglePerS)), grouped(int64(b.out.BulkPerS)), grouped(int64(b.out.ProcessPerS)),
		b.out.PickupMS.P50, b.out.PickupMS.P99, b.out.BytesPerTask)
	return err
}
