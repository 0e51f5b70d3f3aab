package robustness

import (
	"fmt"
	"testing"
	"time"

	"github.com/waggleq/waggle"
	"github.com/waggleq/waggle/driver"
)

// crash is a point at which a worker dies, and what that may cost.
type crash struct {
	name string
	fail failPoint
	task act // what each of the tasks does
	// held says whether the dead worker held tasks for sure; -1: it held none; 0: it depends on the moment.
	held int
	// delay has the tasks scheduled, so that the worker promotes them.
	delay time.Duration
	// terminate has the worker told to stop when its handlers run.
	terminate bool
	// heir has the tasks lost by an earlier worker, so that this one recovers them.
	heir bool
}

const window = 3 * time.Millisecond // in which a death during a call comes

// crashes are the points of a worker's life at which it is killed: each side of every call that matters, and the middle
// of those that write much.
var crashes = []crash{
	{name: "before the claim", fail: failPoint{Op: "Fetch", When: before}, held: -1},
	{name: "during the claim", fail: failPoint{Op: "Fetch", When: during, Within: window}},
	{name: "after the claim, its reply unread", fail: failPoint{Op: "Fetch", When: after, Min: 1}, held: 1},
	{name: "in the handler", fail: failPoint{Op: "Handler"}, task: act{Do: doGate}, held: 1},
	{name: "after the handler, nothing settled", fail: failPoint{Op: "Settle", When: before}, held: 1},
	{name: "after settling, the reply unread", fail: failPoint{Op: "Settle", When: after}},
	{name: "during the settling of a batch", fail: failPoint{Op: "Settle", When: during, Min: 2, Within: window}, task: act{Do: doWork, For: 20 * time.Millisecond}},
	{name: "during the settling of results", fail: failPoint{Op: "Settle", When: during, Within: window}, task: act{Result: 60_000}},
	{name: "before a heartbeat", fail: failPoint{Op: "Heartbeat", When: before, Nth: 2}, task: act{Do: doGate}, held: 1},
	{name: "during a heartbeat", fail: failPoint{Op: "Heartbeat", When: during, Nth: 2, Within: window}, task: act{Do: doGate}, held: 1},
	{name: "before enqueueing a child", fail: failPoint{Op: "Enqueue", When: before}, task: act{Child: "child"}, held: 1},
	{name: "during the enqueueing of a child", fail: failPoint{Op: "Enqueue", When: during, Within: window}, task: act{Child: "child"}, held: 1},
	{name: "after enqueueing a child, the reply unread", fail: failPoint{Op: "Enqueue", When: after}, task: act{Child: "child"}, held: 1},
	{name: "before giving tasks back", fail: failPoint{Op: "Settle", When: before, Outcome: driver.Release, Min: 1}, task: act{Do: doGate}, terminate: true, held: 1},
	{name: "during the giving back", fail: failPoint{Op: "Settle", When: during, Outcome: driver.Release, Min: 1, Within: window}, task: act{Do: doGate}, terminate: true},
	{name: "before unregistering", fail: failPoint{Op: "Unregister", When: before}, task: act{Do: doGate}, terminate: true, held: -1},
	{name: "during the promotion of due tasks", fail: failPoint{Op: "Fetch", When: during, Nth: 2, Within: window}, delay: 300 * time.Millisecond},
	{name: "after the promotion of due tasks", fail: failPoint{Op: "Fetch", When: after, Min: 1}, delay: 300 * time.Millisecond, held: 1},
	{name: "during the recovery of a dead worker's tasks", fail: failPoint{Op: "Fetch", When: during, Nth: 2, Within: window}, heir: true},
	{name: "after the recovery of a dead worker's tasks", fail: failPoint{Op: "Fetch", When: after, Min: 1}, heir: true, held: 1},
}

// TestKilledAt kills a worker at each of the points. Whatever it held runs elsewhere within the lease and one second, no
// attempt is spent, and each task completes once.
func TestKilledAt(t *testing.T) {
	onEachEngine(t, func(t *testing.T, e engine) {
		for _, c := range crashes {
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				c.run(newSite(t, e))
			})
		}
	})
}

