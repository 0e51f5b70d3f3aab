package redisstore

import (
	"context"
	"hash/fnv"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/waggleq/waggle/driver"
)

// Where there are several shards, one of them, the home of the queue, keeps the limits of a queue and of its types. New tasks of
// the queue are given ids by which they are there, if they need not be elsewhere for a key, and start as on one server.
// To other shards with tasks the home lends: see lua/lend_share.lua. A worker that could start more than it got, and has found
// that one lacks something, asks all what they need, has the home share out what is left, and hands that on.

const (
	// lendPause is how long nobody here asks again after a limit was found to be used up, unless there is news; lendRest is the same
	// where all shards that lack something have a part of it.
	lendPause = 100 * time.Millisecond
	lendRest  = time.Second
	// lendPatience is how long a shard may keep what others lack. Then it gives way as its tasks end.
	lendPatience = 100 * time.Millisecond
	// permitsGood is how long a permit of a rate is good.
	permitsGood = 250 * time.Millisecond
	lendRounds  = 3
)

// lending is what a program remembers of limits that let nothing start.
type lending struct {
	mu     sync.Mutex
	offset int64                // of the clock then: tests move it
	count  int                  // of what was lacked
	conf   string               // version of the configurations then
	until  map[string]time.Time // by queue: when it is worth asking again
	opens  map[string]int64     // by queue: when its rate opens, in ms of the store's clock
	lacks  map[string]int       // by queue: a number that goes up when a shard is found to lack something; 0: none does
	lacked map[string]time.Time // by queue: when one was found last
}

// lack notes that something waits in a shard for a part of the queue's limits that others have.
func (l *lending) lack(queue string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lacks == nil {
		l.lacks, l.lacked = map[string]int{}, map[string]time.Time{}
	}
	l.count++
	l.lacks[queue] = l.count
	l.lacked[queue] = time.Now()
}

// bindsFor is for how long a limit is thought to be what keeps a queue's tasks from starting after a shard was found to lack it.
const bindsFor = time.Second

// binds reports whether the limits of the queues, and not their order, say what starts next: each shard has a part of its own,
// and starts of its tasks as many as that allows, whatever others have.
func (l *lending) binds(queues []string) bool {
	if len(queues) != 1 {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return time.Since(l.lacked[queues[0]]) < bindsFor
}

func (l *lending) lacking(queue string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lacks[queue]
}

// served notes that what was lacked up to a number has been asked for.
func (l *lending) served(queue string, upTo int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lacks[queue] == upTo {
		delete(l.lacks, queue)
	}
}

// freed forgets that: something has ended, or a token came.
func (l *lending) freed() {
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.until)
}

// pauses reports whether it is not worth asking about a queue yet, and when its rate opens.
func (l *lending) pauses(queue, conf string, offset int64) (bool, int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.offset != offset || l.conf != conf {
		l.offset, l.conf = offset, conf
		clear(l.until)
		clear(l.opens)
	}
	return time.Now().Before(l.until[queue]), l.opens[queue]
}

// note notes what the home has answered.
func (l *lending) note(queue string, full, even bool, opens, now int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.until == nil {
		l.until, l.opens = map[string]time.Time{}, map[string]int64{}
	}
	delete(l.until, queue)
	l.opens[queue] = opens
	switch {
	case full && even:
		l.until[queue] = time.Now().Add(lendRest)
	case full:
		l.until[queue] = time.Now().Add(lendPause)
	}
	if opens > now {
		if at := time.Now().Add(time.Duration(opens-now) * time.Millisecond); !full || at.Before(l.until[queue]) {
			l.until[queue] = at
		}
	}
}

// isLimited reports whether a queue has limits that are lent.
func isLimited(c *driver.QueueConfig) bool {
	return slices.ContainsFunc(c.Limits, func(l driver.Limit) bool { return !l.PerKey })
}

