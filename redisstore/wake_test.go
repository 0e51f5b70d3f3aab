package redisstore_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/internal/redisserver"
	"github.com/waggleq/waggle/internal/redisserver/redistest"
	"github.com/waggleq/waggle/redisstore"
)

// TestResumeWakesOnACluster resumes a queue whose tasks are in shards other than that of the wake tokens, and wants a
// worker that waits for much longer to have them.
func TestResumeWakesOnACluster(t *testing.T) {
	t.Parallel()
	redistest.EachFlavour(t, func(t *testing.T, f redisserver.Flavour) {
		s := open(t, redistest.StartCluster(t, &redisserver.ClusterOptions{Node: redisserver.Options{Flavour: f}}).URL(), nil)
		register(t, s, "w")
		for i := range 5 {
			if _, err := s.SetQueue(t.Context(), driver.DefaultQueue, driver.QueuePatch{Paused: new(true)}); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Enqueue(t.Context(), []*driver.Task{{ID: fmt.Sprint("a-", i), Type: "t"}}, driver.EnqueueOptions{}); err != nil {
				t.Fatal(err)
			}
			claims := make(chan []driver.Claim, 1)
			go func() {
				defer close(claims)
				req := driver.FetchRequest{Worker: "w", Lease: time.Minute, Queues: []string{driver.DefaultQueue}, Max: 10, Wait: time.Minute}
				for {
					res, err := s.Fetch(t.Context(), req)
					if err != nil {
						return
					}
					if len(res.Claims) > 0 {
						claims <- res.Claims
						return
					}
				}
			}()
			if _, err := s.SetQueue(t.Context(), driver.DefaultQueue, driver.QueuePatch{Paused: new(false)}); err != nil {
				t.Fatal(err)
			}
			select {
			case got := <-claims:
				if len(got) != 1 {
					t.Fatalf("claimed %v", got)
				}
				if _, err := s.Settle(t.Context(), "w", []driver.Settlement{{ID: got[0].ID, Token: got[0].Token, Outcome: driver.Complete}}); err != nil {
					t.Fatal(err)
				}
			case <-time.After(30 * time.Second):
				t.Fatal("the worker was not woken")
			}
		}
	})
}

// TestTokensNameShards has tasks come into several shards while nobody waits: who waits next is told in which, up to a number.
func TestTokensNameShards(t *testing.T) {
	t.Parallel()
	redistest.EachFlavour(t, func(t *testing.T, f redisserver.Flavour) {
		c := redistest.StartCluster(t, &redisserver.ClusterOptions{Node: redisserver.Options{Flavour: f}, NoReplicas: true})
		s := open(t, c.URL()+"?shards=64&ns=tokens", nil)
		var want []int
		for i := 0; len(want) < 30; i++ {
			id := fmt.Sprint("t-", i)
			sh := redisstore.ShardOf(s, id)
			if !slices.Contains(want, sh) {
				want = append(want, sh)
			}
			if _, err := s.Enqueue(t.Context(), []*driver.Task{{ID: id, Type: "t"}}, driver.EnqueueOptions{}); err != nil {
				t.Fatal(err)
			}
			token, err := redisstore.WakeToken(t.Context(), s, driver.DefaultQueue, "t")
			if err != nil {
				t.Fatal(err)
			}
			got := redisstore.ShardsOfToken(s, token)
			if slices.Sort(got); len(want) <= 5 && !slices.Equal(got, slices.Sorted(slices.Values(want))) || len(want) > 16 && got != nil {
				t.Errorf("after tasks in shards %v the token is %q", want, token)
			}
		}
		for _, token := range []string{"", "*", "+", "s", "s64", "s1,", "s1,*", "s-1"} {
			if got := redisstore.ShardsOfToken(s, token); got != nil {
				t.Errorf("token %q names %v", token, got)
			}
		}
	})
}
