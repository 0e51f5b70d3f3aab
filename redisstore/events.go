package redisstore

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/redis/rueidis"

	"github.com/waggleq/waggle/driver"
)

// eventCursor is, for each shard, the number of the last event that was read.
type eventCursor []int64

const eventCursorMark = "re1."

func (c eventCursor) String() string {
	words := make([]string, len(c))
	for i, n := range c {
		words[i] = strconv.FormatInt(n, 36)
	}
	return eventCursorMark + strings.Join(words, ".")
}

func (s *Store) parseEventCursor(text string) (eventCursor, error) {
	c := make(eventCursor, len(s.shards))
	if text == "" {
		return c, nil
	}
	bad := driver.Invalidf("the cursor %q is not from the events of this store", driver.CutText(text, 64))
	rest, ok := strings.CutPrefix(text, eventCursorMark)
	words := strings.Split(rest, ".")
	if !ok || len(words) != len(c) {
		return nil, bad
	}
	for i, w := range words {
		n, err := strconv.ParseInt(w, 36, 64)
		if err != nil || n < 0 {
			return nil, bad
		}
		c[i] = n
	}
	return c, nil
}

// Events implements driver.Inspector.
func (s *Store) Events(ctx context.Context, q driver.EventQuery) (*driver.EventPage, error) {
	if s.closed() {
		return nil, driver.ErrClosed
	}
	if q.Max < 0 || q.Wait < 0 {
		return nil, driver.Invalidf("the number of events and the time to wait must not be negative, got %d and %v", q.Max, q.Wait)
	}
	if q.Max == 0 {
		q.Max = 1000
	}
	at, err := s.eventStart(ctx, q.After)
	if err != nil {
		return nil, err
	}
	deadline := time.Now().Add(q.Wait)
	for {
		page, err := s.readEvents(ctx, at, q.Max, q.After == "")
		if err != nil {
			return nil, err
		}
		left := time.Until(deadline)
		if len(page.Events) > 0 || page.Gap || left <= 0 {
			return page, nil
		}
		if err := s.awaitEvents(ctx, at, left); err != nil {
			return nil, err
		}
	}
}

func (s *Store) eventStart(ctx context.Context, after string) (eventCursor, error) {
	if after != driver.EventsFromNow {
		return s.parseEventCursor(after)
	}
	at := make(eventCursor, len(s.shards))
	for i, sh := range s.shards {
		values, err := s.hashFields(ctx, sh, "meta", []string{"ev"})
		if err != nil {
			return nil, err
		}
		at[i], _ = strconv.ParseInt(values[0], 10, 64)
	}
	return at, nil
}

// readEvents reads up to max events after a cursor from all shards, the oldest first. It advances the cursor past them.
func (s *Store) readEvents(ctx context.Context, at eventCursor, max int, fromOldest bool) (*driver.EventPage, error) {
	logs := make([]*shardLog, len(s.shards))
	err := s.eachShard(ctx, func(ctx context.Context, sh *shard) error {
		l := &shardLog{s: s, sh: sh, at: at[sh.number], read: at[sh.number], fromOldest: fromOldest}
		logs[sh.number] = l
		return l.fill(ctx)
	}, nil)
	if err != nil {
		return nil, err
	}
	page := &driver.EventPage{}
	for len(page.Events) < max {
		l := oldestFirst(logs)
		if l == nil {
			break
		}
		e, gap := l.take()
		page.Events, page.Gap = append(page.Events, e), page.Gap || gap
		if err := l.fill(ctx); err != nil {
			return nil, err
		}
	}
	for i, l := range logs {
		at[i] = l.at
	}
	page.Next = at.String()
	return page, nil
}

// shardLog reads the log of one shard, piece by piece.
type shardLog struct {
	s          *Store
	sh         *shard
	fromOldest bool
	at, read   int64 // the numbers of the last event that was taken, and of the last that was read
	events     []driver.Event
	gap, end   bool // some before the first of events are gone; there is nothing behind them
}

// oldestFirst returns the log whose next event is the oldest, nil if there is none. The order within a shard stays, even
// if its clock was set back.
func oldestFirst(logs []*shardLog) *shardLog {
	var first *shardLog
	for _, l := range logs {
		if len(l.events) > 0 && (first == nil || l.events[0].Time.Before(first.events[0].Time)) {
			first = l
		}
	}
	return first
}

// take returns the next event, and whether some before it are gone.
func (l *shardLog) take() (driver.Event, bool) {
	e, gap := l.events[0], l.gap
	l.events, l.gap = l.events[1:], false
	l.at = l.read - int64(len(l.events))
	return e, gap
}

// fill reads on if there is no next event in memory.
func (l *shardLog) fill(ctx context.Context) error {
	for len(l.events) == 0 && !l.end {
		entries, err := l.s.eventEntries(ctx, l.sh, l.read)
		if err != nil {
			return err
		}
		l.end = len(entries) == 0
		for i, e := range entries {
			last, n, events, err := parseEventEntry(e)
			if err != nil {
				return err
			}
			first := last - n + 1
			if first > l.read+1 && !(l.fromOldest && l.read == 0) {
				if i > 0 {
					break // a gap stands before the first only
				}
				l.gap = true
			}
			l.events = append(l.events, events[max(l.read+1-first, 0):]...)
			l.read = last
		}
	}
	return nil
}

// eventEntries reads the next entries of the log, each with the events of one script.
func (s *Store) eventEntries(ctx context.Context, sh *shard, after int64) ([]rueidis.XRangeEntry, error) {
	ctx, cancel := s.bounded(ctx, s.timeout)
	defer cancel()
	cmd := s.control.B().Xrange().Key(sh.key("events")).Start("(" + strconv.FormatInt(after, 10) + "-0").End("+").Count(50).Build()
	entries, err := s.control.Do(ctx, cmd).AsXRange()
	if err != nil && !rueidis.IsRedisNil(err) {
		return nil, s.ended(ctx, err)
	}
	return entries, nil
}

// parseEventEntry returns the number of an entry's last event, how many it has, and the events.
func parseEventEntry(e rueidis.XRangeEntry) (last, n int64, events []driver.Event, err error) {
	number, _, _ := strings.Cut(e.ID, "-")
	last, err1 := strconv.ParseInt(number, 10, 64)
	n, err2 := strconv.ParseInt(e.FieldValues["n"], 10, 64)
	events, err = driver.DecodeEvents(nil, []byte(e.FieldValues["e"]))
	if err == nil && (err1 != nil || err2 != nil || int64(len(events)) != n) {
		err = driver.Errorf(driver.ErrCorrupt, "entry %s of the event log is damaged", e.ID)
	}
	return last, n, events, err
}

// awaitEvents blocks until a shard's log has something behind the cursor, or until d has passed.
func (s *Store) awaitEvents(ctx context.Context, at eventCursor, d time.Duration) error {
	if len(s.shards) > 1 {
		return s.watches.await(ctx, s, at, d)
	}
	_, err := s.blockForEvents(ctx, eventPlace{0, at[0]}, min(d, maxBlock))
	return err
}
