package waggle

import (
	"context"
	"errors"
	"time"

	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/internal/logkey"
	"github.com/waggleq/waggle/internal/runner"
	"github.com/waggleq/waggle/internal/schedule"
	"github.com/waggleq/waggle/internal/workflow"
)

// planKinds are the kinds of plans that a worker looks at, whatever its types.
func planKinds() map[string]runner.PlanKind {
	return map[string]runner.PlanKind{
		schedule.Kind: {Step: stepSchedule},
		workflow.Kind: workflowKind(),
	}
}

func stepSchedule(p *driver.Plan, now time.Time) (m runner.PlanMove, ok bool, err error) {
	m.Step, m.First, ok, err = schedule.Step(p, now)
	return m, ok, err
}

// validate returns what is wrong with declared schedules.
func (s Schedules) validate(c *Client) error {
	if len(s) > 0 && !c.store.Capabilities().Plans {
		return driver.Errorf(driver.ErrUnsupported, "the %s store does not offer schedules", c.store.Capabilities().Engine)
	}
	var errs []error
	seen := map[string]bool{}
	for i := range s {
		if _, err := c.spec(&s[i], time.Now()); err != nil {
			errs = append(errs, failed("schedule "+s[i].Name, err))
		}
		if seen[s[i].Name] {
			errs = append(errs, driver.Invalidf("schedule %q is declared twice", s[i].Name))
		}
		seen[s[i].Name] = true
	}
	return errors.Join(errs...)
}

// applySchedules puts the declared schedules into the store, as soon as it can be reached. One that was edited since is left
// as it is, which is logged.
func (w *Worker) applySchedules(ctx context.Context) {
	pause := 100 * time.Millisecond
	for i := 0; i < len(w.opts.Schedules) && ctx.Err() == nil; {
		s := &w.opts.Schedules[i]
		call, cancel := context.WithTimeout(ctx, w.opts.Lease)
		info, err := w.client.putSchedule(call, s, true)
		cancel()
		switch {
		case err == nil && !info.ByCode:
			w.logger.Warn("a schedule was edited and differs from what this program declares: it stays as it is; delete it to have the program's again",
				logkey.Plan, s.Name)
			i++
		case err == nil:
			i++
		case errors.Is(err, ErrUnavailable) || errors.Is(err, context.DeadlineExceeded):
			timer := time.NewTimer(pause)
			select {
			case <-ctx.Done():
			case <-timer.C:
			}
			timer.Stop()
			pause = min(2*pause, 5*time.Second)
		default:
			if ctx.Err() == nil {
				w.logger.Error("a schedule that this program declares can't be stored", logkey.Plan, s.Name, logkey.Error, err)
			}
			i++
		}
	}
}
