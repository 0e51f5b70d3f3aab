package breaker_test

import (
	"errors"
	"testing"
	"time"

	"github.com/waggleq/waggle/driver"
	. "github.com/waggleq/waggle/internal/breaker"
)

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func rule(t *testing.T, r Rule) Rule {
	t.Helper()
	r, err := r.WithDefaults()
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func want(t *testing.T, b *Breaker, state State, why string) {
	t.Helper()
	if b.State != state {
		t.Errorf("%s: the breaker is %s, want %s", why, b.State, state)
	}
}

func TestOpensAtItsRate(t *testing.T) {
	t.Parallel()
	b := &Breaker{State: Closed, Rule: rule(t, Rule{Rate: 0.5, Min: 10})}
	b.Record(start, Count{Failed: 9})
	want(t, b, Closed, "nine attempts of at least ten")
	b.Record(start, Count{OK: 10})
	want(t, b, Closed, "9 of 19")
	b.Record(start, Count{Failed: 1})
	want(t, b, Open, "10 of 20")
	if b.Why != (Count{OK: 10, Failed: 10}) || !b.Until.Equal(start.Add(DefaultCoolDown)) || b.Manual {
		t.Errorf("breaker %+v", b)
	}
	b.Record(start, Count{OK: 100})
	want(t, b, Open, "what ends while it is open does not count")
}

func TestForgetsWhatIsOutOfTheWindow(t *testing.T) {
	t.Parallel()
	b := &Breaker{State: Closed, Rule: rule(t, Rule{Rate: 0.5, Min: 10, Window: 10 * time.Second})}
	b.Record(start, Count{Failed: 9})
	b.Record(start.Add(11*time.Second), Count{Failed: 9})
	want(t, b, Closed, "nine failures in each of two windows")
	if n := b.Total(start.Add(11 * time.Second)); n.Failed != 9 {
		t.Errorf("%d failures count", n.Failed)
	}
	b.Record(start.Add(12*time.Second), Count{Failed: 1})
	want(t, b, Open, "ten in one")
	if len(b.Window) != 0 {
		t.Errorf("an open breaker keeps %d parts of the window", len(b.Window))
	}
}

func TestTrial(t *testing.T) {
	t.Parallel()
	opened := func() *Breaker {
		b := &Breaker{State: Closed, Rule: rule(t, Rule{Min: 1, CoolDown: time.Minute, Probes: 2})}
		b.Record(start, Count{Failed: 1})
		return b
	}
	due := start.Add(time.Minute)
	b := opened()
	if b.MayTry(due.Add(-1)) || !b.MayTry(due) {
		t.Errorf("a trial may not begin exactly when the cool-down is over")
	}
	b.Try("w1", due, 10*time.Second)
	want(t, b, HalfOpen, "a trial has begun")
	if b.MayTry(due.Add(9*time.Second)) || !b.MayTry(due.Add(10*time.Second)) {
		t.Errorf("a worker that died keeps the trial, or one that lives does not")
	}
	b.Tried("w2", due, Count{OK: 2}, true)
	want(t, b, HalfOpen, "another worker's tasks don't count")
	b.Tried("w1", due, Count{OK: 1}, false)
	want(t, b, HalfOpen, "one of two has succeeded")
	b.Tried("w1", due, Count{OK: 1}, true)
	want(t, b, Closed, "both have")

	b = opened()
	b.Try("w1", due, 10*time.Second)
	b.Tried("w1", due, Count{OK: 1, Failed: 1}, false)
	want(t, b, Open, "one has failed")
	if !b.Until.Equal(due.Add(time.Minute)) || !b.Since.Equal(start) {
		t.Errorf("breaker %+v", b)
	}

	b = opened()
	b.Try("w1", due, 10*time.Second)
	b.Tried("w1", due, Count{}, true)
	want(t, b, Open, "nothing came of it")
	if !b.MayTry(due) {
		t.Errorf("it can't be tried again at once: %+v", b)
	}

	b = opened()
	b.Try("w1", due, 10*time.Second)
	b.OpenByHand(due, 0)
	b.Tried("w1", due, Count{OK: 2}, true)
	want(t, b, Open, "a person decides, not the trial under way")
	if b.MayTry(due.Add(1000 * time.Hour)) {
		t.Errorf("what a person has opened is tried: %+v", b)
	}
}

func TestRulesAreChecked(t *testing.T) {
	t.Parallel()
	for _, r := range []Rule{{Rate: -1}, {Rate: 1.1}, {Window: time.Millisecond}, {Window: 25 * time.Hour}, {Min: -1}, {CoolDown: time.Millisecond}, {Probes: -1}, {Probes: MaxProbes + 1}} {
		if _, err := r.WithDefaults(); !errors.Is(err, driver.ErrInvalid) {
			t.Errorf("%+v: %v", r, err)
		}
	}
	if _, err := Parse([]byte("{")); !errors.Is(err, driver.ErrCorrupt) {
		t.Errorf("a damaged document: %v", err)
	}
}
