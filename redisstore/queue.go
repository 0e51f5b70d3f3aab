package redisstore

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strconv"
	"time"

	"github.com/redis/rueidis"

	"github.com/waggleq/waggle/driver"
)

// stats returns a shard's counters.
func (s *Store) stats(ctx context.Context, sh *shard) (map[string]int, error) {
	ctx, cancel := s.bounded(ctx, s.timeout)
	defer cancel()
	n, err := s.control.Do(ctx, s.control.B().Hlen().Key(sh.key("stat")).Build()).AsInt64()
	if err != nil {
		return nil, s.ended(ctx, err)
	}
	if n > mostStats {
		return s.statsInParts(ctx, sh)
	}
	return s.allStats(ctx, sh)
}

// allStats reads all counters by one command, also those that belong to nothing.
func (s *Store) allStats(ctx context.Context, sh *shard) (map[string]int, error) {
	ctx, cancel := s.bounded(ctx, s.timeout)
	defer cancel()
	m, err := s.control.Do(ctx, s.control.B().Hgetall().Key(sh.key("stat")).Build()).AsStrMap()
	if err != nil {
		return nil, s.ended(ctx, err)
	}
	stat := make(map[string]int, len(m))
	for k, v := range m {
		stat[k], _ = strconv.Atoi(v)
	}
	return stat, nil
}

// mostStats is how many counters are read by one command: more would hold up the server.
const mostStats = 5000

// statsInParts reads the counters of a shard with many pairs. Those of one pair, and those of one queue, are of one moment.
func (s *Store) statsInParts(ctx context.Context, sh *shard) (map[string]int, error) {
	return s.statsOf(ctx, sh, sh.allPairs(), sh.known.queues())
}

// statsOf reads the counters of these pairs and queues.
func (s *Store) statsOf(ctx context.Context, sh *shard, pairs []*pair, queues []string) (map[string]int, error) {
	stat := map[string]int{}
	read := func(fields []string) error {
		values, err := s.hashFields(ctx, sh, "stat", fields)
		for i, v := range values {
			if v != "" {
				stat[fields[i]], _ = strconv.Atoi(v)
			}
		}
		return err
	}
	for some := range slices.Chunk(pairs, mostStats/len(statLetters)) {
		var fields []string
		for _, p := range some {
			for i := range statLetters {
				fields = append(fields, statLetters[i:i+1]+p.digits)
			}
		}
		if err := read(fields); err != nil {
			return nil, err
		}
	}
	for some := range slices.Chunk(queues, mostStats/len(keptLetters)/len(endLetters)) {
		var fields []string
		for _, q := range some {
			for _, kind := range keptLetters {
				for _, state := range endLetters {
					fields = append(fields, string(kind)+string(state)+q)
				}
			}
		}
		if err := read(fields); err != nil {
			return nil, err
		}
	}
	return stat, nil
}

// Queues implements driver.Inspector.
func (s *Store) Queues(ctx context.Context, names ...string) ([]driver.QueueInfo, error) {
	if s.closed() {
		return nil, driver.ErrClosed
	}
	parts, waits := make([]map[string]*driver.QueueInfo, len(s.shards)), make([]map[string][]shareCount, len(s.shards))
	err := s.eachShard(ctx, func(ctx context.Context, sh *shard) (err error) {
		parts[sh.number], waits[sh.number], err = s.queuesOf(ctx, sh, names)
		return err
	}, nil)
	if err != nil {
		return nil, err
	}
	infos := parts[0]
	for _, part := range parts[1:] {
		for name, q := range part {
			if infos[name] == nil {
				infos[name] = q
			} else {
				addQueue(infos[name], q)
			}
		}
	}
	list := make([]driver.QueueInfo, 0, len(infos))
	for _, q := range infos {
		if err := s.addParked(ctx, q, waits); err != nil {
			return nil, err
		}
		slices.SortFunc(q.Types, func(a, b driver.TypeInfo) int { return cmp.Compare(a.Type, b.Type) })
		list = append(list, *q)
	}
	slices.SortFunc(list, func(a, b driver.QueueInfo) int { return cmp.Compare(a.Name, b.Name) })
	return list, nil
}

