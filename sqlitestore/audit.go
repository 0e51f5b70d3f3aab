package sqlitestore

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/waggleq/waggle/driver"
	"zombiezen.com/go/sqlite"
)

// defect is a finding with what is needed to mend it.
type defect struct {
	driver.Finding
	seq int64
	key [3]int64 // of an entry in ready or expiry
	raw []byte   // a unique key
}

// Audit implements [driver.Maintainer]. It looks at one snapshot, so that it holds up nobody, and repairs in small
// transactions. Besides the structures it checks every page of the file and the checksum of every task.
func (s *Store) Audit(ctx context.Context, repair bool) ([]driver.Finding, error) {
	if s.closed.Load() {
		return nil, errClosed
	}
	defects, err := s.check(ctx)
	if err != nil || len(defects) == 0 {
		return nil, err
	}
	if repair {
		if err := s.mend(ctx, defects); err != nil {
			return nil, err
		}
		left, err := s.check(ctx)
		if err != nil {
			return nil, err
		}
		for i, d := range defects {
			defects[i].Repaired = !slices.ContainsFunc(left, func(l defect) bool { return l.Kind == d.Kind && l.ID == d.ID && l.seq == d.seq })
		}
	}
	findings := make([]driver.Finding, len(defects))
	for i, d := range defects {
		findings[i] = d.Finding
	}
	return findings, nil
}

// auditor collects defects from one snapshot.
type auditor struct {
	*conn
	ctx     context.Context // of one check, from which the auditor never escapes
	st      *state
	now     int64
	defects []defect
}

func (a *auditor) add(d defect, kind, id, format string, args ...any) {
	d.Finding = driver.Finding{Kind: kind, ID: id, Detail: fmt.Sprintf(format, args...)}
	a.defects = append(a.defects, d)
}

