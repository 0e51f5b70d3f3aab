package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/waggleq/waggle"
	"github.com/waggleq/waggle/internal/redisserver"
)

// redisIdle counts what one worker without work sends, to one server and to Clusters of three masters.
type redisIdle struct{ serverAndCluster }

func startRedisIdle(ctx context.Context, l *lab) (probe, error) {
	both, err := l.startBoth(ctx)
	return &redisIdle{both}, err
}

// serverAndCluster is the part of a probe that compares a server with a Cluster of three masters.
type serverAndCluster struct {
	*lab
	server  *redisserver.Server
	cluster *redisserver.Cluster
	n       int // rounds begun
}

func (l *lab) startBoth(ctx context.Context) (both serverAndCluster, err error) {
	both.lab = l
	node := redisserver.Options{Flavour: l.flavour()}
	if both.server, err = redisserver.Start(ctx, &node); err != nil {
		return both, err
	}
	both.cluster, err = redisserver.StartCluster(ctx, &redisserver.ClusterOptions{Node: node, NoReplicas: true})
	if err != nil {
		err = errors.Join(err, both.server.Close())
	}
	return both, err
}

func (b *serverAndCluster) close(context.Context) error {
	return errors.Join(b.server.Close(), b.cluster.Close())
}

func (i *redisIdle) round(ctx context.Context) error {
	if i.n++; i.n > i.watches {
		return nil
	}
	for _, kind := range []struct {
		id      string
		shards  int
		url     string
		servers []*redisserver.Server
	}{
		{idleOne, 1, i.server.URL() + "?", []*redisserver.Server{i.server}},
		{idleFour, 4, i.cluster.URL() + "?shards=4&", i.cluster.Nodes},
		{idleSixteen, 16, i.cluster.URL() + "?shards=16&", i.cluster.Nodes},
	} {
		n, err := i.watch(ctx, fmt.Sprintf("%sns=idle-%d-%d", kind.url, kind.shards, i.n), kind.servers)
		if err != nil {
			return err
		}
		i.board.add(kind.id, float64(n)/i.sizes.idle.Seconds()/float64(kind.shards))
	}
	return nil
}

// watch returns how many commands a worker that has nothing to do sends to the servers.
func (i *redisIdle) watch(ctx context.Context, url string, servers []*redisserver.Server) (sent int, err error) {
	s, err := openStore(ctx, url)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, s.close(ctx)) }()
	// The queue has had a task, so that there is something to look at.
	if err := s.fill(ctx, 0, 1); err != nil {
		return 0, err
	}
	if err := s.drain(ctx, newLedger(1)); err != nil {
		return 0, err
	}
	stop, err := s.background(ctx, &waggle.WorkerOptions{}, func(*waggle.Task) {})
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, stop()) }()
	if err := s.awaitWorkers(ctx, 1); err != nil {
		return 0, err
	}
	pause(ctx, settleTime)
	return countCommands(ctx, i.lab, servers)
}

// countCommands returns how many commands clients send to the servers within the time that idle workers are watched,
// as MONITOR tells. Those that scripts call in the server are not commands to it.
func countCommands(ctx context.Context, l *lab, servers []*redisserver.Server) (int, error) {
	ended := errors.New("the time is over")
	watch, cancel := context.WithTimeoutCause(ctx, l.sizes.idle, ended)
	defer cancel()
	counts, errs := make([]int, len(servers)), make([]error, len(servers))
	var all sync.WaitGroup
	for i, s := range servers {
		all.Go(func() {
			counts[i], errs[i] = monitor(watch, s)
			if errors.Is(errs[i], ended) {
				errs[i] = nil
			}
		})
	}
	all.Wait()
	sum := 0
	for _, n := range counts {
		sum += n
	}
	return sum, errors.Join(append(errs, ctx.Err())...)
}

// monitor counts the commands that come to a server until ctx ends.
func monitor(ctx context.Context, s *redisserver.Server) (n int, err error) {
	c, err := s.Dial(ctx)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	if _, err := c.Do(ctx, "MONITOR"); err != nil {
		return 0, err
	}
	for {
		v, err := c.Receive(ctx)
		if err != nil {
			return n, err
		}
		if !strings.Contains(v.Text, " lua] ") { // 1700000000.000000 [0 lua] "zadd" …
			n++
		}
	}
}
