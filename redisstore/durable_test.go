package redisstore_test

import (
	"errors"
	"testing"
	"time"

	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/internal/redisserver"
	"github.com/waggleq/waggle/internal/redisserver/redistest"
	"github.com/waggleq/waggle/redisstore"
)

// A task that an earlier call stored, and then gave up waiting for a replica to have it, is not called replicated by the
// next call because it is there. The same holds for the owner of a unique key.
func TestWhatIsThereIsWaitedForToo(t *testing.T) {
	t.Parallel()
	redistest.EachFlavour(t, func(t *testing.T, f redisserver.Flavour) {
		for name, query := range map[string]string{"one shard": "", "four shards": "?shards=4"} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				master := redistest.Start(t, &redisserver.Options{Flavour: f})
				replica := redistest.Start(t, &redisserver.Options{Flavour: f, ReplicaOf: master})
				waitedFor(t, master.URL()+query, replica)
			})
		}
	})
}

func waitedFor(t *testing.T, url string, replica *redisserver.Server) {
	unique := &driver.Unique{Key: "k", Until: driver.UntilDone, OnConflict: driver.ConflictReturn}
	enqueue := func(id string) error {
		s := open(t, url, &redisstore.Options{Replicas: 1, Timeout: time.Second}) // with connections of its own
		task := benchTasks(1)
		task[0].ID = id
		if id != "plain" {
			task[0].Unique = unique
		}
		_, err := s.Enqueue(t.Context(), task, driver.EnqueueOptions{Durability: driver.DurabilityReplicated})
		return err
	}
	ids := []string{"plain", "owner", "other"}
	if err := replica.Pause(); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the first time stores what the second finds
		for _, id := range ids {
			if err := enqueue(id); !errors.Is(err, driver.ErrNotDurable) {
				t.Errorf("task %s without a replica: got %v, want ErrNotDurable", id, err)
			}
		}
	}
	if err := replica.Resume(); err != nil {
		t.Fatal(err)
	}
	for _, id := range ids {
		eventually(t, "Enqueue with a replica", func() error { return enqueue(id) })
	}
}
