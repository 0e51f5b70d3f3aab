package redisstore

import (
	"context"
	"encoding/binary"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"github.com/waggleq/waggle/driver"
)

const (
	// maxClaims bounds a Fetch, see driver.FetchRequest.
	maxClaims = 1000
	// fetchBytes is how many bytes of payload end a claim early, so that no reply grows without bound.
	fetchBytes = 16 << 20
	// directPairs is up to how many pairs of queue and type a fetch names all; with more it asks first which have tasks.
	directPairs = 16
	// mostPairs bounds the pairs that one script looks into, so that none takes long.
	mostPairs = 128
	// askFirst and askMore are about how many pairs is asked at a time, while those before have too few tasks.
	askFirst, askMore = mostPairs, 1024
)

// Fetch implements driver.Fetcher.
func (s *Store) Fetch(ctx context.Context, req driver.FetchRequest) (*driver.FetchResult, error) {
	if s.closed() {
		return nil, driver.ErrClosed
	}
	if err := driver.CheckFetch(&req); err != nil {
		return nil, err
	}
	req.Max = min(req.Max, maxClaims)
	if req.Wait > 0 {
		return s.awaitAndFetch(ctx, req)
	}
	if len(s.shards) > 1 {
		result, err := s.fetchFromShards(ctx, req)
		if err == nil {
			s.noteDue(req.Worker, result)
		}
		return result, err
	}
	result := &driver.FetchResult{}
	if _, err := s.fetchShard(ctx, s.shards[0], req, req.Max, result); err != nil {
		return nil, err
	}
	s.noteDue(req.Worker, result)
	return result, nil
}

// fetchShard adds what it claims in one shard to result. Where there are several it returns what is known of the tasks left.
func (s *Store) fetchShard(ctx context.Context, sh *shard, req driver.FetchRequest, most int, result *driver.FetchResult) (leftover, error) {
	return s.fetchTurn(ctx, sh, req, most, turn{}, result)
}

// fetchTurn is fetchShard as far as it is the shard's turn.
func (s *Store) fetchTurn(ctx context.Context, sh *shard, req driver.FetchRequest, most int, t turn, result *driver.FetchResult) (leftover, error) {
	var left leftover
	defer s.pruneMeanwhile(ctx, sh, req.Queues)()
	most += len(result.Claims)
	err := s.refreshed(ctx, sh, func() error {
		f := newFetchCall(s, sh, &req)
		f.turn = t
		defer func() { left = f.leftover }()
		for {
			f.most = most - len(result.Claims)
			if err := f.choosePairs(ctx); err != nil {
				return err
			}
			if err := f.claim(ctx, result); err != nil {
				return err
			}
			if !f.left() {
				return nil
			}
			if len(result.Claims) >= most {
				result.More = true
				return nil
			}
		}
	})
	return left, err
}

// pruneMeanwhile prunes those of the queues whose turn it is. It returns what waits for the end of that.
func (s *Store) pruneMeanwhile(ctx context.Context, sh *shard, queues []string) (wait func()) {
	var pruning sync.WaitGroup
	if queues := sh.tended.toPrune(s, queues); len(queues) > 0 {
		pruning.Go(func() { _, _, _ = s.prune(ctx, sh, queues, 1000) }) // the next fetch tries again
	}
	return pruning.Wait
}

// fetchCall is a fetch from one shard: one call of the script, or some where there are many pairs.
type fetchCall struct {
	s       *Store
	sh      *shard
	req     *driver.FetchRequest
	most    int
	conf    string
	known   string
	served  *served
	asked   bool     // for a part of the pairs
	busy    []choice // pairs in which something waits, which no script has looked into yet
	pairs   []choice // those that the next script looks into
	turn    turn
	sharing []choice // the first of each shared queue, with the index that scripts have for it

	takesPlans bool
	mostPlans  int
	leftover
}

// choice is a pair that a script may look into.
type choice struct {
	*pair
	order   int // the index of its queue
	paused  bool
	waiting int // tasks that could be claimed, if that was asked
}

// newFetchCall begins with the first of the pairs that the worker serves. The versions that are sent along make sure that
// no queue was paused or created since.
func newFetchCall(s *Store, sh *shard, req *driver.FetchRequest) *fetchCall {
	f := &fetchCall{s: s, sh: sh, req: req, takesPlans: req.Plans != 0, mostPlans: max(driver.PlanOffers(req), 0)}
	_, f.known, f.conf = sh.known.versions()
	f.served = sh.serve(req.Queues, req.Types)
	return f
}

