package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/waggleq/waggle"
)

const (
	shallowDepth = 10_000
	windowSize   = 10_000
	warmUp       = 5_000 // tasks that a worker runs before the clock starts
	drainLimit   = 5 * time.Minute
)

// backlog compares the rate on one store to that on another that is harder to work on, by worker processes of their own:
// many tasks queued against few, many queues against one. A worker runs through windows of ten thousand tasks; half of
// those are gone when the store holds as many as it is about.
type backlog struct {
	*lab
	easy, hard *queued
	stop       func(context.Context) error // after the last check; may be nil
}

// queued is a store with a number of tasks in it, which are counted.
type queued struct {
	store    string // its URL, or the path of its file
	id       string // of the figure
	depth    int
	queues   int // among which the tasks are spread; fewer than two: the default queue
	enqueued int
	handled  int
}

func startBacklog(ctx context.Context, l *lab) (probe, error) {
	b := &backlog{
		lab:  l,
		easy: &queued{store: filepath.Join(l.dir, "shallow.db"), id: shallow, depth: shallowDepth},
		hard: &queued{store: filepath.Join(l.dir, "deep.db"), id: deep, depth: l.sizes.backlog},
	}
	l.board.backlog = b.hard.depth
	if err := b.hard.fill(ctx, 0); err != nil { // it does its first writes
		return nil, err
	}
	before, err := fileSize(b.hard.store)
	if err != nil {
		return nil, err
	}
	if err := b.fill(ctx); err != nil {
		return nil, err
	}
	after, err := fileSize(b.hard.store)
	if err != nil {
		return nil, err
	}
	l.board.add(diskBytes, float64(after-before)/float64(b.hard.depth)-payloadSize)
	return b, nil
}

// fill gives both stores the tasks that they are about.
func (b *backlog) fill(ctx context.Context) error {
	for _, q := range []*queued{b.easy, b.hard} {
		if err := q.fill(ctx, q.depth); err != nil {
			return err
		}
	}
	return nil
}

// fill adds tasks until so many are there. The store is closed then, so that all is in its file.
func (q *queued) fill(ctx context.Context, want int) (err error) {
	s, err := openStore(ctx, q.store)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close(ctx)) }()
	n := max(0, want-(q.enqueued-q.handled))
	if err := s.spread(ctx, q.enqueued, n, q.queues); err != nil {
		return err
	}
	q.enqueued += n
	return nil
}

// fileSize is the size of a database with what lies beside it.
func fileSize(path string) (int64, error) {
	names, err := filepath.Glob(path + "*")
	if err != nil {
		return 0, err
	}
	var sum int64
	for _, name := range names {
		info, err := os.Stat(name)
		if err != nil {
			return 0, err
		}
		sum += info.Size()
	}
	return sum, nil
}

func (b *backlog) round(ctx context.Context) error {
	rates := map[*queued][]float64{}
	for range b.windows {
		for _, q := range []*queued{b.easy, b.hard} {
			if err := q.fill(ctx, q.depth+warmUp+windowSize/2); err != nil {
				return err
			}
			e, err := q.run(ctx, job{Store: q.store, Warm: warmUp, Count: windowSize, Queues: q.queues})
			if err != nil {
				return err
			}
			rates[q] = append(rates[q], e.PerS)
			if q.id == deep {
				b.board.add(workerMemory, e.PeakMiB)
			}
		}
	}
	b.board.add(b.easy.id, rates[b.easy]...)
	b.board.add(b.hard.id, rates[b.hard]...)
	return nil
}

// run has a child process run tasks.
func (q *queued) run(ctx context.Context, j job) (event, error) {
	c, err := startChild(roleWindow, j)
	if err != nil {
		return event{}, err
	}
	e, err := c.next(ctx, drainLimit)
	if err != nil {
		c.kill()
		return e, fmt.Errorf("%w: %s", err, c.errors.String())
	}
	q.handled += e.Handled
	return e, c.wait()
}

// close runs all that is left, in one worker process for each store, and checks that every task has run once.
func (b *backlog) close(ctx context.Context) (err error) {
	if b.stop != nil {
		defer func() { err = errors.Join(err, b.stop(ctx)) }()
	}
	if len(b.board.samples[b.hard.id]) < b.rounds {
		return nil // it was broken off
	}
	for _, q := range []*queued{b.easy, b.hard} {
		b.say("%s: running the other %d of %d tasks", q.id, q.enqueued-q.handled, q.enqueued)
		e, err := q.run(ctx, job{Store: q.store, Queues: q.queues})
		if err != nil {
			return err
		}
		if q.id == deep {
			b.board.add(workerMemory, e.PeakMiB)
		}
		if err := q.check(ctx); err != nil {
			return err
		}
		b.board.tasks += q.enqueued
	}
	return nil
}

// check returns an error unless all that was enqueued is completed and there were as many runs.
func (q *queued) check(ctx context.Context) (err error) {
	s, err := openStore(ctx, q.store)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close(ctx)) }()
	queues, err := s.client.Queues(ctx)
	if err != nil {
		return err
	}
	n := int64(0)
	for _, info := range queues {
		n += info.Totals.Completed
	}
	if n != int64(q.enqueued) || q.handled != q.enqueued {
		return fmt.Errorf("%d tasks were enqueued, %d runs started, %d completed", q.enqueued, q.handled, n)
	}
	return nil
}

// runWindow is the child: a worker that runs some tasks, or all.
func runWindow(ctx context.Context, j *job) (err error) {
	s, err := openStore(ctx, j.Store)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close(ctx)) }()
	working, stop := context.WithCancel(ctx)
	defer stop()
	var began, ended time.Time
	book := new(ledger) // counts only: its numbers are checked by the parent
	w, err := s.worker(&waggle.WorkerOptions{Queues: queuesOf(j.Queues), UntilEmpty: j.Count == 0}, func(*waggle.Task) {
		switch n := book.total.Add(1); int(n) {
		case j.Warm + 1:
			began = time.Now()
		case j.Warm + 1 + j.Count:
			ended = time.Now()
			stop()
		}
	})
	if err != nil {
		return err
	}
	if err := w.Run(working); err != nil {
		return err
	}
	e := event{Handled: int(book.total.Load())}
	if j.Count > 0 {
		if ended.IsZero() {
			return errors.New("there were not enough tasks")
		}
		e.PerS = float64(j.Count) / ended.Sub(began).Seconds()
	}
	if e.PeakMiB, err = peakMemory(os.Getpid()); err != nil {
		return err
	}
	return tell(e)
}
