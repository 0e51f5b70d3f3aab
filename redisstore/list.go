package redisstore

import (
	"context"
	"encoding/base64"
	"slices"
	"strconv"
	"strings"

	"github.com/waggleq/waggle/driver"
)

// Get implements driver.Inspector.
func (s *Store) Get(ctx context.Context, ids []string) ([]*driver.Record, error) {
	if s.closed() {
		return nil, driver.ErrClosed
	}
	records := make([]*driver.Record, len(ids))
	byShard := make([][]int, len(s.shards))
	for i, id := range ids {
		if driver.CheckName("task id", id, driver.MaxIDLen) == nil {
			n := s.shardOf(id).number
			byShard[n] = append(byShard[n], i)
		}
	}
	err := s.eachShard(ctx, func(ctx context.Context, sh *shard) error {
		for chunk := range slices.Chunk(byShard[sh.number], 500) {
			packed := make([]string, len(chunk))
			for k, i := range chunk {
				packed[k] = string(driver.PackID(nil, ids[i]))
			}
			entries, now, err := s.read(ctx, sh, packed)
			if err != nil {
				return err
			}
			for k, e := range entries {
				if e == nil {
					continue
				}
				if records[chunk[k]], err = s.presentRecord(ctx, sh, e, now); err != nil {
					return err
				}
			}
		}
		return nil
	}, func(sh *shard) bool { return len(byShard[sh.number]) > 0 })
	if err != nil {
		return nil, err
	}
	return records, nil
}

// cursor is a place in a list: the shards before it are done, and in its own all that is as new as seq or newer.
type cursor struct {
	shard int
	seq   int64
}

const (
	cursorMark = "r1."
	endOfOrder = 1 << 47 // newer than any task
)

func (c cursor) String() string {
	return cursorMark + base64.RawURLEncoding.EncodeToString([]byte(strconv.Itoa(c.shard)+"."+strconv.FormatInt(c.seq, 10)))
}

func (s *Store) parseCursor(text string) (cursor, error) {
	c := cursor{seq: endOfOrder}
	if text == "" {
		return c, nil
	}
	bad := driver.Invalidf("the cursor %q is not from a list of this store", driver.CutText(text, 64))
	rest, ok := strings.CutPrefix(text, cursorMark)
	b, err := base64.RawURLEncoding.DecodeString(rest)
	if !ok || err != nil {
		return c, bad
	}
	first, second, _ := strings.Cut(string(b), ".")
	n, err1 := strconv.Atoi(first)
	seq, err2 := strconv.ParseInt(second, 10, 64)
	if err1 != nil || err2 != nil || n < 0 || n >= len(s.shards) || seq < 0 {
		return c, bad
	}
	return cursor{n, seq}, nil
}

// List implements driver.Inspector.
func (s *Store) List(ctx context.Context, f driver.Filter, page driver.Page) (*driver.RecordPage, error) {
	if s.closed() {
		return nil, driver.ErrClosed
	}
	if err := f.Validate(); err != nil {
		return nil, err
	}
	size, err := driver.CheckPage(page)
	if err != nil {
		return nil, err
	}
	at, err := s.parseCursor(page.Cursor)
	if err != nil {
		return nil, err
	}
	out := &driver.RecordPage{}
	for ; at.shard < len(s.shards); at = (cursor{at.shard + 1, endOfOrder}) {
		l := &lister{s: s, sh: s.shards[at.shard], filter: &f, size: size, out: out, taken: len(out.Records), last: at.seq}
		more, err := l.run(ctx, at.seq)
		if err != nil {
			return nil, err
		}
		if more {
			out.Next = cursor{at.shard, l.last}.String()
			return out, nil
		}
	}
	return out, nil
}

// lister collects one shard's part of a page.
type lister struct {
	s      *Store
	sh     *shard
	filter *driver.Filter
	size   int
	out    *driver.RecordPage
	keep   func(*entry, int64) // if not nil, gets each entry that matches, with the clock as it was read, in place of out
	taken  int
	last   int64 // order of enqueueing of the last record taken, or where the page began
}

// seqID is a task's place in the order of enqueueing.
type seqID struct {
	seq int64
	id  string
}

