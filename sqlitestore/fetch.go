package sqlitestore

import (
	"context"
	"errors"
	"slices"

	"github.com/waggleq/waggle/driver"
	"zombiezen.com/go/sqlite"
)

// Bounds of one Fetch.
const (
	maxClaims = 1000
	maxSweep  = 1000 // tasks a housekeeping step
)

// holding is what the writer remembers of a claim that it has made, so that completing it needs no look-up. The row in
// held decides: a holding is never trusted alone.
type holding struct {
	seq, token, laneNo, workerNo int64
	worker                       string
	claimedAt, attempt, size     int64
	key                          string
	extra                        bool // it has a row in meta
	plan                         *driver.TaskPlan
}

// Fetch implements [driver.Fetcher].
func (s *Store) Fetch(ctx context.Context, req driver.FetchRequest) (*driver.FetchResult, error) {
	if err := driver.CheckFetch(&req); err != nil {
		return nil, err
	}
	res, waited, err := s.awaitFetch(ctx, &req)
	if err != nil || res != nil {
		return res, err
	}
	change := &op{ctx: ctx, lazy: true, run: func(t *tx) (err error) {
		if waited > 0 {
			if res, err = t.idle(&req); res != nil || err != nil {
				return err
			}
		}
		res, err = t.fetch(&req)
		return err
	}}
	if waited > 0 {
		change.moot = func(w *writer) bool {
			res = w.idle(&req)
			return res != nil
		}
	}
	err = s.submit(change)
	if err != nil {
		return nil, err
	}
	res.Waited = waited
	return res, nil
}

func (t *tx) fetch(req *driver.FetchRequest) (*driver.FetchResult, error) {
	w, err := t.st.worker(t.conn, req.Worker)
	if err != nil {
		return nil, err
	}
	leaseEnd := t.now + req.Lease.Milliseconds()
	w.leaseEnd = leaseEnd
	if err := t.saveWorker("worker_renew", w); err != nil {
		return nil, err
	}
	if err := t.settleFresh(); err != nil {
		return nil, err
	}
	if _, _, err := t.recoverLost(maxSweep); err != nil {
		return nil, err
	}
	res := &driver.FetchResult{Now: t.time(), LeaseEnd: timeOf(leaseEnd)}
	if res.Cancels, err = t.cancels(w); err != nil {
		return nil, err
	}
	nextDue, err := t.nextLease(w)
	if err != nil {
		return nil, err
	}
	token := t.newToken()
	var left *lane
	sound := 0
	for _, name := range req.Queues {
		q := t.st.queues[name]
		switch {
		case q == nil || q.fetched == token:
			continue // named twice
		case q.damaged != nil:
			res.Damaged = errors.Join(res.Damaged, q.damaged)
			continue
		}
		sound++
		q.fetched = token
		lanes := q.declared(req.Types)
		if _, err := t.tidy(q, lanes, maxSweep, false); err != nil {
			return nil, err
		}
		if !q.config.Paused {
			if q.shared() {
				res.Claims, err = t.claimShared(res, w, token, q, lanes, min(req.Max, maxClaims))
			} else {
				res.Claims, err = t.claim(res, w, token, lanes, min(req.Max, maxClaims))
			}
			if err != nil {
				return nil, err
			}
			left = leftBehind(left, lanes, t.now)
			if nextDue, err = t.nextOpening(nextDue, lanes); err != nil {
				return nil, err
			}
		}
		if nextDue, err = t.nextDue(nextDue, lanes); err != nil {
			return nil, err
		}
	}
	if res.Damaged != nil && sound == 0 {
		return nil, res.Damaged
	}
	if req.Plans > 0 {
		var first int64
		if res.Plans, first, err = t.offerPlans(driver.PlanOffers(req)); err != nil {
			return nil, err
		}
		if first != 0 && (nextDue == 0 || first < nextDue) {
			nextDue = first
		}
	}
	res.NextDue = timeOf(nextDue)
	if left != nil {
		res.More = true
		t.after.wake(left, 1)
	}
	t.s.waiters.told(req)
	return res, nil
}

