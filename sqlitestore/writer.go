package sqlitestore

import (
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/waggleq/waggle/driver"
)

// Bounds of one transaction: what waits beyond them goes into the next, so that no call waits long for others.
const (
	maxOps     = 512
	maxOpBytes = 16 << 20
)

// Waiting for the write lock that another process has.
const (
	minBusyWait = 100 * time.Microsecond
	maxBusyWait = 4 * time.Millisecond
	maxBusy     = 30 * time.Second // then the lock's owner must be stuck
	// A writer that has lately seen commits of others leaves the lock alone for a moment after its own, or they would
	// rarely find it free.
	yieldAfter = 50 * time.Millisecond
	yieldFor   = 300 * time.Microsecond
)

// op is a change that waits for the writer. Several are done in one transaction.
type op struct {
	ctx context.Context
	// run makes the change. An error that the contract foresees is returned before anything is written. It runs again
	// if the transaction it was in had to be rolled back, so it starts its results anew.
	run  func(*tx) error
	adds bool // it makes the store larger: refused when there is little room
	// lazy: it need not be on the disk before it is answered, nor what others change in the same transaction. A kill does not
	// undo it (the system has it), only a power loss, and that ends all who know of it. The next commit that is not lazy takes
	// it to the disk.
	lazy bool
	// moot answers the op without the write lock if there is nothing to change any more, and reports whether it did. It is
	// asked before the lock is waited for, and while it is: whoever has it may be doing the same.
	moot  func(*writer) bool
	bytes int
	taken atomic.Bool // by the writer, which will answer, or by the caller, who has given up
	done  chan error
}

// opQueue holds what waits for the writer.
type opQueue struct {
	mu     sync.Mutex
	ops    []*op
	calls  []func(*writer) // to be done between transactions
	closed bool
	news   chan struct{} // holds a token while there is something to take
}

func (q *opQueue) put(o *op) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.closed {
		q.ops = append(q.ops, o)
		q.signal()
	}
	return !q.closed
}

func (q *opQueue) call(f func(*writer)) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.closed {
		q.calls = append(q.calls, f)
		q.signal()
	}
	return !q.closed
}

func order(o *op) int {
	if o.lazy {
		return 1
	}
	return 0
}

func (q *opQueue) signal() {
	select {
	case q.news <- struct{}{}:
	default:
	}
}

// take returns what is to be done next, and closed when nothing more will come.
func (q *opQueue) take(batch []*op) (ops []*op, calls []func(*writer), closed bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	n, bytes := 0, 0
	for n < len(q.ops) && n < maxOps && (n == 0 || bytes+q.ops[n].bytes <= maxOpBytes) {
		bytes += q.ops[n].bytes
		n++
	}
	batch = append(batch[:0], q.ops[:n]...)
	// What is claimed comes last: for the slots and tasks that the others let go.
	slices.SortStableFunc(batch, func(a, b *op) int { return cmp.Compare(order(a), order(b)) })
	left := copy(q.ops, q.ops[n:])
	clear(q.ops[left:])
	q.ops = q.ops[:left]
	calls, q.calls = q.calls, nil
	if left > 0 {
		q.signal()
	}
	return batch, calls, q.closed
}

// write has the writer make a change, and returns once it is on the disk.
func (s *Store) write(ctx context.Context, run func(*tx) error) error {
	return s.submit(&op{ctx: ctx, run: run})
}

func (s *Store) submit(o *op) error {
	if err := o.ctx.Err(); err != nil {
		return err
	}
	o.done = make(chan error, 1)
	if !s.queue.put(o) {
		return errClosed
	}
	select {
	case err := <-o.done:
		return err
	case <-o.ctx.Done():
		if o.taken.CompareAndSwap(false, true) {
			return o.ctx.Err()
		}
		return <-o.done // the writer is at it: the caller's memory is in use
	}
}

// writer is the goroutine that makes all changes.
type writer struct {
	s       *Store
	c       *conn
	st      *state // nil: to be loaded
	version int64  // of the database, as of st
	foreign time.Time
	tx      tx
	held    map[string]*holding // claims made here, by task id
	batch   []*op
	cursors []*stmt // see claim
	lazy    bool    // the transaction need not be on the disk before it is answered
	commits int     // how many transactions were committed
	syncs   int     // how often the log was taken to the disk
	watch   watch
	served  []*waiter // by the transaction

	syncData func(*os.File) error
	unsynced error // what was committed could not be taken to the disk: see sync
}

