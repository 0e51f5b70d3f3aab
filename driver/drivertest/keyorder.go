package drivertest

import (
	"time"

	"github.com/waggleq/waggle/driver"
)

var keyOrderCases = withKeys([]testCase{
	{"one task of a key at a time, in the order of enqueueing", orderedOne},
	{"across types", orderedTypes},
	{"tasks of other keys and without one go on", orderedOthers},
	{"a task that waits for its retry holds its key", func(h *harness) { orderedWaits(h, driver.KeysHold, driver.Retry) }},
	{"a snoozed task holds its key", func(h *harness) { orderedWaits(h, driver.KeysHold, driver.Snooze) }},
	{"a task that waits for its retry lets its key pass", func(h *harness) { orderedWaits(h, driver.KeysPass, driver.Retry) }},
	{"a snoozed task lets its key pass", func(h *harness) { orderedWaits(h, driver.KeysPass, driver.Snooze) }},
	{"a crash keeps the order", orderedCrash},
	{"a release keeps the order", orderedRelease},
	{"a task that is not due is passed by, and takes its place then", orderedDelayed},
	{"a waiting task that is cancelled or deleted frees its key", orderedCancelled},
	{"turning it on and off holds at once", orderedSwitched},
	{"a priority beside a key is refused", orderedPriority},
})

func (h *harness) orderKeys(mode driver.KeyMode) {
	h.Helper()
	h.setQueue(driver.DefaultQueue, driver.QueuePatch{Keys: &mode})
}

// wantOnly claims all it can, and wants one task.
func (h *harness) wantOnly(what, worker, id string) driver.Claim {
	h.Helper()
	claims := h.claim(worker, 1000)
	if len(claims) != 1 || claims[0].ID != id {
		h.Fatalf("%s: got %v, want %s alone", what, claimIDs(claims), id)
	}
	return claims[0]
}

func orderedOne(h *harness) {
	h.orderKeys(driver.KeysHold)
	list := h.keyed("a", "a", 4)
	h.add(list...)
	h.register("v", "w")
	for i, t := range list {
		w := []string{"v", "w"}[i%2]
		c := h.wantOnly("in turn", w, t.ID)
		h.wantGot("while one is active", w, 0)
		h.end(w, c, driver.Complete)
	}
}

func orderedTypes(h *harness) {
	h.orderKeys(driver.KeysHold)
	list := h.keyed("a", "a", 3)
	list[0].Type, list[1].Type = "x", "y"
	h.add(list...)
	h.register("w")
	req := request("w", 10)
	req.Types = []string{"y", "t"}
	if res := h.fetch(req); len(res.Claims) != 0 || res.More {
		h.Errorf("of later types %v were given, More is %v", claimIDs(res.Claims), res.More)
	}
	for _, t := range list {
		h.end("w", h.wantOnly("in turn", "w", t.ID), driver.Complete)
	}
}

func orderedOthers(h *harness) {
	h.orderKeys(driver.KeysPass)
	h.add(h.keyed("a", "a", 3)...)
	h.add(h.keyed("b", "b", 3)...)
	h.add(h.keyed("plain", "", 3, func(t *driver.Task) { t.Priority = 1 })...)
	h.register("w")
	h.wantGot("one a key and all without", "w", 5)
	if n := h.queue(driver.DefaultQueue).Parked; n != 4 {
		h.Errorf("%d tasks are parked, want 4", n)
	}
}

func orderedWaits(h *harness, mode driver.KeyMode, o driver.Outcome) {
	h.orderKeys(mode)
	list := h.keyed("a", "a", 3)
	h.add(list...)
	h.register("w")
	c := h.wantOnly("at first", "w", list[0].ID)
	h.endWith("w", driver.Settlement{ID: c.ID, Token: c.Token, Outcome: o, Delay: time.Hour})
	if mode == driver.KeysHold {
		h.wantGot("while the first waits", "w", 0)
	} else {
		h.end("w", h.wantOnly("while the first waits", "w", list[1].ID), driver.Complete)
	}
	h.advance(time.Hour + time.Second)
	h.register("x")
	h.end("x", h.wantOnly("the first again", "x", list[0].ID), driver.Complete)
	if mode == driver.KeysHold {
		h.end("x", h.wantOnly("the second", "x", list[1].ID), driver.Complete)
	}
	h.end("x", h.wantOnly("the third", "x", list[2].ID), driver.Complete)
}

