package waggle

import (
	"context"

	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/internal/schedule"
	"github.com/waggleq/waggle/internal/workflow"
)

// RestorePlan puts a schedule or a workflow that was saved from a damaged store into this one: see sqlitestore.SalvagePlans. The
// tasks that were saved should be here already; those that a workflow waits for and that are not are enqueued again. Errors:
// [ErrConflict] if there is one with that name, [ErrUnsupported] for what this version does not understand, [ErrCorrupt].
func (c *Client) RestorePlan(ctx context.Context, p *driver.Plan) error {
	op := "restore " + p.PlanRef.String()
	now, err := c.storeNow(ctx)
	if err != nil {
		return failed(op, err)
	}
	var step *driver.PlanStep
	switch p.Kind {
	case schedule.Kind:
		step, err = schedule.Restore(p, now)
	case workflow.Kind:
		step, err = workflow.Restore(p, now)
	default:
		err = driver.Errorf(ErrUnsupported, "plans of the kind %q are not known here", p.Kind)
	}
	if err == nil {
		err = c.advance(ctx, step)
	}
	return failed(op, err)
}
