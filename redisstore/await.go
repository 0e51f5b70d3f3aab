package redisstore

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/rueidis"

	"github.com/waggleq/waggle/driver"
)

// maxBlock bounds one blocking command, so that a connection that died silently is found out.
const maxBlock = 30 * time.Second

// readyPairs is about how many pairs one script is asked for, so that none takes long.
const readyPairs = 1000

// Await implements driver.Fetcher.
func (s *Store) Await(ctx context.Context, req driver.AwaitRequest) error {
	if s.closed() {
		return driver.ErrClosed
	}
	if req.For == driver.ForControl {
		return s.awaitControl(ctx, req)
	}
	if len(req.Queues) == 0 {
		return driver.Invalidf("waiting for work needs at least one queue")
	}
	return s.awaitWork(ctx, req, false)
}

// awaitWork is Await for work. If looked is true the worker has just found nothing in all shards, and what has come since
// has left a token.
func (s *Store) awaitWork(ctx context.Context, req driver.AwaitRequest, looked bool) error {
	deadline := time.Now().Add(req.Max)
	keys := wakeKeys(s.hub(), req)
	dropped, err := s.dropTokens(ctx, req.Worker, keys)
	if err != nil {
		return hint(ctx, err)
	}
	looked = looked && !dropped
	for left := req.Max; ; {
		if ready, err := s.ready(ctx, req, max(left, 0), looked); err != nil || ready {
			return hint(ctx, err)
		}
		looked = false
		// When the time is over nobody is asked again: the caller is about to fetch, which looks at the same.
		if left = time.Until(deadline); left <= 0 || ctx.Err() != nil {
			return ctx.Err()
		}
		woken, token, err := s.block(ctx, req.Worker, keys, left)
		if woken {
			s.awoken.Store(req.Worker, true)
			s.noteToken(req.Worker, token)
			if token == tokenFree {
				s.lending.freed()
			}
		}
		if left = time.Until(deadline); err == nil && !woken && left <= 0 {
			s.noteTime(req.Worker)
		}
		if err != nil || woken || left <= 0 {
			return hint(ctx, err)
		}
	}
}

// hint turns the end of the caller's context into no error: see driver.Fetcher.
func hint(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil && (errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)) {
		return ctx.Err()
	}
	return err
}

// ready reports whether there is work in the declared pairs of any shard, or only of the hub. It also tells the store how
// long a worker of all types will wait.
func (s *Store) ready(ctx context.Context, req driver.AwaitRequest, wait time.Duration, hubOnly bool) (bool, error) {
	found := make([]bool, len(s.shards))
	look := func(ctx context.Context, sh *shard) error {
		return s.refreshed(ctx, sh, func() error {
			_, known, conf := sh.known.versions()
			args := []string{req.Worker, "0", bit(req.Plans)}
			if len(req.Types) == 0 && sh.number == 0 {
				args[1] = strconv.FormatInt(wait.Milliseconds()+1000, 10)
			}
			for pairs := sh.serve(req.Queues, req.Types); ; {
				keys, list := sh.readyArgs(pairs)
				reply, err := s.script(ctx, s.control, sh, readyScript, keys, s.head(sh, known, conf), args, list)
				if err != nil {
					return err
				}
				n, err := reply.AsInt64()
				found[sh.number] = n == 1
				if err != nil || n == 1 || pairs.done() {
					return err
				}
			}
		})
	}
	// The hub must know of the wait before another shard is found empty: what becomes available there later asks the hub.
	if err := s.eachShard(ctx, look, func(sh *shard) bool { return sh == s.hub() }); err != nil || found[0] || hubOnly {
		return found[0], err
	}
	err := s.eachShard(ctx, look, func(sh *shard) bool { return sh != s.hub() })
	return slices.Contains(found, true), err
}

// readyArgs names the next pairs that are looked at.
func (sh *shard) readyArgs(pairs *served) (keys, args []string) {
	keys = sh.keysOf(readyScript, "")
	plain := []string{""}
	var shared []string // in the order of their first pairs
	of := map[string][]string{}
	for n := 0; !pairs.done() && n < readyPairs; n++ {
		p, _ := pairs.next()
		switch {
		case sh.known.config(p.queue).Paused:
		case sh.known.isShared(p.queue):
			if of[p.queue] == nil {
				shared = append(shared, p.queue)
			}
			of[p.queue] = append(of[p.queue], p.digits)
		default:
			plain = append(plain, p.digits)
		}
	}
	plain[0] = strconv.Itoa(len(plain) - 1)
	for _, queue := range shared {
		wanted, all := of[queue], sh.numbersOf(queue)
		plain = append(append(plain, strconv.Itoa(len(wanted))), wanted...)
		plain = append(append(plain, strconv.Itoa(len(all))), all...)
		keys = append(keys, sh.shareKeys(queue)...)
	}
	return keys, plain
}

