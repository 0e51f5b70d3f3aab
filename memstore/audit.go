package memstore

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/waggleq/waggle/driver"
)

// Audit implements [driver.Maintainer]. Repair rebuilds every index and counter from the records.
func (s *Store) Audit(ctx context.Context, repair bool) ([]driver.Finding, error) {
	if err := s.lock(ctx); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	findings := s.check()
	if repair && len(findings) > 0 {
		s.rebuild()
		left := s.check()
		for i, f := range findings {
			findings[i].Repaired = !slices.ContainsFunc(left, func(l driver.Finding) bool { return l.Kind == f.Kind && l.ID == f.ID })
		}
	}
	return findings, nil
}

// audit collects findings.
type audit []driver.Finding

func (a *audit) expect(ok bool, kind, id, format string, args ...any) {
	if !ok {
		*a = append(*a, driver.Finding{Kind: kind, ID: id, Detail: fmt.Sprintf(format, args...)})
	}
}

func (s *Store) check() []driver.Finding {
	var a audit
	places := map[any]int{} // tasks that belong in each list or heap
	counts := map[*line]map[driver.State]int{}
	listed := 0
	for t := range s.journal.oldest() {
		listed++
		a.expect(s.tasks[t.ID] == t, "orphan-journal", t.ID, "the journal has a task that is not in the store")
	}
	a.expect(listed == len(s.tasks), "count-journal", "", "the journal has %d tasks, the store %d", listed, len(s.tasks))
	for _, t := range s.tasks {
		s.checkTask(&a, t, places)
		if counts[t.line] == nil {
			counts[t.line] = map[driver.State]int{}
		}
		counts[t.line][t.State]++
	}
	for _, q := range s.queues {
		s.checkQueue(&a, q, places, counts)
	}
	s.checkKeys(&a)
	for _, w := range s.workers {
		a.expect(w.held.len == places[w], "count-held", w.ID, "worker holds %d tasks, its list has %d", places[w], w.held.len)
	}
	s.checkPlans(&a)
	ttl := 0
	for key, t := range s.keys {
		if t.Unique.Until == driver.UntilTTL {
			ttl++
			a.expect(inHeap(&s.keyEnds, t), "missing-key-end", t.ID, "the end of unique key %q is not in sight", key)
			continue
		}
		a.expect(s.tasks[t.ID] == t && t.ownsKey(), "orphan-key", t.ID, "unique key %q belongs to no live task", key)
	}
	a.expect(ttl == len(s.keyEnds.items), "count-key-ends", "", "%d unique keys have a TTL, %d are listed", ttl, len(s.keyEnds.items))
	return a
}

// ownsKey reports whether the task's state makes it the owner of a unique key without TTL.
func (t *task) ownsKey() bool {
	if t.Unique == nil || t.State.Ended() {
		return false
	}
	return t.Unique.Until == driver.UntilDone || t.Unique.Until == driver.UntilStarted && t.ClaimedAt.IsZero()
}

// checkTask checks that a task is in the places of its state, and counts them.
func (s *Store) checkTask(a *audit, t *task, places map[any]int) {
	heaps, l := []*heap{}, t.line
	switch {
	case t.State == driver.Available:
		if l.queue.flows(t) {
			a.expect(t.flow != nil, "missing-flow", t.ID, "available, but in no flow of its key")
			if t.flow != nil {
				heaps = append(heaps, &t.flow.tasks)
			}
		} else {
			heaps = append(heaps, &l.heaps[byPriority])
		}
		if !t.ExpiresAt.IsZero() {
			heaps = append(heaps, &l.heaps[byExpiry])
		}
	case t.State == driver.Scheduled || t.State == driver.Retryable:
		heaps = append(heaps, &l.heaps[byDue])
	case t.State == driver.Active:
		w := s.workers[t.Worker]
		a.expect(w != nil && t.in != nil, "orphan-active", t.ID, "active, but worker %s does not hold it", t.Worker)
		if w != nil {
			places[w]++
			_, asked := w.cancels[t.ID]
			a.expect(asked == t.CancelRequested, "lost-cancel", t.ID, "worker %s is not asked to cancel what it should", t.Worker)
		}
	case t.State.Ended():
		a.expect(t.in != nil && !t.EndedAt.IsZero(), "orphan-ended", t.ID, "%s, but not in the list of these", t.State)
		places[l.queue.kept.of(t.State)]++
	}
	for _, h := range heaps {
		a.expect(inHeap(h, t), "missing-index", t.ID, "%s, but not where it should wait", t.State)
		places[h]++
	}
	a.expect(!t.ownsKey() || t.Unique.Until != driver.UntilDone || s.keys[t.Unique.Key] == t, "lost-key", t.ID, "does not own its unique key")
}

