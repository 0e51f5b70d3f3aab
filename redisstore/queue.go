package redisstore

import (
	"cmp"
	"context"
	"encoding/json"
	"slices"
	"strconv"
	"time"

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
	for some := range slices.Chunk(sh.known.all(), mostStats/len(statLetters)) {
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
	for some := range slices.Chunk(sh.known.queues(), mostStats/len(keptLetters)/len(endLetters)) {
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
func (s *Store) Queues(ctx context.Context) ([]driver.QueueInfo, error) {
	if s.closed() {
		return nil, driver.ErrClosed
	}
	infos := map[string]*driver.QueueInfo{}
	for _, sh := range s.shards {
		if err := s.refresh(ctx, sh); err != nil {
			return nil, err
		}
		stat, err := s.stats(ctx, sh)
		if err != nil {
			return nil, err
		}
		due, err := s.bringUp(ctx, sh, stat)
		if err != nil {
			return nil, err
		}
		for _, name := range sh.known.queues() {
			if !sh.known.everUsed(name, stat) {
				continue
			}
			q := infos[name]
			if q == nil {
				q = &driver.QueueInfo{Name: name, Config: sh.known.config(name), Counts: zeroCounts()}
				infos[name] = q
			}
			for _, p := range sh.known.ofQueue(name, nil) {
				addPair(q, p, stat)
				if stat[string(letterAvailable)+p.digits] == 0 {
					continue
				}
				oldest, err := s.oldest(ctx, sh, p)
				if err != nil {
					return nil, err
				}
				oldest = oldestOf(oldest, due[p])
				if !oldest.IsZero() && (q.OldestAvailable.IsZero() || oldest.Before(q.OldestAvailable)) {
					q.OldestAvailable = oldest
				}
			}
		}
	}
	list := make([]driver.QueueInfo, 0, len(infos))
	for _, q := range infos {
		slices.SortFunc(q.Types, func(a, b driver.TypeInfo) int { return cmp.Compare(a.Type, b.Type) })
		list = append(list, *q)
	}
	slices.SortFunc(list, func(a, b driver.QueueInfo) int { return cmp.Compare(a.Name, b.Name) })
	return list, nil
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
	var result driver.QueueConfig
	for _, sh := range s.shards {
		c, err := s.setQueueShard(ctx, sh, queue, patch)
		if err != nil {
			return nil, err
		}
		if sh.number == 0 {
			result = c
		}
	}
	return &result, nil
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
		args := []string{queue, subject(queue, ""), s.isHub(sh), strconv.Itoa(len(states))}
		_, err := s.script(ctx, s.control, sh, dropQueueScript, sh.keysOf(dropQueueScript, ""), s.head(sh, pairs, conf), args, states, others)
		if err != nil {
			return err
		}
		return s.refresh(ctx, sh)
	})
}

// countersOf names the counters of a queue: those of its pairs by state, and all others.
func (sh *shard) countersOf(queue string) (states, others []string) {
	for _, p := range sh.known.ofQueue(queue, nil) {
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

func (s *Store) setQueueShard(ctx context.Context, sh *shard, queue string, patch driver.QueuePatch) (driver.QueueConfig, error) {
	var c driver.QueueConfig
	err := s.refreshed(ctx, sh, func() error {
		_, pairs, conf := sh.known.versions()
		old := sh.known.config(queue)
		var err error
		if c, err = old.Apply(patch, s.Capabilities()); err != nil {
			return err
		}
		resumed := old.Paused && !c.Paused
		b, err := json.Marshal(c)
		if err != nil {
			return driver.Invalidf("the configuration of queue %s can't be stored: %v", queue, err)
		}
		keys := sh.keysOf(setQueueScript, "")
		if resumed && sh.number == 0 {
			for _, p := range sh.known.ofQueue(queue, nil) {
				keys = append(keys, p.wake)
			}
			keys = append(keys, sh.wakeKey(queue, ""))
		}
		_, err = s.script(ctx, s.control, sh, setQueueScript, keys, s.head(sh, pairs, conf), []string{queue, string(b), subject(queue, ""), s.isHub(sh)})
		if err != nil {
			return err
		}
		sh.tended.setOver(queue)
		return s.refresh(ctx, sh)
	})
	return c, err
}