// left reports whether there are pairs that no script has looked into although something may wait in them.
func (f *fetchCall) left() bool { return len(f.busy) > 0 || !f.served.done() }

// choosePairs lists the next of the pairs that the worker serves, in order: all if there are few, else those in which
// something waits, as many as it takes to claim what is wanted.
func (f *fetchCall) choosePairs(ctx context.Context) error {
	if !f.asked {
		f.asked = true
		first := f.gather(directPairs + 1)
		if len(first) <= directPairs {
			f.pairs = first
			return nil
		}
		if err := f.keepBusy(ctx, append(first, f.gather(askFirst)...)); err != nil {
			return err
		}
	}
	for len(f.busy) < mostPairs && f.waiting() <= f.most && !f.served.done() {
		if err := f.keepBusy(ctx, f.gather(askMore)); err != nil {
			return err
		}
	}
	n, waiting := 0, 0
	for n < min(len(f.busy), mostPairs) && (waiting <= f.most || n < directPairs) {
		waiting += f.busy[n].waiting
		n++
	}
	f.pairs, f.busy = f.busy[:n], f.busy[n:]
	return nil
}

func (f *fetchCall) waiting() int {
	n := 0
	for _, c := range f.busy {
		n += c.waiting
	}
	return n
}

// gather returns the next n pairs that the worker serves.
func (f *fetchCall) gather(n int) []choice {
	var list []choice
	for len(list) < n && !f.served.done() {
		p, order := f.served.next()
		list = append(list, choice{pair: p, order: order, paused: f.sh.known.config(p.queue).Paused})
	}
	return list
}

// keepBusy asks for the numbers of tasks in these pairs and keeps those in which something waits.
func (f *fetchCall) keepBusy(ctx context.Context, list []choice) error {
	if len(list) == 0 {
		return nil
	}
	fields := make([]string, 0, 3*len(list))
	for _, c := range list {
		fields = append(fields, string(letterAvailable)+c.digits, string(letterScheduled)+c.digits, string(letterRetryable)+c.digits)
	}
	values, err := f.s.hashFields(ctx, f.sh, "stat", fields)
	if err != nil {
		return err
	}
	for i, c := range list {
		available, _ := strconv.Atoi(values[3*i])
		if available <= 0 && zero(values[3*i+1]) && zero(values[3*i+2]) {
			continue
		}
		if !c.paused {
			c.waiting = max(available, 0)
		}
		f.busy = append(f.busy, c)
	}
	return nil
}

// claim calls the script for the chosen pairs, and does what it wants done before.
func (f *fetchCall) claim(ctx context.Context, result *driver.FetchResult) error {
	for round := 0; ; round++ {
		// Tending may bring up more to tend, such as a recovered task that has expired; a busy store is left at that.
		reply, err := f.send(ctx, round < 5)
		if err != nil {
			return err
		}
		if claimed, err := f.take(ctx, reply, result); claimed || err != nil {
			return err
		}
	}
}

// take reads the script's reply, or does what the script wants done before it claims.
func (f *fetchCall) take(ctx context.Context, reply rueidis.RedisMessage, result *driver.FetchResult) (claimed bool, err error) {
	parts, err := reply.ToArray()
	if err != nil || len(parts) < 3 {
		return false, driver.Errorf(driver.ErrUnavailable, "%s gave an unexpected reply", f.s.where)
	}
	if word, _ := parts[0].ToString(); word == "tend" {
		return false, f.tend(ctx, parts)
	}
	return true, f.read(ctx, parts, result)
}

// bit is a flag as scripts get it.
func bit(on bool) string {
	if on {
		return "1"
	}
	return "0"
}

func zero(n string) bool { return n == "" || n == "0" }

func (f *fetchCall) send(ctx context.Context, careful bool) (rueidis.RedisMessage, error) {
	keys, args := f.request(careful)
	return f.s.call(ctx, f.s.data, f.sh, fetchScript, keys, args)
}

