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
	if patch.Limits != nil {
		return nil, driver.Errorf(driver.ErrUnsupported, "the sqlite store does not offer limits")
	}
	if patch.Retention != nil {
		if err := patch.Retention.Validate(); err != nil {
			return nil, err
		}
	}
	var config driver.QueueConfig
	err := s.write(ctx, func(t *tx) error {
		q, err := t.queue(name)
		if err != nil {
			return err
		}
		resumed := q.config.Paused && patch.Paused != nil && !*patch.Paused
		set(&q.config.Paused, patch.Paused)
		set(&q.config.Draining, patch.Draining)
		set(&q.config.Retention, patch.Retention)
		q.oldest = [3]int64{}
		config = q.config
		t.events = append(t.events, driver.Event{Time: t.time(), Kind: driver.EventQueueChanged, Queue: name})
		for _, l := range q.lanes {
			if n := l.count[available]; resumed && n > 0 {
				t.after.wake(l, n)
			}
		}
		return t.stmt("queue_configure").ints(q.no).text(encodeJSON(q.config)).exec()
	})
	if err != nil {
		return nil, err
	}
	return &config, nil
}

func set[T any](field *T, value *T) {
	if value != nil {
		*field = *value
	}
}
