package sqlitestore

import (
	"cmp"
	"math"
	"slices"
	"strconv"

	"github.com/waggleq/waggle/driver"
	"zombiezen.com/go/sqlite"
)

// share is how a queue is shared out; see driver.TagServed and driver.Arrival. It is stored once it was used.
type share struct {
	virtual, plain int64
	arrivals       arrivals
	dirty          bool
	damaged        bool
	keys           map[string]*key // those that were asked for
	sweep          sweep
}

// sweep is how far it was looked which keys of a queue are at rest.
type sweep struct {
	to      int64 // the number of the key up to which this pass has come; 0: none is under way
	virtual int64 // the queue's virtual time when the last pass began
	began   int64 // when that was
	started int64 // tasks of keys since the last part: that many keys may have come and gone
	since   int64 // tasks of keys since this pass began
	rows    int64 // at which it has looked
	resting int64 // keys that it found without tasks and ahead of the virtual time
}

// due reports whether a new pass could find a key that the last one has not: one comes to rest when the virtual time reaches its
// tag, or when its rates are as if nothing had started. A key that comes to rest as its row is written is forgotten then. With
// a new key for each task the virtual time stands still: a pass comes once as many tasks have started as the last one saw rows.
func (w *sweep) due(q *queue, now int64) bool {
	rest := now - w.began
	return w.began == 0 || q.share.virtual != w.virtual || rest >= sweepEvery && q.config.RatesKeys() || rest >= sweepAnyway ||
		w.since > max(driver.KeysResting, w.rows)
}

// arrivals are the states of rate limits, by driver.Limit.RateKey.
type arrivals map[string]driver.Arrival

// until is when the rates are as if nothing had started, 0 if they are.
func (a arrivals) until() (ms int64) {
	for _, v := range a {
		ms = max(ms, driver.ArrivalEpoch+int64(v)+1)
	}
	return ms
}

// key is what the writer knows of a key in a queue.
type key struct {
	no       int64
	name     string
	queue    *queue
	tag      int64
	waiting  int64           // scheduled and retryable tasks that were claimed before
	held     map[int64]int64 // active tasks by lane
	arrivals arrivals
	flows    []*flow
	dirty    bool
	stored   bool // it has a row
	damaged  bool // what is stored of it or its flows can't be relied on: nothing of it is given out
}

// flow is the available tasks of a key that have one lane and priority.
type flow struct {
	key         *key
	lane        *lane
	prio, n     int64
	rank, ord   int64 // of its first task
	parked      bool
	opens       int64 // when a rate lets it start, if nothing but rates keeps it; else 0
	stored      bool  // it has a row
	savedParked int64 // of its tasks, counted in the lane's parked
}

func (k *key) active() (n int64) {
	for _, v := range k.held {
		n += v
	}
	return n
}

func (k *key) queued() (n int64) {
	for _, f := range k.flows {
		n += f.n
	}
	return n
}

// counts reports whether it is counted what is active and what waits of each key. Only limits of keys and their order ask for it;
// without them the end of a task changes nothing of its key, and writes nothing. See recountKeys.
func (q *queue) counts() bool {
	return q.config.Keys.Ordered() || slices.ContainsFunc(q.config.Limits, func(l driver.Limit) bool { return l.PerKey })
}

// noDeadline is the rank of a task that does not expire, in a queue that goes by deadlines.
const noDeadline = 1<<53 - 1

// flows reports whether a task waits in a flow: it has a key, or the queue goes by deadlines.
func (q *queue) flows(key string) bool { return key != "" || q.config.Order == driver.OrderDeadline }

// flowing counts the tasks that wait in flows.
func (q *queue) flowing() (n int64) {
	for _, l := range q.lanes {
		n += l.flowing
	}
	return n
}

func (q *queue) rank(expires int64) int64 {
	switch {
	case q.config.Order != driver.OrderDeadline:
		return 0
	case expires == 0:
		return noDeadline
	}
	return expires
}

// touchKey notes that a key is to be stored.
func (t *tx) touchKey(k *key) {
	t.touchQueue(k.queue)
	if !k.dirty {
		k.dirty = true
		t.st.touched = append(t.st.touched, k)
	}
}

// saveKeys stores the keys that have changed, so that statements see them.
func (t *tx) saveKeys() error {
	for _, k := range t.st.touched {
		k.dirty = false
		left := k.flows[:0]
		for _, f := range k.flows {
			if f.n > 0 {
				left = append(left, f)
			}
			if err := t.saveFlow(f); err != nil {
				return err
			}
		}
		clear(k.flows[len(left):])
		k.flows = left
		if err := t.saveKey(k); err != nil {
			return err
		}
	}
	t.st.touched = t.st.touched[:0]
	return nil
}

