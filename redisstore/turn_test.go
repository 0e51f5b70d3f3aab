package redisstore_test

import (
	"fmt"
	"math"
	"sync"
	"testing"
	"time"

	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/internal/redisserver"
	"github.com/waggleq/waggle/internal/redisserver/redistest"
	"github.com/waggleq/waggle/redisstore"
)

// TestClusterWeights has keys that are in different shards share a queue by their weights.
func TestClusterWeights(t *testing.T) {
	t.Parallel()
	redistest.EachFlavour(t, func(t *testing.T, f redisserver.Flavour) {
		c := redistest.StartCluster(t, &redisserver.ClusterOptions{Node: redisserver.Options{Flavour: f}})
		url := func(ns string) string { return c.URL() + "?shards=16&ns=" + ns }
		t.Run("two workers", func(t *testing.T) { weightsAreKept(t, url("two"), 2) })
		t.Run("a key that comes later", func(t *testing.T) { lateKeyStarts(t, url("late")) })
	})
}

// fillShares enqueues n tasks of a key; an empty one means none.
func fillShares(t *testing.T, s *redisstore.Store, key string, weight, n int) {
	t.Helper()
	for ; n > 0; n -= 500 {
		tasks := make([]*driver.Task, min(n, 500))
		for i := range tasks {
			tasks[i] = &driver.Task{Type: "t", Key: key, Weight: weight, Payload: []byte("null")}
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
	}
}

// claimShares claims up to want tasks and completes them.
func claimShares(t *testing.T, s *redisstore.Store, worker string, want int) []driver.Claim {
	t.Helper()
	res, err := s.Fetch(t.Context(), driver.FetchRequest{Worker: worker, Lease: time.Minute, Queues: []string{driver.DefaultQueue}, Max: want})
	if err != nil {
		t.Error(err)
		return nil
	}
	list := make([]driver.Settlement, len(res.Claims))
	for i, c := range res.Claims {
		list[i] = driver.Settlement{ID: c.ID, Token: c.Token, Outcome: driver.Complete}
	}
	if _, err := s.Settle(t.Context(), worker, list); err != nil {
		t.Error(err)
	}
	return res.Claims
}

func weightsAreKept(t *testing.T, url string, workers int) {
	const n = 4000
	weights := map[string]int{"a": 1, "b": 2, "c": 3, "d": 4, "": 1} // tasks without a key are one more
	sum := 0
	s := open(t, url, nil)
	for key, w := range weights {
		set := w
		if key == "" {
			set = 0
		}
		fillShares(t, s, key, set, n*w/4)
		sum += w
	}
	var mu sync.Mutex
	got, total := map[string]int{}, 0
	var wg sync.WaitGroup
	for i := range workers {
		s, w := open(t, url, nil), fmt.Sprint("w", i)
		register(t, s, w)
		wg.Go(func() {
			for !t.Failed() {
				claims := claimShares(t, s, w, 50)
				mu.Lock()
				for _, c := range claims {
					if total < n {
						got[c.Key]++
						total++
					}
				}
				enough := total >= n
				mu.Unlock()
				if enough {
					return
				}
			}
		})
	}
	wg.Wait()
	for key, w := range weights {
		if off := float64(got[key])/(float64(n*w)/float64(sum)) - 1; math.Abs(off) > 0.1 {
			t.Errorf("key %q has %d of %d starts, that is %+.0f %% off its share", key, got[key], n, 100*off)
		}
	}
	t.Logf("starts: %v", got)
}

func lateKeyStarts(t *testing.T, url string) {
	s := open(t, url, nil)
	register(t, s, "w")
	for i := range 5 {
		fillShares(t, s, fmt.Sprint("old-", i), 0, 1000)
	}
	for range 20 {
		claimShares(t, s, "w", 50)
	}
	fillShares(t, s, "late", 0, 1000)
	late, others := 0, 0
	for range 30 {
		for _, c := range claimShares(t, s, "w", 50) {
			if c.Key == "late" {
				late++
			} else {
				others++
			}
		}
	}
	if want := (late + others) / 6; late < want*3/4 || late > want*5/4 {
		t.Errorf("the key that came later had %d starts of %d, its share is %d", late, late+others, want)
	}
}
