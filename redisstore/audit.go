package redisstore

import (
	"context"
	"slices"
	"strconv"
	"strings"

	"github.com/redis/rueidis"

	"github.com/waggleq/waggle/driver"
)

// Audit implements driver.Maintainer. It reads the whole store piece by piece while others go on, so it looks twice and
// believes only what it sees both times.
func (s *Store) Audit(ctx context.Context, repair bool) ([]driver.Finding, error) {
	if s.closed() {
		return nil, driver.ErrClosed
	}
	var findings []driver.Finding
	for _, sh := range s.shards {
		faults, err := s.examineTwice(ctx, sh)
		if err != nil {
			return nil, err
		}
		if repair {
			if _, _, err := s.expirePlans(ctx, sh, 1000); err != nil {
				return nil, err
			}
			unreadable, err := s.discardFound(ctx, sh, faults)
			if err != nil {
				return nil, err
			}
			if len(unreadable) > 0 { // now it can be said what else is wrong
				findings = append(findings, unreadable...)
				if faults, err = s.examineTwice(ctx, sh); err != nil {
					return nil, err
				}
			}
		}
		for _, found := range faults {
			if repair {
				if found.Repaired, err = s.repair(ctx, sh, found); err != nil {
					return nil, err
				}
			}
			findings = append(findings, found.Finding)
		}
	}
	return findings, nil
}

// examineTwice returns what was out of order two times running.
func (s *Store) examineTwice(ctx context.Context, sh *shard) ([]fault, error) {
	first, err := s.examine(ctx, sh)
	if err != nil || len(first) == 0 {
		return nil, err
	}
	second, err := s.examine(ctx, sh)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(second, func(found fault) bool {
		return !slices.ContainsFunc(first, func(f fault) bool { return f.Finding == found.Finding })
	}), nil
}

// discardFound discards the tasks that an audit found unreadable, wherever they stand.
func (s *Store) discardFound(ctx context.Context, sh *shard, faults []fault) ([]driver.Finding, error) {
	var findings []driver.Finding
	for _, f := range faults {
		if f.Kind != unreadable {
			continue
		}
		if err := s.discardUnreadable(ctx, sh, []string{f.packed}); err != nil {
			return nil, err
		}
		f.Repaired = true
		findings = append(findings, f.Finding)
	}
	return findings, nil
}

// unreadable is the kind of a finding that is repaired before the others are worked out.
const unreadable = "unreadable"

// fault is a finding and the writes that put it in order.
type fault struct {
	driver.Finding
	packed string // the id
	fix    *item
}

func (s *Store) repair(ctx context.Context, sh *shard, f fault) (bool, error) {
	done, err := s.commit(ctx, sh, []*item{f.fix})
	return err == nil && done[0], err
}

// snapshot is what an audit has read of a shard.
type snapshot struct {
	sh      *shard
	tasks   map[string]taskRecord
	unread  map[string]bool // tasks whose record is damaged
	runs    map[string]runRecord
	rawRuns map[string]string
	parts   map[string][]string // hash → ids in it, of those that belong to tasks
	own     map[string]string
	uniq    map[string]string
	places  map[string][]place // id → where it is indexed
	stat    map[string]int
	ordered map[string]int64 // id → place in the order of enqueueing, if that is right
	workers map[string]bool
	cancels map[string]string // id → worker in whose set of cancellations it is
	shares  []*sharePart
	now     int64 // the store's clock
	faults  []fault
}

// placeExpiring stands in a place for the index exp/PAIR, which is that of no state.
const placeExpiring = 'E'

// place is an entry of an index.
type place struct {
	state byte
	pair  int    // of lines
	key   string // of the index
	undo  []string
}

