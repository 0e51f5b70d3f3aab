package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// perform does job j with the contestant s in this process and prints its events to out.
func perform(ctx context.Context, s *spec, j job, out io.Writer) (err error) {
	c, err := s.open(ctx, j.URL)
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	d := &attempt{contestant: c, job: j, out: out}
	var done event
	switch j.Do {
	case doOpen:
	case doEnqueue:
		done, err = d.enqueue(ctx)
	case doFill:
		done, err = d.fill(ctx)
	case doWork:
		done, err = d.work(ctx)
	case doPickup:
		done, err = d.pickup(ctx)
	case doHold:
		err = d.hold(ctx)
	case doTake:
		err = d.take(ctx)
	default:
		err = fmt.Errorf("unknown action %q", j.Do)
	}
	if err != nil {
		return err
	}
	done.Event = evDone
	return printEvent(out, done)
}

// attempt is one job under way.
type attempt struct {
	contestant
	job job
	out io.Writer
}

// put enqueues the messages numbered from first, in the job's batches.
func (d *attempt) put(ctx context.Context, first, count int) error {
	if d.job.Batch <= 1 {
		return d.Enqueue(ctx, newMessage(first))
	}
	return d.EnqueueBatch(ctx, newMessages(first, count))
}

// enqueue lets the callers enqueue for WarmMS, and then for RunMS on the clock. The clock stops when the last call that
// began in time has returned.
func (d *attempt) enqueue(ctx context.Context) (event, error) {
	var all atomic.Int64
	cpu := cpuTime()
	if err := d.enqueueFor(ctx, milliseconds(d.job.WarmMS), &all); err != nil {
		return event{}, err
	}
	warm, from := all.Load(), time.Now()
	err := d.enqueueFor(ctx, milliseconds(d.job.RunMS), &all)
	took := time.Since(from)
	cpu = cpuTime() - cpu
	if err == nil {
		err = d.expectLeft(ctx, int(all.Load()))
	}
	return event{
		Count: int(all.Load() - warm), Seconds: took.Seconds(),
		All: int(all.Load()), CPU: cpu.Seconds(),
	}, err
}

// enqueueFor lets the callers begin calls for a time, waits for them and adds the tasks to all.
func (d *attempt) enqueueFor(ctx context.Context, long time.Duration, all *atomic.Int64) error {
	batch := max(d.job.Batch, 1)
	until := time.Now().Add(long)
	return inParallel(d.job.Callers, func() error {
		for time.Now().Before(until) {
			if err := d.put(ctx, int(all.Add(int64(batch)))-batch, batch); err != nil {
				return err
			}
		}
		return nil
	})
}

// fill enqueues exactly Tasks tasks, numbered from 0.
func (d *attempt) fill(ctx context.Context) (event, error) {
	var next atomic.Int64
	batch := max(d.job.Batch, 1)
	err := inParallel(d.job.Callers, func() error {
		for {
			first := int(next.Add(int64(batch))) - batch
			count := min(batch, d.job.Tasks-first)
			if count <= 0 {
				return nil
			}
			if err := d.put(ctx, first, count); err != nil {
				return err
			}
		}
	})
	if err == nil {
		err = d.expectLeft(ctx, d.job.Tasks)
	}
	return event{Count: d.job.Tasks}, err
}

// stallLimit is how long nothing may happen before a measurement is given up.
const stallLimit = 60 * time.Second

// work runs one worker until it has handled all tasks. The clock runs from the end of the first tenth of them, which
// warms up, to the last one's handler.
func (d *attempt) work(ctx context.Context) (event, error) {
	l := newLedger(d.job.Tasks, d.job.Tasks/10)
	cpu := cpuTime()
	stop, err := d.Work(ctx, d.job.Slots, l.handle)
	if err != nil {
		return event{}, err
	}
	err = l.wait(ctx)
	cpu = cpuTime() - cpu
	err = errors.Join(err, stop())
	if err == nil {
		err = errors.Join(l.check(), d.expectLeft(ctx, 0))
	}
	return event{
		Count: d.job.Tasks - l.warm, Seconds: l.ended().Sub(l.warmed()).Seconds(),
		All: d.job.Tasks, CPU: cpu.Seconds(),
	}, err
}

// pickup measures the time from the call that enqueues a task to the start of its handler, with one worker that had
// nothing to do. Both are in this process and so on one clock.
func (d *attempt) pickup(ctx context.Context) (event, error) {
	started := make(chan time.Time, 1)
	stop, err := d.Work(ctx, 0, func(message) { started <- time.Now() })
	if err != nil {
		return event{}, err
	}
	var samples []float64
	for i := range d.job.Samples + 1 {
		pause := milliseconds(d.job.GapMS) + time.Duration(rand.Int64N(int64(milliseconds(d.job.SpreadMS))))
		if err = sleep(ctx, pause); err != nil {
			break
		}
		before := time.Now()
		if err = d.Enqueue(ctx, newMessage(i)); err != nil {
			break
		}
		var at time.Time
		if at, err = receive(ctx, started); err != nil {
			break
		}
		if i > 0 { // the first meets connections that are not there yet
			samples = append(samples, float64(at.Sub(before).Microseconds())/1000)
		}
	}
	err = errors.Join(err, stop())
	if err == nil {
		err = d.expectLeft(ctx, 0)
	}
	return event{Count: len(samples), SamplesMS: samples}, err
}

// hold enqueues one task, starts it and never ends it. It returns only if ctx ends or something fails.
func (d *attempt) hold(ctx context.Context) error {
	started := make(chan time.Time, 1)
	_, err := d.Work(ctx, 0, func(message) {
		started <- time.Now()
		<-ctx.Done()
	})
	if err != nil {
		return err
	}
	if err := d.Enqueue(ctx, newMessage(0)); err != nil {
		return err
	}
	if _, err := receive(ctx, started); err != nil {
		return err
	}
	if err := printEvent(d.out, event{Event: evStarted}); err != nil {
		return err
	}
	<-ctx.Done()
	return context.Cause(ctx)
}

// take waits for one task of another process, however long that takes.
func (d *attempt) take(ctx context.Context) error {
	started := make(chan time.Time, 1)
	stop, err := d.Work(ctx, 0, func(message) { started <- time.Now() })
	if err != nil {
		return err
	}
	if err := printEvent(d.out, event{Event: evReady}); err != nil {
		return err
	}
	select {
	case <-started:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	err = printEvent(d.out, event{Event: evStarted})
	err = errors.Join(err, stop())
	if err == nil {
		err = d.expectLeft(ctx, 0)
	}
	return err
}

// expectLeft fails unless the queue itself says that want tasks have not ended.
func (d *attempt) expectLeft(ctx context.Context, want int) error {
	got, err := d.Left(ctx)
	if err == nil && got != want {
		err = fmt.Errorf("the queue holds %d tasks, not %d", got, want)
	}
	return err
}

// inParallel runs f in n goroutines and returns their errors.
func inParallel(n int, f func() error) error {
	errs := make([]error, max(n, 1))
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() { errs[i] = f() })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// receive returns the next value of ch, or an error if none comes within stallLimit.
func receive[T any](ctx context.Context, ch <-chan T) (T, error) {
	var zero T
	timeout := time.NewTimer(stallLimit)
	defer timeout.Stop()
	select {
	case v := <-ch:
		return v, nil
	case <-timeout.C:
		return zero, fmt.Errorf("no handler was called for %v", stallLimit)
	case <-ctx.Done():
		return zero, context.Cause(ctx)
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
