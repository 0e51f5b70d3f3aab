package drivertest

import (
	"slices"
	"time"

	"pgregory.net/rapid"

	"github.com/waggleq/waggle/driver"
)

func (s *simulation) setQueue() {
	var patch driver.QueuePatch
	yes, no := true, false
	whats := []string{"resume", "refill", "pause", "drain", "retention"}
	if s.caps.Keys && s.caps.Limits {
		whats = append(whats, "limits", "limits", "keys", "order")
	}
	if s.caps.Ordered {
		whats = append(whats, "bound", "bound")
	}
	switch draw(s, "what", whats...) {
	case "bound":
		patch.Bound = &driver.Bound{}
		if n := draw(s, "bound", 0, 1, 2, 5); n > 0 {
			*patch.Bound = driver.Bound{Max: n, Full: draw(s, "policy", driver.FullRefuse, driver.FullDropOldest, driver.FullWait)}
			s.drops = s.drops || patch.Bound.Full == driver.FullDropOldest
		}
	case "limits":
		switch draw(s, "limit patch", "all", "put", "drop") {
		case "all":
			patch.Limits = new(s.limits())
		case "put":
			patch.PutLimits = s.limits()
		case "drop":
			patch.DropLimits = s.limits()
		}
	case "keys":
		patch.Keys = new(draw(s, "keys", driver.KeysFree, driver.KeysHold, driver.KeysPass))
	case "order":
		patch.Order = new(draw(s, "order", driver.OrderFair, driver.OrderDeadline))
	case "resume":
		patch.Paused = &no
	case "refill":
		patch.Draining = &no
	case "pause":
		patch.Paused = &yes
	case "drain":
		patch.Draining = &yes
	case "retention":
		patch.Retention = &driver.Retention{Completed: s.keep(), Cancelled: s.keep(), Discarded: s.keep()}
	}
	queue := draw(s, "queue", simQueues...)
	want, wantErr := s.model.SetQueue(s.ctx, queue, patch)
	got, err := s.engine.SetQueue(s.ctx, queue, patch)
	s.same("SetQueue: the error", class(wantErr), class(err))
	if err == nil {
		s.same("SetQueue", want, got)
	}
}

// limits draws limits. Their rates open between two ticks, as all that is due does.
func (s *simulation) limits() []driver.Limit {
	scopes := []driver.Limit{{}, {Type: "t1"}, {PerKey: true}, {Type: "t2", PerKey: true}}
	n := draw(s, "limits", 0, 1, 2, 4)
	if s.shards > 1 { // in which shards the tasks are that a limit lets start is open
		scopes = scopes[2:]
		n = min(n, len(scopes))
	}
	limits := rapid.SliceOfNDistinct(rapid.SampledFrom(scopes), n, n, rapid.ID[driver.Limit]).Draw(s.T, "scopes")
	for i := range limits {
		if s.chance("rate", 3) {
			limits[i].Rate, limits[i].Per, limits[i].Burst = 1, later(draw(s, "ticks between starts", 1, 3)), 1
		}
		if limits[i].Rate == 0 || s.chance("concurrency", 2) {
			limits[i].Concurrency = draw(s, "concurrency", 1, 2, 5)
		}
	}
	return limits
}

func (s *simulation) keep() driver.Keep {
	if s.chance("unbounded", 2) {
		return driver.Keep{Age: 24*time.Hour + tick/2, Count: -1, Bytes: -1}
	}
	return driver.Keep{
		Age: draw(s, "age", 24*time.Hour+tick/2, later(3), 0), Count: draw(s, "count", -1, 2, 1, 0),
		Bytes: draw(s, "bytes", int64(-1), 10, 0),
	}
}

// maintainBoth runs Maintain on both sides until nothing is left.
func (s *simulation) maintainBoth() {
	s.maintainAll(s.engine, 0)
	s.maintainAll(s.model, 0)
	s.swept = s.model.half(s.now(s.model))
}

// recordExpired has both sides record what has expired, before or after a call of which it is open how much it records.
func (s *simulation) recordExpired() {
	s.load()
	if slices.ContainsFunc(s.records, s.lapsed) {
		s.maintainBoth()
	}
}

// maintainAll runs Maintain until nothing is left, and returns the sums.
func (s *simulation) maintainAll(of *side, limit int) driver.MaintainResult {
	var sum driver.MaintainResult
	for range 1000 {
		r, err := of.Maintain(s.ctx, limit)
		s.must(err)
		sum.Promoted, sum.Expired = sum.Promoted+r.Promoted, sum.Expired+r.Expired
		sum.Recovered, sum.Pruned = sum.Recovered+r.Recovered, sum.Pruned+r.Pruned
		if !r.More {
			return sum
		}
	}
	s.Fatalf("Maintain says More for ever")
	return sum
}

