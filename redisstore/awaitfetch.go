package redisstore

import (
	"context"
	"time"

	"github.com/redis/rueidis"

	"github.com/waggleq/waggle/driver"
)

// awaitAndFetch is Fetch with Wait. On one shard the claim is sent together with the command that blocks, on the same
// connection: the server executes it in the moment in which it hands out the wake token, so that an idle worker has its
// task one round trip earlier.
func (s *Store) awaitAndFetch(ctx context.Context, req driver.FetchRequest) (*driver.FetchResult, error) {
	began := time.Now()
	wait := driver.AwaitRequest{Worker: req.Worker, For: driver.ForWork, Queues: req.Queues, Types: req.Types, Plans: req.Plans > 0, Max: req.Wait}
	req.Wait = 0
	if len(s.shards) > 1 {
		return s.awaitThenFetch(ctx, req, wait)
	}
	ready, err := s.ready(ctx, wait, wait.Max, false)
	if err != nil {
		return nil, hint(ctx, err)
	}
	left := wait.Max - time.Since(began)
	f := newFetchCall(s, s.hub(), &req)
	switch few := f.chooseAll(); {
	case ready || left <= 0:
	case few:
		for round := 1; ; round++ {
			before := time.Since(began)
			result, err := s.blockAndClaim(ctx, f, wakeKeys(s.hub(), wait), wait.Max-before)
			if result != nil && round > 1 {
				result.Waited += before
			}
			left = wait.Max - time.Since(began)
			if err == nil && result != nil && round < idleRounds && goesOn(result, left) {
				continue
			}
			if result != nil || err != nil {
				return result, err
			}
			break
		}
	default:
		return s.awaitThenFetch(ctx, req, wait)
	}
	return s.Fetch(ctx, req)
}

// idleRounds bounds how often a wait goes on after it was ended for nothing.
const idleRounds = 50

// goesOn reports whether a worker that was woken, and found that others were faster, may wait for the rest of its time.
func goesOn(result *driver.FetchResult, left time.Duration) bool {
	return left > 0 && !result.More && len(result.Claims)+len(result.Plans)+len(result.Cancels)+len(result.Undecodable) == 0 &&
		(result.NextDue.IsZero() || result.NextDue.Sub(result.Now) > left)
}

func (s *Store) awaitThenFetch(ctx context.Context, req driver.FetchRequest, wait driver.AwaitRequest) (*driver.FetchResult, error) {
	began := time.Now()
	if s.closed() {
		return nil, driver.ErrClosed
	}
	for most := wait.Max; ; {
		looked := len(s.shards) > 1 && s.roundsOf(req.Worker).justLooked(&req, s.offset.Load())
		wait.Max = most - time.Since(began)
		if err := s.awaitWork(ctx, wait, looked); err != nil {
			return nil, err
		}
		waited := time.Since(began)
		result, err := s.fetchAwaited(ctx, req, most-waited)
		if err != nil || result != nil {
			return withWaited(result, waited), err
		}
	}
}

func withWaited(result *driver.FetchResult, waited time.Duration) *driver.FetchResult {
	if result != nil {
		result.Waited = waited
	}
	return result
}

// fetchAwaited fetches after a wait. The result is nil if the wait should go on: a token has named a shard in which others
// were faster, and nothing was elsewhere before.
func (s *Store) fetchAwaited(ctx context.Context, req driver.FetchRequest, left time.Duration) (*driver.FetchResult, error) {
	if len(s.shards) > 1 && ctx.Err() == nil {
		r := s.roundsOf(req.Worker)
		if err := r.takeLost(); err != nil {
			return nil, err
		}
		named := req
		named.Max = min(named.Max, maxClaims)
		if shards := r.takeNamed(&named, s.offset.Load()); shards != nil {
			result, err := s.fetchNamed(ctx, named, r, shards)
			if err != nil || !goesOn(result, left) {
				if err == nil {
					s.noteDue(req.Worker, result)
				}
				return result, err
			}
			return nil, nil
		}
	}
	return s.Fetch(ctx, req)
}

// chooseAll chooses all pairs that the worker serves, if there are few.
func (f *fetchCall) chooseAll() bool {
	f.most = f.req.Max
	f.pairs = f.gather(directPairs + 1)
	return len(f.pairs) <= directPairs
}

// blockAndClaim waits for a token up to d and then claims. The result is nil if that has to be done once more because
// the script was refused or wants something done before.
func (s *Store) blockAndClaim(ctx context.Context, f *fetchCall, tokens []string, d time.Duration) (*driver.FetchResult, error) {
	defer s.pruneMeanwhile(ctx, f.sh, f.req.Queues)()
	keys, args := f.request(true)
	blocking := s.beginBlock(f.req.Worker, tokens, d)
	wait, cancel := s.interruptible(ctx, blocking.d+s.timeout)
	defer cancel()
	replies := s.waiting.DoMulti(wait, blocking.command(), evalsha(s.waiting, fetchScript, keys, args))
	woken, err := blocking.ended(replies[0])
	if err != nil {
		return nil, hint(ctx, s.ended(wait, err))
	}
	reply, err := replies[1].ToMessage()
	if re, ok := rueidis.IsRedisErr(err); ok && re.IsNoScript() {
		return nil, nil
	}
	if err = s.ended(wait, err); err == errStale {
		return nil, nil
	}
	if err != nil {
		return nil, hint(ctx, err)
	}
	result := &driver.FetchResult{}
	if !woken {
		result.Waited = min(d, maxBlock) // no token came all that time
	}
	claimed, err := f.take(ctx, reply, result)
	if !claimed || err != nil {
		return nil, err
	}
	s.noteDue(f.req.Worker, result)
	return result, nil
}
