package sqlitestore

import (
	"cmp"
	"time"

	"github.com/waggleq/waggle/driver"
)

// move changes a task's state with all that hangs on it: its place, totals, unique key, event, wake-up. Reason is for
// ends as discarded or cancelled.
func (t *tx) move(r *row, to standing, reason driver.Reason) error {
	if err := t.unlink(r); err != nil {
		return err
	}
	from := r.standing
	if from == active {
		t.freed(r.lane.queue)
	}
	r.standing, r.reason, r.cancel = to, string(reason), 0
	if to.ended() {
		r.endedAt = t.now
		if err := t.freeKey(r, driver.UntilDone, driver.UntilStarted); err != nil {
			return err
		}
	}
	if err := t.link(r); err != nil {
		return err
	}
	t.count(r.lane, from, to, 1)
	if err := t.rekey(r, from); err != nil {
		return err
	}
	t.moveEvent(r)
	if to.ended() {
		return t.tellEnd(r, to)
	}
	return nil
}

// rekey does for a task's key what hangs on a change of its state.
func (t *tx) rekey(r *row, from standing) error {
	q := r.lane.queue
	name := r.task().Key
	if !q.flows(name) || r.standing != available && from != available && !q.counts() {
		return nil
	}
	k, err := t.key(q, name)
	if err != nil {
		return err
	}
	if from == active && r.standing == available {
		k.tag = driver.TagReturned(k.tag, q.share.virtual)
	}
	t.regate(k)
	return nil
}

// unlink takes a task out of the place that its state has given it.
func (t *tx) unlink(r *row) error {
	delete(t.w.held, r.id)
	if err := t.hold(r, -1); err != nil {
		return err
	}
	switch r.standing {
	case available:
		if found, err := t.unqueue(r.lane, r.seq); found || err != nil {
			return cmp.Or(err, t.unlinkExpiry(r))
		}
		if err := t.stmt("ready_delete").ints(r.lane.no, r.prio, r.ord).exec(); err != nil {
			return err
		}
		return t.unlinkExpiry(r)
	case scheduled, retryable:
		return t.stmt("due_delete").ints(r.seq).exec()
	case pending:
		return t.stmt("pending_delete").ints(r.seq).exec()
	case active:
		return t.stmt("held_delete").ints(r.seq).exec()
	default:
		r.lane.queue.kept[r.standing-completed] -= r.kept
		t.touchQueue(r.lane.queue)
		return t.stmt("ended_delete").ints(r.seq).exec()
	}
}

func (t *tx) unlinkExpiry(r *row) error {
	if r.expires == 0 {
		return nil
	}
	r.lane.expiring--
	t.touch(r.lane)
	return t.stmt("expiry_delete").ints(r.lane.no, r.expires, r.seq).exec()
}

// link puts a task where its state belongs, and saves what has changed of it.
func (t *tx) link(r *row) error {
	if r.standing.ended() {
		return t.linkEnded(r)
	}
	if err := t.saveMeta(r); err != nil {
		return err
	}
	if err := t.hold(r, 1); err != nil {
		return err
	}
	switch name := r.task().Key; r.standing {
	case available:
		if r.lane.queue.flows(name) {
			if _, err := t.push(r.lane, name, r.seq, r.prio, r.expires, r.ord); err != nil {
				return err
			}
			return t.linkExpiry(r.lane, r.expires, r.seq)
		}
		if err := t.stmt("ready_insert").ints(r.lane.no, r.prio, r.ord, r.seq).exec(); err != nil {
			return err
		}
		return t.linkExpiry(r.lane, r.expires, r.seq)
	case pending:
		return t.stmt("pending_insert").ints(r.seq, r.lane.no).exec()
	default:
		return t.linkDue(r.lane, r.due, r.seq)
	}
}

func (t *tx) linkExpiry(l *lane, expires, seq int64) error {
	if expires == 0 {
		return nil
	}
	l.expiring++
	t.touch(l)
	return t.stmt("expiry_insert").ints(l.no, expires, seq).exec()
}

