package redisstore

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/waggleq/waggle/driver"
)

// lookEvery is how often a busy worker looks into all shards at least, not only into those that it knows to have tasks.
const lookEvery = 200 * time.Millisecond

// rounds is what a worker that fetches from several shards remembers from one fetch to the next.
type rounds struct {
	mu       sync.Mutex
	busy     []*shard // in which tasks were left, in the order in which they are to be asked
	looked   time.Time
	offset   int64     // of the clock then: tests move it
	standing *standing // with several queues
	urgency  []urgency // by shard, of those in busy
	tags     []int64   // the same: see leftover
	steps    int       // see turn
	lost     error     // of a call whose claims may have been made, while other shards answered
	quiet    quiet
}

func (s *Store) roundsOf(worker string) *rounds {
	r, ok := s.rounds.Load(worker)
	if !ok {
		r, _ = s.rounds.LoadOrStore(worker, &rounds{urgency: make([]urgency, len(s.shards)), tags: make([]int64, len(s.shards))})
	}
	return r.(*rounds)
}

// leave notes that a shard has tasks left.
func (r *rounds) leave(sh *shard, left leftover) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !slices.Contains(r.busy, sh) {
		r.busy = append(r.busy, sh)
	}
	r.urgency[sh.number], r.tags[sh.number] = left.urgency, left.tag
	r.sort()
}

// sort puts the shards with the most urgent tasks first, then those whose keys had the least. Among equals they take turns.
func (r *rounds) sort() {
	slices.SortStableFunc(r.busy, func(a, b *shard) int {
		return cmp.Or(cmp.Compare(r.urgency[a.number], r.urgency[b.number]), cmp.Compare(r.tags[a.number], r.tags[b.number]))
	})
}

// urgency is one more than the stored priority of the first task left in a shard, so the less the sooner; 0: none is known.
type urgency int

func (u urgency) or(v urgency) urgency {
	if u == 0 || v == 0 {
		return max(u, v)
	}
	return min(u, v)
}

// rest returns the shards that are known to have tasks left.
func (r *rounds) rest(shards []*shard) []*shard {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.standing != nil {
		return r.standing.left(shards)
	}
	return slices.Clone(r.busy)
}

// mustLook reports whether all shards are to be asked before any is taken from.
func (r *rounds) mustLook(lease time.Duration, offset int64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.busy) == 0 || r.offset != offset || time.Since(r.looked) > min(lookEvery, lease/4)
}

func (r *rounds) found(busy []*shard, left []leftover, at time.Time, offset int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.busy, r.looked, r.offset, r.standing = busy, at, offset, nil
	r.urgency, r.tags = make([]urgency, len(left)), make([]int64, len(left))
	for i := range left {
		r.urgency[i], r.tags[i] = left[i].urgency, left[i].tag
	}
	r.sort()
}

// setLost and takeLost carry an error to the worker's next call.
func (r *rounds) setLost(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lost = err
}

func (r *rounds) takeLost() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	err := r.lost
	r.lost = nil
	return err
}

// fetchFromShards claims from the shards that are known to have tasks, one after the other, and asks all of them at once
// which have some when too few are known, or after a while. So a worker at its limit pays for the shards that it takes
// from, and one that finds little waits for a few round trips, not for as many as there are shards.
func (s *Store) fetchFromShards(ctx context.Context, req driver.FetchRequest) (*driver.FetchResult, error) {
	r := s.roundsOf(req.Worker)
	if err := r.takeLost(); err != nil {
		return nil, err
	}
	if named := r.takeNamed(&req, s.offset.Load()); named != nil {
		result, err := s.fetchNamed(ctx, req, r, named)
		if err != nil || result.More || len(result.Claims)+len(result.Plans) > 0 {
			return result, err
		}
		// The token was one of something that is gone: what came since may be elsewhere.
	}
	result := &driver.FetchResult{}
	take := s.takeFromBusy
	if req.Queues = distinctNames(req.Queues); len(req.Queues) > 1 {
		take = s.takeInOrder
	}
	began := time.Now()
	looked := req.Max == 0 || r.mustLook(req.Lease, s.offset.Load())
	var lookErr error
	if looked {
		lookErr = s.look(ctx, req, r, result)
	}
	enough, err := take(ctx, req, r, result)
	if err == nil && !enough && !looked {
		looked = true
		lookErr = s.look(ctx, req, r, result)
		_, err = take(ctx, req, r, result)
	}
	if err = cmp.Or(err, lookErr); err != nil && len(result.Claims) == 0 {
		return nil, err
	}
	if err != nil && err != lookErr { // what came is the worker's; that there may be more it hears at its next call
		r.setLost(err)
		looked = false
	}
	if err == nil && len(result.Claims) < req.Max {
		if lent := s.borrow(ctx, req, result); lent != nil { // the next fetch tries again
			r.setLost(lent)
		}
	}
	rest := r.rest(s.shards)
	if len(rest) > 0 && !result.More && req.Max > 0 { // else the script of a shard in which more was left has woken somebody
		s.wakeForRest(ctx, req, rest)
	}
	result.More = len(rest) > 0
	if !looked || lookErr != nil { // the others did not renew the lease
		result.More, result.LeaseEnd = true, time.Time{}
	}
	r.setQuiet(&req, began, s.offset.Load(), looked && lookErr == nil && len(rest) == 0)
	slices.SortFunc(result.Cancels, func(a, b driver.Ref) int { return cmp.Compare(a.ID, b.ID) })
	result.Cancels = slices.Compact(result.Cancels)
	return result, nil
}