func (t *tx) saveFlow(f *flow) error {
	if f.n == 0 {
		if !f.stored {
			return nil
		}
		return t.stmt("flow_delete").ints(f.key.no, f.lane.no, f.prio).exec()
	}
	name := "flow_save"
	if !f.stored {
		name, f.stored = "flow_insert", true
	}
	tag := f.key.tag
	if f.key.queue.config.Order == driver.OrderDeadline {
		tag = f.rank
	}
	return t.sealed(name).ints(f.key.no, f.lane.no, f.prio, f.n, tag, f.rank, f.ord, flag(f.parked)).optInt(f.opens).seal(f.key.damaged).exec()
}

func (t *tx) saveKey(k *key) error {
	if k.atRest(t.now) {
		delete(k.queue.share.keys, k.name)
		if !k.stored {
			return nil
		}
		return t.stmt("key_delete").ints(k.no).exec()
	}
	queued, active, until := k.queued(), k.active(), k.arrivals.until()
	name := "key_save"
	if !k.stored {
		name, k.stored = "key_insert", true
	}
	return t.sealed(name).ints(k.no, k.queue.no).text(k.name).ints(k.tag, k.waiting, active, queued, until).
		text(encodeHeld(k.held)).text(k.arrivals.encode()).seal(k.damaged).exec()
}

// atRest reports whether the key is as good as one that was never seen.
func (k *key) atRest(now int64) bool {
	return !k.damaged && k.queued() == 0 && k.active() == 0 && k.waiting == 0 && k.tag <= k.queue.share.virtual && k.arrivals.until() < now
}

// encodeHeld is encodeJSON for what nearly every key has: nothing, or tasks of one lane.
func encodeHeld(held map[int64]int64) string {
	if len(held) == 1 {
		for lane, n := range held {
			return `{"` + strconv.FormatInt(lane, 10) + `":` + strconv.FormatInt(n, 10) + "}"
		}
	}
	if len(held) == 0 {
		return "{}"
	}
	return encodeJSON(held)
}

func (a arrivals) encode() string {
	if len(a) == 0 {
		return "{}"
	}
	return encodeJSON(a)
}

// maxKeysKept is how many keys of a queue the writer keeps in memory between transactions.
const maxKeysKept = 50_000

// finishKeys stores what is left to store at the end of a transaction.
func (t *tx) finishKeys() error {
	if err := t.saveKeys(); err != nil {
		return err
	}
	for _, q := range t.queues {
		if len(q.share.keys) > maxKeysKept {
			q.share.keys = nil
		}
		if !q.share.dirty {
			continue
		}
		q.share.dirty = false
		if err := t.sealed("share_save").ints(q.no, q.share.virtual, q.share.plain).text(q.share.arrivals.encode()).seal(q.share.damaged).exec(); err != nil {
			return err
		}
	}
	return nil
}

// push puts an available task into its flow. Regate has to follow.
func (t *tx) push(l *lane, name string, seq, prio, expires, ord int64) (*key, error) {
	q := l.queue
	k, err := t.key(q, name)
	if err != nil {
		return nil, err
	}
	if k.queued() == 0 {
		k.tag = driver.TagArrived(k.tag, q.share.virtual)
	}
	rank := q.rank(expires)
	i := slices.IndexFunc(k.flows, func(f *flow) bool { return f.lane == l && f.prio == prio })
	if i < 0 {
		i = len(k.flows)
		k.flows = append(k.flows, &flow{key: k, lane: l, prio: prio, parked: true})
	}
	f := k.flows[i]
	if f.n == 0 || rank < f.rank || rank == f.rank && ord < f.ord {
		f.rank, f.ord = rank, ord
	}
	f.n++
	l.flowing++
	t.touch(l)
	t.touchKey(k)
	return k, t.stmt("queued_insert").ints(seq, l.no, prio, k.no, rank, ord).exec()
}

// pop takes a task out of its flow. Regate has to follow.
func (t *tx) pop(f *flow, seq int64) error {
	if err := t.stmt("queued_delete").ints(seq).exec(); err != nil {
		return err
	}
	f.n--
	f.lane.flowing--
	t.touch(f.lane)
	t.touchKey(f.key)
	if f.n == 0 {
		return nil
	}
	_, err := t.stmt("queued_head").ints(f.lane.no, f.prio, f.key.no).row(func(s *sqlite.Stmt) error {
		f.rank, f.ord = s.ColumnInt64(0), s.ColumnInt64(1)
		return nil
	})
	return err
}