// examine reads a shard and returns what is out of order.
func (s *Store) examine(ctx context.Context, sh *shard) ([]fault, error) {
	if err := s.refresh(ctx, sh); err != nil {
		return nil, err
	}
	a := &snapshot{sh: sh, tasks: map[string]taskRecord{}, unread: map[string]bool{}, runs: map[string]runRecord{},
		rawRuns: map[string]string{}, parts: map[string][]string{}, own: map[string]string{}, uniq: map[string]string{},
		places: map[string][]place{}, ordered: map[string]int64{}, workers: map[string]bool{}, cancels: map[string]string{}}
	for _, step := range []func(context.Context, *snapshot) error{s.readRecords, s.readLines, s.readShares, s.readHolders, s.readKept, s.readOrder, s.readPlans} {
		if err := step(ctx, a); err != nil {
			return nil, err
		}
	}
	var err error
	if a.stat, err = s.allStats(ctx, sh); err != nil {
		return nil, err
	}
	a.checkRecords()
	a.checkIndexes()
	a.checkUnique()
	a.checkShares()
	a.checkCounters()
	return a.faults, nil
}

// scan yields all fields of a hash.
func (s *Store) scan(ctx context.Context, key string, yield func(field, value string)) error {
	for cursor := uint64(0); ; {
		bounded, cancel := s.bounded(ctx, s.timeout)
		e, err := s.control.Do(bounded, s.control.B().Hscan().Key(key).Cursor(cursor).Count(500).Build()).AsScanEntry()
		cancel()
		if err != nil {
			return s.ended(bounded, err)
		}
		for i := 0; i+1 < len(e.Elements); i += 2 {
			yield(e.Elements[i], e.Elements[i+1])
		}
		if cursor = e.Cursor; cursor == 0 {
			return nil
		}
	}
}

// auditParts are the hashes with parts of a task that not every task has.
var auditParts = []string{"hist", "result", "news"}

func (s *Store) readRecords(ctx context.Context, a *snapshot) error {
	err := s.scan(ctx, a.sh.key("task"), func(id, v string) {
		t, err := parseTask(v)
		if err == nil {
			err = driver.DecodeEnvelope([]byte(t.envelope), &driver.Task{})
		}
		a.tasks[id] = t
		a.unread[id] = err != nil
	})
	if err != nil {
		return err
	}
	err = s.scan(ctx, a.sh.key("run"), func(id, v string) {
		t := a.tasks[id]
		r, err := parseRun(v, &t)
		if err != nil {
			a.unread[id] = true
			return
		}
		a.runs[id], a.rawRuns[id] = r, v
	})
	if err != nil {
		return err
	}
	for _, hash := range auditParts {
		if err := s.scan(ctx, a.sh.key(hash), func(id, _ string) { a.parts[hash] = append(a.parts[hash], id) }); err != nil {
			return err
		}
	}
	if err := s.scan(ctx, a.sh.key("own"), func(id, v string) { a.own[id] = v }); err != nil {
		return err
	}
	return s.scan(ctx, a.sh.key("uniq"), func(k, v string) { a.uniq[k] = v })
}

// pages yields a list or sorted set page by page.
func (s *Store) pages(ctx context.Context, cmd func(from, to int64) rueidis.Completed, yield func([]string)) error {
	const window = 1000
	for from := int64(0); ; from += window {
		bounded, cancel := s.bounded(ctx, s.timeout)
		v, err := s.control.Do(bounded, cmd(from, from+window-1)).AsStrSlice()
		cancel()
		if err != nil {
			return s.ended(bounded, err)
		}
		if len(v) > 0 {
			yield(v)
		}
		if len(v) < window {
			return nil
		}
	}
}

func (s *Store) list(ctx context.Context, key string, yield func([]string)) error {
	return s.pages(ctx, func(from, to int64) rueidis.Completed {
		return s.control.B().Lrange().Key(key).Start(from).Stop(to).Build()
	}, yield)
}

func (s *Store) sorted(ctx context.Context, key string, yield func([]string)) error {
	return s.pages(ctx, func(from, to int64) rueidis.Completed {
		return s.control.B().Zrange().Key(key).Min(strconv.FormatInt(from, 10)).Max(strconv.FormatInt(to, 10)).Build()
	}, yield)
}

func (a *snapshot) run(id string) (runRecord, bool) {
	if r, ok := a.runs[id]; ok {
		return r, true
	}
	t, ok := a.tasks[id]
	return freshRun(&t), ok
}

