package redisstore

import (
	"context"
	"hash/maphash"
	"slices"
	"time"

	"github.com/waggleq/waggle/driver"
)

// A worker that has found nothing in any shard need not ask them all again when a wake token names those in which there is
// something: what came into others since has left tokens too. So a task on its own costs about as much with many shards as
// with one.

const (
	// quietFor is how long a worker goes by what it found when it asked all shards: they are asked again after that, in case
	// a token was lost.
	quietFor = time.Second
	// justNow is how long ago a worker must have fetched to go on waiting without looking.
	justNow = 50 * time.Millisecond
)

// quiet is what a worker knows of shards in which it has found nothing.
type quiet struct {
	looked  time.Time // when it asked all of them; zero: something was there
	fetched time.Time // the last time that it fetched since, and left nothing
	offset  int64     // of the clock then: tests move it
	served  uint64    // the queues and types that it asked for
	dues    []time.Time
	named   []*shard // by the token that ended its last wait
}

var servedSeed = maphash.MakeSeed()

// servedBy is a number for queues and types, whatever their order.
func servedBy(req *driver.FetchRequest) uint64 {
	var sum uint64
	for _, q := range req.Queues {
		sum += maphash.String(servedSeed, q)
	}
	for _, t := range req.Types {
		sum += 3 * maphash.String(servedSeed, t)
	}
	return sum
}

// noteToken keeps the shards that a token names for the worker's next fetch.
func (s *Store) noteToken(worker, token string) {
	if len(s.shards) == 1 {
		return
	}
	r := s.roundsOf(worker)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.quiet.named = s.shardsOfToken(token)
}

// noteTime keeps for the worker's next fetch the shard in which something is due, now that its wait is over: nil if that may
// be several.
func (s *Store) noteTime(worker string) {
	if len(s.shards) == 1 || !s.endsDue(worker, 0) {
		return
	}
	r := s.roundsOf(worker)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.quiet.named = nil
	if sh := soleDue(r.quiet.dues); sh >= 0 {
		r.quiet.named = s.shards[sh : sh+1]
	}
}

// soleDue is the index of the first time, unless another comes in the next milliseconds: then it is -1.
func soleDue(dues []time.Time) int {
	sole := -1
	for i, due := range dues {
		if !due.IsZero() && (sole < 0 || due.Before(dues[sole])) {
			sole = i
		}
	}
	for i, due := range dues {
		if i != sole && !due.IsZero() && due.Sub(dues[sole]) < 5*time.Millisecond {
			return -1
		}
	}
	return sole
}

// takeNamed returns the shards to which a fetch may keep, if there are any.
func (r *rounds) takeNamed(req *driver.FetchRequest, offset int64) []*shard {
	r.mu.Lock()
	defer r.mu.Unlock()
	named := r.quiet.named
	r.quiet.named = nil
	if len(named) > 1 && len(distinctNames(req.Queues)) > 1 {
		return nil // their order goes over all shards
	}
	if named == nil || req.Max == 0 || !r.quiet.holds(req, offset) {
		return nil
	}
	return named
}

func (q *quiet) holds(req *driver.FetchRequest, offset int64) bool {
	return time.Since(q.looked) < quietFor && q.offset == offset && q.served == servedBy(req)
}

// justLooked reports whether a worker has only just found nothing in any shard, and need not be told what was there before.
func (r *rounds) justLooked(req *driver.FetchRequest, offset int64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return time.Since(r.quiet.fetched) < justNow && r.quiet.holds(req, offset)
}

// setQuiet notes what a fetch from all shards has found.
func (r *rounds) setQuiet(req *driver.FetchRequest, began time.Time, offset int64, nothing bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.quiet.looked, r.quiet.fetched = time.Time{}, time.Time{}
	if nothing {
		r.quiet.looked, r.quiet.fetched, r.quiet.offset, r.quiet.served = began, time.Now(), offset, servedBy(req)
	}
}

// stayQuiet notes that a fetch from one shard has left nothing.
func (r *rounds) stayQuiet() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.quiet.fetched = time.Now()
}

// setDues notes when the next task of each shard is due.
func (r *rounds) setDues(parts []driver.FetchResult) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.quiet.dues = make([]time.Time, len(parts))
	for i := range parts {
		r.quiet.dues[i] = parts[i].NextDue
	}
}

// nextDue is when the next task of any shard is due, with what one of them has just said.
func (r *rounds) nextDue(sh *shard, at time.Time) time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.quiet.dues[sh.number] = at
	var next time.Time
	for _, due := range r.quiet.dues {
		next = earlier(next, due)
	}
	return next
}

// fetchNamed fetches from the shards that have something.
func (s *Store) fetchNamed(ctx context.Context, req driver.FetchRequest, r *rounds, named []*shard) (*driver.FetchResult, error) {
	req.Queues = distinctNames(req.Queues)
	began, offset := time.Now(), s.offset.Load()
	result := &driver.FetchResult{}
	err := s.takeNamed(ctx, req, r, named, result)
	if err != nil || result.More {
		r.setQuiet(&req, began, offset, false)
	} else {
		r.stayQuiet()
	}
	if err != nil {
		if len(result.Claims) == 0 {
			return nil, err
		}
		r.setLost(err)
		result.More = true
	} else if len(result.Claims) < req.Max {
		if lent := s.borrow(ctx, req, result); lent != nil { // the next fetch tries again
			r.setLost(lent)
		}
	}
	result.LeaseEnd = time.Time{} // the others did not renew it
	return result, nil
}

// takeNamed claims from some shards. From several it claims as far as limits bind what each of them may start, and else in
// the order of what they have.
func (s *Store) takeNamed(ctx context.Context, req driver.FetchRequest, r *rounds, named []*shard, result *driver.FetchResult) error {
	if len(named) == 1 {
		left, err := s.fetchShard(ctx, named[0], req, req.Max, result)
		if err == nil && result.More {
			r.leave(named[0], left)
		}
		result.NextDue = r.nextDue(named[0], result.NextDue)
		return err
	}
	if err := s.askNamed(ctx, req, r, named, result); err != nil {
		return err
	}
	_, err := s.takeFromBusy(ctx, req, r, result)
	rest := r.rest(s.shards)
	if err == nil && len(rest) > 0 && !result.More {
		s.wakeForRest(ctx, req, rest)
	}
	result.More = len(rest) > 0
	return err
}

// askNamed does what look does, in some shards.
func (s *Store) askNamed(ctx context.Context, req driver.FetchRequest, r *rounds, named []*shard, result *driver.FetchResult) error {
	parts, left, most := make([]driver.FetchResult, len(named)), make([]leftover, len(named)), make([]int, len(named))
	if s.lending.binds(req.Queues) {
		most = shareClaims(req.Max, len(named), int(s.next.Add(1)))
	}
	if plans := driver.PlanOffers(&req); plans > 0 {
		req.Plans = max(plans/len(named), 1)
	}
	err := s.eachShard(ctx, func(ctx context.Context, sh *shard) (err error) {
		i, one := slices.Index(named, sh), req
		one.Max = most[i]
		left[i], err = s.fetchShard(ctx, sh, one, one.Max, &parts[i])
		return err
	}, func(sh *shard) bool { return slices.Contains(named, sh) })
	next := result.NextDue
	for i, sh := range named {
		if parts[i].Now.IsZero() { // it did not answer
			result.Claims = append(result.Claims, parts[i].Claims...)
			continue
		}
		merge(result, &parts[i])
		if parts[i].More {
			r.leave(sh, left[i])
		}
		next = r.nextDue(sh, parts[i].NextDue)
	}
	result.NextDue = next
	return err
}
