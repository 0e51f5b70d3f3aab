package cli

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/waggleq/waggle"
	"github.com/waggleq/waggle/driver"
)

// A worker process of the demo is this program again, under a hidden command. It tells what it does in lines of JSON
// on standard output, and stops when its standard input ends: when it is told to, or when the demo is gone.

// demoPayload is the payload of a task of the demo.
type demoPayload struct {
	Title string        `json:"title"`
	Work  time.Duration `json:"work_ns"`
}

// demoNews is what a worker tells.
type demoNews struct {
	Kind string `json:"kind"`
	ID   string `json:"id,omitzero"` // of the task

	worker *demoWorker
	at     time.Time
	err    error
}

// The kinds of news.
const (
	newsStart = "start" // a handler begins
	newsHalf  = "half"  // it is halfway through
	newsDone  = "done"  // it has returned
	newsGone  = "gone"  // the process has ended
)

// demoSteps is in how many steps a task of the demo is done.
const demoSteps = 20

func (a *app) demoWorkerCommand() *cobra.Command {
	var queue, name string
	var lease time.Duration
	cmd := &cobra.Command{
		Use: "demo-worker", Hidden: true, Args: noArgs, Short: "A worker process of waggle demo",
		RunE: func(cmd *cobra.Command, _ []string) error { return a.demoWork(cmd.Context(), queue, name, lease) },
	}
	cmd.Flags().StringVar(&queue, "queue", "", "the demo's queue")
	cmd.Flags().StringVar(&name, "name", "", "the worker's name")
	cmd.Flags().DurationVar(&lease, "lease", demoLease, "its lease")
	return cmd
}

func (a *app) demoWork(ctx context.Context, queue, name string, lease time.Duration) error {
	store, err := a.open(ctx, a.openOrMake)
	if err != nil {
		return err
	}
	defer store.Close()
	w, err := waggle.NewWorker(store, &waggle.WorkerOptions{
		Queues: []waggle.Queue{{Name: queue}}, Slots: 1, Lease: lease, Name: name, Build: version(),
		Logger: a.workLog(slog.LevelWarn),
	})
	if err != nil {
		return err
	}
	var mu sync.Mutex
	tell := func(kind, id string) {
		mu.Lock()
		defer mu.Unlock()
		_ = writeJSON(a.out, demoNews{Kind: kind, ID: id}) // the demo may be gone: then standard input ends too
	}
	for _, kind := range demoTitles {
		waggle.Handle(w, kind.typ, func(ctx context.Context, t *waggle.Task, in demoPayload) error {
			return demoHandler(ctx, t, in, tell)
		}, nil)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		_, _ = io.Copy(io.Discard, a.in)
		cancel()
	}()
	return w.Run(ctx)
}

// demoHandler takes its time, step by step, as a task that calls other services does.
func demoHandler(ctx context.Context, t *waggle.Task, in demoPayload, tell func(kind, id string)) error {
	tell(newsStart, t.ID)
	step := time.NewTicker(max(in.Work/demoSteps, time.Microsecond))
	defer step.Stop()
	for i := range demoSteps {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-step.C:
		}
		t.Progress(float64(i+1), demoSteps, in.Title)
		if i+1 == demoSteps/2 {
			tell(newsHalf, t.ID)
		}
	}
	if err := t.SetResult(in.Title + ": done"); err != nil {
		return err
	}
	tell(newsDone, t.ID)
	return nil
}

// demoWorker is a worker process as the demo sees it.
type demoWorker struct {
	name   string
	cmd    *exec.Cmd
	stdin  io.Closer // closing it stops the worker
	stderr bytes.Buffer
	ended  chan struct{}
}

// startWorkers starts the worker processes and waits until the store knows them all.
func (d *demo) startWorkers(ctx context.Context) error {
	program, err := os.Executable()
	if err != nil {
		return failf("can't find this program to start it again: %w", err)
	}
	for i := range d.flags.workers {
		w := &demoWorker{name: fmt.Sprintf("worker-%d", i+1), ended: make(chan struct{})}
		w.cmd = exec.Command(program, "demo-worker", "--store", d.app.store, "--queue", d.queue, "--name", w.name, "--lease", d.lease.String())
		w.cmd.Args[0] = os.Args[0]
		w.cmd.Stderr = &w.stderr
		if err := w.start(d.news); err != nil {
			return failf("can't start %s: %w", w.name, err)
		}
		d.workers = append(d.workers, w)
	}
	return d.awaitWorkers(ctx)
}

// start starts the process and forwards what it tells.
func (w *demoWorker) start(news chan<- demoNews) error {
	stdin, err := w.cmd.StdinPipe()
	if err != nil {
		return err
	}
	stdout, err := w.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := w.cmd.Start(); err != nil {
		return err
	}
	w.stdin = stdin
	go func() {
		defer close(w.ended)
		for lines := bufio.NewScanner(stdout); lines.Scan(); {
			n := demoNews{worker: w, at: time.Now()}
			if json.Unmarshal(lines.Bytes(), &n) == nil {
				news <- n
			}
		}
		err := w.cmd.Wait()
		if w.stderr.Len() > 0 {
			err = errors.Join(err, errors.New(w.stderr.String()))
		}
		news <- demoNews{Kind: newsGone, worker: w, at: time.Now(), err: err}
	}()
	return nil
}

// awaitWorkers returns when all workers are registered, so that the tasks are spread over them.
func (d *demo) awaitWorkers(ctx context.Context) error {
	deadline := time.NewTimer(demoPatience)
	defer deadline.Stop()
	for tick := time.NewTicker(10 * time.Millisecond); ; {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-deadline.C:
			return failf("the worker processes are not ready after %s: is this machine very busy?", shortDuration(demoPatience))
		case n := <-d.news:
			return failf("%s did not start: %w", n.worker.name, n.err)
		case <-tick.C:
		}
		workers, err := d.client.Workers(ctx)
		if err != nil {
			return err
		}
		ready := 0
		for _, w := range workers {
			if len(w.Queues) == 1 && w.Queues[0] == d.queue {
				ready++
			}
		}
		if ready == len(d.workers) {
			return nil
		}
	}
}

// stopWorkers tells the workers to stop and waits for them.
func (d *demo) stopWorkers() {
	for _, w := range d.workers {
		_ = w.stdin.Close() // it may have ended
	}
	d.awaitEnds()
}

// killWorkers ends what is left of the workers.
func (d *demo) killWorkers() {
	for _, w := range d.workers {
		_ = w.cmd.Process.Kill() // it may have ended
	}
	d.awaitEnds()
}

// awaitEnds waits for all worker processes, and drops what they still tell.
func (d *demo) awaitEnds() {
	for _, w := range d.workers {
		for open := true; open; {
			select {
			case <-w.ended:
				open = false
			case <-d.news:
			}
		}
	}
}

// taskOf returns the record of a task of the demo.
func (d *demo) taskOf(ctx context.Context, id string) (*waggle.TaskInfo, error) {
	info, err := d.client.Get(ctx, id)
	if errors.Is(err, driver.ErrNotFound) {
		return nil, nil
	}
	return info, err
}
