package redisstore

import (
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/waggleq/waggle/driver"
)

// sharePart is what an audit has read of a shared queue.
type sharePart struct {
	queue  string
	config driver.QueueConfig
	keys   []string // names of the structures
	texts  map[string]string
	state  shareState
	flows  map[string][]flowEntry // by key
	heads  map[string]bool
	opens  map[string]bool
	lone   map[string][]string // entries of heads that are the only tasks of their keys, by key
}

// held reports whether what the text of a key says of its active tasks counts.
func (q *sharePart) held(gen string) bool {
	since, _ := strconv.Atoi(q.state["counted"])
	n, err := strconv.Atoi(gen)
	return countsHeld(&q.config) && err == nil && n >= since
}

// keyState is what is stored of a key, see key_text in lua/include/share.lua.
type keyState struct {
	tag     string
	waiting int
	opens   int64
	gen     string
	held    map[int]int
	flows   []flowState
	rates   map[string]driver.Arrival
	rest    string // the rates as they are stored
	lone    bool   // it has one available task and nothing else
}

type flowState struct {
	pair, prio, n int
	shown         string // the entry of heads; empty: parked
}

func parseKeyState(name, text string) (*keyState, bool) {
	if len(text) > loneHead && text[loneForm] == 'L' {
		head := text[lonePair:loneHead]
		tag := uint64(uint24(head[headValue:]))<<32 | uint64(binary.BigEndian.Uint32([]byte(head[headValue+3:])))
		return &keyState{tag: strconv.FormatUint(tag, 10), gen: "0", held: map[int]int{}, lone: true, flows: []flowState{{pair: uint24(head[headPair:]),
			prio: int(head[headPriority]), n: 1, shown: head + name + "\x00" + text[loneHead:]}}}, true
	}
	v := strings.Split(text, " ")
	if len(v) != 7 {
		return nil, false
	}
	k := &keyState{tag: v[0], gen: v[3], held: map[int]int{}, rates: map[string]driver.Arrival{}, rest: v[6]}
	k.waiting, _ = strconv.Atoi(v[1])
	k.opens, _ = strconv.ParseInt(v[2], 10, 64)
	for part := range strings.SplitSeq(strings.TrimSuffix(v[4], ","), ",") {
		pair, n, ok := strings.Cut(part, "=")
		if number, err := strconv.Atoi(pair); ok && err == nil {
			k.held[number], _ = strconv.Atoi(n)
		}
	}
	for part := range strings.SplitSeq(strings.TrimSuffix(v[5], ","), ",") {
		var f flowState
		p := strings.SplitN(part, "/", 4)
		if len(p) != 4 {
			continue
		}
		f.pair, _ = strconv.Atoi(p[0])
		f.prio, _ = strconv.Atoi(p[1])
		f.n, _ = strconv.Atoi(p[2])
		if value, order, ok := strings.Cut(p[3], ":"); ok {
			f.shown = headEntry(f.pair, f.prio, value, order) + name
		}
		k.flows = append(k.flows, f)
	}
	for part := range strings.SplitSeq(strings.TrimSuffix(v[6], ","), ",") {
		if rate, at, ok := strings.Cut(part, "="); ok {
			n, _ := strconv.ParseFloat(at, 64)
			k.rates[rate] = driver.Arrival(n)
		}
	}
	return k, true
}

// headEntry is an entry of heads up to the key.
func headEntry(pair, prio int, value, order string) string {
	v, _ := strconv.ParseUint(value, 10, 64)
	o, _ := strconv.ParseUint(order, 10, 64)
	b := []byte{byte(pair >> 16), byte(pair >> 8), byte(pair), byte(prio)}
	b = append(b, binary.BigEndian.AppendUint64(nil, v)[1:]...)
	return string(append(b, binary.BigEndian.AppendUint64(nil, o)[2:]...))
}

// readShares reads what is kept of shared queues.
func (s *Store) readShares(ctx context.Context, a *snapshot) error {
	for _, queue := range a.sh.known.sharedQueues() {
		q := &sharePart{queue: queue, config: a.sh.known.config(queue), keys: a.sh.shareKeys(queue), texts: map[string]string{},
			flows: map[string][]flowEntry{}, heads: map[string]bool{}, opens: map[string]bool{}, lone: map[string][]string{}}
		a.shares = append(a.shares, q)
		if err := s.scan(ctx, q.keys[0], func(key, text string) { q.texts[key] = text }); err != nil {
			return err
		}
		var err error
		if q.state, err = s.shareState(ctx, a.sh, queue); err != nil {
			return err
		}
		if err := s.sorted(ctx, q.keys[2], func(list []string) { note(q.opens, list) }); err != nil {
			return err
		}
		err = s.sorted(ctx, q.keys[5], func(list []string) {
			note(q.heads, list)
			for _, head := range list {
				if f, ok := parseLone(head); ok {
					q.lone[f.key] = append(q.lone[f.key], head)
					q.flows[f.key] = append(q.flows[f.key], f)
					a.at(f.id, place{letterAvailable, f.pair, q.keys[5], []string{"ZREM", q.keys[5], head}})
				}
			}
		})
		if err != nil {
			return err
		}
		err = s.sorted(ctx, q.keys[4], func(list []string) {
			for _, member := range list {
				f, ok := parseFlow(member)
				if !ok {
					continue
				}
				q.flows[f.key] = append(q.flows[f.key], f)
				a.at(f.id, place{letterAvailable, f.pair, q.keys[4], []string{"ZREM", q.keys[4], member}})
			}
		})
		if err != nil {
			return err
		}
	}
	_, now, err := s.read(ctx, a.sh, nil)
	a.now = now
	return err
}