// queuesOf returns the figures of one shard, of all queues or those with these names.
func (s *Store) queuesOf(ctx context.Context, sh *shard, names []string) (map[string]*driver.QueueInfo, map[string][]shareCount, error) {
	if err := s.refresh(ctx, sh); err != nil {
		return nil, nil, err
	}
	if len(names) == 0 {
		names = sh.known.queues()
	} else {
		names = distinctNames(names)
	}
	var pairs []*pair
	for _, name := range names {
		pairs = append(pairs, sh.ofQueue(name, nil)...)
	}
	stat, err := s.statsOf(ctx, sh, pairs, nil)
	if err != nil {
		return nil, nil, err
	}
	due, err := s.bringUp(ctx, sh, pairs, stat)
	if err != nil {
		return nil, nil, err
	}
	oldest, err := s.oldestOfAll(ctx, sh, slices.DeleteFunc(pairs, func(p *pair) bool { return stat[string(letterAvailable)+p.digits] == 0 }))
	if err != nil {
		return nil, nil, err
	}
	infos, waits := make(map[string]*driver.QueueInfo, len(names)), map[string][]shareCount{}
	for _, name := range names {
		if !sh.everUsed(name, stat) {
			continue
		}
		q := &driver.QueueInfo{Name: name, Config: sh.known.config(name), Counts: zeroCounts()}
		infos[name] = q
		for _, p := range sh.ofQueue(name, nil) {
			addPair(q, p, stat)
			if stat[string(letterAvailable)+p.digits] != 0 {
				q.OldestAvailable = earlier(q.OldestAvailable, oldestOf(oldest[p], due[p]))
			}
		}
		if waits[name], err = s.addShare(ctx, sh, q, stat); err != nil {
			return nil, nil, err
		}
	}
	return infos, waits, nil
}

// addQueue adds the figures that another shard has of a queue.
func addQueue(q, other *driver.QueueInfo) {
	for st, n := range other.Counts {
		q.Counts[st] += n
	}
	addTotals(&q.Totals, &other.Totals)
	for _, t := range other.Types {
		if i := slices.IndexFunc(q.Types, func(u driver.TypeInfo) bool { return u.Type == t.Type }); i >= 0 {
			for st, n := range t.Counts {
				q.Types[i].Counts[st] += n
			}
		} else {
			q.Types = append(q.Types, t)
		}
	}
	q.OldestAvailable = earlier(q.OldestAvailable, other.OldestAvailable)
	for i := range min(len(q.Limits), len(other.Limits)) {
		q.Limits[i].Held += other.Limits[i].Held
	}
}

func addTotals(t, other *driver.Totals) {
	for _, n := range [][2]*int64{{&t.Enqueued, &other.Enqueued}, {&t.Retried, &other.Retried}, {&t.Completed, &other.Completed},
		{&t.Cancelled, &other.Cancelled}, {&t.Discarded, &other.Discarded}, {&t.Failed, &other.Failed}, {&t.Crashed, &other.Crashed},
		{&t.DeletedLive, &other.DeletedLive}} {
		*n[0] += *n[1]
	}
}

// earlier returns the earlier of two times of which each may be unknown.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// oldestOfAll is oldest for many pairs. Most have one task at the head of their line and nothing beside it: those are found
// by a few round trips for hundreds of pairs.
func (s *Store) oldestOfAll(ctx context.Context, sh *shard, pairs []*pair) (map[*pair]time.Time, error) {
	oldest := make(map[*pair]time.Time, len(pairs))
	for some := range slices.Chunk(pairs, 200) {
		heads, err := s.heads(ctx, sh, some)
		if err != nil {
			return nil, err
		}
		var ids []string
		for _, e := range heads {
			ids = append(ids, e[min(placeHead, len(e)):])
		}
		entries, now, err := s.read(ctx, sh, ids)
		if err != nil {
			return nil, err
		}
		for i, p := range some {
			if e := entries[i]; heads[i] != "" && e != nil && e.run.state == letterAvailable && e.run.order == uint48(heads[i]) && !e.run.lapsed(now) {
				oldest[p] = millis(e.run.due)
			} else if oldest[p], err = s.oldest(ctx, sh, p); err != nil {
				return nil, err
			}
		}
	}
	return oldest, nil
}

// heads returns the first entry of each pair's line, empty where there is none or where the sorted set has entries too.
func (s *Store) heads(ctx context.Context, sh *shard, pairs []*pair) ([]string, error) {
	ctx, cancel := s.bounded(ctx, s.timeout)
	defer cancel()
	cmds := make(rueidis.Commands, 0, 2*len(pairs))
	for _, p := range pairs {
		cmds = append(cmds, s.control.B().Lindex().Key(p.line).Index(0).Build(), s.control.B().Zcard().Key(p.back).Build())
	}
	heads := make([]string, len(pairs))
	replies := s.control.DoMulti(ctx, cmds...)
	for i := range pairs {
		head, err := replies[2*i].ToString()
		if err != nil && !rueidis.IsRedisNil(err) {
			return nil, s.ended(ctx, err)
		}
		if n, err := replies[2*i+1].AsInt64(); err != nil {
			return nil, s.ended(ctx, err)
		} else if n == 0 && len(head) > placeHead && !sh.known.isShared(pairs[i].queue) {
			heads[i] = head
		}
	}
	return heads, nil
}