const crashTasks = 4 // as many as a worker has slots

func (c crash) run(s *site) {
	var ids []string
	for i := range crashTasks {
		id, a := fmt.Sprintf("t-%d", i), c.task
		if a.Child != "" {
			a.Child = id + ".child"
		}
		s.enqueue(id, a, func(o *waggle.EnqueueOptions) { o.Delay = c.delay })
		ids = append(ids, id)
	}
	rescuer := s.worker(role{Name: "rescuer", Wait: true})
	rescuer.awaitKind(lineReady, "")
	if c.heir {
		first := s.worker(role{Name: "first", Fail: &failPoint{Op: "Fetch", When: after, Min: crashTasks}})
		first.waitKilled()
	}
	victim := s.worker(role{Name: "victim", Fail: &c.fail})
	if c.terminate {
		for _, id := range ids {
			victim.awaitKind(lineStarted, id)
		}
		victim.stop()
	}
	victim.waitKilled()
	died := victim.awaitKind(lineDying, "").At
	held := s.heldBy("victim")
	if begins := time.Now(); begins.Add(-lease).After(died) {
		died = begins.Add(-lease) // the rescuer could not begin before
	}
	rescuer.tell("go")
	for _, id := range ids {
		rescuer.tell(id) // opens the gate of those that wait at one
	}
	if c.held > 0 && len(held) == 0 || c.held < 0 && len(held) > 0 {
		s.Errorf("the dead worker holds %v", held)
	}
	c.check(s, ids, held, died)
	s.endInOrder(rescuer)
}

// check looks at the tasks when all is over.
func (c crash) check(s *site, ids []string, held map[string]bool, died time.Time) {
	for _, r := range s.awaitEnd(ids...) {
		crashes := 0
		if held[r.ID] {
			crashes++
			if late := r.ClaimedAt.Sub(died); late > recoveryBound(lease) {
				s.Errorf("%s ran again %v after the worker's death, want at most %v", r.ID, late, recoveryBound(lease))
			}
		}
		if c.heir {
			crashes++
		}
		if r.State != driver.Completed || r.Attempt != 1 || r.Crashes != crashes {
			s.Errorf("%s is %s after attempt %d and %d crashes, want it completed in its first attempt with %d", r.ID, r.State, r.Attempt, r.Crashes, crashes)
		}
		if c.task.Child != "" {
			if child := s.awaitEnd(r.ID + ".child")[0]; child.State != driver.Completed {
				s.Errorf("the child of %s is %s", r.ID, child.State)
			}
		}
	}
}

// TestKilledInMaintain kills a maintainer in and after the call that recovers a dead worker's tasks. They are recovered
// once, whoever does it in the end.
func TestKilledInMaintain(t *testing.T) {
	points := map[string]failPoint{
		"during": {Op: "Maintain", When: during, Nth: 21, Within: window}, // when the lease has about run out
		"after":  {Op: "Maintain", When: after, Min: 1},
	}
	onEachEngine(t, func(t *testing.T, e engine) {
		for name, point := range points {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				s := newSite(t, e)
				ids := s.enqueueN("t", crashTasks, act{})
				first := s.worker(role{Name: "first", Fail: &failPoint{Op: "Fetch", When: after, Min: crashTasks}})
				first.waitKilled()
				s.start(role{Role: roleMaintainer, Name: "maintainer", Fail: &point}).waitKilled()
				second := s.worker(role{Name: "second"})
				s.wantEnds(ends{state: driver.Completed, attempt: 1, crashes: 1, worker: "second",
					outcomes: []driver.Outcome{driver.Crash, driver.Complete}}, ids...)
				s.endInOrder(second)
			})
		}
	})
}

// heldBy returns the active tasks that a worker of this name holds.
func (s *site) heldBy(name string) map[string]bool {
	s.Helper()
	held := map[string]bool{}
	for info, err := range s.client.All(s.Context(), waggle.Filter{States: []waggle.State{waggle.Active}}) {
		must(s, err)
		if worker := info.Worker; len(worker) > len(name) && worker[:len(name)+1] == name+":" {
			held[info.ID] = true
		}
	}
	return held
}
