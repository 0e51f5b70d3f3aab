package robustness

import (
	"strings"
	"testing"
	"time"

	"github.com/waggleq/waggle"
	"github.com/waggleq/waggle/driver"
)

// TestTerminate tells a worker to stop while short and long tasks run, with and without time to drain. Tasks either end
// or are given back: those keep their number of attempts, count no crash, and no task is both given back and retried.
func TestTerminate(t *testing.T) {
	completed := []driver.Outcome{driver.Complete}
	released := []driver.Outcome{driver.Release, driver.Complete}
	cases := map[string]struct {
		drain             time.Duration
		short, long, deaf []driver.Outcome
		release           bool // the long ones may end while the worker drains
	}{
		"no drain":    {drain: waggle.NoDrain, short: released, long: released},
		"short drain": {drain: 600 * time.Millisecond, short: completed, long: released},
		"long drain":  {drain: patience, short: completed, long: completed, release: true},
	}
	onEachEngine(t, func(t *testing.T, e engine) {
		for name, c := range cases {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				s := newSite(t, e)
				short := s.enqueueN("short", 2, act{Do: doWork, For: 100 * time.Millisecond, On: "begin"})
				long := s.enqueueN("long", 3, act{Do: doGate, On: "begin"})
				waiting := s.enqueueN("waiting", 5, act{})
				first := s.worker(role{Name: "first", Slots: 5, Drain: c.drain})
				for _, id := range append(short, long...) {
					first.awaitKind(lineStarted, id)
				}
				first.stop()
				first.awaitStopping()
				first.tell("begin")
				if c.release {
					for _, id := range long {
						first.tell(id)
					}
				}
				first.waitOK()
				second := s.worker(role{Name: "second"})
				second.tell("begin")
				for _, id := range long {
					second.tell(id)
				}
				s.wantEnds(ends{state: driver.Completed, attempt: 1, outcomes: c.short}, short...)
				s.wantEnds(ends{state: driver.Completed, attempt: 1, outcomes: c.long}, long...)
				s.wantEnds(ends{state: driver.Completed, attempt: 1, worker: "second"}, waiting...)
				s.endInOrder(second)
			})
		}
	})
}

// TestTerminateDeaf tells a worker to stop whose handler does not listen: the process ends all the same, and the task
// is given back.
func TestTerminateDeaf(t *testing.T) {
	onEachEngine(t, func(t *testing.T, e engine) {
		s := newSite(t, e)
		s.enqueue("deaf", act{Do: doDeaf})
		first := s.worker(role{Name: "first"})
		first.awaitKind(lineStarted, "deaf")
		first.stop()
		first.waitOK()
		if r := s.get("deaf"); r.State != driver.Available || r.Crashes != 0 {
			t.Errorf("the task is %s with %d crashes, want it available with none", r.State, r.Crashes)
		}
		second := s.worker(role{Name: "second"})
		second.tell("deaf")
		s.wantEnds(ends{state: driver.Completed, attempt: 1, worker: "second"}, "deaf")
		s.endInOrder(second)
	})
}

// TestTerminateAndKill tells a worker to stop and kills it while it drains: what it still ran counts one crash.
func TestTerminateAndKill(t *testing.T) {
	onEachEngine(t, func(t *testing.T, e engine) {
		s := newSite(t, e)
		s.enqueue("long", act{Do: doGate})
		waiting := s.enqueueN("waiting", 3, act{Do: doGate})
		first := s.worker(role{Name: "first", Slots: 1, Drain: patience})
		first.awaitKind(lineStarted, "long")
		first.stop()
		first.awaitStopping()
		first.kill()
		first.waitKilled()
		second := s.worker(role{Name: "second", Slots: 5})
		for _, id := range append(waiting, "long") {
			second.tell(id)
		}
		s.wantEnds(ends{state: driver.Completed, attempt: 1, crashes: 1, worker: "second"}, "long")
		s.wantEnds(ends{state: driver.Completed, attempt: 1, worker: "second"}, waiting...)
		s.endInOrder(second)
	})
}

// awaitStopping waits until a worker that was told to stop fetches no more.
func (c *child) awaitStopping() {
	c.t.Helper()
	c.await("the drain", func(l line) bool { return l.Kind == lineLog && strings.HasPrefix(l.Text, "stopping") })
}
