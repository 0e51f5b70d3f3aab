package redisstore_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/driver/drivertest"
	"github.com/waggleq/waggle/internal/redisserver"
	"github.com/waggleq/waggle/internal/redisserver/redistest"
	"github.com/waggleq/waggle/redisstore"
)

// clusterEngine is the store on a cluster with that many shards, each in a namespace of its own.
func clusterEngine(c *redisserver.Cluster, shards int) drivertest.Engine {
	url := c.URL()
	if !strings.Contains(url, "?") {
		url += "?"
	} else {
		url += "&"
	}
	var mu sync.Mutex
	return drivertest.Engine{Name: "redis", Open: func(t testing.TB) *drivertest.Fixture {
		mu.Lock()
		defer mu.Unlock()
		return fixture(t, fmt.Sprintf("%sshards=%d&ns=t%d", url, shards, namespaces.Add(1)))
	}}
}

// spreadTopics are those whose meaning may depend on how many shards there are.
var spreadTopics = []string{"unique", "fetch", "due and expiry", "the present", "recovery", "await", "bulk", "queues", "fair share", "limits",
	"ordered keys", "lists", "events", "maintenance", "plans that are due"}

// The runs of a flavour share one cluster. What the flavours could do differently is in the conformance on one server and in
// the simulations, which run on both; one, four and sixteen shards differ in what this package does.
func TestClusterConformance(t *testing.T) {
	t.Parallel()
	redistest.EachFlavour(t, func(t *testing.T, f redisserver.Flavour) {
		c := redistest.StartCluster(t, &redisserver.ClusterOptions{Node: redisserver.Options{Flavour: f}, NoReplicas: true})
		if f == redisserver.Valkey {
			t.Run("shards 4", func(t *testing.T) { drivertest.Run(t, clusterEngine(c, 4)) })
			return
		}
		t.Run("shards 1", func(t *testing.T) { drivertest.Run(t, clusterEngine(c, 1)) })
		t.Run("shards 16", func(t *testing.T) { drivertest.RunTopics(t, clusterEngine(c, 16), spreadTopics...) })
	})
}

func TestClusterSimulation(t *testing.T) {
	t.Parallel()
	redistest.EachFlavour(t, func(t *testing.T, f redisserver.Flavour) {
		c := redistest.StartCluster(t, &redisserver.ClusterOptions{Node: redisserver.Options{Flavour: f}, NoReplicas: true})
		drivertest.RunSimulation(t, clusterEngine(c, 4))
	})
}

// eventually repeats try until it succeeds, for what a failover interrupts.
func eventually(t *testing.T, what string, try func() error) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: still failing after 30 s: %v", what, err)
		}
		select {
		case <-t.Context().Done():
			t.Fatal(context.Cause(t.Context()))
		case <-time.After(50 * time.Millisecond): // between attempts against a server that is failing over
		}
	}
}

// With all replicas waited for, a failover loses nothing that was accepted, and workers go on.
func TestSentinelFailover(t *testing.T) {
	t.Parallel()
	redistest.EachFlavour(t, func(t *testing.T, f redisserver.Flavour) {
		set := redistest.StartSentinel(t, &redisserver.SentinelOptions{Node: redisserver.Options{Flavour: f}})
		s := open(t, set.URL(), &redisstore.Options{Replicas: 2, Timeout: 2 * time.Second})
		register(t, s, "w")
		ids := add(t, s, 50, driver.EnqueueOptions{Durability: driver.DurabilityReplicated})
		old, err := set.KillMaster(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := set.WaitFailover(t.Context(), old); err != nil {
			t.Fatal(err)
		}
		var records []*driver.Record
		unavailable(t, "Get", func() (err error) {
			records, err = s.Get(t.Context(), ids)
			return err
		})
		for i, r := range records {
			if r == nil {
				t.Errorf("task %s is lost", ids[i])
			}
		}
		unavailable(t, "Register", func() error {
			return s.Register(t.Context(), driver.WorkerInfo{ID: "w"}, benchLease)
		})
		unavailable(t, "a fetch of nothing", func() error { // tasks have connections of their own, which find the new master by themselves
			_, err := s.Fetch(t.Context(), driver.FetchRequest{Worker: "w", Lease: benchLease, Queues: []string{"default"}})
			return err
		})
		settle(t, s, "w", fetch(t, s, "w", 50))
		drivertest.Audit(t, s)
	})
}

// When a cluster's master is killed its replica takes over, and claims go on in all shards.
func TestClusterFailover(t *testing.T) {
	t.Parallel()
	redistest.EachFlavour(t, func(t *testing.T, f redisserver.Flavour) {
		c := redistest.StartCluster(t, &redisserver.ClusterOptions{Node: redisserver.Options{Flavour: f}})
		s := open(t, c.URL(), &redisstore.Options{Replicas: 1, Timeout: 2 * time.Second})
		register(t, s, "w")
		var ids []string
		for range 32 { // two calls a shard
			ids = append(ids, add(t, s, 5, driver.EnqueueOptions{Durability: driver.DurabilityReplicated})...)
		}
		if _, err := c.KillMaster(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
		if err := c.WaitOK(t.Context()); err != nil {
			t.Fatal(err)
		}
		done := 0
		eventually(t, "draining", func() error {
			r, err := s.Fetch(t.Context(), driver.FetchRequest{Worker: "w", Lease: benchLease, Queues: []string{"default"}, Max: 100})
			if err != nil {
				return err
			}
			errs, err := driver.SettleErrors(s.Settle(t.Context(), "w", completions(r.Claims)))
			if err := errors.Join(append(errs, err)...); err != nil {
				return err
			}
			if done += len(r.Claims); done < len(ids) {
				return fmt.Errorf("%d of %d tasks done", done, len(ids))
			}
			return nil
		})
		drivertest.Audit(t, s)
	})
}

// A store that was idle while every master of a cluster handed over to its replica finds the new ones.
func TestIdleWhileAllMastersFailOver(t *testing.T) {
	t.Parallel()
	redistest.EachFlavour(t, func(t *testing.T, f redisserver.Flavour) {
		c := redistest.StartCluster(t, &redisserver.ClusterOptions{Node: redisserver.Options{Flavour: f}})
		s := open(t, c.URL(), nil)
		for i := range 3 {
			if _, err := c.Failover(t.Context(), i); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := s.Info(t.Context()); err != nil {
			t.Error(err)
		}
	})
}