// dropTokens removes the tokens of many pairs before a worker that was woken by one of them looks whether there is work: of
// each that waits for a task which has been taken it would be woken again for nothing. Who has few pairs fetches from all
// of them, which does the same.
func (s *Store) dropTokens(ctx context.Context, worker string, keys []string) (dropped bool, err error) {
	if _, woken := s.awoken.LoadAndDelete(worker); !woken || len(keys) <= directPairs {
		return false, nil
	}
	ctx, cancel := s.bounded(ctx, s.timeout)
	defer cancel()
	for some := range slices.Chunk(keys, readyPairs) {
		if err := s.control.Do(ctx, s.control.B().Del().Key(some...).Build()).Error(); err != nil {
			return true, s.ended(ctx, err)
		}
	}
	return true, nil
}

func wakeKeys(hub *shard, req driver.AwaitRequest) []string {
	var keys []string
	for _, q := range req.Queues {
		if len(req.Types) == 0 {
			keys = append(keys, hub.wakeKey(q, ""))
			continue
		}
		for _, t := range req.Types {
			keys = append(keys, hub.wakeKey(q, t))
		}
	}
	if req.Plans {
		keys = append(keys, hub.key("planwake"))
	}
	slices.Sort(keys)
	return slices.Compact(keys)
}

// blocking is a command that waits for a token.
type blocking struct {
	s    *Store
	keys []string
	d    time.Duration // after which the server ends it
	tick *ticker       // what ends it before; nil: nothing

	token string // that has ended it
}

// beginBlock has a worker wait for a token in one of the lists, up to d; if then a task is due, not longer by more than a
// message takes.
func (s *Store) beginBlock(worker string, keys []string, d time.Duration) *blocking {
	b := &blocking{s: s, keys: keys, d: min(d, maxBlock)}
	if d <= maxBlock && s.endsDue(worker, d) {
		b.tick = s.tickAfter(worker, d)
		b.keys, b.d = append(slices.Clip(keys), b.tick.key), d+tickSlack
	}
	return b
}

func (b *blocking) command() rueidis.Completed {
	return b.s.waiting.B().Blpop().Key(b.keys...).Timeout(max(b.d.Seconds(), 0.001)).Build()
}

// ended reports whether a token has ended the wait, and not its time.
func (b *blocking) ended(reply rueidis.RedisResult) (woken bool, err error) {
	popped, err := reply.AsStrSlice()
	ticked := b.tick != nil && len(popped) > 0 && popped[0] == b.tick.key
	if b.tick != nil {
		b.tick.stop(ticked)
	}
	if rueidis.IsRedisNil(err) {
		return false, nil
	}
	if err == nil && !ticked && len(popped) > 1 {
		b.token = popped[1]
	}
	return err == nil && !ticked, err
}

// block waits for a token in one of the lists, and returns it, up to d, on a connection of its own that has its own deadline.
func (s *Store) block(ctx context.Context, worker string, keys []string, d time.Duration) (woken bool, token string, err error) {
	if len(keys) == 0 {
		return false, "", driver.Invalidf("waiting for work of no type")
	}
	b := s.beginBlock(worker, keys, d)
	ctx, cancel := s.interruptible(ctx, b.d+s.timeout)
	defer cancel()
	woken, err = b.ended(s.waiting.Do(ctx, b.command()))
	return woken, b.token, s.ended(ctx, err)
}

// blockForControl waits until a worker is rung for, up to d, and leaves the token where it is.
func (s *Store) blockForControl(ctx context.Context, key string, d time.Duration) (bool, error) {
	ctx, cancel := s.interruptible(ctx, d+s.timeout)
	defer cancel()
	cmd := s.waiting.B().Blmove().Source(key).Destination(key).Left().Right().Timeout(max(d.Seconds(), 0.001)).Build()
	err := s.waiting.Do(ctx, cmd).Error()
	if rueidis.IsRedisNil(err) {
		return false, nil
	}
	return err == nil, s.ended(ctx, err)
}

