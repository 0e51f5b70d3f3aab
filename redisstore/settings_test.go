package redisstore_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/internal/redisserver"
	"github.com/waggleq/waggle/internal/redisserver/redistest"
	"github.com/waggleq/waggle/redisstore"
)

// A program that dies while it sets or deletes a queue leaves shards that have not heard of it: the next maintenance tells them.
// Only what is newer than what a shard has is told.
func TestSettingsThatDidNotGetToAllShards(t *testing.T) {
	t.Parallel()
	redistest.EachFlavour(t, func(t *testing.T, f redisserver.Flavour) {
		c := redistest.StartCluster(t, &redisserver.ClusterOptions{Node: redisserver.Options{Flavour: f}, NoReplicas: true})
		maintain := func(t *testing.T, s *redisstore.Store) error {
			_, err := s.Maintain(t.Context(), 0)
			return err
		}
		setMore := func(t *testing.T, s *redisstore.Store) error {
			_, err := s.SetQueue(t.Context(), "q", driver.QueuePatch{Bound: &driver.Bound{Max: 900}})
			return err
		}
		for i, then := range []func(t *testing.T, s *redisstore.Store, goOn func() error) error{
			func(t *testing.T, s *redisstore.Store, _ func() error) error { return maintain(t, s) },
			func(t *testing.T, s *redisstore.Store, _ func() error) error {
				return errors.Join(setMore(t, s), maintain(t, s))
			},
			func(t *testing.T, s *redisstore.Store, _ func() error) error {
				return errors.Join(redisstore.DeleteQueueInHub(t.Context(), s, "q"), maintain(t, s))
			},
			// It does not die, and is slower than another that comes later. Nobody sees to it then.
			func(t *testing.T, s *redisstore.Store, goOn func() error) error {
				return errors.Join(setMore(t, s), goOn())
			},
		} {
			t.Run(fmt.Sprint(i), func(t *testing.T) {
				url := fmt.Sprintf("%s?shards=5&ns=half-%d", c.URL(), i)
				dying, other := open(t, url, nil), open(t, url, nil)
				if _, err := dying.SetQueue(t.Context(), "q", driver.QueuePatch{Draining: new(true), PutLimits: []driver.Limit{{Type: "a", Concurrency: 4}}}); err != nil {
					t.Fatal(err)
				}
				goOn, err := redisstore.SetQueueInHub(t.Context(), dying, "q", driver.QueuePatch{Paused: new(true), PutLimits: []driver.Limit{{Type: "b", Concurrency: 2}}})
				if err != nil {
					t.Fatal(err)
				}
				if err := then(t, other, goOn); err != nil {
					t.Fatal(err)
				}
				list, err := other.Queues(t.Context(), "q")
				if err != nil {
					t.Fatal(err)
				}
				shards, err := redisstore.ConfigsOf(t.Context(), other, "q")
				if err != nil {
					t.Fatal(err)
				}
				if len(list) == 0 {
					if i != 2 || len(shards) > 0 {
						t.Errorf("there is no such queue, and %d shards know it", len(shards))
					}
					return
				}
				if c := list[0].Config; !c.Paused || !c.Draining || len(c.Limits) != 2 || i == 2 || (c.Bound.Max == 900) != (i == 1 || i == 3) {
					t.Errorf("the queue is %+v", c)
				}
				if len(shards) != 5 {
					t.Errorf("%d shards know the queue", len(shards))
				}
				for i, c := range shards {
					if diff := cmp.Diff(list[0].Config, c); diff != "" {
						t.Errorf("shard %d (-hub +shard):\n%s", i, diff)
					}
				}
			})
		}
	})
}

// A shard in which tasks are available refuses another order. Then no shard has it, also if the tasks came on the way.
func TestAnOrderThatOneShardRefuses(t *testing.T) {
	t.Parallel()
	c := redistest.StartCluster(t, &redisserver.ClusterOptions{NoReplicas: true})
	s := open(t, c.URL()+"?shards=5", nil)
	id := ""
	for redisstore.ShardOf(s, id) != 3 {
		id = driver.NewID()
	}
	mustEnqueue(t, s, []*driver.Task{{ID: id, Type: "a", Queue: "q", ExpiresIn: time.Hour}})
	deadline := driver.OrderDeadline
	if err := redisstore.SetQueueUnlooked(t.Context(), s, "q", driver.QueuePatch{Order: &deadline}); err == nil {
		t.Fatal("the order was changed")
	}
	shards, err := redisstore.ConfigsOf(t.Context(), s, "q")
	if err != nil {
		t.Fatal(err)
	}
	for i, c := range shards {
		if c.Order != "" {
			t.Errorf("shard %d goes by %s", i, c.Order)
		}
	}
}
