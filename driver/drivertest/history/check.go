package history

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/waggleq/waggle/driver"
)

// Rule names an invariant.
type Rule string

// The rules. A life of a task begins with its enqueue or with a retry by a person, and ends with it; an id that was
// removed may be enqueued again.
const (
	NoLoss          Rule = "no-loss"          // an accepted task is in the store in one state, or was removed
	OneWinner       Rule = "one-winner"       // a life has one accepted end, and no stale claim is settled
	Exclusion       Rule = "exclusion"        // two handlers of a task overlap only if the first one's lease was over
	BoundedAttempts Rule = "bounded-attempts" // a life has at most MaxAttempts + CrashLimit claims that cost something
	Liveness        Rule = "liveness"         // at rest nothing that is due is left, and dead workers' tasks went on in time
	NoLeaks         Rule = "no-leaks"         // unique keys, leases and indexes belong to something that lives
	Conservation    Rule = "conservation"     // counters equal what they count
	UnknownOutcome  Rule = "unknown-outcome"  // an enqueue without a reply was done once or not at all, a refused one not
)

// Violation is one broken rule.
type Violation struct {
	Rule   Rule
	ID     string // of the task; empty if it is not about one
	Detail string
}

// String returns the violation as a sentence.
func (v Violation) String() string {
	if v.ID == "" {
		return fmt.Sprintf("%s: %s", v.Rule, v.Detail)
	}
	return fmt.Sprintf("%s: task %s: %s", v.Rule, v.ID, v.Detail)
}

// Options tells the checker what kind of run it looks at. The zero value fits a run that was cut off in the middle, on a
// store that must not lose anything and prunes nothing.
type Options struct {
	// AtRest is set if the run went on until nothing was left to do: then a task that is available or active, or
	// scheduled or retryable though due, is a violation.
	AtRest bool
	// Prunes is set if retention may have removed ended tasks: those for which a settlement or a cancellation is on
	// record, or the return of a handler whose process was killed before it could record the settlement. What ends by itself (by expiry, or by its crash limit) must outlive such a run.
	Prunes bool
	// MayLose are the durability levels whose tasks, and settlements, the faults of this run may lose by their definition.
	MayLose []driver.Durability
	// Recovery bounds, in the store's time, how long after its worker's lease ended a task is claimed again; 0: no bound.
	Recovery time.Duration
}

// Check returns what a run broke, sorted by task. events are those of all logs in any order; dump is taken after it. opts
// may be nil.
//
// It assumes that all producers and handlers recorded what they saw, and that all processes share one machine's clock.
// Where a log can't tell, because a reply was lost or a process was killed, it takes the reading without a violation.
func Check(events []Event, dump *Dump, opts *Options) []Violation {
	c := &checker{dump: dump, tasks: map[string]*life{}, leases: map[string][]Event{}, gone: map[string]time.Time{}}
	if opts != nil {
		c.opts = *opts
	}
	c.read(events)
	c.checkStore()
	c.checkUnique()
	for _, id := range slices.Sorted(maps.Keys(c.tasks)) {
		t := c.tasks[id]
		c.checkStored(t)
		c.checkEnds(t)
		c.checkHandlers(t)
		c.checkAttempts(t)
	}
	slices.SortStableFunc(c.found, func(a, b Violation) int { return cmp.Compare(a.ID, b.ID) })
	return c.found
}

// life is all that is known of one task.
type life struct {
	id                        string
	accepted, unknown, refuse []Event
	runs                      map[driver.Token]*run
	retried, removed          int
	calledOff                 bool
	records                   []*driver.Record // more than one is a violation
}

// run is one claim in the hands of a handler.
type run struct {
	token    driver.Token
	started  []Event // more than one is a violation
	ended    *Event
	settles  []Event // accepted, in the order of their replies
	refused  bool    // a settlement was refused
	maybe    bool    // a settlement without a reply may have been accepted
	accepted driver.Outcome
}

type checker struct {
	opts   Options
	dump   *Dump
	tasks  map[string]*life
	leases map[string][]Event   // by worker
	gone   map[string]time.Time // when a worker gave its lease up, machine's clock
	found  []Violation
}

func (c *checker) failf(rule Rule, id, format string, args ...any) {
	c.found = append(c.found, Violation{Rule: rule, ID: id, Detail: fmt.Sprintf(format, args...)})
}

func (c *checker) task(id string) *life {
	t := c.tasks[id]
	if t == nil {
		t = &life{id: id, runs: map[driver.Token]*run{}}
		c.tasks[id] = t
	}
	return t
}

func (t *life) run(token driver.Token) *run {
	r := t.runs[token]
	if r == nil {
		r = &run{token: token}
		t.runs[token] = r
	}
	return r
}

