package redisstore

import (
	"cmp"
	"context"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/waggleq/waggle/driver"
)

// A worker of several queues on several shards may claim from a queue only what the queues before it leave, in whatever
// shard that is. So it knows first how many tasks wait where, then claims from each shard up to a certain queue and a
// certain number.

const (
	// knownFor is how long it goes by the numbers that it has, where the first queue has all that it wants.
	knownFor = 200 * time.Millisecond
	// peekQueues is for how many queues the numbers are asked at a time.
	peekQueues = 64
	// planRounds bounds how often a plan is made anew because others were faster.
	planRounds = 3
)

// standing is how many tasks wait in the shards, of the queues for which it was asked.
type standing struct {
	of    map[string][]int // by queue, then by shard
	asked time.Time
}

// takeInOrder claims up to req.Max tasks in the order of the queues, over all shards. It reports whether it got them all.
func (s *Store) takeInOrder(ctx context.Context, req driver.FetchRequest, r *rounds, result *driver.FetchResult) (enough bool, err error) {
	var spent []share // in which nothing may start, whatever their numbers say: limits hold it back
	for range planRounds {
		want := req.Max - len(result.Claims)
		if want <= 0 {
			return true, nil
		}
		first := int(s.next.Add(1))
		var shares []share
		if spent == nil {
			shares = r.planFirst(req.Queues, want, first)
		}
		if shares == nil {
			st, err := s.peek(ctx, &req, want)
			if err != nil {
				return false, err
			}
			for _, sh := range spent {
				for _, q := range sh.queues {
					if st.of[q] != nil {
						st.of[q][sh.shard] = 0
					}
				}
			}
			shares = r.planAll(st, req.Queues, want, first)
		}
		if len(shares) == 0 {
			return false, nil
		}
		empty, err := s.takeShares(ctx, req, shares, result)
		if err != nil {
			return false, err
		}
		spent = append(spent, empty...)
	}
	return len(result.Claims) >= req.Max, nil
}

// peek asks all shards how many tasks wait in the queues, one after the other until there are enough.
func (s *Store) peek(ctx context.Context, req *driver.FetchRequest, want int) (*standing, error) {
	st := &standing{of: map[string][]int{}, asked: time.Now()}
	var mu sync.Mutex
	found := 0
	for some := range slices.Chunk(req.Queues, peekQueues) {
		for _, q := range some {
			st.of[q] = make([]int, len(s.shards))
		}
		err := s.eachShard(ctx, func(ctx context.Context, sh *shard) error {
			var pairs []*pair
			var fields []string
			for _, q := range some {
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
			values, err := s.hashFields(ctx, sh, "stat", fields)
			if err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			for i, p := range pairs {
				n, _ := strconv.Atoi(values[i])
				st.of[p.queue][sh.number] += max(n, 0)
				found += max(n, 0)
			}
			return nil
		}, nil)
		if err != nil || found >= want {
			return st, err
		}
	}
	return st, nil
}

// share is what is to be claimed from one shard.
type share struct {
	shard  int
	queues []string // up to the one in which the plan ends
	n      int
}

// plan divides want tasks among the shards. Where one shard has all that is left to take, no other is asked; first is
// where to begin, so that they take turns; those with more urgent tasks come before.
func (st *standing) plan(queues []string, want, first int, urgent []urgency) []share {
	var shares []share
	at := map[int]int{} // shard → index in shares
	for i, q := range queues {
		numbers := st.of[q]
		order := make([]int, 0, len(numbers))
		for k := range numbers {
			if sh := (first + k) % len(numbers); numbers[sh] > 0 {
				order = append(order, sh)
			}
		}
		slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(urgent[a], urgent[b]) })
		if k := slices.IndexFunc(order, func(sh int) bool { return numbers[sh] >= want && urgent[sh] == urgent[order[0]] }); k >= 0 {
			order = order[k : k+1]
		}
		for _, sh := range order {
			n := min(numbers[sh], want)
			if n == 0 {
				break
			}
			k, there := at[sh]
			if !there {
				k = len(shares)
				at[sh] = k
				shares = append(shares, share{shard: sh})
			}
			shares[k].n += n
			shares[k].queues = queues[:i+1]
			numbers[sh] -= n
			want -= n
		}
		if want == 0 {
			break
		}
	}
	return shares
}

// takeShares claims what a plan says, from all its shards at once. It returns the shares that had less, and have nothing more.
func (s *Store) takeShares(ctx context.Context, req driver.FetchRequest, shares []share, result *driver.FetchResult) (empty []share, err error) {
	parts, of := make([]driver.FetchResult, len(s.shards)), make([]*share, len(s.shards))
	for i := range shares {
		of[shares[i].shard] = &shares[i]
	}
	err = s.eachShard(ctx, func(ctx context.Context, sh *shard) error {
		part := req
		part.Queues, part.Max = of[sh.number].queues, of[sh.number].n
		_, err := s.fetchShard(ctx, sh, part, part.Max, &parts[sh.number])
		return err
	}, func(sh *shard) bool { return of[sh.number] != nil })
	for _, sh := range shares { // what came is the worker's, whatever has become of the rest
		part := &parts[sh.shard]
		if part.Now.IsZero() {
			result.Claims = append(result.Claims, part.Claims...)
			continue
		}
		if !part.More && len(part.Claims) < sh.n {
			empty = append(empty, sh)
		}
		merge(result, part)
		result.More = result.More || part.More
	}
	return empty, err
}

// planFirst is a plan for the first queue alone, if it is known that a shard has as many of its tasks as are wanted; else
// nil.
func (r *rounds) planFirst(queues []string, want, first int) []share {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.standing == nil || time.Since(r.standing.asked) > knownFor {
		return nil
	}
	numbers := r.standing.of[queues[0]]
	if numbers == nil || slices.Max(numbers) < want {
		return nil
	}
	return r.standing.plan(queues[:1], want, first, r.urgency)
}

// planAll is a plan by the numbers that have just been asked for.
func (r *rounds) planAll(st *standing, queues []string, want, first int) []share {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.standing = st
	return st.plan(queues, want, first, r.urgency)
}

// left reports in which shards tasks were left, by what is known.
func (st *standing) left(shards []*shard) []*shard {
	var list []*shard
	for _, sh := range shards {
		for _, numbers := range st.of {
			if numbers[sh.number] > 0 {
				list = append(list, sh)
				break
			}
		}
	}
	return list
}
