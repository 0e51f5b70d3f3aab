package runner

import (
	"cmp"
	"context"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/waggleq/waggle/driver"
)

// maxFetch is how many claims one call asks for at most.
const maxFetch = 1000

// fetcher claims tasks as slots become free, and waits for work when there is none.
type fetcher struct {
	s      *session
	d      *desk
	pace   pace
	tr     trouble
	names  []string
	served map[string]bool // the same
	even   bool            // all queues have the same weight
	unsure bool            // the reply of a fetch was lost: there may be claims that we don't know of
	look   time.Time       // when to look for such claims once more; zero: not
	busy   bool            // with UntilEmpty: something was held at the last look
	empty  int             // rounds in a row that found nothing although a wait was cut short
}

func newFetcher(s *session) *fetcher {
	f := &fetcher{s: s, d: s.desk, tr: trouble{log: s.cfg.Logger, op: "fetch", limit: s.cfg.Lease}, served: map[string]bool{}, even: true}
	for _, q := range s.cfg.Queues {
		f.names = append(f.names, q.Name)
		f.served[q.Name] = true
		f.even = f.even && max(q.Weight, 1) == max(s.cfg.Queues[0].Weight, 1)
	}
	return f
}

// run fetches until stop ends or the session does, or nothing is left to run (with UntilEmpty).
func (f *fetcher) run(stop context.Context) error {
	idle, cancel := context.WithCancel(f.s.ctx) // ends with either
	defer cancel()
	defer context.AfterFunc(stop, cancel)()
	for {
		n := 0
		if !f.unsure {
			n = f.d.awaitRoom(idle, f.look)
		}
		if idle.Err() != nil {
			return nil
		}
		if f.unsure || !f.look.IsZero() && !time.Now().Before(f.look) {
			f.reconcile(idle)
			continue
		}
		res, err := f.fetch(n)
		if err != nil {
			f.failed(idle, err)
			continue
		}
		f.tr.over()
		switch {
		case len(res.Claims) == n || res.More && len(res.Claims) > 0:
			f.empty = 0
			continue
		case len(res.Claims) == 0 && f.s.cfg.UntilEmpty && f.finished(idle):
			return nil
		}
		f.wait(idle, res)
	}
}

// fetch claims up to n tasks and puts them on the desk. It is not cut short by a stop: what it claims would lie in
// nobody's hands until the worker has gone.
func (f *fetcher) fetch(n int) (*driver.FetchResult, error) {
	cfg := f.s.cfg
	call, cancel := context.WithTimeout(f.s.ctx, callTimeout(cfg.Lease))
	defer cancel()
	defer f.d.fetched()
	sent := time.Now()
	res, err := cfg.Store.Fetch(call, driver.FetchRequest{
		Worker: f.s.id, Lease: cfg.Lease, Queues: f.order(), Types: cfg.Types, Max: n,
	})
	if err != nil {
		return nil, err
	}
	now := time.Now()
	f.s.renew(sent)
	f.d.offer(f.s, res.Claims)
	f.d.cancel(f.s, res.Cancels)
	f.d.setAhead(f.pace.ahead(f.d.progress(), now, now.Sub(sent)))
	return res, nil
}

// order returns the queues in the order in which this fetch serves them: as given, or in a random order in which a queue
// comes first as often as its weight says.
func (f *fetcher) order() []string {
	if f.s.cfg.Strict || len(f.names) == 1 {
		return f.names
	}
	if f.even { // the same as below, at a fraction of the price: it counts with thousands of queues
		names := slices.Clone(f.names)
		rand.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
		return names
	}
	type ticket struct {
		name string
		key  float64
	}
	tickets := make([]ticket, len(f.names))
	for i, q := range f.s.cfg.Queues {
		// The smallest of exponential times with these rates is the i-th with probability weight/total, and so on for
		// the rest.
		tickets[i] = ticket{q.Name, rand.ExpFloat64() / float64(max(q.Weight, 1))}
	}
	slices.SortFunc(tickets, func(a, b ticket) int { return cmp.Compare(a.key, b.key) })
	names := make([]string, len(tickets))
	for i, t := range tickets {
		names[i] = t.name
	}
	return names
}