func (c *checker) read(events []Event) {
	events = slices.Clone(events)
	slices.SortStableFunc(events, func(a, b Event) int { return a.At.Compare(b.At) })
	for _, e := range events {
		switch e.Kind {
		case Leased:
			c.leases[e.Worker] = append(c.leases[e.Worker], e)
		case LeaseGivenUp:
			c.gone[e.Worker] = e.At
		default:
			c.task(e.ID).add(e)
		}
	}
	for _, r := range c.dump.Records {
		t := c.task(r.ID)
		t.records = append(t.records, r)
	}
}

func (t *life) add(e Event) {
	switch e.Kind {
	case EnqueueOK:
		t.accepted = append(t.accepted, e)
	case EnqueueUnknown:
		t.unknown = append(t.unknown, e)
	case EnqueueRefused:
		t.refuse = append(t.refuse, e)
	case Started:
		r := t.run(e.Token)
		r.started = append(r.started, e)
	case Ended:
		t.run(e.Token).ended = &e
	case SettleAccepted:
		r := t.run(e.Token)
		r.settles = append(r.settles, e)
		r.accepted = cmp.Or(r.accepted, e.Outcome)
	case SettleUnknown:
		t.run(e.Token).maybe = true
	case SettleRefused:
		t.run(e.Token).refused = true
	case Retried:
		t.retried++
	case Removed:
		t.removed++
	case CalledOff:
		t.calledOff = true
	}
}

// mayLose reports whether every reply for this task was at a level that the run may lose. A reply that just names an
// existing task need not name its level.
func (c *checker) mayLose(t *life) bool {
	for _, e := range t.accepted {
		if e.Durability != "" && !slices.Contains(c.opts.MayLose, e.Durability) {
			return false
		}
	}
	return len(c.opts.MayLose) > 0 && len(t.accepted) > 0
}

// finished reports whether an end of this task may have been accepted, so that retention may have removed it.
func (t *life) finished() bool {
	if t.calledOff {
		return true
	}
	for _, r := range t.runs {
		if r.maybe || len(r.settles) > 0 || r.ended != nil && !r.refused {
			return true // the last: its process was killed before it had written down what the store said
		}
	}
	return false
}

// checkStored: no loss, unknown outcomes, and a task that was refused is not there.
func (c *checker) checkStored(t *life) {
	switch n := len(t.records); {
	case n > 1:
		c.failf(UnknownOutcome, t.id, "it is in the store %d times", n)
	case n == 0 && len(t.accepted) > 0 && t.removed == 0 && !(c.opts.Prunes && t.finished()) && !c.mayLose(t):
		c.failf(NoLoss, t.id, "%s was told that it is stored (%s), but it is gone", t.accepted[0].Process, t.accepted[0].Durability)
	case n == 1 && len(t.accepted) == 0 && len(t.unknown) == 0 && len(t.refuse) > 0:
		c.failf(UnknownOutcome, t.id, "it was refused (%s), but it is in the store", t.refuse[0].Error)
	}
	for _, r := range t.records {
		if !r.State.Valid() {
			c.failf(NoLoss, t.id, "it is in no known state: %q", r.State)
		}
		c.checkRest(t, r)
	}
}

func (c *checker) checkRest(t *life, r *driver.Record) {
	due := r.State == driver.Available || (r.State == driver.Scheduled || r.State == driver.Retryable) && !r.DueAt.After(c.dump.Now)
	if c.opts.AtRest && due && !c.paused(r.Queue) {
		c.failf(Liveness, t.id, "it is %s and due since %v, at rest at %v", r.State, r.DueAt, c.dump.Now)
	}
	if c.opts.AtRest && r.State == driver.Active {
		c.failf(Liveness, t.id, "it is held by %s though nobody works any more", r.Worker)
	}
}

func (c *checker) paused(queue string) bool {
	return slices.ContainsFunc(c.dump.Queues, func(q driver.QueueInfo) bool { return q.Name == queue && q.Config.Paused })
}

func (t *life) sorted() []*run {
	return slices.SortedFunc(maps.Values(t.runs), func(a, b *run) int { return cmp.Compare(a.token, b.token) })
}

func ends(o driver.Outcome) bool {
	return o == driver.Complete || o == driver.Discard || o == driver.CancelOutcome
}

