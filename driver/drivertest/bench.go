package drivertest

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/waggleq/waggle/driver"
)

// Benchmarks measures an engine: tasks of 100 payload bytes enqueued by one caller, by 50 callers and in bulk, and
// fetched and settled in batches of 100 and 500, with ten thousand tasks queued. WAGGLE_BENCH_QUEUED adds a run with so
// many tasks queued, such as 1000000. Each reports tasks/s, and allocations per batch.
func Benchmarks(b *testing.B, e Engine) {
	b.Run("enqueue/single", func(b *testing.B) { benchEnqueue(newBench(b, e), 1) })
	b.Run("enqueue/50-callers", func(b *testing.B) { benchCallers(newBench(b, e), 50) })
	b.Run("enqueue/bulk-500", func(b *testing.B) { benchEnqueue(newBench(b, e), 500) })
	for _, queued := range benchQueued(b) {
		for _, batch := range []int{100, 500} {
			b.Run(fmt.Sprintf("process/batch-%d/queued-%d", batch, queued), func(b *testing.B) { benchProcess(newBench(b, e), batch, queued) })
		}
	}
}

func benchQueued(b *testing.B) []int {
	queued := []int{10_000}
	if v := os.Getenv("WAGGLE_BENCH_QUEUED"); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil || n < 1 {
			b.Fatalf("WAGGLE_BENCH_QUEUED must be a number of tasks, got %q", v)
		}
		queued = append(queued, n)
	}
	return queued
}

// bench is one benchmark's store. It is not audited: that would take longer than the benchmark.
type bench struct {
	*testing.B
	store   driver.Store
	payload []byte
}

func newBench(b *testing.B, e Engine) *bench {
	b.Helper()
	b.ReportAllocs()
	payload := make([]byte, 0, 100)
	payload = append(payload, '"')
	for len(payload) < 99 {
		payload = append(payload, 'x')
	}
	return &bench{B: b, store: e.Open(b).Store, payload: append(payload, '"')}
}

func (b *bench) batch(n int) []*driver.Task {
	list := make([]*driver.Task, n)
	for i := range list {
		list[i] = &driver.Task{Type: "bench", Payload: b.payload}
	}
	return list
}

func (b *bench) enqueue(ctx context.Context, n int) {
	results, err := b.store.Enqueue(ctx, b.batch(n), driver.EnqueueOptions{})
	if err != nil {
		b.Error(err)
		return
	}
	for _, r := range results {
		if r.Err != nil {
			b.Error(r.Err)
			return
		}
	}
}

func (b *bench) report(tasks int64) { b.ReportMetric(float64(tasks)/b.Elapsed().Seconds(), "tasks/s") }

func benchEnqueue(b *bench, size int) {
	n := int64(0)
	for b.Loop() {
		b.enqueue(b.Context(), size)
		n += int64(size)
	}
	b.report(n)
}

// benchCallers measures callers that each have one task at a time: how well the engine groups what comes together.
func benchCallers(b *bench, callers int) {
	var wg sync.WaitGroup
	var left atomic.Int64
	left.Store(int64(b.N))
	b.ResetTimer()
	for range callers {
		wg.Go(func() {
			for left.Add(-1) >= 0 && !b.Failed() {
				b.enqueue(b.Context(), 1)
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	b.report(int64(b.N))
}

// benchProcess fetches and settles, and fills the queue up again while the clock stands.
func benchProcess(b *bench, batch, queued int) {
	b.fill(queued)
	if err := b.store.Register(b.Context(), driver.WorkerInfo{ID: "bench"}, time.Hour); err != nil {
		b.Fatal(err)
	}
	req := driver.FetchRequest{Worker: "bench", Lease: time.Hour, Queues: []string{driver.DefaultQueue}, Max: batch}
	items, n, missing := make([]driver.Settlement, 0, batch), int64(0), 0
	for b.Loop() {
		if missing >= max(queued/10, batch) {
			b.StopTimer()
			b.fill(missing)
			missing = 0
			b.StartTimer()
		}
		res, err := b.store.Fetch(b.Context(), req)
		if err != nil || len(res.Claims) != batch {
			b.Fatalf("fetched %v, want %d claims: %v", res, batch, err)
		}
		items = items[:0]
		for _, c := range res.Claims {
			items = append(items, driver.Settlement{ID: c.ID, Token: c.Token, Outcome: driver.Complete})
		}
		errs, err := driver.SettleErrors(b.store.Settle(b.Context(), "bench", items))
		if err != nil || errs[0] != nil {
			b.Fatalf("settle: %v, %v", err, errs)
		}
		n, missing = n+int64(batch), missing+batch
	}
	b.report(n)
}

func (b *bench) fill(n int) {
	for n > 0 {
		size := min(n, 500)
		b.enqueue(b.Context(), size)
		n -= size
	}
}