// ended reports whether a task has a run that says so.
func (a *snapshot) ended(id string) bool { return stateOf[a.runs[id].state].Ended() }

func (a *snapshot) at(id string, p place) { a.places[id] = append(a.places[id], p) }

// readLines reads what waits, in all pairs. Entries of a line whose task has moved on since are no faults: they are
// dropped when their turn comes.
func (s *Store) readLines(ctx context.Context, a *snapshot) error {
	for _, p := range a.sh.allPairs() {
		err := s.list(ctx, p.line, func(list []string) {
			for _, e := range list {
				if len(e) <= 6 {
					continue
				}
				if r, ok := a.run(e[placeHead:]); ok && r.state == letterAvailable && r.order == uint48(e) {
					a.at(e[placeHead:], place{letterAvailable, p.number, p.line, []string{"LREM", p.line, "1", e}})
				}
			}
		})
		if err != nil {
			return err
		}
		for _, z := range []struct {
			key   string
			state byte
		}{{p.back, letterAvailable}, {p.due, letterScheduled}, {p.exp, placeExpiring}} {
			err := s.sorted(ctx, z.key, func(ids []string) {
				for _, id := range ids {
					a.at(id, place{z.state, p.number, z.key, []string{"ZREM", z.key, id}})
				}
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// readHolders reads what workers hold and what is on hold.
func (s *Store) readHolders(ctx context.Context, a *snapshot) error {
	err := s.sorted(ctx, a.sh.key("workers"), func(ids []string) {
		for _, w := range ids {
			a.workers[w] = true
		}
	})
	if err != nil {
		return err
	}
	holders := map[string]bool{}
	for w := range a.workers {
		holders[w] = true
	}
	for _, r := range a.runs {
		if r.state == letterActive {
			holders[r.worker] = true
		}
	}
	for w := range holders {
		if err := s.members(ctx, a.sh.heldKey(w), letterActive, a); err != nil {
			return err
		}
		if err := s.scan(ctx, a.sh.cancelKey(w), func(id, _ string) { a.cancels[id] = w }); err != nil {
			return err
		}
	}
	return s.members(ctx, a.sh.key("hold"), letterPending, a)
}

func (s *Store) members(ctx context.Context, key string, state byte, a *snapshot) error {
	bounded, cancel := s.bounded(ctx, s.timeout)
	defer cancel()
	ids, err := s.control.Do(bounded, s.control.B().Smembers().Key(key).Build()).AsStrSlice()
	if err != nil {
		return s.ended(bounded, err)
	}
	for _, id := range ids {
		a.at(id, place{state, 0, key, []string{"SREM", key, id}})
	}
	return nil
}

func (s *Store) readKept(ctx context.Context, a *snapshot) error {
	for _, q := range a.sh.known.queues() {
		for _, state := range []byte{letterCompleted, letterCancelled, letterDiscarded} {
			key := a.sh.keptKey(state, q)
			met := map[string]bool{} // a task that ended twice within a millisecond has two entries that are alike
			err := s.list(ctx, key, func(list []string) {
				for _, e := range list {
					if len(e) <= keptHead {
						continue
					}
					if r, ok := a.runs[e[keptHead:]]; ok && r.state == state && r.ended == uint48(e) && !met[e] {
						met[e] = true
						a.at(e[keptHead:], place{state, 0, key, []string{"LREM", key, "1", e}})
					}
				}
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *Store) readOrder(ctx context.Context, a *snapshot) error {
	note := func(id string, seq int64) {
		if t, ok := a.tasks[id]; ok && t.seq == seq {
			a.ordered[id] = seq
		}
	}
	err := s.list(ctx, a.sh.key("ord"), func(list []string) {
		for _, e := range list {
			if len(e) > placeHead {
				note(e[placeHead:], uint48(e))
			}
		}
	})
	if err != nil {
		return err
	}
	return s.sorted(ctx, a.sh.key("old"), func(ids []string) {
		for _, id := range ids {
			if t, ok := a.tasks[id]; ok {
				note(id, t.seq)
			} else {
				a.report("orphan-index", id, "it stands in the order of enqueueing, but there is no such task").do("ZREM", a.sh.key("old"), id)
			}
		}
	})
}

// report notes a finding and returns the item that its repair is to be put into.
func (a *snapshot) report(kind, id, detail string) *item {
	f := fault{driver.Finding{Kind: kind, ID: driver.UnpackID([]byte(id)), Detail: detail}, id, &item{}}
	if raw, ok := a.rawRuns[id]; ok {
		f.fix.expect(a.sh.key("run"), id, raw, true)
	}
	a.faults = append(a.faults, f)
	return f.fix
}

// checkRecords looks for parts without a task, and tasks that can't be read.
func (a *snapshot) checkRecords() {
	for id := range a.runs {
		if _, ok := a.tasks[id]; !ok {
			a.report("orphan-part", id, "there is a state without its task").do("HDEL", a.sh.key("run"), id)
		}
	}
	for _, hash := range auditParts {
		for _, id := range a.parts[hash] {
			if _, ok := a.tasks[id]; !ok {
				a.report("orphan-part", id, "there is a "+hash+" without its task").do("HDEL", a.sh.key(hash), id)
			}
		}
	}
	for id, bad := range a.unread {
		if _, ok := a.tasks[id]; bad && ok && !a.ended(id) {
			a.report(unreadable, id, "the task's record can't be decoded; it will be discarded when its turn comes")
		}
	}
	for id := range a.tasks {
		if _, ok := a.ordered[id]; !ok && !a.unread[id] {
			t := a.tasks[id]
			a.report("missing-index", id, "the task is missing in the order of enqueueing").
				do("ZADD", a.sh.key("old"), strconv.FormatInt(t.seq, 10), id)
		}
	}
}

// checkIndexes looks that every task is in exactly the index of its state.
func (a *snapshot) checkIndexes() {
	for id, list := range a.places {
		if a.unread[id] && !a.ended(id) {
			continue
		}
		r, ok := a.run(id)
		right := 0
		for _, p := range list {
			switch {
			case !ok:
				a.undo("orphan-index", id, "there is an entry in "+a.short(p.key)+" without its task", p)
			case !a.belongs(id, &r, p):
				a.undo("wrong-index", id, "a task that is "+string(stateOf[r.state])+" has an entry in "+a.short(p.key), p)
			case p.state == placeExpiring:
			default:
				if right++; right > 1 {
					a.undo("double-index", id, "the task stands in line twice, also in "+a.short(p.key), p)
				}
			}
		}
	}
	for id := range a.tasks {
		r, _ := a.run(id)
		if a.unread[id] && !a.ended(id) {
			continue
		}
		if !slices.ContainsFunc(a.places[id], func(p place) bool { return p.state != placeExpiring && a.belongs(id, &r, p) }) {
			a.reindex(id, &r)
		}
		if r.state == letterActive && !a.workers[r.worker] {
			a.report("leaked-lease", id, "the task is held by a worker that is not registered").
				do("ZADD", a.sh.key("workers"), "0", r.worker) // so that it is recovered from there
		}
		wantsExpiry := r.state == letterAvailable && r.flags&flagExpires != 0
		hasExpiry := slices.ContainsFunc(a.places[id], func(p place) bool { return p.state == placeExpiring })
		if wantsExpiry && !hasExpiry {
			key := a.sh.expKey(r.pair)
			a.report("missing-index", id, "the task is missing in "+a.short(key)).do("ZADD", key, strconv.FormatInt(r.expires, 10), id)
		}
		a.checkCancel(id, &r)
	}
}

func (a *snapshot) checkCancel(id string, r *runRecord) {
	wanted := r.state == letterActive && r.flags&flagCancel != 0
	w, there := a.cancels[id]
	switch {
	case wanted && (!there || w != r.worker):
		a.report("missing-index", id, "a cancellation that was asked for is not delivered").
			do("HSET", a.sh.cancelKey(r.worker), id, string(appendUint64(nil, uint64(makeToken(r.token, r.pair)))))
	case there && !wanted:
		a.report("wrong-index", id, "a cancellation is delivered that nobody asked for").do("HDEL", a.sh.cancelKey(w), id)
	}
}

func (a *snapshot) short(key string) string { return strings.TrimPrefix(key, a.sh.prefix) }

func (a *snapshot) undo(kind, id, detail string, p place) {
	a.report(kind, id, detail).do(p.undo[0], p.undo[1], p.undo[2:]...)
}

// belongs reports whether a task is to be at a place.
func (a *snapshot) belongs(id string, r *runRecord, p place) bool {
	switch p.state {
	case placeExpiring:
		return r.state == letterAvailable && r.flags&flagExpires != 0 && r.pair == p.pair
	case letterAvailable:
		inFlow := strings.HasPrefix(p.key, a.sh.prefix+"flow/") || strings.HasPrefix(p.key, a.sh.prefix+"heads/")
		return r.state == letterAvailable && r.pair == p.pair && a.inFlow(id, r) == inFlow
	case letterScheduled:
		return (r.state == letterScheduled || r.state == letterRetryable) && r.pair == p.pair
	case letterActive:
		return r.state == letterActive && p.key == a.sh.heldKey(r.worker)
	}
	return r.state == p.state
}

// reindex puts a task that no index knows into that of its state.
func (a *snapshot) reindex(id string, r *runRecord) {
	it := a.report("missing-index", id, "a task that is "+string(stateOf[r.state])+" is in no index")
	queue := ""
	if p := a.sh.byNumber(r.pair); p != nil {
		queue = p.queue
	}
	switch r.state {
	case letterAvailable:
		if a.inFlow(id, r) {
			t := a.tasks[id]
			keys := a.sh.shareKeys(queue)
			it.do("FLOW", keys[0], append(keys[1:], "+", t.key, strconv.Itoa(r.pair), strconv.Itoa(r.priority+storedPlain),
				strconv.FormatInt(r.expires, 10), strconv.FormatInt(r.order, 10), id, "0")...)
			break
		}
		score := int64(r.priority+storedPlain)*storedBand + r.order
		it.do("ZADD", a.sh.backKey(r.pair), strconv.FormatInt(score, 10), id)
	case letterScheduled, letterRetryable:
		it.do("ZADD", a.sh.dueKey(r.pair), strconv.FormatInt(r.due, 10), id)
	case letterPending:
		it.do("SADD", a.sh.key("hold"), id)
	case letterActive:
		it.do("SADD", a.sh.heldKey(r.worker), id)
	default:
		it.do("RPUSH", a.sh.keptKey(r.state, queue), string(appendUint48(nil, r.ended))+id)
	}
}

// checkUnique looks that unique keys and their owners name each other.
func (a *snapshot) checkUnique() {
	for key, v := range a.uniq {
		if len(v) <= ownerHead {
			a.report("bad-unique", "", "the owner of a unique key can't be read").do("HDEL", a.sh.key("uniq"), key)
			continue
		}
		id := v[ownerHead:]
		r, ok := a.run(id)
		switch {
		case v[0]&uniqueRemote != 0: // its owner is looked at by whoever wants the key
		case v[0] == uniqueTTL: // holds for its time, whatever becomes of the owner
		case !ok || stateOf[r.state].Ended():
			it := a.report("leaked-unique", id, "a unique key is owned by a task that has ended")
			it.do("HDEL", a.sh.key("uniq"), key)
			it.do("HDEL", a.sh.key("own"), id)
		case a.own[id] != string(v[0])+key:
			a.report("leaked-unique", id, "a unique key is owned by a task that does not know of it").
				do("HSET", a.sh.key("own"), id, string(v[0])+key)
		}
	}
	for id, v := range a.own {
		owner := a.uniq[v[1:]]
		if len(owner) <= ownerHead || owner[ownerHead:] != id {
			a.report("leaked-unique", id, "a task says it owns a unique key that is not its own").do("HDEL", a.sh.key("own"), id)
		}
	}
}
