package redisstore_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/internal/redisserver"
	"github.com/waggleq/waggle/internal/redisserver/redistest"
	"github.com/waggleq/waggle/redisstore"
)

// TestClusterLimits has workers do tasks in sixteen shards under limits of their queue. The tasks are in all shards by ids of
// their own, or in the queue's home by those that the store makes, or both.
func TestClusterLimits(t *testing.T) {
	t.Parallel()
	redistest.EachFlavour(t, func(t *testing.T, f redisserver.Flavour) {
		c := redistest.StartCluster(t, &redisserver.ClusterOptions{Node: redisserver.Options{Flavour: f}})
		url := func(ns string) string { return c.URL() + "?shards=16&ns=" + ns }
		for name, own := range map[string]func(int) bool{
			"spread": func(int) bool { return true },
			"home":   func(int) bool { return false },
			"both":   func(i int) bool { return i%4 == 0 },
		} {
			t.Run("concurrency "+name, func(t *testing.T) { limitedConcurrency(t, url("conc"+name), own) })
			t.Run("rate "+name, func(t *testing.T) { limitedRate(t, url("rate"+name), own) })
		}
		t.Run("failover", func(t *testing.T) { limitedFailover(t, url("fail"), c) })
	})
}

// crewLease is how long a worker may be silent where servers fail. Elsewhere it may be for much longer: a busy machine is no failure.
const crewLease = 3 * time.Second

