package redisstore

import (
	"context"
	"slices"
	"time"

	"github.com/waggleq/waggle/driver"
)

// In a cluster a unique key has a home shard too, by its hash. A new task without an id is put there, and one script
// decides. A task whose caller chose the id lives where its id says, so its key is reserved in the key's home first, as
// a remote owner: mode | uniqueRemote. Such a reservation is not freed when its owner ends; whoever wants the key looks
// at the owner and takes the key over if that has no claim to it any more. So no message between shards can get lost.

// uniqueRemote marks owners that live in another shard than their key.
const uniqueRemote = 8

// reserveGrace is how long a reservation without its task is respected: that task may be about to be stored.
const reserveGrace = 10 * time.Second

// replaced is a task that another has replaced as the owner of its unique key, and the state that it had until then.
type replaced struct {
	id    string
	state driver.State
}

// inCallOrder makes the results what they would be had the tasks been stored one after the other. Shards are asked at
// once, and some tasks before others; all that a task does to those of its call in other shards is that it replaces an
// owner, and all that they do with an owner that is there is to tell its state.
func inCallOrder(results []driver.EnqueueResult, batches [][]*newTask) {
	type replacement struct {
		replaced
		at int
	}
	var done map[string]replacement
	for _, t := range slices.Concat(batches...) {
		for _, r := range t.replaced {
			if done == nil {
				done = map[string]replacement{}
			}
			done[r.id] = replacement{r, t.at}
		}
	}
	if done == nil {
		return
	}
	for i := range results {
		r := &results[i]
		by, found := done[r.ID]
		switch {
		case !found || !r.Existing:
		case by.at < i:
			r.State = driver.Cancelled
		case r.State == driver.Cancelled:
			r.State = by.state
		}
	}
}

// remote reports whether a task's unique key lives in another shard than the task.
func (s *Store) remote(t *newTask) bool {
	u := t.task.Unique
	return u != nil && len(s.shards) > 1 && s.shardOfKey(u.Key) != s.shardOf(t.task.ID)
}

// enqueueRemote stores one task whose unique key is another shard's, or owned by a task in another shard.
func (s *Store) enqueueRemote(ctx context.Context, t *newTask, level driver.Durability, results []driver.EnqueueResult) error {
	home := s.shardOf(t.task.ID)
	if t.task.Unique == nil {
		return s.enqueueShard(ctx, home, []*newTask{t}, level, results)
	}
	entries, now, err := s.read(ctx, home, []string{t.id})
	if err != nil {
		return err
	}
	if e := entries[0]; e != nil {
		results[t.at] = driver.EnqueueResult{ID: t.task.ID, State: e.run.stateAt(now), Existing: true, Durability: level}
		return s.confirm(ctx, home, level)
	}
	if err := s.refresh(ctx, home); err != nil {
		return err
	}
	if home.known.config(t.task.Queue).Draining {
		results[t.at] = driver.EnqueueResult{ID: t.task.ID, Err: driver.Errorf(driver.ErrQueueClosed, "queue %s is draining and takes no tasks", t.task.Queue)}
		return nil
	}
	if bound := home.known.config(t.task.Queue).Bound; bound.Max > 0 && !t.must { // before an owner is replaced
		room, err := s.roomForRemote(ctx, t, bound)
		if err != nil {
			return err
		}
		if !room {
			results[t.at] = driver.EnqueueResult{ID: t.task.ID, Err: &driver.QueueFullError{Queue: t.task.Queue, Bound: bound}}
			return nil
		}
	}
	taken, err := s.reserveKey(ctx, t, true)
	if err != nil {
		return err
	}
	if taken != nil {
		results[t.at] = *taken
		if taken.Err != nil {
			return nil
		}
		results[t.at].Durability = level
		return s.confirm(ctx, s.shardOf(taken.ID), level)
	}
	free := *t.task
	free.Unique = nil
	err = s.enqueueShard(ctx, home, []*newTask{{task: &free, id: t.id, at: t.at, unique: t.task.Unique, must: true}}, level, results)
	if err != nil || t.task.Unique.Until == driver.UntilTTL {
		return err
	}
	return s.confirmKey(ctx, t)
}

