package drivertest

import (
	"maps"
	"slices"

	"github.com/waggleq/waggle/driver"
)

// tidy takes away what a store may do now or later: pruning, and recording what has expired, where that is open. Which of
// several tasks that ended at the same time goes first is up to the store, and one of several shards prunes in each by
// itself, see [driver.Keep]; what differs then is deleted on both sides.
func (s *simulation) tidy() {
	s.load()
	if !s.over(s.model, s.records, 1) && !s.over(s.model, s.records, s.shards) {
		return
	}
	before := piles(s.records, s.shardOf)
	s.maintainBoth()
	s.load()
	if s.over(s.model, s.records, 1) {
		s.Fatalf("the model keeps more than its retention")
	}
	s.align(before)
}

func oneShard(string) int { return 0 }

// pile is the ended tasks of one state in one shard of a queue.
type pile struct {
	queue string
	state driver.State
	shard int
}

// piles sorts the ended records.
func piles(records []*driver.Record, shardOf func(string) int) map[pile][]*driver.Record {
	sorted := map[pile][]*driver.Record{}
	for _, r := range records {
		if r.State.Ended() {
			p := pile{r.Queue, r.State, shardOf(r.ID)}
			sorted[p] = append(sorted[p], r)
		}
	}
	return sorted
}

// over reports whether there is something to prune in a store of so many shards.
func (s *simulation) over(of *side, records []*driver.Record, shards int) bool {
	shardOf := s.shardOf
	if shards == 1 {
		shardOf = oneShard
	}
	now := s.now(of)
	for p, list := range piles(records, shardOf) {
		keep := s.keepOf(p.queue, p.state, shards)
		old := func(r *driver.Record) bool { return now.Sub(r.EndedAt) >= keep.Age }
		if passes(keep, list) || slices.ContainsFunc(list, old) {
			return true
		}
	}
	return false
}

// passes reports whether records are more than what is kept by count or bytes.
func passes(keep driver.Keep, records []*driver.Record) bool {
	bytes := int64(0)
	for _, r := range records {
		bytes += int64(len(r.Payload) + len(r.Result))
	}
	return keep.Count >= 0 && len(records) > keep.Count || keep.Bytes >= 0 && bytes > keep.Bytes
}

// keepOf returns what a queue keeps of a state in each of so many shards.
func (s *simulation) keepOf(queue string, state driver.State, shards int) driver.Keep {
	i := slices.IndexFunc(s.queues, func(q driver.QueueInfo) bool { return q.Name == queue })
	keep := s.queues[i].Config.Retention.Of(state)
	if keep.Count > 0 {
		keep.Count = (keep.Count + shards - 1) / shards
	}
	if keep.Bytes > 0 {
		keep.Bytes = (keep.Bytes + int64(shards) - 1) / int64(shards)
	}
	return keep
}

// align deletes ended tasks that only one side has pruned, after it has looked that the engine keeps what it should and no
// more. before is what the model had before it pruned.
func (s *simulation) align(before map[pile][]*driver.Record) {
	theirs, err := dump(s.ctx, s.engine)
	s.must(err)
	if s.over(s.engine, theirs, s.shards) {
		s.Fatalf("%s keeps more than its retention", s.caps.Engine)
	}
	mine, kept := piles(s.records, s.shardOf), piles(theirs, s.shardOf)
	all := maps.Clone(mine)
	maps.Copy(all, kept)
	for p := range all {
		early, late := without(mine[p], kept[p]), without(kept[p], mine[p])
		s.checkEnds(p, early, late)
		if len(early) > 0 {
			// What both have pruned counts too: it may have been too much only together with what the engine took first.
			both := without(without(before[p], kept[p]), early)
			s.checkPruned(p, slices.Concat(early, both), kept[p])
		}
		s.drop(s.model, early)
		s.drop(s.engine, late)
	}
}

// without returns the records that are not among others.
func without(records, others []*driver.Record) []*driver.Record {
	return slices.DeleteFunc(slices.Clone(records), func(r *driver.Record) bool {
		return slices.ContainsFunc(others, func(o *driver.Record) bool { return o.ID == r.ID })
	})
}

func (s *simulation) drop(of *side, records []*driver.Record) {
	for _, r := range records {
		res, err := of.Apply(s.ctx, driver.Change{Op: driver.OpDelete, IDs: []string{r.ID}})
		s.must(err)
		s.must(res.Errors[0])
	}
}

// checkPruned looks at what the engine pruned: the oldest must have gone first, and no more than had to.
func (s *simulation) checkPruned(p pile, pruned, kept []*driver.Record) {
	end := func(r *driver.Record) int { return s.model.half(r.EndedAt) }
	newest := end(slices.MaxFunc(pruned, func(a, b *driver.Record) int { return end(a) - end(b) }))
	for _, r := range kept {
		if s.engine.half(r.EndedAt) < newest {
			s.Fatalf("%+v: the oldest were not pruned first: %v went, %s is there", p, recordIDs(pruned), r.ID)
		}
	}
	keep := s.keepOf(p.queue, p.state, s.shards)
	had := func(r *driver.Record) bool { return end(r) == newest && passes(keep, append(slices.Clone(kept), r)) }
	if !slices.ContainsFunc(pruned, had) {
		s.Fatalf("%+v: of %v, which were pruned, not all had to go", p, recordIDs(pruned))
	}
}

// checkEnds looks that what only one side pruned ended together, where all are in one shard.
func (s *simulation) checkEnds(p pile, early, late []*driver.Record) {
	ends := map[int]bool{}
	for _, r := range early {
		ends[s.model.half(r.EndedAt)] = true
	}
	for _, r := range late {
		ends[s.engine.half(r.EndedAt)] = true
	}
	if s.shards == 1 && len(ends) > 1 {
		s.Fatalf("%+v: the oldest were not pruned first, the sides differ in %v and %v", p, recordIDs(early), recordIDs(late))
	}
}
