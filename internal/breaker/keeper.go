package breaker

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/waggleq/waggle/driver"
)

// Keeper is a worker's view of the breakers. Its methods may be called concurrently; those that are called for each task
// do no more than look at a pointer where there are no breakers.
type Keeper struct {
	store  driver.Store
	queues []string
	types  []string // nil: all
	rules  map[string]Rule
	any    *Rule // of the other types
	moved  func(typ string, b *Breaker)

	urgent chan struct{}
	active atomic.Bool           // there are breakers or rules
	shut   atomic.Pointer[gates] // nil: nothing is shut

	mu     sync.Mutex
	ruled  bool // the program's own rules were put into the document
	doc    *Document
	counts map[string]Count // since the last look
	trial  *trial
}

// gates are the types that may not start.
type gates struct {
	types  map[string]bool
	served []string        // what is left to be fetched
	tried  map[string]bool // ids of tasks of the trial that this worker has
}

// trial is one that this worker has.
type trial struct {
	typ, worker string
	most        int
	begun       time.Time
	fetched     bool
	running     map[string]bool // ids
	count       Count           // not told yet
}

// NoType is fetched where all types that a worker serves are shut: no task has it, as no name may begin so.
const NoType = "waggle.none"

// NewKeeper returns the view of a worker that serves these types (nil: all) of these queues. rules are what its program says of
// types; other is what it says of all others, nil if nothing. moved, if it is not nil, is told when a breaker opens, is tried or
// closes; it must not block.
func NewKeeper(store driver.Store, queues, types []string, rules map[string]Rule, other *Rule, moved func(typ string, b *Breaker)) *Keeper {
	k := &Keeper{store: store, queues: queues, types: types, rules: rules, any: other, moved: moved,
		urgent: make(chan struct{}, 1), doc: &Document{}, counts: map[string]Count{}}
	k.active.Store(len(rules) > 0 || other != nil)
	return k
}

// Urgent is filled when the next look should come at once.
func (k *Keeper) Urgent() <-chan struct{} { return k.urgent }

func (k *Keeper) hurry() {
	select {
	case k.urgent <- struct{}{}:
	default:
	}
}

// Shuts reports whether a task may not start.
func (k *Keeper) Shuts(typ, id string) bool {
	g := k.shut.Load()
	return g != nil && g.types[typ] && !g.tried[id]
}

