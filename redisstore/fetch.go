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
	result := &driver.FetchResult{}
	first := int(s.next.Add(1))
	for i := range s.shards {
		sh := s.shards[(first+i)%len(s.shards)]
		if err := s.fetchShard(ctx, sh, req, req.Max-len(result.Claims), result); err != nil {
			if len(result.Claims) > 0 {
				return result, nil // they are this worker's; the shard that failed is asked again next time
			}
			return nil, err
		}
		if len(result.Claims) >= req.Max && req.Max > 0 {
			result.More = result.More || i+1 < len(s.shards)
			break
		}
	}
	return result, nil
}

func (s *Store) fetchShard(ctx context.Context, sh *shard, req driver.FetchRequest, most int, result *driver.FetchResult) error {
	var pruning sync.WaitGroup
	if queues := sh.tended.toPrune(s, req.Queues); len(queues) > 0 {
		pruning.Go(func() { _, _, _ = s.prune(ctx, sh, queues, 1000) }) // the next fetch tries again
	}
	defer pruning.Wait()
	return s.refreshed(ctx, sh, func() error {
		f := &fetchCall{s: s, sh: sh, req: &req, most: most}
		if err := f.choosePairs(ctx); err != nil {
			return err
		}
		for round := 0; ; round++ {
			// Tending may bring up more to tend, such as a recovered task that has expired; a busy store is left at that.
			reply, err := f.send(ctx, round < 5)
			if err != nil {
				return err
			}
			parts, err := reply.ToArray()
			if err != nil || len(parts) < 3 {
				return driver.Errorf(driver.ErrUnavailable, "%s gave an unexpected reply", s.where)
			}
			if word, _ := parts[0].ToString(); word == "tend" {
				if err := f.tend(ctx, parts); err != nil {
					return err
				}
				continue
			}
			return f.read(ctx, parts, result)
		}
	})
}

// fetchCall is one call of the fetch script.
type fetchCall struct {
	s      *Store
	sh     *shard
	req    *driver.FetchRequest
	most   int
	pairs  []*pair
	queue  []string // of each pair: the index of its queue
	paused []string // of each pair: "1" if its queue is
	conf   string
	known  string
	left   bool // pairs that were not named have tasks
}

// choosePairs lists the pairs that the worker serves, in order. The versions that are sent along make sure that no queue
// was paused or created since.
func (f *fetchCall) choosePairs(ctx context.Context) error {
	_, f.known, f.conf = f.sh.known.versions()
	f.pairs, f.queue, f.paused = f.pairs[:0], f.queue[:0], f.paused[:0]
	for i, q := range f.req.Queues {
		if slices.Contains(f.req.Queues[:i], q) {
			continue
		}
		paused := bit(f.sh.known.config(q).Paused)
		for _, p := range f.sh.known.ofQueue(q, f.req.Types) {
			f.pairs = append(f.pairs, p)
			f.queue = append(f.queue, strconv.Itoa(i+1))
			f.paused = append(f.paused, paused)
		}
	}
	if len(f.pairs) <= directPairs {
		return nil
	}
	return f.dropEmpty(ctx)
}

// dropEmpty leaves out the pairs in which nothing waits.
func (f *fetchCall) dropEmpty(ctx context.Context) error {
	fields := make([]string, 0, 3*len(f.pairs))
	for _, p := range f.pairs {
		fields = append(fields, "A"+p.digits, "S"+p.digits, "T"+p.digits)
	}
	values, err := f.s.hashFields(ctx, f.sh, "stat", fields)
	if err != nil {
		return err
	}
	n, waiting := 0, 0
	for i := range f.pairs {
		available, _ := strconv.Atoi(values[3*i])
		if available <= 0 && zero(values[3*i+1]) && zero(values[3*i+2]) {
			continue
		}
		if waiting > f.most && n > directPairs {
			f.left = true // what is named already has more than can be claimed
			break
		}
		waiting += max(available, 0)
		f.pairs[n], f.queue[n], f.paused[n] = f.pairs[i], f.queue[i], f.paused[i]
		n++
	}
	f.pairs, f.queue, f.paused = f.pairs[:n], f.queue[:n], f.paused[:n]
	return nil
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
	keys := f.sh.keysOf(fetchScript, f.req.Worker)
	args := make([]string, 0, 12+4*len(f.pairs))
	args = append(args, f.s.head(f.sh, f.known, f.conf)...)
	args = append(args, f.req.Worker, strconv.FormatInt(ceilMillis(f.req.Lease), 10), strconv.Itoa(f.most), bit(careful),
		f.s.isHub(f.sh), strconv.Itoa(fetchBytes), bit(len(f.req.Types) == 0))
	last, index := "", 0
	for i, p := range f.pairs {
		keys = f.sh.pairKeys(keys, p)
		if f.queue[i] != last {
			last = f.queue[i]
			index++
		}
		args = append(args, p.digits, p.subject, strconv.Itoa(index), f.paused[i])
	}
	return f.s.call(ctx, f.s.data, f.sh, fetchScript, keys, args)
}

// tend does what has to be done before tasks are claimed: what lost workers held goes back, expired tasks are discarded.
func (f *fetchCall) tend(ctx context.Context, parts []rueidis.RedisMessage) error {
	if lost, _ := parts[1].AsInt64(); lost > 0 {
		if _, _, err := f.s.recoverLost(ctx, f.sh, maxClaims); err != nil {
			return err
		}
	}
	expired, _ := parts[2].AsStrSlice()
	_, err := f.s.expire(ctx, f.sh, expired)
	return err
}

func (f *fetchCall) read(ctx context.Context, parts []rueidis.RedisMessage, result *driver.FetchResult) error {
	if len(parts) != 9 {
		return driver.Errorf(driver.ErrUnavailable, "%s gave an unexpected reply", f.s.where)
	}
	now, _ := parts[1].AsInt64()
	due, _ := parts[2].AsInt64()
	left, _ := parts[3].AsInt64()
	if at := millis(now); at.After(result.Now) {
		result.Now, result.LeaseEnd = at, at.Add(f.req.Lease)
	}
	if at := millis(due); due != 0 && (result.NextDue.IsZero() || at.Before(result.NextDue)) {
		result.NextDue = at
	}
	result.More = result.More || left == 1 || f.left
	cancels, err := parts[4].AsStrSlice()
	if err != nil {
		return f.s.asError(err)
	}
	result.Cancels = append(result.Cancels, parseRefs(cancels)...)
	if err := f.readClaims(ctx, parts[5:8], now, result); err != nil {
		return err
	}
	if woken, _ := parts[8].AsIntSlice(); len(woken) > 0 {
		f.s.signal(ctx, []*pair{f.pairs[woken[0]-1]})
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
	seen int64 // the offset of the clock then: tests move it

	keyCursor atomic.Uint64 // where the next look for expired unique keys begins
}

// pruneEvery is how often a queue is looked at that is not known to keep more than it should.
const pruneEvery = 5 * time.Second

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
		t.seen = offset
	}
	var list []string
	for _, q := range queues {
		if len(list) == 64 {
			break
		}
		if t.over[q] || now.Sub(t.at[q]) >= pruneEvery {
			t.at[q] = now
			delete(t.over, q)
			list = append(list, q)
		}
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
