package memstore

import (
	"context"
	"maps"
	"slices"

	"github.com/waggleq/waggle/driver"
)

// Maintain implements [driver.Maintainer].
func (s *Store) Maintain(ctx context.Context, limit int) (*driver.MaintainResult, error) {
	if limit < 0 {
		return nil, driver.Invalidf("the number of items must not be negative, got %d", limit)
	}
	if limit == 0 {
		limit = maxSweep
	}
	if err := s.lock(ctx); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	res := &driver.MaintainResult{}
	res.Recovered, res.More = s.recoverLost(limit)
	plansLeft := false
	res.Plans, plansLeft = s.expirePlans(limit)
	res.More = res.More || plansLeft
	for _, name := range slices.Sorted(maps.Keys(s.queues)) {
		q := s.queues[name]
		r := s.tidy(q, q.declared(nil), limit)
		res.Promoted += r.Promoted
		res.Expired += r.Expired
		res.Pruned += r.Pruned
		res.More = res.More || r.More
	}
	return res, nil
}

// tidy promotes what is due, discards what has expired and prunes what is beyond retention, at most limit of each.
func (s *Store) tidy(q *queue, lines []*line, limit int) driver.MaintainResult {
	var res driver.MaintainResult
	var more [3]bool
	res.Promoted, more[0] = s.sweep(lines, byDue, limit, s.enter)
	res.Expired, more[1] = s.sweep(lines, byExpiry, limit, s.expire)
	res.Pruned, more[2] = s.prune(q, limit)
	s.reopen(q, limit)
	res.More = slices.Contains(more[:], true)
	for n := 0; n < limit && s.keyEnds.top() != nil && !s.keyEnds.top().keyEnd().After(s.now); n++ {
		s.freeKey(s.keyEnds.top(), driver.UntilTTL)
	}
	return res
}

// expire records that a task has expired.
func (s *Store) expire(t *task) {
	if t.State != driver.Available {
		s.enter(t)
	}
	s.move(t, driver.Discarded, driver.ReasonExpired)
}

// sweep does something to the tasks whose time has come, at most limit of them; more says that some are left.
func (s *Store) sweep(lines []*line, by ordering, limit int, do func(*task)) (n int, more bool) {
	for ; ; n++ {
		t := first(lines, by)
		if t == nil || by.deadline(t).After(s.now) {
			return n, false
		}
		if n == limit {
			return n, true
		}
		do(t)
	}
}

// prune removes ended tasks that are beyond the queue's retention.
func (s *Store) prune(q *queue, limit int) (n int, more bool) {
	for i, state := range driver.States {
		k, keep := &q.kept[i], q.config.Retention.Of(state)
		for k.len > 0 {
			t := k.first
			if s.now.Sub(t.EndedAt) < keep.Age && (keep.Count < 0 || k.len <= keep.Count) && (keep.Bytes < 0 || k.bytes <= keep.Bytes) {
				break
			}
			if n == limit {
				return n, true
			}
			s.drop(t)
			n++
		}
	}
	return n, false
}

// recoverLost takes at most limit tasks from workers whose lease has run out.
func (s *Store) recoverLost(limit int) (n int, more bool) {
	for _, w := range s.workers {
		if w.leaseEnd.After(s.now) {
			continue
		}
		w.lost = true
		for w.held.len > 0 {
			if n == limit {
				return n, true
			}
			s.crash(w.held.first, w)
			n++
		}
		s.bury(w, driver.EventWorkerLost)
	}
	return n, false
}