func inHeap(h *heap, t *task) bool {
	i, e := int(t.pos[h.by]), h.by.entry(t)
	return i < len(h.items) && h.items[i] == e && (i == 0 || !e.less(&h.items[(i-1)/arity]))
}

// checkQueue checks a queue's counters against what was counted.
func (s *Store) checkQueue(a *audit, q *queue, places map[any]int, counts map[*line]map[driver.State]int) {
	live := int64(0)
	for _, l := range q.lines {
		for i := range l.heaps {
			h := &l.heaps[i]
			a.expect(len(h.items) == places[h], "count-index", "", "%s/%s: %d tasks belong in index %d, it has %d", q.name, l.typ, places[h], i, len(h.items))
		}
		for i, state := range driver.States {
			n := counts[l][state]
			a.expect(l.counts[i] == n, "count-state", "", "%s/%s: %d tasks are %s, %d are counted", q.name, l.typ, n, state, l.counts[i])
			if !state.Ended() {
				live += int64(n)
			}
		}
	}
	for i, state := range driver.States {
		k := &q.kept[i]
		a.expect(k.len == places[k], "count-kept", "", "%s: %d tasks are %s, %d are listed", q.name, places[k], state, k.len)
		bytes := int64(0)
		for t := range k.all() {
			bytes += t.bytes()
		}
		a.expect(k.bytes == bytes, "count-bytes", "", "%s: %s tasks have %d bytes, %d are counted", q.name, state, bytes, k.bytes)
	}
	t := q.totals
	a.expect(t.Enqueued+t.Retried == t.Completed+t.Cancelled+t.Discarded+t.DeletedLive+live, "totals", q.name, "%s: %+v does not add up with %d live tasks", q.name, t, live)
}

// rebuild makes all indexes and counters anew from the records. A task whose worker is gone becomes available.
func (s *Store) rebuild() {
	s.journal = journal{tasks: slices.SortedFunc(maps.Values(s.tasks), func(a, b *task) int { return cmp.Compare(a.seq, b.seq) })}
	for _, q := range s.queues {
		q.lines, q.kept, q.ages = map[string]*line{}, byState[kept]{}, ages{}
		q.keys, q.flowing, q.openings = map[string]*key{}, 0, nil // tags and rates begin anew
	}
	for _, w := range s.workers {
		w.held = list{}
		clear(w.cancels)
	}
	s.rebuildPlans()
	s.keyEnds.items = nil
	owners := slices.Collect(maps.Values(s.keys)) // of a TTL, also those whose record is gone
	clear(s.keys)
	for _, t := range owners {
		if t.Unique.Until == driver.UntilTTL {
			s.takeKey(t)
		}
	}
	live := map[*queue]int64{}
	for _, t := range slices.SortedStableFunc(s.journal.oldest(), func(a, b *task) int { return a.EndedAt.Compare(b.EndedAt) }) {
		if t.State == driver.Active && s.workers[t.Worker] == nil {
			t.State, t.CancelRequested = driver.Available, false
		}
		t.line, t.flow = s.queue(t.Queue).line(t.Type), nil
		s.link(t)
		if t.CancelRequested {
			s.workers[t.Worker].cancels[t.ID] = t.Token
		}
		if t.ownsKey() && s.keys[t.Unique.Key] == nil {
			s.takeKey(t)
		}
		if !t.State.Ended() {
			live[t.line.queue]++
		}
	}
	for _, q := range s.queues {
		for name := range q.keys {
			s.regate(q, name, false)
		}
		t := &q.totals
		t.Enqueued = t.Completed + t.Cancelled + t.Discarded + t.DeletedLive + live[q] - t.Retried
	}
}