func orderedCrash(h *harness) {
	h.orderKeys(driver.KeysPass)
	list := h.keyed("a", "a", 2)
	h.add(list...)
	h.register("w")
	h.wantOnly("at first", "w", list[0].ID)
	h.lose()
	h.register("x")
	h.end("x", h.wantOnly("after the crash", "x", list[0].ID), driver.Complete)
	h.wantOnly("then", "x", list[1].ID)
}

func orderedRelease(h *harness) {
	h.orderKeys(driver.KeysHold)
	list := h.keyed("a", "a", 2)
	h.add(list...)
	h.register("w", "x")
	h.end("w", h.wantOnly("at first", "w", list[0].ID), driver.Release)
	h.wantOnly("after the release", "x", list[0].ID)
	h.must(h.store.Unregister(h.ctx(), "x"))
	h.wantOnly("after the worker left", "w", list[0].ID)
}

func orderedDelayed(h *harness) {
	h.orderKeys(driver.KeysHold)
	list := h.keyed("a", "a", 3)
	list[0].Delay, list[1].Hold = lease/2, true
	h.add(list...)
	h.register("w")
	c := h.wantOnly("before", "w", list[2].ID)
	h.advance(lease/2 + time.Second)
	h.applyOK(driver.OpRun, list[1].ID)
	h.register("x")
	h.wantGot("while one is active", "x", 0)
	h.end("w", c, driver.Complete)
	h.end("x", h.wantOnly("the first", "x", list[0].ID), driver.Complete)
	h.end("x", h.wantOnly("the second", "x", list[1].ID), driver.Complete)
}

func orderedCancelled(h *harness) {
	h.orderKeys(driver.KeysHold)
	list := h.keyed("a", "a", 3)
	h.add(list...)
	h.register("w")
	for i, op := range []driver.Op{driver.OpCancel, driver.OpDelete} {
		c := h.wantOnly("in turn", "w", list[i].ID)
		h.endWith("w", driver.Settlement{ID: c.ID, Token: c.Token, Outcome: driver.Retry, Delay: time.Hour})
		h.wantGot("while it waits", "w", 0)
		h.applyOK(op, c.ID)
	}
	h.wantOnly("in the end", "w", list[2].ID)
}

func orderedSwitched(h *harness) {
	list := h.keyed("a", "a", 6)
	h.add(list...)
	h.register("w")
	first := h.claim("w", 2)
	h.orderKeys(driver.KeysHold)
	h.wantGot("with two active", "w", 0)
	h.end("w", first[1], driver.Complete)
	h.wantGot("with one active", "w", 0)
	h.endWith("w", driver.Settlement{ID: first[0].ID, Token: first[0].Token, Outcome: driver.Retry, Delay: time.Hour})
	h.wantGot("with one that waits", "w", 0)
	h.orderKeys(driver.KeysPass)
	h.wantOnly("when it may be passed", "w", list[2].ID)
	h.orderKeys(driver.KeysFree)
	h.wantGot("when keys are free", "w", 3)
}

func orderedPriority(h *harness) {
	h.orderKeys(driver.KeysHold)
	r := h.enqueue(task("a", func(t *driver.Task) { t.Key, t.Priority = "k", 1 }), task("b", func(t *driver.Task) { t.Priority = 1 }))
	h.wantErr("a key and a priority", r[0].Err, driver.ErrInvalid)
	h.wantErr("a priority alone", r[1].Err, nil)
	if h.find("a") != nil {
		h.Error("the refused task is stored")
	}
}
