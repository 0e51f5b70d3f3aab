//go:build unix

package sqlitestore_test

import (
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/waggleq/waggle/driver"
)

// BenchmarkKeys claims and completes tasks without a key, and of as many keys, in turn. Its figures are processor time, which a
// machine that has other things to do changes little.
func BenchmarkKeys(b *testing.B) {
	const n, size = 100_000, 100
	var spent, filled [2]time.Duration
	for b.Loop() {
		for keyed := range spent {
			s := benchStore(b)
			if err := s.Register(b.Context(), driver.WorkerInfo{ID: "w"}, time.Minute); err != nil {
				b.Fatal(err)
			}
			began := processorTime(b)
			fillKeys(b, s, n, keyed == 1)
			filled[keyed] += processorTime(b) - began
			began = processorTime(b)
			var settled sync.WaitGroup
			for left := n; left > 0; left -= size {
				res, err := s.Fetch(b.Context(), driver.FetchRequest{Worker: "w", Lease: time.Minute, Queues: []string{"default"}, Types: []string{"bench"}, Max: size})
				if err != nil || len(res.Claims) != size {
					b.Fatalf("%d claims, error %v", len(res.Claims), err)
				}
				settled.Wait()
				settled.Go(func() { settleAll(b, s, res.Claims) })
			}
			settled.Wait()
			spent[keyed] += processorTime(b) - began
		}
	}
	b.ReportMetric(float64(filled[0].Microseconds())/float64(b.N*n), "µs/enqplain")
	b.ReportMetric(float64(filled[1].Microseconds())/float64(b.N*n), "µs/enqkeyed")
	b.ReportMetric(float64(spent[0].Microseconds())/float64(b.N*n), "µs/plain")
	b.ReportMetric(float64(spent[1].Microseconds())/float64(b.N*n), "µs/keyed")
	b.ReportMetric(float64(spent[0])/float64(spent[1]), "×")
}

func fillKeys(b *testing.B, s driver.Enqueuer, n int, keyed bool) {
	b.Helper()
	for first := 0; first < n; first += 500 {
		tasks := make([]*driver.Task, 500)
		for i := range tasks {
			tasks[i] = &driver.Task{Type: "bench", Payload: benchPayload}
			if keyed {
				tasks[i].Key = "key-" + strconv.Itoa(first+i)
			}
		}
		if _, err := s.Enqueue(b.Context(), tasks, driver.EnqueueOptions{}); err != nil {
			b.Fatal(err)
		}
	}
}

// processorTime is what this process has used, in user and system mode.
func processorTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
