package sqlitestore

import (
	"context"

	"github.com/waggleq/waggle/driver"
)

// SetQueue implements [driver.Maintainer].
func (s *Store) SetQueue(ctx context.Context, name string, patch driver.QueuePatch) (*driver.QueueConfig, error) {
	if err := driver.CheckName("queue", name, driver.MaxNameLen); err != nil {
		return nil, err
	}
	var config driver.QueueConfig
	err := s.write(ctx, func(t *tx) error {
		if err := t.settleFresh(); err != nil {
			return err
		}
		old, c, err := t.patched(name, patch, s.caps)
		if err != nil {
			return err
		}
		config = c
		q, err := t.queue(name)
		if err != nil {
			return err
		}
		counted := q.counts()
		q.config, q.text, q.oldest, q.gone = config, encodeJSON(config), [3]int64{}, false
		t.touchQueue(q)
		roused := old.Paused && !config.Paused || patch.ChangesLimits() || patch.Keys != nil
		if q.counts() != counted {
			if err := t.recountKeys(q); err != nil {
				return err
			}
		}
		if patch.ChangesLimits() || patch.Keys != nil {
			if err := t.regateAll(q, patch.Keys != nil); err != nil {
				return err
			}
		}
		t.events = append(t.events, driver.Event{Time: t.time(), Kind: driver.EventQueueChanged, Queue: name})
		for _, l := range q.lanes {
			if n := l.startable(t.now); roused && n > 0 {
				t.after.wake(l, n)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return config.Clone(), nil
}

// DeleteQueue implements [driver.Maintainer].
func (s *Store) DeleteQueue(ctx context.Context, name string) error {
	if err := driver.CheckName("queue", name, driver.MaxNameLen); err != nil {
		return err
	}
	return s.write(ctx, func(t *tx) error {
		q := t.st.queues[name]
		if q == nil || q.hidden() {
			return driver.Errorf(driver.ErrNotFound, "there is no queue %q", name)
		}
		if q.damaged != nil {
			return q.damaged
		}
		for _, l := range q.lanes {
			for i, n := range l.count {
				if n > 0 {
					return driver.QueueHolds(name, int(n), standing(i).state())
				}
			}
		}
		t.touchQueue(q)
		q.gone, q.text, q.totals, q.config = true, goneConfig, driver.Totals{}, driver.QueueConfig{Retention: driver.DefaultRetention()}
		t.events = append(t.events, driver.Event{Time: t.time(), Kind: driver.EventQueueDeleted, Queue: name})
		return nil
	})
}
