package sqlitestore

import (
	"context"

	"github.com/waggleq/waggle/driver"
	"zombiezen.com/go/sqlite"
)

// idle answers a Fetch that has waited if it has nothing to do: it has waited in vain, or another was quicker. There is no task
// to claim, to promote, to discard or to remove, no lease that has run out, no news for the worker and no plan that is due.
// Then it writes nothing, so that it takes the write lock from nobody, and no other process has to look what it was; the lease
// is left to heartbeats. A nil result says that there is something to do.
func (s *Store) idle(ctx context.Context, req *driver.FetchRequest) (*driver.FetchResult, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var res *driver.FetchResult
	done := make(chan struct{})
	if !s.queue.call(func(w *writer) { defer close(done); res = w.idle(req) }) {
		return nil, errClosed
	}
	<-done // it looks at req, and does not take long
	return res, nil
}

// idle is nil too if it can't tell: then the transaction of the Fetch does.
func (w *writer) idle(req *driver.FetchRequest) *driver.FetchResult {
	if w.s.closed.Load() || w.s.fileGone() != nil || w.s.guard.checkRow(w.c) != nil || w.c.stmt("begin_read").exec() != nil {
		return nil
	}
	defer func() { _ = w.c.stmt("commit").exec() }() // nothing was written
	if w.refresh() != nil {
		return nil
	}
	t := &tx{conn: w.c, s: w.s, w: w, st: w.st, now: w.s.now()}
	res, err := t.idle(req)
	if err != nil || res == nil {
		return nil
	}
	w.s.waiters.told(req)
	return res
}

func (t *tx) idle(req *driver.FetchRequest) (*driver.FetchResult, error) {
	w, err := t.st.worker(t.conn, req.Worker)
	if err != nil {
		return nil, err
	}
	quiet, err := t.quiet(w)
	if err != nil || !quiet {
		return nil, err
	}
	res := &driver.FetchResult{Now: t.time()}
	if res.Cancels, err = t.cancels(w); err != nil {
		return nil, err
	}
	due, err := t.nextLease(w)
	if err != nil {
		return nil, err
	}
	if req.Plans > 0 {
		first, err := t.stmt("plan_first").one()
		if err != nil || first != 0 && first <= t.now {
			return nil, err
		}
		if first != 0 && (due == 0 || first < due) {
			due = first
		}
	}
	for _, name := range req.Queues {
		q := t.st.queues[name]
		if q == nil {
			continue
		}
		if q.damaged != nil {
			return nil, nil // the Fetch tells, if it has no other queue
		}
		lanes := q.declared(req.Types)
		if !q.quiet(lanes, t.now) {
			return nil, nil
		}
		if due, err = t.nextDue(due, lanes); err != nil {
			return nil, err
		}
		if !q.config.Paused {
			if due, err = t.nextOpening(due, lanes); err != nil {
				return nil, err
			}
		}
	}
	if due != 0 && due <= t.now {
		return nil, nil
	}
	res.NextDue = timeOf(due)
	return res, nil
}

// quiet reports whether no lease has run out and nothing was said to the worker that it has not heard.
func (t *tx) quiet(w *worker) (bool, error) {
	first := int64(0)
	_, err := t.stmt("worker_first").row(func(s *sqlite.Stmt) error {
		first = s.ColumnInt64(3)
		return nil
	})
	if err != nil || first <= t.now {
		return false, err
	}
	n, err := t.stmt("control_news").text(w.id).one()
	return n == 0, err
}

// quiet reports whether a Fetch of some lanes has nothing to claim, to discard or to remove.
func (q *queue) quiet(lanes []*lane, now int64) bool {
	ended := [3]int64{}
	for _, l := range lanes {
		if l.startable(now) > 0 && !q.config.Paused || l.expiring > 0 {
			return false
		}
	}
	for _, l := range q.lanes {
		for i := range ended {
			ended[i] += l.count[completed+standing(i)]
		}
	}
	for i, count := range ended {
		if count > 0 && q.removable(completed+standing(i), count, now) {
			return false
		}
	}
	return true
}
