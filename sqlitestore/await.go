package sqlitestore

import (
	"container/list"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/waggleq/waggle/driver"
	"zombiezen.com/go/sqlite"
)

// waiter is a call of Await.
type waiter struct {
	worker        string
	queues, types []string
	plans         bool
	woken         chan struct{} // closed by whoever wakes it
	fetch         *errand       // what it waits for, if it is a Fetch
}

func (w *waiter) wants(l *lane) bool {
	return slices.Contains(w.queues, l.queue.name) && (len(w.types) == 0 || slices.Contains(w.types, l.typ))
}

// pair names a lane.
type pair struct{ queue, typ string }

// waiters are all calls that wait for something to happen in the store.
type waiters struct {
	mu      sync.Mutex
	work    list.List // of *waiter, the longest waiting first
	control list.List // of *waiter
	events  chan struct{}
	watched int // calls of Events that wait
	// missed are lanes in which a task became due sooner than all others while nobody waited.
	missed map[pair]bool
	// missedPlan: the same of a plan.
	missedPlan bool
}

func newWaiters() *waiters { return &waiters{events: make(chan struct{}), missed: make(map[pair]bool)} }

// any reports whether somebody waits.
func (ws *waiters) any() bool {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	return ws.work.Len() > 0 || ws.control.Len() > 0 || ws.watched > 0
}

// followed reports whether somebody waits for events.
func (ws *waiters) followed() bool {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	return ws.watched > 0
}

// workers reports whether somebody waits for work.
func (ws *waiters) workers() bool {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	return ws.work.Len() > 0
}

// tell wakes whom a committed transaction concerns.
func (ws *waiters) tell(a *aftermath) {
	if len(a.work) == 0 && len(a.sooner) == 0 && a.plans == 0 && len(a.controls) == 0 && !a.events {
		return
	}
	ws.mu.Lock()
	defer ws.mu.Unlock()
	for l, n := range a.work {
		if n = min(n, l.startable(a.now)); n > 0 {
			ws.wake(l, n)
		}
	}
	for _, l := range a.sooner {
		if !ws.wake(l, 1) {
			ws.missed[pair{l.queue.name, l.typ}] = true
		}
	}
	if a.plans > 0 && !ws.wakePlanners(a.plans) {
		ws.missedPlan = true
	}
	for _, id := range a.controls {
		ws.wakeControl(id)
	}
	if a.events {
		ws.wakeEvents()
	}
}

// wake wakes at most n of those that serve a lane, the longest waiting first, and reports whether there was one.
func (ws *waiters) wake(l *lane, n int64) bool {
	return ws.wakeThose(func(w *waiter) bool { return w.wants(l) }, n)
}

// wakePlanners wakes at most n of those that wait for plans, and reports whether there was one.
func (ws *waiters) wakePlanners(n int) bool {
	return ws.wakeThose(func(w *waiter) bool { return w.plans }, int64(n))
}

func (ws *waiters) wakeThose(wants func(*waiter) bool, n int64) bool {
	woken := false
	for e := ws.work.Front(); e != nil && n > 0; {
		w, next := e.Value.(*waiter), e.Next()
		if wants(w) {
			ws.work.Remove(e)
			close(w.woken)
			woken = true
			n--
		}
		e = next
	}
	return woken
}

func (ws *waiters) wakeControl(worker string) {
	for e := ws.control.Front(); e != nil; {
		w, next := e.Value.(*waiter), e.Next()
		if w.worker == worker {
			ws.control.Remove(e)
			close(w.woken)
		}
		e = next
	}
}

func (ws *waiters) wakeEvents() {
	if ws.watched > 0 {
		close(ws.events)
		ws.events = make(chan struct{})
	}
}

// compare wakes those whom changes by another process concern.
func (ws *waiters) compare(old, now *state, clock int64) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if old.nextEvent != now.nextEvent {
		ws.wakeEvents()
	}
	ws.comparePlans(old.firstPlan, now.firstPlan)
	for no, l := range now.lanes {
		ws.compareLane(old.lanes[no], l, clock)
	}
}

// comparePlans wakes a planner if a plan is to be thought of sooner than all were before. 0: there is none.
func (ws *waiters) comparePlans(old, now int64) {
	if now != 0 && (old == 0 || now < old) && !ws.wakePlanners(1) {
		ws.missedPlan = true
	}
}

