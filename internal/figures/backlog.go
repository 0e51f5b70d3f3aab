package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/waggleq/waggle"
	"github.com/waggleq/waggle/driver"
)

const (
	shallowDepth = 10_000
	windowSize   = 10_000
	warmUp       = 5_000 // tasks that a worker runs before the clock starts
	drainLimit   = 5 * time.Minute
)

// backlog compares the rate with few tasks queued to that with many, in worker processes of their own. A worker runs
// through windows of ten thousand tasks; half of those are gone when the queue has the depth that it is about.
type backlog struct {
	*lab
	shallow, deep *queued
}

// queued is a store with a number of tasks in it, which are counted.
type queued struct {
	path      string
	depth     int
	enqueued  int
	handled   int
	emptySize int64
}

func startBacklog(ctx context.Context, l *lab) (probe, error) {
	b := &backlog{
		lab:     l,
		shallow: &queued{path: filepath.Join(l.dir, "shallow.db"), depth: shallowDepth},
		deep:    &queued{path: filepath.Join(l.dir, "deep.db"), depth: l.sizes.backlog},
	}
	l.board.backlog = b.deep.depth
	for _, q := range []*queued{b.shallow, b.deep} {
		if err := q.create(ctx); err != nil {
			return nil, err
		}
	}
	if err := b.deep.fill(ctx, b.deep.depth); err != nil {
		return nil, err
	}
	size, err := fileSize(b.deep.path)
	if err != nil {
		return nil, err
	}
	l.board.add(diskBytes, float64(size-b.deep.emptySize)/float64(b.deep.depth)-payloadSize)
	return b, nil
}

// create makes the store, and has it do its first writes.
func (q *queued) create(ctx context.Context) error {
	if err := q.fill(ctx, 0); err != nil {
		return err
	}
	size, err := fileSize(q.path)
	q.emptySize = size
	return err
}

// fill adds tasks until so many are there. The store is closed then, so that all is in its file.
func (q *queued) fill(ctx context.Context, want int) (err error) {
	s, err := openStore(ctx, q.path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close(ctx)) }()
	n := max(0, want-(q.enqueued-q.handled))
	if err := s.fill(ctx, q.enqueued, n); err != nil {
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
	var few, many []float64
	for range b.windows {
		for _, q := range []*queued{b.shallow, b.deep} {
			if err := q.fill(ctx, q.depth+warmUp+windowSize/2); err != nil {
				return err
			}
			e, err := q.run(ctx, job{Path: q.path, Warm: warmUp, Count: windowSize})
			if err != nil {
				return err
			}
			if q == b.shallow {
				few = append(few, e.PerS)
				continue
			}
			many = append(many, e.PerS)
			b.board.add(workerMemory, e.PeakMiB)
		}
	}
	b.board.add(shallow, few...)
	b.board.add(deep, many...)
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
func (b *backlog) close(ctx context.Context) error {
	if len(b.board.samples[deep]) < b.rounds {
		return nil // it was broken off
	}
	for _, q := range []*queued{b.shallow, b.deep} {
		b.say("backlog: running the other %d of %d tasks", q.enqueued-q.handled, q.enqueued)
		e, err := q.run(ctx, job{Path: q.path})
		if err != nil {
			return err
		}
		if q == b.deep {
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
	s, err := openStore(ctx, q.path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close(ctx)) }()
	info, err := s.client.Queue(ctx, driver.DefaultQueue)
	if err != nil {
		return err
	}
	if n := info.Totals.Completed; n != int64(q.enqueued) || q.handled != q.enqueued {
		return fmt.Errorf("%d tasks were enqueued, %d runs started, %d completed", q.enqueued, q.handled, n)
	}
	return nil
}

// runWindow is the child: a worker that runs some tasks, or all.
func runWindow(ctx context.Context, j *job) (err error) {
	s, err := openStore(ctx, j.Path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close(ctx)) }()
	working, stop := context.WithCancel(ctx)
	defer stop()
	var began, ended time.Time
	book := new(ledger) // counts only: its numbers are checked by the parent
	w, err := s.worker(&waggle.WorkerOptions{UntilEmpty: j.Count == 0}, func(*waggle.Task) {
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
