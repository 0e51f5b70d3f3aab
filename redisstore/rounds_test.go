package redisstore_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/internal/redisserver"
	"github.com/waggleq/waggle/internal/redisserver/redistest"
	"github.com/waggleq/waggle/redisstore"
)

// A worker gets the tasks of all shards, each once, also those of shards that it did not know to have some, and hears
// when there are no more.
func TestFetchFromManyShards(t *testing.T) {
	t.Parallel()
	c := redistest.StartCluster(t, &redisserver.ClusterOptions{NoReplicas: true})
	store := open(t, c.URL()+"?shards=16", nil)
	if err := store.Register(t.Context(), driver.WorkerInfo{ID: "w"}, time.Minute); err != nil {
		t.Fatal(err)
	}
	const n = 200
	enqueue := func(from int) {
		tasks := make([]*driver.Task, n)
		for i := range tasks {
			tasks[i] = &driver.Task{ID: fmt.Sprintf("task-%d", from+i), Type: "a"} // its hash is its shard
		}
		mustEnqueue(t, store, tasks)
	}
	enqueue(0)
	seen := map[string]bool{}
	req := driver.FetchRequest{Worker: "w", Lease: time.Minute, Queues: []string{driver.DefaultQueue}, Max: 30}
	for calls := 0; len(seen) < 2*n; calls++ {
		if calls == 3 {
			enqueue(n)
		}
		claims := fetchOnce(t, store, req)
		if want := min(req.Max, 2*n-len(seen)); len(claims) != want {
			t.Fatalf("call %d: %d tasks, want %d", calls, len(claims), want)
		}
		for _, claim := range claims {
			if seen[claim.ID] {
				t.Fatalf("%s was fetched twice", claim.ID)
			}
			seen[claim.ID] = true
		}
	}
	res, err := store.Fetch(t.Context(), req)
	if err != nil || len(res.Claims) > 0 || res.More || res.LeaseEnd.IsZero() {
		t.Errorf("when all is fetched: %+v, error %v", res, err)
	}
}

// A task on its own costs about the same however many shards there are: a wake token tells in which of them it is.
func TestTaskOnItsOwnAsksOneShard(t *testing.T) {
	t.Parallel()
	c := redistest.StartCluster(t, &redisserver.ClusterOptions{NoReplicas: true})
	store := open(t, c.URL()+"?shards=64", nil)
	work := redisstore.CountScripts(store)
	if err := store.Register(t.Context(), driver.WorkerInfo{ID: "w"}, time.Minute); err != nil {
		t.Fatal(err)
	}
	req := driver.FetchRequest{Worker: "w", Lease: time.Minute, Queues: []string{driver.DefaultQueue}, Types: []string{"a"}, Max: 30}
	if claims := fetchOnce(t, store, req); len(claims) > 0 {
		t.Fatalf("%d claims from an empty store", len(claims))
	}
	// The first task of a pair makes it known in its shard, and a worker that was slow looks again: most must be cheap.
	const n = 40
	cheap := 0
	for i := range n {
		before := work()
		waiting := req
		waiting.Wait = 20 * time.Second
		fetched := make(chan *driver.FetchResult, 1)
		go func() {
			res, err := store.Fetch(t.Context(), waiting)
			if err != nil {
				t.Error(err)
			}
			fetched <- res
		}()
		mustEnqueue(t, store, []*driver.Task{{ID: fmt.Sprintf("task-%d", i%4), Type: "a"}})
		res := <-fetched
		if res == nil || len(res.Claims) != 1 {
			t.Fatalf("task %d: the fetch ended with %+v", i, res)
		}
		settle(t, store, "w", res.Claims)
		if _, err := store.Apply(t.Context(), driver.Change{Op: driver.OpDelete, IDs: []string{res.Claims[0].ID}}); err != nil {
			t.Fatal(err)
		}
		if work()-before <= 12 {
			cheap++
		}
	}
	if cheap < n/2 {
		t.Errorf("%d of %d tasks took few scripts", cheap, n)
	}
}
