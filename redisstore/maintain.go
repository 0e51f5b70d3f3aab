package redisstore

import (
	"context"
	"slices"
	"strconv"

	"github.com/redis/rueidis"

	"github.com/waggleq/waggle/driver"
)

const (
	// defaultMaintain is the bound of each step of Maintain.
	defaultMaintain = 1000
	// maintainPairs is how many pairs one script looks at.
	maintainPairs = 200
	// promoteMost is how many due tasks one script moves.
	promoteMost = 500
)

// Maintain implements driver.Maintainer.
func (s *Store) Maintain(ctx context.Context, max int) (*driver.MaintainResult, error) {
	if s.closed() {
		return nil, driver.ErrClosed
	}
	if max < 0 {
		return nil, driver.Invalidf("the number of items must not be negative, got %d", max)
	}
	if max == 0 {
		max = defaultMaintain
	}
	result := &driver.MaintainResult{}
	for _, sh := range s.shards {
		if err := s.refresh(ctx, sh); err != nil {
			return nil, err
		}
		if err := s.agree(ctx, sh); err != nil {
			return nil, err
		}
		n, more, err := s.recoverLost(ctx, sh, max-result.Recovered)
		result.Recovered += n
		result.More = result.More || more
		if err != nil {
			return nil, err
		}
		if err := s.maintainPairs(ctx, sh, max, result); err != nil {
			return nil, err
		}
		pruned, more, err := s.prune(ctx, sh, sh.known.queues(), max-result.Pruned)
		result.Pruned += pruned
		result.More = result.More || more
		if err != nil {
			return nil, err
		}
		if err := s.dropExpiredKeys(ctx, sh); err != nil {
			return nil, err
		}
		plans, more, err := s.expirePlans(ctx, sh, max-result.Plans)
		result.Plans += plans
		result.More = result.More || more
		if err != nil {
			return nil, err
		}
	}
	return result, nil
}

// maintainPairs promotes what is due and discards what has expired, in all pairs of a shard.
func (s *Store) maintainPairs(ctx context.Context, sh *shard, max int, result *driver.MaintainResult) error {
	stat, err := s.stats(ctx, sh)
	if err != nil {
		return err
	}
	var busy []*pair
	for _, p := range sh.allPairs() {
		if stat[string(letterScheduled)+p.digits]+stat[string(letterRetryable)+p.digits]+stat[countExpiring+p.digits] > 0 {
			busy = append(busy, p)
		}
	}
	promoted, expired := result.Promoted, result.Expired
	for chunk := range slices.Chunk(busy, maintainPairs) {
		if promoted >= max && expired >= max {
			break
		}
		n, ids, err := s.promote(ctx, sh, chunk, min(max-promoted, promoteMost))
		for promoted += n; err == nil && n == promoteMost && promoted < max; promoted += n {
			n, ids, err = s.promote(ctx, sh, chunk, min(max-promoted, promoteMost))
		}
		if err != nil {
			return err
		}
		got, err := s.expire(ctx, sh, ids[:min(len(ids), max-expired)])
		if err != nil {
			return err
		}
		expired += got
	}
	result.Promoted, result.Expired = promoted, expired
	result.More = result.More || promoted >= max || expired >= max
	return nil
}

// promote runs the promote script for some pairs and returns how many tasks moved and which have expired.
func (s *Store) promote(ctx context.Context, sh *shard, pairs []*pair, max int) (int, []string, error) {
	keys := sh.keysOf(promoteScript, "")
	args := []string{strconv.Itoa(max), s.isHub(sh)}
	for _, p := range pairs {
		keys = sh.pairKeys(keys, p)
	}
	var reply rueidis.RedisMessage
	err := s.refreshed(ctx, sh, func() (err error) {
		_, _, conf := sh.known.versions()
		keys, args := slices.Clip(keys), args[:2:2]
		before := map[string]string{}
		for _, p := range pairs {
			if sh.known.isShared(p.queue) && before[p.queue] == "" {
				before[p.queue] = strconv.Itoa(len(keys))
				keys = append(keys, sh.shareKeys(p.queue)...)
			}
			args = append(args, p.digits, p.subject, before[p.queue])
		}
		reply, err = s.script(ctx, s.data, sh, promoteScript, keys, s.head(sh, "", conf), args)
		return err
	})
	if err != nil {
		return 0, nil, err
	}
	parts, err := reply.ToArray()
	if err != nil || len(parts) != 4 {
		return 0, nil, driver.Errorf(driver.ErrUnavailable, "%s gave an unexpected reply", s.where)
	}
	if damaged, _ := parts[3].AsStrSlice(); len(damaged) > 0 {
		if err := s.discardUnreadable(ctx, sh, damaged); err != nil {
			return 0, nil, err
		}
	}
	moved, _ := parts[0].AsInt64()
	woken, _ := parts[1].AsIntSlice()
	expired, _ := parts[2].AsStrSlice()
	list := make([]*pair, len(woken))
	for i, n := range woken {
		list[i] = pairs[n-1]
	}
	s.signal(ctx, sh, list)
	return int(moved), expired, nil
}

