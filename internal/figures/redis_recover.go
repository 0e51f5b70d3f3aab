package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"

	"github.com/waggleq/waggle"
	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/internal/redisserver"
)

// redisRecovery is recovery on a server: SIGKILL of a worker.
type redisRecovery struct {
	*lab
	server *redisserver.Server
	n      int
}

func startRedisRecovery(ctx context.Context, l *lab) (probe, error) {
	server, err := redisserver.Start(ctx, &redisserver.Options{Flavour: l.flavour()})
	return &redisRecovery{lab: l, server: server}, err
}

func (r *redisRecovery) close(context.Context) error { return r.server.Close() }

func (r *redisRecovery) round(ctx context.Context) error {
	if r.n++; r.n > r.long {
		return nil
	}
	took, err := takeOver(ctx, fmt.Sprintf("%s?ns=recovery-%d", r.server.URL(), r.n), driver.DefaultLease)
	if err != nil {
		return err
	}
	r.board.add(recoverWorker, took.Seconds())
	r.board.tasks++
	return nil
}

const (
	nodeTimeout    = 2 * time.Second
	failoverShards = 16
	failoverTasks  = 2000
	handlerTime    = 5 * time.Millisecond
	failoverSlots  = 4
)

// failover kills a master of a Cluster and measures until tasks of its shards are claimed again.
type failover struct {
	*lab
	cluster *redisserver.Cluster
	n       int
}

func startFailover(ctx context.Context, l *lab) (probe, error) {
	c, err := redisserver.StartCluster(ctx, &redisserver.ClusterOptions{Node: redisserver.Options{Flavour: l.flavour()}, NodeTimeout: nodeTimeout})
	return &failover{lab: l, cluster: c}, err
}

func (f *failover) close(context.Context) error { return f.cluster.Close() }

func (f *failover) round(ctx context.Context) error {
	if f.n++; f.n > f.failovers {
		return nil
	}
	took, err := f.once(ctx, fmt.Sprintf("failover-%d", f.n))
	if err != nil {
		return err
	}
	f.board.add(recoverMaster, took.Seconds())
	return nil
}

// once has a worker busy with tasks of all shards and kills the master that has the first of them, whose slot also holds
// the wake tokens of all.
func (f *failover) once(ctx context.Context, namespace string) (took time.Duration, err error) {
	s, err := openStore(ctx, fmt.Sprintf("%s?ns=%s&shards=%d", f.cluster.URL(), namespace, failoverShards))
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, s.close(ctx)) }()
	if _, err := s.singly(ctx, failoverTasks, nil); err != nil { // one by one, so that every shard gets some
		return 0, err
	}
	if err := f.cluster.WaitOK(ctx); err != nil { // so the replicas have them
		return 0, err
	}
	lost, master, err := f.shardsWithFirst(ctx, namespace)
	if err != nil {
		return 0, err
	}
	w := &witness{lost: lost, seen: map[int]bool{}}
	stop, err := s.background(ctx, &waggle.WorkerOptions{Slots: failoverSlots}, func(t *waggle.Task) { w.run(ctx, t) })
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, stop()) }()
	if _, err := w.await(ctx, time.Now()); err != nil {
		return 0, err
	}
	pause(ctx, rand.N(time.Second))
	killed := time.Now()
	master.Kill()
	resumed, err := w.await(ctx, killed.Add(4*handlerTime)) // what was claimed before starts within a handler's time
	if err != nil {
		return 0, err
	}
	if err := w.awaitAll(ctx, failoverTasks); err != nil {
		return 0, err
	}
	if err := master.Restart(ctx); err != nil {
		return 0, err
	}
	return resumed.Sub(killed), f.cluster.WaitOK(ctx)
}

// shardsWithFirst returns the shards that are on the same master as the first, and that.
func (f *failover) shardsWithFirst(ctx context.Context, namespace string) (map[int]bool, *redisserver.Server, error) {
	var first *redisserver.Server
	shards := map[int]bool{}
	for i := range failoverShards {
		slot, err := f.cluster.Slot(ctx, fmt.Sprintf("waggle:{%s.%d}:meta", namespace, i))
		if err != nil {
			return nil, nil, err
		}
		owner, err := f.cluster.Owner(ctx, slot)
		if err != nil {
			return nil, nil, err
		}
		if first == nil {
			first = owner
		}
		shards[i] = owner == first
	}
	return shards, first, nil
}

// witness notes which tasks ran, and when one of a shard that was lost started last.
type witness struct {
	lost map[int]bool
	mu   sync.Mutex
	seen map[int]bool // by number: a task may run again when its settlement was lost with the master
	last time.Time
}

func (w *witness) run(ctx context.Context, t *waggle.Task) {
	n, _ := numberOf(t.Payload)                                 // a foreign payload is one too few
	shard, err := strconv.ParseUint(t.ID[len(t.ID)-4:], 16, 16) // the last two bytes of an id name the shard
	w.mu.Lock()
	w.seen[n] = true
	if err == nil && w.lost[int(shard)%len(w.lost)] {
		w.last = time.Now()
	}
	w.mu.Unlock()
	pause(ctx, handlerTime)
}

// await returns when a task of a lost shard first started after that time.
func (w *witness) await(ctx context.Context, after time.Time) (at time.Time, err error) {
	err = w.until(ctx, "a task of the shards that were lost", func() bool {
		at = w.last
		return at.After(after)
	})
	return at, err
}

// awaitAll waits until that many tasks have run.
func (w *witness) awaitAll(ctx context.Context, n int) error {
	return w.until(ctx, "the last of the tasks", func() bool { return len(w.seen) == n })
}

func (w *witness) until(ctx context.Context, what string, done func() bool) error {
	for limit := time.Now().Add(recoverLimit); time.Now().Before(limit) && ctx.Err() == nil; pause(ctx, time.Millisecond) {
		w.mu.Lock()
		ok := done()
		w.mu.Unlock()
		if ok {
			return nil
		}
	}
	return errors.Join(context.Cause(ctx), fmt.Errorf("%s did not start within %v", what, recoverLimit))
}