// tokenEpoch is the time from which tokens count milliseconds, 2025-01-01.
const tokenEpoch = 1_735_689_600_000

// newToken returns a token greater than all before it. It follows the clock, because a power loss can undo claims (see
// op.lazy): the tokens of those must not be given again.
func (t *tx) newToken() int64 {
	token := max(t.st.nextToken, t.now-tokenEpoch)
	t.st.nextToken = token + 1
	return token
}

// shared reports whether claims from the queue have more to look at than who came first.
func (q *queue) shared() bool {
	return len(q.config.Limits) > 0 || q.config.Order != "" || q.flowing() > 0
}

func leftBehind(left *lane, lanes []*lane, now int64) *lane {
	for _, l := range lanes {
		if left == nil && l.startable(now) > 0 {
			left = l
		}
	}
	return left
}

// cancels returns the worker's claims whose cancellation was asked for, and counts them as told.
func (t *tx) cancels(w *worker) ([]driver.Ref, error) {
	var refs []driver.Ref
	news := false
	err := t.stmt("cancel_list").ints(w.no).rows(func(s *sqlite.Stmt) error {
		refs = append(refs, driver.Ref{ID: driver.UnpackID(columnBytes(s, 0)), Token: driver.Token(s.ColumnInt64(1))})
		news = news || s.ColumnInt64(2) == 1
		return nil
	})
	if err == nil && news {
		err = t.stmt("cancel_told").ints(w.no).exec()
	}
	return refs, err
}

// nextLease returns when the first lease of another worker runs out, 0 if there is none.
func (t *tx) nextLease(w *worker) (int64, error) {
	first := int64(0)
	err := t.stmt("worker_by_lease").rows(func(s *sqlite.Stmt) error {
		if first == 0 && s.ColumnInt64(0) != w.no {
			first = s.ColumnInt64(3)
		}
		return nil
	})
	return first, err
}

// nextDue returns the earlier of a time (0: none) and when the next task of some lanes is due.
func (t *tx) nextDue(due int64, lanes []*lane) (int64, error) {
	for _, l := range lanes {
		if l.count[scheduled]+l.count[retryable] == 0 {
			continue
		}
		at, err := t.stmt("due_first").ints(l.no).one()
		if err != nil {
			return 0, err
		}
		if at != 0 && (due == 0 || at < due) {
			due = at
		}
	}
	return due, nil
}

// cursor reads the front of a lane.
type cursor struct {
	*stmt
	lane      *lane
	ok        bool
	prio, ord int64
	taken     int64 // claims from this lane
	passed    bool  // the front was moved on at all: up to lastPrio, lastOrd
	lastPrio  int64
	lastOrd   int64
}

func (c *cursor) next() error {
	ok, err := c.step()
	c.ok = ok
	if ok {
		c.prio, c.ord = c.s.ColumnInt64(0), c.s.ColumnInt64(1)
	}
	return err
}

// picked is the front task of a lane, as it is taken into a claim.
type picked struct {
	claim       driver.Claim
	lane        *lane
	seq         int64
	prio, ord   int64
	uniq        string
	expires     int64
	holding     *holding
	unfit       driver.Reason // why it is not given out
	taskMissing bool
	misplaced   bool // it belongs elsewhere: the entry is damaged
}

// fit reports whether the task can be given out.
func (p *picked) fit() bool { return p.unfit == "" && !p.taskMissing && !p.misplaced }