// request returns what the script is called with.
func (f *fetchCall) request(careful bool) (keys, args []string) {
	keys = f.sh.keysOf(fetchScript, f.req.Worker)
	args = make([]string, 0, 12+4*len(f.pairs))
	args = append(args, f.s.head(f.sh, f.known, f.conf)...)
	args = append(args, f.req.Worker, strconv.FormatInt(ceilMillis(f.req.Lease), 10), strconv.Itoa(f.most), bit(careful),
		f.s.tokensIn(f.sh), strconv.Itoa(fetchBytes), bit(len(f.req.Types) == 0), f.plans(), strconv.Itoa(len(f.pairs)))
	last, index := -1, 0
	f.sharing = f.sharing[:0]
	for _, c := range f.pairs {
		keys = f.sh.pairKeys(keys, c.pair)
		if c.order != last {
			last = c.order
			index++
		}
		args = append(args, c.digits, c.subject, strconv.Itoa(index), bit(c.paused))
		if n := len(f.sharing); (n == 0 || f.sharing[n-1].order != c.order) && f.sh.known.isShared(c.queue) {
			f.sharing = append(f.sharing, choice{pair: c.pair, order: c.order, waiting: index})
		}
	}
	for _, c := range f.sharing {
		args = append(append(args, strconv.Itoa(c.waiting)), f.turnArgs(c.queue)...)
		keys, args = f.sh.shareArgs(keys, args, c.queue)
	}
	return keys, args
}

// tend does what has to be done before tasks are claimed: what lost workers held goes back, expired tasks are discarded.
func (f *fetchCall) tend(ctx context.Context, parts []rueidis.RedisMessage) error {
	if lost, _ := parts[1].AsInt64(); lost > 0 {
		if _, _, err := f.s.recoverLost(ctx, f.sh, maxClaims); err != nil {
			return err
		}
	}
	expired, _ := parts[2].AsStrSlice()
	if _, err := f.s.expire(ctx, f.sh, expired); err != nil {
		return err
	}
	// What has just ended may be more than its queue keeps.
	_, _, _ = f.s.prune(ctx, f.sh, f.sh.tended.toPrune(f.s, f.req.Queues), 1000) // the next fetch tries again
	return nil
}

func (f *fetchCall) read(ctx context.Context, parts []rueidis.RedisMessage, result *driver.FetchResult) error {
	if len(parts) != 16 {
		return driver.Errorf(driver.ErrUnavailable, "%s gave an unexpected reply", f.s.where)
	}
	now, _ := parts[1].AsInt64()
	due, _ := parts[2].AsInt64()
	left, _ := parts[3].AsInt64()
	at := millis(now)
	if end := at.Add(f.req.Lease); result.Now.IsZero() || end.Before(result.LeaseEnd) {
		result.LeaseEnd = end
	}
	if at.After(result.Now) {
		result.Now = at
	}
	if at := millis(due); due != 0 && (result.NextDue.IsZero() || at.Before(result.NextDue)) {
		result.NextDue = at
	}
	result.More = result.More || left > 0
	f.add(urgency(left), parts[14], parts[15])
	cancels, err := parts[4].AsStrSlice()
	if err != nil {
		return f.s.asError(err)
	}
	result.Cancels = append(result.Cancels, parseRefs(cancels)...)
	if err := f.readClaims(ctx, parts[5:8], now, result); err != nil {
		return err
	}
	if err := f.readPlans(ctx, parts[9:13], result); err != nil {
		return err
	}
	lacking, _ := parts[13].AsIntSlice()
	for _, c := range f.sharing {
		if slices.Contains(lacking, int64(c.waiting)) {
			f.s.lending.lack(c.queue)
		}
	}
	if woken, _ := parts[8].AsIntSlice(); len(woken) > 0 {
		f.s.signal(ctx, f.sh, []*pair{f.pairs[woken[0]-1].pair})
	}
	return nil
}

