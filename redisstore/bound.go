package redisstore

import (
	"cmp"
	"context"

	"slices"
	"strconv"

	"github.com/redis/rueidis"

	"github.com/waggleq/waggle/driver"
)

// The bound of a queue is kept by the enqueue script, which counts what waits and refuses what has no room. One shard is
// asked to keep the whole bound, and is exact. With several, each is given what it holds and a part of the room that there
// was over all when the client asked. A task that was refused is tried again once there may be room: expired tasks were recorded,
// the oldest were dropped, or there is room in another shard's part.

// rooms says how many tasks of bounded queues may wait in each shard.
type rooms map[string][]int

// roomIn returns how many tasks of a queue may wait in a shard: none where that is not known.
func (s *Store) roomIn(r rooms, sh *shard, queue string, bound driver.Bound) int {
	switch most := r[queue]; {
	case most != nil:
		return most[sh.number]
	case len(s.shards) == 1:
		return bound.Max
	}
	return 0
}

// boundsOf returns what the enqueue script must know of the bounds of a batch's queues: see lua/include/bound.lua. It is nil if
// none has a bound.
func (s *Store) boundsOf(sh *shard, pairs []*pair, batch []*newTask, ev evictions) []string {
	index := map[string]int(nil)
	var args []string
	for _, p := range pairs {
		bound := sh.known.config(p.queue).Bound
		if bound.Max == 0 || index[p.queue] > 0 {
			continue
		}
		if index == nil {
			index = map[string]int{}
		}
		index[p.queue] = len(index) + 1
		all := sh.ofQueue(p.queue, nil)
		args = append(args, strconv.Itoa(s.roomIn(batch[0].rooms, sh, p.queue, bound)), strconv.Itoa(len(all)))
		for _, q := range all {
			args = append(args, q.digits)
		}
	}
	if index == nil {
		return nil
	}
	args = append([]string{boundedTasks, strconv.Itoa(len(index))}, args...)
	for _, p := range pairs {
		args = append(args, strconv.Itoa(index[p.queue]))
	}
	for _, q := range ev.queues {
		args = append(args, strconv.Itoa(index[q]))
	}
	return args
}

// enqueueRefused tries those tasks again that bounds refused, as long as there may be room for them.
func (s *Store) enqueueRefused(ctx context.Context, tasks []*driver.Task, level driver.Durability, results []driver.EnqueueResult) error {
	tidied := map[string]bool{}
	for {
		byQueue := map[string][]int{}
		for i := range results {
			if full, ok := results[i].Err.(*driver.QueueFullError); ok { // by this package, so nothing is wrapped around it
				byQueue[full.Queue] = append(byQueue[full.Queue], i)
			}
		}
		r, again := rooms{}, []int(nil)
		for queue, refused := range byQueue {
			some, err := s.makeRoom(ctx, queue, tasks, refused, r, tidied)
			if err != nil {
				return err
			}
			again = append(again, some...)
		}
		if len(again) == 0 {
			return nil
		}
		slices.Sort(again)
		some, got := make([]*driver.Task, len(again)), make([]driver.EnqueueResult, len(again))
		for k, i := range again {
			some[k] = tasks[i]
		}
		if err := s.enqueueTasks(ctx, some, false, level, r, got); err != nil {
			return err
		}
		for k, i := range again {
			results[i] = got[k]
		}
	}
}

// lengths is what a queue holds in each shard.
type lengths struct{ waiting, available []int }

func sum(list []int) (n int) {
	for _, v := range list {
		n += v
	}
	return n
}

// makeRoom returns which of a queue's tasks that were refused may find room now, and says in r where. It drops others for
// them if the queue's policy says so.
func (s *Store) makeRoom(ctx context.Context, queue string, tasks []*driver.Task, refused []int, r rooms, tidied map[string]bool) ([]int, error) {
	if !tidied[queue] {
		tidied[queue] = true
		if err := s.tidyQueue(ctx, queue); err != nil {
			return nil, err
		}
	}
	bound := s.hub().known.config(queue).Bound
	if bound.Max == 0 { // taken away meanwhile, perhaps not in all shards yet
		r[queue] = slices.Repeat([]int{driver.MaxBound}, len(s.shards))
		return refused, nil
	}
	n, room, err := s.roomFor(ctx, queue, bound, len(refused))
	if err != nil || room <= 0 {
		return nil, err
	}
	refused = refused[:min(room, len(refused))]
	r[queue] = n.waiting
	for _, i := range refused {
		r[queue][s.shardOf(tasks[i].ID).number]++
	}
	if len(s.shards) == 1 {
		r[queue][0] = max(r[queue][0], bound.Max)
	}
	return refused, nil
}

