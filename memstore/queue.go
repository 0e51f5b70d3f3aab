package memstore

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/waggleq/waggle/driver"
)

// SetQueue implements [driver.Maintainer].
func (s *Store) SetQueue(ctx context.Context, name string, patch driver.QueuePatch) (*driver.QueueConfig, error) {
	if err := driver.CheckName("queue", name, driver.MaxNameLen); err != nil {
		return nil, err
	}
	if err := s.lock(ctx); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	config, err := s.patched(name, patch)
	if err != nil {
		return nil, err
	}
	q := s.queue(name)
	roused := q.config.Paused && !config.Paused || patch.ChangesLimits() || patch.Keys != nil
	q.config, q.ages = *config, ages{}
	for name := range q.keys {
		s.regate(q, name, false)
	}
	s.emit(driver.Event{Kind: driver.EventQueueChanged, Queue: name})
	for _, l := range q.lines {
		for roused && !config.Paused && s.next(q, []*line{l}) != nil && s.wake(l) {
		}
	}
	return config.Clone(), nil
}

// DeleteQueue implements [driver.Maintainer].
func (s *Store) DeleteQueue(ctx context.Context, name string) error {
	if err := driver.CheckName("queue", name, driver.MaxNameLen); err != nil {
		return err
	}
	if err := s.lock(ctx); err != nil {
		return err
	}
	defer s.mu.Unlock()
	q := s.queues[name]
	if q == nil {
		return driver.Errorf(driver.ErrNotFound, "there is no queue %q", name)
	}
	for _, l := range q.lines {
		for i, n := range l.counts {
			if n > 0 {
				return driver.QueueHolds(name, n, driver.States[i])
			}
		}
	}
	delete(s.queues, name)
	s.emit(driver.Event{Kind: driver.EventQueueDeleted, Queue: name})
	return nil
}

// patched returns a queue's configuration after a patch, or why it can't be so.
func (s *Store) patched(name string, patch driver.QueuePatch) (*driver.QueueConfig, error) {
	old, available := driver.QueueConfig{Retention: driver.DefaultRetention()}, int64(0)
	if q := s.queues[name]; q != nil {
		old = q.config
		available = int64(ready(q.declared(nil)))
	}
	config, err := old.Apply(patch, s.caps)
	if err != nil {
		return nil, err
	}
	if available > 0 && old.Reorders(&config) {
		return nil, driver.ReordersError(name, available)
	}
	return &config, nil
}

// Queues implements [driver.Inspector].
func (s *Store) Queues(ctx context.Context, names ...string) ([]driver.QueueInfo, error) {
	if err := s.lock(ctx); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	wanted := maps.Keys(s.queues)
	if len(names) > 0 {
		wanted = slices.Values(names)
	}
	infos := []driver.QueueInfo{}
	for _, name := range slices.Compact(slices.Sorted(wanted)) {
		if q := s.queues[name]; q != nil {
			infos = append(infos, s.info(q))
		}
	}
	return infos, nil
}

func (s *Store) info(q *queue) driver.QueueInfo {
	info := driver.QueueInfo{Name: q.name, Config: *q.config.Clone(), Counts: map[driver.State]int{}, Totals: q.totals}
	for i := range q.config.Limits {
		info.Limits = append(info.Limits, driver.LimitInfo{Limit: q.config.Limits[i], Held: q.held(&q.config.Limits[i])})
	}
	for _, state := range driver.States {
		info.Counts[state] = 0
	}
	for _, typ := range slices.Sorted(maps.Keys(q.lines)) {
		present, oldest, lapsed := q.lines[typ].figures(s.now)
		live, counts := 0, map[driver.State]int{}
		for i, state := range driver.States {
			n := present[i]
			info.Counts[state] += n
			if n > 0 {
				counts[state] = n
			}
			if !state.Ended() {
				live += n
			}
		}
		if live > 0 {
			info.Types = append(info.Types, driver.TypeInfo{Type: typ, Counts: counts})
		}
		if !oldest.IsZero() {
			info.OldestAvailable = earlier(info.OldestAvailable, oldest)
		}
		info.Totals.Discarded += int64(lapsed)
		info.Parked += s.parked(q.lines[typ], *present.of(driver.Available))
	}
	return info
}

// figures returns the line's counts at the present, since when its longest waiting task has been available, and how many
// tasks have expired, which is not recorded yet.
func (l *line) figures(now time.Time) (counts byState[int], oldest time.Time, lapsed int) {
	counts = l.counts
	for _, waiting := range l.waiting() {
		for _, e := range waiting {
			t := e.task
			state := t.stateAt(now)
			if state != t.State {
				*counts.of(t.State)--
				*counts.of(state)++
			}
			switch state {
			case driver.Available:
				oldest = earlier(oldest, t.DueAt)
			case driver.Discarded:
				lapsed++
			}
		}
	}
	return counts, oldest, lapsed
}
