package drivertest

import (
	"fmt"
	"strings"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/waggleq/waggle/driver"
)

var fairCases = withKeys([]testCase{
	{"a lone key starts next beside a backlog", fairLone},
	{"keys share by their weights", fairWeights},
	{"the tasks of a key come in the order of enqueueing", fairFIFO},
	{"priorities are above fairness", fairPriority},
	{"tasks without a key are one more key", fairPlain},
	{"tasks that waited before the first key came share too", fairPlainBefore},
	{"one key alone gets everything", fairAlone},
	{"types of a queue share a key's turn", fairTypes},
	{"a type that nobody served does not go ahead of all others", fairNeglected},
	{"a task that was given back is next again", fairReturned},
	{"a retried task goes to the end of its key", fairRetried},
	{"keys and weights come back in claims and records", fairRoundTrip},
	{"bad keys and weights are refused", fairInvalid},
	{"by deadline: the first deadline comes first", deadlineFirst},
	{"by deadline: priorities come before", deadlinePriority},
	{"by deadline: keys at their limit are passed by", deadlineLimited},
	{"an order can be changed only while nothing is available", orderChanged},
	{"orders that don't exist are refused", orderInvalid},
})

// withKeys leaves tests out on engines without keys.
func withKeys(cases []testCase) []testCase {
	return offered(cases, "keys", func(c driver.Capabilities) bool { return c.Keys })
}

func offered(cases []testCase, what string, has func(driver.Capabilities) bool) []testCase {
	for i, c := range cases {
		cases[i].run = func(h *harness) {
			if !has(h.caps) {
				h.Skipf("the %s store does not offer %s", h.caps.Engine, what)
			}
			c.run(h)
		}
	}
	return cases
}

// key returns a key for tasks that are to be ordered among others: all that it returns live in the shard of near's ids.
func (h *harness) key(name string) string {
	if h.caps.Ordered {
		return name
	}
	for i := 0; ; i++ {
		if other := fmt.Sprintf("%s.%d", name, i); h.fixture.KeyShard(other) == 0 {
			return other
		}
	}
}

// keyed returns n tasks prefix-000, … with a key.
func (h *harness) keyed(prefix, key string, n int, edits ...func(*driver.Task)) []*driver.Task {
	list := h.line(prefix, n)
	for _, t := range list {
		if key != "" {
			t.Key = h.key(key)
		}
		for _, edit := range edits {
			edit(t)
		}
	}
	return list
}

func weigh(w int) func(*driver.Task)       { return func(t *driver.Task) { t.Weight = w } }
func ofType(typ string) func(*driver.Task) { return func(t *driver.Task) { t.Type = typ } }

// prefixes tells whose turns a line of claims was, by the prefixes of their ids.
func prefixes(claims []driver.Claim) string {
	var turns []string
	for _, c := range claims {
		prefix, _, _ := strings.Cut(c.ID, "-")
		turns = append(turns, prefix)
	}
	return strings.Join(turns, " ")
}

func (h *harness) wantTurns(what, want string, claims []driver.Claim) {
	h.Helper()
	if got := prefixes(claims); got != want {
		h.Errorf("%s: the turns were %q, want %q", what, got, want)
	}
}

func fairLone(h *harness) {
	h.add(h.keyed("big", "big", 500)...)
	h.register("w")
	h.claim("w", 5)
	h.add(h.keyed("lone", "lone", 1)...)
	h.wantTurns("after the lone key came", "lone big", h.claim("w", 2))
}

func fairWeights(h *harness) {
	for i, name := range []string{"a", "b", "c"} {
		h.add(h.keyed(name, name, 100, weigh(i+1))...)
	}
	h.register("w")
	count := map[string]int{}
	for range 12 {
		for _, c := range h.claim("w", 10) {
			count[c.ID[:1]]++
		}
	}
	for i, name := range []string{"a", "b", "c"} {
		if want := 20 * (i + 1); count[name] < want-1 || count[name] > want+1 {
			h.Errorf("of 120 claims %d were of key %s with weight %d, want %d", count[name], name, i+1, want)
		}
	}
}

func fairFIFO(h *harness) {
	list := h.keyed("a", "a", 5)
	h.add(list...)
	h.register("w")
	h.wantOrder("w", idsOf(list))
}

