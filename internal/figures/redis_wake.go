package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/waggleq/waggle"
	"github.com/waggleq/waggle/driver"
)

// wake counts how many of a hundred idle workers ask for work when one task comes.
type wake struct{ serverAndCluster }

func startWake(ctx context.Context, l *lab) (probe, error) {
	both, err := l.startBoth(ctx)
	return &wake{both}, err
}

func (w *wake) round(ctx context.Context) error {
	w.n++
	for id, url := range map[string]string{
		wakeOne:     fmt.Sprintf("%s?ns=wake-%d", w.server.URL(), w.n),
		wakeSixteen: fmt.Sprintf("%s?shards=16&ns=wake-%d", w.cluster.URL(), w.n),
	} {
		fetches, err := w.once(ctx, url)
		if err != nil {
			return err
		}
		w.board.add(id, fetches...)
		w.board.tasks += w.wakes
	}
	return nil
}

const (
	// wakeGap is how long the workers are left alone before each task, and how long is waited for more of them to ask.
	wakeGap = 100 * time.Millisecond
	// workersPoll keeps the looks that idle workers take by themselves out of the way.
	workersPoll = time.Minute
)

// once enqueues tasks one by one while the workers wait, and returns how many fetches each of them led to.
func (w *wake) once(ctx context.Context, url string) (fetches []float64, err error) {
	s, err := openStore(ctx, url)
	if err != nil {
		return nil, err
	}
	counter := &fetchCounter{Store: s.store}
	s.store = counter
	defer func() { err = errors.Join(err, s.close(ctx)) }()
	book, ran := newLedger(w.wakes+1), make(chan struct{}, w.wakes+1)
	for range w.workers {
		stop, err := s.background(ctx, &waggle.WorkerOptions{PollInterval: workersPoll}, func(t *waggle.Task) {
			book.run(t.Payload)
			ran <- struct{}{}
		})
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, stop()) }()
	}
	if err := counter.awaitIdle(ctx, w.workers); err != nil {
		return nil, err
	}
	for n := range w.wakes + 1 {
		counter.take()
		if _, err := s.client.Enqueue(ctx, taskType, payloadOf(n), nil); err != nil {
			return nil, err
		}
		select {
		case <-ran:
		case <-time.After(pickupLimit):
			return nil, fmt.Errorf("a task was not started within %v", pickupLimit)
		}
		pause(ctx, wakeGap)
		if got := counter.take(); n > 0 { // the first makes the queue known
			fetches = append(fetches, float64(got))
		}
	}
	return fetches, book.check()
}

// fetchCounter counts the fetches of workers that were woken: those whose wait was cut short, and those that don't wait, which
// follow one another after a wake-up.
type fetchCounter struct {
	driver.Store
	mu      sync.Mutex
	waiting int
	count   int
}

func (c *fetchCounter) add(waiting, count int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waiting += waiting
	c.count += count
}

func (c *fetchCounter) Fetch(ctx context.Context, req driver.FetchRequest) (*driver.FetchResult, error) {
	if req.Wait == 0 {
		c.add(0, 1)
		return c.Store.Fetch(ctx, req)
	}
	c.add(1, 0)
	defer c.add(-1, 0)
	began := time.Now()
	res, err := c.Store.Fetch(ctx, req)
	if err == nil && time.Since(began) < req.Wait {
		c.add(0, 1)
	}
	return res, err
}

// take returns the fetches since the last call.
func (c *fetchCounter) take() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.count
	c.count = 0
	return n
}

// awaitIdle waits until all workers have waited for a while.
func (c *fetchCounter) awaitIdle(ctx context.Context, workers int) error {
	for limit, since := time.Now().Add(pickupLimit), time.Now(); time.Now().Before(limit); pause(ctx, 10*time.Millisecond) {
		c.mu.Lock()
		waiting := c.waiting
		c.mu.Unlock()
		if waiting < workers {
			since = time.Now()
		}
		if time.Since(since) > settleTime {
			return ctx.Err()
		}
	}
	return fmt.Errorf("%d workers are not idle after %v", workers, pickupLimit)
}