// compareLane wakes those whom a change of a lane concerns. before is nil for a new one.
func (ws *waiters) compareLane(before, l *lane, clock int64) {
	if before == nil {
		before = &lane{queue: &queue{}}
	}
	resumed := before.queue.config.Paused
	n := l.startable(clock)
	if more := n - before.startable(clock); n > 0 && !l.queue.config.Paused && (more > 0 || resumed) {
		ws.wake(l, max(more, 1))
	}
	if l.count[scheduled]+l.count[retryable] > before.count[scheduled]+before.count[retryable] && !ws.wake(l, 1) {
		ws.missed[pair{l.queue.name, l.typ}] = true
	}
}

// askControls looks in the database for cancellations and directives that came from other processes.
func (ws *waiters) askControls(c *conn) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	seen := make(map[string]bool)
	for e := ws.control.Front(); e != nil; e = e.Next() {
		seen[e.Value.(*waiter).worker] = true
	}
	for id := range seen {
		if n, err := c.stmt("control_news").text(id).one(); err == nil && n > 0 {
			ws.wakeControl(id)
		}
	}
}

// Await implements [driver.Fetcher].
func (s *Store) Await(ctx context.Context, req driver.AwaitRequest) error {
	return s.await(ctx, &req, &waiter{woken: make(chan struct{})})
}

func (s *Store) await(ctx context.Context, req *driver.AwaitRequest, waiting *waiter) error {
	waiting.worker, waiting.queues, waiting.types, waiting.plans = req.Worker, slices.Clone(req.Queues), slices.Clone(req.Types), req.Plans
	if err := s.startWaiting(ctx, req, waiting); err != nil || req.Max <= 0 {
		return err
	}
	defer s.waiters.quit(waiting)
	timeout := time.NewTimer(req.Max)
	defer timeout.Stop()
	select {
	case <-waiting.woken:
		return nil
	case <-timeout.C:
		return nil
	case <-s.closing:
		return errClosed
	case <-ctx.Done():
	}
	select {
	case <-waiting.woken: // a hint must not get lost with the context of the one who got it
		return nil
	default:
		return ctx.Err()
	}
}

// quit ends a wait. It returns once the writer has no business with the waiter.
func (ws *waiters) quit(w *waiter) {
	if !ws.forget(w) {
		<-w.woken
	}
}

// forget takes a waiter off its list and reports whether it was there still: nobody has woken it, nor is about to.
func (ws *waiters) forget(w *waiter) bool {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	for _, l := range []*list.List{&ws.work, &ws.control} {
		for e := l.Front(); e != nil; e = e.Next() {
			if e.Value.(*waiter) == w {
				l.Remove(e)
				return true
			}
		}
	}
	return false
}

// startWaiting lines a waiter up in the writer's goroutine, so that nothing happens between its look at the store and
// its place in the line. It wakes the waiter at once if there is something to do already.
func (s *Store) startWaiting(ctx context.Context, req *driver.AwaitRequest, waiting *waiter) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	result := make(chan error, 1)
	if !s.queue.call(func(w *writer) { result <- w.lineUp(req, waiting) }) {
		return errClosed
	}
	select {
	case err := <-result:
		return err
	case <-ctx.Done():
		if err := <-result; err == nil && req.Max > 0 { // it looks at req
			s.waiters.quit(waiting)
		}
		return ctx.Err()
	}
}

func (w *writer) lineUp(req *driver.AwaitRequest, waiting *waiter) error {
	if w.s.closed.Load() {
		return errClosed
	}
	if err := w.s.fileGone(); err != nil {
		return err
	}
	if err := w.c.stmt("begin_read").exec(); err != nil {
		return err
	}
	defer func() { _ = w.c.stmt("commit").exec() }() // nothing was written
	if err := w.refresh(); err != nil {
		return err
	}
	who, err := w.st.worker(w.c, req.Worker)
	if err != nil || req.Max <= 0 {
		return err
	}
	if req.For == driver.ForControl {
		return w.lineUpControl(who, waiting)
	}
	if waiting.fetch != nil {
		waiting.fetch.narrow = w.st.narrow(req.Queues)
	}
	ws := w.s.waiters
	ws.mu.Lock()
	defer ws.mu.Unlock()
	planNews := false
	if req.Plans {
		first, err := w.c.stmt("plan_first").one()
		if err != nil {
			return err
		}
		planNews = ws.missedPlan || first != 0 && first <= w.s.now()
		ws.missedPlan = false
	}
	if w.st.hasNews(req, ws.missed, w.s.now()) || planNews {
		close(waiting.woken)
		return nil
	}
	ws.work.PushBack(waiting)
	return nil
}

