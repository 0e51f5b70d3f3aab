package memstore

import (
	"context"
	"slices"

	"github.com/waggleq/waggle/driver"
)

// Settle implements [driver.Settler].
func (s *Store) Settle(ctx context.Context, worker string, items []driver.Settlement) ([]driver.SettleResult, error) {
	if err := s.lock(ctx); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	results := make([]driver.SettleResult, len(items))
	var histories block[[1]driver.Attempt]
	for i := range items {
		item := &items[i]
		t, repeat, err := s.settles(worker, item)
		if err != nil || repeat {
			results[i] = resultOf(t, err)
			continue
		}
		if t.Attempts == nil {
			t.Attempts = histories.next(len(items) - i)[:0] // most tasks have one attempt
		}
		t.settled = item.Token
		if a, told := item.Attempt(item.Spends(t.Attempt, t.MaxAttempts), t.CancelRequested); told {
			a.Started, a.Ended = s.now.Add(-item.Ran), s.now
			t.record(s.workers[worker], a)
		}
		s.conclude(t, item)
		results[i] = resultOf(t, nil)
	}
	return results, nil
}

// settles returns the task that a settlement ends an attempt of. repeat: it has done so before.
func (s *Store) settles(worker string, item *driver.Settlement) (t *task, repeat bool, err error) {
	if err := driver.CheckSettlement(item, s.caps); err != nil {
		return nil, false, err
	}
	t, err = s.holds(worker, item.ID, item.Token)
	if err != nil && t != nil && t.Worker == worker && t.Token == item.Token && t.settled == item.Token {
		return t, true, nil
	}
	return t, false, err
}

func resultOf(t *task, err error) driver.SettleResult {
	if err != nil {
		return driver.SettleResult{Err: err}
	}
	return driver.SettleResult{State: t.State, Reason: t.Reason}
}

// conclude does what an outcome says.
func (s *Store) conclude(t *task, item *driver.Settlement) {
	if item.Outcome == driver.Retry {
		t.line.queue.totals.Failed++
	}
	switch {
	case item.Outcome == driver.Complete:
		t.Result, t.ResultEncoding = slices.Clone(item.Result), item.ResultEncoding
		s.move(t, driver.Completed, "")
	case item.Outcome == driver.Discard:
		s.move(t, driver.Discarded, driver.ReasonHandler)
	case item.Outcome == driver.Release:
		s.release(t)
	case item.Outcome == driver.Snooze && !t.CancelRequested:
		t.Attempt--
		s.wait(t, driver.Scheduled, item.Delay)
	case t.CancelRequested:
		if item.Outcome == driver.Snooze {
			t.Attempt--
		}
		s.move(t, driver.Cancelled, driver.ReasonRequested)
	case item.Outcome == driver.CancelOutcome:
		s.move(t, driver.Cancelled, driver.ReasonHandler)
	case item.Spends(t.Attempt, t.MaxAttempts):
		s.move(t, driver.Discarded, driver.ReasonAttempts)
	default:
		s.wait(t, driver.Retryable, item.Delay)
	}
}

// holds returns the task if the worker holds it under the token; otherwise the task, if it exists, and an error.
func (s *Store) holds(worker, id string, token driver.Token) (*task, error) {
	t := s.tasks[id]
	if t == nil || t.State != driver.Active || t.Worker != worker || t.Token != token {
		return t, driver.Errorf(driver.ErrLeaseLost, "worker %s does not hold task %s under token %d", worker, id, token)
	}
	return t, nil
}

// Report implements [driver.Settler].
func (s *Store) Report(ctx context.Context, worker string, items []driver.Report) ([]error, error) {
	if err := s.lock(ctx); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	errs := make([]error, len(items))
	for i, item := range items {
		t, err := s.holds(worker, item.ID, item.Token)
		if err != nil {
			errs[i] = err
			continue
		}
		progress, err := driver.CheckReport(&item)
		if err != nil {
			errs[i] = err
			continue
		}
		if progress != nil {
			t.Progress = progress
		}
		t.Logs = driver.AppendLogs(t.Logs, item.Logs)
		s.emit(driver.Event{Kind: driver.EventProgress, ID: t.ID, Queue: t.Queue, Type: t.Type, Worker: worker})
	}
	return errs, nil
}