// confirmKey says that a reservation's task is stored, so that the key is free as soon as that is gone.
func (s *Store) confirmKey(ctx context.Context, t *newTask) error {
	sh := s.shardOfKey(t.task.Unique.Key)
	values, err := s.hashFields(ctx, sh, "uniq", []string{t.task.Unique.Key})
	if err != nil || len(values[0]) <= ownerHead || values[0][ownerHead:] != t.id {
		return err
	}
	it := &item{}
	it.expect(sh.key("uniq"), t.task.Unique.Key, values[0], true)
	it.do("HSET", sh.key("uniq"), t.task.Unique.Key, string(appendUint48([]byte{values[0][0]}, 0))+t.id)
	_, err = s.commit(ctx, sh, []*item{it})
	return err
}

// reserveKey makes a task the owner of its unique key, or returns what its policy says of the conflict.
func (s *Store) reserveKey(ctx context.Context, t *newTask, replace bool) (*driver.EnqueueResult, error) {
	u := t.task.Unique
	sh := s.shardOfKey(u.Key)
	for range changeTries {
		values, err := s.hashFields(ctx, sh, "uniq", []string{u.Key})
		if err != nil {
			return nil, err
		}
		_, now, err := s.read(ctx, sh, nil)
		if err != nil {
			return nil, err
		}
		owner := values[0]
		if owner != "" && owner[ownerHead:] != t.id {
			taken, err := s.contend(ctx, sh, t, owner, now, replace)
			if err != nil || taken != nil {
				return taken, err
			}
		}
		if t.dry {
			return nil, nil
		}
		it := &item{}
		it.expect(sh.key("uniq"), u.Key, owner, owner != "")
		it.do("HSET", sh.key("uniq"), u.Key, string(uniqueValue(u, now))+t.id)
		if owner != "" {
			it.do("HDEL", sh.key("own"), owner[ownerHead:])
		}
		done, err := s.commit(ctx, sh, []*item{it})
		if err != nil {
			return nil, err
		}
		if done[0] {
			return nil, nil
		}
	}
	return nil, driver.Errorf(driver.ErrUnavailable, "%s: the unique key changed its owner too often", s.where)
}

// dropReservation gives up what is left of a task's reservation after its end. It must be gone before the task lives again,
// or the task would seem to have the claim to it that it lost.
func (s *Store) dropReservation(ctx context.Context, key, id string) error {
	if len(s.shards) == 1 {
		return nil
	}
	sh := s.shardOfKey(key)
	values, err := s.hashFields(ctx, sh, "uniq", []string{key})
	if err != nil || len(values[0]) <= ownerHead || values[0][0]&uniqueRemote == 0 || values[0][ownerHead:] != id {
		return err
	}
	it := &item{}
	it.expect(sh.key("uniq"), key, values[0], true)
	it.do("HDEL", sh.key("uniq"), key)
	_, err = s.commit(ctx, sh, []*item{it})
	return err
}

// uniqueValue is the head of a remote owner's entry. For an end that is no time it tells until when a reservation without
// its task is respected.
func uniqueValue(u *driver.Unique, now int64) []byte {
	mode := map[driver.UniqueUntil]byte{driver.UntilDone: uniqueDone, driver.UntilStarted: uniqueStarted, driver.UntilTTL: uniqueTTL}[u.Until]
	until := now + reserveGrace.Milliseconds()
	if mode == uniqueTTL {
		until = now + ceilMillis(u.TTL)
	}
	return appendUint48([]byte{mode | uniqueRemote}, until)
}

