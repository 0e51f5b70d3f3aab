package waggle

import (
	"context"
	"errors"

	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/internal/runner"
	"github.com/waggleq/waggle/internal/stepping"
)

func init() { stepping.Step = step }

// step is what package waggletest runs handlers with.
func step(ctx context.Context, worker any, store driver.Store, limit int) (int, error) {
	w := worker.(*Worker)
	w.mu.Lock()
	err := errors.Join(w.mistakes...)
	cfg := w.config()
	w.mu.Unlock()
	if err != nil {
		return 0, err
	}
	cfg.Store = store
	defer w.side.Flush(logPatience)
	return runner.Step(ctx, cfg, limit)
}
