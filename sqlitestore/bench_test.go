package sqlitestore_test

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/internal/bareloop"
	"github.com/waggleq/waggle/sqlitestore"
)

// benchPayload has the 100 bytes of a small real payload.
var benchPayload = []byte(`{"user":"` + strings.Repeat("x", 89) + `"}`)

func benchStore(b *testing.B) *sqlitestore.Store {
	b.Helper()
	s, err := sqlitestore.Open(b.Context(), filepath.Join(b.TempDir(), "waggle.db"), nil)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := s.Close(); err != nil {
			b.Error(err)
		}
	})
	return s
}

func enqueueBatch(b *testing.B, s driver.Enqueuer, n int) {
	b.Helper()
	tasks := make([]*driver.Task, n)
	for i := range tasks {
		tasks[i] = &driver.Task{Type: "bench", Payload: benchPayload}
	}
	results, err := s.Enqueue(b.Context(), tasks, driver.EnqueueOptions{})
	if err != nil {
		b.Fatal(err)
	}
	for _, r := range results {
		if r.Err != nil {
			b.Fatal(r.Err)
		}
	}
}

func fill(b *testing.B, s driver.Enqueuer, n int) {
	b.Helper()
	for ; n > 0; n -= 500 {
		enqueueBatch(b, s, min(n, 500))
	}
}

func perSecond(b *testing.B, n int) { b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "tasks/s") }

// BenchmarkBareLoop is the yardstick.
func BenchmarkBareLoop(b *testing.B) {
	for _, size := range []int{100, 500} {
		b.Run(fmt.Sprintf("enqueue/batch=%d", size), func(b *testing.B) {
			l := bareFile(b)
			for b.Loop() {
				bareEnqueue(b, l, size)
			}
			perSecond(b, b.N*size)
		})
		b.Run(fmt.Sprintf("process/batch=%d", size), func(b *testing.B) {
			l := bareFile(b)
			left := 0
			for b.Loop() {
				if left == 0 {
					b.StopTimer()
					for range 20 {
						bareEnqueue(b, l, 1000)
					}
					left = 20_000
					b.StartTimer()
				}
				n, err := l.Process(size)
				if err != nil {
					b.Fatal(err)
				}
				left -= n
			}
			perSecond(b, b.N*size)
		})
	}
}

func bareFile(b *testing.B) *bareloop.Loop {
	b.Helper()
	l, err := bareloop.Open(filepath.Join(b.TempDir(), "bare.db"))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = l.Close() })
	return l
}

func bareEnqueue(b *testing.B, l *bareloop.Loop, n int) {
	b.Helper()
	if err := l.Enqueue(benchPayload, n); err != nil {
		b.Fatal(err)
	}
}

func BenchmarkEnqueueBulk(b *testing.B) {
	s := benchStore(b)
	for b.Loop() {
		enqueueBatch(b, s, 500)
	}
	perSecond(b, b.N*500)
}

// BenchmarkEnqueueSingle has 50 callers with one task each.
func BenchmarkEnqueueSingle(b *testing.B) {
	s := benchStore(b)
	b.ResetTimer()
	const callers = 50
	var all sync.WaitGroup
	for i := range callers {
		all.Go(func() {
			for n := i; n < b.N; n += callers {
				_, err := s.Enqueue(b.Context(), []*driver.Task{{Type: "bench", Payload: benchPayload}}, driver.EnqueueOptions{})
				if err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	perSecond(b, b.N)
}

// BenchmarkProcess claims and completes, the settlements of one batch beside the claim of the next, as a worker does.
func BenchmarkProcess(b *testing.B) {
	for _, size := range []int{100, 500} {
		for _, backlog := range []int{10_000, 1_000_000} {
			b.Run(fmt.Sprintf("batch=%d/queued=%d", size, backlog), func(b *testing.B) { benchProcess(b, size, backlog) })
		}
	}
}

func benchProcess(b *testing.B, size, backlog int) {
	if backlog > 100_000 && testing.Short() {
		b.Skip("a million tasks take half a minute to enqueue")
	}
	s := benchStore(b)
	if err := s.Register(b.Context(), driver.WorkerInfo{ID: "w"}, time.Minute); err != nil {
		b.Fatal(err)
	}
	fill(b, s, backlog)
	b.ReportAllocs()
	queued := backlog
	var settled sync.WaitGroup
	for b.Loop() {
		if queued < backlog-5_000 {
			b.StopTimer()
			settled.Wait()
			fill(b, s, backlog-queued)
			queued = backlog
			b.StartTimer()
		}
		res, err := s.Fetch(b.Context(), driver.FetchRequest{Worker: "w", Lease: time.Minute, Queues: []string{"default"}, Types: []string{"bench"}, Max: size})
		if err != nil || len(res.Claims) != size {
			b.Fatalf("%d claims, error %v", len(res.Claims), err)
		}
		queued -= size
		settled.Wait()
		settled.Go(func() { settleAll(b, s, res.Claims) })
	}
	settled.Wait()
	perSecond(b, b.N*size)
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	b.ReportMetric(float64(mem.Sys>>20), "MiB-sys")
	if info, err := s.Info(b.Context()); err == nil {
		b.ReportMetric(float64(info.Bytes)/float64(backlog), "disk-B/queued")
	}
	if status, err := os.ReadFile("/proc/self/status"); err == nil {
		for line := range strings.Lines(string(status)) {
			if rss, ok := strings.CutPrefix(line, "VmRSS:"); ok {
				var kib float64
				if _, err := fmt.Sscan(rss, &kib); err == nil {
					b.ReportMetric(kib/1024, "MiB-rss")
				}
			}
		}
	}
}

func settleAll(b *testing.B, s driver.Settler, claims []driver.Claim) {
	items := make([]driver.Settlement, len(claims))
	for i, c := range claims {
		items[i] = driver.Settlement{ID: c.ID, Token: c.Token, Outcome: driver.Complete}
	}
	errs, err := driver.SettleErrors(s.Settle(b.Context(), "w", items))
	if err != nil && b.Context().Err() == nil {
		b.Error(err)
	}
	for _, err := range errs {
		if err != nil {
			b.Error(err)
		}
	}
}
