package redisstore

import (
	"cmp"
	"context"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/rueidis"

	"github.com/waggleq/waggle/driver"
)

// idMemory is how long the id of a worker that has ended is refused.
const idMemory = 7 * 24 * time.Hour

// Register implements driver.Fetcher.
func (s *Store) Register(ctx context.Context, w driver.WorkerInfo, lease time.Duration) error {
	if s.closed() {
		return driver.ErrClosed
	}
	if err := driver.CheckWorker(&w); err != nil {
		return err
	}
	if err := driver.CheckLease(lease); err != nil {
		return err
	}
	info, err := json.Marshal(w)
	if err != nil {
		return driver.Invalidf("the worker's description can't be stored: %v", err)
	}
	err = s.eachShard(ctx, func(ctx context.Context, sh *shard) error {
		_, err := s.script(ctx, s.control, sh, registerScript, sh.keysOf(registerScript, w.ID), s.head(sh, "", ""),
			[]string{w.ID, strconv.FormatInt(ceilMillis(lease), 10), string(info), s.isHub(sh)})
		return err
	}, nil)
	if err == nil {
		w.Queues, w.Types = slices.Clone(w.Queues), slices.Clone(w.Types)
		s.workers.Store(w.ID, w)
	}
	return err
}

// Heartbeat implements driver.Fetcher.
func (s *Store) Heartbeat(ctx context.Context, worker string, lease time.Duration) (*driver.HeartbeatResult, error) {
	if s.closed() {
		return nil, driver.ErrClosed
	}
	if err := driver.CheckLease(lease); err != nil {
		return nil, err
	}
	parts := make([]*driver.HeartbeatResult, len(s.shards))
	rung := false // the hub has news from another shard, which that one may have had after it was asked
	beat := func(ctx context.Context, sh *shard) (err error) {
		r := false
		if parts[sh.number], r, err = s.beat(ctx, sh, worker, lease); r && sh == s.hub() {
			rung = true
		}
		return err
	}
	err := s.eachShard(ctx, beat, nil)
	if err == nil && rung && len(s.shards) > 1 {
		err = s.eachShard(ctx, beat, func(sh *shard) bool { return sh != s.hub() })
	}
	if err != nil {
		return nil, err
	}
	result := parts[s.hub().number]
	for _, p := range parts {
		if p == result {
			continue
		}
		result.Cancels = append(result.Cancels, p.Cancels...)
		if p.Now.Before(result.Now) {
			result.Now, result.LeaseEnd = p.Now, p.LeaseEnd
		}
	}
	return result, nil
}

// beat renews a worker's lease in a shard, and reports whether the worker was rung for there.
func (s *Store) beat(ctx context.Context, sh *shard, worker string, lease time.Duration) (*driver.HeartbeatResult, bool, error) {
	reply, err := s.script(ctx, s.control, sh, beatScript, sh.keysOf(beatScript, worker), s.head(sh, "", ""),
		[]string{worker, strconv.FormatInt(ceilMillis(lease), 10)})
	if err != nil {
		return nil, false, err
	}
	v, err := reply.ToArray()
	if err != nil || len(v) != 4 {
		return nil, false, driver.Errorf(driver.ErrUnavailable, "%s gave an unexpected reply", s.where)
	}
	now, _ := v[0].AsInt64()
	cancels, _ := v[1].AsStrSlice()
	r := &driver.HeartbeatResult{Now: millis(now), LeaseEnd: millis(now).Add(lease), Cancels: parseRefs(cancels)}
	if sh == s.hub() {
		directive, _ := v[2].ToString()
		r.Directive = driver.Directive(directive)
	}
	rung, _ := v[3].AsInt64()
	return r, rung > 0, nil
}