func note(set map[string]bool, list []string) {
	for _, member := range list {
		set[member] = true
	}
}

func (r *registry) sharedQueues() []string {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return slices.Sorted(maps.Keys(r.shared))
}

// inFlow reports whether an available task is to wait in a flow.
func (a *snapshot) inFlow(id string, r *runRecord) bool {
	if a.tasks[id].key != "" {
		return true
	}
	p := a.sh.byNumber(r.pair)
	return p != nil && a.sh.known.config(p.queue).Order == driver.OrderDeadline
}

// checkShares looks that what is kept of keys is what the records say, that each flow is where claims look or parked for a
// reason, and that the counters are right.
func (a *snapshot) checkShares() {
	for _, q := range a.shares {
		want := a.keysWanted(q)
		names := maps.Clone(want)
		for name := range q.texts {
			if names[name] == nil {
				names[name] = newKeyCounts()
			}
		}
		counters := map[string]int{}
		met := map[string]bool{}
		for name, counts := range names {
			a.checkKey(q, name, counts, counters, met)
		}
		for head := range q.heads {
			if !met[head] {
				a.report("orphan-index", "", "queue "+q.queue+": an entry stands where claims look, which no key knows of").do("ZREM", q.keys[5], head)
			}
		}
		a.checkShareCounters(q, counters)
	}
}

// keyCounts is what the records say of a key.
type keyCounts struct {
	held    map[int]int
	flows   map[[2]int]int // by pair and stored priority
	waiting int
}

func newKeyCounts() *keyCounts { return &keyCounts{held: map[int]int{}, flows: map[[2]int]int{}} }

func (a *snapshot) keysWanted(q *sharePart) map[string]*keyCounts {
	want := map[string]*keyCounts{}
	of := func(name string) *keyCounts {
		if want[name] == nil {
			want[name] = newKeyCounts()
		}
		return want[name]
	}
	for id, t := range a.tasks {
		r, _ := a.run(id)
		p := a.sh.byNumber(r.pair)
		if p == nil || p.queue != q.queue || a.unread[id] {
			continue
		}
		switch {
		case r.state == letterAvailable && a.inFlow(id, &r):
			of(t.key).flows[[2]int{r.pair, r.priority + storedPlain}]++
		case t.key == "":
		case r.state == letterActive:
			if countsHeld(&q.config) {
				of(t.key).held[r.pair]++
			}
		case (r.state == letterScheduled || r.state == letterRetryable) && r.token != 0:
			of(t.key).waiting++
		}
	}
	return want
}

// checkKey compares a key's state with what it should be, and adds up the counters that follow from it.
func (a *snapshot) checkKey(q *sharePart, name string, want *keyCounts, counters map[string]int, met map[string]bool) {
	text, there := q.texts[name]
	k, ok := parseKeyState(name, text)
	if !ok {
		k = &keyState{tag: "0", gen: "0", held: map[int]int{}}
	}
	if !q.held(k.gen) {
		k.held = map[int]int{}
	}
	flows := map[[2]int]int{}
	for _, f := range k.flows {
		flows[[2]int{f.pair, f.prio}] += f.n
		counters["f"+strconv.Itoa(f.pair)] += f.n
		counters["flowing"] += f.n
		if f.shown == "" {
			counters["k"+strconv.Itoa(f.pair)] += f.n
		}
		met[f.shown] = true
	}
	for pair, n := range k.held {
		counters["h"+strconv.Itoa(pair)] += n
	}
	problem := ""
	switch {
	case !maps.Equal(k.held, want.held):
		problem = fmt.Sprintf("active tasks %v, counted %v", want.held, k.held)
	case k.waiting != want.waiting:
		problem = fmt.Sprintf("%d tasks wait for their next attempt, %d are counted", want.waiting, k.waiting)
	case !maps.Equal(flows, want.flows):
		problem = fmt.Sprintf("available tasks %v, counted %v", want.flows, flows)
	case !k.lone && len(q.lone[name]) > 0:
		problem = "a task stands where claims look as if the key had no other"
	default:
		problem = a.checkFlows(q, name, k)
	}
	if problem == "" {
		return
	}
	it := a.report("wrong-key", "", "queue "+q.queue+", key "+strconv.Quote(name)+": "+problem)
	it.expect(q.keys[0], name, text, there)
	for _, head := range q.lone[name] { // all wait in flows until they are looked at
		f, _ := parseLone(head)
		it.do("ZADD", q.keys[4], "0", f.member())
		it.do("ZREM", q.keys[5], head)
	}
	it.do("FLOW", q.keys[0], append(slices.Clone(q.keys[1:]), "R", name, rekeyed(k, want))...)
}

