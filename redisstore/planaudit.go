package redisstore

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/redis/rueidis"

	"github.com/waggleq/waggle/driver"
)

// planBooks is what an audit has read of a shard's plans.
type planBooks struct {
	heads  map[string]string
	fields map[string]map[string]bool // hash → its fields
	due    map[string]int64
	listed map[string]bool
	outDue map[string]int64
}

// readPlans reads all that is stored of plans and checks it: that each is thought of when it should be, that it has the news
// that it counts, that nothing is left of plans that are gone, and that the outbox is seen to.
func (s *Store) readPlans(ctx context.Context, a *snapshot) error {
	b := planBooks{heads: map[string]string{}, fields: map[string]map[string]bool{}, listed: map[string]bool{}}
	if err := s.scan(ctx, a.sh.key("plan"), func(ref, head string) { b.heads[ref] = head }); err != nil {
		return err
	}
	for _, hash := range []string{"planbody", "planpart", "plannews", "plansig", "planout"} {
		b.fields[hash] = map[string]bool{}
		if err := s.scan(ctx, a.sh.key(hash), func(f, _ string) { b.fields[hash][f] = true }); err != nil {
			return err
		}
	}
	err := s.sorted(ctx, a.sh.key("planlist"), func(refs []string) {
		for _, ref := range refs {
			b.listed[ref] = true
		}
	})
	if err != nil {
		return err
	}
	if b.due, err = s.scores(ctx, a.sh.key("plandue")); err != nil {
		return err
	}
	if b.outDue, err = s.scores(ctx, a.sh.key("planoutdue")); err != nil {
		return err
	}
	now, err := s.shardNow(ctx, a.sh)
	if err != nil {
		return err
	}
	a.checkPlans(&b)
	a.checkPlanFields(&b)
	a.checkOutbox(&b, now)
	return nil
}

// scores reads a sorted set of times.
func (s *Store) scores(ctx context.Context, key string) (map[string]int64, error) {
	all := map[string]int64{}
	const window = 1000
	for from := int64(0); ; from += window {
		bounded, cancel := s.bounded(ctx, s.timeout)
		cmd := s.control.B().Zrange().Key(key).Min(strconv.FormatInt(from, 10)).Max(strconv.FormatInt(from+window-1, 10)).Withscores().Build()
		list, err := s.control.Do(bounded, cmd).AsZScores()
		cancel()
		if err != nil && !rueidis.IsRedisNil(err) {
			return nil, s.ended(bounded, err)
		}
		for _, z := range list {
			all[z.Member] = int64(z.Score)
		}
		if len(list) < window {
			return all, nil
		}
	}
}

// planFault notes a fault of a plan whose head was read as it is.
func (a *snapshot) planFault(b *planBooks, kind, ref, detail string) *item {
	f := fault{Finding: driver.Finding{Kind: kind, ID: ref, Detail: detail}, fix: &item{}}
	head, ok := b.heads[ref]
	f.fix.expect(a.sh.key("plan"), ref, head, ok)
	a.faults = append(a.faults, f)
	return f.fix
}

func (a *snapshot) checkPlans(b *planBooks) {
	for ref, head := range b.heads {
		name, _ := driver.ParsePlanRef(ref)
		h, err := parsePlanRecord(name, head)
		if err != nil {
			a.planFault(b, "damaged-plan", ref, "the plan's record can't be read").do("HDEL", a.sh.key("plan"), ref)
			continue
		}
		if !b.listed[ref] {
			a.planFault(b, "missing-plan-index", ref, "the plan is missing in planlist").do("ZADD", a.sh.key("planlist"), "0", ref)
		}
		if at := b.due[ref]; h.misplaced(at) {
			due := h.place(h.reserved)
			it := a.planFault(b, "wrong-plan-place", ref, "the plan is to be looked at at "+millis(due).String()+", but stands at "+millis(at).String())
			if due == 0 {
				it.do("ZREM", a.sh.key("plandue"), ref)
			} else {
				it.do("ZADD", a.sh.key("plandue"), strconv.FormatInt(due, 10), ref)
			}
		}
		a.checkNews(b, ref, h)
	}
	for ref := range b.due {
		if _, ok := b.heads[ref]; !ok {
			a.planFault(b, "orphan-plan-index", ref, "there is an entry in plandue without its plan").do("ZREM", a.sh.key("plandue"), ref)
		}
	}
	for ref := range b.listed {
		if _, ok := b.heads[ref]; !ok {
			a.planFault(b, "orphan-plan-index", ref, "there is an entry in planlist without its plan").do("ZREM", a.sh.key("planlist"), ref)
		}
	}
}

