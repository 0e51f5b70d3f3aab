//go:build unix

package waggle_test

import (
	"context"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/waggleq/waggle"
	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/driver/drivertest"
	"github.com/waggleq/waggle/memstore"
)

func benchStore(b *testing.B) (*memstore.Store, *waggle.Client) {
	b.Helper()
	store, err := memstore.Open(nil)
	if err != nil {
		b.Fatal(err)
	}
	client, err := waggle.NewClient(store, &waggle.ClientOptions{Logger: quiet})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = client.Close(context.Background()); _ = store.Close() })
	return store, client
}

// BenchmarkProcess enqueues tasks in batches of 500 and runs them in one worker with 100 slots and a handler that does
// nothing, at the same time.
func BenchmarkProcess(b *testing.B) {
	store, client := benchStore(b)
	w, err := waggle.NewWorker(store, &waggle.WorkerOptions{Logger: quiet})
	if err != nil {
		b.Fatal(err)
	}
	var ran atomic.Int64
	target := int64(b.N)
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	w.HandleFunc("noop", func(context.Context, *waggle.Task) error {
		if ran.Add(1) == target {
			cancel()
		}
		return nil
	}, nil)
	began := cpu()
	b.ReportAllocs()
	b.ResetTimer()
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	for left := b.N; left > 0; left -= 500 {
		if _, err := client.EnqueueBatch(context.Background(), batchOf(min(left, 500))); err != nil {
			b.Fatal(err)
		}
	}
	if err := <-done; err != nil {
		b.Fatal(err)
	}
	report(b, began)
}

// BenchmarkProcessFilled runs tasks that were enqueued before.
func BenchmarkProcessFilled(b *testing.B) {
	store, client := benchStore(b)
	for left := b.N; left > 0; left -= 500 {
		if _, err := client.EnqueueBatch(b.Context(), batchOf(min(left, 500))); err != nil {
			b.Fatal(err)
		}
	}
	w, err := waggle.NewWorker(store, &waggle.WorkerOptions{Logger: quiet, UntilEmpty: true})
	if err != nil {
		b.Fatal(err)
	}
	w.HandleFunc("noop", func(context.Context, *waggle.Task) error { return nil }, nil)
	began := cpu()
	b.ReportAllocs()
	b.ResetTimer()
	if err := w.Run(b.Context()); err != nil {
		b.Fatal(err)
	}
	report(b, began)
}

// BenchmarkEnqueue has many callers enqueue one task at a time.
func BenchmarkEnqueue(b *testing.B) {
	_, client := benchStore(b)
	b.SetParallelism(25)
	began := cpu()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := client.Enqueue(b.Context(), "noop", payload, nil); err != nil {
				b.Error(err)
				return
			}
		}
	})
	report(b, began)
}

// BenchmarkEnqueueFar has 50 callers enqueue one task at a time into a store that takes 0.3 ms a call.
func BenchmarkEnqueueFar(b *testing.B) {
	mem, _ := benchStore(b)
	far := drivertest.Rule{Method: "Enqueue", Fault: drivertest.Delay, Delay: 300 * time.Microsecond}
	client, err := waggle.NewClient(drivertest.NewFaulty(mem, &drivertest.FaultPlan{Rules: []drivertest.Rule{far}}), &waggle.ClientOptions{Logger: quiet})
	if err != nil {
		b.Fatal(err)
	}
	var wg sync.WaitGroup
	var left atomic.Int64
	left.Store(int64(b.N))
	began := cpu()
	b.ReportAllocs()
	b.ResetTimer()
	for range 50 {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				if _, err := client.Enqueue(b.Context(), "noop", payload, nil); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	report(b, began)
}

func report(b *testing.B, began time.Duration) {
	b.Helper()
	b.ReportMetric(float64(cpu()-began)/float64(b.N), "cpu-ns/op")
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "tasks/s")
}

// cpu is the processor time that this process has used: on a machine that others use too it says more than the clock.
func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkBare makes the same calls to the store as BenchmarkProcess at its best, one after another and without any of
// Waggle: what is between the two is what the library costs.
func BenchmarkBare(b *testing.B) {
	store, _ := benchStore(b)
	ctx := b.Context()
	if err := store.Register(ctx, driver.WorkerInfo{ID: "w"}, time.Hour); err != nil {
		b.Fatal(err)
	}
	began := cpu()
	b.ReportAllocs()
	b.ResetTimer()
	for left := b.N; left > 0; left -= 500 {
		n := min(left, 500)
		tasks := make([]*driver.Task, n)
		for i := range tasks {
			tasks[i] = &driver.Task{ID: driver.NewID(), Type: "noop", Payload: payload, Encoding: driver.EncodingRaw}
		}
		if _, err := store.Enqueue(ctx, tasks, driver.EnqueueOptions{}); err != nil {
			b.Fatal(err)
		}
		res, err := store.Fetch(ctx, driver.FetchRequest{Worker: "w", Lease: time.Hour, Queues: []string{"default"}, Types: []string{"noop"}, Max: 500})
		if err != nil {
			b.Fatal(err)
		}
		items := make([]driver.Settlement, len(res.Claims))
		for i, c := range res.Claims {
			items[i] = driver.Settlement{ID: c.ID, Token: c.Token, Outcome: driver.Complete}
		}
		if _, err := store.Settle(ctx, "w", items); err != nil {
			b.Fatal(err)
		}
	}
	report(b, began)
}
