package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"time"

	"github.com/waggleq/waggle"
	"github.com/waggleq/waggle/internal/redisserver"
)

// The figures of tasks that run again, or later, in a worker that has nothing else to do. The ids of package redisstore have the
// number of shards behind them.
const (
	againDelay  = "late_delay_p99"
	againRetry  = "late_retry_p99"
	againSnooze = "late_snooze_p99"
	againAtOnce = "late_at_once_p99"
	againGap    = "gap_retry_worst"
)

// againFor is what handlers ask for.
const againFor = 50 * time.Millisecond

// againFigures returns the figures of one kind of store.
func againFigures(where, suffix string, most float64) []figure {
	return []figure{
		{id: againDelay + suffix, what: "lateness of delays, " + where + ", p99", unit: "ms", goal: atMost(most), pool: 0.99},
		{id: againRetry + suffix, what: "lateness of retries, " + where + ", p99", unit: "ms", goal: atMost(most), pool: 0.99},
		{id: againSnooze + suffix, what: "lateness of snoozes, " + where + ", p99", unit: "ms", goal: atMost(most), pool: 0.99},
		{id: againAtOnce + suffix, what: "a retry at once, " + where + ", p99", unit: "ms", goal: atMost(most), pool: 0.99},
		{id: againGap + suffix, what: "gap between attempts 50 ms apart, " + where + ", worst", unit: "ms", goal: atMost(75), worst: true},
	}
}

// again measures one file, and again in a worker of its own each round.
type again struct {
	*lab
	n int
}

func startAgain(_ context.Context, l *lab) (probe, error) { return &again{lab: l}, nil }

func (a *again) close(context.Context) error { return nil }

func (a *again) round(ctx context.Context) error {
	a.n++
	return a.measureAgain(ctx, filepath.Join(a.dir, fmt.Sprintf("again-%d.db", a.n)), "")
}

// redisAgain measures one server, and a Cluster with sixteen shards.
type redisAgain struct {
	*lab
	n       int
	server  *redisserver.Server
	cluster *redisserver.Cluster
}

func startRedisAgain(ctx context.Context, l *lab) (probe, error) {
	node := redisserver.Options{Flavour: l.flavour()}
	server, err := redisserver.Start(ctx, &node)
	if err != nil {
		return nil, err
	}
	cluster, err := redisserver.StartCluster(ctx, &redisserver.ClusterOptions{Node: node, NoReplicas: true})
	if err != nil {
		return nil, errors.Join(err, server.Close())
	}
	return &redisAgain{lab: l, server: server, cluster: cluster}, nil
}

func (a *redisAgain) close(context.Context) error {
	return errors.Join(a.server.Close(), a.cluster.Close())
}

func (a *redisAgain) round(ctx context.Context) error {
	a.n++
	if err := a.measureAgain(ctx, fmt.Sprintf("%s?ns=again-%d", a.server.URL(), a.n), "_1"); err != nil {
		return err
	}
	return a.measureAgain(ctx, fmt.Sprintf("%s?shards=16&ns=again-%d", a.cluster.URL(), a.n), "_16")
}

// measureAgain runs tasks of each kind one after the other in an idle worker.
func (l *lab) measureAgain(ctx context.Context, where, suffix string) (err error) {
	s, err := openStore(ctx, where)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close(ctx)) }()
	for _, kind := range []struct {
		id      string
		verdict error
		after   time.Duration
	}{{againDelay, nil, 0}, {againRetry, waggle.RetryAfter(againFor, errAgain), againFor}, {againSnooze, waggle.Snooze(againFor), againFor},
		{againAtOnce, waggle.RetryAfter(0, errAgain), 0}} {
		gaps, err := s.gaps(ctx, l.sizes.agains, kind.verdict)
		if err != nil {
			return fmt.Errorf("%s: %w", kind.id, err)
		}
		for _, gap := range gaps {
			if gap < kind.after {
				return fmt.Errorf("%s: a task was started %v before its time", kind.id, kind.after-gap)
			}
			l.board.add(kind.id+suffix, milliseconds(gap-kind.after))
			if kind.id == againRetry {
				l.board.add(againGap+suffix, milliseconds(gap))
			}
		}
		l.board.tasks += len(gaps)
	}
	return nil
}

var errAgain = errors.New("once more")

// gaps returns how long after the end of their first attempt, which ended with a verdict, tasks start again; without one, how
// long after their time tasks start that are due later.
func (s *site) gaps(ctx context.Context, n int, verdict error) (gaps []time.Duration, err error) {
	starts, ends := make(chan time.Time, 1), make(chan time.Time, 1)
	w, err := waggle.NewWorker(s.store, &waggle.WorkerOptions{Slots: slots, Logger: quiet})
	if err != nil {
		return nil, err
	}
	calls := 0
	w.HandleFunc(taskType, func(context.Context, *waggle.Task) error { // one task at a time
		calls++
		if verdict != nil && calls%2 == 1 {
			ends <- time.Now()
			return verdict
		}
		starts <- time.Now()
		return nil
	}, nil)
	running, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- w.Run(running) }()
	defer func() { cancel(); err = errors.Join(err, <-ended) }()
	for i := range n + 1 {
		at := time.Now().Add(againFor + rand.N(againFor)).Truncate(time.Millisecond) // as precise as a store is
		o := &waggle.EnqueueOptions{At: at}
		if verdict != nil {
			o = nil
		}
		if _, err := s.client.Enqueue(ctx, taskType, payloadOf(i), o); err != nil {
			return nil, err
		}
		if verdict != nil {
			if at, err = next(ctx, ends); err != nil {
				return nil, err
			}
		}
		start, err := next(ctx, starts)
		if err != nil {
			return nil, err
		}
		if i > 0 { // the first waits for the worker to come up
			gaps = append(gaps, start.Sub(at))
		}
	}
	return gaps, nil
}

func next(ctx context.Context, times <-chan time.Time) (time.Time, error) {
	select {
	case t := <-times:
		return t, nil
	case <-time.After(pickupLimit):
		return time.Time{}, fmt.Errorf("a task was not started within %v", pickupLimit)
	case <-ctx.Done():
		return time.Time{}, context.Cause(ctx)
	}
}