// loop runs until the store is closed.
func (w *writer) loop() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		timer.Reset(w.watch.delay(w.s.waiters.any()))
		select {
		case <-w.s.queue.news:
		case e := <-w.watch.events():
			if w.watch.alert(e, w.s.waiters.workers()) {
				w.look()
			}
			continue
		case <-timer.C:
			w.watch.arm(w.s.waiters.any(), w.s.waiters.followed())
			w.look()
			continue
		}
		batch, calls, closed := w.s.queue.take(w.batch)
		for _, f := range calls {
			f(w)
		}
		if closed {
			for ; len(batch) > 0; batch, _, _ = w.s.queue.take(batch) {
				answer(batch, errClosed)
			}
			return
		}
		if len(batch) > 0 {
			w.commit(batch)
		}
		clear(batch)
		w.batch = batch
	}
}

// close closes the connection. As the last one on the file it writes the log back into it.
func (w *writer) close() error {
	w.watch.close()
	for _, c := range w.cursors {
		if c.s != nil {
			_ = c.s.Finalize() // repeats the error of its last run
		}
	}
	return w.s.guard.close(w.c)
}

// commit does a batch of changes in one transaction. If the database refuses any of them all are rolled back, and each
// is done in a transaction of its own, so that none suffers from another's failure.
func (w *writer) commit(batch []*op) {
	if err := w.s.fileGone(); err != nil {
		answer(batch, err)
		return
	}
	if err := w.s.guard.checkRow(w.c); err != nil {
		answer(batch, err)
		return
	}
	if !w.dropMoot(batch) {
		return
	}
	if err := w.unsynced; err != nil {
		answer(batch, err)
		return
	}
	if err := w.begin(batch); err != nil {
		answer(batch, err)
		return
	}
	w.lazy = !slices.ContainsFunc(batch, func(o *op) bool { return !o.lazy })
	results, err := w.runAll(batch)
	if err == nil {
		err = w.serve()
	}
	if err == nil {
		err = w.end()
	}
	if err == nil {
		w.early(batch, results)
		if err = w.sync(); err == nil {
			err = w.s.fileGone() // what was written into a file that nobody will find again is lost
		}
		if err == nil {
			w.note()
		}
		for i, o := range batch {
			if results[i] != errSkipped {
				o.done <- errors.Join(err, results[i])
			}
		}
		w.hand(true, err)
		w.tell()
		return
	}
	w.abort()
	w.hand(false, nil)
	if len(batch) == 1 {
		if results[0] != errSkipped {
			batch[0].done <- err
		}
		return
	}
	for i, o := range batch {
		if results[i] != errSkipped {
			w.commitAgain(o)
		}
	}
}

// early answers what need not be on the disk, before the log is taken there: who was given tasks begins with them meanwhile.
func (w *writer) early(batch []*op, results []error) {
	if w.lazy || w.s.fileGone() != nil {
		return // there is nothing to wait for, or nothing to be given out
	}
	for i, o := range batch {
		if o.lazy && results[i] != errSkipped {
			o.done <- results[i]
			results[i] = errSkipped
		}
	}
	w.hand(true, nil)
}

// sync takes the log to the disk after a commit, unless none of the changes has to be there. SQLite would do the same within the
// commit, with the write lock in its hands: where several processes work on a file each would wait for the disk of all
// others. Here they wait for it at the same time. In WAL mode synchronous=NORMAL leaves this out and nothing else; what is in
// the log stays in order.
//
// A system that could not write may have dropped what it had: nothing tells then whether a later sync has all. So
// nothing more is promised.
func (w *writer) sync() error {
	if w.lazy {
		return nil
	}
	w.syncs++
	if err := w.syncData(w.s.guard.walFile); err != nil {
		w.unsynced = driver.Errorf(driver.ErrUnavailable, "the system could not write the log to the disk, so that what was stored last may be lost with the power: check the disk, then restart: %w", err)
	}
	return w.unsynced
}

// errSkipped marks an op whose caller has given up or was answered.
var errSkipped = errors.New("skipped")

// answer ends ops that were not begun.
func answer(batch []*op, err error) {
	for _, o := range batch {
		if o.taken.CompareAndSwap(false, true) {
			o.done <- err
		}
	}
}

// commitAgain does one op whose transaction was rolled back.
func (w *writer) commitAgain(o *op) {
	again := &op{ctx: o.ctx, run: o.run, adds: o.adds, lazy: o.lazy, done: o.done}
	if o.taken.Load() { // by a run before: only the writer can answer
		again.ctx = context.WithoutCancel(o.ctx)
	} else if !o.taken.CompareAndSwap(false, true) {
		return
	}
	w.commit([]*op{again})
}

