package sqlitestore_test

import (
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/sqlitestore"
)

// BenchmarkPickup measures the time from a call of Enqueue until an idle worker has the task: over the same handle, and
// over another handle on the file, which hears of it as another process would.
func BenchmarkPickup(b *testing.B) {
	for _, other := range []bool{false, true} {
		name := map[bool]string{false: "same process", true: "another process"}[other]
		b.Run(name, func(b *testing.B) { benchPickup(b, other) })
	}
}

func benchPickup(b *testing.B, other bool) {
	path := filepath.Join(b.TempDir(), "waggle.db")
	open := func() *sqlitestore.Store {
		s, err := sqlitestore.Open(b.Context(), path, nil)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = s.Close() })
		return s
	}
	client := open()
	worker := client
	if other {
		worker = open()
	}
	if err := worker.Register(b.Context(), driver.WorkerInfo{ID: "w"}, time.Hour); err != nil {
		b.Fatal(err)
	}
	taken := make(chan time.Time)
	idle := make(chan struct{})
	go func() {
		for {
			claims := takeOne(b, worker, idle)
			if claims == nil {
				return
			}
			taken <- time.Now()
			settleAll(b, worker, claims)
		}
	}()
	var times []time.Duration
	for b.Loop() {
		<-idle
		start := time.Now()
		enqueueBatch(b, client, 1)
		times = append(times, (<-taken).Sub(start))
	}
	slices.Sort(times)
	b.ReportMetric(float64(times[len(times)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(times[len(times)*99/100].Microseconds())/1000, "p99-ms")
}

// takeOne returns the next claims, and says when it begins to wait for them; nil at the end.
func takeOne(b *testing.B, s *sqlitestore.Store, idle chan<- struct{}) []driver.Claim {
	for said := false; ; {
		res, err := s.Fetch(b.Context(), driver.FetchRequest{Worker: "w", Lease: time.Hour, Queues: []string{"default"}, Max: 10})
		if err != nil {
			return nil
		}
		if len(res.Claims) > 0 {
			return res.Claims
		}
		if !said {
			said = true
			select {
			case idle <- struct{}{}:
			case <-b.Context().Done():
				return nil
			}
		}
		if s.Await(b.Context(), driver.AwaitRequest{Worker: "w", Queues: []string{"default"}, Max: time.Second}) != nil {
			return nil
		}
	}
}

// BenchmarkIdle measures what a worker costs that waits: it renews its lease and looks for work as a worker does.
func BenchmarkIdle(b *testing.B) {
	s := benchStore(b)
	if err := s.Register(b.Context(), driver.WorkerInfo{ID: "w"}, time.Minute); err != nil {
		b.Fatal(err)
	}
	var before, after syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &before); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		_, err := s.Fetch(b.Context(), driver.FetchRequest{Worker: "w", Lease: time.Minute, Queues: []string{"default"}, Max: 10})
		if err != nil {
			b.Fatal(err)
		}
		if err := s.Await(b.Context(), driver.AwaitRequest{Worker: "w", Queues: []string{"default"}, Max: time.Second}); err != nil {
			b.Fatal(err)
		}
	}
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &after); err != nil {
		b.Fatal(err)
	}
	used := time.Duration(after.Utime.Nano() + after.Stime.Nano() - before.Utime.Nano() - before.Stime.Nano())
	b.ReportMetric(100*used.Seconds()/b.Elapsed().Seconds(), "%-of-a-core")
}