// run goes from the newest task older than below to the oldest, and reports whether there are more than fit the page.
func (l *lister) run(ctx context.Context, below int64) (more bool, err error) {
	if len(l.filter.IDs) > 0 {
		return l.runIDs(ctx, below)
	}
	if ids, ok, err := l.candidates(ctx); err != nil {
		return false, err
	} else if ok {
		return l.runCandidates(ctx, ids, below)
	}
	err = l.walk(ctx, below, l.size+1, func(list []seqID) (bool, error) {
		more, err = l.take(ctx, list)
		return !more, err
	})
	return more, err
}

// walk yields the entries of the order of enqueueing that are older than below, newest first, first window of them, then more
// at a time.
func (l *lister) walk(ctx context.Context, below int64, window int, yield func([]seqID) (bool, error)) error {
	for {
		list, err := l.s.orderBefore(ctx, l.sh, below, window)
		if err != nil || len(list) == 0 {
			return err
		}
		if goOn, err := yield(list); err != nil || !goOn {
			return err
		}
		below, window = list[len(list)-1].seq, min(4*window, 2000)
	}
}

// orderBefore returns up to n entries of the order of enqueueing with a smaller place than below, newest first. The list
// holds the newer ones, the sorted set those that are left of older times.
func (s *Store) orderBefore(ctx context.Context, sh *shard, below int64, n int) ([]seqID, error) {
	ctx, cancel := s.bounded(ctx, s.timeout)
	defer cancel()
	length, err := s.control.Do(ctx, s.control.B().Llen().Key(sh.key("ord")).Build()).AsInt64()
	if err != nil {
		return nil, s.ended(ctx, err)
	}
	// Entries are counted from the end, which only grows by newer ones: a search that races with those stays right
	// because what it returns is checked against below.
	lo, hi := int64(0), length // the number of entries from the front that are older than below
	for lo < hi {
		mid := (lo + hi) / 2
		e, err := s.control.Do(ctx, s.control.B().Lindex().Key(sh.key("ord")).Index(mid).Build()).ToString()
		if err != nil || len(e) < 6 {
			hi = mid
			continue
		}
		if uint48(e) < below {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	var list []seqID
	if lo > 0 {
		v, err := s.control.Do(ctx, s.control.B().Lrange().Key(sh.key("ord")).Start(max(lo-int64(n), 0)).Stop(lo-1).Build()).AsStrSlice()
		if err != nil {
			return nil, s.ended(ctx, err)
		}
		for _, e := range slices.Backward(v) {
			if len(e) > placeHead && uint48(e) < below {
				list = append(list, seqID{uint48(e), e[placeHead:]})
			}
		}
		if len(list) > 0 {
			return list, nil
		}
	}
	v, err := s.control.Do(ctx, s.control.B().Zrange().Key(sh.key("old")).Min("("+strconv.FormatInt(below, 10)).Max("-inf").
		Byscore().Rev().Limit(0, int64(n)).Withscores().Build()).AsZScores()
	if err != nil {
		return nil, s.ended(ctx, err)
	}
	for _, z := range v {
		list = append(list, seqID{int64(z.Score), z.Member})
	}
	return list, nil
}

// take appends the matching records of list to the page; true if one was left because the page is full.
func (l *lister) take(ctx context.Context, list []seqID) (bool, error) {
	for chunk := range slices.Chunk(list, 200) {
		ids := make([]string, len(chunk))
		for i := range chunk {
			ids[i] = chunk[i].id
		}
		entries, now, err := l.s.read(ctx, l.sh, ids)
		if err != nil {
			return false, err
		}
		for i, e := range entries {
			if e == nil || e.err == nil && e.task.seq != chunk[i].seq {
				continue
			}
			r, err := l.s.presentRecord(ctx, l.sh, e, now)
			if err != nil {
				return false, err
			}
			if !l.filter.Match(r) {
				continue
			}
			if l.taken == l.size {
				return true, nil
			}
			l.taken++
			l.last = chunk[i].seq
			if l.keep != nil {
				l.keep(e, now)
				continue
			}
			l.out.Records = append(l.out.Records, r)
		}
	}
	return false, nil
}

func (l *lister) runIDs(ctx context.Context, below int64) (bool, error) {
	var ids []string
	for _, id := range l.filter.IDs {
		if l.s.shardOf(id) == l.sh {
			ids = append(ids, string(driver.PackID(nil, id)))
		}
	}
	return l.runCandidates(ctx, ids, below)
}

// runCandidates is run for a known set of ids.
func (l *lister) runCandidates(ctx context.Context, ids []string, below int64) (bool, error) {
	slices.Sort(ids)
	ids = slices.Compact(ids)
	var list []seqID
	for chunk := range slices.Chunk(ids, 1000) {
		seqs, err := l.s.places(ctx, l.sh, chunk)
		if err != nil {
			return false, err
		}
		for i, seq := range seqs {
			if seq >= 0 && seq < below {
				list = append(list, seqID{seq, chunk[i]})
			}
		}
	}
	slices.SortFunc(list, func(a, b seqID) int { return int(b.seq - a.seq) })
	return l.take(ctx, list)
}

// places returns the places of tasks in the order of enqueueing, -1 where there is no such task.
func (s *Store) places(ctx context.Context, sh *shard, ids []string) ([]int64, error) {
	entries, _, err := s.read(ctx, sh, ids)
	if err != nil {
		return nil, err
	}
	seqs := make([]int64, len(ids))
	for i, e := range entries {
		switch {
		case e == nil:
			seqs[i] = -1
		case e.err == nil: // of one that can't be read nobody knows the place: it comes last
			seqs[i] = e.task.seq
		}
	}
	return seqs, nil
}

// fewCandidates is up to how many tasks in the states asked for are found by their state's indexes rather than by going
// through all tasks.
const fewCandidates = 20_000

// candidates returns the ids in the indexes of the filter's states, if those are few beside all tasks.
func (l *lister) candidates(ctx context.Context) ([]string, bool, error) {
	if len(l.filter.States) == 0 || slices.Contains(l.filter.States, driver.Available) {
		return nil, false, nil
	}
	stat, err := l.s.stats(ctx, l.sh)
	if err != nil {
		return nil, false, err
	}
	matching, all := 0, 0
	for _, p := range l.sh.allPairs() {
		for _, state := range driver.States {
			n := stat[string(letterOf[state])+p.digits]
			all += n
			if slices.Contains(l.filter.States, state) {
				matching += n
			}
		}
	}
	if matching > fewCandidates || matching*4 > all {
		return nil, false, nil
	}
	ids, err := l.s.indexed(ctx, l.sh, l.filter.States)
	if err != nil || !slices.Contains(l.filter.States, driver.Discarded) {
		return ids, err == nil, err
	}
	lapsed, err := l.s.overdue(ctx, l.sh, stat, fewCandidates)
	return append(ids, lapsed...), err == nil && len(lapsed) < fewCandidates, err
}

// indexed returns the ids in the indexes of states, which may hold some that have moved on.
func (s *Store) indexed(ctx context.Context, sh *shard, states []driver.State) ([]string, error) {
	var ids []string
	for _, state := range states {
		list, err := s.indexOf(ctx, sh, letterOf[state])
		if err != nil {
			return nil, err
		}
		ids = append(ids, list...)
	}
	return ids, nil
}

func (s *Store) indexOf(ctx context.Context, sh *shard, state byte) ([]string, error) {
	ctx, cancel := s.bounded(ctx, 10*s.timeout)
	defer cancel()
	var ids []string
	switch state {
	case letterPending:
		v, err := s.control.Do(ctx, s.control.B().Smembers().Key(sh.key("hold")).Build()).AsStrSlice()
		return v, s.ended(ctx, err)
	case letterActive:
		workers, err := s.control.Do(ctx, s.control.B().Zrange().Key(sh.key("workers")).Min("0").Max("-1").Build()).AsStrSlice()
		if err != nil {
			return nil, s.ended(ctx, err)
		}
		for _, w := range workers {
			v, err := s.control.Do(ctx, s.control.B().Smembers().Key(sh.heldKey(w)).Build()).AsStrSlice()
			if err != nil {
				return nil, s.ended(ctx, err)
			}
			ids = append(ids, v...)
		}
		return ids, nil
	case letterScheduled, letterRetryable:
		for _, p := range sh.allPairs() {
			v, err := s.control.Do(ctx, s.control.B().Zrange().Key(p.due).Min("0").Max("-1").Build()).AsStrSlice()
			if err != nil {
				return nil, s.ended(ctx, err)
			}
			ids = append(ids, v...)
		}
		return ids, nil
	}
	for _, q := range sh.known.queues() {
		v, err := s.control.Do(ctx, s.control.B().Lrange().Key(sh.keptKey(state, q)).Start(0).Stop(-1).Build()).AsStrSlice()
		if err != nil {
			return nil, s.ended(ctx, err)
		}
		for _, e := range v {
			if len(e) > keptHead {
				ids = append(ids, e[keptHead:])
			}
		}
	}
	return ids, nil
}
