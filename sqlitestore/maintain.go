package sqlitestore

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/waggleq/waggle/driver"
	"zombiezen.com/go/sqlite"
)

// Maintain implements [driver.Maintainer].
func (s *Store) Maintain(ctx context.Context, limit int) (*driver.MaintainResult, error) {
	if limit < 0 {
		return nil, driver.Invalidf("the number of items must not be negative, got %d", limit)
	}
	if limit == 0 {
		limit = maxSweep
	}
	var res *driver.MaintainResult
	err := s.write(ctx, func(t *tx) (err error) {
		res = &driver.MaintainResult{}
		if err := t.settleFresh(); err != nil {
			return err
		}
		if res.Recovered, res.More, err = t.recoverLost(limit); err != nil {
			return err
		}
		for _, q := range t.st.queues {
			r, err := t.tidy(q, q.declared(nil), limit, true)
			if err != nil {
				return err
			}
			res.Promoted += r.Promoted
			res.Expired += r.Expired
			res.Pruned += r.Pruned
			res.More = res.More || r.More
		}
		plansLeft := false
		if res.Plans, plansLeft, err = t.expirePlans(limit); err != nil {
			return err
		}
		res.More = res.More || plansLeft
		if err := t.stmt("uniq_sweep").ints(t.now, int64(limit)).exec(); err != nil {
			return err
		}
		for _, q := range t.st.queues {
			if q.damaged != nil {
				return nil // nor for how long its tasks name their workers
			}
		}
		return t.stmt("worker_forget").ints(t.now - t.st.longestKept().Milliseconds()).exec()
	})
	if err != nil {
		return nil, err
	}
	return res, nil
}

// longestKept is how long a worker that is gone may still be named by a task.
func (st *state) longestKept() time.Duration {
	longest := driver.MaxLease
	for _, q := range st.queues {
		for i := completed; i <= discarded; i++ {
			longest = max(longest, q.config.Retention.Of(i.state()).Age)
		}
	}
	return longest + time.Hour
}

// tidy promotes what is due, discards what has expired and prunes what is beyond retention, at most limit of each.
// thorough looks even where nothing is expected.
func (t *tx) tidy(q *queue, lanes []*lane, limit int, thorough bool) (driver.MaintainResult, error) {
	var res driver.MaintainResult
	if q.damaged != nil {
		return res, nil // what it keeps, and for how long, can't be known
	}
	var more [3]bool
	var err error
	due := func(l *lane) bool { return thorough || l.count[scheduled]+l.count[retryable] > 0 }
	if res.Promoted, more[0], err = t.sweep("due_list", due, lanes, limit, t.enter); err != nil {
		return res, err
	}
	expiring := func(l *lane) bool { return thorough || l.expiring > 0 }
	if res.Expired, more[1], err = t.sweep("expiry_list", expiring, lanes, limit, t.expire); err != nil {
		return res, err
	}
	if res.Pruned, more[2], err = t.prune(q, limit, thorough); err != nil {
		return res, err
	}
	if err := t.reopen(q, lanes, limit); err != nil {
		return res, err
	}
	res.More = slices.Contains(more[:], true)
	return res, nil
}

// sweep does something to the tasks whose time has come, by a list of them in each lane, at most limit of them; more
// says that some are left.
func (t *tx) sweep(name string, has func(*lane) bool, lanes []*lane, limit int, do func(*row) error) (n int, more bool, err error) {
	type entry struct{ at, seq int64 }
	var entries []entry
	for _, l := range lanes {
		if !has(l) {
			continue
		}
		err := t.stmt(name).ints(l.no, t.now, int64(limit)+1).rows(func(s *sqlite.Stmt) error {
			entries = append(entries, entry{s.ColumnInt64(0), s.ColumnInt64(1)})
			return nil
		})
		if err != nil {
			return 0, false, err
		}
	}
	slices.SortFunc(entries, func(a, b entry) int { return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.seq, b.seq)) })
	if more = len(entries) > limit; more {
		entries = entries[:limit]
	}
	for _, e := range entries {
		r, err := t.load(e.seq)
		if err != nil {
			return n, more, err
		}
		if r == nil || name == "expiry_list" && (r.expires == 0 || r.expires > t.now) {
			continue // Audit removes it
		}
		if name == "due_list" && r.due > t.now && (r.standing == scheduled || r.standing == retryable) {
			if err := t.mendTask(e.seq); err != nil { // never early: the entry is damaged
				return n, more, err
			}
			continue
		}
		if err := do(r); err != nil {
			return n, more, err
		}
		n++
	}
	return n, more, nil
}

