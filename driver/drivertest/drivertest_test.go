package drivertest_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/waggleq/waggle/driver/drivertest"
	"github.com/waggleq/waggle/memstore"
)

// memory opens the reference engine with a clock that stands still, or runs, between the suite's calls of Advance.
func memory(name string, runs bool) drivertest.Engine {
	return drivertest.Engine{Name: name, Open: func(t testing.TB) *drivertest.Fixture {
		var moved atomic.Int64
		start := time.Now().Truncate(time.Millisecond)
		clock := func() time.Time {
			if runs {
				return time.Now().Add(time.Duration(moved.Load()))
			}
			return start.Add(time.Duration(moved.Load()))
		}
		s, err := memstore.Open(&memstore.Options{Clock: clock})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
		return &drivertest.Fixture{Store: s, Advance: func(d time.Duration) { moved.Add(int64(d)) }}
	}}
}

func TestSuiteOnStandingClock(t *testing.T) {
	t.Parallel()
	drivertest.Run(t, memory("memory", false))
}

func TestSuiteOnRunningClock(t *testing.T) {
	t.Parallel()
	drivertest.Run(t, memory("memory", true))
}
