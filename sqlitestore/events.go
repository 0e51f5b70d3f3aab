package sqlitestore

import (
	"context"
	"time"

	"github.com/waggleq/waggle/driver"
	"zombiezen.com/go/sqlite"
)

// Events implements [driver.Inspector].
func (s *Store) Events(ctx context.Context, q driver.EventQuery) (*driver.EventPage, error) {
	if q.Max < 0 || q.Wait < 0 {
		return nil, driver.Invalidf("the number of events and the time to wait must not be negative, got %d and %v", q.Max, q.Wait)
	}
	if q.Wait == 0 {
		return s.readEvents(ctx, &q)
	}
	seen, stop := s.watchEvents()
	defer stop()
	timeout := time.NewTimer(q.Wait)
	defer timeout.Stop()
	for {
		news := seen()
		page, err := s.readEvents(ctx, &q)
		if err != nil || len(page.Events) > 0 {
			return page, err
		}
		q.After = page.Next // fixes what "now" means
		if more, err := s.awaitEvents(ctx, news, timeout.C); err != nil {
			return nil, err
		} else if !more {
			return page, nil
		}
	}
}

// readEvents returns the events after the cursor.
func (s *Store) readEvents(ctx context.Context, q *driver.EventQuery) (*driver.EventPage, error) {
	var page *driver.EventPage
	err := s.read(ctx, func(c *conn) error {
		page = &driver.EventPage{}
		var head state
		if err := head.loadHead(c); err != nil {
			return err
		}
		next := head.nextEvent
		oldest := next
		_, err := c.stmt("event_first").row(func(s *sqlite.Stmt) error {
			if !s.ColumnIsNull(0) {
				oldest = s.ColumnInt64(0)
			}
			return nil
		})
		if err != nil {
			return err
		}
		from := oldest
		switch q.After {
		case "":
		case driver.EventsFromNow:
			from = next
		default:
			n, err := s.parseCursor("events", q.After)
			if err != nil || n > next {
				return driver.Invalidf("the cursor %q is not one that this store gave out for its events", driver.CutText(q.After, 64))
			}
			from, page.Gap = max(n, oldest), n < oldest
		}
		end := min(next, from+int64(eventCount(q.Max)))
		page.Next = s.cursor("events", end)
		if from == end {
			return nil
		}
		events, damaged, err := c.events(from, end)
		page.Events, page.Gap = events, page.Gap || damaged
		return err
	})
	if err != nil {
		return nil, err
	}
	return page, nil
}

func eventCount(asked int) int {
	if asked == 0 {
		return 1000
	}
	return min(asked, 10_000)
}

// events returns the events from one number up to another, but for those in rows that are damaged.
func (c *conn) events(from, end int64) (events []driver.Event, damaged bool, err error) {
	var row []driver.Event
	next := int64(0)
	err = c.stmt("event_page").ints(from, -1).until(func(s *sqlite.Stmt) (bool, error) {
		no := s.ColumnInt64(0)
		if no >= end {
			return false, nil
		}
		damaged = damaged || next != 0 && no != next // a row is missing
		next = no + s.ColumnInt64(1)
		row, err = driver.DecodeEvents(row[:0], columnBytes(s, 2))
		if err != nil || int64(len(row)) != s.ColumnInt64(1) || !intact(s, 0, eventColumns) {
			damaged = true
			return true, nil
		}
		lo, hi := max(0, from-no), min(int64(len(row)), end-no)
		if lo < hi {
			events = append(events, row[lo:hi]...)
		}
		return true, nil
	})
	return events, damaged || next < end, err
}
