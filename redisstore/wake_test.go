package redisstore_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/internal/redisserver"
	"github.com/waggleq/waggle/internal/redisserver/redistest"
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