// linkDue puts a task among those that wait for their time. If it is due before all others of its lane a worker has to
// hear of it, who would sleep too long otherwise.
func (t *tx) linkDue(l *lane, due, seq int64) error {
	first, err := t.stmt("due_first").ints(l.no).one()
	if err != nil {
		return err
	}
	if first == 0 || due < first {
		t.after.sooner = append(t.after.sooner, l)
	}
	return t.stmt("due_insert").ints(seq, l.no, due).exec()
}

func (t *tx) linkEnded(r *row) error {
	if r.hasMeta || r.history != "" || r.crashes > 0 {
		if err := t.saveMeta(r); err != nil {
			return err
		}
	}
	q := r.lane.queue
	r.kept = r.size + int64(len(r.result))
	q.kept[r.standing-completed] += r.kept
	t.touchQueue(q)
	r.endOrd = t.st.nextSeq
	t.st.nextSeq++
	st := t.stmt("ended_insert").ints(r.seq, q.no, r.lane.no, r.endOrd, r.endedAt, r.kept, r.token, flag(r.settled), r.worker, r.claimedAt, r.attempt, 1)
	if r.hasStarted {
		st.ints(r.started)
	} else {
		st.null()
	}
	st.text(string(r.standing.state())).optText(r.reason).optText(r.encoding)
	if len(r.result) > 0 {
		st.blob(r.result)
	} else {
		st.null()
	}
	started := int64(null)
	if r.hasStarted {
		started = r.started
	}
	return st.ints(endedSum(r, q.no, r.lane.no, 1, started)).exec()
}

func (t *tx) saveMeta(r *row) error {
	r.hasMeta = true
	return t.stmt("meta_save").ints(r.seq, r.due, r.ord, r.attempt, r.crashes, r.token, flag(r.settled), r.worker, r.claimedAt).
		text(string(r.standing.state())).optText(r.history).ints(metaSum(r)).exec()
}

func flag(on bool) int64 {
	if on {
		return 1
	}
	return 0
}

// enter makes a task available at the end of the line.
func (t *tx) enter(r *row) error {
	if r.ord = r.seq; !r.lane.queue.config.Keys.Ordered() || r.task().Key == "" {
		r.ord = t.st.nextSeq
		t.st.nextSeq++
	}
	return t.move(r, available, "")
}

// wait makes a task scheduled or retryable, due after a delay.
func (t *tx) wait(r *row, to standing, delay time.Duration) error {
	r.due = t.now + int64((delay+time.Millisecond-1)/time.Millisecond) // rounded up: never early
	return t.move(r, to, "")
}

// expire records that a task has expired.
func (t *tx) expire(r *row) error {
	if r.standing != available {
		if err := t.enter(r); err != nil {
			return err
		}
	}
	return t.move(r, discarded, driver.ReasonExpired)
}

// crash takes a task from a worker that died.
func (t *tx) crash(r *row, w *worker) error {
	r.crashes++
	r.note(w, driver.Attempt{Outcome: driver.Crash, Started: timeOf(r.claimedAt), Ended: t.time(),
		Reason: driver.CrashReason(int(r.crashes), r.task().CrashLimit, r.cancel > 0)})
	r.attempt--
	r.lane.queue.totals.Crashed++
	t.touchQueue(r.lane.queue)
	switch {
	case r.cancel > 0:
		return t.move(r, cancelled, driver.ReasonRequested)
	case r.crashes >= int64(r.task().CrashLimit):
		return t.move(r, discarded, driver.ReasonCrashes)
	}
	return t.move(r, available, "") // at its old place
}

// release gives a task back that its worker did not want to run to an end.
func (t *tx) release(r *row) error {
	r.attempt--
	if r.cancel > 0 {
		return t.move(r, cancelled, driver.ReasonRequested)
	}
	return t.move(r, available, "") // at its old place
}

// drop removes a task from the store.
func (t *tx) drop(r *row) error {
	if err := t.unlink(r); err != nil {
		return err
	}
	if err := t.freeKey(r, driver.UntilDone, driver.UntilStarted); err != nil {
		return err
	}
	if !r.standing.ended() {
		if err := t.regateNamed(r.lane.queue, r.task().Key); err != nil {
			return err
		}
	}
	t.count(r.lane, r.standing, none, 1)
	for _, name := range []string{"task_delete", "meta_delete", "report_delete"} {
		if err := t.stmt(name).ints(r.seq).exec(); err != nil {
			return err
		}
	}
	return nil
}
