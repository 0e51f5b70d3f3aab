package drivertest

import (
	"maps"
	"slices"
	"time"

	"github.com/waggleq/waggle/driver"
)

// compare fails the run unless both sides hold the same, the engine is sound, and its tasks moved as they may.
func (s *simulation) compare() {
	s.load()
	theirs, err := dump(s.ctx, s.engine)
	s.must(err)
	s.sameRecords("the records", s.records, theirs)
	queues, err := s.engine.Queues(s.ctx)
	s.must(err)
	s.forgiveParked(queues)
	s.same("the queues", plainQueues(s.queues), plainQueues(queues))
	if len(queues) > 0 {
		one := queues[s.steps%len(queues)]
		named, err := s.engine.Queues(s.ctx, one.Name)
		s.must(err)
		for i := range named {
			named[i].Parked = one.Parked // a rate may have opened since
		}
		s.same("one queue by its name", plainQueues([]driver.QueueInfo{one}), plainQueues(named))
	}
	s.comparePlans()
	s.same("the workers", s.workers(s.model), s.workers(s.engine))

	findings, err := s.engine.Audit(s.ctx, false)
	s.must(err)
	if len(findings) > 0 {
		s.Fatalf("audit: %+v", findings)
	}
	if s.steps++; s.steps%8 == 0 { // what it finds lasts, and it takes long
		s.checkInvariants()
	}
	s.follow()
}

func (s *simulation) checkInvariants() {
	broken, err := CheckInvariants(s.ctx, s.engine)
	s.must(err)
	if len(broken) > 0 {
		s.Fatalf("audit: %q", broken)
	}
}

// sameRecords compares records, and their order if the contract determines it.
func (s *simulation) sameRecords(what string, model, engine []*driver.Record) {
	if s.caps.Ordered {
		s.same(what+": the order", recordIDs(model), recordIDs(engine))
	}
	mine, theirs := byID(model), byID(engine)
	s.same(what+": the ids", slices.Sorted(maps.Keys(mine)), slices.Sorted(maps.Keys(theirs)))
	for id, r := range mine {
		s.same(what+": task "+id, s.plain(s.model, r), s.plain(s.engine, theirs[id]))
	}
}

func recordIDs(records []*driver.Record) []string {
	ids := make([]string, len(records))
	for i, r := range records {
		ids[i] = r.ID
	}
	return ids
}

func byID(records []*driver.Record) map[string]*driver.Record {
	m := map[string]*driver.Record{}
	for _, r := range records {
		m[r.ID] = r
	}
	return m
}

// plainRecord is a record without what differs between two stores that do the same: tokens and the exact time.
type plainRecord struct {
	Record driver.Record
	Times  map[string]int // in half ticks
}

func (s *simulation) plain(of *side, r *driver.Record) plainRecord {
	p := plainRecord{Record: *r, Times: map[string]int{}}
	p.Record.Token = 0
	for name, t := range map[string]*time.Time{
		"at": &p.Record.At, "expires": &p.Record.ExpiresAt, "enqueued": &p.Record.EnqueuedAt, "due": &p.Record.DueAt,
		"claimed": &p.Record.ClaimedAt, "ended": &p.Record.EndedAt,
	} {
		p.Times[name], *t = of.half(*t), time.Time{}
	}
	if r.State == driver.Pending {
		delete(p.Times, "due") // it has none yet
	}
	p.Record.Attempts = nil
	for _, a := range r.Attempts {
		if a.Outcome == driver.Release {
			continue // a run that was given back may be told or not
		}
		a.Started, a.Ended = of.epoch(a.Started), of.epoch(a.Ended)
		p.Record.Attempts = append(p.Record.Attempts, a)
	}
	return p
}

// epoch returns a time that is equal on both sides for times of the same half tick.
func (s *side) epoch(t time.Time) time.Time { return time.Unix(int64(s.half(t)), 0).UTC() }

// plainQueues leaves out the entries that may be missing, and of the oldest task all but that there is one.
// forgiveParked overlooks tasks that an engine still counts as parked behind those that have expired, or for a rate that
// has opened: see driver.QueueInfo.
func (s *simulation) forgiveParked(theirs []driver.QueueInfo) {
	if !s.apart() {
		return
	}
	for i := range theirs {
		byRate := func(l driver.Limit) bool { return l.PerKey && l.Rate > 0 }
		at := slices.IndexFunc(s.queues, func(q driver.QueueInfo) bool { return q.Name == theirs[i].Name })
		if at < 0 || !theirs[i].Config.Keys.Ordered() && !slices.ContainsFunc(theirs[i].Config.Limits, byRate) {
			continue
		}
		mine := s.queues[at].Parked
		if more := theirs[i].Parked - mine; more > 0 && theirs[i].Parked <= theirs[i].Counts[driver.Available] {
			theirs[i].Parked = mine
		}
	}
}