// claim adds claims of the first tasks of lanes until there are limit of them.
func (t *tx) claim(res *driver.FetchResult, w *worker, token int64, lanes []*lane, limit int) ([]driver.Claim, error) {
	claims, waiting := res.Claims, int64(0)
	for _, l := range lanes {
		waiting += l.count[available]
	}
	want := int(min(int64(limit-len(claims)), waiting))
	if want <= 0 {
		return claims, nil
	}
	cursors, picks, err := t.pick(w, token, lanes, want)
	if err != nil {
		return nil, err
	}
	for i := range picks {
		p := &picks[i]
		if p.fit() {
			continue
		}
		if err := t.removeUnfit(p); err != nil {
			return nil, err
		}
		if p.unfit == driver.ReasonUndecodable {
			res.Undecodable = append(res.Undecodable, p.claim.ID)
		}
	}
	for _, c := range cursors {
		if err := t.take(c, w, token); err != nil {
			return nil, err
		}
	}
	claims = slices.Grow(claims, len(picks))
	for i := range picks {
		p := &picks[i]
		if !p.fit() {
			continue
		}
		if err := t.started(p); err != nil {
			return nil, err
		}
		if p.holding != nil {
			t.w.held[p.claim.ID] = p.holding
		}
		t.stateEvent(active, p.lane, p.claim.ID, w.id)
		claims = append(claims, p.claim)
	}
	return claims, nil
}

// pick reads the first tasks of lanes until want of them are fit to be run.
func (t *tx) pick(w *worker, token int64, lanes []*lane, want int) (cursors []*cursor, picks []picked, err error) {
	defer func() {
		for _, c := range cursors {
			c.reset()
		}
	}()
	for _, l := range lanes {
		if l.count[available] == 0 {
			continue
		}
		c := &cursor{stmt: t.w.cursor(len(cursors)), lane: l}
		c.n = 0
		c.ints(l.no)
		cursors = append(cursors, c)
		if err := c.next(); err != nil {
			return cursors, nil, err
		}
	}
	picks = make([]picked, 0, want)
	for fit := 0; fit < want; {
		c := front(cursors)
		if c == nil {
			break
		}
		picks = append(picks, picked{lane: c.lane, prio: c.prio, ord: c.ord})
		p := &picks[len(picks)-1]
		t.read(c, p, w, token)
		c.passed, c.lastPrio, c.lastOrd = true, c.prio, c.ord
		if p.fit() {
			fit++
			c.taken++
		}
		if fit < want {
			if err := c.next(); err != nil {
				return cursors, nil, err
			}
		}
	}
	return cursors, picks, nil
}

// cursor returns the statement that reads a lane's front, one of several.
func (w *writer) cursor(i int) *stmt {
	for len(w.cursors) <= i {
		w.cursors = append(w.cursors, w.c.another("claim_rows"))
	}
	return w.cursors[i]
}

// front returns the cursor whose task is to run first.
func front(cursors []*cursor) *cursor {
	var best *cursor
	for _, c := range cursors {
		if c.ok && (best == nil || c.prio < best.prio || c.prio == best.prio && c.ord < best.ord) {
			best = c
		}
	}
	return best
}

// read makes the task under a cursor a claim.
func (t *tx) read(c *cursor, p *picked, w *worker, token int64) {
	s := c.s
	p.seq = s.ColumnInt64(2)
	if s.ColumnIsNull(3) {
		p.taskMissing = true
		return
	}
	if s.ColumnInt64(14) != c.lane.no || s.ColumnInt64(15) != c.prio {
		p.misplaced = true
		return
	}
	var scratch [160]byte
	packed := scratch[:min(s.ColumnLen(3), len(scratch))]
	s.ColumnBytes(3, packed)
	p.expires, p.uniq = s.ColumnInt64(5), s.ColumnText(6)
	envelope, payload := columnBytes(s, 8), columnBytes(s, 9)
	k := &p.claim
	k.ID, k.Type, k.Queue, k.Priority, k.Payload = driver.UnpackID(packed), c.lane.typ, c.lane.queue.name, int(c.prio), payload
	if !taskSound(s.ColumnInt64(7), checksum(packed, envelope, payload), t.sumsFrom(), p.seq, c.lane.no, c.prio, s.ColumnInt64(4),
		nullable(s, 13), p.expires, s.ColumnText(12), p.uniq) || driver.DecodeEnvelope(envelope, &k.Task) != nil {
		p.unfit = driver.ReasonUndecodable
		return
	}
	if p.expires != 0 && p.expires <= t.now { // the sweep had more to do than it may
		p.unfit = driver.ReasonExpired
		return
	}
	k.Token, k.Attempt, k.Crashes = driver.Token(token), s.ColumnInt(10)+1, s.ColumnInt(11)
	k.EnqueuedAt, k.ClaimedAt = timeOf(s.ColumnInt64(4)), t.time()
	p.holding = &holding{seq: p.seq, token: token, laneNo: c.lane.no, workerNo: w.no, worker: w.id,
		claimedAt: t.now, attempt: int64(k.Attempt), size: int64(len(payload)), extra: !s.ColumnIsNull(10), plan: k.Plan}
	if p.uniq == string(driver.UntilDone) || p.uniq == string(driver.UntilStarted) {
		p.holding = nil // to complete it takes more than a holding tells
	}
}

