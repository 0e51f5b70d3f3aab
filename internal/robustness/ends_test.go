package robustness

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/waggleq/waggle"
	"github.com/waggleq/waggle/driver"
)

// TestHandlerEnds has a handler do what handlers must not. A panic or a Goexit is a failed attempt and nothing else. What
// ends the process is a crash of the tasks it ran, and a failure of none.
func TestHandlerEnds(t *testing.T) {
	bad := map[string]struct {
		kills bool
		says  string // part of the attempt's error
	}{
		doPanic:    {says: "as told"},
		doGoexit:   {says: "Goexit"},
		doExit:     {kills: true},
		doOverflow: {kills: true},
		doMapRace:  {kills: true},
		doKill:     {kills: true},
	}
	onEachEngine(t, func(t *testing.T, e engine) {
		for how, b := range bad {
			t.Run(how, func(t *testing.T) {
				t.Parallel()
				s := newSite(t, e)
				if b.kills {
					s.handlerKills(how)
				} else {
					s.handlerFails(how, b.says)
				}
				s.wantFailed(b.kills)
			})
		}
	})
}

// begin has a worker run healthy tasks, and the bad one beside them.
func (s *site) begin(how string, limits func(*waggle.EnqueueOptions)) (*child, []string) {
	s.Helper()
	healthy := s.enqueueN("healthy", 3, act{Do: doGate})
	s.enqueue("bad", act{Do: how, On: "now"}, limits)
	name := "first"
	if how == doMapRace {
		name = mapRacer
	}
	first := s.worker(role{Name: name})
	for _, id := range append(healthy, "bad") {
		first.awaitKind(lineStarted, id)
	}
	first.tell("now")
	return first, healthy
}

func (s *site) handlerFails(how, says string) {
	first, healthy := s.begin(how, func(o *waggle.EnqueueOptions) { o.MaxAttempts = 1 })
	s.wantEnds(ends{state: driver.Discarded, reason: driver.ReasonAttempts, attempt: 1, outcomes: []driver.Outcome{driver.Discard}}, "bad")
	if a := s.get("bad").Attempts[0]; !strings.Contains(a.Error, says) || how == doPanic && !strings.Contains(a.Stack, "robustness") {
		s.Errorf("the attempt says %q, want it to tell of %q; its stack: %s", a.Error, says, a.Stack)
	}
	for _, id := range healthy {
		first.tell(id)
	}
	s.wantEnds(ends{state: driver.Completed, attempt: 1}, healthy...)
	s.endInOrder(first)
}

func (s *site) handlerKills(how string) {
	first, healthy := s.begin(how, func(o *waggle.EnqueueOptions) { o.CrashLimit = 1 })
	if state := first.wait(); state.Success() {
		s.Errorf("the process survived: %v", state)
	}
	second := s.worker(role{Name: "second"})
	for _, id := range healthy {
		second.tell(id)
	}
	s.wantEnds(ends{state: driver.Discarded, reason: driver.ReasonCrashes, crashes: 1,
		outcomes: []driver.Outcome{driver.Crash}}, "bad")
	s.wantEnds(ends{state: driver.Completed, attempt: 1, crashes: 1, worker: "second",
		outcomes: []driver.Outcome{driver.Crash, driver.Complete}}, healthy...)
	s.endInOrder(second)
}

// wantFailed checks that no failure was counted where a process died, and just one where a handler failed.
func (s *site) wantFailed(killed bool) {
	s.Helper()
	q, err := s.client.Queue(s.Context(), waggle.DefaultQueue)
	must(s, err)
	want := driver.Totals{Enqueued: 4, Completed: 3, Discarded: 1, Failed: 1}
	if killed {
		want.Failed, want.Crashed = 0, 4
	}
	if q.Totals != want {
		s.Errorf("the totals are %+v, want %+v", q.Totals, want)
	}
}