// Direct implements driver.Maintainer. What a worker was told is kept in the hub.
func (s *Store) Direct(ctx context.Context, worker string, d driver.Directive) error {
	if s.closed() {
		return driver.ErrClosed
	}
	if err := driver.CheckDirect(worker, driver.DirectServe, d); err != nil {
		return err
	}
	if err := driver.CheckName("worker", worker, driver.MaxNameLen); err != nil {
		return driver.NoWorker(worker)
	}
	if alive, err := s.alive(ctx, worker); err != nil {
		return err
	} else if !alive {
		return driver.NoWorker(worker)
	}
	hub := s.hub()
	reply, err := s.script(ctx, s.control, hub, directScript, hub.keysOf(directScript, worker), s.head(hub, "", ""),
		[]string{worker, string(d), string(driver.DirectStop)})
	if err != nil {
		return err
	}
	n, err := reply.AsInt64()
	switch {
	case err != nil:
		return s.asError(err)
	case n == 0:
		return driver.NoWorker(worker)
	case n == 2:
		return driver.CheckDirect(worker, driver.DirectStop, d)
	}
	return nil
}

// alive reports whether a worker is registered, and no shard has begun to recover it.
func (s *Store) alive(ctx context.Context, worker string) (bool, error) {
	alive := make([]bool, len(s.shards))
	err := s.eachShard(ctx, func(ctx context.Context, sh *shard) error {
		score, err := s.control.Do(ctx, s.control.B().Zscore().Key(sh.key("workers")).Member(worker).Build()).AsFloat64()
		if err != nil && !rueidis.IsRedisNil(err) {
			return s.ended(ctx, err)
		}
		alive[sh.number] = score > 1
		return nil
	}, nil)
	return !slices.Contains(alive, false), err
}

// Held implements driver.Fetcher.
func (s *Store) Held(ctx context.Context, worker string) ([]driver.Claim, error) {
	if s.closed() {
		return nil, driver.ErrClosed
	}
	parts := make([][]driver.Claim, len(s.shards))
	err := s.eachShard(ctx, func(ctx context.Context, sh *shard) error {
		ids, err := s.heldIDs(ctx, sh, worker, true)
		if err != nil {
			return err
		}
		for chunk := range slices.Chunk(ids, 200) {
			entries, _, err := s.read(ctx, sh, chunk)
			if err != nil {
				return err
			}
			for _, e := range entries {
				if c, ok, err := s.claimOf(ctx, sh, e, worker); err != nil {
					return err
				} else if ok {
					parts[sh.number] = append(parts[sh.number], c)
				}
			}
		}
		return nil
	}, nil)
	claims := slices.Concat(parts...)
	slices.SortFunc(claims, func(a, b driver.Claim) int { return strings.Compare(a.ID, b.ID) })
	return claims, err
}

// claimOf returns an entry as a claim, if the worker still holds it.
func (s *Store) claimOf(ctx context.Context, sh *shard, e *entry, worker string) (driver.Claim, bool, error) {
	if e == nil || e.run.state != letterActive || e.run.worker != worker {
		return driver.Claim{}, false, nil
	}
	r, err := s.record(ctx, sh, e)
	if err != nil {
		return driver.Claim{}, false, err
	}
	return driver.Claim{Task: r.Task, Token: r.Token, Attempt: r.Attempt, Crashes: r.Crashes, EnqueuedAt: r.EnqueuedAt,
		ClaimedAt: r.ClaimedAt, CancelRequested: r.CancelRequested}, true, nil
}

func (s *Store) heldIDs(ctx context.Context, sh *shard, worker string, registered bool) ([]string, error) {
	incarnation, _, _ := sh.known.versions()
	reply, err := s.call(ctx, s.control, sh, heldScript, sh.keysOf(heldScript, worker), []string{incarnation, worker, bit(registered)})
	if err != nil {
		return nil, err
	}
	return reply.AsStrSlice()
}

// Unregister implements driver.Fetcher.
func (s *Store) Unregister(ctx context.Context, worker string) error {
	if s.closed() {
		return driver.ErrClosed
	}
	defer s.forgetWorker(worker)
	return s.eachShard(ctx, func(ctx context.Context, sh *shard) error {
		ended, err := s.reap(ctx, sh, worker, 1)
		if err != nil {
			return err
		}
		for _, w := range ended {
			if _, _, err := s.giveBack(ctx, sh, w, 1<<30); err != nil {
				return err
			}
		}
		return nil
	}, nil)
}