// homeOf is the shard that lends a queue's limits.
func (s *Store) homeOf(queue string) *shard {
	h := fnv.New32a()
	_, _ = h.Write([]byte(queue))
	return s.shards[h.Sum32()%uint32(len(s.shards))]
}

// borrow claims what the limits of the queues let start in other shards than those that have been asked for nothing.
func (s *Store) borrow(ctx context.Context, req driver.FetchRequest, result *driver.FetchResult) error {
	req.Plans = 0
	_, _, conf := s.hub().known.versions()
	for _, queue := range req.Queues {
		c := s.hub().known.config(queue)
		lacks := s.lending.lacking(queue)
		if len(result.Claims) >= req.Max || c.Paused || lacks == 0 || !isLimited(&c) {
			continue
		}
		pauses, opens := s.lending.pauses(queue, conf, s.offset.Load())
		if !pauses {
			one := req
			one.Queues = []string{queue}
			var err error
			if opens, err = s.borrowFor(ctx, one, result); err != nil {
				return err
			}
			s.lending.served(queue, lacks)
		}
		if at := millis(opens); opens != 0 && at.After(result.Now) && (result.NextDue.IsZero() || at.Before(result.NextDue)) {
			result.NextDue = at
		}
	}
	return nil
}

// borrowFor is borrow for one queue. It returns when its rate opens, 0 if that is not in the way.
func (s *Store) borrowFor(ctx context.Context, req driver.FetchRequest, result *driver.FetchResult) (opens int64, err error) {
	queue := req.Queues[0]
	yields := map[int][]string{}
	for range lendRounds {
		_, _, conf := s.homeOf(queue).known.versions()
		reports, err := s.askNeeds(ctx, queue, yields)
		if err != nil || len(reports) == 0 {
			return 0, err
		}
		l, err := s.shareOutLimits(ctx, queue, conf, reports, req.Max-len(result.Claims))
		if err == errStale { // who changes limits goes on in all shards
			return 0, s.refresh(ctx, s.homeOf(queue))
		}
		if err != nil {
			return 0, err
		}
		s.lending.note(queue, l.full && len(l.yields) == 0, l.even, l.opens, l.now)
		opens, yields = l.opens, l.yields
		if err := s.handOn(ctx, queue, l.loans); err != nil {
			return opens, err
		}
		if _, also := l.loans[s.homeOf(queue).number]; !also && waitsAtHome(reports, s.homeOf(queue)) {
			l.loans[s.homeOf(queue).number] = nil
		}
		for number := range l.loans {
			if want := req.Max - len(result.Claims); want > 0 {
				var part driver.FetchResult
				_, err := s.fetchShard(ctx, s.shards[number], req, want, &part)
				merge(result, &part)
				result.More = result.More || part.More
				if err != nil {
					return opens, err
				}
			}
		}
		if len(yields) == 0 {
			return opens, nil
		}
	}
	return opens, nil
}

// waitsAtHome reports whether tasks wait in the shard that keeps the limits.
func waitsAtHome(reports map[string][]need, home *shard) bool {
	for _, needs := range reports {
		if needs[home.number][3] != "0" {
			return true
		}
	}
	return false
}

// need is what a shard reports of a limit: version, most active, active, waiting, permits.
type need [5]string

