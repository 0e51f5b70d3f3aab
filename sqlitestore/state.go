package sqlitestore

import (
	"cmp"
	"encoding/json"
	"slices"
	"time"

	"github.com/waggleq/waggle/driver"
	"zombiezen.com/go/sqlite"
)

// standing is the index of a state in driver.States; a lane's counts are kept in that order.
type standing int

const (
	scheduled standing = iota
	pending
	available
	active
	retryable
	completed
	cancelled
	discarded
	none standing = -1 // not in the store
)

func (s standing) ended() bool { return s >= completed }

// state is the state's name, "" for one that is damaged.
func (s standing) state() driver.State {
	if s < 0 {
		return ""
	}
	return driver.States[s]
}

func standingOf(state string) standing {
	return standing(slices.Index(driver.States, driver.State(state)))
}

// queue is what the writer knows of a queue.
type queue struct {
	no      int64
	name    string
	config  driver.QueueConfig
	kept    [3]int64 // bytes of the ended tasks: completed, cancelled, discarded
	totals  driver.Totals
	lanes   map[string]*lane // by type
	dirty   bool
	gone    bool // deleted: it shows again when there is something to show
	share   share
	text    string   // of config, as it is stored; empty: the defaults
	damaged error    // what is stored of it can't be relied on: nothing new is begun in it
	fetched int64    // token of the last Fetch that served it
	oldest  [3]int64 // when the oldest of its ended tasks ended, or before; 0: to be looked up
}

// goneConfig stands for the configuration of a queue that was deleted. Its row and its lanes stay, since their numbers
// are known to other processes. Earlier versions read the default configuration from it.
const goneConfig = `{"gone":true}`

// hidden reports whether the queue was deleted and nothing has come into it since.
func (q *queue) hidden() bool { return q.gone && q.totals == driver.Totals{} }

// ended counts its tasks in an ended state.
func (q *queue) ended(s standing) (n int64) {
	for _, l := range q.lanes {
		n += l.count[s]
	}
	return n
}

// lane is what the writer knows of a queue and type.
type lane struct {
	no       int64
	queue    *queue
	typ      string
	count    [8]int64 // by standing
	expiring int64
	flowing  int64 // available tasks in flows
	parked   int64 // of these, in flows that are parked
	dirty    bool
	damaged  bool
}

// state is the writer's copy of the small tables. It is valid as long as no other process has written; only the
// writer's goroutine uses it.
type state struct {
	incarnation                            string
	nextSeq, nextToken                     int64
	nextEvent, eventBytes                  int64
	nextWorker                             int64
	changes                                int64 // see catchUp
	sumsFrom                               int64
	strays                                 map[int64]*lane // damaged: of no queue that is known
	firstPlan                              int64           // when the first plan was to be thought of when this was loaded
	queues                                 map[string]*queue
	lanes                                  map[int64]*lane
	workers                                map[string]*worker // those that were asked for
	nextKey                                int64              // 0: to be looked up
	touched                                []*key             // to be stored
	savedSeq, savedToken, savedEvent       int64
	savedEventBytes, savedWorker, queueNos int64
	savedChanges                           int64
}

