package sqlitestore

import (
	"encoding/json"

	"github.com/waggleq/waggle/driver"
	"zombiezen.com/go/sqlite"
)

// opens reports whether the limits of the queue and of the type let a task of the lane start, and if only a rate is in the
// way, when it lets the next one.
func (l *lane) opens(now int64) (open bool, at int64) {
	q := l.queue
	for i := range q.config.Limits {
		limit := &q.config.Limits[i]
		if limit.PerKey || limit.Type != "" && limit.Type != l.typ {
			continue
		}
		if limit.Concurrency > 0 && q.active(limit.Type) >= int64(limit.Concurrency) {
			return false, 0
		}
		if limit.Rate > 0 {
			at = max(at, limit.Opens(q.share.arrivals[limit.RateKey()]))
		}
	}
	return at <= now, at
}

// active counts the active tasks of a type; empty: of all types.
func (q *queue) active(typ string) (n int64) {
	for _, l := range q.lanes {
		if typ == "" || typ == l.typ {
			n += l.count[active]
		}
	}
	return n
}

// startable is how many of the lane's tasks no limit keeps from starting just now: more than may start, perhaps, but
// none if none may.
func (l *lane) startable(now int64) int64 {
	n := l.count[available] - l.parked
	if l.queue.damaged != nil {
		return 0
	}
	if n <= 0 || len(l.queue.config.Limits) == 0 {
		return max(n, 0)
	}
	if open, _ := l.opens(now); !open {
		return 0
	}
	for i := range l.queue.config.Limits {
		if limit := &l.queue.config.Limits[i]; !limit.PerKey && limit.Concurrency > 0 && limit.Concerns(l.typ, "") {
			n = min(n, int64(limit.Concurrency)-l.queue.active(limit.Type))
		}
	}
	return n
}

// startedBy counts a start for the rates of the queue and of a type.
func (t *tx) startedBy(q *queue, typ, key string, of *key) {
	for i := range q.config.Limits {
		l := &q.config.Limits[i]
		if l.Rate == 0 || !l.Concerns(typ, key) {
			continue
		}
		if l.PerKey {
			of.arrivals[l.RateKey()] = l.Started(of.arrivals[l.RateKey()], t.now)
			continue
		}
		if q.share.arrivals == nil {
			q.share.arrivals = arrivals{}
		}
		q.share.arrivals[l.RateKey()] = l.Started(q.share.arrivals[l.RateKey()], t.now)
		t.touchShare(q)
	}
}

// freed wakes a worker for a slot of a limit of the queue or of a type that is free.
func (t *tx) freed(q *queue) {
	for i := range q.config.Limits {
		l := &q.config.Limits[i]
		if l.PerKey || l.Concurrency == 0 {
			continue
		}
		for _, lane := range q.lanes {
			if lane.count[available] > lane.parked {
				t.after.wake(lane, 1)
			}
		}
		return
	}
}

// patched returns a queue's configuration before and after a patch, or why it can't be so.
func (t *tx) patched(name string, patch driver.QueuePatch, caps driver.Capabilities) (old, config driver.QueueConfig, err error) {
	old = driver.QueueConfig{Retention: driver.DefaultRetention()}
	waiting := int64(0)
	if q := t.st.queues[name]; q != nil {
		if q.damaged != nil {
			return old, config, q.damaged
		}
		old = q.config
		for _, l := range q.lanes {
			waiting += l.count[available]
		}
	}
	config, err = old.Apply(patch, caps)
	if err == nil && waiting > 0 && old.Reorders(&config) {
		err = driver.ReordersError(name, waiting)
	}
	return old, config, err
}

// limits adds to a queue's figures what counts against its limits, and what they and its keys keep from starting.
func (p *present) limits(q *queue, info *driver.QueueInfo) error {
	var byLane map[int64]int64
	for i := range q.config.Limits {
		l := &q.config.Limits[i]
		held := q.active(l.Type)
		if l.PerKey {
			if byLane == nil {
				var err error
				var damaged bool
				if byLane, damaged, err = p.heldByKeys(q); err != nil {
					return err
				}
				info.Damaged = info.Damaged || damaged
			}
			held = 0
			for _, lane := range q.lanes {
				if l.Type == "" || l.Type == lane.typ {
					held += byLane[lane.no]
				}
			}
		}
		info.Limits = append(info.Limits, driver.LimitInfo{Limit: *l, Held: int(held)})
	}
	for _, l := range q.lanes {
		n, err := p.parked(l)
		if err != nil {
			return err
		}
		info.Parked += int(n)
	}
	return nil
}

// heldByKeys counts the active tasks that have a key, by lane, and reports whether what is stored of a key is damaged.
func (p *present) heldByKeys(q *queue) (sum map[int64]int64, damaged bool, err error) {
	sum = map[int64]int64{}
	err = p.stmt("key_held").ints(q.no).rows(func(s *sqlite.Stmt) error {
		var held map[int64]int64
		if json.Unmarshal([]byte(s.ColumnText(8)), &held) != nil || !intact(s, 0, keyedColumns) {
			damaged = true
		}
		for lane, n := range held {
			sum[lane] += n
		}
		return nil
	})
	return sum, damaged, err
}

// parked counts the tasks of a lane that can't start at the present.
func (p *present) parked(l *lane) (int64, error) {
	if open, _ := l.opens(p.now); !open {
		return l.count[available], nil
	}
	if l.parked == 0 {
		return 0, nil
	}
	opened, err := p.stmt("flow_opened").ints(l.no, p.now).one()
	if err != nil || l.expiring == 0 {
		return l.parked - opened, err
	}
	lapsed, err := p.stmt("flow_lapsed").ints(l.no, p.now).one()
	return l.parked - opened - lapsed, err
}
