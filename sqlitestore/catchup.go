package sqlitestore

import (
	"zombiezen.com/go/sqlite"
)

// maxCatchUp is how many events of others the writer reads to learn what they have changed. To load all is quicker beyond.
const maxCatchUp = 2000

// catchUp brings the writer's copy of the small tables up to date with what other processes have committed, at a cost by
// what they have changed: the event log names the queues. A heartbeat or a Fetch that found nothing changes none. false
// says that all has to be loaded.
//
// A change that no event names, such as pruning, is counted in the store's row instead.
func (w *writer) catchUp() (bool, error) {
	st := w.st
	if st == nil {
		return false, nil
	}
	var head state
	if err := head.loadHead(w.c); err != nil {
		return false, err
	}
	n := head.nextEvent - st.nextEvent
	if n < 0 || n > maxCatchUp || head.incarnation != st.incarnation || head.changes != st.changes {
		return false, nil
	}
	changed := make(map[string]bool)
	if n > 0 {
		events, _, err := w.c.events(st.nextEvent, head.nextEvent)
		if err != nil || int64(len(events)) != n {
			return false, err // some were dropped already, or are damaged
		}
		for _, e := range events {
			if e.Queue != "" {
				changed[e.Queue] = true
			}
		}
	}
	ws, now := w.s.waiters, w.s.now()
	ws.mu.Lock()
	defer ws.mu.Unlock()
	for name := range changed {
		if err := st.reload(w.c, name, func(before, l *lane) { ws.compareLane(before, l, now) }); err != nil {
			w.st = nil
			return false, err
		}
	}
	if n > 0 {
		ws.wakeEvents()
	}
	ws.comparePlans(st.firstPlan, head.firstPlan)
	clear(st.workers)
	st.nextKey = 0
	st.adopt(&head)
	return true, nil
}

// reload loads one queue with its lanes, and tells of each what it was before.
func (st *state) reload(c *conn, name string, tell func(before, now *lane)) error {
	var q *queue
	_, err := c.stmt("queue_load_one").text(name).row(func(s *sqlite.Stmt) error {
		q = scanQueue(s)
		return nil
	})
	if err != nil || q == nil {
		return err
	}
	if old := st.queues[name]; old != nil {
		q.share.sweep = old.share.sweep
	}
	st.queues[name] = q
	st.queueNos = max(st.queueNos, q.no)
	_, err = c.stmt("share_load_one").ints(q.no).row(func(s *sqlite.Stmt) error {
		q.scanShare(s)
		return nil
	})
	if err != nil {
		return err
	}
	return c.stmt("lane_load_one").ints(q.no).rows(func(s *sqlite.Stmt) error {
		l := scanLane(s)
		l.of(q)
		before := st.lanes[l.no]
		st.lanes[l.no] = l
		tell(before, l)
		return nil
	})
}

// unnamed reports whether the transaction changes a lane or a queue that none of its events names.
func (t *tx) unnamed() bool {
	if len(t.lanes)+len(t.queues) == 0 {
		return false
	}
	named := make(map[string]bool, 1)
	last := ""
	for i := range t.events {
		if name := t.events[i].Queue; name != last {
			named[name] = true
			last = name
		}
	}
	for _, l := range t.lanes {
		if !named[l.queue.name] {
			return true
		}
	}
	for _, q := range t.queues {
		if !named[q.name] {
			return true
		}
	}
	return false
}