// roomFor returns what a queue holds and how many tasks it has room for, up to want, after dropping others if its policy says so.
func (s *Store) roomFor(ctx context.Context, queue string, bound driver.Bound, want int) (n lengths, room int, err error) {
	for range changeTries {
		if n, err = s.lengthsOf(ctx, queue); err != nil {
			return n, 0, err
		}
		room = bound.Max - sum(n.waiting)
		if room >= want || bound.Full != driver.FullDropOldest || sum(n.available) == 0 {
			return n, room, nil
		}
		var moved bool
		if room, moved, err = s.dropFor(ctx, queue, room, want, &n); err != nil || room > 0 || !moved {
			return n, room, err
		}
	}
	return n, room, nil
}

// roomForRemote reports whether there is room for a task whose unique key is another shard's business, or no need for any.
func (s *Store) roomForRemote(ctx context.Context, t *newTask, bound driver.Bound) (bool, error) {
	asked := &newTask{task: t.task, id: t.id, dry: true}
	taken, err := s.reserveKey(ctx, asked, true)
	if err != nil || taken != nil || asked.leaves == t.task.Queue {
		return true, err
	}
	_, room, err := s.roomFor(ctx, t.task.Queue, bound, 1)
	return room > 0, err
}

// dropFor drops the oldest tasks of a queue in which there is room for so many, below 0 if it is above its bound, until there
// is room for want more or none is available. It returns the room there is then, and takes what it dropped off n. moved
// says that others have changed the tasks that it meant to drop, so that it is worth another look.
func (s *Store) dropFor(ctx context.Context, queue string, room, want int, n *lengths) (left int, moved bool, err error) {
	drop := want - room
	if room < 0 { // one after the other: each new task brings the queue down
		if drop = min(1-room, driver.MaxDrops); sum(n.available) < drop {
			return 0, false, nil
		}
	}
	drop = min(drop, sum(n.available))
	s.dropping.Lock()
	dropped, err := s.dropOldest(ctx, queue, drop)
	s.dropping.Unlock()
	if err != nil {
		return 0, false, err
	}
	for i := range dropped {
		n.waiting[i] -= dropped[i]
	}
	if room += sum(dropped); room <= 0 && sum(dropped) == driver.MaxDrops {
		return 1, false, nil
	}
	return room, sum(dropped) < drop, nil
}

// tidyQueue promotes what is due in a queue and records what has expired, in all shards.
func (s *Store) tidyQueue(ctx context.Context, queue string) error {
	return s.eachShard(ctx, func(ctx context.Context, sh *shard) error {
		if err := s.refresh(ctx, sh); err != nil {
			return err
		}
		for some := range slices.Chunk(sh.ofQueue(queue, nil), maintainPairs) {
			for more := true; more; {
				moved, ids, err := s.promote(ctx, sh, some, defaultMaintain)
				if err != nil {
					return err
				}
				expired, err := s.expire(ctx, sh, ids)
				if err != nil {
					return err
				}
				more = moved+expired > 0
			}
		}
		return nil
	}, nil)
}

// lengthsOf reads what a queue holds in each shard.
func (s *Store) lengthsOf(ctx context.Context, queue string) (lengths, error) {
	n := lengths{make([]int, len(s.shards)), make([]int, len(s.shards))}
	err := s.eachShard(ctx, func(ctx context.Context, sh *shard) error {
		stat, err := s.statsOf(ctx, sh, sh.ofQueue(queue, nil), nil)
		if err != nil {
			return err
		}
		for _, p := range sh.ofQueue(queue, nil) {
			for _, l := range []byte{letterScheduled, letterPending, letterAvailable, letterRetryable} {
				n.waiting[sh.number] += stat[string(l)+p.digits]
			}
			n.available[sh.number] += stat[string(letterAvailable)+p.digits]
		}
		return nil
	}, nil)
	return n, err
}