// misplaced reports whether a plan would be thought of too late, or never. One whose reservation has ended may still
// stand at its end.
func (h *planRecord) misplaced(at int64) bool {
	if at == h.place(h.reserved) {
		return false
	}
	return h.reserved == 0 || at != h.place(h.reserved-1)
}

// lostNews is what is put in the place of news that are lost, so that the others are read.
const lostNews = "news.lost"

func (a *snapshot) checkNews(b *planBooks, ref string, h *planRecord) {
	for n := h.seen + 1; n <= h.news; n++ {
		f := ref + "/" + strconv.FormatInt(n, 10)
		if !b.fields["plannews"][f] {
			lost := driver.News{Time: time.UnixMilli(h.Updated.UnixMilli()), Signal: lostNews, SignalID: lostNews}
			a.planFault(b, "lost-plan-news", ref, "news "+strconv.FormatInt(n, 10)+" of the plan are lost").
				do("HSET", a.sh.key("plannews"), f, string(driver.AppendNews(nil, &lost)))
		}
	}
}

// checkPlanFields looks for parts, news and signals of plans that are gone, and for news that were dealt with.
func (a *snapshot) checkPlanFields(b *planBooks) {
	for _, hash := range []string{"planbody", "planpart", "plannews", "plansig"} {
		for f := range b.fields[hash] {
			ref := refOfField(f)
			head, ok := b.heads[ref]
			stale := false
			if name, _ := driver.ParsePlanRef(ref); ok && hash == "plannews" {
				if h, err := parsePlanRecord(name, head); err == nil {
					n, err := strconv.ParseInt(f[lastSlash(f)+1:], 10, 64)
					stale = err != nil || n <= h.seen || n > h.news
				}
			}
			if !ok || stale {
				a.planFault(b, "orphan-plan-part", ref, "there is an entry "+f+" in "+hash+" that belongs to no plan").do("HDEL", a.sh.key(hash), f)
			}
		}
	}
	for ref := range b.heads {
		if !b.fields["planbody"][ref] {
			a.planFault(b, "missing-plan-body", ref, "the plan's body is lost").do("HSET", a.sh.key("planbody"), ref, "")
		}
	}
}

// refOfField returns KIND/NAME of a field that may go on after it.
func refOfField(f string) string {
	kind, rest, _ := strings.Cut(f, "/")
	name, _, _ := strings.Cut(rest, "/")
	return kind + "/" + name
}

// outboxPatience is how long an entry may stay in the outbox after others were to see to it, before that is a finding.
const outboxPatience = time.Minute

func (a *snapshot) checkOutbox(b *planBooks, now int64) {
	for entry := range b.fields["planout"] {
		at, ok := b.outDue[entry]
		switch {
		case !ok:
			a.planFault(b, "missing-outbox-index", refOfField(entry), "nobody is to see to the entry "+entry+" of the outbox").
				do("ZADD", a.sh.key("planoutdue"), strconv.FormatInt(now, 10), entry)
		case at+outboxPatience.Milliseconds() < now:
			a.planFault(b, "outbox-left", refOfField(entry), "the tasks of the step "+entry+" were not stored: does a worker run?").
				expect(a.sh.key("planout"), entry, "", false)
		}
	}
	for entry := range b.outDue {
		if !b.fields["planout"][entry] {
			a.planFault(b, "orphan-outbox-index", refOfField(entry), "there is an entry in planoutdue without its tasks").do("ZREM", a.sh.key("planoutdue"), entry)
		}
	}
}
