// Package breaker is the circuit breaker of a task type: when too many attempts fail, no task of the type starts anywhere until a
// few have succeeded on trial.
//
// The breakers of all types are one plan of the store ([driver.Planner]), a document with versions. Each worker reads it three
// times a lease, adds what its own attempts came to, and keeps to what it says. A change is accepted only if nobody else has
// changed the document meanwhile, so all workers see one state, and one of them has the trial.
package breaker

import (
	"encoding/json"
	"slices"
	"time"

	"github.com/waggleq/waggle/driver"
)

// Ref names the plan of the breakers.
var Ref = driver.PlanRef{Kind: "breaker", Name: "types"}

// State is what a breaker lets start.
type State string

// The states.
const (
	Closed   State = "closed"    // all
	Open     State = "open"      // nothing
	HalfOpen State = "half-open" // a few tasks on trial, with one worker
)

// Rule says when a breaker opens by itself.
type Rule struct {
	Rate     float64       `json:"rate"`      // share of failed attempts in the window at which it opens
	Window   time.Duration `json:"window"`    // of which attempts count, in nanoseconds
	Min      int           `json:"min"`       // attempts in the window before it may open
	CoolDown time.Duration `json:"cool_down"` // for how long it stays open before a trial, in nanoseconds
	Probes   int           `json:"probes"`    // tasks of a trial, all of which have to succeed
}

// buckets is how many parts a window is counted in.
const buckets = 10

// Count is what attempts came to.
type Count struct {
	OK     int `json:"ok"`
	Failed int `json:"failed"`
}

// Bucket counts a part of the window.
type Bucket struct {
	At int64 `json:"at"` // number of the part since 1970
	Count
}

// Breaker is the breaker of one type.
type Breaker struct {
	Rule   Rule `json:"rule,omitzero"`
	ByHand bool `json:"by_hand,omitzero"` // the rule was set by a person: programs leave it as it is

	State  State     `json:"state"`
	Since  time.Time `json:"since"`
	Until  time.Time `json:"until,omitzero"`  // open: when a trial may begin; zero: not by itself
	Manual bool      `json:"manual,omitzero"` // a person has opened or closed it last
	Why    Count     `json:"why,omitzero"`    // what it was opened for

	Window []Bucket `json:"window,omitzero"`

	// Of a trial: the worker that has it, until when if it does not say that it lives, how many tasks may still begin, and how many
	// have succeeded.
	Worker string    `json:"worker,omitzero"`
	Alive  time.Time `json:"alive,omitzero"`
	Good   int       `json:"good,omitzero"`
}

// Document is the breakers of all types that have a rule or were opened by hand.
type Document struct {
	Types map[string]*Breaker `json:"types"`
}

// Parse reads a document; none is an empty one.
func Parse(body []byte) (*Document, error) {
	d := &Document{}
	if len(body) > 0 {
		if err := json.Unmarshal(body, d); err != nil {
			return nil, driver.Errorf(driver.ErrCorrupt, "the breakers of types can't be read: %w", err)
		}
	}
	if d.Types == nil {
		d.Types = map[string]*Breaker{}
	}
	return d, nil
}

// Of returns the breaker of a type, made if needed.
func (d *Document) Of(typ string, now time.Time) *Breaker {
	b := d.Types[typ]
	if b == nil {
		b = &Breaker{State: Closed, Since: now}
		d.Types[typ] = b
	}
	return b
}

// Total adds up the window.
func (b *Breaker) Total(now time.Time) (c Count) {
	for _, k := range b.Window {
		if b.Rule.Window > 0 && k.At > b.part(now)-buckets {
			c.OK, c.Failed = c.OK+k.OK, c.Failed+k.Failed
		}
	}
	return c
}

func (b *Breaker) part(now time.Time) int64 {
	return now.UnixNano() / max(int64(b.Rule.Window/buckets), 1)
}

// Trips reports whether the counts are such that the breaker opens.
func (r *Rule) Trips(c Count) bool {
	n := c.OK + c.Failed
	return r.Rate > 0 && c.Failed > 0 && n >= r.Min && float64(c.Failed) >= r.Rate*float64(n)
}

// Record adds what attempts came to, and opens a closed breaker if that is too much. Attempts that end while it is not closed
// don't count: they began before.
func (b *Breaker) Record(now time.Time, c Count) {
	if b.Rule.Rate == 0 || b.State != Closed {
		return
	}
	at := b.part(now)
	b.Window = slices.DeleteFunc(b.Window, func(k Bucket) bool { return k.At <= at-buckets })
	if n := len(b.Window); n == 0 || b.Window[n-1].At < at {
		b.Window = append(b.Window, Bucket{At: at})
	}
	last := &b.Window[len(b.Window)-1]
	last.OK, last.Failed = last.OK+c.OK, last.Failed+c.Failed
	if total := b.Total(now); b.Rule.Trips(total) {
		b.open(now, now.Add(b.Rule.CoolDown), false)
		b.Why = total
	}
}

