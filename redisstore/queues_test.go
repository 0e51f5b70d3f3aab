package redisstore_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/internal/redisserver"
	"github.com/waggleq/waggle/internal/redisserver/redistest"
	"github.com/waggleq/waggle/redisstore"
)

// A worker may serve thousands of queues: it gets the tasks of all, the figures are right, and no script is given so many
// keys that it holds up the server.
func TestThousandsOfQueues(t *testing.T) {
	t.Parallel()
	redistest.EachFlavour(t, func(t *testing.T, f redisserver.Flavour) {
		server := redistest.Start(t, &redisserver.Options{Flavour: f})
		keys := watchKeys(t, server)
		store := open(t, server.URL(), nil)
		const n = 1000
		queues := make([]string, n)
		tasks := make([]*driver.Task, n)
		for i := range n {
			queues[i] = fmt.Sprintf("queue-%d", i)
			tasks[i] = &driver.Task{Type: "a", Queue: queues[i]}
		}
		mustEnqueue(t, store, tasks)
		w := driver.WorkerInfo{ID: "w", Queues: queues, Types: []string{"a"}}
		if err := store.Register(t.Context(), w, time.Minute); err != nil {
			t.Fatal(err)
		}
		rand.Shuffle(n, func(i, j int) { queues[i], queues[j] = queues[j], queues[i] })
		claims := fetchOnce(t, store, driver.FetchRequest{Worker: "w", Lease: time.Minute, Queues: append(queues, queues[:10]...), Types: w.Types, Max: n})
		if len(claims) != n {
			t.Fatalf("%d tasks were fetched, want %d", len(claims), n)
		}
		wantTotals(t, store, n, driver.Active)
		settle(t, store, "w", claims)
		wantTotals(t, store, n, driver.Completed)
		quietAfterTokens(t, store, driver.AwaitRequest{Worker: "w", For: driver.ForWork, Queues: queues, Types: w.Types, Max: 200 * time.Millisecond})
		if most := keys(); most > 800 {
			t.Errorf("a script was given %d keys", most)
		}
	})
}

func mustEnqueue(t *testing.T, store driver.Store, tasks []*driver.Task) {
	t.Helper()
	results, err := store.Enqueue(t.Context(), tasks, driver.EnqueueOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range results {
		if r.Err != nil || r.State != driver.Available || r.ID != tasks[i].ID {
			t.Fatalf("task %d: %+v", i, r)
		}
	}
}

// fetchOnce fetches once, and checks that no task comes twice.
func fetchOnce(t *testing.T, store driver.Store, req driver.FetchRequest) []driver.Claim {
	t.Helper()
	seen := map[string]bool{}
	res, err := store.Fetch(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range res.Claims {
		if seen[c.ID] {
			t.Errorf("task %s was fetched twice", c.ID)
		}
		seen[c.ID] = true
	}
	return res.Claims
}

// wantTotals checks that there are n queues with one task each, in that state.
func wantTotals(t *testing.T, store driver.Store, n int, state driver.State) {
	t.Helper()
	queues, err := store.Queues(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(queues) != n {
		t.Fatalf("there are %d queues, want %d", len(queues), n)
	}
	for _, q := range queues {
		if q.Counts[state] != 1 || q.Totals.Enqueued != 1 {
			t.Fatalf("queue %s has %v, %+v, want one %s task", q.Name, q.Counts, q.Totals, state)
		}
	}
}

// quietAfterTokens checks that of all the tokens that tasks have left behind, which have been run since, only one wakes
// the worker.
func quietAfterTokens(t *testing.T, store driver.Store, req driver.AwaitRequest) {
	t.Helper()
	for wakes := 0; ; wakes++ {
		began := time.Now()
		if err := store.Await(t.Context(), req); err != nil {
			t.Fatal(err)
		}
		if time.Since(began) >= req.Max {
			return
		}
		if wakes > 2 {
			t.Fatal("a worker is woken again and again for tasks that are done")
		}
	}
}

// watchKeys returns a function that tells the most keys that any script was called with.
func watchKeys(t *testing.T, server *redisserver.Server) func() int {
	t.Helper()
	c, err := server.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Do(t.Context(), "MONITOR"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	counted := make(chan int, 1)
	go func() {
		most := 0
		defer func() { counted <- most }()
		for {
			v, err := c.Receive(ctx)
			if err != nil || strings.Contains(v.Text, "that is all") {
				return
			}
			// 1700000000.000000 [0 127.0.0.1:50000] "EVALSHA" "…" "17" …
			words := strings.Fields(v.Text)
			if i := slices.IndexFunc(words, func(w string) bool { return strings.EqualFold(w, `"EVALSHA"`) }); i >= 0 && len(words) > i+2 {
				n, _ := strconv.Atoi(strings.Trim(words[i+2], `"`)) // what is no number counts as none
				most = max(most, n)
			}
		}
	}()
	t.Cleanup(func() { cancel(); c.Close() })
	return func() int {
		if _, err := server.Do(t.Context(), "ECHO", "that is all"); err != nil {
			t.Fatal(err)
		}
		most := <-counted
		if most == 0 {
			t.Error("no script was seen")
		}
		return most
	}
}

// What holds nothing costs nothing: queues that were emptied in whatever way leave no keys of their own behind.
func TestEmptiedQueuesLeaveNoKeys(t *testing.T) {
	t.Parallel()
	redistest.EachFlavour(t, func(t *testing.T, f redisserver.Flavour) {
		var few []string
		for _, n := range []int{4, 100} {
			store := open(t, shared(t, f), nil)
			var queues []string
			var tasks []*driver.Task
			for i := range n {
				q := fmt.Sprintf("queue-%d", i)
				queues = append(queues, q)
				tasks = append(tasks, &driver.Task{Type: "a", Queue: q}, &driver.Task{Type: "b", Queue: q, Priority: 5},
					&driver.Task{Type: "c", Queue: q, ExpiresIn: time.Hour})
			}
			mustEnqueue(t, store, tasks)
			if err := store.Register(t.Context(), driver.WorkerInfo{ID: "w", Queues: queues}, time.Minute); err != nil {
				t.Fatal(err)
			}
			settle(t, store, "w", fetchOnce(t, store, driver.FetchRequest{Worker: "w", Lease: time.Minute, Queues: queues[:n/2], Max: n}))
			if err := store.Unregister(t.Context(), "w"); err != nil {
				t.Fatal(err)
			}
			for _, filter := range []driver.Filter{{Queues: queues[1:2]}, {All: true}} {
				c := driver.Change{Op: driver.OpDelete, Filter: filter}
				for more := true; more; {
					res, err := store.Apply(t.Context(), c)
					if err != nil {
						t.Fatal(err)
					}
					more, c.Cursor = res.More, res.Next
				}
			}
			keys, err := redisstore.LastingKeys(t.Context(), store)
			if err != nil {
				t.Fatal(err)
			}
			slices.Sort(keys)
			if few == nil {
				few = keys
			} else if len(keys) != len(few) {
				t.Errorf("with %d queues %d keys are left: %q; with 4 %d", n, len(keys), keys[:min(len(keys), 20)], len(few))
			}
		}
	})
}
