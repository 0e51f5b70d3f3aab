package runner

import (
	"cmp"
	"slices"
)

const (
	// shareRound is how many claims of several queues are shared out at once: so few that every window of 200 follows the
	// weights (TestWeightedQueues).
	shareRound = 60
	// shareParts is in how many parts a round is fetched at most.
	shareParts = 8
	// mostShares is up to how many queues are served exactly by weight. Beyond, the order of each fetch is drawn.
	mostShares = 64
)

// shares chooses the queue that is served next, by stride scheduling (Waldspurger and Weihl, "Stride Scheduling:
// Deterministic Proportional-Share Resource Management", 1995): a claim moves its queue's pass on by one over the weight,
// and the queue with the smallest pass is next. A queue that holds its part of the slots comes after the others, so that
// long tasks of a light one never hold them all while a heavier one has work.
type shares struct {
	slots  int
	total  float64 // of the weights
	queues []share // in the order of the configuration
	byName map[string]int
}

type share struct {
	name   string
	weight float64
	pass   float64
}

func newShares(queues []Queue, slots int) *shares {
	s := &shares{slots: slots, byName: make(map[string]int, len(queues))}
	for _, q := range queues {
		if _, twice := s.byName[q.Name]; twice {
			continue
		}
		w := float64(max(q.Weight, 1))
		s.byName[q.Name] = len(s.queues)
		s.queues = append(s.queues, share{name: q.Name, weight: w, pass: 1 / w})
		s.total += w
	}
	return s
}

// part is how many of the slots a queue may hold before the others have theirs: its share, rounded up.
func (s *shares) part(i int) int {
	n := float64(s.slots) * s.queues[i].weight / s.total
	whole := int(n)
	if n > float64(whole) {
		whole++
	}
	return whole
}

// next returns the order in which the queues are to be served, and how many of n claims are due to the first of them. held
// are the tasks of each queue that wait for a slot or run.
func (s *shares) next(n int, held map[string]int) (order []string, first int) {
	n = min(n, shareRound)
	type turn struct {
		i    int
		pass float64
		room int
	}
	turns := make([]turn, len(s.queues))
	for i, q := range s.queues {
		turns[i] = turn{i, q.pass, s.part(i) - held[q.name]}
	}
	before := func(a, b turn) int {
		full := func(t turn) int {
			if t.room <= 0 {
				return 1
			}
			return 0
		}
		return cmp.Or(full(a)-full(b), cmp.Compare(a.pass, b.pass), a.i-b.i)
	}
	sorted := slices.SortedFunc(slices.Values(turns), before)
	order = make([]string, len(sorted))
	for k, t := range sorted {
		order[k] = s.queues[t.i].name
	}
	for range n {
		best := 0
		for k := range turns {
			if before(turns[k], turns[best]) < 0 {
				best = k
			}
		}
		if best == sorted[0].i {
			first++
		}
		turns[best].pass += 1 / s.queues[best].weight
		turns[best].room--
	}
	return order, max(first, n/shareParts)
}

// took notes what a fetch in that order has claimed of each queue. One that was asked before others and had nothing keeps
// no credit for it.
func (s *shares) took(order []string, claimed map[string]int) {
	least, last := 0.0, -1
	for k, name := range order {
		if i := s.byName[name]; claimed[name] > 0 {
			if last < 0 || s.queues[i].pass < least {
				least = s.queues[i].pass
			}
			last = k
		}
	}
	for k, name := range order {
		q := &s.queues[s.byName[name]]
		if n := claimed[name]; n > 0 {
			q.pass += float64(n) / q.weight
		} else if k < last {
			q.pass = max(q.pass, least)
		}
	}
}

// heldByQueue counts the jobs that wait for a slot or run.
func (d *desk) heldByQueue() map[string]int {
	d.mu.Lock()
	defer d.mu.Unlock()
	held := make(map[string]int)
	for _, j := range d.held {
		if j.state != settling {
			held[j.Queue]++
		}
	}
	return held
}