// awaitControl waits until there is news for a worker in any shard: the token is in the hub, whatever shard the news is in, and
// stays until a heartbeat has come for it.
func (s *Store) awaitControl(ctx context.Context, req driver.AwaitRequest) error {
	deadline := time.Now().Add(req.Max)
	if _, err := s.ready(ctx, driver.AwaitRequest{Worker: req.Worker, Types: []string{""}}, 0, false); err != nil {
		return err
	}
	for {
		left := time.Until(deadline)
		if left <= 0 || ctx.Err() != nil {
			return ctx.Err()
		}
		woken, err := s.blockForControl(ctx, s.hub().ctlKey(req.Worker), min(left, maxBlock))
		if err != nil || woken {
			return hint(ctx, err)
		}
	}
}

// wakeForRest wakes a worker if there is work in shards that a fetch has not asked, since it had all it wanted. A shard
// that a fetch has asked does so itself.
func (s *Store) wakeForRest(ctx context.Context, req driver.FetchRequest, rest []*shard) {
	_ = s.eachShard(ctx, func(ctx context.Context, sh *shard) error {
		var pairs []*pair
		var fields []string
		for _, q := range req.Queues {
			if !sh.known.config(q).Paused {
				pairs = append(pairs, sh.ofQueue(q, req.Types)...)
			}
		}
		if len(pairs) == 0 {
			return nil
		}
		for _, p := range pairs {
			fields = append(fields, string(letterAvailable)+p.digits)
		}
		waiting, err := s.hashFields(ctx, sh, "stat", fields)
		if err != nil {
			return err // it is a hint only, see signal
		}
		if i := slices.IndexFunc(waiting, func(n string) bool { return !zero(n) && n[0] != '-' }); i >= 0 {
			s.signal(ctx, sh, pairs[i:i+1])
		}
		return nil
	}, func(sh *shard) bool { return slices.Contains(rest, sh) })
}

// tokenAny is a wake token that does not say in which shard there is something.
const tokenAny = "*"

// tokenFree is one that says that something of a limit has become free which another shard may want.
const tokenFree = "+"

// token is the wake token for something in a shard; nil: in any.
func (sh *shard) token() string {
	if sh == nil {
		return tokenAny
	}
	return "s" + strconv.Itoa(sh.number)
}

// shardsOfToken returns the shards that a token names, or nil.
func (s *Store) shardsOfToken(token string) []*shard {
	var named []*shard
	for name := range strings.SplitSeq(token, ",") {
		digits, ok := strings.CutPrefix(name, "s")
		n, err := strconv.Atoi(digits)
		if !ok || err != nil || n < 0 || n >= len(s.shards) {
			return nil
		}
		if !slices.Contains(named, s.shards[n]) {
			named = append(named, s.shards[n])
		}
	}
	return named
}

// ring wakes the waits of workers for control. It is a hint: a heartbeat delivers what nobody was rung for.
func (s *Store) ring(ctx context.Context, workers []string) {
	if len(workers) == 0 {
		return
	}
	hub := s.hub()
	keys := hub.keysOf(signalScript, "")
	for _, w := range slices.Compact(slices.Sorted(slices.Values(workers))) {
		keys = append(keys, hub.ctlKey(w), hub.ctlKey(w))
	}
	_, _ = s.script(ctx, s.data, hub, signalScript, keys, s.head(hub, "", ""), []string{tokenAny})
}

// signal wakes a worker for each pair, in the shard that holds the tokens, for something in a shard (nil: in any). It is a hint: its failure is not reported, the
// workers' own time limit makes up for it.
func (s *Store) signal(ctx context.Context, from *shard, pairs []*pair) {
	s.signalAs(ctx, from.token(), pairs)
}

func (s *Store) signalAs(ctx context.Context, token string, pairs []*pair) {
	if len(pairs) == 0 {
		return
	}
	hub := s.hub()
	keys := hub.keysOf(signalScript, "")
	for _, p := range pairs {
		keys = append(keys, hub.wakeKey(p.queue, p.typ), hub.wakeKey(p.queue, ""))
	}
	_, _ = s.script(ctx, s.data, hub, signalScript, keys, s.head(hub, "", ""), []string{token})
}