// oldTask is an available task and the place in its pair's line that it was found in, empty if it is not in the list.
type oldTask struct {
	sh    *shard
	entry *entry
	pair  *pair
	place string
}

// dropOldest discards up to n tasks of a queue, those that have stood in line longest, and returns how many in each shard.
// Between shards that is told by the time.
func (s *Store) dropOldest(ctx context.Context, queue string, n int) ([]int, error) {
	found := make([][]oldTask, len(s.shards))
	now := make([]int64, len(s.shards))
	err := s.eachShard(ctx, func(ctx context.Context, sh *shard) (err error) {
		found[sh.number], now[sh.number], err = s.oldestIn(ctx, sh, queue, n)
		return err
	}, nil)
	if err != nil {
		return nil, err
	}
	list := slices.Concat(found...)
	slices.SortFunc(list, func(a, b oldTask) int {
		if a.sh == b.sh {
			return cmp.Compare(a.entry.run.order, b.entry.run.order)
		}
		return cmp.Compare(a.entry.run.due, b.entry.run.due)
	})
	list = list[:min(n, len(list))]
	dropped := make([]int, len(s.shards))
	err = s.eachShard(ctx, func(ctx context.Context, sh *shard) error {
		m := &mover{s: s, sh: sh, now: now[sh.number]}
		var items []*item
		for _, o := range list {
			if o.sh != sh {
				continue
			}
			it := m.begin(o.entry)
			if o.place != "" {
				it.do("LREM", o.pair.line, "1", o.place)
			}
			m.move(it, o.entry, o.pair, letterDiscarded, driver.ReasonDropped)
			items = append(items, it)
		}
		done, err := s.commit(ctx, sh, items)
		m.wakeElsewhere(ctx)
		for _, ok := range done {
			if ok {
				dropped[sh.number]++
			}
		}
		return err
	}, nil)
	return dropped, err
}

// oldestIn returns up to n available tasks of a queue for each of its lines in a shard, those that have stood longest in it, and the
// shard's present.
func (s *Store) oldestIn(ctx context.Context, sh *shard, queue string, n int) ([]oldTask, int64, error) {
	pairs := sh.ofQueue(queue, nil)
	stat, err := s.statsOf(ctx, sh, pairs, nil)
	if err != nil {
		return nil, 0, err
	}
	_, now, err := s.read(ctx, sh, nil)
	var list []oldTask
	for _, p := range pairs {
		if stat[string(letterAvailable)+p.digits] == 0 || err != nil {
			continue
		}
		var some []oldTask
		if some, err = s.oldestOfLine(ctx, sh, p, n); err == nil {
			list = append(list, some...)
			some, err = s.oldestOfBands(ctx, sh, p, n)
			list = append(list, some...)
		}
	}
	if err == nil && sh.known.isShared(queue) {
		var some []oldTask
		some, err = s.oldestOfFlows(ctx, sh, queue, n)
		list = append(list, some...)
	}
	return list, now, err
}

// oldestOfFlows returns the n tasks of a queue's flows that have stood in line longest. It looks at all of them, which are no more
// than the queue's bound.
func (s *Store) oldestOfFlows(ctx context.Context, sh *shard, queue string, n int) ([]oldTask, error) {
	var flows []flowEntry
	oldest := func(parse func(string) (flowEntry, bool)) func([]string) {
		return func(list []string) {
			for _, member := range list {
				if f, ok := parse(member); ok {
					flows = append(flows, f)
				}
			}
			slices.SortFunc(flows, func(a, b flowEntry) int { return cmp.Compare(a.order, b.order) })
			flows = flows[:min(n, len(flows))]
		}
	}
	keys := sh.shareKeys(queue)
	err := cmp.Or(s.sorted(ctx, keys[4], oldest(parseFlow)), s.sorted(ctx, keys[5], oldest(parseLone)))
	if err != nil || len(flows) == 0 {
		return nil, err
	}
	ids := make([]string, len(flows))
	for i, f := range flows {
		ids[i] = f.id
	}
	entries, _, err := s.read(ctx, sh, ids)
	if err != nil {
		return nil, err
	}
	var found []oldTask
	for i, e := range entries {
		if e == nil || e.run.state != letterAvailable || e.run.order != flows[i].order {
			continue
		}
		p, err := s.pairOf(ctx, sh, e.run.pair)
		if err != nil {
			return nil, err
		}
		found = append(found, oldTask{sh, e, p, ""})
	}
	return found, nil
}