// check returns all defects.
func (s *Store) check(ctx context.Context) ([]defect, error) {
	var a *auditor
	err := s.read(ctx, func(c *conn) (err error) {
		a = &auditor{conn: c, ctx: ctx, now: s.now()}
		for _, check := range []func() error{a.pages, a.sums, a.loadState, a.rows, a.entries, a.counts, a.numbers, a.keys, a.contents, a.plans} {
			if err := check(); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return a.defects, nil
}

func (a *auditor) loadState() (err error) {
	a.st, err = loadState(a.conn)
	if isDamage(err) {
		err = nil // found already
	}
	return err
}

// sums checks the rows that have a checksum of their own.
func (a *auditor) sums() error {
	for _, table := range summed {
		err := a.stmt("audit_sums_" + table).rows(func(s *sqlite.Stmt) error {
			if !intact(s, 0, s.ColumnCount()-1) {
				name := rowName(table, s)
				d := defect{}
				if table == "uniq" {
					d.seq, d.raw = s.ColumnInt64(1), columnBytes(s, 0)
				}
				a.add(d, "damaged-row", name, "the row of table %s does not match its checksum", name)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// pages has the database check its file.
func (a *auditor) pages() error {
	return a.stmt("integrity").rows(func(s *sqlite.Stmt) error {
		if text := s.ColumnText(0); text != "ok" {
			a.add(defect{}, "damaged-file", "", "%s", strings.ReplaceAll(text, "\n", " "))
		}
		return nil
	})
}

// rows runs the checks whose findings name a task.
func (a *auditor) rows() error {
	for _, check := range []struct{ name, kind string }{
		{"audit_places", "wrong-place"}, {"audit_states", "wrong-place"}, {"audit_due", "wrong-due"}, {"audit_lanes", "wrong-lane"},
		{"audit_held", "held-by-nobody"}, {"audit_orphans", "orphan-row"}, {"audit_bytes", "wrong-size"}, {"audit_extra", "wrong-extra"},
		{"audit_expiry_missing", "missing-expiry"}, {"audit_unique_missing", "missing-unique"},
	} {
		err := a.stmt(check.name).rows(func(s *sqlite.Stmt) error {
			a.add(defect{seq: s.ColumnInt64(0)}, check.kind, driver.UnpackID(columnBytes(s, 1)), "task %d: %s", s.ColumnInt64(0), s.ColumnText(2))
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// entries checks the indexes whose entries have keys of their own.
func (a *auditor) entries() error {
	key := func(s *sqlite.Stmt) [3]int64 { return [3]int64{s.ColumnInt64(0), s.ColumnInt64(1), s.ColumnInt64(2)} }
	err := a.stmt("audit_ready").rows(func(s *sqlite.Stmt) error {
		k := key(s)
		a.add(defect{key: k}, "orphan-ready", driver.UnpackID(columnBytes(s, 3)), "lane %d, priority %d, place %d has an entry of no task that belongs there", k[0], k[1], k[2])
		return nil
	})
	if err != nil {
		return err
	}
	err = a.stmt("audit_expiry").rows(func(s *sqlite.Stmt) error {
		k := key(s)
		a.add(defect{key: k}, "orphan-expiry", driver.UnpackID(columnBytes(s, 3)), "lane %d: task %d is not one that is available and expires then", k[0], k[2])
		return nil
	})
	if err != nil {
		return err
	}
	return a.stmt("audit_unique").rows(func(s *sqlite.Stmt) error {
		key := columnBytes(s, 2)
		a.add(defect{seq: s.ColumnInt64(0), raw: key}, "orphan-unique", driver.UnpackID(columnBytes(s, 1)), "the unique key %q has no owner that has not ended", key)
		return nil
	})
}

// drift is by how much counters differ from what they count.
type drift struct {
	lanes    map[int64][8]int64
	expiring map[int64]int64
	flowing  map[int64]int64
	parked   map[int64]int64
	kept     map[int64][3]int64 // by queue
}

// drift counts everything.
func (c *conn) drift(st *state) (*drift, error) {
	d := &drift{lanes: make(map[int64][8]int64), expiring: make(map[int64]int64), flowing: make(map[int64]int64), parked: make(map[int64]int64), kept: make(map[int64][3]int64)}
	err := c.stmt("count_lanes").rows(func(s *sqlite.Stmt) error {
		no, n := s.ColumnInt64(0), s.ColumnInt64(2)
		if st.lanes[no] == nil {
			return nil // found by another check
		}
		switch s.ColumnText(1) {
		case "flowing":
			d.flowing[no] += n
			return nil
		case "parked":
			d.parked[no] += n
			return nil
		}
		if i := standingOf(s.ColumnText(1)); i >= 0 {
			v := d.lanes[no]
			v[i] += n
			d.lanes[no] = v
		} else {
			d.expiring[no] += n
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	err = c.stmt("count_kept").rows(func(s *sqlite.Stmt) error {
		v := d.kept[s.ColumnInt64(0)]
		if i := standingOf(s.ColumnText(1)); i.ended() {
			v[i-completed] = s.ColumnInt64(2)
		}
		d.kept[s.ColumnInt64(0)] = v
		return nil
	})
	for no, l := range st.lanes {
		v := d.lanes[no]
		for i := range v {
			v[i] -= l.count[i]
		}
		d.lanes[no] = v
		d.expiring[no] -= l.expiring
		d.flowing[no] -= l.flowing
		d.parked[no] -= l.parked
	}
	for _, q := range st.queues {
		v := d.kept[q.no]
		for i := range v {
			v[i] -= q.kept[i]
		}
		d.kept[q.no] = v
	}
	return d, err
}

// counts checks every counter.
func (a *auditor) counts() error {
	d, err := a.drift(a.st)
	if err != nil {
		return err
	}
	for no := range a.st.strays {
		a.add(defect{seq: no}, "orphan-lane", "", "lane %d belongs to no queue", no)
	}
	for no, l := range a.st.lanes {
		for i, n := range d.lanes[no] {
			if n != 0 {
				a.add(defect{seq: no}, "wrong-count", "", "queue %s, type %s: %d tasks are counted as %s, there are %d",
					l.queue.name, l.typ, l.count[i], driver.States[i], l.count[i]+n)
			}
		}
		if n, m := d.flowing[no], d.parked[no]; n != 0 || m != 0 {
			a.add(defect{seq: no}, "wrong-count", "", "queue %s, type %s: %d tasks are counted as waiting by key, there are %d; %d as parked, there are %d",
				l.queue.name, l.typ, l.flowing, l.flowing+n, l.parked, l.parked+m)
		}
		if n := d.expiring[no]; n != 0 {
			a.add(defect{seq: no}, "wrong-count", "", "queue %s, type %s: %d tasks are counted as expiring, there are %d", l.queue.name, l.typ, l.expiring, l.expiring+n)
		}
	}
	for _, q := range a.st.queues {
		for i, n := range d.kept[q.no] {
			if n != 0 {
				a.add(defect{seq: q.no}, "wrong-bytes", "", "queue %s: %d bytes are counted as %s, there are %d",
					q.name, q.kept[i], (completed + standing(i)).state(), q.kept[i]+n)
			}
		}
		if n := q.imbalance(); n != 0 {
			a.add(defect{seq: q.no}, "wrong-totals", "", "queue %s: its totals account for %d tasks too many", q.name, n)
		}
	}
	return nil
}

// imbalance is by how much the totals of what came in exceed those of what went out and what is there.
func (q *queue) imbalance() int64 {
	n := q.totals.Enqueued + q.totals.Retried - q.totals.Completed - q.totals.Cancelled - q.totals.Discarded - q.totals.DeletedLive
	for _, l := range q.lanes {
		for i := scheduled; i < completed; i++ {
			n -= l.count[i]
		}
	}
	return n
}

// numbers checks that no number is given out twice.
func (a *auditor) numbers() error {
	_, err := a.stmt("audit_store").row(func(s *sqlite.Stmt) error {
		for i, n := range []struct {
			what       string
			next, used int64
		}{
			{"seq", a.st.nextSeq, s.ColumnInt64(0) + 1}, {"token", a.st.nextToken, s.ColumnInt64(1) + 1},
			{"event", a.st.nextEvent, s.ColumnInt64(2)}, {"worker", a.st.nextWorker, s.ColumnInt64(4) + 1},
		} {
			if n.next < n.used {
				a.add(defect{seq: int64(i)}, "wrong-number", "", "the next %s would be %d, but %d is used", n.what, n.next, n.used-1)
			}
		}
		if size := s.ColumnInt64(3); size != a.st.eventBytes {
			a.add(defect{}, "wrong-event-bytes", "", "the event log counts %d bytes, it has %d", a.st.eventBytes, size)
		}
		return nil
	})
	return err
}

// contents checks what is stored of every task against its checksums.
func (a *auditor) contents() error {
	var seqs []int64
	err := a.stmt("audit_tasks").rows(func(s *sqlite.Stmt) error {
		seqs = append(seqs, s.ColumnInt64(0))
		return nil
	})
	for _, seq := range seqs {
		if err != nil {
			return err
		}
		var rec *driver.Record
		if rec, err = a.record(seq); err != nil || rec == nil {
			continue
		}
		for _, part := range rec.Damaged {
			if part == driver.PartTask && rec.Reason == driver.ReasonUndecodable {
				continue // it was found and put aside
			}
			a.add(defect{seq: seq}, "damaged-"+string(part), rec.ID, "task %d: what is stored of its %s does not match its checksum", seq, part)
		}
	}
	return err
}