// checkFlows looks that flows are parked exactly if they may not start, and where claims look else. A rate that has just
// opened is dealt with by the next who comes by.
func (a *snapshot) checkFlows(q *sharePart, name string, k *keyState) string {
	if k.lone && !q.heads[k.flows[0].shown] {
		return "its only task is not where claims look"
	}
	if q.state["sweep"] != "" || k.gen != q.state["gen"] && !(k.gen == "0" && q.state["gen"] == "") {
		return "" // it is looked at before anything of it starts
	}
	first := map[flowState]int64{}
	for _, f := range k.flows {
		first[f] = 1 << 62
		for _, e := range q.flows[name] {
			if e.pair == f.pair && e.prio == f.prio {
				first[f] = min(first[f], e.order)
			}
		}
	}
	for _, f := range k.flows {
		if f.shown != "" && !q.heads[f.shown] {
			return "its first task is not where claims look"
		}
		blocked, opens := k.blocks(&q.config, a.typeOf(f.pair), f.pair, name, first[f], first)
		late := opens > 0 && opens <= a.now
		switch {
		case blocked != (f.shown == "") && !late && opens == 0:
			return fmt.Sprintf("its tasks are parked: %v, but may not start: %v", f.shown == "", blocked)
		case f.shown == "" && opens > 0 && !q.opens[name]:
			return "its tasks are parked for a rate, and nobody will look when it opens"
		}
	}
	return ""
}

func (a *snapshot) typeOf(pair int) string {
	if p := a.sh.byNumber(pair); p != nil {
		return p.typ
	}
	return ""
}

// blocks reports whether nothing of a flow may start because of its key, and when the rates let it, which is left to the caller.
func (k *keyState) blocks(c *driver.QueueConfig, typ string, pair int, name string, first int64, all map[flowState]int64) (blocked bool, opens int64) {
	if name == "" {
		return false, 0
	}
	active := 0
	for _, n := range k.held {
		active += n
	}
	if c.Keys.Ordered() {
		if active > 0 || c.Keys == driver.KeysHold && k.waiting > 0 {
			return true, 0
		}
		for _, other := range all {
			if other < first {
				return true, 0
			}
		}
	}
	for i := range c.Limits {
		l := &c.Limits[i]
		if !l.PerKey || l.Type != "" && l.Type != typ {
			continue
		}
		held := active
		if l.Type != "" {
			held = k.held[pair]
		}
		if l.Concurrency > 0 && held >= l.Concurrency {
			return true, 0
		}
		if l.Rate > 0 {
			opens = max(opens, l.Opens(k.rates[l.RateKey()]))
		}
	}
	return false, opens
}

// rekeyed is a key's state with the counts that it should have, all flows parked until they are looked at.
func rekeyed(k *keyState, want *keyCounts) string {
	var held, flows strings.Builder
	for pair, n := range want.held {
		fmt.Fprintf(&held, "%d=%d,", pair, n)
	}
	for f, n := range want.flows {
		fmt.Fprintf(&flows, "%d/%d/%d/,", f[0], f[1], n)
	}
	return strings.Join([]string{k.tag, strconv.Itoa(want.waiting), strconv.FormatInt(k.opens, 10), k.gen, held.String(), flows.String(), k.rest}, " ")
}

func (a *snapshot) checkShareCounters(q *sharePart, want map[string]int) {
	counted := "fk"
	if countsHeld(&q.config) {
		counted += "h"
	}
	for field, text := range q.state {
		if field != "flowing" && (len(field) < 2 || !strings.Contains(counted, field[:1]) || strings.Trim(field[1:], "0123456789") != "") {
			continue
		}
		if n, _ := strconv.Atoi(text); n != want[field] {
			a.report("wrong-counter", "", fmt.Sprintf("queue %s: counter %q is %d, not %d", q.queue, field, n, want[field])).
				do("HINCRBY", q.keys[1], field, strconv.Itoa(want[field]-n))
		}
	}
	for field, n := range want {
		if _, ok := q.state[field]; !ok && n != 0 {
			a.report("wrong-counter", "", fmt.Sprintf("queue %s: counter %q is 0, not %d", q.queue, field, n)).do("HINCRBY", q.keys[1], field, strconv.Itoa(n))
		}
	}
}