// endedWorker is one whose life has ended and whose tasks are to be given back.
type endedWorker struct {
	id   string
	lost bool // its lease ran out, it did not leave
}

func (s *Store) reap(ctx context.Context, sh *shard, leaves string, most int) ([]endedWorker, error) {
	reply, err := s.script(ctx, s.control, sh, reapScript, sh.keysOf(reapScript, ""), s.head(sh, "", ""), []string{leaves, strconv.Itoa(most)})
	if err != nil {
		return nil, err
	}
	v, err := reply.ToArray()
	if err != nil {
		return nil, s.asError(err)
	}
	var list []endedWorker
	for i := 0; i+1 < len(v); i += 2 {
		id, _ := v[i].ToString()
		score, _ := v[i+1].AsInt64()
		list = append(list, endedWorker{id, score == 0})
	}
	return list, nil
}

// recoverLost gives back the tasks of workers whose lease has run out, at most about max of them, and returns how many
// and whether some are left.
func (s *Store) recoverLost(ctx context.Context, sh *shard, max int) (n int, more bool, err error) {
	const workers = 20
	ended, err := s.reap(ctx, sh, "", workers)
	if err != nil {
		return 0, false, err
	}
	for _, w := range ended {
		if n >= max {
			return n, true, nil
		}
		got, left, err := s.giveBack(ctx, sh, w, max-n)
		n += got
		if err != nil || left {
			return n, left, err
		}
	}
	return n, len(ended) == workers, nil
}

// giveBack puts what an ended worker holds back, at most max tasks, and removes the worker when nothing is left. Others
// may do the same at the same time: each task is given back once.
func (s *Store) giveBack(ctx context.Context, sh *shard, w endedWorker, max int) (n int, left bool, err error) {
	for {
		ids, err := s.heldIDs(ctx, sh, w.id, false)
		if err != nil {
			return n, false, err
		}
		if len(ids) == 0 {
			return n, false, s.bury(ctx, sh, w.id)
		}
		if n >= max {
			return n, true, nil
		}
		got, err := s.giveBackSome(ctx, sh, w, ids[:min(len(ids), max-n, 200)])
		if err != nil {
			return n, false, err
		}
		n += got
	}
}

func (s *Store) giveBackSome(ctx context.Context, sh *shard, w endedWorker, ids []string) (int, error) {
	entries, now, err := s.read(ctx, sh, ids)
	if err != nil {
		return 0, err
	}
	host, build, err := s.whereOf(ctx, sh, w.id)
	if err != nil {
		return 0, err
	}
	m := &mover{s: s, sh: sh, now: now}
	var items []*item
	var damaged []string
	tasks := 0
	for i, e := range entries {
		if e != nil && e.astray {
			damaged = append(damaged, e.id)
		}
		if e == nil || e.run.state != letterActive || e.run.worker != w.id {
			it := &item{} // an entry without its task: nothing holds it, so nothing must keep the worker
			it.do("SREM", sh.heldKey(w.id), ids[i])
			items = append(items, it)
			continue
		}
		p, err := s.pairOf(ctx, sh, e.run.pair)
		if err != nil {
			return 0, err
		}
		items = append(items, m.giveBack(e, p, w, host, build))
		tasks++
	}
	done, err := s.commit(ctx, sh, items)
	if err != nil {
		return 0, err
	}
	m.wakeElsewhere(ctx)
	if len(damaged) > 0 {
		if err := s.discardUnreadable(ctx, sh, damaged); err != nil {
			return 0, err
		}
	}
	for i, e := range entries {
		if !done[i] && e != nil {
			tasks--
		}
	}
	return max(tasks, 0), nil
}