// oldestOfLine returns the first n tasks of a pair's list that are still available.
func (s *Store) oldestOfLine(ctx context.Context, sh *shard, p *pair, n int) ([]oldTask, error) {
	var found []oldTask
	for from := 0; len(found) < n; {
		window := min(n-len(found)+20, 500)
		list, err := s.rangeOf(ctx, s.control.B().Lrange().Key(p.line).Start(int64(from)).Stop(int64(from+window-1)).Build())
		if err != nil || len(list) == 0 {
			return found, err
		}
		from += len(list)
		ids := make([]string, 0, len(list))
		for _, e := range list {
			ids = append(ids, e[min(placeHead, len(e)):])
		}
		entries, _, err := s.read(ctx, sh, ids)
		if err != nil {
			return nil, err
		}
		for i, e := range entries {
			if e != nil && len(found) < n && e.run.state == letterAvailable && e.run.order == uint48(list[i]) {
				found = append(found, oldTask{sh, e, p, list[i]})
			}
		}
	}
	return found, nil
}

// oldestOfBands returns the first n tasks of each priority in a pair's sorted set.
func (s *Store) oldestOfBands(ctx context.Context, sh *shard, p *pair, n int) ([]oldTask, error) {
	var found []oldTask
	for band := int64(0); ; {
		next, err := s.rangeOf(ctx, s.control.B().Zrangebyscore().Key(p.back).Min(strconv.FormatInt(band*storedBand, 10)).Max("+inf").Limit(0, 1).Build())
		if err != nil || len(next) == 0 {
			return found, err
		}
		entries, _, err := s.read(ctx, sh, next)
		if err != nil {
			return nil, err
		}
		if entries[0] == nil {
			return found, nil // it has just moved on
		}
		band = int64(entries[0].run.priority + storedPlain)
		ids, err := s.rangeOf(ctx, s.control.B().Zrangebyscore().Key(p.back).Min(strconv.FormatInt(band*storedBand, 10)).
			Max("("+strconv.FormatInt((band+1)*storedBand, 10)).Limit(0, int64(n)).Build())
		if err != nil {
			return nil, err
		}
		if entries, _, err = s.read(ctx, sh, ids); err != nil {
			return nil, err
		}
		for _, e := range entries {
			if e != nil && e.run.state == letterAvailable {
				found = append(found, oldTask{sh, e, p, ""})
			}
		}
		band++
	}
}

func (s *Store) rangeOf(ctx context.Context, cmd rueidis.Completed) ([]string, error) {
	ctx, cancel := s.bounded(ctx, s.timeout)
	defer cancel()
	list, err := s.control.Do(ctx, cmd).AsStrSlice()
	return list, s.ended(ctx, err)
}

// intakeRoom returns how many of most elements of an intake list a queue has room for, and makes room for what the list holds if
// its policy says so.
func (s *Store) intakeRoom(ctx context.Context, list, queue string, most int) (int, error) {
	if err := s.refresh(ctx, s.hub()); err != nil {
		return 0, err
	}
	bound := s.hub().known.config(queue).Bound
	if bound.Max == 0 {
		return most, nil
	}
	bounded, cancel := s.bounded(ctx, s.timeout)
	there, err := s.data.Do(bounded, s.data.B().Llen().Key(list).Build()).AsInt64()
	cancel()
	if err != nil || there == 0 {
		return min(most, bound.Max), nil // whoever takes from it tells
	}
	most = min(most, bound.Max, int(there))
	_, room, err := s.roomFor(ctx, queue, bound, most)
	if err == nil && room <= 0 {
		err = &driver.QueueFullError{Queue: queue, Bound: bound}
	}
	return min(most, room), err
}
