package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/waggleq/waggle"
	"github.com/waggleq/waggle/driver"
)

// crowdStart is how long many worker processes may take to come up.
const crowdStart = time.Minute

// crowd watches many worker processes of one file that have nothing to do: what one of them writes to renew its lease is
// no business of the others, and the queues that there are cost nobody anything.
type crowd struct {
	*lab
	n int
}

func startCrowd(_ context.Context, l *lab) (probe, error) { return &crowd{lab: l}, nil }

func (c *crowd) close(context.Context) error { return nil }

func (c *crowd) round(ctx context.Context) error {
	if c.n++; c.n > c.watches {
		return nil
	}
	if err := c.watch(ctx, crowdSmall, 20, 1); err != nil {
		return err
	}
	return c.watch(ctx, crowdLarge, 40, 10_000)
}

// watch starts worker processes on a file with so many queues, and adds what they take of a core together while nothing
// happens, and from many queues on how soon a task starts.
func (c *crowd) watch(ctx context.Context, id string, workers, queues int) (err error) {
	path := filepath.Join(c.dir, fmt.Sprintf("%s-%d.db", id, c.n))
	s, err := openStore(ctx, path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close(ctx)) }()
	if err := s.makeQueues(ctx, queues); err != nil {
		return err
	}
	starts := make(chan event, workers)
	var crew []*child
	defer func() {
		for _, w := range crew {
			w.kill()
		}
	}()
	for range workers {
		w, err := startChild(roleWorker, job{Store: path})
		if err != nil {
			return err
		}
		crew = append(crew, w)
	}
	if err := s.awaitCrowd(ctx, workers); err != nil {
		return err
	}
	pause(ctx, settleTime)
	used, err := c.used(ctx, crew)
	if err != nil {
		return err
	}
	c.board.add(id, used)
	if queues == 1 {
		return nil
	}
	for _, w := range crew {
		go func() {
			for e := range w.events {
				starts <- e
			}
		}()
	}
	ms, err := (&pickup{lab: c.lab}).sample(ctx, s.client, func() (event, error) {
		select {
		case e := <-starts:
			return e, nil
		case <-time.After(pickupLimit):
			return event{}, fmt.Errorf("a task was not started within %v", pickupLimit)
		}
	})
	c.board.add(crowdPickup, ms...)
	return err
}

// used returns what processes take of a core, in percent, while they are watched.
func (c *crowd) used(ctx context.Context, crew []*child) (float64, error) {
	sum := func() (total time.Duration, err error) {
		for _, w := range crew {
			t, err := cpuTime(w.cmd.Process.Pid)
			if err != nil {
				return 0, err
			}
			total += t
		}
		return total, nil
	}
	before, err := sum()
	if err != nil {
		return 0, err
	}
	began := time.Now()
	pause(ctx, c.sizes.crowd)
	after, err := sum()
	return 100 * (after - before).Seconds() / time.Since(began).Seconds(), err
}

// awaitCrowd waits until so many workers are there.
func (s *site) awaitCrowd(ctx context.Context, n int) error {
	for limit := time.Now().Add(crowdStart); time.Now().Before(limit); pause(ctx, 100*time.Millisecond) {
		if workers, err := s.client.Workers(ctx); err != nil || len(workers) >= n {
			return err
		}
	}
	return fmt.Errorf("%d workers were not up within %v", n, crowdStart)
}

// makeQueues makes queues that hold one task each, which nobody serves.
func (s *site) makeQueues(ctx context.Context, n int) error {
	for first := 0; first < n; first += batchSize {
		var batch []waggle.NewTask
		for i := first; i < min(n, first+batchSize); i++ {
			batch = append(batch, waggle.NewTask{Type: taskType, Payload: payloadOf(i), Options: &waggle.EnqueueOptions{Queue: queueName(i)}})
		}
		results, err := s.client.EnqueueBatch(ctx, batch)
		for _, r := range results {
			err = errors.Join(err, r.Err)
			if r.State != driver.Available {
				err = errors.Join(err, fmt.Errorf("a task is %s and not available", r.State))
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}
