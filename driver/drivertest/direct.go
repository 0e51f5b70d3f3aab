package drivertest

import "github.com/waggleq/waggle/driver"

func (h *harness) wantDirective(worker string, want driver.Directive) {
	h.Helper()
	if got := h.heartbeat(worker).Directive; got != want {
		h.Errorf("the heartbeat of %s delivers %q, want %q", worker, got, want)
	}
	if got := h.workers()[worker].Directive; got != want {
		h.Errorf("%s is listed with %q, want %q", worker, got, want)
	}
}

func directDelivered(h *harness) {
	h.register("w")
	h.register("other")
	h.wantDirective("w", driver.DirectServe)
	for _, d := range []driver.Directive{driver.DirectQuiet, driver.DirectQuiet, driver.DirectServe, driver.DirectStop} {
		h.must(h.store.Direct(h.ctx(), "w", d))
		h.wantDirective("w", d)
		h.wantDirective("w", d) // not just once
	}
	h.wantDirective("other", driver.DirectServe)
	h.register("w") // again: the same life
	h.wantDirective("w", driver.DirectStop)
	// The store does nothing about it itself.
	h.add(task("a", nil))
	h.end("w", h.claimOne("w", "a"), driver.Complete)
}

func directStop(h *harness) {
	h.register("w")
	h.must(h.store.Direct(h.ctx(), "w", driver.DirectStop))
	h.wantErr("quiet after stop", h.store.Direct(h.ctx(), "w", driver.DirectQuiet), driver.ErrState)
	h.wantErr("serve after stop", h.store.Direct(h.ctx(), "w", driver.DirectServe), driver.ErrState)
	h.must(h.store.Direct(h.ctx(), "w", driver.DirectStop))
	h.wantDirective("w", driver.DirectStop)
}

func directRefused(h *harness) {
	h.wantErr("nobody", h.store.Direct(h.ctx(), "nobody", driver.DirectQuiet), driver.ErrNotFound)
	h.wantErr("no id", h.store.Direct(h.ctx(), "", driver.DirectQuiet), driver.ErrNotFound)
	h.wantErr("a bad id", h.store.Direct(h.ctx(), "a b", driver.DirectQuiet), driver.ErrNotFound)
	h.register("w")
	h.wantErr("an unknown directive", h.store.Direct(h.ctx(), "w", "dance"), driver.ErrInvalid)
	h.wantDirective("w", driver.DirectServe)
}

func directEnds(h *harness) {
	h.register("left")
	h.register("lost")
	for _, w := range []string{"left", "lost"} {
		h.must(h.store.Direct(h.ctx(), w, driver.DirectQuiet))
	}
	h.must(h.store.Unregister(h.ctx(), "left"))
	h.lose()
	for _, w := range []string{"left", "lost"} {
		h.wantErr("after its life: "+w, h.store.Direct(h.ctx(), w, driver.DirectQuiet), driver.ErrNotFound)
	}
	h.register("next")
	h.wantDirective("next", driver.DirectServe)
}

func directWakes(h *harness) {
	h.register("w")
	h.register("other")
	control := driver.AwaitRequest{Worker: "w", For: driver.ForControl}
	for _, d := range []driver.Directive{driver.DirectQuiet, driver.DirectServe} {
		done := h.await(control)
		h.must(h.store.Direct(h.ctx(), "w", d))
		h.wantWoken("after a directive", done)
		h.wantWoken("before it was delivered", h.await(control))
		h.wantDirective("w", d)
		h.wantIdle("after the delivery", control)
	}
	h.must(h.store.Direct(h.ctx(), "w", driver.DirectQuiet))
	h.wantIdle("of another worker", driver.AwaitRequest{Worker: "other", For: driver.ForControl})
}

func directOtherHandle(h *harness) {
	other := h.reopen()
	h.register("w")
	done := h.await(driver.AwaitRequest{Worker: "w", For: driver.ForControl})
	h.must(other.store.Direct(h.ctx(), "w", driver.DirectQuiet))
	h.wantWoken("after a directive elsewhere", done)
	h.wantDirective("w", driver.DirectQuiet)
}