// readClaims reads the claims, the count of the tokens of first claims, and the runs of the others.
func (f *fetchCall) readClaims(ctx context.Context, parts []rueidis.RedisMessage, now int64, result *driver.FetchResult) error {
	list, err := parts[0].ToArray()
	if err != nil {
		return f.s.asError(err)
	}
	token, _ := parts[1].AsInt64()
	again, _ := parts[2].ToArray()
	result.Claims = slices.Grow(result.Claims, len(list)/2)
	var bad []string
	for i := 0; i+1 < len(list); i += 2 {
		id, _ := list[i].ToString()
		body, _ := list[i+1].ToString()
		run := ""
		if len(again) > 1 {
			if n, _ := again[0].AsInt64(); int(n) == i/2+1 {
				run, _ = again[1].ToString()
				again = again[2:]
			}
		}
		t, err := parseTask(body)
		r := firstClaim(&t, token, now)
		if err == nil && run != "" {
			r, err = parseRun(run, &t)
		}
		n := len(result.Claims)
		result.Claims = append(result.Claims, driver.Claim{})
		if err != nil || !f.s.fillClaim(ctx, f.sh, &result.Claims[n], id, &t, &r) {
			result.Claims = result.Claims[:n]
			bad = append(bad, id)
		}
	}
	if len(bad) > 0 {
		for _, id := range bad {
			result.Undecodable = append(result.Undecodable, driver.UnpackID([]byte(id)))
		}
		return f.s.discardUnreadable(ctx, f.sh, bad)
	}
	return nil
}

// fillClaim makes a claim of a task's records; false if its envelope can't be read.
func (s *Store) fillClaim(ctx context.Context, sh *shard, c *driver.Claim, id string, t *taskRecord, r *runRecord) bool {
	p, err := s.pairOf(ctx, sh, t.pair)
	if err != nil || p == nil || driver.DecodeEnvelope([]byte(t.envelope), &c.Task) != nil {
		return false
	}
	c.ID = driver.UnpackID([]byte(id))
	c.Queue, c.Type, c.Priority, c.Payload = p.queue, p.typ, t.priority, []byte(t.payload)
	c.Token, c.Attempt, c.Crashes = makeToken(r.token, r.pair), r.attempt, r.crashes
	c.EnqueuedAt, c.ClaimedAt = millis(t.enqueued), millis(r.claimed)
	c.CancelRequested = r.flags&flagCancel != 0
	return true
}

// parseRefs reads a flat list of packed ids and tokens, sorted by id.
func parseRefs(list []string) []driver.Ref {
	var refs []driver.Ref
	for i := 0; i+1 < len(list); i += 2 {
		if len(list[i+1]) == 8 {
			token := driver.Token(binary.BigEndian.Uint64([]byte(list[i+1])))
			refs = append(refs, driver.Ref{ID: driver.UnpackID([]byte(list[i])), Token: token})
		}
	}
	slices.SortFunc(refs, func(a, b driver.Ref) int {
		if a.ID < b.ID {
			return -1
		}
		return 1
	})
	return refs
}

// tended is when the queues of a shard were last pruned by this program, and which have more than they are to keep.
type tended struct {
	mu   sync.Mutex
	at   map[string]time.Time
	over map[string]bool
	last time.Time // when queues were last looked at
	seen int64     // the offset of the clock then: tests move it

	keyCursor atomic.Uint64 // where the next look for expired unique keys begins
}

const (
	// pruneEvery is how often a queue is looked at that is not known to keep more than it should.
	pruneEvery = 5 * time.Second
	// pruneMost is how many queues are looked at at once, and pruneGap the least time between two such looks on behalf of
	// a worker that serves more.
	pruneMost, pruneGap = 64, time.Second
)

// toPrune returns those of the queues that are to be looked at now.
func (t *tended) toPrune(s *Store, queues []string) []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	now, offset := time.Now(), s.offset.Load()
	if t.at == nil {
		t.at, t.over = map[string]time.Time{}, map[string]bool{}
	}
	if offset != t.seen {
		clear(t.at)
		t.last, t.seen = time.Time{}, offset
	}
	var list []string
	// With thousands of queues there would be some to look at in every fetch, and they would be all that it waits for.
	pause := len(queues) > pruneMost && now.Sub(t.last) < pruneGap
	if pause && len(t.over) == 0 {
		return nil
	}
	for _, q := range queues {
		if len(list) == pruneMost {
			break
		}
		if t.over[q] || !pause && now.Sub(t.at[q]) >= pruneEvery {
			t.at[q] = now
			delete(t.over, q)
			list = append(list, q)
		}
	}
	if !pause {
		t.last = now
	}
	return list
}

// setOver notes that a queue keeps more than it should.
func (t *tended) setOver(queue string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.over == nil {
		t.at, t.over = map[string]time.Time{}, map[string]bool{}
	}
	t.over[queue] = true
}
