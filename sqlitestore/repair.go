package sqlitestore

import (
	"context"
	"slices"
	"strings"

	"github.com/waggleq/waggle/driver"
	"zombiezen.com/go/sqlite"
)

// mendPart is how many defects are mended in one transaction.
const mendPart = 200

// mend repairs what can be repaired: first the entries, then the counters of what is there now.
func (s *Store) mend(ctx context.Context, defects []defect) error {
	if err := s.reseal(ctx, defects); err != nil {
		return err
	}
	if slices.ContainsFunc(defects, func(d defect) bool { return d.Kind == "damaged-file" }) {
		// An index that differs from its table can be made anew; other damage stays, and is found again.
		err := s.write(ctx, func(t *tx) error { return t.stmt("reindex").exec() })
		if err != nil {
			return err
		}
	}
	// What is kept of keys is made anew before and after: changes of tasks rely on it, and mending them may leave it wrong.
	keys := slices.ContainsFunc(defects, func(d defect) bool { return !strings.HasPrefix(d.Kind, "wrong-count") && d.Kind != "damaged-file" })
	if keys {
		if err := s.write(ctx, (*tx).rebuildKeys); err != nil {
			return err
		}
	}
	for part := range slices.Chunk(defects, mendPart) {
		err := s.write(ctx, func(t *tx) error {
			if err := t.settleFresh(); err != nil {
				return err
			}
			for i := range part {
				if err := t.mend(&part[i]); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	if keys {
		if err := s.write(ctx, (*tx).rebuildKeys); err != nil {
			return err
		}
	}
	return s.mendCounts(ctx)
}

// mend repairs one defect, if it is still there.
func (t *tx) mend(d *defect) error {
	switch d.Kind {
	case "orphan-ready":
		return t.mendReady(d)
	case "orphan-expiry":
		return t.stmt("expiry_delete").ints(d.key[:]...).exec()
	case "orphan-unique":
		return t.mendUnique(d)
	case "damaged-row":
		if d.raw == nil {
			return nil // see reseal
		}
		return t.mendUnique(d)
	case "orphan-lane":
		return nil // nothing tells whose it was
	case "wrong-size":
		return t.stmt("mend_bytes").ints(d.seq).exec()
	case "wrong-extra":
		return t.stmt("mend_extra").ints(d.seq).exec()
	case "wrong-place", "wrong-due", "wrong-lane", "held-by-nobody", "orphan-row", "missing-expiry", "missing-unique":
		return t.mendTask(d.seq)
	case "wrong-plan-news", "wrong-plan-place", "orphan-plan-row":
		return t.mendPlan(d)
	case "damaged-task":
		r, err := t.load(d.seq)
		if err != nil || r == nil || r.standing.ended() {
			return err
		}
		return t.move(r, discarded, driver.ReasonUndecodable)
	}
	return t.mendPart(d)
}

// mendPart does what can be done about a part that does not match its checksum. What is known of an end stays, and stays
// marked: nothing tells what was right.
func (t *tx) mendPart(d *defect) error {
	r, err := t.load(d.seq)
	if err != nil || r == nil {
		return err
	}
	switch driver.Part(strings.TrimPrefix(d.Kind, "damaged-")) {
	case driver.PartAttempts: // better a count that may be wrong than a task that is lost
		if r.standing == active || r.standing.ended() {
			return nil
		}
		return t.saveMeta(r)
	case driver.PartClaim:
		if r.standing != active {
			return nil
		}
		return t.release(r)
	case driver.PartReport:
		return t.stmt("report_delete").ints(d.seq).exec()
	}
	return nil // a counter
}

// mendReady removes an entry of ready, unless a task has come to that place since.
func (t *tx) mendReady(d *defect) error {
	seq, err := t.stmt("ready_at").ints(d.key[:]...).one()
	if err != nil {
		return err
	}
	r, err := t.load(seq)
	if err != nil {
		return err
	}
	if r != nil && r.standing == available && r.lane.no == d.key[0] && r.prio == d.key[1] && r.ord == d.key[2] {
		return nil
	}
	return t.stmt("ready_delete").ints(d.key[:]...).exec()
}

func (t *tx) mendUnique(d *defect) error {
	r, err := t.load(d.seq)
	if err != nil {
		return err
	}
	if r != nil && !r.standing.ended() {
		if u := r.task().Unique; u != nil && u.Key == string(d.raw) && r.uniq == string(u.Until) {
			return nil
		}
	}
	if err := t.stmt("uniq_free").ints(d.seq).blob(d.raw).exec(); err != nil || r == nil || r.standing.ended() {
		return err
	}
	u := r.task().Unique
	if u == nil || u.Until != driver.UntilDone || r.uniq != string(u.Until) {
		return nil
	}
	if o, err := t.owner(u.Key); err != nil || o != nil {
		return err
	}
	return t.takeKey(r.task(), r.packed, r.seq, r.enqueuedAt)
}

// mendTask puts a task into the one place that it should be in, and out of all others. That it has ended weighs most,
// then that it is held.
func (t *tx) mendTask(seq int64) error {
	r, err := t.load(seq)
	if err != nil {
		return err
	}
	keep, err := t.keepOf(seq, r)
	if err != nil {
		return err
	}
	leave := []string{"queued_delete", "due_delete", "pending_delete"}
	if !keep || r.standing != active {
		leave = append(leave, "held_delete")
	}
	if !keep || r.standing == active {
		leave = append(leave, "ended_delete")
	}
	for _, name := range leave {
		if err := t.stmt(name).ints(seq).exec(); err != nil {
			return err
		}
	}
	if r == nil {
		for _, name := range []string{"meta_delete", "report_delete"} {
			if err := t.stmt(name).ints(seq).exec(); err != nil {
				return err
			}
		}
		return nil
	}
	if err := t.stmt("ready_delete").ints(r.lane.no, r.prio, r.ord).exec(); err != nil {
		return err
	}
	return t.replace(r, keep)
}

// keepOf reports whether a task's row in held or ended is to stay.
func (t *tx) keepOf(seq int64, r *row) (bool, error) {
	if r == nil || r.standing != active {
		return r != nil && r.endOrd != 0, nil
	}
	w, err := t.workerByNo(r.worker)
	return w != nil && w.life != gone, err
}

// replace enters a task that is in none of ready, due and pending where it belongs.
func (t *tx) replace(r *row, keep bool) error {
	switch {
	case r.standing.ended() && keep:
		return t.stmt("mend_lane").ints(r.seq, r.lane.no).exec()
	case r.standing == active && keep:
		return t.stmt("mend_held").ints(r.seq, r.lane.no, r.prio).exec()
	case r.standing == active: // its worker is gone
		r.attempt--
		r.standing = available
	case r.standing.ended(): // only meta says so
		r.standing = available
	}
	if u := r.task().Unique; u != nil && u.Until == driver.UntilDone {
		o, err := t.owner(u.Key)
		if err != nil {
			return err
		}
		if o == nil {
			if err := t.takeKey(r.task(), r.packed, r.seq, r.enqueuedAt); err != nil {
				return err
			}
		}
	}
	if r.standing == available {
		if err := t.mendOrd(r); err != nil {
			return err
		}
		if err := t.stmt("expiry_delete").ints(r.lane.no, r.expires, r.seq).exec(); err != nil {
			return err
		}
	}
	return t.link(r)
}

// mendOrd gives a task a new place in line if another stands on its own.
func (t *tx) mendOrd(r *row) error {
	seq, err := t.stmt("ready_at").ints(r.lane.no, r.prio, r.ord).one()
	if err == nil && seq != 0 {
		r.ord = t.st.nextSeq
		t.st.nextSeq++
	}
	return err
}

// mendCounts corrects counters by how much they are off in a snapshot: what is done meanwhile changes the counters and
// what they count alike, so the difference stays true.
func (s *Store) mendCounts(ctx context.Context) error {
	var d *drift
	var used [5]int64
	var eventBytes int64
	err := s.read(ctx, func(c *conn) error {
		st, err := loadState(c)
		if err != nil {
			return err
		}
		_, err = c.stmt("audit_store").row(func(s *sqlite.Stmt) error {
			for i := range used {
				used[i] = s.ColumnInt64(i)
			}
			eventBytes = used[3] - st.eventBytes
			return nil
		})
		if err == nil {
			d, err = c.drift(st)
		}
		return err
	})
	if err != nil {
		return err
	}
	return s.write(ctx, func(t *tx) error {
		st := t.st
		st.nextSeq, st.nextToken = max(st.nextSeq, used[0]+1), max(st.nextToken, used[1]+1)
		st.nextEvent, st.nextWorker = max(st.nextEvent, used[2]), max(st.nextWorker, used[4]+1)
		st.eventBytes += eventBytes
		t.correct(d)
		return nil
	})
}

// correct changes counters by how much they were off.
func (t *tx) correct(d *drift) {
	for no, l := range t.st.lanes {
		for i, n := range d.lanes[no] {
			l.count[i] += n
		}
		l.expiring += d.expiring[no]
		l.flowing += d.flowing[no]
		l.parked += d.parked[no]
		t.touch(l)
	}
	for _, q := range t.st.queues {
		for i, n := range d.kept[q.no] {
			q.kept[i] += n
		}
		q.totals.Enqueued -= q.imbalance() // of all totals the one whose loss is least missed
		t.touchQueue(q)
	}
}