func plainQueues(infos []driver.QueueInfo) []driver.QueueInfo {
	plain := slices.Clone(infos)
	for i := range plain {
		q := &plain[i]
		if !q.OldestAvailable.IsZero() {
			q.OldestAvailable = time.Unix(1, 0)
		}
		q.Types = slices.Clone(q.Types)
		for j := range q.Types {
			q.Types[j].Counts = maps.Clone(q.Types[j].Counts)
			maps.DeleteFunc(q.Types[j].Counts, func(state driver.State, n int) bool { return n == 0 || state.Ended() })
		}
	}
	return plain
}

func (s *simulation) workers(of *side) []driver.WorkerStatus {
	list, err := of.Workers(s.ctx)
	s.must(err)
	for i := range list {
		list[i].Since, list[i].LeaseEnd = of.epoch(list[i].Since), of.epoch(list[i].LeaseEnd)
	}
	return list
}

// sameClaims compares claims, and their order if ordered, and returns them with both sides' tokens.
func (s *simulation) sameClaims(what, worker string, ordered bool, model, engine []driver.Claim) []claimed {
	for shard := range s.shards {
		if ordered { // within each shard, as the contract says
			s.sameOrder(what, s.inShard(shard, model), s.inShard(shard, engine))
		}
	}
	theirs := map[string]driver.Claim{}
	for _, c := range engine {
		theirs[c.ID] = c
	}
	if len(theirs) != len(model) || len(engine) != len(model) {
		s.Fatalf("%s: %s has %v, the model %v", what, s.caps.Engine, claimIDs(engine), claimIDs(model))
	}
	pairs := make([]claimed, len(model))
	for i, c := range model {
		e := theirs[c.ID]
		s.same(what+": claim of "+c.ID, s.plainClaim(s.model, c), s.plainClaim(s.engine, e))
		pairs[i] = claimed{worker: worker, id: c.ID, engine: e.Token, model: c.Token}
	}
	return pairs
}

// sameOrder compares the order of one shard's claims. Where there are others, whose turn it is there depends on which keys
// it has: then the order within each key is compared.
func (s *simulation) sameOrder(what string, model, engine []driver.Claim) {
	if s.shards == 1 {
		s.same(what+": the order", claimIDs(model), claimIDs(engine))
		return
	}
	for _, key := range append([]string{""}, simTaskKeys...) {
		of := func(claims []driver.Claim) []string {
			return claimIDs(slices.DeleteFunc(slices.Clone(claims), func(c driver.Claim) bool { return c.Key != key }))
		}
		s.same(what+": the order of key "+key, of(model), of(engine))
	}
}

// inShard returns the claims of one shard's tasks.
func (s *simulation) inShard(shard int, claims []driver.Claim) []driver.Claim {
	return slices.DeleteFunc(slices.Clone(claims), func(c driver.Claim) bool { return s.shardOf(c.ID) != shard })
}

func (s *simulation) plainClaim(of *side, c driver.Claim) driver.Claim {
	c.Token = 0
	for _, t := range []*time.Time{&c.At, &c.ExpiresAt, &c.EnqueuedAt, &c.ClaimedAt} {
		*t = of.epoch(*t)
	}
	return c
}

// follow reads on in the engine's event log and checks that every task moved as the table of moves says.
func (s *simulation) follow() {
	for {
		page, err := s.engine.Events(s.ctx, driver.EventQuery{After: s.cursor})
		s.must(err)
		if page.Gap {
			s.Fatalf("the event log has a gap after %d moves", len(s.last))
		}
		for _, e := range page.Events {
			s.followEvent(e)
		}
		s.cursor = page.Next
		if len(page.Events) == 0 {
			return
		}
	}
}

func (s *simulation) followEvent(e driver.Event) {
	to := driver.State(e.Kind)
	switch {
	case e.Kind == driver.EventDeleted:
		delete(s.last, e.ID)
	case !to.Valid():
	case driver.CanMove(s.last[e.ID], to), s.last[e.ID].Ended() && driver.CanMove("", to): // pruned, and enqueued again
		s.last[e.ID] = to
	default:
		s.Fatalf("task %s went from %q to %q, which is not in the table of moves", e.ID, s.last[e.ID], to)
	}
}
