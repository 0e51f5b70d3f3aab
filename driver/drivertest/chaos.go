package drivertest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/driver/drivertest/history"
)

var chaosCases = []testCase{
	{"lost replies, calls that failed and dead workers break no rule", func(h *harness) { chaosRun(h, nil) }},
	{"the same with two handles", func(h *harness) { chaosRun(h, h.reopen().store) }},
	{"calls sent twice break no rule", chaosTwice},
	{"an enqueue whose reply was lost is repeated with the same tasks", lostEnqueue},
	{"a settlement whose reply was lost is repeated", lostSettle},
	{"registering and unregistering can be repeated", lostRegister},
}

// chaos is a run of producers and workers over a store that loses calls and replies, recorded for the checker. Workers
// die while they hold tasks, and come back when others have had them.
type chaos struct {
	h    *harness
	log  lockedBuffer
	over atomic.Bool // no more faults and deaths
	born atomic.Int64
	left atomic.Int64 // producers that still run

	mu      sync.Mutex
	zombies []zombie
}

type zombie struct {
	worker string
	claims []driver.Claim
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

// party is one producer or worker with its own faults and its own log.
type party struct {
	*chaos
	store  driver.Store
	faulty *Faulty
	rec    *history.Recorder
	rand   *rand.Rand
}

func (c *chaos) party(s driver.Store, name string, seed uint64, rules ...Rule) *party {
	p := &party{chaos: c, faulty: NewFaulty(s, &FaultPlan{Seed: seed, Rules: rules}), rand: rand.New(rand.NewPCG(seed, 1))}
	p.rec = history.NewRecorder(&c.log, name)
	p.store = history.Wrap(p.faulty, p.rec)
	return p
}

func lossyRules(chance float64) []Rule {
	var rules []Rule
	for _, method := range []string{"Enqueue", "Register", "Fetch", "Held", "Settle", "Heartbeat"} {
		rules = append(rules, Rule{Method: method, Fault: FailBefore, Chance: chance}, Rule{Method: method, Fault: FailAfter, Chance: chance})
	}
	return rules
}

func chaosRun(h *harness, other driver.Store) {
	h.keep(driver.DefaultQueue, unbounded) // each death moves the clock
	stores := []driver.Store{h.store, h.store}
	if other != nil {
		stores[1] = other
	}
	c := &chaos{h: h}
	var wg sync.WaitGroup
	const producers, workers = 3, 4
	c.left.Store(producers)
	for i := range producers {
		p := c.party(stores[i%2], fmt.Sprint("producer-", i), uint64(i), lossyRules(0.15)...)
		wg.Go(func() { p.produce(i); c.left.Add(-1) })
	}
	for i := range workers {
		p := c.party(stores[i%2], fmt.Sprint("worker-", i), uint64(10+i), lossyRules(0.1)...)
		wg.Go(p.work)
	}
	wg.Wait()
	c.over.Store(true)
	calm := c.party(h.store, "calm", 99)
	h.advance(2 * lease)
	h.maintain()
	calm.work()
	c.check()
}

// check reads what was recorded and wants no rule broken.
func (c *chaos) check() {
	c.h.Helper()
	events, err := history.Read(&c.log.b)
	c.h.must(err)
	dump, err := history.TakeDump(c.h.ctx(), c.h.store)
	c.h.must(err)
	for _, v := range history.Check(events, dump, &history.Options{AtRest: true}) {
		c.h.Error(v)
	}
	if len(dump.Records) < 100 {
		c.h.Errorf("the run left %d tasks, want more", len(dump.Records))
	}
}

// produce enqueues batches of tasks, repeating each call until it has a reply.
func (p *party) produce(number int) {
	for i := range 12 {
		batch := tasks(fmt.Sprintf("p-%d-%d", number, i), 5)
		batch[1].Unique = &driver.Unique{Key: fmt.Sprint("key-", i%3), OnConflict: driver.ConflictReject}
		batch[2].MaxAttempts, batch[3].CrashLimit = 2, 3
		batch[4].Priority = i % 3
		p.try("enqueue", func(ctx context.Context) error {
			_, err := p.store.Enqueue(ctx, batch, driver.EnqueueOptions{})
			return err
		})
	}
}

// try repeats a call until it has a reply.
func (p *party) try(what string, call func(context.Context) error) bool {
	for range 100 {
		switch err := call(p.h.limit); {
		case err == nil:
			return true
		case errors.Is(err, driver.ErrLeaseLost):
			return false
		case !errors.Is(err, driver.ErrUnavailable):
			p.h.Errorf("%s: %v", what, err)
			return false
		}
	}
	p.h.Errorf("%s: no reply in 100 calls", what)
	return false
}

func (p *party) hire() string {
	id := fmt.Sprint("w-", p.born.Add(1))
	p.try("register", func(ctx context.Context) error { return p.store.Register(ctx, driver.WorkerInfo{ID: id}, lease) })
	return id
}

// work runs workers, one life after the other, until nothing is left; before the end of the faults, until the producers
// are done and a number of rounds has passed.
func (p *party) work() {
	id := p.hire()
	for round := 0; ; round++ {
		claims, ok := p.fetch(id)
		switch {
		case !ok:
			id = p.hire()
			continue
		case p.over.Load() && len(claims) == 0:
			p.try("unregister", func(ctx context.Context) error { return p.store.Unregister(ctx, id) })
			return
		case !p.over.Load() && round > 40 && p.left.Load() == 0:
			p.die(id, claims)
			return
		case !p.over.Load() && p.rand.IntN(8) == 0:
			p.die(id, claims)
			id = p.hire()
			continue
		}
		for _, c := range claims {
			p.run(id, c)
		}
		p.haunt()
	}
}

// fetch claims tasks, or asks after a lost reply what the worker holds. It returns false if the worker is dead.
func (p *party) fetch(id string) ([]driver.Claim, bool) {
	res, err := p.store.Fetch(p.h.limit, request(id, 3))
	switch {
	case err == nil:
		return res.Claims, true
	case errors.Is(err, driver.ErrLeaseLost):
		return nil, false
	case !errors.Is(err, driver.ErrUnavailable):
		p.h.Errorf("fetch: %v", err)
	}
	var held []driver.Claim
	ok := p.try("held", func(ctx context.Context) (err error) {
		held, err = p.store.Held(ctx, id)
		return err
	})
	return held, ok
}

// die leaves a worker with its tasks running, and lets its lease run out.
func (p *party) die(id string, claims []driver.Claim) {
	for _, c := range claims {
		p.rec.Started(id, c)
	}
	p.mu.Lock()
	p.zombies = append(p.zombies, zombie{id, claims})
	p.mu.Unlock()
	p.h.advance(lease / 3)
}

// haunt lets dead workers settle what they held.
func (p *party) haunt() {
	p.mu.Lock()
	var z zombie
	if len(p.zombies) > 3 || p.over.Load() && len(p.zombies) > 0 {
		z, p.zombies = p.zombies[0], slices.Clone(p.zombies[1:])
	}
	p.mu.Unlock()
	for _, c := range z.claims {
		p.rec.Ended(z.worker, c, driver.Complete)
		p.settle(z.worker, driver.Settlement{ID: c.ID, Token: c.Token, Outcome: driver.Complete})
	}
}

func (p *party) run(worker string, c driver.Claim) {
	p.rec.Started(worker, c)
	outcomes := []driver.Outcome{driver.Retry, driver.Release, driver.Snooze, driver.Discard}
	o := driver.Complete
	if n := p.rand.IntN(12); n < len(outcomes) {
		o = outcomes[n]
	}
	p.rec.Ended(worker, c, o)
	p.settle(worker, driver.Settlement{ID: c.ID, Token: c.Token, Outcome: o})
}

func (p *party) settle(worker string, s driver.Settlement) {
	p.try("settle", func(ctx context.Context) error {
		_, err := p.store.Settle(ctx, worker, []driver.Settlement{s})
		return err
	})
}

// chaosTwice has requests sent again, as by a network that repeats them. A fetch is not: what the first of two claimed
// would be known to nobody until Held was asked.
func chaosTwice(h *harness) {
	c := &chaos{h: h}
	var rules []Rule
	for _, method := range []string{"Enqueue", "Register", "Settle", "Heartbeat", "Unregister"} {
		rules = append(rules, Rule{Method: method, Fault: Twice, Chance: 0.5})
	}
	for i := range 3 {
		c.party(h.store, fmt.Sprint("producer-", i), uint64(i), rules...).produce(i)
	}
	c.over.Store(true)
	var wg sync.WaitGroup
	for i := range 3 {
		wg.Go(c.party(h.store, fmt.Sprint("worker-", i), uint64(i), rules...).work)
	}
	wg.Wait()
	c.party(h.store, "calm", 99).work()
	c.check()
}

func lostEnqueue(h *harness) {
	faulty := NewFaulty(h.store, &FaultPlan{Rules: []Rule{{Method: "Enqueue", Fault: FailAfter, Count: 1}}})
	mine := []*driver.Task{{Type: "t"}, {Type: "t", Unique: unique(driver.UntilDone, driver.ConflictReject, "k")}}
	if _, err := faulty.Enqueue(h.ctx(), mine, driver.EnqueueOptions{}); err == nil {
		h.Fatal("the reply was not lost")
	}
	ids := idsOf(mine)
	results, err := faulty.Enqueue(h.ctx(), mine, driver.EnqueueOptions{})
	h.must(err)
	for i, r := range results {
		if r.Err != nil || !r.Existing || r.ID != ids[i] {
			h.Errorf("the repetition of %q got %+v", ids[i], r)
		}
	}
	if got := h.queue(driver.DefaultQueue).Totals.Enqueued; got != 2 {
		h.Errorf("%d tasks were enqueued, want 2", got)
	}
}

func lostSettle(h *harness) {
	h.add(tasks("a", 3)...)
	h.register("w")
	var items []driver.Settlement
	for i, c := range h.claim("w", 3) {
		items = append(items, driver.Settlement{ID: c.ID, Token: c.Token, Outcome: plainOutcomes[i].outcome, Delay: time.Hour})
	}
	faulty := NewFaulty(h.store, &FaultPlan{Rules: []Rule{{Method: "Settle", Fault: FailAfter, Count: 2}}})
	for i := range 3 {
		errs, err := driver.SettleErrors(faulty.Settle(h.ctx(), "w", items))
		if lost := i < 2; lost != (err != nil) {
			h.Fatalf("call %d returned %v", i, err)
		}
		for _, err := range errs {
			h.must(err)
		}
	}
	for i, item := range items {
		h.wantState(plainOutcomes[i].state, item.ID)
	}
}

func lostRegister(h *harness) {
	h.add(task("a", nil))
	for range 2 {
		h.register("w")
	}
	h.claimOne("w", "a")
	h.register("w")
	if n := len(h.held("w")); n != 1 {
		h.Errorf("after registering again %d tasks are held, want 1", n)
	}
	for range 2 {
		h.must(h.store.Unregister(h.ctx(), "w"))
	}
	if r := h.get("a"); r.State != driver.Available || len(r.Attempts) > 1 {
		h.Errorf("the task is %s with %d entries", r.State, len(r.Attempts))
	}
}