// Serve returns the types that the next fetch may claim, and whether it is for a trial, of most tasks. ok is false where there is
// nothing to say: all types are served.
func (k *Keeper) Serve() (types []string, most int, ok bool) {
	g := k.shut.Load()
	if g == nil {
		return nil, 0, false
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if t := k.trial; t != nil && !t.fetched {
		return []string{t.typ}, t.most, true
	}
	return g.served, 0, true
}

// Claimed tells which tasks were claimed for a trial. If there are none it is over.
func (k *Keeper) Claimed(ids []string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	t := k.trial
	if t == nil || t.fetched {
		return
	}
	t.fetched, t.running = true, map[string]bool{}
	g := k.shut.Load()
	tried := map[string]bool{}
	for _, id := range ids {
		t.running[id], tried[id] = true, true
	}
	if g != nil {
		k.shut.Store(&gates{g.types, g.served, tried})
	}
	if len(ids) == 0 {
		k.hurry()
	}
}

// Ended tells of the end of an attempt, or that its task was given back.
func (k *Keeper) Ended(typ, id string, o driver.Outcome) {
	if !k.active.Load() {
		return
	}
	var c Count
	switch o {
	case driver.Complete:
		c.OK = 1
	case driver.Retry, driver.Discard:
		c.Failed = 1
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if t := k.trial; t != nil && t.running[id] {
		delete(t.running, id)
		t.count.OK, t.count.Failed = t.count.OK+c.OK, t.count.Failed+c.Failed
		if c.Failed > 0 || len(t.running) == 0 {
			k.hurry()
		}
		return
	}
	rule, ok := k.ruleOf(typ)
	if !ok || c == (Count{}) {
		return
	}
	n := k.counts[typ]
	n.OK, n.Failed = n.OK+c.OK, n.Failed+c.Failed
	k.counts[typ] = n
	if c.Failed == 0 {
		return
	}
	if b := k.doc.Types[typ]; b != nil {
		for _, w := range b.Window { // a little old, and so is the look that decides
			n.OK, n.Failed = n.OK+w.OK, n.Failed+w.Failed
		}
	}
	if rule.Trips(n) && k.shut.Load().open(typ) {
		k.hurry()
	}
}

func (g *gates) open(typ string) bool { return g == nil || !g.types[typ] }

// ruleOf returns the rule of a type, if it has one. mu is held.
func (k *Keeper) ruleOf(typ string) (Rule, bool) {
	if b := k.doc.Types[typ]; b != nil && b.Rule.Rate > 0 {
		return b.Rule, true
	}
	if b := k.doc.Types[typ]; b != nil && b.ByHand {
		return Rule{}, false // a person has taken it away
	}
	if r, ok := k.rules[typ]; ok {
		return r, true
	}
	if k.any != nil {
		return *k.any, true
	}
	return Rule{}, false
}

// tries is how often a look is repeated because others were faster.
const tries = 10

// Look reads what the other workers have decided and tells them what this one has seen, and takes over a trial if one is due.
// now is the store's present, zero if it is not known yet; room says that the worker could start a task.
// news says that other types are to be fetched from now on.
func (k *Keeper) Look(ctx context.Context, worker string, now time.Time, lease time.Duration, room bool) (news bool, err error) {
	for range tries {
		plans, err := k.store.GetPlans(ctx, []driver.PlanRef{Ref}, driver.PlanRead{})
		if err != nil {
			return false, err
		}
		var version int64
		var body []byte
		if p := plans[0]; p != nil {
			version, body = p.Version, p.Body
		}
		doc, err := Parse(body)
		if err != nil {
			return false, err
		}
		if now.IsZero() && (len(doc.Types) > 0 || k.active.Load()) {
			info, err := k.store.Info(ctx)
			if err != nil {
				return false, err
			}
			now = info.Now
		}
		waiting, known, err := k.survey(ctx, doc, now)
		if err != nil {
			return false, err
		}
		if !room {
			waiting = nil
		}
		m := k.merge(doc, worker, now, lease, waiting)
		if !m.changed {
			return k.adopt(doc, m, known), nil
		}
		err = Write(ctx, k.store, version, doc)
		if errors.Is(err, driver.ErrConflict) {
			pause(ctx)
			continue
		}
		if err != nil { // perhaps it was stored: what was counted must not count twice, and a trial is nobody's for a while
			k.mu.Lock()
			defer k.mu.Unlock()
			k.uncount(m.counts)
			return false, err
		}
		return k.adopt(doc, m, known), nil
	}
	return false, nil // with the next look
}

// Write stores a document that was worked out from a version (0: there was none).
func Write(ctx context.Context, store driver.Planner, version int64, doc *Document) error {
	body, err := json.Marshal(doc)
	if err != nil {
		return err
	}
	res, err := store.Advance(ctx, []driver.PlanStep{{PlanRef: Ref, Expect: version, State: "kept", Body: body}})
	if err != nil {
		return err
	}
	return res[0].Err
}

func pause(ctx context.Context) {
	timer := time.NewTimer(rand.N(20 * time.Millisecond))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

func (k *Keeper) serves(typ string) bool { return k.types == nil || slices.Contains(k.types, typ) }

// survey looks where tasks wait, if a trial could begin, and which types there are, if some are shut and this worker serves all.
func (k *Keeper) survey(ctx context.Context, doc *Document, now time.Time) (waiting, known map[string]bool, err error) {
	need := false
	for typ, b := range doc.Types {
		need = need || k.serves(typ) && (b.MayTry(now) || b.State != Closed && k.types == nil)
	}
	if !need {
		return nil, nil, nil
	}
	queues, err := k.store.Queues(ctx, k.queues...)
	if err != nil {
		return nil, nil, err
	}
	waiting, known = map[string]bool{}, map[string]bool{}
	for _, q := range queues {
		for _, t := range q.Types {
			known[t.Type] = true
			if t.Counts[driver.Available] > 0 && !q.Config.Paused {
				waiting[t.Type] = true
			}
		}
	}
	return waiting, known, nil
}

// merged is what a look has put into the document.
type merged struct {
	changed bool
	counts  map[string]Count
	told    Count  // of the trial
	over    bool   // the trial is
	begun   *trial // a new one
}

// merge puts into the document what this worker has seen.
func (k *Keeper) merge(doc *Document, worker string, now time.Time, lease time.Duration, waiting map[string]bool) merged {
	k.mu.Lock()
	defer k.mu.Unlock()
	m := merged{counts: maps.Clone(k.counts)}
	if !k.ruled {
		for typ, rule := range k.rules {
			if b := doc.Of(typ, now); !b.ByHand && b.Rule != rule {
				b.Rule, m.changed = rule, true
			}
		}
	}
	for typ, c := range m.counts {
		b := doc.Types[typ]
		if b == nil && k.any != nil {
			b = doc.Of(typ, now)
			b.Rule = *k.any
		}
		if b != nil && b.Rule.Rate > 0 && b.State == Closed {
			b.Record(now, c)
			m.changed = true
		}
	}
	if t := k.trial; t != nil {
		m.told = t.count
		m.over = t.worker != worker || t.fetched && len(t.running) == 0 || !t.fetched && now.Sub(t.begun) > lease
		b := doc.Types[t.typ]
		mine := b != nil && b.State == HalfOpen && b.Worker == t.worker
		switch {
		case mine && (m.over || m.told != (Count{})):
			b.Tried(t.worker, now, m.told, m.over)
			m.changed = true
			m.over = m.over || b.State != HalfOpen
		case mine && b.Alive.Sub(now) < lease*2/3:
			b.Alive, m.changed = now.Add(lease), true
		case !mine:
			m.over = true // somebody has decided otherwise
		}
	}
	if k.trial == nil || m.over {
		m.begun = k.begin(doc, worker, now, lease, waiting)
		m.changed = m.changed || m.begun != nil
	}
	return m
}

// begin takes over a trial that is due. One that has just ended in nothing is left to a later look.
func (k *Keeper) begin(doc *Document, worker string, now time.Time, lease time.Duration, waiting map[string]bool) *trial {
	for _, typ := range slices.Sorted(maps.Keys(doc.Types)) {
		b := doc.Types[typ]
		if waiting[typ] && k.serves(typ) && b.MayTry(now) && (k.trial == nil || k.trial.typ != typ) {
			b.Try(worker, now, lease)
			return &trial{typ: typ, worker: worker, most: b.probes(), begun: now}
		}
	}
	return nil
}

// adopt keeps to what the document says. news says that other types are to be fetched from now on.
func (k *Keeper) adopt(doc *Document, m merged, known map[string]bool) (news bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.tell(doc)
	k.doc, k.ruled = doc, true
	k.uncount(m.counts)
	if t := k.trial; t != nil {
		t.count.OK, t.count.Failed = t.count.OK-m.told.OK, t.count.Failed-m.told.Failed
		if m.over {
			k.trial = nil
		}
	}
	if m.begun != nil {
		k.trial = m.begun
	}
	k.active.Store(len(k.rules) > 0 || k.any != nil || len(doc.Types) > 0)
	g := k.gates(doc, known)
	old := k.shut.Swap(g)
	return m.begun != nil || (g == nil) != (old == nil) || g != nil && !slices.Equal(g.served, old.served)
}

// tell says which breakers of this worker's types are in another state than at the last look. mu is held.
func (k *Keeper) tell(doc *Document) {
	if k.moved == nil || len(doc.Types) == 0 && len(k.doc.Types) == 0 {
		return
	}
	state := func(d *Document, typ string) State {
		if b := d.Types[typ]; b != nil {
			return b.State
		}
		return Closed
	}
	for typ, b := range doc.Types {
		if k.serves(typ) && state(k.doc, typ) != b.State {
			k.moved(typ, b)
		}
	}
	for typ, b := range k.doc.Types {
		if k.serves(typ) && doc.Types[typ] == nil && b.State != Closed {
			k.moved(typ, &Breaker{State: Closed})
		}
	}
}

// uncount forgets what was told. mu is held.
func (k *Keeper) uncount(told map[string]Count) {
	for typ, c := range told {
		n := k.counts[typ]
		if n.OK, n.Failed = n.OK-c.OK, n.Failed-c.Failed; n == (Count{}) {
			delete(k.counts, typ)
		} else {
			k.counts[typ] = n
		}
	}
}

// gates returns what is shut, nil if nothing is. mu is held.
func (k *Keeper) gates(doc *Document, known map[string]bool) *gates {
	g := &gates{types: map[string]bool{}}
	for typ, b := range doc.Types {
		if b.State != Closed && k.serves(typ) {
			g.types[typ] = true
		}
	}
	if len(g.types) == 0 {
		return nil
	}
	all := k.types
	if all == nil {
		all = slices.Sorted(maps.Keys(known))
	}
	for _, typ := range all {
		if !g.types[typ] {
			g.served = append(g.served, typ)
		}
	}
	if len(g.served) == 0 {
		g.served = []string{NoType}
	}
	if k.trial != nil && k.trial.fetched {
		g.tried = maps.Clone(k.trial.running)
	}
	return g
}
