package sqlitestore

import (
	"context"
	"encoding/json"
	"time"

	"github.com/waggleq/waggle/driver"
	"zombiezen.com/go/sqlite"
)

// Settle implements [driver.Settler].
func (s *Store) Settle(ctx context.Context, worker string, items []driver.Settlement) ([]driver.SettleResult, error) {
	checks := make([]error, len(items))
	bytes := 0
	for i := range items {
		checks[i] = driver.CheckSettlement(&items[i], s.caps)
		bytes += 64 + len(items[i].Result) + len(items[i].Error) + len(items[i].Stack)
	}
	results := make([]driver.SettleResult, len(items))
	err := s.submit(&op{ctx: ctx, bytes: bytes, run: func(t *tx) error {
		if err := t.settleFresh(); err != nil {
			return err
		}
		for i := range items {
			results[i] = driver.SettleResult{Err: checks[i]}
			if checks[i] != nil {
				continue
			}
			if results[i] = t.settle(worker, &items[i]); isFailure(results[i].Err) {
				return results[i].Err
			}
		}
		return nil
	}})
	if err != nil {
		return nil, err
	}
	return results, nil
}

func (t *tx) settle(worker string, item *driver.Settlement) driver.SettleResult {
	if item.Outcome == driver.Complete && item.Error == "" && item.Stack == "" {
		if done, err := t.complete(worker, item); err != nil {
			return driver.SettleResult{Err: err}
		} else if done {
			return driver.SettleResult{State: driver.Completed}
		}
	}
	r, who, err := t.holds(worker, item.ID, item.Token)
	if err != nil && r != nil && who != nil && r.worker == who.no && r.token == int64(item.Token) && r.settled {
		err = nil // a repeat
	} else if err == nil {
		err = t.conclude(r, who, item)
	}
	if err != nil {
		return driver.SettleResult{Err: err}
	}
	return driver.SettleResult{State: r.standing.state(), Reason: driver.Reason(r.reason)}
}

// complete is settle for the plain case: a claim made by this process is completed. done is false if it is not plain.
func (t *tx) complete(worker string, item *driver.Settlement) (done bool, err error) {
	h := t.w.held[item.ID]
	if h == nil || h.token != int64(item.Token) || h.worker != worker {
		return false, nil
	}
	l := t.st.lanes[h.laneNo]
	if l == nil {
		return false, nil
	}
	if err := t.stmt("held_complete").ints(h.seq, h.token).exec(); err != nil || t.changes() == 0 {
		return false, err // lost, to be cancelled, or not plain
	}
	size := h.size + int64(len(item.Result))
	started := t.now - int64(item.Ran/time.Millisecond)
	st := t.stmt("ended_insert").ints(h.seq, l.queue.no, l.no, t.st.nextSeq, t.now, size, h.token, 1, h.workerNo, h.claimedAt, h.attempt, flag(h.extra),
		started).text(string(driver.Completed)).null().optText(string(item.ResultEncoding))
	if len(item.Result) > 0 {
		st.blob(item.Result)
	} else {
		st.null()
	}
	end := row{seq: h.seq, endOrd: t.st.nextSeq, endedAt: t.now, kept: size, token: h.token, settled: true, worker: h.workerNo, claimedAt: h.claimedAt,
		attempt: h.attempt, standing: completed, encoding: string(item.ResultEncoding), result: item.Result}
	st.ints(endedSum(&end, l.queue.no, l.no, flag(h.extra), started))
	if err := st.exec(); err != nil {
		return false, err
	}
	t.st.nextSeq++
	delete(t.w.held, item.ID)
	l.queue.kept[0] += size
	t.count(l, active, completed, 1)
	t.freed(l.queue)
	if h.key != "" && l.queue.counts() {
		k, err := t.key(l.queue, h.key)
		if err != nil {
			return false, err
		}
		k.count(l, -1)
		t.regate(k)
	}
	t.stateEvent(completed, l, item.ID, "")
	if h.plan != nil {
		n := driver.EndNews(t.time(), item.ID, h.plan.Step, driver.Completed, "", nil)
		n.Result, n.ResultEncoding = item.Result, item.ResultEncoding
		return true, t.tell(h.plan.PlanRef, &n)
	}
	return true, nil
}

