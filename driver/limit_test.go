package driver

import (
	"errors"
	"math"
	"strings"
	"testing"
	"time"
)

// TestRateIsExact starts as soon as a rate lets it, on a clock of milliseconds, and counts over a time.
func TestRateIsExact(t *testing.T) {
	t.Parallel()
	for _, l := range []Limit{{Rate: 100}, {Rate: 3}, {Rate: 7, Per: time.Minute}, {Rate: 30_000}, {Rate: 999_999, Burst: 1000}, {Rate: 100, Burst: 50}, {Rate: 1, Per: time.Hour}} {
		l, err := l.WithDefaults()
		if err != nil {
			t.Fatal(err)
		}
		span := 10 * time.Second
		if l.Per > time.Second {
			span = 20 * l.Per
		}
		began := int64(1_800_000_000_000)
		a, n := Arrival(0), 0
		for now := began; now < began+span.Milliseconds(); now = max(now, l.Opens(a)) {
			a = l.Started(a, now)
			n++
		}
		want := float64(l.Burst-1) + math.Ceil(float64(l.Rate)*float64(span)/float64(l.Per))
		if math.Abs(float64(n)-want) > max(1, want/1000) {
			t.Errorf("%d per %v, burst %d: %d starts in %v, want %v", l.Rate, l.Per, l.Burst, n, span, want)
		}
	}
}

// TestRateNeverExceeds starts late now and then: what was missed may be made up for within the burst, no more.
func TestRateNeverExceeds(t *testing.T) {
	t.Parallel()
	l, err := Limit{Rate: 100, Burst: 10}.WithDefaults()
	if err != nil {
		t.Fatal(err)
	}
	var starts []int64
	a, now := Arrival(0), int64(1_800_000_000_000)
	for i := range int64(2000) {
		now = max(now, l.Opens(a)) + (i*i)%37
		a = l.Started(a, now)
		starts = append(starts, now)
	}
	for i := range starts {
		for j := i; j < len(starts) && starts[j]-starts[i] < 1000; j++ {
			if n, most := j-i+1, float64(l.Burst)+float64(starts[j]-starts[i])/10; float64(n) > most {
				t.Fatalf("%d starts in %dms, at most %v are allowed", n, starts[j]-starts[i], most)
			}
		}
	}
}

// TestFairShareBound serves keys that always have tasks, and checks that their work never differs by more than the bound.
func TestFairShareBound(t *testing.T) {
	t.Parallel()
	weights := []int{1, 2, 3, 7, 10, 100, 1000}
	tags, work := make([]int64, len(weights)), make([]float64, len(weights))
	virtual := int64(0)
	for range 20_000 {
		first := 0
		for i := range tags {
			if tags[i] < tags[first] {
				first = i
			}
		}
		tags[first], virtual = TagServed(tags[first], virtual, weights[first])
		work[first] += 1 / float64(weights[first])
		for i := range work {
			for j := range work {
				bound := 1/float64(weights[i]) + 1/float64(weights[j])
				if diff := math.Abs(work[i] - work[j]); diff > bound*1.01+work[i]*0.02 { // weights that don't divide TagUnit are rounded
					t.Fatalf("keys of weights %d and %d differ by %v, want at most %v", weights[i], weights[j], diff, bound)
				}
			}
		}
	}
}

func TestConfigRefusesWithoutChange(t *testing.T) {
	t.Parallel()
	old := QueueConfig{Limits: []Limit{{Concurrency: 3}}, Retention: DefaultRetention()}
	for name, p := range map[string]QueuePatch{
		"order":  {Paused: new(true), Order: new(Order("x"))},
		"keys":   {Paused: new(true), Keys: new(KeyMode("x"))},
		"limits": {Paused: new(true), Limits: &[]Limit{{}}},
	} {
		got, err := old.Apply(p, allCaps)
		if !errors.Is(err, ErrInvalid) || got.Paused || len(got.Limits) != 1 {
			t.Errorf("%s: got %+v, %v", name, got, err)
		}
	}
	poor := allCaps
	poor.Limits, poor.Keys = false, false
	for name, p := range map[string]QueuePatch{"limits": {Limits: &[]Limit{{Concurrency: 1}}}, "keys": {Keys: new(KeysHold)}, "order": {Order: new(OrderDeadline)}} {
		if _, err := old.Apply(p, poor); !errors.Is(err, ErrUnsupported) {
			t.Errorf("%s without the capability: got %v", name, err)
		}
	}
	if _, err := (QueueConfig{}).Apply(QueuePatch{Limits: &[]Limit{{Rate: 1_000_000_000_000}}}, allCaps); err == nil || !strings.Contains(err.Error(), "microsecond") {
		t.Errorf("a rate of 10^12 gives %v", err)
	}
}
