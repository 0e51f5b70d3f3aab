package runner

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/waggleq/waggle/internal/logkey"
)

// trouble paces the repeats of a store call that fails, and logs the first failure and the recovery only: an outage is
// two lines, not thousands.
type trouble struct {
	log   *slog.Logger
	op    string
	limit time.Duration // a third of it is the longest pause
	count int
	since time.Time
}

// hit notes a failure and pauses, longer each time, until ctx ends.
func (t *trouble) hit(ctx context.Context, err error) {
	if t.count == 0 {
		t.since = time.Now()
		t.log.Error("the store does not answer as it should: trying again", logkey.Op, t.op, logkey.Error, err)
	}
	t.count++
	longest := min(max(t.limit/3, 20*time.Millisecond), 5*time.Second)
	pause := min(10*time.Millisecond<<min(t.count, 10), longest)
	sleep(ctx, pause/2+rand.N(pause/2))
}

// over notes a success.
func (t *trouble) over() {
	if t.count > 0 {
		t.log.Info("the store answers again", logkey.Op, t.op, logkey.Count, t.count, logkey.After, time.Since(t.since))
		t.count = 0
	}
}

// sleep waits for d or until ctx ends.
func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
