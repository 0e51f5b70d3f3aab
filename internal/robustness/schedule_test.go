package robustness

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/waggleq/waggle"
	"github.com/waggleq/waggle/driver"
)

// ticking are the schedules of these tests: each fires every second.
var ticking = []string{"seconds", "seconds-too", "every"}

// putTicking stores the schedules, and returns the store's time before and after.
func (s *site) putTicking() (before, after time.Time) {
	s.Helper()
	before = s.storeNow()
	for _, name := range ticking {
		line := "* * * * * *"
		if name == "every" {
			line = "@every 1s"
		}
		_, err := s.client.PutSchedule(s.Context(), waggle.Schedule{Name: name, Line: line, Type: taskType, Payload: act{}, CatchUp: 1000})
		must(s, err)
	}
	return before, s.storeNow()
}

func (s *site) storeNow() time.Time {
	s.Helper()
	info, err := s.client.Info(s.Context())
	must(s, err)
	return info.Now
}

// pauseTicking ends the firing, and returns the store's time before and after.
func (s *site) pauseTicking() (before, after time.Time) {
	s.Helper()
	before = s.storeNow()
	for _, name := range ticking {
		_, err := s.client.PauseSchedule(s.Context(), name)
		must(s, err)
	}
	return before, s.storeNow()
}

// ticksOf returns the ticks of a schedule that have become tasks, by the clock on the wall; each has to have completed.
func (s *site) ticksOf(name string) map[time.Time]int {
	s.Helper()
	ticks := map[time.Time]int{}
	for t, err := range s.client.All(s.Context(), driver.Filter{}) {
		must(s, err)
		if t.Headers["waggle-schedule"] != name {
			continue
		}
		at, err := time.Parse(time.RFC3339Nano, t.Headers["waggle-tick"])
		must(s, err)
		ticks[at.UTC()]++
		if t.State != driver.Completed {
			s.Errorf("the task of %s at %v is %s", name, at, t.State)
		}
		if t.EnqueuedAt.Before(at) {
			s.Errorf("the task of %s at %v was enqueued %v early", name, at, at.Sub(t.EnqueuedAt))
		}
	}
	return ticks
}

// wantSeconds holds that each full second of a span has become one task of a schedule. What is at its ends may have.
func (s *site) wantSeconds(name string, first, surely, until, last time.Time) {
	s.Helper()
	ticks := s.ticksOf(name)
	n := 0
	for at := first.Truncate(time.Second).UTC(); !at.After(last); at = at.Add(time.Second) {
		sure := at.After(surely) && !at.After(until)
		if ticks[at] > 1 || sure && ticks[at] != 1 {
			s.Errorf("the tick of %s at %v has become %d tasks", name, at, ticks[at])
		}
		n += ticks[at]
		delete(ticks, at)
	}
	if len(ticks) > 0 {
		s.Errorf("%s has fired at %v", name, ticks)
	}
	s.Logf("%s: %d ticks", name, n)
}

// wantEvery holds that a schedule of "@every 1s" has fired at equal intervals, once each, over a span.
func (s *site) wantEvery(name string, surely, until time.Time) {
	s.Helper()
	ticks := s.ticksOf(name)
	var all []time.Time
	for at, n := range ticks {
		if n != 1 {
			s.Errorf("the tick of %s at %v has become %d tasks", name, at, n)
		}
		all = append(all, at)
	}
	slices.SortFunc(all, time.Time.Compare)
	for i := 1; i < len(all); i++ {
		if d := all[i].Sub(all[i-1]); d != time.Second {
			s.Errorf("%s has fired at %v and next at %v", name, all[i-1], all[i])
		}
	}
	if len(all) == 0 || all[0].After(surely.Add(2*time.Second)) || all[len(all)-1].Before(until.Add(-time.Second)) {
		s.Errorf("%s was to fire from %v to %v: %v", name, surely, until, all)
	}
}

// caughtUp waits until all ticks up to some time have fired, and returns that time.
func (s *site) caughtUp() (until time.Time) {
	s.Helper()
	s.eventually("the ticks that were missed", func(ctx context.Context) bool {
		until = s.storeNow()
		for _, name := range ticking {
			info, err := s.client.Schedule(ctx, name)
			must(s, err)
			if !info.Next.After(until) {
				return false
			}
		}
		return true
	})
	return until
}

// TestSchedulersKilled has three processes see to schedules that fire each second. All of them are killed round a tick,
// again and again, and sometimes nobody is there for some ticks. Each tick becomes one task that runs, no more and no less.
func TestSchedulersKilled(t *testing.T) {
	onEachEngine(t, func(t *testing.T, e engine) {
		s := newSite(t, e)
		random := rand.New(rand.NewPCG(seed(t), 7))
		first, surely := s.putTicking()
		rounds := 5
		if testing.Short() {
			rounds = 3
		}
		for round := range rounds {
			var crew []*child
			for i := range 3 {
				crew = append(crew, s.worker(role{Name: fmt.Sprintf("scheduler-%d-%d", round, i), Quiet: true}))
			}
			for _, c := range crew {
				c.awaitKind(lineReady, "")
			}
			// Round the second tick from now: a little before it, at it, or when its task is on its way.
			tick := time.Now().Truncate(time.Second).Add(2 * time.Second)
			pause(t.Context(), time.Until(tick)+time.Duration(random.IntN(120)-40)*time.Millisecond)
			for _, c := range crew {
				c.kill()
			}
			for _, c := range crew {
				c.waitKilled()
			}
			if round%2 == 1 {
				pause(t.Context(), 2500*time.Millisecond) // ticks pass while nobody is there
			}
		}
		last := s.worker(role{Name: "last", Quiet: true})
		last.awaitKind(lineReady, "")
		until := s.caughtUp()
		_, end := s.pauseTicking()
		last.stop()
		last.waitOK()
		s.drain()
		for _, name := range ticking[:2] {
			s.wantSeconds(name, first, surely, until, end)
		}
		s.wantEvery("every", surely, until)
	})
}

// TestScheduleClockSteps sets the store's clock forth over ticks and back over them. Those that were stepped over count as
// missed and are caught up with; none of those that come a second time fires twice.
func TestScheduleClockSteps(t *testing.T) {
	const step = 20 * time.Second
	onEachClock(t, func(t *testing.T, e engine) {
		s := newStepping(t, e)
		first, surely := s.putTicking()
		w := s.local("worker", lease)
		fired := func(atLeast int64) {
			s.Helper()
			s.eventually("ticks", func(ctx context.Context) bool {
				for _, name := range ticking {
					info, err := s.client.Schedule(ctx, name)
					must(s, err)
					if info.Fired < atLeast {
						return false
					}
				}
				return true
			})
		}
		fired(2)
		s.step(step)
		fired(2 + int64(step/time.Second) - 1)
		s.step(-step) // the next twenty seconds have been already
		pause(t.Context(), 2500*time.Millisecond)
		s.step(step)
		fired(int64(step/time.Second) + 4)
		until := s.caughtUp()
		_, end := s.pauseTicking()
		w.end()
		s.drainHere()
		for _, name := range ticking[:2] {
			s.wantSeconds(name, first, surely, until, end)
		}
		s.wantEvery("every", surely, until)
	})
}

// drainHere runs what is left in this process, by the clock that was set.
func (s *stepping) drainHere() {
	s.Helper()
	w, err := waggle.NewWorker(s.clocked, &waggle.WorkerOptions{UntilEmpty: true, Name: "drain"})
	must(s, err)
	waggle.Handle(w, taskType, func(context.Context, *waggle.Task, act) error { return nil }, nil)
	must(s, w.Run(s.Context()))
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}
