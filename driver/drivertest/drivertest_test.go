package drivertest_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/waggleq/waggle/driver/drivertest"
	"github.com/waggleq/waggle/memstore"
)

// memory opens the reference engine with a clock that runs between the suite's calls of Advance.
var memory = drivertest.Engine{Name: "memory", Open: func(t testing.TB) *drivertest.Fixture {
	var moved atomic.Int64
	s, err := memstore.Open(&memstore.Options{Clock: func() time.Time { return time.Now().Add(time.Duration(moved.Load())) }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return &drivertest.Fixture{Store: s, Advance: func(d time.Duration) { moved.Add(int64(d)) }, Work: s.Looked}
}}

// The engines' own tests run the suite on clocks that stand still.
func TestSuiteOnRunningClock(t *testing.T) {
	t.Parallel()
	drivertest.Run(t, memory)
}

func BenchmarkMemory(b *testing.B) { drivertest.Benchmarks(b, memory) }
