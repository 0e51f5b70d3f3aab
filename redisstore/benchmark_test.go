package redisstore_test

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/driver/drivertest"
	"github.com/waggleq/waggle/internal/redisserver"
	"github.com/waggleq/waggle/redisstore"
)

const benchLease = time.Minute

// benchStore opens a store of its own on the shared server of a flavour.
func benchStore(b *testing.B, f redisserver.Flavour) *redisstore.Store {
	s, err := redisstore.Open(b.Context(), shared(b, f), nil)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = s.Close() })
	if err := s.Register(b.Context(), driver.WorkerInfo{ID: "w", Host: "host", Build: "v1", Slots: 100}, benchLease); err != nil {
		b.Fatal(err)
	}
	return s
}

func benchTasks(n int) []*driver.Task {
	payload := []byte(`"` + strings.Repeat("x", 98) + `"`)
	list := make([]*driver.Task, n)
	for i := range list {
		list[i] = &driver.Task{Type: "bench", Payload: payload}
	}
	return list
}

func fill(b *testing.B, s *redisstore.Store, n int) {
	for n > 0 {
		k := min(n, 500)
		if _, err := s.Enqueue(b.Context(), benchTasks(k), driver.EnqueueOptions{}); err != nil {
			b.Fatal(err)
		}
		n -= k
	}
}

func eachFlavour(b *testing.B, bench func(b *testing.B, f redisserver.Flavour)) {
	for _, f := range redisserver.Flavours() {
		b.Run(string(f), func(b *testing.B) { bench(b, f) })
	}
}

