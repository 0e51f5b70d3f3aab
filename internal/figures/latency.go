package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"time"

	"github.com/waggleq/waggle"
	"github.com/waggleq/waggle/driver"
)

const (
	// Between two pick-ups the worker is left alone for a random time, so that it is an idle one that is measured, at any
	// point of whatever it does at intervals.
	minGap, maxGap = 5 * time.Millisecond, 60 * time.Millisecond
	pickupLimit    = 10 * time.Second
	// Scheduled tasks are due at random times of this span.
	firstDue, lastDue = 100 * time.Millisecond, 2600 * time.Millisecond
)

// pickup measures from the call of Enqueue, with its fsync, to the start of the handler, in an idle worker.
type pickup struct {
	*lab
	n int
}

func startPickup(_ context.Context, l *lab) (probe, error) { return &pickup{lab: l}, nil }

func (p *pickup) close(context.Context) error { return nil }

func (p *pickup) round(ctx context.Context) error {
	p.n++
	here, err := p.here(ctx, filepath.Join(p.dir, fmt.Sprintf("here-%d.db", p.n)))
	if err != nil {
		return err
	}
	p.board.add(hereMedian, here...)
	p.board.add(hereTail, here...)
	there, err := p.there(ctx, filepath.Join(p.dir, fmt.Sprintf("there-%d.db", p.n)))
	if err != nil {
		return err
	}
	p.board.add(thereMedian, there...)
	p.board.add(thereTail, there...)
	return nil
}

// here has the worker in this process.
func (p *pickup) here(ctx context.Context, path string) (ms []float64, err error) {
	s, err := openStore(ctx, path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.close(ctx)) }()
	starts := make(chan event, 1)
	stop, err := s.background(ctx, &waggle.WorkerOptions{}, func(t *waggle.Task) {
		n, _ := numberOf(t.Payload) // a payload that is not ours has a number that nobody waits for
		starts <- event{At: time.Now(), Number: n}
	})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, stop()) }()
	return p.sample(ctx, s.client, func() (event, error) {
		select {
		case e := <-starts:
			return e, nil
		case <-time.After(pickupLimit):
			return event{}, fmt.Errorf("a task was not started within %v", pickupLimit)
		}
	})
}

// there has the worker in another process.
func (p *pickup) there(ctx context.Context, path string) (ms []float64, err error) {
	s, err := openStore(ctx, path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.close(ctx)) }()
	c, err := startChild(roleWorker, job{Store: path})
	if err != nil {
		return nil, err
	}
	defer c.kill()
	return p.sample(ctx, s.client, func() (event, error) { return c.next(ctx, pickupLimit) })
}

// sample enqueues tasks one by one. The first is not counted: it waits for the worker to come up.
func (p *pickup) sample(ctx context.Context, client *waggle.Client, started func() (event, error)) ([]float64, error) {
	var ms []float64
	for n := range p.pickups + 1 {
		gap := time.NewTimer(minGap + rand.N(maxGap-minGap))
		before := time.Now()
		if _, err := client.Enqueue(ctx, taskType, payloadOf(n), nil); err != nil {
			return nil, err
		}
		e, err := started()
		if err != nil {
			return nil, err
		}
		if e.Number != n {
			return nil, fmt.Errorf("task %d was started instead of %d", e.Number, n)
		}
		if n > 0 {
			ms = append(ms, milliseconds(e.At.Sub(before)))
		}
		<-gap.C
	}
	p.board.tasks += p.pickups + 1
	return ms, nil
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// background starts a worker; stop ends it and returns its error.
func (s *site) background(ctx context.Context, o *waggle.WorkerOptions, run func(*waggle.Task)) (stop func() error, err error) {
	w, err := s.worker(o, run)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	return func() error { cancel(); return <-ended }, nil
}

// late measures how long after their time scheduled tasks start, in a worker that has nothing else to do.
type late struct {
	*lab
	n int
}

func startLateness(_ context.Context, l *lab) (probe, error) { return &late{lab: l}, nil }

func (l *late) close(context.Context) error { return nil }

func (l *late) round(ctx context.Context) (err error) {
	l.n++
	s, err := openStore(ctx, filepath.Join(l.dir, fmt.Sprintf("late-%d.db", l.n)))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close(ctx)) }()
	starts := make(chan event, l.scheduled)
	stop, err := s.background(ctx, &waggle.WorkerOptions{}, func(t *waggle.Task) {
		n, _ := numberOf(t.Payload) // as above
		starts <- event{At: time.Now(), Number: n}
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	due, err := l.enqueue(ctx, s.client)
	if err != nil {
		return err
	}
	ms, err := await(due, starts)
	l.board.add(lateness, ms...)
	l.board.tasks += len(ms)
	return err
}

// enqueue adds tasks that are due at random times, and returns those.
func (l *late) enqueue(ctx context.Context, client *waggle.Client) ([]time.Time, error) {
	now := time.Now()
	tasks, due := make([]waggle.NewTask, l.scheduled), make([]time.Time, l.scheduled)
	for i := range tasks {
		due[i] = now.Add(firstDue + rand.N(lastDue-firstDue)).Truncate(time.Millisecond) // as precise as a store is
		tasks[i] = waggle.NewTask{Type: taskType, Payload: payloadOf(i), Options: &waggle.EnqueueOptions{At: due[i]}}
	}
	results, err := client.EnqueueBatch(ctx, tasks)
	for _, r := range results {
		err = errors.Join(err, r.Err)
		if r.State != driver.Scheduled {
			err = errors.Join(err, fmt.Errorf("a task is %s and not scheduled", r.State))
		}
	}
	return due, err
}

// await returns how late the tasks started. None may start twice or before its time.
func await(due []time.Time, starts <-chan event) ([]float64, error) {
	seen, limit := make([]bool, len(due)), time.After(lastDue+pickupLimit)
	var ms []float64
	for range due {
		select {
		case e := <-starts:
			if seen[e.Number] {
				return nil, fmt.Errorf("task %d was started twice", e.Number)
			}
			seen[e.Number] = true
			if e.At.Before(due[e.Number]) {
				return nil, fmt.Errorf("task %d was started %v before its time", e.Number, due[e.Number].Sub(e.At))
			}
			ms = append(ms, milliseconds(e.At.Sub(due[e.Number])))
		case <-limit:
			return nil, fmt.Errorf("%d of %d scheduled tasks were not started", len(due)-len(ms), len(due))
		}
	}
	return ms, nil
}
