package runner

import (
	"context"
	"log/slog"
	"slices"
	"time"

	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/internal/logkey"
)

// longWait is how far off a task must be for a worker that runs until its queues are empty to tell of it.
const longWait = 2 * time.Second

// tellWait says, once, that a worker that runs until its queues are empty does not end because of paused queues or of
// tasks that are due later, if all that is left is such.
func (f *fetcher) tellWait(ctx context.Context, queues []driver.QueueInfo) {
	if f.told {
		return
	}
	var paused []string
	later := 0
	for _, q := range queues {
		if !f.served[q.Name] {
			continue
		}
		counts := f.countsOf(q)
		if counts[driver.Active] > 0 || counts[driver.Available] > 0 && !q.Config.Paused {
			return // something is under way
		}
		if counts[driver.Available] > 0 {
			paused = append(paused, q.Name)
		}
		later += counts[driver.Scheduled] + counts[driver.Retryable]
	}
	due, known := f.firstDue(ctx, later)
	if !known || len(paused) == 0 && time.Until(due) < longWait {
		return
	}
	f.told = true
	var attrs []any
	if len(paused) > 0 {
		attrs = append(attrs, slog.Any(logkey.Queues, paused))
	}
	if later > 0 {
		attrs = append(attrs, slog.Int(logkey.Count, later), slog.Time(logkey.Due, due))
	}
	switch {
	case later == 0:
		f.s.cfg.Logger.Warn("not empty: tasks are available in queues that are paused", attrs...)
	case len(paused) == 0:
		f.s.cfg.Logger.Info("not empty: waiting for tasks that are due later", attrs...)
	default:
		f.s.cfg.Logger.Warn("not empty: tasks are due later, others are in queues that are paused", attrs...)
	}
}

// firstDue returns when the first of the tasks that wait for their time is due, zero if there are none. It is not known of
// more than one page of them.
func (f *fetcher) firstDue(ctx context.Context, waiting int) (due time.Time, known bool) {
	if waiting == 0 || waiting > driver.MaxPage {
		return due, waiting == 0
	}
	page, err := f.s.cfg.Store.List(ctx, driver.Filter{Queues: f.names, Types: f.s.cfg.Types,
		States: []driver.State{driver.Scheduled, driver.Retryable}}, driver.Page{Size: driver.MaxPage})
	if err != nil {
		return due, false // it is only told
	}
	for _, r := range page.Records {
		if due.IsZero() || r.DueAt.Before(due) {
			due = r.DueAt
		}
	}
	return due, len(page.Records) > 0
}

// countsOf returns how many tasks a queue has of the types that are served, by state.
func (f *fetcher) countsOf(q driver.QueueInfo) map[driver.State]int {
	if f.s.cfg.Types == nil {
		return q.Counts
	}
	counts := make(map[driver.State]int)
	for _, t := range q.Types {
		if slices.Contains(f.s.cfg.Types, t.Type) {
			for state, n := range t.Counts {
				counts[state] += n
			}
		}
	}
	return counts
}
