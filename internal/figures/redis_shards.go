package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/waggleq/waggle"
	"github.com/waggleq/waggle/internal/redisserver"
)

// shards measures the processor time of servers and client together, for the same tasks spread over more and more shards
// of a Cluster of three masters.
type shards struct {
	*lab
	cluster *redisserver.Cluster
	n       int
}

var shardCounts = []struct {
	shards        int
	loaded, alone string
}{{1, cpuOne, aloneOne}, {16, cpuSixteen, aloneSixteen}, {64, cpuMany, aloneMany}}

func startShards(ctx context.Context, l *lab) (probe, error) {
	c, err := redisserver.StartCluster(ctx, &redisserver.ClusterOptions{Node: redisserver.Options{Flavour: l.flavour()}, NoReplicas: true})
	return &shards{lab: l, cluster: c}, err
}

func (s *shards) close(context.Context) error { return s.cluster.Close() }

func (s *shards) round(ctx context.Context) error {
	s.n++
	var loaded []float64
	for _, kind := range shardCounts {
		perTask, alone, err := s.once(ctx, kind.shards)
		if err != nil {
			return fmt.Errorf("%d shards: %w", kind.shards, err)
		}
		loaded = append(loaded, perTask.sum())
		s.board.add(kind.loaded, perTask.sum())
		s.board.add(kind.alone, alone.sum())
		if kind.shards == 16 { // as many as a Cluster has by default
			s.board.add(cpuServers, perTask.servers)
			s.board.add(cpuClient, perTask.client)
		}
		s.board.tasks += s.loadedTasks() + s.sizes.alone + 1
	}
	s.board.add(cpuApart, slices.Max(loaded)/slices.Min(loaded))
	return nil
}

// loadedTasks is how many tasks go through with the servers at their limit.
func (s *shards) loadedTasks() int { return shardRounds * s.rate }

const shardRounds = 3

// used is processor time, of the servers and of this process, in µs a task.
type used struct{ servers, client float64 }

func (u used) sum() float64 { return u.servers + u.client }

// once returns what a task takes, with all at their limit and for tasks that find the store empty.
func (s *shards) once(ctx context.Context, n int) (loaded, alone used, err error) {
	site, err := openStore(ctx, fmt.Sprintf("%s?shards=%d&ns=shards-%d-%d", s.cluster.URL(), n, n, s.n))
	if err != nil {
		return loaded, alone, err
	}
	defer func() { err = errors.Join(err, site.close(ctx)) }()
	loaded, err = s.perTask(s.loadedTasks(), func() error {
		if err := site.fill(ctx, 0, s.loadedTasks()); err != nil {
			return err
		}
		return site.drain(ctx, newLedger(s.loadedTasks()))
	})
	if err != nil {
		return loaded, alone, err
	}
	alone, err = s.oneByOne(ctx, site)
	return loaded, alone, err
}

// oneByOne enqueues each task when the one before it has run.
func (s *shards) oneByOne(ctx context.Context, site *site) (perTask used, err error) {
	ran := make(chan struct{}, 1)
	stop, err := site.background(ctx, &waggle.WorkerOptions{}, func(*waggle.Task) { ran <- struct{}{} })
	if err != nil {
		return perTask, err
	}
	defer func() { err = errors.Join(err, stop()) }()
	next := func() error {
		if _, err := site.client.Enqueue(ctx, taskType, payloadOf(0), nil); err != nil {
			return err
		}
		select {
		case <-ran:
			return nil
		case <-time.After(pickupLimit):
			return fmt.Errorf("a task was not started within %v", pickupLimit)
		}
	}
	if err := next(); err != nil { // the worker comes up
		return perTask, err
	}
	return s.perTask(s.sizes.alone, func() error {
		for range s.sizes.alone {
			if err := next(); err != nil {
				return err
			}
		}
		return nil
	})
}

// perTask returns the processor time for each of n tasks.
func (s *shards) perTask(n int, do func() error) (used, error) {
	before, err := s.used()
	if err != nil {
		return used{}, err
	}
	if err := do(); err != nil {
		return used{}, err
	}
	after, err := s.used()
	return used{(after.servers - before.servers) / float64(n), (after.client - before.client) / float64(n)}, err
}

// used returns the processor time that was used so far, in µs.
func (s *shards) used() (used, error) {
	mine, err := cpuTime(os.Getpid())
	u := used{client: float64(mine.Microseconds())}
	for _, server := range s.cluster.Nodes {
		theirs, err2 := cpuTime(server.PID())
		u.servers += float64(theirs.Microseconds())
		err = errors.Join(err, err2)
	}
	return u, err
}
