package runner

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/internal/logkey"
)

// maxFetch is how many claims one call asks for at most.
const maxFetch = 1000

// Something between worker and store may have executed a fetch twice, and nobody is told of the claims of the first time.
// So a worker asks what it holds even where no reply was lost: often while it holds nothing that it knows of, when that
// costs next to nothing, and rarely otherwise, since the answer carries all that it holds.
const (
	lookEvery = time.Minute
	lookBusy  = 10 * time.Minute
)

// fetcher claims tasks as slots become free, and waits for work when there is none.
type fetcher struct {
	s       *session
	d       *desk
	pace    pace
	tr      trouble
	names   []string
	served  map[string]bool // the same
	even    bool            // all queues have the same weight
	shares  *shares         // nil: the order of the queues is given or drawn
	unsure  bool            // the reply of a fetch was lost: there may be claims that we don't know of
	look    time.Time       // when to look for such claims again
	again   bool            // that look is the second after a lost reply
	looked  time.Time       // when it was looked last
	busy    bool            // with UntilEmpty: something was held at the last look
	told    bool            // with UntilEmpty: what it waits for was told
	empty   int             // rounds in a row that found nothing although a wait was cut short
	until   time.Time       // how long the next fetch waits for work; zero: not at all
	batchy  []string        // the types that are run in batches
	batched bool            // the last fetch has claimed some of those
	fill    bool            // the next fetch is for those alone: there were as many as there are slots
	next    time.Time       // when something becomes due, as the last fetch has told; zero: unknown
	bare    time.Time       // when the last fetch began that was for plans alone
	plans   time.Time       // until then plans may be reserved for this worker of which it was not told
	damaged string          // what was told of damaged queues
}

func newFetcher(s *session) *fetcher {
	f := &fetcher{s: s, d: s.desk, tr: trouble{log: s.cfg.Logger, op: "fetch", limit: s.cfg.Lease}, served: map[string]bool{}, even: true}
	for _, q := range s.cfg.Queues {
		f.names = append(f.names, q.Name)
		f.served[q.Name] = true
		f.even = f.even && max(q.Weight, 1) == max(s.cfg.Queues[0].Weight, 1)
	}
	if n := len(f.served); n > 1 && n <= mostShares && !s.cfg.Strict {
		f.shares = newShares(s.cfg.Queues, s.cfg.Slots)
	}
	f.batchy = slices.Sorted(maps.Keys(s.cfg.Gather))
	f.looked = time.Now()
	f.lookLater()
	return f
}

// lookLater puts the next look off for about a minute.
func (f *fetcher) lookLater() {
	f.look, f.again = time.Now().Add(lookEvery+rand.N(lookEvery/4)), false // spread over the workers
}

// mustLook reports whether it is time to look for claims that this worker does not know of.
func (f *fetcher) mustLook() bool {
	switch {
	case f.unsure:
		return true
	case time.Now().Before(f.look):
		return false
	case f.again, time.Since(f.looked) >= lookBusy, f.d.clear(f.s):
		return true
	}
	f.lookLater()
	return false
}

