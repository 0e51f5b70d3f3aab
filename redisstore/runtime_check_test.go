package redisstore_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/internal/redisserver"
	"github.com/waggleq/waggle/internal/redisserver/redistest"
	"github.com/waggleq/waggle/redisstore"
)

// A server that becomes unsafe while it is in use gets no more new tasks, says why, and can be drained; once it is safe
// again it is used again.
func TestServersThatBecomeUnsafe(t *testing.T) {
	t.Parallel()
	redistest.EachFlavour(t, func(t *testing.T, f redisserver.Flavour) {
		for name, c := range map[string]struct {
			options redisstore.Options
			harm    []string
			want    error
			text    string
			repair  []string
			drains  bool
		}{
			"eviction policy": {redisstore.Options{}, []string{"CONFIG", "SET", "maxmemory-policy", "allkeys-lru"},
				driver.ErrUnsupported, "maxmemory-policy noeviction", []string{"CONFIG", "SET", "maxmemory-policy", "noeviction"}, true},
			"AOF off": {redisstore.Options{RequireDisk: true}, []string{"CONFIG", "SET", "appendonly", "no"},
				driver.ErrUnsupported, "appendonly yes", nil, true},
			"replica": {redisstore.Options{}, []string{"REPLICAOF", "127.0.0.1", "1"},
				driver.ErrUnsupported, "replica", []string{"REPLICAOF", "NO", "ONE"}, false},
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				server := redistest.Start(t, &redisserver.Options{Flavour: f, MaxMemory: 100 << 20, AOF: redisserver.AOFAlways})
				s := open(t, server.URL(), &c.options)
				redisstore.SetCheckEvery(s, time.Millisecond)
				register(t, s, "w")
				add(t, s, 3, driver.EnqueueOptions{})
				if _, err := server.Do(t.Context(), c.harm...); err != nil {
					t.Fatal(err)
				}
				if err := awaitEnqueue(t, s, func(err error) bool { return errors.Is(err, c.want) }); !strings.Contains(err.Error(), c.text) {
					t.Errorf("got %v, want it to say %q", err, c.text)
				}
				info, err := s.Info(t.Context())
				if err != nil || !slices.ContainsFunc(info.Warnings, func(w string) bool { return strings.Contains(w, c.text) }) {
					t.Errorf("info: got %+v, %v", info, err)
				}
				if c.drains {
					settle(t, s, "w", fetch(t, s, "w", 1))
				}
				if c.repair != nil {
					if _, err := server.Do(t.Context(), c.repair...); err != nil {
						t.Fatal(err)
					}
					_ = awaitEnqueue(t, s, func(err error) bool { return err == nil })
				}
			})
		}
	})
}

// awaitEnqueue enqueues tasks, and heartbeats as workers do, until the outcome fits, and returns it.
func awaitEnqueue(t *testing.T, s *redisstore.Store, fits func(error) bool) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for {
		_, _ = s.Heartbeat(ctx, "w", benchLease) // whatever comes of it: any call looks at the server when it is time
		_, err := s.Enqueue(ctx, benchTasks(1), driver.EnqueueOptions{})
		if fits(err) {
			return err
		}
		if ctx.Err() != nil {
			t.Fatalf("enqueueing goes on with %v", err)
		}
	}
}
