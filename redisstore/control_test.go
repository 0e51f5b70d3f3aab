package redisstore_test

import (
	"strconv"
	"testing"
	"time"

	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/internal/redisserver"
	"github.com/waggleq/waggle/internal/redisserver/redistest"
	"github.com/waggleq/waggle/redisstore"
)

// TestControlOnACluster counts what it costs a Cluster that a worker waits to be told of cancellations, and then has a
// cancellation in each shard wake it.
func TestControlOnACluster(t *testing.T) {
	t.Parallel()
	redistest.EachFlavour(t, func(t *testing.T, f redisserver.Flavour) {
		servers := redistest.StartCluster(t, &redisserver.ClusterOptions{Node: redisserver.Options{Flavour: f}, NoReplicas: true})
		s := open(t, servers.URL()+"?shards=16", nil)
		register(t, s, "w")
		control := driver.AwaitRequest{Worker: "w", For: driver.ForControl, Max: time.Second}
		if err := s.Await(t.Context(), control); err != nil {
			t.Fatal(err)
		}
		before := commandCalls(t, s, "blmove")
		if err := s.Await(t.Context(), control); err != nil {
			t.Fatal(err)
		}
		if n := commandCalls(t, s, "blmove") - before; n != 1 {
			t.Errorf("a wait of 1 s took %d commands", n)
		}

		held := map[int]string{} // a task of each shard
		var tasks []*driver.Task
		for i := 0; len(held) < redisstore.Shards(s); i++ {
			id := "t-" + strconv.Itoa(i)
			if n := redisstore.ShardOf(s, id); held[n] == "" {
				held[n] = id
				tasks = append(tasks, &driver.Task{ID: id, Type: "t"})
			}
		}
		mustEnqueue(t, s, tasks)
		for n := 0; n < len(tasks); {
			n += len(fetchOnce(t, s, driver.FetchRequest{Worker: "w", Lease: time.Minute, Queues: []string{driver.DefaultQueue}, Max: len(tasks)}))
		}
		control.Max = time.Minute
		for shard, id := range held {
			woken := make(chan error, 1)
			go func() { woken <- s.Await(t.Context(), control) }()
			if _, err := s.Apply(t.Context(), driver.Change{Op: driver.OpCancel, IDs: []string{id}}); err != nil {
				t.Fatal(err)
			}
			select {
			case err := <-woken:
				if err != nil {
					t.Fatal(err)
				}
			case <-time.After(30 * time.Second):
				t.Fatalf("a cancellation in shard %d woke nobody", shard)
			}
			beat, err := s.Heartbeat(t.Context(), "w", time.Minute)
			if err != nil {
				t.Fatal(err)
			}
			told := false
			for _, c := range beat.Cancels {
				told = told || c.ID == id
			}
			if !told {
				t.Errorf("the heartbeat after a cancellation in shard %d delivers %v", shard, beat.Cancels)
			}
		}
	})
}