// giveBack works out what becomes of a task whose worker has ended.
func (m *mover) giveBack(e *entry, p *pair, w endedWorker, host, build string) *item {
	it := m.begin(e)
	r := &e.run
	now := millis(m.now)
	if w.lost {
		r.crashes++
		m.count(it, countEverCrashed+p.digits, 1)
		m.addAttempt(it, e, driver.Attempt{Number: r.attempt, Outcome: driver.Crash, Worker: w.id, Host: host, Build: build,
			Started: millis(r.claimed), Ended: now, Reason: driver.CrashReason(r.crashes, m.crashLimit(e), r.flags&flagCancel != 0)})
	}
	r.attempt--
	switch {
	case r.flags&flagCancel != 0:
		m.move(it, e, p, letterCancelled, driver.ReasonRequested)
	case w.lost && r.crashes >= m.crashLimit(e):
		m.move(it, e, p, letterDiscarded, driver.ReasonCrashes)
	default:
		m.move(it, e, p, letterAvailable, "")
	}
	return it
}

func (s *Store) bury(ctx context.Context, sh *shard, worker string) error {
	_, err := s.script(ctx, s.control, sh, buryScript, sh.keysOf(buryScript, worker), s.head(sh, "", ""),
		[]string{worker, strconv.FormatInt(idMemory.Milliseconds(), 10), s.isHub(sh)})
	s.forgetWorker(worker)
	return err
}

// forgetWorker drops what this program remembers of a worker whose life has ended.
func (s *Store) forgetWorker(worker string) {
	s.workers.Delete(worker)
	s.rounds.Delete(worker)
	s.awoken.Delete(worker)
	s.dues.Delete(worker)
}

// Workers implements driver.Inspector.
func (s *Store) Workers(ctx context.Context) ([]driver.WorkerStatus, error) {
	if s.closed() {
		return nil, driver.ErrClosed
	}
	byID := map[string]*driver.WorkerStatus{}
	alive := map[string]int{}
	for _, sh := range s.shards {
		if err := s.addWorkers(ctx, sh, byID, alive); err != nil {
			return nil, err
		}
	}
	list := make([]driver.WorkerStatus, 0, len(byID))
	for _, w := range byID {
		if alive[w.ID] == len(s.shards) { // else its recovery has begun
			list = append(list, *w)
		}
	}
	slices.SortFunc(list, func(a, b driver.WorkerStatus) int { return strings.Compare(a.ID, b.ID) })
	return list, nil
}

func (s *Store) addWorkers(ctx context.Context, sh *shard, byID map[string]*driver.WorkerStatus, alive map[string]int) error {
	ctx, cancel := s.bounded(ctx, s.timeout)
	defer cancel()
	b := s.control.B()
	replies := s.control.DoMulti(ctx, b.Zrange().Key(sh.key("workers")).Min("0").Max("-1").Withscores().Build(),
		s.control.B().Hgetall().Key(sh.key("winfo")).Build())
	directives := map[string]string{}
	if sh == s.hub() {
		var err error
		if directives, err = s.control.Do(ctx, s.control.B().Hgetall().Key(sh.key("directive")).Build()).AsStrMap(); err != nil {
			return s.ended(ctx, err)
		}
	}
	leases, err := replies[0].AsZScores()
	if err != nil {
		return s.ended(ctx, err)
	}
	infos, err := replies[1].AsStrMap()
	if err != nil {
		return s.ended(ctx, err)
	}
	for _, l := range leases {
		info := infos[l.Member]
		if l.Score <= 1 || len(info) < 6 {
			continue
		}
		held, err := s.control.Do(ctx, s.control.B().Scard().Key(sh.heldKey(l.Member)).Build()).AsInt64()
		if err != nil {
			return s.ended(ctx, err)
		}
		w := byID[l.Member]
		if w == nil {
			w = &driver.WorkerStatus{Since: millis(uint48(info[joinedSince:])), LeaseEnd: millis(int64(l.Score))}
			_ = json.Unmarshal([]byte(info[joinedHead:]), &w.WorkerInfo) // damage there must not hide the others
			w.ID = l.Member
			byID[l.Member] = w
		}
		if at := millis(uint48(info[joinedSince:])); at.Before(w.Since) {
			w.Since = at
		}
		if end := millis(int64(l.Score)); end.Before(w.LeaseEnd) {
			w.LeaseEnd = end
		}
		w.Held += int(held)
		w.Directive = cmp.Or(w.Directive, driver.Directive(directives[l.Member]))
		alive[l.Member]++
	}
	return nil
}
