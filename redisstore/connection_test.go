package redisstore_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/internal/redisserver"
	"github.com/waggleq/waggle/internal/redisserver/redistest"
	"github.com/waggleq/waggle/redisstore"
)

// A server that ends all connections while they are idle, as one does that is restarted or that a balancer is before, costs
// no call: the first ones after that are made on new connections.
func TestConnectionsEndedWhileIdleCostNoCall(t *testing.T) {
	t.Parallel()
	redistest.EachFlavour(t, func(t *testing.T, f redisserver.Flavour) {
		for name, tls := range map[string]bool{"plain": false, "TLS": true} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				server := redistest.Start(t, &redisserver.Options{Flavour: f, TLS: tls, AOF: redisserver.AOFEverySec})
				url := server.URL()
				if tls {
					url += "?ca_file=" + server.CAFile()
				}
				s := open(t, url, nil)
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // as clients and workers make their calls
				defer cancel()
				register(t, s, "w")
				for range 3 {
					atOnce(8, func() { workOnce(ctx, t, s, driver.DurabilityMemory) })
					if level := s.Capabilities().Durability; level[len(level)-1] == driver.DurabilityDisk {
						atOnce(4, func() { workOnce(ctx, t, s, driver.DurabilityDisk) })
					}
					if _, err := server.Do(ctx, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"); err != nil {
						t.Fatal(err)
					}
				}
			})
		}
	})
}

func atOnce(n int, do func()) {
	var wg sync.WaitGroup
	for range n {
		wg.Go(do)
	}
	wg.Wait()
}

// workOnce adds a task and completes one.
func workOnce(ctx context.Context, t *testing.T, s *redisstore.Store, level driver.Durability) {
	results, err := s.Enqueue(ctx, benchTasks(1), driver.EnqueueOptions{Durability: level})
	if err != nil || results[0].Err != nil {
		t.Errorf("Enqueue: %v %v", err, results)
		return
	}
	r, err := s.Fetch(ctx, driver.FetchRequest{Worker: "w", Lease: benchLease, Queues: []string{"default"}, Max: 1})
	if err != nil {
		t.Errorf("Fetch: %v", err)
		return
	}
	errs, err := driver.SettleErrors(s.Settle(ctx, "w", completions(r.Claims)))
	if err := errors.Join(append(errs, err)...); err != nil {
		t.Errorf("Settle: %v", err)
	}
}

// A call under way on a server that has stopped answering ends when the store is closed.
func TestCloseEndsCallsUnderWay(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, nil)
	s := open(t, server.URL(), &redisstore.Options{Timeout: time.Hour})
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	register(t, s, "w")
	workOnce(ctx, t, s, driver.DurabilityMemory)
	if err := server.Pause(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = server.Resume() }()
	const calls = 5
	begun, done := make(chan struct{}, calls), make(chan error, calls)
	for range calls {
		go func() {
			begun <- struct{}{}
			_, err := s.Enqueue(ctx, benchTasks(1), driver.EnqueueOptions{})
			done <- err
		}()
	}
	for range calls {
		<-begun
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for range calls {
		if err := <-done; !errors.Is(err, driver.ErrClosed) {
			t.Errorf("got %v, want ErrClosed", err)
		}
	}
}