// contend decides between a new task and the owner of its unique key: nil if the key may be taken over.
func (s *Store) contend(ctx context.Context, sh *shard, t *newTask, owner string, now int64, replace bool) (*driver.EnqueueResult, error) {
	u, id := t.task.Unique, owner[ownerHead:]
	name := driver.UnpackID([]byte(id))
	home := sh
	if owner[0]&uniqueRemote != 0 {
		home = s.shardOf(name)
	}
	for range changeTries {
		entries, at, err := s.read(ctx, home, []string{id})
		if err != nil {
			return nil, err
		}
		e := claimant(entries[0], u.Key)
		if !owns(owner, e, now) {
			return nil, nil
		}
		state := driver.State("")
		if e != nil {
			state = e.run.stateAt(at)
		}
		if e != nil && e.run.lapsed(at) && owner[0]&^uniqueRemote != uniqueTTL {
			if t.dry {
				return nil, nil
			}
			_, err := s.expire(ctx, home, []string{id})
			return nil, err
		}
		if replace && u.OnConflict == driver.ConflictReturn {
			return &driver.EnqueueResult{ID: name, State: state, Existing: true}, nil
		}
		if !replace || u.OnConflict == driver.ConflictReject || state == driver.Active || e == nil && owner[0]&^uniqueRemote != uniqueTTL {
			return &driver.EnqueueResult{ID: name, State: state,
				Err: driver.Errorf(driver.ErrDuplicate, "the unique key of task %s is owned by task %s", t.task.ID, name)}, nil
		}
		if e == nil || state.Ended() {
			return nil, nil
		}
		if t.dry {
			p, err := s.pairOf(ctx, home, e.run.pair)
			if err == nil && state.Waits() {
				t.leaves = p.queue
			}
			return nil, err
		}
		done, err := s.replaceOwner(ctx, home, e, at)
		if done {
			t.replaced = append(t.replaced, replaced{id: name, state: state})
		}
		if err != nil || done {
			return nil, err
		}
	}
	return nil, driver.Errorf(driver.ErrUnavailable, "%s: the owner of the unique key changed too often", s.where)
}

// claimant is the entry of a unique key's owner, nil if its task never asked for the key: the one that did was removed, and
// its id is there anew.
func claimant(e *entry, key string) *entry {
	if e == nil {
		return nil
	}
	var t driver.Task
	if err := driver.DecodeEnvelope([]byte(e.task.envelope), &t); err == nil && (t.Unique == nil || t.Unique.Key != key) {
		return nil
	}
	return e
}

// owns reports whether the owner of a unique key has a claim to it still.
func owns(owner string, e *entry, now int64) bool {
	until := uint48(owner[ownerUntil:])
	switch owner[0] &^ uniqueRemote {
	case uniqueTTL:
		return until > now
	case uniqueStarted:
		if e != nil && (e.run.claimed != 0 || stateOf[e.run.state].Ended()) {
			return false
		}
	case uniqueDone:
		if e != nil && stateOf[e.run.state].Ended() {
			return false
		}
	}
	if e == nil {
		return owner[0]&uniqueRemote != 0 && until > now
	}
	return true
}

func (s *Store) replaceOwner(ctx context.Context, home *shard, e *entry, now int64) (bool, error) {
	p, err := s.pairOf(ctx, home, e.run.pair)
	if err != nil {
		return false, err
	}
	m := &mover{s: s, sh: home, now: now}
	it := m.begin(e)
	m.move(it, e, p, letterCancelled, driver.ReasonReplaced)
	done, err := s.commit(ctx, home, []*item{it})
	m.wakeElsewhere(ctx)
	return err == nil && done[0], err
}

// dropRemoteKeys removes reservations whose owners have no claim to them any more; keys and owners are parallel.
func (s *Store) dropRemoteKeys(ctx context.Context, sh *shard, keys, owners []string, now int64) ([]*item, error) {
	var items []*item
	for i, owner := range owners {
		id := owner[ownerHead:]
		entries, _, err := s.read(ctx, s.shardOf(driver.UnpackID([]byte(id))), []string{id})
		if err != nil {
			return nil, err
		}
		if !owns(owner, claimant(entries[0], keys[i]), now) {
			it := &item{}
			it.expect(sh.key("uniq"), keys[i], owner, true)
			it.do("HDEL", sh.key("uniq"), keys[i])
			items = append(items, it)
		}
	}
	return slices.Clip(items), nil
}