// run fetches until stop ends or the session does, or nothing is left to run (with UntilEmpty).
func (f *fetcher) run(stop context.Context) error {
	idle, cancel := context.WithCancel(f.s.ctx) // ends with either
	defer cancel()
	defer context.AfterFunc(stop, cancel)()
	for {
		n := 0
		quiet, turn := f.s.orders.quiet()
		if quiet && !f.unsure {
			f.awaitTurn(idle, turn, f.look)
		} else if !f.unsure {
			until := time.Time{}    // a worker without room has no use for more claims
			if f.s.planner != nil { // it has for due plans
				until = f.nextPlans(time.Now())
			}
			if f.again && (until.IsZero() || f.look.Before(until)) {
				until = f.look
			}
			n = f.d.awaitRoom(idle, until)
		}
		if idle.Err() != nil {
			if f.unsure {
				f.reconcile(f.s.ctx) // what a fetch has claimed that was cut short goes back now, not with the registration
			}
			return nil
		}
		if f.mustLook() {
			f.reconcile(idle)
			continue
		}
		if quiet {
			continue
		}
		wait := f.untilLook(time.Until(f.until))
		room := n > 0
		if !room { // it is for plans alone
			wait, f.bare = 0, time.Now()
		}
		types, fill := f.s.cfg.Types, false
		served, most, trial, restricted := f.gated(n)
		if restricted && room {
			if types, n = served, most; trial {
				wait = 0
			}
		} else if f.fill && room {
			if more := f.d.gatherRoom(); more > 0 {
				types, fill, n, wait = f.batchy, true, more, 0
			}
		}
		var order []string
		if f.shares != nil && room && !fill && !trial {
			order, n = f.shares.next(n, f.d.heldByQueue())
		} else {
			order = f.order()
		}
		res, err := f.fetch(idle, order, types, n, wait, trial && room)
		if err != nil {
			f.failed(idle, err)
			continue
		}
		f.tr.over()
		f.fill = !fill && (len(res.Claims) == n || res.More) && f.batched
		switch {
		case !room || fill || trial:
			f.empty, f.until = 0, time.Time{}
		case len(res.Claims) == n || res.More && len(res.Claims) > 0:
			f.empty, f.until = 0, time.Time{}
		case len(res.Claims) == 0 && len(res.Plans) == 0 && f.s.cfg.UntilEmpty && f.d.readyAll() == 0 && f.finished(idle):
			return nil
		default:
			f.waitAfter(res)
		}
	}
}

// nextPlans is when a worker without room looks for due plans: when the next thing is due that the store has told of, and
// at least every half of the lease. Tasks may be due that have to wait: they don't make it look more often than every
// twentieth.
func (f *fetcher) nextPlans(now time.Time) time.Time {
	latest := now.Add(f.s.cfg.Lease / 2)
	next := f.next
	if soonest := f.bare.Add(f.s.cfg.Lease / 20); next.Before(soonest) {
		next = soonest
	}
	if f.next.IsZero() || next.After(latest) {
		return latest
	}
	return next
}

// gathers reports whether one of the claims is run in a batch.
func (f *fetcher) gathers(claims []driver.Claim) bool {
	return len(f.batchy) > 0 && slices.ContainsFunc(claims, func(c driver.Claim) bool { return slices.Contains(f.batchy, c.Type) })
}

// fetch claims up to n tasks of these types, of the queues in that order, and puts them on the desk. A stop does not cut it short: what it claims would lie in nobody's
// hands until the worker has gone. Only where it waits for work first it does, and then run asks what was claimed.
func (f *fetcher) fetch(idle context.Context, order, types []string, n int, wait time.Duration, trial bool) (*driver.FetchResult, error) {
	cfg := f.s.cfg
	base := f.s.ctx
	if wait > 0 {
		base = idle
	}
	call, cancel := context.WithTimeout(base, wait+callTimeout(cfg.Lease))
	defer cancel()
	if wait > 0 {
		f.s.orders.waiting(cancel)
		defer f.s.orders.waiting(nil)
	}
	if wait > 0 && cfg.UntilEmpty {
		go f.d.wakeWhenClear(call, cancel, f.busy)
	}
	defer f.d.fetched()
	sent := time.Now()
	res, err := cfg.Store.Fetch(call, driver.FetchRequest{
		Worker: f.s.id, Lease: cfg.Lease, Queues: order, Types: types, Max: n, Wait: wait, Plans: f.s.planner.want(),
	})
	if err != nil {
		return nil, err
	}
	f.s.tell(res.Now)
	now := time.Now()
	if f.next = (time.Time{}); !res.NextDue.IsZero() {
		f.next = now.Add(res.NextDue.Sub(res.Now))
	}
	if !res.LeaseEnd.IsZero() { // else only some shards were asked, and the next heartbeat is due as before
		f.s.renew(sent.Add(res.Waited))
	}
	f.s.planner.offer(res.Plans)
	if f.shares != nil && len(res.Claims) > 0 {
		claimed := make(map[string]int)
		for i := range res.Claims {
			claimed[res.Claims[i].Queue]++
		}
		f.shares.took(order, claimed)
	}
	for _, id := range res.Undecodable {
		cfg.Logger.Error("a task was discarded: what is stored of it can't be read", logkey.TaskID, id)
	}
	f.tellDamaged(res.Damaged)
	if trial {
		f.tried(res.Claims)
	}
	f.batched = f.gathers(res.Claims) // before they are the jobs'
	f.d.offer(f.s, res.Claims)
	f.d.cancel(f.s, res.Cancels)
	trip := now.Sub(sent)
	if wait > 0 {
		f.paced(idle, len(res.Claims), trip < min(wait, time.Millisecond))
		trip = 0
	}
	f.d.setAhead(f.pace.ahead(f.d.progress(), now, trip))
	return res, nil
}