// loadState reads the small tables.
func loadState(c *conn) (*state, error) {
	st := &state{queues: make(map[string]*queue), lanes: make(map[int64]*lane), workers: make(map[string]*worker)}
	head := st.loadHead(c)
	if head != nil && !isDamage(head) {
		return nil, head
	}
	byNo := make(map[int64]*queue)
	err := c.stmt("queue_load").rows(func(s *sqlite.Stmt) error {
		q := scanQueue(s)
		st.queues[q.name], byNo[q.no] = q, q
		st.queueNos = max(st.queueNos, q.no)
		return nil
	})
	if err != nil {
		return nil, err
	}
	err = c.stmt("share_load").rows(func(s *sqlite.Stmt) error {
		if q := byNo[s.ColumnInt64(0)]; q != nil {
			q.scanShare(s)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	err = c.stmt("lane_load").rows(func(s *sqlite.Stmt) error {
		l := scanLane(s)
		if q := byNo[s.ColumnInt64(1)]; q != nil {
			l.of(q)
			st.lanes[l.no] = l
		} else {
			st.stray(l)
		}
		return nil
	})
	return st, cmp.Or(err, head)
}

// stray takes in a lane whose queue is not known.
func (st *state) stray(l *lane) {
	if st.strays == nil {
		st.strays = make(map[int64]*lane)
	}
	l.damaged = true
	l.of(&queue{no: -1, lanes: make(map[string]*lane)})
	st.strays[l.no] = l
}

// of enters a lane into its queue, which is damaged if the lane is.
func (l *lane) of(q *queue) {
	l.queue, q.lanes[l.typ] = q, l
	if l.damaged && q.damaged == nil {
		q.damaged = damagedf("queue %q (what is counted of type %q)", q.name, l.typ)
	}
}

// loadHead reads the row of table store.
func (st *state) loadHead(c *conn) error {
	sound := true
	found, err := c.stmt("store_load").row(func(s *sqlite.Stmt) error {
		sound = intact(s, 0, storeColumns)
		st.incarnation = s.ColumnText(1)
		st.nextSeq, st.nextToken, st.nextEvent = s.ColumnInt64(2), s.ColumnInt64(3), s.ColumnInt64(4)
		st.eventBytes, st.nextWorker, st.sumsFrom, st.changes = s.ColumnInt64(5), s.ColumnInt64(6), s.ColumnInt64(7), s.ColumnInt64(8)
		return nil
	})
	if err == nil && !sound {
		err = damagedf("the row that counts what was given out")
	}
	if err == nil && !found {
		err = corruptf("the row of table store is missing")
	}
	st.saved()
	if err == nil || isDamage(err) {
		var failed error
		st.firstPlan, failed = c.stmt("plan_first").one()
		err = cmp.Or(failed, err)
	}
	return err
}

// adopt takes over what loadHead has read into another.
func (st *state) adopt(head *state) {
	st.nextSeq, st.nextToken, st.nextEvent = head.nextSeq, head.nextToken, head.nextEvent
	st.eventBytes, st.nextWorker, st.changes, st.firstPlan = head.eventBytes, head.nextWorker, head.changes, head.firstPlan
	st.saved()
}

func (st *state) saved() {
	st.savedSeq, st.savedToken, st.savedEvent = st.nextSeq, st.nextToken, st.nextEvent
	st.savedEventBytes, st.savedWorker, st.savedChanges = st.eventBytes, st.nextWorker, st.changes
}

func (st *state) unsaved() bool {
	return st.savedSeq != st.nextSeq || st.savedToken != st.nextToken || st.savedEvent != st.nextEvent ||
		st.savedEventBytes != st.eventBytes || st.savedWorker != st.nextWorker || st.savedChanges != st.changes
}

func scanQueue(s *sqlite.Stmt) *queue {
	q := &queue{no: s.ColumnInt64(0), name: s.ColumnText(1), text: s.ColumnText(2), lanes: make(map[string]*lane)}
	q.config.Retention = driver.DefaultRetention()
	var err error
	if q.gone = q.text == goneConfig; !q.gone && q.text != "" {
		err = json.Unmarshal([]byte(q.text), &q.config)
	}
	if err != nil || !intact(s, 0, queueColumns) {
		q.damaged = damagedf("queue %q", q.name)
	}
	for i := range q.kept {
		q.kept[i] = s.ColumnInt64(3 + i)
	}
	t := &q.totals
	for i, v := range []*int64{&t.Enqueued, &t.Retried, &t.Completed, &t.Cancelled, &t.Discarded, &t.Failed, &t.Crashed, &t.DeletedLive} {
		*v = s.ColumnInt64(6 + i)
	}
	return q
}

func (q *queue) scanShare(s *sqlite.Stmt) {
	q.share.virtual, q.share.plain = s.ColumnInt64(1), s.ColumnInt64(2)
	err := json.Unmarshal([]byte(s.ColumnText(3)), &q.share.arrivals)
	if q.share.damaged = err != nil || !intact(s, 0, shareColumns); q.share.damaged && q.damaged == nil {
		q.damaged = damagedf("queue %q (how it is shared out)", q.name)
	}
}

func scanLane(s *sqlite.Stmt) *lane {
	l := &lane{no: s.ColumnInt64(0), typ: s.ColumnText(2), damaged: !intact(s, 0, laneColumns)}
	for i := range l.count {
		l.count[i] = s.ColumnInt64(3 + i)
	}
	l.expiring, l.flowing, l.parked = s.ColumnInt64(11), s.ColumnInt64(12), s.ColumnInt64(13)
	return l
}

// queue returns the named queue, made if needed.
func (t *tx) queue(name string) (*queue, error) {
	if q := t.st.queues[name]; q != nil {
		return q, q.damaged
	}
	q := &queue{no: t.st.queueNos + 1, name: name, lanes: make(map[string]*lane)}
	q.config.Retention = driver.DefaultRetention()
	t.touchQueue(q)
	if err := t.stmt("queue_insert").ints(q.no).text(name).exec(); err != nil {
		return nil, err
	}
	t.st.queueNos++
	t.st.queues[name] = q
	return q, nil
}

// lane returns a queue's lane for a type, made if needed.
func (t *tx) lane(queueName, typ string) (*lane, error) {
	q, err := t.queue(queueName)
	if err != nil {
		return nil, err
	}
	if l := q.lanes[typ]; l != nil {
		return l, nil
	}
	l := &lane{no: t.st.nextLane(), queue: q, typ: typ}
	t.touch(l)
	if err := t.stmt("lane_insert").ints(l.no, q.no).text(typ).exec(); err != nil {
		return nil, err
	}
	q.lanes[typ], t.st.lanes[l.no] = l, l
	return l, nil
}

// nextLane is the number of the next new lane.
func (st *state) nextLane() int64 {
	no := int64(len(st.lanes)+len(st.strays)) + 1
	for st.lanes[no] != nil || st.strays[no] != nil {
		no++ // only among damaged ones
	}
	return no
}

// laneNo returns the lane of a stored row. Where its own row can't be read, its tasks can still be ended.
func (t *tx) laneNo(no int64) *lane {
	if l := t.st.lanes[no]; l != nil {
		return l
	}
	if t.st.strays[no] == nil {
		t.st.stray(&lane{no: no})
	}
	return t.st.strays[no]
}

// touch notes that a lane is to be saved; touchQueue the same of a queue, touchShare of how it is shared out.
func (t *tx) touch(l *lane) {
	if !l.dirty {
		l.dirty = true
		t.lanes = append(t.lanes, l)
	}
}

func (t *tx) touchQueue(q *queue) {
	if !q.dirty {
		q.dirty = true
		t.queues = append(t.queues, q)
	}
}

func (t *tx) touchShare(q *queue) {
	q.share.dirty = true
	t.touchQueue(q)
}

// save writes back what has changed of the small tables.
func (t *tx) save() error {
	if err := t.finishKeys(); err != nil {
		return err
	}
	for _, l := range t.lanes {
		l.dirty = false
		q := t.sealed("lane_save").ints(l.no, l.queue.no).text(l.typ).ints(l.count[:]...).ints(l.expiring, l.flowing, l.parked)
		if err := q.seal(l.damaged).exec(); err != nil {
			return err
		}
	}
	for _, q := range t.queues {
		q.dirty = false
		n := &q.totals
		err := t.sealed("queue_save").ints(q.no).text(q.name).optText(q.text).ints(q.kept[:]...).
			ints(n.Enqueued, n.Retried, n.Completed, n.Cancelled, n.Discarded, n.Failed, n.Crashed, n.DeletedLive).seal(q.damaged != nil).exec()
		if err != nil {
			return err
		}
	}
	clear(t.lanes)
	clear(t.queues)
	t.lanes, t.queues = t.lanes[:0], t.queues[:0]
	if !t.st.unsaved() {
		return nil
	}
	st := t.st
	st.saved()
	return t.sealed("store_save").ints(1).text(st.incarnation).ints(st.nextSeq, st.nextToken, st.nextEvent, st.eventBytes, st.nextWorker, st.sumsFrom, st.changes).
		seal(false).exec()
}

func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

// The first and the last millisecond of the years that JSON can tell.
const firstMillis, lastMillis = -62135596800000, 253402300799999

// timeOf is the reverse of millis. A time that no store writes is none: only damage brings it about.
func timeOf(ms int64) time.Time {
	if ms == 0 || ms < firstMillis || ms > lastMillis {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

// corruptf returns an error for something in the database that can't be. It is a failure: what was done in the
// transaction is rolled back.
func corruptf(format string, args ...any) error {
	return &failure{code: sqlite.ResultCorrupt, err: driver.Errorf(driver.ErrCorrupt, format, args...)}
}
