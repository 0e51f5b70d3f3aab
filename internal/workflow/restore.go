package workflow

import (
	"maps"
	"time"

	"github.com/waggleq/waggle/driver"
)

// Restore returns the step that makes a workflow's plan anew in another store, from one with all its parts and news. Steps
// whose tasks have not ended as far as the plan knows are begun again: what the store has of them already is left alone. One
// that was on its way to its end does not wait for them.
func Restore(p *driver.Plan, now time.Time) (*driver.PlanStep, error) {
	f, err := openNow(p, now)
	if err != nil {
		return nil, err
	}
	for i := range f.steps {
		switch {
		case f.status(i) != StepRunning:
		case f.State == Running:
			f.set(i, StepPending)
		default:
			f.set(i, StepCancelled)
		}
	}
	maps.DeleteFunc(f.Extra, func(_ string, s Status) bool { return s == StepRunning })
	f.all = true
	step, _, err := f.advance()
	if err != nil {
		return nil, err
	}
	parts := maps.Clone(p.Parts)
	maps.Copy(parts, step.Parts)
	step.Parts, step.Expect, step.Seen = parts, 0, 0
	return step, nil
}
