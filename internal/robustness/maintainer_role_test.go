package robustness

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/waggleq/waggle/driver"
)

// maintain is the role of a maintainer: it calls Maintain again and again, as any process may, and does what people do to
// tasks if it is told to.
func (p *proc) maintain(ctx context.Context) error {
	random := rand.New(rand.NewPCG(p.role.Seed, 2))
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		_, err := p.store.Maintain(ctx, 0)
		if err == nil && p.role.Meddle {
			err = p.meddle(ctx, random)
		}
		if err != nil && ctx.Err() == nil {
			p.log.Warn("maintain", "error", err)
		}
	}
}

// meddle does an operation to a few tasks that are in the right state for it, or were a moment ago.
func (p *proc) meddle(ctx context.Context, random *rand.Rand) error {
	op := []driver.Op{driver.OpCancel, driver.OpRun, driver.OpRetry, driver.OpDelete}[random.IntN(4)]
	states := op.From()
	page, err := p.store.List(ctx, driver.Filter{States: states[random.IntN(len(states)):][:1]}, driver.Page{Size: 20})
	if err != nil || len(page.Records) == 0 {
		return err
	}
	var ids []string
	for range 3 {
		ids = append(ids, page.Records[random.IntN(len(page.Records))].ID)
	}
	_, err = p.store.Apply(ctx, driver.Change{Op: op, IDs: ids})
	return err
}