// spread opens a store in which n tasks wait, in a queue with a limit. Those that own says have ids of their own.
func spread(t *testing.T, url string, n int, limit driver.Limit, own func(int) bool) *redisstore.Store {
	t.Helper()
	s := open(t, url, nil)
	if _, err := s.SetQueue(t.Context(), driver.DefaultQueue, driver.QueuePatch{Limits: &[]driver.Limit{limit}}); err != nil {
		t.Fatal(err)
	}
	tasks := make([]*driver.Task, n)
	for i := range tasks {
		tasks[i] = &driver.Task{Type: "t", Payload: []byte("null")}
		if own(i) {
			tasks[i].ID = fmt.Sprint("t-", i)
		}
	}
	results, err := s.Enqueue(t.Context(), tasks, driver.EnqueueOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range results {
		if r.Err != nil {
			t.Fatal(r.Err)
		}
	}
	return s
}

// crew has workers, each with a store of its own, claim and do tasks until all are done or do says that it is enough. A worker
// whose call fails begins a new life, if that is to be expected.
func crew(t *testing.T, url string, workers int, fails bool, do func(ctx context.Context, c driver.Claim) (enough bool)) {
	t.Helper()
	span, lease, timeout := 5*time.Minute, time.Minute, 30*time.Second
	if fails {
		span, lease, timeout = 90*time.Second, crewLease, 2*time.Second
	}
	ctx, cancel := context.WithTimeout(t.Context(), span)
	defer cancel()
	var wg sync.WaitGroup
	for i := range workers {
		s, w := open(t, url, &redisstore.Options{Timeout: timeout}), fmt.Sprint("w", i)
		register(t, s, w)
		wg.Go(func() {
			wait := time.Duration(0)
			for life := 1; ctx.Err() == nil; {
				res, err := s.Fetch(ctx, driver.FetchRequest{Worker: w, Lease: lease, Queues: []string{driver.DefaultQueue}, Max: 4, Wait: wait})
				if err != nil {
					if ctx.Err() == nil && !fails {
						t.Error(err)
						cancel()
					}
					w = fmt.Sprint("w", i, "-", life)
					life++
					for ctx.Err() == nil && s.Register(ctx, driver.WorkerInfo{ID: w}, lease) != nil {
						select {
						case <-ctx.Done():
						case <-time.After(50 * time.Millisecond): // between attempts against a server that is failing over
						}
					}
					continue
				}
				if wait = time.Second; !res.NextDue.IsZero() {
					wait = min(wait, max(res.NextDue.Sub(res.Now), 0))
				}
				for _, c := range res.Claims {
					enough := do(ctx, c)
					if _, err := s.Settle(ctx, w, []driver.Settlement{{ID: c.ID, Token: c.Token, Outcome: driver.Complete}}); err != nil && ctx.Err() == nil && !fails {
						t.Error(err)
					}
					if enough {
						cancel()
					}
				}
			}
		})
	}
	wg.Wait()
}

// TestFetchAtALimitAsksOnce has one worker hold all slots of a limit in sixteen shards, and end and start a task in each, again
// and again. A shard has to be asked once for each start, and not first whether there is one.
func TestFetchAtALimitAsksOnce(t *testing.T) {
	t.Parallel()
	redistest.EachFlavour(t, func(t *testing.T, f redisserver.Flavour) {
		const shards, each = 16, 2
		c := redistest.StartCluster(t, &redisserver.ClusterOptions{Node: redisserver.Options{Flavour: f}, NoReplicas: true})
		url := c.URL() + "?shards=16&ns=once"
		spread(t, url, 960, driver.Limit{Concurrency: shards * each}, func(int) bool { return true })
		s := open(t, url, nil)
		sent := redisstore.CountScripts(s)
		register(t, s, "w")
		held := map[int][]driver.Claim{} // by shard
		active := 0
		fetch := func() int64 {
			before := sent()
			res, err := s.Fetch(t.Context(), driver.FetchRequest{Worker: "w", Lease: time.Minute, Queues: []string{driver.DefaultQueue}, Types: []string{"t"}, Max: 64})
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range res.Claims {
				sh := redisstore.ShardOf(s, c.ID)
				held[sh] = append(held[sh], c)
			}
			if active += len(res.Claims); active > shards*each {
				t.Fatalf("%d tasks are active, the limit is %d", active, shards*each)
			}
			return sent() - before
		}
		least := int64(1000)
		for range 20 {
			for deadline := time.Now().Add(time.Minute); active < shards*each; {
				if fetch(); time.Now().After(deadline) {
					t.Fatalf("only %d tasks of %d have started", active, shards*each)
				}
			}
			var ends []driver.Settlement
			for sh, claims := range held {
				ends = append(ends, driver.Settlement{ID: claims[0].ID, Token: claims[0].Token, Outcome: driver.Complete})
				held[sh] = claims[1:]
				if len(claims) == 1 {
					delete(held, sh)
				}
			}
			if _, err := s.Settle(t.Context(), "w", ends); err != nil {
				t.Fatal(err)
			}
			active -= len(ends)
			if n := fetch(); active == shards*each {
				least = min(least, n)
			}
		}
		if least > shards+4 {
			t.Errorf("a fetch that starts a task in each shard took %d commands at best, of %d shards", least, shards)
		}
	})
}

func limitedConcurrency(t *testing.T, url string, own func(int) bool) {
	const bound, n = 3, 300
	s := spread(t, url, n, driver.Limit{Concurrency: bound}, own)
	var done, most atomic.Int64
	crew(t, url, 4, false, func(ctx context.Context, c driver.Claim) bool {
		infos, err := s.Queues(ctx, driver.DefaultQueue)
		if err == nil { // counted by the store, not by what limits are lent by
			for v := int64(infos[0].Counts[driver.Active]); ; {
				if old := most.Load(); v <= old || most.CompareAndSwap(old, v) {
					break
				}
			}
		}
		return done.Add(1) == n
	})
	if most.Load() > bound {
		t.Errorf("%d tasks were active, the limit is %d", most.Load(), bound)
	}
	if done.Load() != n || most.Load() < bound {
		t.Errorf("%d of %d tasks were done, at most %d at once of %d", done.Load(), n, most.Load(), bound)
	}
	findings, err := s.Audit(t.Context(), false)
	if err != nil || len(findings) > 0 {
		t.Errorf("audit: %v, %v", findings, err)
	}
}

func limitedRate(t *testing.T, url string, own func(int) bool) {
	const rate, burst, n = 200, 20, 600
	s := spread(t, url, n, driver.Limit{Rate: rate, Burst: burst}, own)
	var mu sync.Mutex
	var starts []time.Time
	crew(t, url, 4, false, func(_ context.Context, c driver.Claim) bool {
		mu.Lock()
		defer mu.Unlock()
		starts = append(starts, c.ClaimedAt)
		return len(starts) == n
	})
	slices.SortFunc(starts, time.Time.Compare)
	if len(starts) != n {
		t.Fatalf("%d of %d tasks started", len(starts), n)
	}
	// A permit may be used up to a quarter of a second after it was given out.
	const slack = 250 * time.Millisecond
	for i := range starts {
		for j := i + burst; j < n; j += 10 {
			if took, least := starts[j].Sub(starts[i]), time.Duration(j-i-burst)*time.Second/rate; took+slack < least {
				t.Fatalf("%d tasks started within %v, the rate allows that in %v", j-i+1, took, least)
			}
		}
	}
	t.Logf("%d starts in %v at %d/s, burst %d", n, starts[n-1].Sub(starts[0]), rate, burst)
	_ = s
}

// limitedFailover kills a master while a queue is at its limit. Tasks whose claims or ends its replica had not got run again, so
// it is the store's own count of what is active that must keep to the limit, as the tasks of workers that are thought lost do.
func limitedFailover(t *testing.T, url string, c *redisserver.Cluster) {
	const bound, n = 3, 200
	s := spread(t, url, n, driver.Limit{Concurrency: bound}, func(i int) bool { return i%2 == 0 })
	var done, most atomic.Int64
	crew(t, url, 4, true, func(ctx context.Context, _ driver.Claim) bool {
		infos, err := s.Queues(ctx, driver.DefaultQueue)
		if err != nil {
			return false
		}
		for v := int64(infos[0].Counts[driver.Active]); ; {
			if old := most.Load(); v <= old || most.CompareAndSwap(old, v) {
				break
			}
		}
		if done.Add(1) == n/4 { // the other workers go on meanwhile
			if _, err := c.KillMaster(context.WithoutCancel(ctx), 1); err != nil {
				t.Error(err)
			}
		}
		return infos[0].Counts[driver.Completed] >= n-bound-1
	})
	if err := c.WaitOK(t.Context()); err != nil {
		t.Fatal(err)
	}
	if most.Load() > bound || most.Load() < bound {
		t.Errorf("at most %d tasks were active at once, want %d", most.Load(), bound)
	}
	var findings []driver.Finding
	eventually(t, "an audit", func() (err error) {
		findings, err = s.Audit(t.Context(), false)
		return err
	})
	if len(findings) > 0 {
		t.Errorf("audit: %v", findings)
	}
	if left := finish(t, s); left > 0 {
		t.Errorf("%d tasks are not done, and nobody gets them", left)
	}
}

// finish has one worker do what is left, and returns how many tasks it could not get.
func finish(t *testing.T, s *redisstore.Store) (left int) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	round := func() error {
		if err := s.Register(t.Context(), driver.WorkerInfo{ID: "last"}, crewLease); err != nil {
			return err
		}
		res, err := s.Fetch(t.Context(), driver.FetchRequest{Worker: "last", Lease: crewLease, Queues: []string{driver.DefaultQueue}, Max: 4, Wait: 200 * time.Millisecond})
		if err != nil {
			return err
		}
		for _, c := range res.Claims {
			if _, err := s.Settle(t.Context(), "last", []driver.Settlement{{ID: c.ID, Token: c.Token, Outcome: driver.Complete}}); err != nil {
				return err
			}
		}
		infos, err := s.Queues(t.Context(), driver.DefaultQueue)
		if err == nil {
			left = infos[0].Counts[driver.Available] + infos[0].Counts[driver.Active]
		}
		return err
	}
	for left = -1; left != 0 && time.Now().Before(deadline); {
		eventually(t, "a round of the last worker", round)
	}
	return left
}