func (s *simulation) maintain() {
	limit := draw(s, "limit", 0, 1, 3)
	want, got := s.maintainAll(s.model, limit), s.maintainAll(s.engine, limit)
	if want.Recovered > 0 { // a task that is recovered after its expiry may be discarded now or later
		want.Expired, got.Expired = 0, 0
	}
	want.Pruned, got.Pruned = 0, 0 // an engine may prune sooner
	s.recordExpired()
	s.same("Maintain", want, got)
}

func (s *simulation) applyIDs() {
	ids := append(recordIDs(s.records), "own-1", "own-2", "nobody")
	ids = rapid.SliceOfNDistinct(rapid.SampledFrom(ids), 1, 4, rapid.ID[string]).Draw(s.T, "ids")
	c := driver.Change{Op: draw(s, "operation", driver.OpCancel, driver.OpRetry, driver.OpRun, driver.OpDelete), IDs: ids}
	if c.DryRun = s.chance("dry run", 4); c.DryRun && c.Op == driver.OpRetry {
		c.IDs = c.IDs[:1] // two of them may claim the same unique key
	}
	s.applyBoth(c)
}

func (s *simulation) applyBoth(c driver.Change) {
	asked := slices.ContainsFunc(s.records, func(r *driver.Record) bool { return r.CancelRequested && slices.Contains(c.IDs, r.ID) })
	want, err := s.model.Apply(s.ctx, c)
	s.must(err)
	got, err := s.engine.Apply(s.ctx, c)
	s.must(err)
	s.same("Apply: the errors", classes(want.Errors), classes(got.Errors))
	if !asked { // asking again to cancel may count or not
		s.same("Apply: changed", want.Changed, got.Changed)
	}
}

func (s *simulation) applyFilter() {
	c := driver.Change{Op: draw(s, "operation", driver.OpCancel, driver.OpRetry, driver.OpRun, driver.OpDelete), Filter: s.filter(), DryRun: true}
	c.Filter.All = !c.Filter.Selects()
	all, err := s.model.Apply(s.ctx, c)
	s.must(err)
	c.Max = draw(s, "max", 0, 1, 2)
	if c.Op != driver.OpRetry { // those may get in each other's way
		got, err := s.engine.Apply(s.ctx, c)
		s.must(err)
		if c.Max == 0 || all.Changed < c.Max {
			s.same("Apply: would change", all.Changed, got.Changed)
			s.same("Apply: more", false, got.More)
		} else if got.Changed != c.Max || all.Changed > c.Max && !got.More {
			s.Fatalf("Apply: would change %d, more %v; %d match and %d may change", got.Changed, got.More, all.Changed, c.Max)
		}
	}
	c.Max, c.DryRun = 0, s.chance("dry run", 3)
	if c.DryRun || all.Changed > 1 && (c.Op == driver.OpRetry || c.Op == driver.OpRun) {
		return // in which order they would become available is open
	}
	s.applyBoth(c)
}

func (s *simulation) filter() driver.Filter {
	var f driver.Filter
	if s.chance("states", 3) {
		f.States = some(s, "states", driver.States...)
	}
	if s.chance("queues", 2) {
		f.Queues = some(s, "queues", simQueues...)
	}
	if s.chance("types", 2) {
		f.Types = some(s, "types", simTypes...)
	}
	if s.chance("tags", 5) {
		f.Tags = some(s, "tags", "red", "blue")
	}
	if s.chance("ids", 5) {
		f.IDs = some(s, "ids", simIDs...)
	}
	if s.chance("error", 5) {
		f.Error = "broke"
	}
	return f
}

// list reads what a filter selects in small pages, and some records by id.
func (s *simulation) list() {
	ids := []string{"nobody", "own-1", draw(s, "id", append(recordIDs(s.records), "own-2")...)}
	want, err := s.model.Get(s.ctx, ids)
	s.must(err)
	got, err := s.engine.Get(s.ctx, ids)
	s.must(err)
	for i := range ids {
		s.same("Get: there is a record of "+ids[i], want[i] != nil, got[i] != nil)
		if want[i] != nil {
			s.same("Get of "+ids[i], s.plain(s.model, want[i]), s.plain(s.engine, got[i]))
		}
	}
	f, size := s.filter(), draw(s, "page size", 1, 3, 1000)
	read := func(of *side) []*driver.Record {
		var all []*driver.Record
		for cursor := ""; ; {
			page, err := of.List(s.ctx, f, driver.Page{Cursor: cursor, Size: size})
			s.must(err)
			if len(page.Records) > size {
				s.Fatalf("List: a page of %d has %d records", size, len(page.Records))
			}
			all = append(all, page.Records...)
			if cursor = page.Next; cursor == "" {
				return all
			}
		}
	}
	s.sameRecords("List", read(s.model), read(s.engine))
}