func (w *writer) lineUpControl(who *worker, waiting *waiter) error {
	n, err := w.c.stmt("control_news").text(who.id).one()
	if err != nil {
		return err
	}
	if n > 0 {
		close(waiting.woken)
		return nil
	}
	ws := w.s.waiters
	ws.mu.Lock()
	defer ws.mu.Unlock()
	ws.control.PushBack(waiting)
	return nil
}

// hasNews reports whether there is work, or a due time that no worker was told of, in the declared pairs.
func (st *state) hasNews(req *driver.AwaitRequest, missed map[pair]bool, now int64) bool {
	news := false
	for _, name := range req.Queues {
		q := st.queues[name]
		if q == nil {
			continue
		}
		for _, l := range q.declared(req.Types) {
			p := pair{name, l.typ}
			if missed[p] {
				delete(missed, p)
				news = true
			}
			news = news || l.startable(now) > 0 && !q.config.Paused
		}
	}
	return news
}

// declared returns the queue's lanes of the given types; no types: all lanes.
func (q *queue) declared(types []string) []*lane {
	var lanes []*lane
	if len(types) == 0 {
		for _, l := range q.lanes {
			lanes = append(lanes, l)
		}
		return lanes
	}
	for i, typ := range types {
		if l := q.lanes[typ]; l != nil && !slices.Contains(types[:i], typ) {
			lanes = append(lanes, l)
		}
	}
	return lanes
}

// told forgets the due times that a Fetch has told its worker of.
func (ws *waiters) told(req *driver.FetchRequest) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if req.Plans > 0 {
		ws.missedPlan = false
	}
	for p := range ws.missed {
		if slices.Contains(req.Queues, p.queue) && (len(req.Types) == 0 || slices.Contains(req.Types, p.typ)) {
			delete(ws.missed, p)
		}
	}
}

// awaitEvents waits until events may have been added since seen was taken.
func (s *Store) awaitEvents(ctx context.Context, seen <-chan struct{}, timeout <-chan time.Time) (more bool, err error) {
	select {
	case <-seen:
		return true, nil
	case <-timeout:
		return false, nil
	case <-s.closing:
		return false, errClosed
	case <-ctx.Done():
		return false, ctx.Err()
	}
}

// watchEvents returns what is closed by the next event, and what ends the watch.
func (s *Store) watchEvents() (seen func() <-chan struct{}, stop func()) {
	ws := s.waiters
	ws.mu.Lock()
	defer ws.mu.Unlock()
	ws.watched++
	s.queue.call(func(w *writer) { w.watch.disarm() }) // it begins to look anew, and at the mark too
	return func() <-chan struct{} {
			ws.mu.Lock()
			defer ws.mu.Unlock()
			return ws.events
		}, func() {
			ws.mu.Lock()
			defer ws.mu.Unlock()
			ws.watched--
		}
}

// worker is what the writer knows of a registered worker.
type worker struct {
	no              int64
	id              string
	life            string
	leaseEnd, since int64
	host, build     string
	info            string
	directive       driver.Directive
	directed        bool // no heartbeat has delivered it yet
	damaged         bool
}

// scanWorker reads a row of table worker.
func scanWorker(s *sqlite.Stmt) *worker {
	return &worker{no: s.ColumnInt64(0), id: s.ColumnText(1), life: s.ColumnText(2), leaseEnd: s.ColumnInt64(3), since: s.ColumnInt64(4),
		host: s.ColumnText(5), build: s.ColumnText(6), info: s.ColumnText(7), directive: driver.Directive(s.ColumnText(8)), directed: s.ColumnBool(9),
		damaged: !intact(s, 0, workerColumns)}
}

// The lives of a worker.
const (
	alive = "alive"
	lost  = "lost" // its lease has run out and its tasks are being recovered
	gone  = "gone"
)

// anyWorker returns the worker with an id, whatever its life, nil if there is none.
func (st *state) anyWorker(c *conn, id string) (*worker, error) {
	if w := st.workers[id]; w != nil {
		return w, nil
	}
	var w *worker
	_, err := c.stmt("worker_get").text(id).row(func(s *sqlite.Stmt) error {
		if w = scanWorker(s); w.damaged {
			return damagedf("worker %s", id)
		}
		return nil
	})
	if err == nil && w != nil {
		st.workers[id] = w
	}
	return w, err
}

// worker returns the worker with an id, or [driver.ErrLeaseLost].
func (st *state) worker(c *conn, id string) (*worker, error) {
	w, err := st.anyWorker(c, id)
	if err == nil && (w == nil || w.life != alive) {
		err = driver.Errorf(driver.ErrLeaseLost, "worker %s is not registered, or its lease ran out", id)
	}
	return w, err
}