// askNeeds asks all shards. yields are scopes that a shard is to give up.
func (s *Store) askNeeds(ctx context.Context, queue string, yields map[int][]string) (map[string][]need, error) {
	parts := make([]map[string]need, len(s.shards))
	err := s.eachShard(ctx, func(ctx context.Context, sh *shard) error {
		return s.refreshed(ctx, sh, func() error {
			if !sh.known.isShared(queue) {
				return nil
			}
			_, known, conf := sh.known.versions()
			up := yields[sh.number]
			args := append([]string{strconv.Itoa(len(up))}, up...)
			reply, err := s.script(ctx, s.data, sh, lendLookScript, append(sh.keysOf(lendLookScript, ""), sh.shareKeys(queue)...),
				s.head(sh, known, conf), args, sh.numbersOf(queue))
			if err != nil {
				return err
			}
			list, err := reply.ToArray()
			if err != nil {
				return s.asError(err)
			}
			part := map[string]need{}
			for i := 0; i+5 < len(list); i += 6 {
				var n need
				for k := range n {
					v, _ := list[i+1+k].AsInt64()
					n[k] = strconv.FormatInt(v, 10)
				}
				scope, _ := list[i].ToString()
				part[scope] = n
			}
			parts[sh.number] = part
			return nil
		})
	}, nil)
	if err != nil {
		return nil, err
	}
	all := map[string][]need{}
	for scope := range parts[0] {
		for _, part := range parts {
			if n, ok := part[scope]; ok {
				all[scope] = append(all[scope], n)
			}
		}
		if len(all[scope]) < len(parts) { // the limit is being changed
			delete(all, scope)
		}
	}
	return all, nil
}

// loans is what the home of a queue has answered.
type loans struct {
	loans  map[int][]string // by shard: arguments of lend_take
	yields map[int][]string // by shard: scopes
	opens  int64
	now    int64
	full   bool
	even   bool // all that lack something have a part
}

// shareOutLimits has the home share out what is left, if configurations are still those under which it was asked what is needed.
func (s *Store) shareOutLimits(ctx context.Context, queue, conf string, reports map[string][]need, want int) (*loans, error) {
	home := s.homeOf(queue)
	args := []string{strconv.Itoa(len(s.shards)), strconv.Itoa(want), strconv.Itoa(int(s.next.Add(1)) % len(s.shards)), strconv.FormatInt(lendPatience.Milliseconds(), 10),
		strconv.Itoa(home.number + 1)}
	numbers := home.numbersOf(queue)
	args = append(append(args, strconv.Itoa(len(numbers))), numbers...)
	for scope, needs := range reports {
		args = append(args, scope)
		for _, n := range needs {
			args = append(args, n[:]...)
		}
	}
	reply, err := s.script(ctx, s.data, home, lendShareScript, append(home.keysOf(lendShareScript, ""), home.shareKeys(queue)...), s.head(home, "", conf), args)
	if err != nil {
		return nil, err
	}
	parts, err := reply.ToArray()
	if err != nil || len(parts) != 5 {
		return nil, driver.Errorf(driver.ErrUnavailable, "%s gave an unexpected reply", s.where)
	}
	l := &loans{loans: map[int][]string{}, yields: map[int][]string{}}
	l.opens, _ = parts[1].AsInt64()
	full, _ := parts[2].AsInt64()
	l.full, l.even = full > 0, full < 2
	l.now, _ = parts[4].AsInt64()
	list, _ := parts[0].ToArray()
	for i := 0; i+7 < len(list); i += 8 {
		number, _ := list[i].AsInt64()
		for _, v := range list[i+1 : i+8] {
			text, err := v.ToString()
			if err != nil {
				n, _ := v.AsInt64()
				text = strconv.FormatInt(n, 10)
			}
			l.loans[int(number)] = append(l.loans[int(number)], text)
		}
	}
	up, _ := parts[3].ToArray()
	for i := 0; i+1 < len(up); i += 2 {
		number, _ := up[i].AsInt64()
		scope, _ := up[i+1].ToString()
		l.yields[int(number)] = append(l.yields[int(number)], scope)
	}
	return l, nil
}

// handOn gives the shards what they were lent.
func (s *Store) handOn(ctx context.Context, queue string, loans map[int][]string) error {
	return s.eachShard(ctx, func(ctx context.Context, sh *shard) error {
		keys := append(sh.keysOf(lendTakeScript, ""), sh.shareKeys(queue)...)
		_, err := s.script(ctx, s.data, sh, lendTakeScript, keys, s.head(sh, "", ""),
			[]string{strconv.FormatInt(permitsGood.Milliseconds(), 10)}, loans[sh.number])
		return err
	}, func(sh *shard) bool { return len(loans[sh.number]) > 0 })
}
