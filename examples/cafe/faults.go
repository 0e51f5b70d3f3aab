package main

import (
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/waggleq/waggle/examples/stage"
)

// faults breaks what is to be broken, in this order: the payment service freezes; a café that waits for it is killed; others
// take over what that one had in hand; the payment service thaws, and finds what both have asked for; the café opens again.
type faults struct {
	day *day
	at  int // the order with which it begins

	stage  act
	wake   <-chan time.Time
	victim *process // the café
	index  int      // its number, from 0

	inHand   map[string]string // tasks of all cafés that have begun and not ended → "order 3: charge"
	holder   map[string]*process
	wanted   map[string]bool // what the victim had in hand and nobody has taken over yet
	frozenAt time.Time
	killedAt time.Time
	recovery time.Duration
	killed   int
}

// act is how far it is.
type act int

const (
	allIsWell act = iota
	frozen        // the payment service is
	chosen        // a café is about to be killed
	killed        // it is
	takenOver     // others have all that it had in hand
	thawed        // the payment service is
	reopened      // the café is
)

const (
	beforeKill   = 300 * time.Millisecond
	beforeThaw   = 300 * time.Millisecond
	thawAnyway   = 10 * time.Second // after the kill
	beforeReopen = 700 * time.Millisecond
)

// over reports whether all has been broken and mended. A task that the victim was about to report when it was killed may
// have ended all the same, and then nobody takes it over: that all orders have ended is for who asks to know.
func (f *faults) over() bool              { return f.stage == reopened }
func (f *faults) expects(p *process) bool { return p == f.victim }
func (f *faults) timer() <-chan time.Time { return f.wake }

// orderPlaced freezes the payment service with the right order.
func (f *faults) orderPlaced(n int) error {
	if f.stage != allIsWell || n < f.at {
		return nil
	}
	d := f.day
	if err := d.payments.signal(stage.Freeze); err != nil {
		return err
	}
	f.stage, f.frozenAt = frozen, time.Now()
	d.story.event(d.payments.role.Name, "%s (pid %d)", d.story.paint(red, "is frozen with SIGSTOP"), d.payments.cmd.Process.Pid)
	return nil
}

// heard follows what the cafés have in hand.
func (f *faults) heard(h *heard) {
	if f.holder == nil {
		f.holder = map[string]*process{}
	}
	if h.Kind != newsStart {
		if f.holder[h.Task] == h.from {
			delete(f.holder, h.Task)
			delete(f.inHand, h.Task)
		}
		return
	}
	f.holder[h.Task], f.inHand[h.Task] = h.from, orderName(h.Order)+": "+h.Step
	switch {
	case f.stage == frozen && h.Step == "charge":
		f.stage, f.victim, f.wake = chosen, h.from, time.After(beforeKill)
		f.index = slices.Index(f.day.cafes, h.from)
	case f.wanted[h.Task] && h.from != f.victim:
		f.takenOver(h)
	}
}

// takenOver notes that another café has begun what the victim had in hand.
func (f *faults) takenOver(h *heard) {
	d := f.day
	delete(f.wanted, h.Task)
	f.recovery = h.at.Sub(f.killedAt)
	d.story.event(h.from.role.Name, "%s %s, %s after the kill", d.story.paint(green, "takes over"), f.inHand[h.Task], seconds(f.recovery))
	if len(f.wanted) == 0 && f.stage == killed {
		f.stage, f.wake = takenOver, time.After(beforeThaw)
	}
}

// next does what the timer was for.
func (f *faults) next() error {
	switch f.stage {
	case chosen:
		return f.kill()
	case killed, takenOver:
		return f.thaw()
	case thawed:
		f.stage, f.wake = reopened, nil
		if err := f.day.openCafe(f.index); err != nil {
			return err
		}
		f.day.story.event(f.victim.role.Name, "is open again")
	}
	return nil
}

// kill kills the café that waits for the payment service; another one, if it does not wait any more.
func (f *faults) kill() error {
	f.wanted = map[string]bool{}
	for task, holder := range f.holder {
		if holder == f.victim {
			f.wanted[task] = true
		}
	}
	if len(f.wanted) == 0 {
		f.stage, f.wake = frozen, nil
		return nil
	}
	if err := f.victim.signal((*os.Process).Kill); err != nil {
		return err
	}
	f.stage, f.killedAt, f.wake = killed, time.Now(), time.After(thawAnyway)
	f.killed++
	var had []string
	for _, task := range slices.Sorted(maps.Keys(f.wanted)) {
		had = append(had, f.inHand[task])
	}
	slices.Sort(had)
	d := f.day
	d.story.event(f.victim.role.Name, "%s (pid %d), with %s in hand", d.story.paint(red, "is killed with SIGKILL"), f.victim.cmd.Process.Pid, strings.Join(had, ", "))
	return nil
}

func (f *faults) thaw() error {
	d := f.day
	if err := d.payments.signal(stage.Thaw); err != nil {
		return err
	}
	d.story.event(d.payments.role.Name, "%s after %s, and finds what it was asked meanwhile", d.story.paint(green, "goes on"), seconds(time.Since(f.frozenAt)))
	f.stage, f.wake = thawed, time.After(beforeReopen)
	return nil
}
