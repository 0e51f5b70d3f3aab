package memstore

import (
	"context"
	"slices"

	"github.com/waggleq/waggle/driver"
)

// NewID implements [driver.Enqueuer].
func (s *Store) NewID(t *driver.Task) string { return driver.NewIDWithKey(t.Key) }

// Enqueue implements [driver.Enqueuer].
func (s *Store) Enqueue(ctx context.Context, tasks []*driver.Task, opts driver.EnqueueOptions) ([]driver.EnqueueResult, error) {
	level, err := driver.ReachableDurability(s.caps, opts.Durability)
	if err != nil {
		return nil, err
	}
	if err := driver.CheckBatch(tasks, s.caps.Limit); err != nil {
		return nil, err
	}
	results := make([]driver.EnqueueResult, len(tasks))
	prepared, records := make([]*task, len(tasks)), block[task]{}
	now := s.present()
	for i, in := range tasks { // without the lock: this is half of the work
		t := records.next(len(tasks) - i)
		t.Task = *in
		t.Detach()
		err := driver.Prepare(&t.Task, s.caps, now)
		prepared[i], results[i] = t, driver.EnqueueResult{ID: t.ID, Err: err}
		if in.ID == "" { // one that is set is only read: a caller who gave up may be reading it too
			in.ID = t.ID
		}
	}
	if err := s.lock(ctx); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	for i, t := range prepared {
		if results[i].Err == nil {
			results[i] = s.accept(t)
		}
		if results[i].Err == nil {
			results[i].Durability = level
		}
	}
	return results, nil
}

// accept stores one task, or tells why not.
func (s *Store) accept(t *task) driver.EnqueueResult {
	if old := s.tasks[t.ID]; old != nil {
		return driver.EnqueueResult{ID: old.ID, State: old.stateAt(s.now), Existing: true}
	}
	s.lastSeq++
	t.seq, t.EnqueuedAt, t.DueAt = s.lastSeq, s.now, s.now
	if q := s.queues[t.Queue]; q != nil && q.config.Draining {
		return driver.EnqueueResult{ID: t.ID, Err: driver.Errorf(driver.ErrQueueClosed, "queue %s is draining and takes no tasks", q.name)}
	}
	if q := s.queues[t.Queue]; q != nil {
		if err := q.config.Admits(&t.Task); err != nil {
			return driver.EnqueueResult{ID: t.ID, Err: err}
		}
	}
	if t.Unique != nil {
		if taken := s.taken(t); taken != nil {
			return *taken
		}
	}
	if err := s.makeRoom(t); err != nil {
		return driver.EnqueueResult{ID: t.ID, Err: err}
	}
	if t.Unique != nil {
		s.claimKey(t)
	}
	q := s.queue(t.Queue)
	t.line = q.line(t.Type)
	s.tasks[t.ID] = t
	s.journal.tasks = append(s.journal.tasks, t)
	q.totals.Enqueued++
	switch {
	case t.Hold:
		s.move(t, driver.Pending, "")
	case t.At.After(s.now):
		s.wait(t, driver.Scheduled, t.At.Sub(s.now))
	default:
		s.enter(t)
	}
	return driver.EnqueueResult{ID: t.ID, State: t.State}
}

// taken returns what the policy of a new task says of the conflict with the owner of its unique key, nil if it may have the key.
func (s *Store) taken(t *task) *driver.EnqueueResult {
	owner := s.owner(t.Unique.Key)
	if owner == nil {
		return nil
	}
	state := owner.stateAt(s.now)
	switch policy := t.Unique.OnConflict; {
	case policy == driver.ConflictReturn:
		return &driver.EnqueueResult{ID: owner.ID, State: state, Existing: true}
	case policy == driver.ConflictReject, owner.State == driver.Active:
		err := driver.Errorf(driver.ErrDuplicate, "the unique key %q is taken by task %s", t.Unique.Key, owner.ID)
		return &driver.EnqueueResult{ID: owner.ID, State: state, Err: err}
	}
	return nil
}

// claimKey makes a new task the owner of its unique key, which it may have.
func (s *Store) claimKey(t *task) {
	if owner := s.owner(t.Unique.Key); owner != nil {
		if !owner.removed() && !owner.stateAt(s.now).Ended() {
			s.move(owner, driver.Cancelled, driver.ReasonReplaced)
		}
		s.freeKey(owner, owner.Unique.Until)
	}
	s.takeKey(t)
}

// owner returns the owner of a unique key, nil if it is free.
func (s *Store) owner(key string) *task {
	t := s.keys[key]
	if t != nil && t.Unique.Until == driver.UntilTTL && !t.keyEnd().After(s.now) {
		s.freeKey(t, driver.UntilTTL)
		return nil
	}
	if t != nil && t.Unique.Until != driver.UntilTTL && t.lapsed(s.now) {
		return nil // takeKey records it
	}
	return t
}

func (s *Store) takeKey(t *task) {
	if old := s.keys[t.Unique.Key]; old != nil && old.lapsed(s.now) {
		s.expire(old)
	}
	s.keys[t.Unique.Key] = t
	if t.Unique.Until == driver.UntilTTL {
		s.keyEnds.push(t)
	}
}

// freeKey frees the unique key that t owns if it ends in one of the given ways.
func (s *Store) freeKey(t *task, ends ...driver.UniqueUntil) {
	if t.Unique == nil || s.keys[t.Unique.Key] != t || !slices.Contains(ends, t.Unique.Until) {
		return
	}
	delete(s.keys, t.Unique.Key)
	if t.Unique.Until == driver.UntilTTL {
		s.keyEnds.remove(t)
	}
}