func zeroCounts() map[driver.State]int {
	m := make(map[driver.State]int, len(driver.States))
	for _, st := range driver.States {
		m[st] = 0
	}
	return m
}

// addPair adds a pair's counters to its queue's figures.
func addPair(q *driver.QueueInfo, p *pair, stat map[string]int) {
	counts := map[driver.State]int{}
	live := false
	for _, st := range driver.States {
		n := stat[string(letterOf[st])+p.digits]
		q.Counts[st] += n
		if n != 0 {
			counts[st] = n
			live = live || !st.Ended()
		}
	}
	for letter, total := range map[string]*int64{countEverEnqueued: &q.Totals.Enqueued, countEverRetried: &q.Totals.Retried, countEverCompleted: &q.Totals.Completed,
		countEverCancelled: &q.Totals.Cancelled, countEverDiscarded: &q.Totals.Discarded, countEverFailed: &q.Totals.Failed, countEverCrashed: &q.Totals.Crashed,
		countEverDeleted: &q.Totals.DeletedLive} {
		*total += int64(stat[letter+p.digits])
	}
	if i := slices.IndexFunc(q.Types, func(t driver.TypeInfo) bool { return t.Type == p.typ }); i >= 0 {
		for st, n := range counts { // the same pair in another shard
			q.Types[i].Counts[st] += n
		}
	} else if live {
		q.Types = append(q.Types, driver.TypeInfo{Type: p.typ, Counts: counts})
	}
}

// oldest returns when the longest waiting available task of a pair became available. Of tasks that stand in line by
// priority or at an old place, it looks at the first thousand.
func (s *Store) oldest(ctx context.Context, sh *shard, p *pair) (time.Time, error) {
	ids, err := s.lineIDs(ctx, sh, p, 1000)
	if err != nil {
		return time.Time{}, err
	}
	var oldest int64
	for chunk := range slices.Chunk(ids, 200) {
		entries, now, err := s.read(ctx, sh, chunk)
		if err != nil {
			return time.Time{}, err
		}
		for _, e := range entries {
			if e != nil && e.run.state == letterAvailable && !e.run.lapsed(now) && (oldest == 0 || e.run.due < oldest) {
				oldest = e.run.due
			}
		}
	}
	return millis(oldest), nil
}

// lineIDs returns ids at the head of a pair's line: up to n of those in the sorted set, and the list's up to the first
// that is still available and has not expired.
func (s *Store) lineIDs(ctx context.Context, sh *shard, p *pair, n int64) ([]string, error) {
	ctx, cancel := s.bounded(ctx, s.timeout)
	defer cancel()
	ids, err := s.control.Do(ctx, s.control.B().Zrange().Key(p.back).Min("0").Max(strconv.FormatInt(n-1, 10)).Build()).AsStrSlice()
	if err != nil {
		return nil, s.ended(ctx, err)
	}
	if sh.known.isShared(p.queue) {
		flow, err := s.control.Do(ctx, s.control.B().Zrange().Key(sh.shareKeys(p.queue)[4]).Min("0").Max(strconv.FormatInt(n-1, 10)).Build()).AsStrSlice()
		if err != nil {
			return nil, s.ended(ctx, err)
		}
		for _, member := range flow {
			if f, ok := parseFlow(member); ok && f.pair == p.number {
				ids = append(ids, f.id)
			}
		}
		lone, err := s.control.Do(ctx, s.control.B().Zrange().Key(sh.shareKeys(p.queue)[5]).Min("["+pairBytes(p.number)).Max("("+pairBytes(p.number+1)).
			Bylex().Limit(0, n).Build()).AsStrSlice()
		if err != nil {
			return nil, s.ended(ctx, err)
		}
		for _, head := range lone {
			if f, ok := parseLone(head); ok {
				ids = append(ids, f.id)
			}
		}
	}
	window := int64(50)
	for from := int64(0); ; from, window = from+window, min(2*window, 1000) {
		list, err := s.control.Do(ctx, s.control.B().Lrange().Key(p.line).Start(from).Stop(from+window-1).Build()).AsStrSlice()
		if err != nil {
			return nil, s.ended(ctx, err)
		}
		if len(list) == 0 {
			return ids, nil
		}
		some := make([]string, 0, len(list))
		for _, e := range list {
			if len(e) > placeHead {
				some = append(some, e[placeHead:])
			}
		}
		entries, now, err := s.read(ctx, sh, some)
		if err != nil {
			return nil, err
		}
		for i, e := range entries {
			if e != nil && e.run.state == letterAvailable && e.run.order == uint48(list[i]) && !e.run.lapsed(now) {
				return append(ids, e.id), nil
			}
		}
	}
}

