package waggle_test

import (
	"syscall"
	"testing"
	"time"

	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/memstore"
)

func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func BenchmarkBare(b *testing.B) {
	store, _ := memstore.Open(nil)
	defer store.Close()
	ctx := b.Context()
	_ = store.Register(ctx, driver.WorkerInfo{ID: "w"}, time.Hour)
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
	b.ReportMetric(float64(cpu()-began)/float64(b.N), "cpu-ns/op")
}
