package sqlitestore

import (
	"time"

	"github.com/waggleq/waggle/driver"
	"zombiezen.com/go/sqlite"
)

// eventsPerRow bounds the size of a row of the event log.
const eventsPerRow = 500

// tx is the transaction that the writer is in. Its changes to the writer's copy of the small tables are undone by
// loading that copy anew.
type tx struct {
	*conn
	s   *Store
	w   *writer
	st  *state
	now int64 // the store's clock, the same for the whole transaction

	lanes  []*lane // those to be saved
	queues []*queue
	events []driver.Event
	packed []byte

	// Tasks from freshFrom on are available but not in ready yet: they go there together, see settleFresh.
	freshFrom int64
	drops     []standingTask // the oldest available tasks of a queue, see oldest
	after     aftermath
}

// aftermath is what is to be told once a transaction has been committed.
type aftermath struct {
	work     map[*lane]int64 // tasks that became available
	sooner   []*lane         // a task is due sooner than all others there
	controls []string        // workers of tasks whose cancellation was asked for
	plans    int             // plans that have become due, or are to be looked at sooner than all others
	events   bool
	unnamed  bool // a queue or a lane has changed that no event names
	now      int64
}

// concerns reports whether other processes have to look.
func (a *aftermath) concerns() bool {
	return a.events || a.unnamed || a.plans > 0 || len(a.work)+len(a.sooner)+len(a.controls) > 0
}

// rouses reports whether idle workers of other processes have to look. That a task was claimed or has ended gives them
// nothing to do by itself.
func (a *aftermath) rouses() bool {
	return a.plans > 0 || len(a.work)+len(a.sooner)+len(a.controls) > 0
}

func (a *aftermath) wake(l *lane, n int64) {
	if l.queue.config.Paused {
		return
	}
	if a.work == nil {
		a.work = make(map[*lane]int64)
	}
	a.work[l] += n
}

func (t *tx) time() time.Time { return timeOf(t.now) }

// count moves n tasks of a lane from one standing to another.
func (t *tx) count(l *lane, from, to standing, n int64) {
	if from != none {
		l.count[from] -= n
	}
	if to != none {
		l.count[to] += n
	}
	t.touch(l)
	if to == available {
		t.after.wake(l, n)
	}
	if to.ended() && from != to {
		t.touchQueue(l.queue)
		switch to {
		case completed:
			l.queue.totals.Completed += n
		case cancelled:
			l.queue.totals.Cancelled += n
		case discarded:
			l.queue.totals.Discarded += n
		}
	}
}

// event notes that something happened to a task.
func (t *tx) event(kind driver.EventKind, l *lane, id, worker string) {
	t.events = append(t.events, driver.Event{Time: t.time(), Kind: kind, ID: id, Queue: l.queue.name, Type: l.typ, Worker: worker})
}

// moveEvent notes that a task has come to its state, and why if it ended for a reason.
func (t *tx) moveEvent(r *row) {
	t.stateEvent(r.standing, r.lane, r.id, "")
	t.events[len(t.events)-1].Reason = driver.Reason(r.reason)
}

func (t *tx) stateEvent(s standing, l *lane, id, worker string) {
	t.event(driver.EventKind(s.state()), l, id, worker)
}

// settleFresh puts the tasks that were enqueued in this transaction into their lanes, in one statement.
func (t *tx) settleFresh() error {
	if t.freshFrom == 0 {
		return nil
	}
	from := t.freshFrom
	t.freshFrom = 0
	return t.stmt("ready_fresh").ints(from).exec()
}

// finish writes what was gathered for the end of the transaction.
func (t *tx) finish() error {
	if err := t.settleFresh(); err != nil {
		return err
	}
	if t.unnamed() {
		t.st.changes++ // see catchUp
		t.after.unnamed = true
	}
	if err := t.logEvents(); err != nil {
		return err
	}
	return t.save()
}

func (t *tx) logEvents() error {
	t.after.events = len(t.events) > 0
	for len(t.events) > 0 {
		n := min(len(t.events), eventsPerRow)
		t.packed = driver.AppendEvents(t.packed[:0], t.events[:n])
		if err := t.sealed("event_insert").ints(t.st.nextEvent, int64(n)).blob(t.packed).seal(false).exec(); err != nil {
			return err
		}
		t.st.nextEvent += int64(n)
		t.st.eventBytes += int64(len(t.packed))
		t.events = t.events[n:]
	}
	for t.st.eventBytes > t.s.opts.MaxEventBytes {
		var no, size int64
		found, err := t.stmt("event_oldest").row(func(s *sqlite.Stmt) error {
			no, size = s.ColumnInt64(0), s.ColumnInt64(1)
			return nil
		})
		if err != nil {
			return err
		}
		if !found {
			t.st.eventBytes = 0
			return nil
		}
		if err := t.stmt("event_delete").ints(no).exec(); err != nil {
			return err
		}
		t.st.eventBytes -= size
	}
	return nil
}