// expire discards those of the packed ids that have expired.
func (s *Store) expire(ctx context.Context, sh *shard, ids []string) (int, error) {
	n := 0
	for chunk := range slices.Chunk(ids, 200) {
		entries, now, err := s.read(ctx, sh, chunk)
		if err != nil {
			return n, err
		}
		m := &mover{s: s, sh: sh, now: now}
		var items []*item
		for _, e := range entries {
			if e == nil || !e.run.lapsed(now) {
				continue
			}
			p, err := s.pairOf(ctx, sh, e.run.pair)
			if err != nil {
				return n, err
			}
			it := m.begin(e)
			m.lapse(it, e, p)
			items = append(items, it)
		}
		done, err := s.commit(ctx, sh, items)
		m.wakeElsewhere(ctx)
		if err != nil {
			return n, err
		}
		for _, ok := range done {
			if ok {
				n++
			}
		}
	}
	return n, nil
}

// readable reports whether all of a task's record can be read.
func (e *entry) readable() bool {
	return e.err == nil && driver.DecodeEnvelope([]byte(e.task.envelope), &driver.Task{}) == nil
}

// discardUnreadable ends tasks whose record can't be decoded, so that they are seen and hold up nobody.
func (s *Store) discardUnreadable(ctx context.Context, sh *shard, ids []string) error {
	entries, now, err := s.read(ctx, sh, ids)
	if err != nil {
		return err
	}
	m := &mover{s: s, sh: sh, now: now}
	var items []*item
	for _, e := range entries {
		if e == nil || !e.astray && stateOf[e.run.state].Ended() {
			continue
		}
		p, err := s.pairOf(ctx, sh, e.run.pair)
		if err != nil {
			return err
		}
		if p != nil && e.readable() {
			continue
		}
		if p == nil { // nobody knows where it belongs, and it must be seen somewhere
			if p = sh.byNumber(1); p == nil {
				continue
			}
			e.run.pair = p.number
		}
		it := m.begin(e)
		e.run.attempt = max(e.run.attempt-1, 0)
		m.move(it, e, p, letterDiscarded, driver.ReasonUndecodable)
		items = append(items, it)
	}
	_, err = s.commit(ctx, sh, items)
	m.wakeElsewhere(ctx)
	return err
}

// prune removes what queues keep beyond their retention, at most max tasks.
func (s *Store) prune(ctx context.Context, sh *shard, queues []string, max int) (n int, more bool, err error) {
	for _, q := range queues {
		if n >= max {
			return n, true, nil
		}
		got, left, err := s.pruneQueue(ctx, sh, q, max-n)
		n += got
		more = more || left
		if err != nil {
			return n, more, err
		}
		if left {
			sh.tended.setOver(q)
		}
	}
	return n, more, nil
}

func (s *Store) pruneQueue(ctx context.Context, sh *shard, queue string, max int) (n int, more bool, err error) {
	var reply []int64
	err = s.refreshed(ctx, sh, func() error {
		_, _, conf := sh.known.versions()
		retention := sh.known.config(queue).Retention
		keys := sh.keysOf(pruneScript, "")
		args := []string{queue, strconv.Itoa(min(max, defaultMaintain))}
		for _, st := range []driver.State{driver.Completed, driver.Cancelled, driver.Discarded} {
			keep := retention.Of(st)
			keys = append(keys, sh.keptKey(letterOf[st], queue))
			args = append(args, string(letterOf[st]), strconv.FormatInt(keep.Age.Milliseconds(), 10),
				strconv.FormatInt(s.share(int64(keep.Count)), 10), strconv.FormatInt(s.share(keep.Bytes), 10))
		}
		m, err := s.script(ctx, s.data, sh, pruneScript, keys, s.head(sh, "", conf), args)
		if err != nil {
			return err
		}
		reply, err = m.AsIntSlice()
		return err
	})
	if err != nil || len(reply) != 2 {
		return 0, false, err
	}
	return int(reply[0]), reply[1] == 1, nil
}

// share is a shard's part of a bound on a whole queue, rounded up: tasks are spread evenly.
func (s *Store) share(bound int64) int64 {
	if bound < 0 {
		return bound
	}
	n := int64(len(s.shards))
	return (bound + n - 1) / n
}

// dropExpiredKeys removes some of the unique keys whose time has passed.
func (s *Store) dropExpiredKeys(ctx context.Context, sh *shard) error {
	_, now, err := s.read(ctx, sh, nil)
	if err != nil {
		return err
	}
	bounded, cancel := s.bounded(ctx, s.timeout)
	defer cancel()
	scan, err := s.control.Do(bounded, s.control.B().Hscan().Key(sh.key("uniq")).Cursor(sh.tended.keyCursor.Load()).Count(200).Build()).AsScanEntry()
	if err != nil {
		return s.ended(bounded, err)
	}
	sh.tended.keyCursor.Store(scan.Cursor)
	var items []*item
	var keys, owners []string
	for i := 0; i+1 < len(scan.Elements); i += 2 {
		key, owner := scan.Elements[i], scan.Elements[i+1]
		if len(owner) > ownerHead && owner[0]&uniqueRemote != 0 {
			keys, owners = append(keys, key), append(owners, owner)
		} else if len(owner) > ownerHead && owner[0] == uniqueTTL && uint48(owner[ownerUntil:]) <= now {
			it := &item{}
			it.expect(sh.key("uniq"), key, owner, true)
			it.do("HDEL", sh.key("uniq"), key)
			it.do("HDEL", sh.key("own"), owner[ownerHead:])
			items = append(items, it)
		}
	}
	remote, err := s.dropRemoteKeys(ctx, sh, keys, owners, now)
	if err != nil {
		return err
	}
	_, err = s.commit(ctx, sh, append(items, remote...))
	return err
}
