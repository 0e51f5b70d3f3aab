package schedule

import (
	"time"

	"github.com/waggleq/waggle/driver"
)

// Restore returns the step that makes a schedule's plan anew in another store. It does not know of tasks that have not ended:
// no tick waits for them, or is left out because of them.
func Restore(p *driver.Plan, now time.Time) (*driver.PlanStep, error) {
	body, err := Decode(p.Body)
	if err != nil {
		return nil, err
	}
	s := &stepper{Body: body, name: p.Name, now: now}
	for i := range p.News {
		if p.News[i].Task != "" {
			s.hear(&p.News[i])
		}
	}
	s.Running, s.Waiting = nil, nil
	step := &driver.PlanStep{PlanRef: p.PlanRef, State: p.State, Expires: p.Expires, Body: s.Encode()}
	if p.State == Active {
		step.Wake = now
	}
	return step, nil
}