func (b *Breaker) open(now, until time.Time, manual bool) {
	since := now
	if b.State != Closed {
		since = b.Since // it has been so all the time
	}
	b.State, b.Since, b.Until, b.Manual = Open, since, until, manual
	b.Window, b.Worker, b.Alive, b.Good = nil, "", time.Time{}, 0
}

// OpenByHand opens the breaker for a time, after which there is a trial; 0: until somebody closes it.
func (b *Breaker) OpenByHand(now time.Time, d time.Duration) {
	var until time.Time
	if d > 0 {
		until = now.Add(d)
	}
	b.open(now, until, true)
	b.Why = Count{}
}

// Close closes the breaker; what was counted before is forgotten.
func (b *Breaker) Close(now time.Time, manual bool) {
	b.State, b.Since, b.Until, b.Manual, b.Why = Closed, now, time.Time{}, manual, Count{}
	b.Window, b.Worker, b.Alive, b.Good = nil, "", time.Time{}, 0
}

// MayTry reports whether a trial may begin: the cool-down is over, and no worker that lives has it.
func (b *Breaker) MayTry(now time.Time) bool {
	switch b.State {
	case Open:
		return !b.Until.IsZero() && !b.Until.After(now)
	case HalfOpen:
		return !b.Alive.After(now)
	}
	return false
}

// Try gives the trial to a worker, for so long if it does not say that it lives.
func (b *Breaker) Try(worker string, now time.Time, d time.Duration) {
	b.State, b.Worker, b.Alive, b.Good = HalfOpen, worker, now.Add(d), 0
}

// Tried takes in how tasks of a worker's trial ended. over says that no more of them run: then, and if one has failed, the trial
// ends. One that led to nothing is repeated at once, by whoever comes.
func (b *Breaker) Tried(worker string, now time.Time, c Count, over bool) {
	if b.State != HalfOpen || b.Worker != worker {
		return
	}
	b.Good += c.OK
	switch {
	case c.Failed > 0:
		b.open(now, now.Add(b.coolDown()), false)
		b.Why = Count{OK: c.OK, Failed: c.Failed}
	case b.Good > 0 && (over || b.Good >= b.probes()):
		b.Close(now, false)
	case over:
		b.open(now, now, b.Manual)
	}
}

// The rule of a breaker that has none, for one that was opened by hand for a time.
func (b *Breaker) coolDown() time.Duration {
	if b.Rule.CoolDown > 0 {
		return b.Rule.CoolDown
	}
	return DefaultCoolDown
}

func (b *Breaker) probes() int { return max(b.Rule.Probes, 1) }

// Idle reports whether nothing would be lost with the breaker.
func (b *Breaker) Idle() bool { return b.State == Closed && b.Rule.Rate == 0 }

// Defaults of rules.
const (
	DefaultRate     = 0.5
	DefaultWindow   = time.Minute
	DefaultMin      = 20
	DefaultCoolDown = 30 * time.Second
	DefaultProbes   = 1
	MaxProbes       = 1000
)

// WithDefaults returns the rule with what its zero fields mean, or [driver.ErrInvalid].
func (r Rule) WithDefaults() (Rule, error) {
	const longest = 24 * time.Hour
	switch {
	case !(r.Rate >= 0 && r.Rate <= 1):
		return r, driver.Invalidf("the error rate of a breaker must be above 0 and at most 1, got %v", r.Rate)
	case r.Window < 0 || r.Window > 0 && r.Window < time.Second || r.Window > longest:
		return r, driver.Invalidf("the window of a breaker must be between 1s and %v, got %v", longest, r.Window)
	case r.Min < 0 || r.Min > 1_000_000:
		return r, driver.Invalidf("the least number of attempts of a breaker must be between 1 and 1000000, got %d", r.Min)
	case r.CoolDown < 0 || r.CoolDown > 0 && r.CoolDown < 100*time.Millisecond || r.CoolDown > longest:
		return r, driver.Invalidf("the cool-down of a breaker must be between 100ms and %v, got %v", longest, r.CoolDown)
	case r.Probes < 0 || r.Probes > MaxProbes:
		return r, driver.Invalidf("the number of probes of a breaker must be between 1 and %d, got %d", MaxProbes, r.Probes)
	}
	set(&r.Rate, DefaultRate)
	set(&r.Window, DefaultWindow)
	set(&r.Min, DefaultMin)
	set(&r.CoolDown, DefaultCoolDown)
	set(&r.Probes, DefaultProbes)
	return r, nil
}

func set[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}