// BenchmarkEnqueueBulk: one operation is one task, in batches of 500.
func BenchmarkEnqueueBulk(b *testing.B) {
	eachFlavour(b, func(b *testing.B, f redisserver.Flavour) {
		s := benchStore(b, f)
		for n := b.N; n > 0; n -= 500 {
			if _, err := s.Enqueue(b.Context(), benchTasks(min(n, 500)), driver.EnqueueOptions{}); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkEnqueueSingle: one operation is one call with one task, from 50 goroutines.
func BenchmarkEnqueueSingle(b *testing.B) {
	eachFlavour(b, func(b *testing.B, f redisserver.Flavour) {
		s := benchStore(b, f)
		b.SetParallelism(25)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if _, err := s.Enqueue(b.Context(), benchTasks(1), driver.EnqueueOptions{}); err != nil {
					b.Error(err)
					return
				}
			}
		})
	})
}

// BenchmarkProcess: one operation is one task, claimed and settled in batches of 100 by one worker that has two claims
// and two settlements under way.
func BenchmarkProcess(b *testing.B) {
	eachFlavour(b, func(b *testing.B, f redisserver.Flavour) {
		s := benchStore(b, f)
		fill(b, s, b.N)
		b.ResetTimer()
		process(b, int64(b.N), func(ctx context.Context) (int, error) {
			r, err := s.Fetch(ctx, driver.FetchRequest{Worker: "w", Lease: benchLease, Queues: []string{"default"}, Types: []string{"bench"}, Max: 100})
			if err != nil || len(r.Claims) == 0 {
				return 0, err
			}
			items := make([]driver.Settlement, len(r.Claims))
			for i, c := range r.Claims {
				items[i] = driver.Settlement{ID: c.ID, Token: c.Token, Outcome: driver.Complete}
			}
			errs, err := driver.SettleErrors(s.Settle(ctx, "w", items))
			for _, e := range errs {
				if e != nil {
					return 0, e
				}
			}
			return len(items), err
		})
	})
}

// process runs step in four goroutines until n tasks are done.
func process(b *testing.B, n int64, step func(context.Context) (int, error)) {
	var done atomic.Int64
	b.SetParallelism(2)
	var failed atomic.Bool
	wait := make(chan struct{})
	for range 4 {
		go func() {
			defer func() { wait <- struct{}{} }()
			for done.Load() < n && !failed.Load() {
				k, err := step(b.Context())
				if err != nil {
					failed.Store(true)
					b.Error(err)
					return
				}
				done.Add(int64(k))
			}
		}()
	}
	for range 4 {
		<-wait
	}
}

// The least that a queue does in Redis: put records into a hash and ids into a list, take them with their payloads and
// note who holds them, check that and forget them.
var (
	bareEnqueue = rueidis.NewLuaScript(`redis.call('HSET', KEYS[1], unpack(ARGV))
local ids = {} for i = 1, #ARGV, 2 do ids[#ids + 1] = ARGV[i] end
return redis.call('RPUSH', KEYS[2], unpack(ids))`)
	bareClaim = rueidis.NewLuaScript(`local ids = redis.call('LPOP', KEYS[2], ARGV[1])
if not ids then return {{}, {}} end
local held = {} for i = 1, #ids do held[i * 2 - 1], held[i * 2] = ids[i], ARGV[2] end
redis.call('HSET', KEYS[3], unpack(held))
return {ids, redis.call('HMGET', KEYS[1], unpack(ids))}`)
	bareSettle = rueidis.NewLuaScript(`local held = redis.call('HMGET', KEYS[3], unpack(ARGV))
for i = 1, #held do if not held[i] then return 0 end end
redis.call('HDEL', KEYS[3], unpack(ARGV))
return redis.call('HDEL', KEYS[1], unpack(ARGV))`)
)

// BenchmarkBareScript is BenchmarkProcess with three minimal scripts instead of the store's: no states, leases, retries,
// counters, results or events. It is the limit that the store is measured against.
func BenchmarkBareScript(b *testing.B) {
	eachFlavour(b, func(b *testing.B, f redisserver.Flavour) {
		url := shared(b, f)
		o, err := rueidis.ParseURL(url[:strings.IndexByte(url, '?')])
		if err != nil {
			b.Fatal(err)
		}
		o.DisableCache, o.PipelineMultiplex = true, 1
		c, err := rueidis.NewClient(o)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(c.Close)
		keys := make([]string, 3)
		for i := range keys {
			keys[i] = fmt.Sprintf("bare:%d:%d", namespaces.Add(1), i)
		}
		payload := strings.Repeat("x", 120)
		for from := 0; from < b.N; from += 500 {
			var args []string
			for i := from; i < min(from+500, b.N); i++ {
				args = append(args, driver.NewID()[:16]+strconv.Itoa(i), payload)
			}
			if err := bareEnqueue.Exec(b.Context(), c, keys, args).Error(); err != nil {
				b.Fatal(err)
			}
		}
		b.ResetTimer()
		process(b, int64(b.N), func(ctx context.Context) (int, error) {
			v, err := bareClaim.Exec(ctx, c, keys, []string{"100", "w"}).ToArray()
			if err != nil {
				return 0, err
			}
			ids, err := v[0].AsStrSlice()
			if err != nil || len(ids) == 0 {
				return 0, err
			}
			return len(ids), bareSettle.Exec(ctx, c, keys, ids).Error()
		})
	})
}

// TestBytesPerTask holds the promise that a queued task with a payload of 100 bytes takes at most 350 bytes of the
// server's memory.
func TestBytesPerTask(t *testing.T) {
	for _, f := range redisserver.Flavours() {
		t.Run(string(f), func(t *testing.T) {
			t.Parallel()
			server, err := redisserver.Start(t.Context(), &redisserver.Options{Flavour: f})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := server.Close(); err != nil {
					t.Error(err)
				}
			})
			s, err := redisstore.Open(t.Context(), server.URL(), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			used := func() int64 {
				info, err := s.Info(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				return info.Bytes
			}
			const n = 100_000
			before := used()
			for range n / 500 {
				if _, err := s.Enqueue(t.Context(), benchTasks(500), driver.EnqueueOptions{}); err != nil {
					t.Fatal(err)
				}
			}
			each := (used() - before) / n
			t.Logf("%s: %d bytes a queued task", f, each)
			if each > 350 {
				t.Errorf("%s: a queued task takes %d bytes, want at most 350", f, each)
			}
		})
	}
}

func BenchmarkStore(b *testing.B) {
	eachFlavour(b, func(b *testing.B, f redisserver.Flavour) { drivertest.Benchmarks(b, engine(f)) })
}
