package redisstore

import (
	"context"
	"slices"
	"strconv"
	"time"

	"github.com/redis/rueidis"

	"github.com/waggleq/waggle/driver"
)

// stateAt is the state at the store's present, which may not be recorded yet; see [driver.StateAt].
func (r *runRecord) stateAt(now int64) driver.State {
	return driver.StateAt(stateOf[r.state], millis(r.due), millis(r.expires), millis(now))
}

// lapsed reports whether the task has expired, which is not recorded yet.
func (r *runRecord) lapsed(now int64) bool {
	return r.expires != 0 && r.expires <= now && !stateOf[r.state].Ended() && r.stateAt(now).Ended()
}

// lapse records in an item that a task has expired.
func (m *mover) lapse(it *item, e *entry, p *pair) {
	if e.run.state != letterAvailable {
		m.move(it, e, p, letterAvailable, "")
	}
	m.move(it, e, p, letterDiscarded, driver.ReasonExpired)
}

// bringUp brings the counters of pairs of a shard up to its present: what is due counts as available, and what has expired as
// discarded, though nobody has come by to record it. It returns since when the longest waiting of those that are due, by pair.
// It asks for each pair in which tasks wait for their time or expire, and reads the records of those that are due.
func (s *Store) bringUp(ctx context.Context, sh *shard, pairs []*pair, stat map[string]int) (map[*pair]int64, error) {
	var expiring, waiting []*pair
	for _, p := range pairs {
		if stat["E"+p.digits] > 0 {
			expiring = append(expiring, p)
		}
		if stat["S"+p.digits]+stat["T"+p.digits] > 0 {
			waiting = append(waiting, p)
		}
	}
	if len(expiring)+len(waiting) == 0 {
		return nil, nil
	}
	_, now, err := s.read(ctx, sh, nil)
	if err != nil {
		return nil, err
	}
	counts, err := s.countUpTo(ctx, expiring, func(p *pair) string { return p.exp }, now)
	if err != nil {
		return nil, err
	}
	for i, p := range expiring {
		shift(stat, p, letterAvailable, letterDiscarded, counts[i])
	}
	if counts, err = s.countUpTo(ctx, waiting, func(p *pair) string { return p.due }, now); err != nil {
		return nil, err
	}
	oldest := map[*pair]int64{}
	for i, p := range waiting {
		if counts[i] == 0 {
			continue
		}
		if err := s.bringUpDue(ctx, sh, p, now, stat, oldest); err != nil {
			return nil, err
		}
	}
	return oldest, nil
}

// shift counts n tasks of a pair, or as many as there are, in another state.
func shift(stat map[string]int, p *pair, from, to byte, n int) {
	n = min(n, stat[string(from)+p.digits]) // others change them meanwhile
	if n <= 0 {
		return
	}
	stat[string(from)+p.digits] -= n
	stat[string(to)+p.digits] += n
	if to == letterDiscarded {
		stat["d"+p.digits] += n
	}
}

// countUpTo counts the members of a sorted set of each pair whose time has come.
func (s *Store) countUpTo(ctx context.Context, pairs []*pair, key func(*pair) string, now int64) ([]int, error) {
	ctx, cancel := s.bounded(ctx, s.timeout)
	defer cancel()
	counts := make([]int, 0, len(pairs))
	for some := range slices.Chunk(pairs, 500) {
		cmds := make(rueidis.Commands, len(some))
		for i, p := range some {
			cmds[i] = s.control.B().Zcount().Key(key(p)).Min("-inf").Max(strconv.FormatInt(now, 10)).Build()
		}
		for _, reply := range s.control.DoMulti(ctx, cmds...) {
			n, err := reply.AsInt64()
			if err != nil {
				return nil, s.ended(ctx, err)
			}
			counts = append(counts, int(n))
		}
	}
	return counts, nil
}

// bringUpDue counts the tasks of a pair that are due.
func (s *Store) bringUpDue(ctx context.Context, sh *shard, p *pair, now int64, stat map[string]int, oldest map[*pair]int64) error {
	const window = 1000
	for from := int64(0); ; from += window {
		ids, err := s.upTo(ctx, p.due, now, from, window)
		if err != nil || len(ids) == 0 {
			return err
		}
		runs, err := s.hashFields(ctx, sh, "run", ids)
		if err != nil {
			return err
		}
		for _, raw := range runs {
			r, err := parseRun(raw, &taskRecord{})
			if err != nil || r.state != letterScheduled && r.state != letterRetryable {
				continue // it has moved on, or Audit finds it
			}
			shift(stat, p, r.state, letterOf[r.stateAt(now)], 1)
			if r.stateAt(now) == driver.Available && (oldest[p] == 0 || r.due < oldest[p]) {
				oldest[p] = r.due
			}
		}
	}
}

// upTo returns n members of a sorted set of times that have come, from one on.
func (s *Store) upTo(ctx context.Context, key string, now, from, n int64) ([]string, error) {
	ctx, cancel := s.bounded(ctx, s.timeout)
	defer cancel()
	ids, err := s.control.Do(ctx, s.control.B().Zrangebyscore().Key(key).Min("-inf").Max(strconv.FormatInt(now, 10)).Limit(from, n).Build()).AsStrSlice()
	return ids, s.ended(ctx, err)
}

// overdue returns the ids of tasks whose time or expiry has come, which is not recorded yet, at most n of each kind a pair.
func (s *Store) overdue(ctx context.Context, sh *shard, stat map[string]int, n int64) ([]string, error) {
	_, now, err := s.read(ctx, sh, nil)
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, p := range sh.allPairs() {
		for _, set := range []struct {
			key string
			n   int
		}{{p.exp, stat["E"+p.digits]}, {p.due, stat["S"+p.digits] + stat["T"+p.digits]}} {
			if set.n == 0 {
				continue
			}
			some, err := s.upTo(ctx, set.key, now, 0, n)
			if err != nil {
				return nil, err
			}
			ids = append(ids, some...)
		}
	}
	return ids, nil
}

// presentRecord is record at a time of the store's clock.
func (s *Store) presentRecord(ctx context.Context, sh *shard, e *entry, now int64) (*driver.Record, error) {
	r, err := s.record(ctx, sh, e)
	if r != nil {
		r.Present(millis(now))
	}
	return r, err
}

// oldestOf returns the earlier of two times of which each may be unknown.
func oldestOf(a time.Time, b int64) time.Time {
	if t := millis(b); b != 0 && (a.IsZero() || t.Before(a)) {
		return t
	}
	return a
}
