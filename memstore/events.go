package memstore

import (
	"context"
	"time"

	"github.com/waggleq/waggle/driver"
)

// eventLog is a ring of the newest events. Event n is at n % max.
type eventLog struct {
	ring []driver.Event
	max  int64
	next int64         // number of the next event
	news chan struct{} // closed by the next event; nil while nobody waits
}

func (s *Store) emit(e driver.Event) {
	log := &s.events
	e.Time = s.now
	if log.next < log.max {
		log.ring = append(log.ring, e)
	} else {
		log.ring[log.next%log.max] = e
	}
	log.next++
	if log.news != nil {
		close(log.news)
		log.news = nil
	}
}

// Events implements [driver.Inspector].
func (s *Store) Events(ctx context.Context, q driver.EventQuery) (*driver.EventPage, error) {
	if q.Max < 0 || q.Wait < 0 {
		return nil, driver.Invalidf("the number of events and the time to wait must not be negative, got %d and %v", q.Max, q.Wait)
	}
	timeout := time.NewTimer(q.Wait)
	defer timeout.Stop()
	for {
		page, news, err := s.readEvents(ctx, &q)
		if err != nil || len(page.Events) > 0 || q.Wait == 0 {
			return page, err
		}
		q.After = page.Next // fixes what "now" means
		select {
		case <-news:
		case <-timeout.C:
			return page, nil
		case <-s.done:
			return nil, errClosed
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// readEvents returns the events after the cursor and, if there are none, what is closed by the next.
func (s *Store) readEvents(ctx context.Context, q *driver.EventQuery) (*driver.EventPage, <-chan struct{}, error) {
	if err := s.lock(ctx); err != nil {
		return nil, nil, err
	}
	defer s.mu.Unlock()
	log := &s.events
	oldest := max(0, log.next-log.max)
	from, page := oldest, &driver.EventPage{}
	switch q.After {
	case "":
	case driver.EventsFromNow:
		from = log.next
	default:
		n, err := s.parseCursor("events", q.After)
		if err != nil || n > log.next {
			return nil, nil, driver.Invalidf("the cursor %q is not one that this store gave out for its events", driver.CutText(q.After, 64))
		}
		from, page.Gap = max(n, oldest), n < oldest
	}
	count := int64(q.Max)
	if count == 0 {
		count = 1000
	}
	end := min(log.next, from+count)
	for n := from; n < end; n++ {
		page.Events = append(page.Events, log.ring[n%log.max])
	}
	page.Next = s.cursor("events", end)
	if log.news == nil && from == end && q.Wait > 0 {
		log.news = make(chan struct{})
	}
	return page, log.news, nil
}