func fairPriority(h *harness) {
	h.add(h.keyed("low", "a", 2)...)
	h.add(h.keyed("high", "b", 3, func(t *driver.Task) { t.Priority = -1 })...)
	h.register("w")
	h.wantTurns("with a priority", "high high high low low", h.claim("w", 10))
}

func fairPlain(h *harness) {
	h.add(h.keyed("key", "a", 3)...)
	h.add(h.line("plain", 3)...)
	h.register("w")
	h.wantTurns("with and without a key", "key plain key plain key plain", h.claim("w", 10))
}

func fairPlainBefore(h *harness) {
	h.add(h.line("plain", 20)...)
	h.register("w")
	h.claim("w", 10)
	h.add(h.keyed("key", "a", 3)...)
	got := prefixes(h.claim("w", 6))
	if strings.Count(got, "key") != 3 {
		h.Errorf("the turns were %q, want as many with a key as without", got)
	}
}

func fairAlone(h *harness) {
	list := h.keyed("a", "a", 50)
	h.add(list...)
	h.register("w")
	h.wantOrder("w", idsOf(list))
}

func fairTypes(h *harness) {
	h.add(h.keyed("x", "a", 4, ofType("x"))...)
	h.add(h.keyed("y", "a", 4, ofType("y"))...)
	h.add(h.keyed("b", "b", 4, ofType("x"))...)
	h.register("w")
	got := prefixes(h.claim("w", 8))
	if n := strings.Count(got, "b"); n != 4 {
		h.Errorf("the turns were %q: key b had %d of 8 beside a key with two types", got, n)
	}
}

func fairNeglected(h *harness) {
	h.add(h.keyed("old", "a", 30, ofType("y"))...)
	h.add(h.keyed("x", "b", 40, ofType("x"))...)
	h.register("w")
	req := request("w", 30)
	req.Types = []string{"x"}
	h.fetch(req)
	got := prefixes(h.claim("w", 10))
	if n := strings.Count(got, "old"); n < 4 || n > 6 {
		h.Errorf("the turns were %q, want as many of the type that nobody served as of the other", got)
	}
}

func fairReturned(h *harness) {
	h.add(h.keyed("a", "a", 3)...)
	h.add(h.keyed("b", "b", 3)...)
	h.register("w", "x")
	claims := h.claim("w", 3)
	h.wantTurns("at first", "a b a", claims)
	h.end("w", claims[0], driver.Release)
	again := h.claim("x", 4)
	if again[0].ID != claims[0].ID {
		h.Errorf("after a release %s was given, want %s again", again[0].ID, claims[0].ID)
	}
	h.must(h.store.Unregister(h.ctx(), "x"))
	if again := h.claim("w", 10); len(again) != 4 {
		h.Errorf("after its worker left %d tasks were given, want 4", len(again))
	}
}

func fairRetried(h *harness) {
	list := h.keyed("a", "a", 3)
	h.add(list...)
	h.register("w")
	c := h.claimOne("w", list[0].ID)
	h.end("w", c, driver.Retry)
	h.wantOrder("w", []string{list[1].ID, list[2].ID, list[0].ID})
}

func fairRoundTrip(h *harness) {
	h.add(task("a", func(t *driver.Task) { t.Key, t.Weight = "tenant:7", 12 }))
	h.register("w")
	if c := h.claimOne("w", "a"); c.Key != "tenant:7" || c.Weight != 12 {
		h.Errorf("the claim has key %q and weight %d", c.Key, c.Weight)
	}
	if r := h.get("a"); r.Key != "tenant:7" || r.Weight != 12 {
		h.Errorf("the record has key %q and weight %d", r.Key, r.Weight)
	}
}