// TestPoison has a task kill every process it runs in, beside healthy ones that are in no hurry. It is discarded when
// its crashes are spent; the healthy ones complete, whatever they had to share with it.
func TestPoison(t *testing.T) {
	onEachEngine(t, func(t *testing.T, e engine) {
		s := newSite(t, e)
		limit := func(o *waggle.EnqueueOptions) { o.CrashLimit = 3 }
		var healthy []string
		for i := range 3 {
			healthy = append(healthy, fmt.Sprintf("healthy-%d", i))
			s.enqueue(healthy[i], act{Do: doWork, For: 300 * time.Millisecond}, limit)
		}
		s.enqueue("poison", act{Do: doKill}, limit)
		var last *child
		for lives := 1; s.get("poison").State != driver.Discarded; lives++ {
			if lives > 8 {
				t.Fatal("the poison is not discarded")
			}
			last = s.worker(role{Name: fmt.Sprintf("life-%d", lives), UntilEmpty: true})
			last.wait()
		}
		s.drain()
		s.wantEnds(ends{state: driver.Discarded, reason: driver.ReasonCrashes, crashes: 3}, "poison")
		for _, h := range s.awaitEnd(healthy...) {
			if h.State != driver.Completed || h.Attempt != 1 || h.Crashes > 2 {
				t.Errorf("%s is %s (%s) after attempt %d and %d crashes, want it completed in its first, with 2 crashes at most",
					h.ID, h.State, h.Reason, h.Attempt, h.Crashes)
			}
		}
	})
}

// TestDeafHandler has a handler ignore that its time is up, that it was cancelled, and that its worker's lease was lost.
// It keeps its slot, it is reported, and its task does not run twice in the process at once.
func TestDeafHandler(t *testing.T) {
	onEachEngine(t, func(t *testing.T, e engine) {
		s := newSite(t, e)
		s.enqueue("deaf", act{Do: doDeaf}, func(o *waggle.EnqueueOptions) { o.Timeout = 200 * time.Millisecond })
		w := s.worker(role{Name: "worker", Slots: 2})
		started := w.awaitKind(lineStarted, "deaf")
		w.awaitKind(lineCause, "deaf")
		others := s.enqueueN("other", 5, act{Do: doWork, For: 20 * time.Millisecond})
		s.wantEnds(ends{state: driver.Completed, attempt: 1}, others...)
		if n := mostAtOnce(w); n > 2 {
			t.Errorf("%d handlers ran at once in 2 slots", n)
		}
		w.await("the report of the stuck handler", func(l line) bool { return l.Kind == lineLog && strings.Contains(l.Text, "keeps its slot") })
		s.wantHolder("worker", "deaf")
		s.loseLease(w)
		w.await("the task to be put off", func(l line) bool { return l.Kind == lineLog && strings.Contains(l.Text, "earlier run") })
		if n := w.count(func(l line) bool { return l.Kind == lineStarted && l.Task == "deaf" }); n != 1 {
			t.Errorf("the deaf task was started %d times while it ran", n)
		}
		w.tell("deaf")
		s.wantEnds(ends{state: driver.Completed, attempt: 1, crashes: 1}, "deaf")
		if again := s.get("deaf").Worker; again == started.Worker {
			t.Errorf("the run under a lost lease was taken for the end")
		}
		s.endInOrder(w)
	})
}

// loseLease freezes a worker until its tasks have been recovered.
func (s *site) loseLease(c *child) {
	s.Helper()
	c.freeze()
	s.sleepWithHelp(2)
	c.thaw()
}

// sleepWithHelp has n leases pass with nobody but this process at work on the store.
func (s *site) sleepWithHelp(n int) {
	s.Helper()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	info, err := s.store.Info(s.Context())
	must(s, err)
	for end := info.Now.Add(time.Duration(n) * lease); info.Now.Before(end); <-ticker.C {
		_, err := s.store.Maintain(s.Context(), 0)
		must(s, err)
		info, err = s.store.Info(s.Context())
		must(s, err)
	}
}

// mostAtOnce returns how many handlers of a worker ran at the same time at most, by its lines.
func mostAtOnce(c *child) int {
	running, most := 0, 0
	c.count(func(l line) bool {
		switch l.Kind {
		case lineStarted:
			running++
		case lineEnded:
			running--
		}
		most = max(most, running)
		return false
	})
	return most
}
