package schedule

import (
	"slices"
	"time"

	"github.com/waggleq/waggle/driver"
)

// SignalRun is the signal that has a schedule fire once, now.
const SignalRun = "run"

// stepper works out one step.
type stepper struct {
	*Body
	name  string
	now   time.Time
	tasks []*driver.Task
	first []driver.Change
}

// Step says what is to be done about a schedule at a time: which ticks fire, which are left out, when it is to be looked at
// again. ok is false if there is nothing to do.
func Step(p *driver.Plan, now time.Time) (step driver.PlanStep, first []driver.Change, ok bool, err error) {
	if p.Waiting == 0 && (p.Wake.IsZero() || p.Wake.After(now)) {
		return step, nil, false, nil
	}
	body, err := Decode(p.Body)
	if err != nil {
		return step, nil, false, err
	}
	s := &stepper{Body: body, name: p.Name, now: now}
	seen := int64(0)
	for i := range p.News {
		s.hear(&p.News[i])
		seen = p.News[i].No
	}
	t, err := body.timing()
	if err != nil {
		return step, nil, false, err
	}
	if !s.Paused {
		s.fireDue(t)
		s.fireWaiting()
	}
	next := time.Time{}
	state := Paused
	if !s.Paused {
		next, state = t.line.Next(s.Last, t.zone, s.Anchor), Active
		if next.IsZero() {
			state = Ended
		}
	}
	return driver.PlanStep{State: state, Wake: next, Body: s.Encode(), Seen: seen, Tasks: s.tasks}, s.first, true, nil
}

// hear takes in one of the plan's news.
func (s *stepper) hear(n *driver.News) {
	if n.Signal == SignalRun {
		s.fire(s.now, "run-"+n.SignalID, true)
		return
	}
	if n.Task == "" {
		return
	}
	s.Running = slices.DeleteFunc(s.Running, func(r Run) bool { return r.Task == n.Task })
	if s.LastRun != nil && s.LastRun.Task == n.Task {
		s.LastRun.State, s.LastRun.Reason, s.LastRun.Error, s.LastRun.Ended = n.State, n.Reason, n.Error, n.Time
	}
	if n.Reason == driver.ReasonRefused && s.LastRun != nil && s.LastRun.Task == n.Task {
		s.skip(s.LastRun.Tick, n.Error, 1)
	}
}

// fireDue fires the ticks that have come due since the last that was dealt with.
func (s *stepper) fireDue(t timing) {
	last := t.line.Prev(s.now, s.Last, t.zone, s.Anchor)
	if last.IsZero() {
		return
	}
	due := []time.Time{last}
	keep := 1
	if s.Missed == MissedCatchUp {
		keep = max(s.CatchUp, 1)
	}
	before := t.line.Prev(last.Add(-time.Nanosecond), s.Last, t.zone, s.Anchor)
	for ; !before.IsZero() && len(due) < keep; before = t.line.Prev(before.Add(-time.Nanosecond), s.Last, t.zone, s.Anchor) {
		due = append(due, before)
	}
	if !before.IsZero() {
		why := "no worker ran when it was due"
		if s.Missed == MissedOnce {
			why = "no worker ran when it was due: a later one stands for it"
		}
		s.skip(before, why, 1)
	}
	slices.Reverse(due)
	s.Last = last
	for _, tick := range due {
		if s.Missed == MissedSkip && s.now.Sub(tick) > Grace {
			s.skip(tick, "no worker ran when it was due", 1)
			continue
		}
		s.tick(tick)
	}
}

// tick fires a tick, or does what the schedule's overlap policy says.
func (s *stepper) tick(tick time.Time) {
	if len(s.Running) == 0 && len(s.Waiting) == 0 || s.Overlap == OverlapAllow {
		s.fire(tick, stepOf(tick), false)
		return
	}
	switch s.Overlap {
	case OverlapReplace:
		var ids []string
		for _, r := range s.Running {
			ids = append(ids, r.Task)
		}
		s.tasks = slices.DeleteFunc(s.tasks, func(t *driver.Task) bool { return slices.Contains(ids, t.ID) }) // of this very step
		s.first = append(s.first, driver.Change{Op: driver.OpCancel, IDs: ids})
		s.Running = nil
		s.fire(tick, stepOf(tick), false)
	case OverlapWait:
		if len(s.Waiting) < maxWaiting {
			s.Waiting = append(s.Waiting, tick)
			return
		}
		s.skip(tick, "too many ticks wait for a task that has not ended", 1)
	default:
		task := ""
		if len(s.Running) > 0 {
			task = " " + s.Running[0].Task
		}
		s.skip(tick, "the task of an earlier tick had not ended:"+task, 1)
	}
}

// fireWaiting fires the first tick that waits, if nothing runs any more.
func (s *stepper) fireWaiting() {
	if len(s.Waiting) > 0 && len(s.Running) == 0 {
		tick := s.Waiting[0]
		s.Waiting = s.Waiting[1:]
		s.fire(tick, stepOf(tick), false)
	}
}

func (s *stepper) fire(tick time.Time, step string, manual bool) {
	zone, err := Zone(s.Zone)
	if err == nil {
		tick = tick.In(zone)
	}
	t := s.task(s.name, step, tick, s.now)
	s.tasks = append(s.tasks, t)
	run := Run{Tick: tick, Task: t.ID, Manual: manual}
	if s.Overlap != OverlapAllow { // else nobody asks for them
		s.Running = append(s.Running, run)
	}
	s.LastRun = &run
	s.Fired++
}

func (s *stepper) skip(tick time.Time, why string, n int64) {
	s.Skipped = &Skip{Tick: tick, Why: why}
	s.Left += n
}