// runAll runs the ops that were not given up, and returns their errors, and the first failure of the database.
func (w *writer) runAll(batch []*op) ([]error, error) {
	results := make([]error, len(batch))
	refusal := w.s.refuseGrowth(w.c, batch)
	for i, o := range batch {
		if !o.taken.CompareAndSwap(false, true) {
			results[i] = errSkipped
			continue
		}
		if o.adds && refusal != nil {
			results[i] = refusal
			continue
		}
		results[i] = o.run(&w.tx)
		if isFailure(results[i]) {
			return results, results[i]
		}
	}
	return results, nil
}

// begin starts a transaction, waiting for the write lock while any of the callers waits.
func (w *writer) begin(batch []*op) error {
	wait, since := minBusyWait, time.Now()
	for {
		err := w.c.stmt("begin").exec()
		if err == nil {
			break
		}
		if !isBusy(err) || time.Since(since) > maxBusy {
			return err
		}
		if !w.dropMoot(batch) {
			return errSkipped // nobody hears of it
		}
		if !w.pause(wait, batch) {
			if w.s.closed.Load() {
				return errClosed
			}
			return driver.Errorf(driver.ErrUnavailable, "another process keeps the database locked")
		}
		wait = min(2*wait, maxBusyWait)
	}
	clear(w.c.sound)
	if err := w.refresh(); err != nil {
		w.abort()
		return err
	}
	w.tx = tx{conn: w.c, s: w.s, w: w, st: w.st, now: w.s.now(), lanes: w.tx.lanes[:0], queues: w.tx.queues[:0],
		events: w.tx.events[:0], packed: w.tx.packed}
	w.tx.after.now = w.tx.now
	return nil
}

// dropMoot answers those ops of a batch that have nothing to change any more, and reports whether others are left.
func (w *writer) dropMoot(batch []*op) (left bool) {
	for _, o := range batch {
		if o.moot == nil || !o.taken.CompareAndSwap(false, true) {
			left = left || !o.taken.Load()
			continue
		}
		if o.moot(w) {
			o.done <- nil
			continue
		}
		o.taken.Store(false)
		left = true
	}
	return left
}

// pause waits for about d, and reports whether anybody still waits for the batch.
func (w *writer) pause(d time.Duration, batch []*op) bool {
	timer := time.NewTimer(d/2 + rand.N(d))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-w.s.closing:
		return false
	}
	for _, o := range batch {
		if !o.taken.Load() {
			return true
		}
	}
	return false
}

// refresh loads the small tables if another process has changed the database.
func (w *writer) refresh() error {
	version, err := w.c.stmt("data_version").one()
	if err != nil {
		return err
	}
	if w.st != nil && version == w.version {
		return nil
	}
	if err := w.s.checkFormat(w.c); err != nil {
		return err
	}
	if w.version != 0 && version != w.version {
		w.foreign = time.Now()
	}
	caught, err := w.catchUp()
	if err != nil {
		return err
	}
	if !caught {
		st, err := loadState(w.c)
		if err != nil {
			return err
		}
		old := w.st
		w.st = st
		if old != nil {
			w.s.waiters.compare(old, st, w.s.now())
		}
	}
	w.version = version
	w.s.waiters.askControls(w.c)
	return nil
}

func (w *writer) end() error {
	if err := w.tx.finish(); err != nil {
		return err
	}
	w.commits++
	return w.c.stmt("commit").exec()
}

// abort rolls back, and forgets what may be based on what was rolled back.
func (w *writer) abort() {
	if !w.c.db.AutocommitEnabled() {
		_ = w.c.stmt("rollback").exec() // it may have happened by itself
	}
	w.st = nil
	clear(w.held)
	w.tx.events, w.tx.after = w.tx.events[:0], aftermath{}
}

// note marks how much is stored for good, and has other processes look, if the commit may concern them.
func (w *writer) note() {
	if !w.tx.after.concerns() {
		return
	}
	w.watch.disarm() // its own word would only tell it of itself
	mark := &w.s.guard.mark
	if w.lazy || !mark.write(w.st.nextEvent) {
		mark.ring()
	}
	if w.tx.after.rouses() {
		w.s.guard.bell.ring()
	}
}

// tell wakes whom the committed changes concern, and lets other processes have the lock.
func (w *writer) tell() {
	w.s.waiters.tell(&w.tx.after)
	if !w.foreign.IsZero() && time.Since(w.foreign) < yieldAfter {
		w.pause(yieldFor, nil)
	}
}

// look finds out whether another process has changed the database, for those who wait.
func (w *writer) look() {
	version, err := w.c.stmt("data_version").one()
	if err != nil || w.st != nil && version == w.version {
		return
	}
	if err := w.c.stmt("begin_read").exec(); err != nil {
		return // the next call tells
	}
	_ = w.refresh()               // the next call tells
	_ = w.c.stmt("commit").exec() // nothing was written
}