// distinctNames returns the names without those that came before.
func distinctNames(names []string) []string {
	if len(names) < 2 {
		return names
	}
	seen := make(map[string]struct{}, len(names))
	list := make([]string, 0, len(names))
	for _, n := range names {
		if _, again := seen[n]; !again {
			seen[n] = struct{}{}
			list = append(list, n)
		}
	}
	return list
}

// shareClaims returns how many tasks each of n shards is asked for at once when limits bind, see lending.binds: together no
// more than most, so that none is claimed that nobody wants. The first ones from first on get the rest.
func shareClaims(most, n, first int) []int {
	shares := make([]int, n)
	for i := range n {
		shares[(first+i)%n] = most / n
		if i < most%n {
			shares[(first+i)%n]++
		}
	}
	return shares
}

// look does all that a fetch does but claim, in all shards at once, and notes which have tasks. Where limits bind it claims as
// well: most shards have few tasks then that may start, or none, and each would be asked twice. One that does not answer
// does not keep it from the others.
func (s *Store) look(ctx context.Context, req driver.FetchRequest, r *rounds, result *driver.FetchResult) error {
	began, offset := time.Now(), s.offset.Load()
	parts, errs, left := make([]driver.FetchResult, len(s.shards)), make([]error, len(s.shards)), make([]leftover, len(s.shards))
	first := int(s.next.Add(1))
	shares := s.sharePlans(driver.PlanOffers(&req), first)
	most := make([]int, len(s.shards))
	if s.lending.binds(req.Queues) {
		most = shareClaims(req.Max-len(result.Claims), len(s.shards), first)
	}
	err := s.eachShard(ctx, func(ctx context.Context, sh *shard) error {
		req := req
		if req.Plans > 0 && shares[sh.number] == 0 {
			req.Plans = lookForPlans
		} else {
			req.Plans = shares[sh.number]
		}
		req.Max = most[sh.number]
		left[sh.number], errs[sh.number] = s.fetchShard(ctx, sh, req, req.Max, &parts[sh.number])
		return errs[sh.number]
	}, nil)
	var busy []*shard
	for i := range s.shards {
		sh := s.shards[(first+i)%len(s.shards)]
		if errs[sh.number] != nil {
			result.Claims = append(result.Claims, parts[sh.number].Claims...) // of the scripts before the one that failed
			continue
		}
		merge(result, &parts[sh.number])
		if parts[sh.number].More {
			busy = append(busy, sh)
		}
	}
	if len(req.Queues) == 1 {
		s.fair.notePlain(req.Queues[0], left)
	}
	r.found(busy, left, began, offset)
	r.setDues(parts)
	return err
}

// takeFromBusy claims until there is enough, or none of the shards is known to have tasks any more.
func (s *Store) takeFromBusy(ctx context.Context, req driver.FetchRequest, r *rounds, result *driver.FetchResult) (enough bool, err error) {
	req.Plans = 0 // these were asked for when all shards were looked at
	for len(result.Claims) < req.Max {
		sh, t := r.next()
		if sh == nil {
			return false, nil
		}
		if len(req.Queues) == 1 {
			s.fair.raise(req.Queues[0], t.tag)
		}
		want := req.Max - len(result.Claims)
		var part driver.FetchResult
		left, err := s.fetchTurn(ctx, sh, req, want, t, &part)
		if err != nil {
			result.Claims = append(result.Claims, part.Claims...)
			return false, err
		}
		merge(result, &part)
		result.More = result.More || part.More
		if left.capped {
			r.pace(len(part.Claims), want)
		}
		if part.More && (len(part.Claims) > 0 || left.capped && left.tag > t.tag) {
			r.leave(sh, left)
			if len(part.Claims) < want && !left.capped {
				return true, nil // its payloads are as much as one reply should carry
			}
		}
	}
	return true, nil
}

// merge adds what one shard has answered. The time is the latest of the shards', so that no claim is later, and the lease
// ends with the first of theirs.
func merge(result, part *driver.FetchResult) {
	result.Claims = append(result.Claims, part.Claims...)
	result.Plans = append(result.Plans, part.Plans...)
	result.Cancels = append(result.Cancels, part.Cancels...)
	if result.Now.IsZero() || part.LeaseEnd.Before(result.LeaseEnd) {
		result.LeaseEnd = part.LeaseEnd
	}
	if part.Now.After(result.Now) {
		result.Now = part.Now
	}
	if !part.NextDue.IsZero() && (result.NextDue.IsZero() || part.NextDue.Before(result.NextDue)) {
		result.NextDue = part.NextDue
	}
}
