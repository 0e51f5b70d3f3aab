package robustness

import (
	"strings"
	"testing"
	"time"

	"github.com/waggleq/waggle"
	"github.com/waggleq/waggle/driver"
)

// sleepLeases has the store's clock run for n leases: a task that is due then is awaited.
func (s *site) sleepLeases(n int) {
	s.Helper()
	const id = "alarm"
	s.enqueue(id, act{}, func(o *waggle.EnqueueOptions) { o.Delay = time.Duration(n) * lease })
	s.awaitEnd(id)
}

// TestFrozenInHandler stops a worker for three leases while its handlers run. When it goes on it finds that its lease
// is lost: its handlers' contexts end with that cause, what they return changes nothing, and it goes on under a new id.
func TestFrozenInHandler(t *testing.T) {
	onEachEngine(t, func(t *testing.T, e engine) {
		s := newSite(t, e)
		s.enqueue("polite", act{Do: doGate})
		s.enqueue("deaf", act{Do: doDeaf})
		victim := s.worker(role{Name: "victim"})
		old := victim.awaitKind(lineStarted, "polite").Worker
		victim.awaitKind(lineStarted, "deaf")
		victim.freeze()
		rescuer := s.worker(role{Name: "rescuer"})
		for _, id := range []string{"polite", "deaf"} {
			rescuer.awaitKind(lineStarted, id)
		}
		s.sleepLeases(3)
		victim.thaw()
		for _, id := range []string{"polite", "deaf"} {
			if l := victim.awaitKind(lineCause, id); !strings.Contains(l.Text, "lease") {
				s.Errorf("the context of %s ended with %q, want the loss of the lease", id, l.Text)
			}
		}
		victim.tell("deaf") // its handler returns nil now: too late
		victim.awaitKind(lineEnded, "deaf")
		s.wantHolder("rescuer", "polite", "deaf")
		again := s.awaitAnotherLife(victim, old)
		rescuer.tell("polite")
		rescuer.tell("deaf")
		s.wantEnds(ends{state: driver.Completed, attempt: 1, crashes: 1, worker: "rescuer"}, "polite", "deaf")
		s.endInOrder(victim, rescuer)
		t.Logf("%s went on as %s", old, again)
	})
}

// awaitAnotherLife has a worker claim a task under another id than old, and returns that id.
func (s *site) awaitAnotherLife(c *child, old string) string {
	s.Helper()
	ids := s.enqueueN("again", 8, act{Do: doGate}) // more than the other worker has slots for
	l := c.await("another life", func(l line) bool { return l.Kind == lineStarted && l.Worker != old })
	for _, id := range ids {
		for _, k := range s.kids {
			if !k.ended() {
				k.tell(id)
			}
		}
	}
	s.wantEnds(ends{state: driver.Completed, attempt: 1}, ids...)
	return l.Worker
}

// TestFrozenInCall stops a worker for three leases at the point of a call where what it does next would do harm.
func TestFrozenInCall(t *testing.T) {
	points := map[string]failPoint{
		"before settling":                    {Op: "Settle", When: before, Min: 1},
		"after the claim, its reply unread":  {Op: "Fetch", When: after, Min: 1},
		"before a heartbeat":                 {Op: "Heartbeat", When: before, Nth: 2},
		"before the enqueueing of a child":   {Op: "Enqueue", When: before},
		"after settling, the reply not read": {Op: "Settle", When: after, Min: 1},
	}
	onEachEngine(t, func(t *testing.T, e engine) {
		for name, point := range points {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				frozenInCall(newSite(t, e), point)
			})
		}
	})
}

func frozenInCall(s *site, point failPoint) {
	point.Freeze = true
	a := act{}
	switch point.Op {
	case "Heartbeat":
		a.Do = doGate
	case "Enqueue":
		a.Child = "child"
	}
	settled := point.Op == "Settle" && point.When == after
	s.enqueue("t", a)
	victim := s.worker(role{Name: "victim", Fail: &point})
	victim.awaitKind(lineFrozen, "")
	rescuer := s.worker(role{Name: "rescuer"})
	rescuer.tell("t")
	want := ends{state: driver.Completed, attempt: 1, crashes: 1, worker: "rescuer"}
	if settled {
		want = ends{state: driver.Completed, attempt: 1, worker: "victim"}
	}
	s.wantEnds(want, "t")
	s.sleepLeases(3)
	token := s.get("t").Token
	victim.thaw()
	victim.tell("thawed")
	victim.tell("t")
	old := s.get("t").Worker
	s.awaitAnotherLife(victim, old)
	s.wantEnds(want, "t")
	if got := s.get("t").Token; got != token {
		s.Errorf("the task was claimed again: token %d, want %d", got, token)
	}
	if n := victim.count(func(l line) bool { return l.Kind == lineStarted && l.Task == "t" }); n > 0 && point.Op == "Fetch" {
		s.Errorf("a handler was started on a claim that had run out")
	}
	s.endInOrder(victim, rescuer)
}