// prune removes ended tasks that are beyond the queue's retention, the oldest first.
func (t *tx) prune(q *queue, limit int, thorough bool) (n int, more bool, err error) {
	for s := completed; s <= discarded; s++ {
		k, i := q.config.Retention.Of(s.state()), s-completed
		count := q.ended(s)
		if count == 0 {
			q.oldest[i] = 0
			continue
		}
		if !thorough && !q.removable(s, count, t.now) {
			continue
		}
		got, left, err := t.pruneState(q, s, k, count, limit-n)
		if err != nil {
			return n, false, err
		}
		n += got
		more = more || left
	}
	return n, more, nil
}

// removable reports whether of the queue's ended tasks of a state, count of them, some may be beyond retention.
func (q *queue) removable(s standing, count, now int64) bool {
	k, i := q.config.Retention.Of(s.state()), s-completed
	return k.Count >= 0 && count > int64(k.Count) || k.Bytes >= 0 && q.kept[i] > k.Bytes ||
		q.oldest[i] == 0 || now-q.oldest[i] >= k.Age.Milliseconds()
}

// pruneState removes the oldest ended tasks of one state until what is left is within bounds.
func (t *tx) pruneState(q *queue, s standing, k driver.Keep, count int64, limit int) (n int, more bool, err error) {
	lastOrd, bytes := int64(0), q.kept[s-completed]
	perLane := make(map[*lane]int64)
	var extra []int64
	err = t.stmt("prune_list").ints(q.no).text(string(s.state())).ints(int64(limit) + 1).until(func(st *sqlite.Stmt) (bool, error) {
		endedAt := st.ColumnInt64(3)
		if t.now-endedAt < k.Age.Milliseconds() && (k.Count < 0 || count <= int64(k.Count)) && (k.Bytes < 0 || bytes <= k.Bytes) {
			q.oldest[s-completed] = endedAt
			return false, nil
		}
		if n == limit {
			more = true
			return false, nil
		}
		l := t.laneNo(st.ColumnInt64(1))
		if st.ColumnBool(4) {
			extra = append(extra, st.ColumnInt64(5))
		}
		n++
		count--
		bytes -= st.ColumnInt64(2)
		lastOrd = st.ColumnInt64(0)
		perLane[l]++
		return true, nil
	})
	if err != nil || n == 0 {
		return 0, more, err
	}
	if err := t.dropExtra(extra); err != nil {
		return 0, false, err
	}
	for _, name := range []string{"prune_task", "prune_ended"} {
		if err := t.stmt(name).ints(q.no).text(string(s.state())).ints(lastOrd).exec(); err != nil {
			return 0, false, err
		}
	}
	for l, dropped := range perLane {
		t.count(l, s, none, dropped)
	}
	q.kept[s-completed] = bytes
	t.touchQueue(q)
	return n, more, nil
}

// dropExtra removes what only some tasks have.
func (t *tx) dropExtra(seqs []int64) error {
	for _, seq := range seqs {
		for _, name := range []string{"meta_delete", "report_delete"} {
			if err := t.stmt(name).ints(seq).exec(); err != nil {
				return err
			}
		}
	}
	return nil
}
