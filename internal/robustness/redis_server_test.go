package robustness

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/waggleq/waggle"
	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/driver/drivertest/history"
	"github.com/waggleq/waggle/internal/redisserver"
	"github.com/waggleq/waggle/internal/redisserver/redistest"
)

// recovered is how soon after an outage a new task must run: workers ask again at least that often.
const recovered = 10 * time.Second

// newRedisCrew starts two producers and two workers on a server.
func newRedisCrew(t *testing.T, url, through string) *crew {
	t.Helper()
	c := newCrew(t, url, through)
	for i := range 2 {
		c.producer(fmt.Sprintf("producer%d", i))
		c.worker(fmt.Sprintf("worker%d", i))
	}
	return c
}

// TestServerKillLoop kills the server with SIGKILL again and again while tasks are enqueued and done. At level disk
// nothing is lost; at level memory with a file synced every second it may be what was accepted in the last moments, and
// no task is there in part.
func TestServerKillLoop(t *testing.T) {
	t.Parallel()
	for name, k := range map[string]serverKill{
		"redis disk":    {redisserver.Options{AOF: redisserver.AOFAlways}, driver.DurabilityDisk},
		"valkey disk":   {redisserver.Options{AOF: redisserver.AOFAlways, Flavour: redisserver.Valkey}, driver.DurabilityDisk},
		"redis memory":  {redisserver.Options{AOF: redisserver.AOFEverySec}, driver.DurabilityMemory},
		"valkey memory": {redisserver.Options{AOF: redisserver.AOFEverySec, Flavour: redisserver.Valkey}, driver.DurabilityMemory},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k.loop(t, func(kills int) bool { return kills == 5 })
		})
	}
}

// TestSoakServerKillLoop is TestServerKillLoop for as long as WAGGLE_SOAK says.
func TestSoakServerKillLoop(t *testing.T) {
	d := envDuration(t, "WAGGLE_SOAK", 0)
	if d == 0 {
		t.Skip("a long test: set WAGGLE_SOAK to a duration such as 10m, or run make soak")
	}
	began := time.Now()
	k := serverKill{redisserver.Options{AOF: redisserver.AOFAlways}, driver.DurabilityDisk}
	k.loop(t, func(int) bool { return time.Since(began) > d })
}

type serverKill struct {
	server redisserver.Options
	level  driver.Durability
}

func (k serverKill) loop(t *testing.T, enough func(kills int) bool) {
	takeTurn(t)
	server := redistest.Start(t, &k.server)
	url := with(server.URL(), "timeout=3s", "durability="+string(k.level))
	c := newRedisCrew(t, url, url)
	var kills []time.Time
	for !enough(len(kills)) {
		c.runs(60)
		server.Kill()
		kills = append(kills, time.Now())
		must(t, server.Restart(t.Context()))
	}
	c.probe("probe", recovered)
	opts := &history.Options{Recovery: 15 * time.Second}
	if k.level == driver.DurabilityMemory {
		opts.MayLose = []driver.Durability{driver.DurabilityMemory}
	}
	c.end(opts)
	wantLostWithin(c, 2*time.Second, kills)
}

// wantLostWithin checks that what was lost had been accepted within a window before a failure.
func wantLostWithin(c *crew, window time.Duration, failures []time.Time) {
	c.Helper()
	lost := c.lost()
	for id, at := range lost {
		excused := false
		for _, f := range failures {
			excused = excused || !at.After(f) && f.Sub(at) <= window
		}
		if !excused {
			c.Errorf("%s was accepted at %v and is lost, further than %v from a failure", id, at, window)
		}
	}
	c.Logf("%d failures, %d accepted tasks lost", len(failures), len(lost))
}

// TestServerPaused stops the server for one and a half leases while handlers run. No two handlers have a task at the same
// time while the first may trust its lease, and work goes on afterwards.
func TestServerPaused(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, nil)
	url := with(server.URL(), "timeout=3s")
	c := newRedisCrew(t, url, url)
	ids := c.enqueueN("long", 6, act{Do: doGate})
	for _, id := range ids {
		c.awaitStart(id)
	}
	must(t, server.Pause())
	must(t, wait(t.Context(), lease*3/2))
	must(t, server.Resume())
	c.probe("probe", recovered)
	for _, p := range c.procs {
		for _, id := range ids {
			close(p.gate(id))
		}
	}
	c.end(&history.Options{Recovery: 15 * time.Second})
	for _, r := range c.awaitEnd(ids...) {
		if r.State != driver.Completed || r.Attempt != 1 || !strings.Contains(c.causes[r.ID], "lease") {
			t.Errorf("%s is %s after attempt %d, its context ended with %q, want it stopped by the loss of the lease and completed",
				r.ID, r.State, r.Attempt, c.causes[r.ID])
		}
	}
}

