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
	if patch.Limits != nil {
		return nil, driver.Errorf(driver.ErrUnsupported, "the memory store does not offer limits")
	}
	if patch.Retention != nil {
		if err := patch.Retention.Validate(); err != nil {
			return nil, err
		}
	}
	if err := s.lock(ctx); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	q := s.queue(name)
	resumed := q.config.Paused && patch.Paused != nil && !*patch.Paused
	set(&q.config.Paused, patch.Paused)
	set(&q.config.Draining, patch.Draining)
	set(&q.config.Retention, patch.Retention)
	s.emit(driver.Event{Kind: driver.EventQueueChanged, Queue: name})
	for _, l := range q.lines {
		for resumed && l.heaps[byPriority].top() != nil && s.wake(l) {
		}
	}
	config := q.config
	return &config, nil
}

func set[T any](field *T, value *T) {
	if value != nil {
		*field = *value
	}
}

// Queues implements [driver.Inspector].
func (s *Store) Queues(ctx context.Context) ([]driver.QueueInfo, error) {
	if err := s.lock(ctx); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	infos := make([]driver.QueueInfo, 0, len(s.queues))
	for _, name := range slices.Sorted(maps.Keys(s.queues)) {
		infos = append(infos, s.queues[name].info(s.now))
	}
	return infos, nil
}

func (q *queue) info(now time.Time) driver.QueueInfo {
	info := driver.QueueInfo{Name: q.name, Config: q.config, Counts: map[driver.State]int{}, Totals: q.totals}
	for _, state := range driver.States {
		info.Counts[state] = 0
	}
	for _, typ := range slices.Sorted(maps.Keys(q.lines)) {
		present, oldest, lapsed := q.lines[typ].figures(now)
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
	}
	return info
}

// figures returns the line's counts at the present, since when its longest waiting task has been available, and how many
// tasks have expired, which is not recorded yet.
func (l *line) figures(now time.Time) (counts byState[int], oldest time.Time, lapsed int) {
	counts = l.counts
	for _, by := range []ordering{byPriority, byDue} {
		for _, e := range l.heaps[by].items {
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