// checkEnds: one accepted end a life, no stale settlement, and the store agrees with the last.
func (c *checker) checkEnds(t *life) {
	if c.mayLose(t) {
		return // a store that may lose settlements may run a task again
	}
	runs, won := t.sorted(), 0
	var last *run
	for i, r := range runs {
		if ends(r.accepted) {
			won++
			last = r
		}
		for _, later := range runs[i+1:] {
			c.checkStale(t, r, later)
		}
	}
	if won > 1+t.retried+t.removed {
		c.failf(OneWinner, t.id, "%d ends were accepted", won)
	}
	if last == nil || t.retried+t.removed > 0 {
		return
	}
	if after := runs[len(runs)-1]; after.token > last.token && len(after.started) > 0 {
		c.failf(OneWinner, t.id, "a handler started under token %d after its end was accepted under %d", after.token, last.token)
	}
	if len(t.records) == 1 && !t.records[0].State.Ended() {
		c.failf(OneWinner, t.id, "%s was accepted under token %d, but it is %s", last.accepted, last.token, t.records[0].State)
	}
}

// checkStale finds settlements that were asked for after a later claim was in a handler's hands, and accepted.
func (c *checker) checkStale(t *life, r, later *run) {
	if len(later.started) == 0 {
		return
	}
	for _, s := range r.settles {
		if s.Called.After(later.started[0].At) {
			c.failf(OneWinner, t.id, "%s settled under token %d after %s had it under %d, and was accepted",
				s.Worker, r.token, later.started[0].Worker, later.token)
		}
	}
}

// checkHandlers: exclusion, and recovery in time.
func (c *checker) checkHandlers(t *life) {
	runs := t.sorted()
	for i, a := range runs {
		// A store that may lose a settlement may give the same claim to the same worker again.
		again := c.mayLose(t) && (len(a.settles) > 0 || a.maybe)
		if len(a.started) > 1 && !again {
			c.failf(Exclusion, t.id, "token %d was run %d times, by %s and %s", a.token, len(a.started), a.started[0].Worker, a.started[1].Worker)
		}
		next := slices.IndexFunc(runs[i+1:], func(b *run) bool { return len(b.started) > 0 })
		if len(a.started) > 0 && next >= 0 {
			c.checkPair(t, a, runs[i+1+next])
		}
	}
}

func (c *checker) checkPair(t *life, a, b *run) {
	first, second := a.started[0], b.started[0]
	if c.mayLose(t) || len(a.settles) > 0 || a.maybe {
		return // the first claim was given back by a settlement, or may have been; checkEnds looks at those
	}
	if given, ok := c.gone[first.Worker]; ok && !given.After(second.At) {
		return
	}
	end := c.leaseEnd(first.Worker, second.At)
	if end.IsZero() {
		return
	}
	overlap := a.ended == nil || a.ended.At.After(second.At)
	if overlap && second.ClaimedAt.Before(end) {
		c.failf(Exclusion, t.id, "%s had it under token %d with a lease up to %v, and %s got it under %d at %v",
			first.Worker, a.token, end, second.Worker, b.token, second.ClaimedAt)
	}
	if c.opts.Recovery > 0 && second.ClaimedAt.After(end.Add(c.opts.Recovery)) {
		c.failf(Liveness, t.id, "the lease of %s ended at %v, and it was claimed again at %v, more than %v later",
			first.Worker, end, second.ClaimedAt, c.opts.Recovery)
	}
}

// leaseEnd returns the latest end of a worker's lease that was known before a time of the machine's clock.
func (c *checker) leaseEnd(worker string, before time.Time) time.Time {
	var end time.Time
	for _, e := range c.leases[worker] {
		if e.At.After(before) {
			break
		}
		if e.LeaseEnd.After(end) {
			end = e.LeaseEnd
		}
	}
	return end
}

// checkAttempts: a life has no more claims than its attempts and crashes allow. Releases and snoozes cost nothing, and
// what an unregistered worker gave back neither.
func (c *checker) checkAttempts(t *life) {
	if len(t.records) != 1 {
		return
	}
	costly, failed, record := 0, 0, t.records[0]
	for _, r := range t.runs {
		if len(r.started) == 0 || r.maybe || r.accepted == driver.Release || r.accepted == driver.Snooze {
			continue
		}
		if _, gone := c.gone[r.started[0].Worker]; gone && r.accepted == "" {
			continue
		}
		costly++
		if r.accepted == driver.Retry {
			failed++
		}
	}
	lives := 1 + t.retried + t.removed
	if limit := lives * (record.MaxAttempts + record.CrashLimit); costly > limit {
		c.failf(BoundedAttempts, t.id, "%d claims, %d attempts and %d crashes were allowed", costly, record.MaxAttempts, record.CrashLimit)
	}
	if limit := lives * record.MaxAttempts; failed > limit && record.State != driver.Completed {
		c.failf(BoundedAttempts, t.id, "%d failures were accepted, %d attempts are allowed", failed, record.MaxAttempts)
	}
}