// TestScriptsFlushed has the server forget all scripts ten times a second.
func TestScriptsFlushed(t *testing.T) {
	t.Parallel()
	redistest.EachFlavour(t, func(t *testing.T, f redisserver.Flavour) {
		takeTurn(t)
		server := redistest.Start(t, &redisserver.Options{Flavour: f})
		c := newRedisCrew(t, server.URL(), server.URL())
		for range 20 {
			_, err := server.Do(t.Context(), "SCRIPT", "FLUSH")
			must(t, err)
			must(t, wait(t.Context(), 100*time.Millisecond))
		}
		c.probe("probe", recovered)
		c.end(&history.Options{Recovery: 15 * time.Second})
		if strings.Contains(c.said.String(), "NOSCRIPT") {
			t.Error("a call failed for want of its script")
		}
	})
}

// TestStoreLost empties the store under load. Workers stop with an error that says so, and producers get it too: nothing
// goes on as if the tasks had been done. A store opened anew is a new, empty one.
func TestStoreLost(t *testing.T) {
	t.Parallel()
	for name, lose := range map[string]func(context.Context, *redisserver.Server) error{
		"flushed": func(ctx context.Context, s *redisserver.Server) error {
			_, err := s.Do(ctx, "FLUSHALL")
			return err
		},
		"restarted without a file": func(ctx context.Context, s *redisserver.Server) error {
			s.Kill()
			return s.Restart(ctx)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t, nil)
			c := newCrew(t, server.URL(), server.URL())
			ended := c.worker("worker")
			c.producer("producer")
			c.runs(60)
			must(t, lose(t.Context(), server))
			select {
			case err := <-ended:
				if !errors.Is(err, driver.ErrCorrupt) || !strings.Contains(err.Error(), "came back empty") {
					t.Errorf("the worker ended with %v", err)
				}
			case <-time.After(patience):
				t.Fatal("the worker goes on")
			}
			if _, err := c.client.Enqueue(t.Context(), taskType, act{}, nil); !errors.Is(err, waggle.ErrCorrupt) {
				t.Errorf("enqueue: got %v, want ErrCorrupt", err)
			}
			c.producing()
			c.producers.Wait()
			if info, err := c.open(c.url).Info(t.Context()); err != nil || info.Incarnation == "" {
				t.Errorf("opened anew: got %+v, %v", info, err)
			}
		})
	}
}

// TestMemoryFull fills a server up to its limit. New tasks are refused with the error for that, workers drain what is
// there, and then new tasks are accepted again.
func TestMemoryFull(t *testing.T) {
	t.Parallel()
	redistest.EachFlavour(t, func(t *testing.T, f redisserver.Flavour) {
		takeTurn(t)
		server := redistest.Start(t, &redisserver.Options{Flavour: f, MaxMemory: 5 << 20})
		c := newCrew(t, server.URL(), server.URL())
		none := driver.KeepNone
		must(t, c.client.SetRetention(t.Context(), waggle.DefaultQueue, driver.Retention{Completed: none, Cancelled: none, Discarded: none}))
		err, stored := error(nil), 0
		for ; err == nil && stored < 10_000; stored++ {
			_, err = c.client.Enqueue(t.Context(), taskType, act{},
				&waggle.EnqueueOptions{Headers: map[string]string{"filler": strings.Repeat("x", 15_000)}})
		}
		if !errors.Is(err, waggle.ErrStoreFull) {
			t.Fatalf("after %d tasks got %v, want ErrStoreFull", stored, err)
		}
		c.worker("worker")
		c.runs(stored - 1)
		c.probe("probe", recovered)
		c.end(&history.Options{Prunes: true, Recovery: 15 * time.Second})
	})
}