// failed deals with the error of a fetch whose outcome is unknown unless it says that the session is over.
func (f *fetcher) failed(idle context.Context, err error) {
	if f.s.failed(err) {
		return
	}
	f.unsure = true
	f.tr.hit(idle, err)
}

// reconcile asks the store what this worker holds, and takes in the claims whose reply was lost. It is done again one
// lease later: a request that was given up may reach the store after the question.
func (f *fetcher) reconcile(idle context.Context) {
	f.d.remember()
	defer f.d.forget()
	call, cancel := context.WithTimeout(f.s.ctx, callTimeout(f.s.cfg.Lease))
	defer cancel()
	claims, err := f.s.cfg.Store.Held(call, f.s.id)
	if err != nil {
		if !f.s.failed(err) {
			f.tr.hit(idle, err)
		}
		return
	}
	if f.unsure {
		f.look = time.Now().Add(f.s.cfg.Lease)
	} else {
		f.look = time.Time{}
	}
	f.unsure = false
	f.d.offer(f.s, claims)
}

// wait sleeps until there may be work: until the store says so, the next task is due, or the poll interval is over.
func (f *fetcher) wait(idle context.Context, res *driver.FetchResult) {
	poll := f.s.cfg.Poll
	wait := poll + rand.N(poll/4+1) // spread, so that a thousand idle workers don't look at the same moment
	if !res.NextDue.IsZero() {
		wait = min(wait, res.NextDue.Sub(res.Now))
	}
	if !f.look.IsZero() {
		wait = min(wait, max(time.Until(f.look), time.Millisecond))
	}
	if len(res.Claims) > 0 {
		f.empty = 0
	}
	began := time.Now()
	if wait > 0 {
		f.await(idle, wait)
	}
	if time.Since(began) >= min(wait, time.Millisecond) && wait > 0 {
		f.empty = max(0, f.empty-1)
		return
	}
	// A wake-up that leads to nothing is normal: another worker was faster. A series of them is paced, so that no state of
	// the store makes this loop a busy one.
	f.empty++
	if f.empty > 3 {
		sleep(idle, min(50*time.Microsecond<<min(f.empty, 10), 50*time.Millisecond))
	}
}

func (f *fetcher) await(idle context.Context, wait time.Duration) {
	call, cancel := context.WithTimeout(idle, wait+callTimeout(f.s.cfg.Lease))
	defer cancel()
	if f.s.cfg.UntilEmpty {
		go f.d.wakeWhenClear(call, cancel, f.busy)
	}
	err := f.s.cfg.Store.Await(call, driver.AwaitRequest{
		Worker: f.s.id, For: driver.ForWork, Queues: f.names, Types: f.s.cfg.Types, Max: wait,
	})
	if err == nil || call.Err() != nil || f.s.failed(err) {
		return // if the store did not keep to Max, the next fetch will tell whether it is alive
	}
	f.tr.hit(idle, err)
}

// finished reports whether nothing of the served queues and types is left to run, here or anywhere: all that is not
// ended or pending.
func (f *fetcher) finished(idle context.Context) bool {
	f.busy = !f.d.clear(f.s)
	if f.busy || !f.intakeEmpty(idle) {
		return false
	}
	call, cancel := context.WithTimeout(idle, callTimeout(f.s.cfg.Lease))
	defer cancel()
	queues, err := f.s.cfg.Store.Queues(call)
	if err != nil {
		if idle.Err() == nil && !f.s.failed(err) {
			f.tr.hit(idle, err)
		}
		return false
	}
	for _, q := range queues {
		if f.served[q.Name] && f.left(q) > 0 {
			return false
		}
	}
	return true
}

func (f *fetcher) left(q driver.QueueInfo) int {
	if f.s.cfg.Types == nil {
		return live(q.Counts)
	}
	n := 0
	for _, t := range q.Types {
		if slices.Contains(f.s.cfg.Types, t.Type) {
			n += live(t.Counts)
		}
	}
	return n
}

func live(counts map[driver.State]int) int {
	return counts[driver.Available] + counts[driver.Active] + counts[driver.Scheduled] + counts[driver.Retryable]
}
