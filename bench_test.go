package waggle_test

import (
	"context"
	"io"
	"log/slog"
	"sync/atomic"
	"testing"

	"github.com/waggleq/waggle"
	"github.com/waggleq/waggle/memstore"
)

var quiet = slog.New(slog.NewTextHandler(io.Discard, &slog.HandlerOptions{Level: slog.LevelError}))

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

var payload = make([]byte, 100)

func batchOf(n int) []waggle.NewTask {
	tasks := make([]waggle.NewTask, n)
	for i := range tasks {
		tasks[i] = waggle.NewTask{Type: "noop", Payload: payload}
	}
	return tasks
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
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "tasks/s")
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
	b.ReportAllocs()
	b.ResetTimer()
	if err := w.Run(b.Context()); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "tasks/s")
}

// BenchmarkEnqueue has many callers enqueue one task at a time.
func BenchmarkEnqueue(b *testing.B) {
	_, client := benchStore(b)
	b.SetParallelism(25)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := client.Enqueue(b.Context(), "noop", payload, nil); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "tasks/s")
}