// paced keeps a series of waits that are cut short and lead to nothing from being a busy loop, whatever the state of the
// store. A single one is normal: another worker was faster.
func (f *fetcher) paced(idle context.Context, claims int, short bool) {
	switch {
	case claims > 0:
		f.empty = 0
	case !short:
		f.empty = max(0, f.empty-1)
	default:
		if f.empty++; f.empty > 3 {
			sleep(idle, min(50*time.Microsecond<<min(f.empty, 10), 50*time.Millisecond))
		}
	}
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
	f.unsure, f.until = true, time.Time{}
	f.plans = time.Now().Add(driver.PlanReserve + driver.PlanReserve/8)
	if idle.Err() == nil && !errors.Is(err, context.Canceled) { // else the worker has cut its own wait short
		f.tr.hit(idle, err)
	}
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
	f.looked = time.Now()
	if f.unsure {
		f.look, f.again = f.looked.Add(f.s.cfg.Lease), true
	} else {
		f.lookLater()
	}
	f.unsure = false
	f.d.offer(f.s, claims)
}

// waitAfter has the next fetch wait until there may be work: until the store says so, the next task is due, or the poll
// interval is over.
func (f *fetcher) waitAfter(res *driver.FetchResult) {
	poll := f.s.cfg.Poll
	wait := poll + rand.N(poll/4+1) // spread, so that a thousand idle workers don't look at the same moment
	if !res.NextDue.IsZero() {
		wait = min(wait, res.NextDue.Sub(res.Now))
	}
	f.until = time.Now().Add(wait)
}

// untilLook shortens a wait so that it is over when claims are to be looked for that this worker does not know of.
func (f *fetcher) untilLook(wait time.Duration) time.Duration {
	return max(0, min(wait, max(time.Until(f.look), time.Millisecond)))
}

// finished reports whether nothing of the served queues and types is left to run, here or anywhere: all that is not
// ended or pending.
func (f *fetcher) finished(idle context.Context) bool {
	f.busy = !f.d.clear(f.s) || f.s.planner.busy()
	if f.busy || !f.intakeEmpty(idle) {
		return false
	}
	if f.s.planner.hasMet() && time.Now().Before(f.plans) {
		return false // a fetch whose reply was lost may have reserved a plan: it is offered again then
	}
	call, cancel := context.WithTimeout(idle, callTimeout(f.s.cfg.Lease))
	defer cancel()
	queues, err := f.s.cfg.Store.Queues(call, f.names...)
	if err != nil {
		if idle.Err() == nil && !f.s.failed(err) {
			f.tr.hit(idle, err)
		}
		return false
	}
	for _, q := range queues {
		if f.served[q.Name] && f.left(q) > 0 {
			f.tellWait(call, queues)
			return false
		}
	}
	return true
}

func (f *fetcher) left(q driver.QueueInfo) int { return live(f.countsOf(q)) }

func live(counts map[driver.State]int) int {
	return counts[driver.Available] + counts[driver.Active] + counts[driver.Scheduled] + counts[driver.Retryable]
}

// tellDamaged says once what keeps the tasks of some queues from being given out. A fetch that says nothing of it may not have
// looked at those.
func (f *fetcher) tellDamaged(err error) {
	if err == nil || err.Error() == f.damaged {
		return
	}
	f.damaged = err.Error()
	f.s.cfg.Logger.Error("tasks of a queue are not given out: what is stored of it is damaged", logkey.Error, f.damaged)
}
