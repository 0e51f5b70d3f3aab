package redisstore_test

import (
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

// TestWaitForEventsOnACluster counts what a reader of events costs a Cluster while nothing happens, and then has each
// shard wake it.
func TestWaitForEventsOnACluster(t *testing.T) {
	t.Parallel()
	redistest.EachFlavour(t, func(t *testing.T, f redisserver.Flavour) {
		servers := redistest.StartCluster(t, &redisserver.ClusterOptions{Node: redisserver.Options{Flavour: f}})
		s := open(t, servers.URL(), nil)
		redisstore.SetCheckEvery(s, time.Hour)
		page, err := s.Events(t.Context(), driver.EventQuery{After: driver.EventsFromNow})
		if err != nil {
			t.Fatal(err)
		}
		wait := func(d time.Duration) int {
			before := eventReads(t, s)
			if page, err = s.Events(t.Context(), driver.EventQuery{After: page.Next, Wait: d}); err != nil {
				t.Fatal(err)
			}
			return eventReads(t, s) - before
		}
		shards := redisstore.Shards(s)
		// Each shard is read before the wait and after it, and has one command that blocks.
		if n := wait(3 * time.Second); n > 3*shards || len(page.Events) > 0 {
			t.Errorf("a wait of 3 s cost %d commands and gave %d events", n, len(page.Events))
		}
		if n := wait(time.Second); n > 2*shards {
			t.Errorf("the next wait cost %d commands though the reads that block were there", n)
		}
		woken := map[int]bool{}
		for i := 0; len(woken) < shards; i++ {
			id := "t-" + strconv.Itoa(i)
			if woken[redisstore.ShardOf(s, id)] {
				continue
			}
			woken[redisstore.ShardOf(s, id)] = true
			next := make(chan *driver.EventPage, 1)
			go func() {
				got, err := s.Events(t.Context(), driver.EventQuery{After: page.Next, Wait: time.Minute})
				if err != nil {
					t.Error(err)
				}
				next <- got
			}()
			if _, err := s.Enqueue(t.Context(), []*driver.Task{{ID: id, Type: "t"}}, driver.EnqueueOptions{}); err != nil {
				t.Fatal(err)
			}
			select {
			case page = <-next:
			case <-time.After(30 * time.Second):
				t.Fatalf("shard %d woke nobody", redisstore.ShardOf(s, id))
			}
			if page == nil || len(page.Events) != 1 || page.Events[0].ID != id {
				t.Fatalf("got %+v, want the event of %s", page, id)
			}
		}
	})
}

// eventReads returns how many commands that read event logs the servers of a store have executed.
func eventReads(t *testing.T, s *redisstore.Store) int { return commandCalls(t, s, "xread", "xrange") }

// commandCalls returns how many of some commands the servers of a store have executed.
func commandCalls(t *testing.T, s *redisstore.Store, names ...string) int {
	t.Helper()
	infos, err := redisstore.Infos(t.Context(), s, "commandstats")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, info := range infos {
		for line := range strings.Lines(info) {
			if name, rest, ok := strings.Cut(line, ":calls="); ok && slices.Contains(names, strings.TrimPrefix(name, "cmdstat_")) {
				calls, _, _ := strings.Cut(rest, ",")
				v, err := strconv.Atoi(calls)
				if err != nil {
					t.Fatal(err)
				}
				n += v
			}
		}
	}
	return n
}