// conclude does what an outcome says.
func (t *tx) conclude(r *row, w *worker, item *driver.Settlement) error {
	r.settled = true
	a, told := item.Attempt(item.Spends(int(r.attempt), r.task().MaxAttempts), r.cancel > 0)
	a.Started, a.Ended = timeOf(t.now-int64(item.Ran/time.Millisecond)), t.time()
	if item.Outcome == driver.Complete && item.Error == "" && item.Stack == "" {
		r.hasStarted, r.started = true, a.Started.UnixMilli()
	} else if told {
		r.note(w, a)
	}
	if item.Outcome == driver.Retry {
		r.lane.queue.totals.Failed++
		t.touchQueue(r.lane.queue)
	}
	switch asked := r.cancel > 0; {
	case item.Outcome == driver.Complete:
		r.result, r.encoding = item.Result, string(item.ResultEncoding)
		return t.move(r, completed, "")
	case item.Outcome == driver.Discard:
		return t.move(r, discarded, driver.ReasonHandler)
	case item.Outcome == driver.Release:
		return t.release(r)
	case item.Outcome == driver.Snooze && !asked:
		r.attempt--
		return t.wait(r, scheduled, item.Delay)
	case asked:
		if item.Outcome == driver.Snooze {
			r.attempt--
		}
		return t.move(r, cancelled, driver.ReasonRequested)
	case item.Outcome == driver.CancelOutcome:
		return t.move(r, cancelled, driver.ReasonHandler)
	case item.Spends(int(r.attempt), r.task().MaxAttempts):
		return t.move(r, discarded, driver.ReasonAttempts)
	}
	return t.wait(r, retryable, item.Delay)
}

// holds returns the task and its worker if that worker holds it under the token; otherwise what there is of them, and
// an error.
func (t *tx) holds(worker, id string, token driver.Token) (*row, *worker, error) {
	lost := driver.Errorf(driver.ErrLeaseLost, "worker %s does not hold task %s under token %d", worker, id, token)
	who, err := t.st.anyWorker(t.conn, worker)
	if err != nil {
		return nil, nil, err
	}
	r, err := t.find(id)
	switch {
	case err != nil:
		return nil, nil, err
	case r == nil || who == nil || r.standing != active || r.worker != who.no || r.token != int64(token):
		return r, who, lost
	}
	return r, who, nil
}

// Report implements [driver.Settler].
func (s *Store) Report(ctx context.Context, worker string, items []driver.Report) ([]error, error) {
	errs := make([]error, len(items))
	err := s.write(ctx, func(t *tx) error {
		if err := t.settleFresh(); err != nil {
			return err
		}
		for i := range items {
			if errs[i] = t.report(worker, &items[i]); isFailure(errs[i]) {
				return errs[i]
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return errs, nil
}

func (t *tx) report(worker string, item *driver.Report) error {
	r, _, err := t.holds(worker, item.ID, item.Token)
	if err != nil {
		return err
	}
	var progress, logs string
	_, err = t.stmt("report_get").ints(r.seq).row(func(s *sqlite.Stmt) error {
		progress, logs = s.ColumnText(0), s.ColumnText(1)
		return nil
	})
	if err != nil {
		return err
	}
	kept, err := driver.CheckReport(item)
	if err != nil {
		return err
	}
	if kept != nil {
		progress = encodeJSON(kept)
	}
	if len(item.Logs) > 0 {
		logs = encodeJSON(driver.AppendLogs(decodeLogs(logs), item.Logs))
	}
	if err := t.stmt("held_reported").ints(r.seq).exec(); err != nil {
		return err
	}
	t.event(driver.EventProgress, r.lane, r.id, worker)
	return t.stmt("report_save").ints(r.seq).optText(progress).optText(logs).ints(reportSum(r.seq, progress, logs)).exec()
}

func decodeLogs(text string) []driver.LogLine {
	var list []driver.LogLine
	if text != "" {
		_ = json.Unmarshal([]byte(text), &list) // damaged log lines are not worth losing the task for
	}
	return list
}