func fairInvalid(h *harness) {
	for name, edit := range map[string]func(*driver.Task){
		"a key with spaces":    func(t *driver.Task) { t.Key = "a b" },
		"a key of a megabyte":  func(t *driver.Task) { t.Key = strings.Repeat("k", 1<<20) },
		"a negative weight":    func(t *driver.Task) { t.Key, t.Weight = "a", -1 },
		"a weight of 1001":     func(t *driver.Task) { t.Key, t.Weight = "a", 1001 },
		"a weight without key": func(t *driver.Task) { t.Weight = 2 },
	} {
		r := h.enqueue(task("bad", edit))[0]
		h.wantErr(name, r.Err, driver.ErrInvalid)
		if r.Err != nil && len(r.Err.Error()) > 500 {
			h.Errorf("%s: the error has %d bytes", name, len(r.Err.Error()))
		}
	}
	if n := len(h.listAll(driver.Filter{})); n != 0 {
		h.Errorf("%d tasks are stored, want none", n)
	}
}

// setOrder makes the default queue go by deadlines.
func (h *harness) byDeadline() {
	h.Helper()
	h.setQueue(driver.DefaultQueue, driver.QueuePatch{Order: new(driver.OrderDeadline)})
}

func expiresIn(d time.Duration) func(*driver.Task) {
	return func(t *driver.Task) { t.ExpiresIn = d }
}

func deadlineFirst(h *harness) {
	h.byDeadline()
	h.add(h.keyed("never", "", 2)...)
	h.add(h.keyed("late", "k", 2, expiresIn(3*time.Hour))...)
	h.add(h.keyed("soon", "", 1, expiresIn(time.Hour))...)
	h.add(h.keyed("mid", "j", 1, expiresIn(2*time.Hour))...)
	h.register("w")
	claims := h.claim("w", 10)
	h.wantTurns("by deadline", "soon mid late late never never", claims)
	h.end("w", claims[0], driver.Retry)
	h.end("w", claims[4], driver.Release)
	h.wantTurns("after a retry and a release", "soon never", h.claim("w", 10))
}

func deadlinePriority(h *harness) {
	h.byDeadline()
	h.add(h.keyed("soon", "", 1, expiresIn(time.Hour))...)
	h.add(h.keyed("first", "", 1, func(t *driver.Task) { t.Priority = -5 })...)
	h.register("w")
	h.wantTurns("with a priority", "first soon", h.claim("w", 10))
}

func deadlineLimited(h *harness) {
	if !h.caps.Limits {
		h.Skip("there are no limits")
	}
	h.byDeadline()
	h.limit1(driver.Limit{PerKey: true, Concurrency: 1})
	h.add(h.keyed("soon", "k", 2, expiresIn(time.Hour))...)
	h.add(h.keyed("late", "j", 1, expiresIn(2*time.Hour))...)
	h.register("w")
	claims := h.claim("w", 10)
	h.wantTurns("with a limit", "soon late", claims)
	h.end("w", claims[0], driver.Complete)
	h.wantTurns("once it is free", "soon", h.claim("w", 10))
}

func orderChanged(h *harness) {
	h.add(task("a", nil))
	_, err := h.store.SetQueue(h.ctx(), driver.DefaultQueue, driver.QueuePatch{Paused: new(true), Order: new(driver.OrderDeadline)})
	h.wantErr("a new order with a task available", err, driver.ErrState)
	if c := h.queue(driver.DefaultQueue).Config; c.Paused || c.Order != "" {
		h.Errorf("the refused patch changed the queue: %+v", c)
	}
	h.setQueue(driver.DefaultQueue, driver.QueuePatch{Order: new(driver.OrderFair)})
	h.register("w")
	h.end("w", h.claimOne("w", "a"), driver.Complete)
	h.byDeadline()
	h.setQueue(driver.DefaultQueue, driver.QueuePatch{Order: new(driver.OrderFair)})
}

func orderInvalid(h *harness) {
	for name, patch := range map[string]driver.QueuePatch{
		"an unknown order":   {Order: new(driver.Order("random"))},
		"an unknown mode":    {Keys: new(driver.KeyMode("some"))},
		"both of the orders": {Order: new(driver.OrderDeadline), Keys: new(driver.KeysHold)},
	} {
		_, err := h.store.SetQueue(h.ctx(), "q", patch)
		h.wantErr(name, err, driver.ErrInvalid)
	}
	list, err := h.store.Queues(h.ctx())
	h.must(err)
	if diff := cmp.Diff(0, len(list)); diff != "" {
		h.Errorf("queues (-want +got):\n%s", diff)
	}
}