// unqueue takes a task out of its flow, if it waits in one; found says so.
func (t *tx) unqueue(l *lane, seq int64) (found bool, err error) {
	if l.flowing == 0 {
		return false, nil
	}
	var prio, no int64
	found, err = t.stmt("queued_get").ints(seq).row(func(s *sqlite.Stmt) error {
		prio, no = s.ColumnInt64(0), s.ColumnInt64(1)
		return nil
	})
	if err != nil || !found {
		return false, err
	}
	k, err := t.keyNo(l.queue, no)
	if err != nil {
		return false, err
	}
	for _, f := range k.flows {
		if f.lane == l && f.prio == prio {
			return true, t.pop(f, seq)
		}
	}
	return false, corruptf("task %d waits in a flow that does not exist", seq)
}

// keyNo returns the key with a number.
func (t *tx) keyNo(q *queue, no int64) (*key, error) {
	for _, k := range t.st.touched {
		if k.no == no {
			return k, nil
		}
	}
	name, found := "", false
	found, err := t.stmt("key_name").ints(no).row(func(s *sqlite.Stmt) error {
		name = s.ColumnText(1)
		return nil
	})
	if err != nil {
		return nil, err
	}
	if !found {
		return nil, corruptf("key %d does not exist, but tasks have it", no)
	}
	return t.key(q, name)
}

// hold counts a task for its key while it is active, or waits after it was claimed.
func (t *tx) hold(r *row, n int64) error {
	waits := (r.standing == scheduled || r.standing == retryable) && r.token > 0
	if r.standing != active && !waits {
		return nil
	}
	name := r.task().Key
	if name == "" || !r.lane.queue.counts() {
		return nil
	}
	k, err := t.key(r.lane.queue, name)
	if err != nil {
		return err
	}
	if waits {
		k.waiting += n
	} else {
		k.count(r.lane, n)
	}
	t.touchKey(k)
	return nil
}

// count counts active tasks of a lane.
func (k *key) count(l *lane, n int64) {
	if k.held[l.no] += n; k.held[l.no] == 0 {
		delete(k.held, l.no)
	}
}

// regate opens or parks the flows of a key, after anything has changed for it, and wakes workers for what may start now.
func (t *tx) regate(k *key) {
	for _, f := range k.flows {
		was := f.parked
		f.parked, f.opens = f.blocked(t.now)
		parked := int64(0)
		if f.parked {
			parked = f.n
		}
		if parked != f.savedParked {
			f.lane.parked += parked - f.savedParked
			f.savedParked = parked
			t.touch(f.lane)
		}
		if was && !f.parked && f.n > 0 {
			t.after.wake(f.lane, 1)
		}
	}
	t.touchKey(k)
}

// regateNamed is regate for the key of a task; none is no key.
func (t *tx) regateNamed(q *queue, name string) error {
	if !q.flows(name) {
		return nil
	}
	k, err := t.key(q, name)
	if err == nil {
		t.regate(k)
	}
	return err
}

// blocked reports whether nothing of a flow may start because of its key, and if only rates are in the way, when they let it.
func (f *flow) blocked(now int64) (blocked bool, opens int64) {
	k, c := f.key, &f.key.queue.config
	switch {
	case k.damaged:
		return true, 0
	case k.name == "" || f.n == 0:
		return false, 0
	}
	if c.Keys.Ordered() {
		if k.active() > 0 || c.Keys == driver.KeysHold && k.waiting > 0 {
			return true, 0
		}
		for _, other := range k.flows {
			if other.n > 0 && other.ord < f.ord {
				return true, 0
			}
		}
	}
	for i := range c.Limits {
		l := &c.Limits[i]
		if !l.PerKey || !l.Concerns(f.lane.typ, k.name) {
			continue
		}
		held := k.held[f.lane.no]
		if l.Type == "" {
			held = k.active()
		}
		if l.Concurrency > 0 && held >= int64(l.Concurrency) {
			return true, 0
		}
		if l.Rate > 0 {
			opens = max(opens, l.Opens(k.arrivals[l.RateKey()]))
		}
	}
	if opens <= now {
		return false, 0
	}
	return true, opens
}