// removeUnfit ends a task that can't be run, or removes what stands in line without a task.
func (t *tx) removeUnfit(p *picked) error {
	if p.misplaced {
		if err := t.stmt("ready_delete").ints(p.lane.no, p.prio, p.ord).exec(); err != nil {
			return err
		}
		return t.mendTask(p.seq)
	}
	if p.taskMissing {
		t.count(p.lane, available, none, 1)
		return t.stmt("ready_delete").ints(p.lane.no, p.prio, p.ord).exec()
	}
	r, err := t.load(p.seq)
	if err != nil || r == nil {
		return err
	}
	return t.move(r, discarded, p.unfit)
}

// take moves the front of a lane, as far as its cursor has come, to what the worker holds.
func (t *tx) take(c *cursor, w *worker, token int64) error {
	t.count(c.lane, available, active, c.taken)
	return t.takeRows(c, w, token)
}

func (t *tx) takeRows(c *cursor, w *worker, token int64) error {
	if c.taken == 0 {
		return nil
	}
	if err := t.stmt("claim_hold").ints(c.lane.no, c.lastPrio, c.lastOrd, w.no, token, t.now, claimSum(c.lane.no, w.no, token, t.now)).exec(); err != nil {
		return err
	}
	if n := int64(t.changes()); n != c.taken {
		return corruptf("%d tasks stand at the front of lane %d where %d were read", n, c.lane.no, c.taken)
	}
	return t.stmt("claim_take").ints(c.lane.no, c.lastPrio, c.lastOrd).exec()
}

// started does what happens when a task is claimed.
func (t *tx) started(p *picked) error {
	if p.expires != 0 {
		p.lane.expiring--
		t.touch(p.lane)
		if err := t.stmt("expiry_delete").ints(p.lane.no, p.expires, p.seq).exec(); err != nil {
			return err
		}
	}
	if p.uniq == string(driver.UntilStarted) && p.claim.Unique != nil {
		return t.stmt("uniq_free").ints(p.seq).blob([]byte(p.claim.Unique.Key)).exec()
	}
	return nil
}

// Held implements [driver.Fetcher].
func (s *Store) Held(ctx context.Context, id string) ([]driver.Claim, error) {
	claims := []driver.Claim{}
	err := s.read(ctx, func(c *conn) error {
		st := &state{workers: make(map[string]*worker)}
		w, err := st.worker(c, id)
		if err != nil {
			return err
		}
		var seqs []int64
		err = c.stmt("held_by").ints(w.no, -1).rows(func(s *sqlite.Stmt) error {
			seqs = append(seqs, s.ColumnInt64(0))
			return nil
		})
		for i := 0; err == nil && i < len(seqs); i++ {
			var r *driver.Record
			if r, err = c.record(seqs[i]); err == nil && r != nil {
				claims = append(claims, claimOf(r))
			}
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return claims, nil
}

func claimOf(r *driver.Record) driver.Claim {
	return driver.Claim{Task: r.Task, Token: r.Token, Attempt: r.Attempt, Crashes: r.Crashes,
		EnqueuedAt: r.EnqueuedAt, ClaimedAt: r.ClaimedAt, CancelRequested: r.CancelRequested}
}