// SetQueue implements driver.Maintainer.
func (s *Store) SetQueue(ctx context.Context, queue string, patch driver.QueuePatch) (*driver.QueueConfig, error) {
	if s.closed() {
		return nil, driver.ErrClosed
	}
	if err := driver.CheckName("queue", queue, driver.MaxNameLen); err != nil {
		return nil, err
	}
	if err := s.canReorder(ctx, queue, patch); err != nil {
		return nil, err
	}
	return s.setQueue(ctx, queue, patch)
}

func (s *Store) setQueue(ctx context.Context, queue string, patch driver.QueuePatch) (*driver.QueueConfig, error) {
	made, old, err := s.setQueueShard(ctx, s.hub(), queue, s.patched(patch))
	if err != nil {
		return nil, err
	}
	if err := s.spread(ctx, queue, made); err != nil {
		if errors.Is(err, driver.ErrState) { // a task came into a shard meanwhile: nothing is to have changed
			s.undoOrder(ctx, queue, old.Order)
		}
		return nil, err
	}
	if len(s.shards) > 1 && patch.Paused != nil && !*patch.Paused {
		s.wakeResumed(ctx, queue)
	}
	return made.Clone(), nil
}

// canReorder refuses to change the order of a queue in which tasks are available, in whatever shard. Each shard looks once
// more, in the step that changes it.
func (s *Store) canReorder(ctx context.Context, queue string, patch driver.QueuePatch) error {
	if patch.Order == nil || len(s.shards) == 1 {
		return nil
	}
	infos, err := s.Queues(ctx, queue)
	if err != nil || len(infos) == 0 {
		return err
	}
	c, err := infos[0].Config.Apply(patch, s.Capabilities())
	if n := infos[0].Counts[driver.Available]; err == nil && n > 0 && infos[0].Config.Reorders(&c) {
		err = driver.ReordersError(queue, int64(n))
	}
	return err
}

// DeleteQueue implements driver.Maintainer. The numbers of the queue's pairs stay.
func (s *Store) DeleteQueue(ctx context.Context, queue string) error {
	if s.closed() {
		return driver.ErrClosed
	}
	if err := driver.CheckName("queue", queue, driver.MaxNameLen); err != nil {
		return err
	}
	infos, err := s.Queues(ctx)
	if err != nil {
		return err
	}
	i, there := slices.BinarySearchFunc(infos, queue, func(q driver.QueueInfo, name string) int { return cmp.Compare(q.Name, name) })
	if !there {
		return driver.Errorf(driver.ErrNotFound, "there is no queue %q", queue)
	}
	for _, state := range driver.States { // in whatever shard: nothing is removed from any as long as one holds tasks
		if n := infos[i].Counts[state]; n > 0 {
			return driver.QueueHolds(queue, n, state)
		}
	}
	for _, sh := range s.shards {
		if err := s.deleteQueueShard(ctx, sh, queue); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) deleteQueueShard(ctx context.Context, sh *shard, queue string) error {
	return s.refreshed(ctx, sh, func() error {
		_, pairs, conf := sh.known.versions()
		states, others := sh.countersOf(queue)
		args := []string{queue, subject(queue, ""), s.isHub(sh), sharedMark, strconv.Itoa(len(states))}
		keys := append(sh.keysOf(dropQueueScript, ""), sh.shareKeys(queue)...)
		_, err := s.script(ctx, s.control, sh, dropQueueScript, keys, s.head(sh, pairs, conf), args, states, others)
		if err != nil {
			return err
		}
		return s.refresh(ctx, sh)
	})
}

// countersOf names the counters of a queue: those of its pairs by state, and all others.
func (sh *shard) countersOf(queue string) (states, others []string) {
	for _, p := range sh.ofQueue(queue, nil) {
		for i := range statLetters {
			if field := statLetters[i:i+1] + p.digits; stateOf[statLetters[i]] != "" {
				states = append(states, field)
			} else {
				others = append(others, field)
			}
		}
	}
	for _, kind := range keptLetters {
		for _, state := range endLetters {
			others = append(others, string(kind)+string(state)+queue)
		}
	}
	return states, others
}

// wakeResumed wakes idle workers for a queue whose tasks in all shards may be claimed again. A worker that was woken before
// the last shard knew of that has found nothing.
func (s *Store) wakeResumed(ctx context.Context, queue string) {
	var pairs []*pair
	for _, sh := range s.shards {
		for _, p := range sh.ofQueue(queue, nil) {
			if !slices.ContainsFunc(pairs, func(q *pair) bool { return q.typ == p.typ }) {
				pairs = append(pairs, p)
			}
		}
	}
	s.signal(ctx, nil, pairs)
}
