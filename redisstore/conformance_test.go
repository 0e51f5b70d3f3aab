package redisstore_test

import (
	"context"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/driver/drivertest"
	"github.com/waggleq/waggle/internal/redisserver"
	"github.com/waggleq/waggle/redisstore"
)

// The servers that the tests of this package share: one of each flavour, each test in a namespace of its own.
var (
	sharedServers sync.Map // redisserver.Flavour → func() (*redisserver.Server, error)
	namespaces    atomic.Int64
)

func TestMain(m *testing.M) {
	ctx, cancel := context.WithCancel(context.Background())
	var started []*redisserver.Server
	var mu sync.Mutex
	for _, f := range redisserver.Flavours() {
		sharedServers.Store(f, sync.OnceValues(func() (*redisserver.Server, error) {
			s, err := redisserver.Start(ctx, &redisserver.Options{Flavour: f})
			if err == nil {
				mu.Lock()
				started = append(started, s)
				mu.Unlock()
			}
			return s, err
		}))
	}
	code := m.Run()
	for _, s := range started {
		if err := s.Close(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = max(code, 1)
		}
	}
	cancel()
	os.Exit(code)
}

// shared returns the URL of a namespace of its own on the shared server of a flavour.
func shared(t testing.TB, f redisserver.Flavour) string {
	t.Helper()
	start, _ := sharedServers.Load(f)
	s, err := start.(func() (*redisserver.Server, error))()
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%s?ns=t%d", s.URL(), namespaces.Add(1))
}

// engine is the store on a server of one flavour. Advance moves the clock that the scripts see.
func engine(f redisserver.Flavour) drivertest.Engine {
	return drivertest.Engine{Name: "redis", Open: func(t testing.TB) *drivertest.Fixture {
		return fixture(t, shared(t, f))
	}}
}

// maxEvents is less than the default, so that the suite's test of that bound is soon done with several shards too.
const maxEvents = 5_000

// fixture opens the store at a URL; all its handles share one moved clock.
func fixture(t testing.TB, url string) *drivertest.Fixture {
	var mu sync.RWMutex
	var handles []*redisstore.Store
	var offset time.Duration
	open := func(t testing.TB) driver.Store {
		s, err := redisstore.Open(t.Context(), url, &redisstore.Options{MaxEvents: maxEvents})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
		mu.Lock()
		defer mu.Unlock()
		redisstore.SetOffset(s, offset)
		handles = append(handles, s)
		return &movedStore{s, &mu}
	}
	advance := func(d time.Duration) {
		mu.Lock()
		defer mu.Unlock()
		offset += d
		for _, s := range handles {
			redisstore.SetOffset(s, offset)
		}
	}
	f := &drivertest.Fixture{Store: open(t), Advance: advance, Reopen: open}
	f.Work = redisstore.CountWork(handles[0])
	if s := handles[0]; redisstore.Shards(s) > 1 {
		f.Shards, f.Shard = redisstore.Shards(s), func(id string) int { return redisstore.ShardOf(s, id) }
		f.KeyShard = func(key string) int { return redisstore.ShardOfTaskKey(s, key) }
	}
	return f
}

func TestConformance(t *testing.T) {
	for _, f := range redisserver.Flavours() {
		t.Run(string(f), func(t *testing.T) { drivertest.Run(t, engine(f)) })
	}
}

func TestSimulation(t *testing.T) {
	for _, f := range redisserver.Flavours() {
		t.Run(string(f), func(t *testing.T) {
			t.Parallel()
			drivertest.RunSimulation(t, engine(f))
		})
	}
}
