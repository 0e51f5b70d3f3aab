package memstore_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/waggleq/waggle/driver/drivertest"
	"github.com/waggleq/waggle/memstore"
)

// engine is the memory store on a clock that stands still but for Advance.
var engine = drivertest.Engine{Name: "memory", Open: func(t testing.TB) *drivertest.Fixture {
	var offset atomic.Int64
	start := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	s, err := memstore.Open(&memstore.Options{Clock: func() time.Time { return start.Add(time.Duration(offset.Load())) }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return &drivertest.Fixture{Store: s, Advance: func(d time.Duration) { offset.Add(int64(d)) }, Work: s.Looked}
}}

func TestConformance(t *testing.T) { drivertest.Run(t, engine) }

func TestSimulation(t *testing.T) { drivertest.RunSimulation(t, engine) }
