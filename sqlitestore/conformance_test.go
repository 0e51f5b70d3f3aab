package sqlitestore_test

import (
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/driver/drivertest"
	"github.com/waggleq/waggle/sqlitestore"
)

// engine is the SQLite store on a clock that stands still but for Advance.
var engine = drivertest.Engine{Name: "sqlite", Open: func(t testing.TB) *drivertest.Fixture {
	var offset, steps atomic.Int64
	start := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	path := filepath.Join(t.TempDir(), "waggle.db")
	open := func(t testing.TB) driver.Store {
		o := &sqlitestore.Options{
			Clock:         func() time.Time { return start.Add(time.Duration(offset.Load())) },
			MaxEventBytes: 64 << 10,
		}
		sqlitestore.CountSteps(o, &steps)
		s, err := sqlitestore.Open(t.Context(), path, o)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
		return s
	}
	return &drivertest.Fixture{Store: open(t), Advance: func(d time.Duration) { offset.Add(int64(d)) }, Reopen: open, Work: steps.Load}
}}

func TestConformance(t *testing.T) { drivertest.Run(t, engine) }

func TestSimulation(t *testing.T) { drivertest.RunSimulation(t, engine) }

func BenchmarkStore(b *testing.B) { drivertest.Benchmarks(b, engine) }
