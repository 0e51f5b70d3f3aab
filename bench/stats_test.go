package main

import (
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestMedian(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		in   []float64
		want float64
	}{
		{nil, math.NaN()},
		{[]float64{7}, 7},
		{[]float64{9, 1}, 5},
		{[]float64{3, 100, 1, 2, 4}, 3},
		{[]float64{4, 1, 3, 2}, 2.5},
	} {
		before := append([]float64(nil), c.in...)
		if got := median(c.in); !cmp.Equal(got, c.want, cmpopts.EquateNaNs()) {
			t.Errorf("median(%v) = %v; want %v", c.in, got, c.want)
		}
		if diff := cmp.Diff(before, c.in); diff != "" {
			t.Errorf("median changed its argument:\n%s", diff)
		}
	}
}

func TestPercentile(t *testing.T) {
	t.Parallel()
	hundred := make([]float64, 100)
	for i := range hundred {
		hundred[i] = float64(100 - i) // 100 … 1
	}
	for _, c := range []struct {
		in      []float64
		p, want float64
	}{
		{nil, 50, math.NaN()},
		{[]float64{5}, 99, 5},
		{[]float64{2, 1}, 50, 1},
		{[]float64{2, 1}, 51, 2},
		{hundred, 0, 1},
		{hundred, 50, 50},
		{hundred, 99, 99},
		{hundred, 99.5, 100},
		{hundred, 100, 100},
	} {
		if got := percentile(c.in, c.p); !cmp.Equal(got, c.want, cmpopts.EquateNaNs()) {
			t.Errorf("percentile(%d values, %v) = %v; want %v", len(c.in), c.p, got, c.want)
		}
	}
}

func TestSummarize(t *testing.T) {
	t.Parallel()
	got := summarize([]float64{30, 10, 20, 50, 40})
	want := figure{median: 30, low: 10, high: 50, samples: 5}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(figure{})); diff != "" {
		t.Error(diff)
	}
	if got := summarize(nil); got.samples != 0 || !math.IsNaN(got.median) {
		t.Errorf("summarize(nil) = %+v; want no samples and NaN", got)
	}
}

func TestRoundTasks(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		n    float64
		want int
	}{
		{math.NaN(), 5000}, {-1, 5000}, {0, 5000}, {4999, 5000}, {5000, 5000}, {9_999, 5000}, {10_000, 10_000},
		{19_999, 10_000}, {20_000, 20_000}, {49_000, 20_000}, {73_000, 50_000}, {1e12, 500_000}, {math.Inf(1), 500_000},
	} {
		if got := roundTasks(c.n, 5000, 500_000); got != c.want {
			t.Errorf("roundTasks(%v) = %d; want %d", c.n, got, c.want)
		}
	}
}

func TestShort(t *testing.T) {
	t.Parallel()
	const nb = "\u202f"
	for in, want := range map[float64]string{
		0: "0", 0.01234: "0.0123", 0.999: "0.999", 0.9996: "1.00", 1: "1.00", 4.567: "4.57", 45.67: "45.7", 99.96: "100",
		456.7: "457", 999.6: "1" + nb + "000", 12345: "12" + nb + "300", 1234567: "1" + nb + "230" + nb + "000", -12345: "-12" + nb + "300",
		math.Inf(1): none, math.Inf(-1): none,
	} {
		if got := short(in); got != want {
			t.Errorf("short(%v) = %q; want %q", in, got, want)
		}
	}
	if got := short(math.NaN()); got != none {
		t.Errorf("short(NaN) = %q", got)
	}
}

func TestTimes(t *testing.T) {
	t.Parallel()
	for in, want := range map[float64]string{
		0.001: "0.00 ×", 0.5: "0.50 ×", 0.987: "0.99 ×", 2.34: "2.34 ×", 9.94: "9.94 ×", 12.34: "12.3 ×", 234.5: "235 ×",
		math.Inf(1): none,
	} {
		if got := times(in); got != want {
			t.Errorf("times(%v) = %q; want %q", in, got, want)
		}
	}
}