// reopen looks again at the keys whose rates let them start by now, and forgets those that are at rest.
func (t *tx) reopen(q *queue, lanes []*lane, limit int) error {
	if q.share.keys == nil && q.flowing() == 0 && q.share.virtual == 0 {
		return nil
	}
	if err := t.saveKeys(); err != nil {
		return err
	}
	for _, l := range lanes {
		if l.parked == 0 {
			continue
		}
		names, err := t.names(t.stmt("flow_opening").ints(l.no, t.now, int64(limit)))
		if err != nil {
			return err
		}
		for _, name := range names {
			if err := t.regateNamed(q, name); err != nil {
				return err
			}
		}
	}
	return t.sweepKeys(q)
}

// sweepPart is how many keys a sweep looks at, and for each that was served since two more up to mostSwept, sweepEvery the
// milliseconds between two passes that only time is a reason for, and sweepAnyway between two that there is no reason for.
const (
	sweepPart   = 200
	mostSwept   = 2_000
	sweepEvery  = 1_000
	sweepAnyway = 60_000
)

// sweepKeys forgets those of the next keys that are as good as ones that were never seen, at most so many a transaction.
func (t *tx) sweepKeys(q *queue) error {
	w := &q.share.sweep
	if w.to == 0 && !w.due(q, t.now) {
		return nil
	}
	if w.to == 0 {
		w.virtual, w.began, w.since, w.rows, w.resting = q.share.virtual, t.now, 0, 0, 0
	}
	if err := t.saveKeys(); err != nil {
		return err
	}
	from, part := w.to, min(sweepPart+2*w.started, mostSwept)
	w.started = 0
	w.rows += part
	var err error
	if w.to, err = t.stmt("key_part").ints(from, part-1).one(); err != nil {
		return err
	}
	to := w.to
	if to == 0 { // the rest is less than a part
		to = math.MaxInt64
	}
	forgotten := false
	err = t.stmt("key_rest").ints(from, to, q.no, q.share.virtual, t.now).rows(func(s *sqlite.Stmt) error {
		delete(q.share.keys, s.ColumnText(0))
		forgotten = true
		return nil
	})
	if err != nil {
		return err
	}
	resting, err := t.stmt("key_resting").ints(from, to, q.no, q.share.virtual).one()
	if err != nil {
		return err
	}
	if w.resting += resting; w.to == 0 && w.resting > driver.KeysResting {
		q.share.virtual += driver.TagUnit
		q.share.dirty, forgotten = true, true
		err = t.saveKeys()
	}
	if forgotten {
		t.touchQueue(q) // so that other processes forget them too
	}
	return err
}

// nextKey returns the number that the next new key gets.
func (t *tx) nextKey() (int64, error) {
	if t.st.nextKey == 0 {
		last, err := t.stmt("key_last").one()
		if err != nil {
			return 0, err
		}
		t.st.nextKey = last + 1
	}
	return t.st.nextKey, nil
}

func (t *tx) names(s *stmt) (names []string, err error) {
	err = s.rows(func(s *sqlite.Stmt) error {
		names = append(names, s.ColumnText(0))
		return nil
	})
	return slices.Compact(names), err
}

// regateAll looks again at the keys for which a change of the queue's configuration may matter: those at work and those
// that are parked, or all of them.
func (t *tx) regateAll(q *queue, all bool) error {
	if err := t.saveKeys(); err != nil {
		return err
	}
	list := "key_busy"
	if all {
		list = "key_list"
	}
	names, err := t.names(t.stmt(list).ints(q.no))
	if err != nil {
		return err
	}
	for _, l := range q.lanes {
		more, err := t.names(t.stmt("flow_shut").ints(l.no))
		if err != nil {
			return err
		}
		names = append(names, more...)
	}
	for _, name := range names {
		if err := t.regateNamed(q, name); err != nil {
			return err
		}
	}
	return nil
}

// nextOpening returns the earlier of a time (0: none) and when a rate lets something of the lanes start.
func (t *tx) nextOpening(due int64, lanes []*lane) (int64, error) {
	soonest := func(at int64) {
		if at != 0 && (due == 0 || at < due) {
			due = at
		}
	}
	for _, l := range lanes {
		if l.count[available] == 0 {
			continue
		}
		if open, at := l.opens(t.now); !open {
			soonest(at)
		}
		if l.parked == 0 {
			continue
		}
		if err := t.saveKeys(); err != nil {
			return 0, err
		}
		at, err := t.stmt("flow_opens").ints(l.no).one()
		if err != nil {
			return 0, err
		}
		soonest(at)
	}
	return due, nil
}

// compareTurns orders what may be claimed.
func compareTurns(prioA, tagA, ordA, prioB, tagB, ordB int64) int {
	return cmp.Or(cmp.Compare(prioA, prioB), cmp.Compare(tagA, tagB), cmp.Compare(ordA, ordB))
}
