package drivertest

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/waggleq/waggle/driver"
)

var awaitCases = []testCase{
	{"a task that becomes available wakes a waiting worker", awaitEnqueue},
	{"work that was there before the call wakes it at once", awaitThere},
	{"a worker is woken for its own queues and types only", awaitForeign},
	{"a fetch that leaves work behind wakes the next worker", awaitLeftover},
	{"one task wakes one worker, not all", awaitOneTaskOneWorker},
	{"every way in which a task becomes available wakes a worker", awaitAllWays},
	{"a new task that is due sooner than all others wakes a worker", awaitSooner},
	{"a retry or snooze that is due sooner than all others wakes a worker", awaitSoonerSettled},
	{"resuming a queue wakes a worker", awaitResume},
	{"work in a paused queue wakes nobody", awaitPaused},
	{"Await returns nil when Max has passed", awaitMax},
	{"a cancellation wakes the worker that holds the task", awaitControl},
	{"a cancellation asked for before the call wakes it at once", awaitControlThere},
	{"a cancellation that was delivered does not wake again", awaitControlDelivered},
	{"a worker that is not registered does not wait", awaitUnknown},
	{"a task enqueued through another handle wakes a worker", awaitOtherHandle},
	{"a cancellation through another handle wakes its worker", awaitControlOtherHandle},
	{"a fetch that waits claims the task that ends its wait", fetchAwaited},
	{"a fetch that waits does not where there is work", fetchAwaitedThere},
	{"a fetch that waits is over when its time is", fetchAwaitedIdle},
	{"a fetch that waits claims for its own queues and types only", fetchAwaitedForeign},
	{"one task ends the wait of one fetch, not of all", fetchAwaitedOne},
	{"a fetch that waits knows of a queue that is paused or new by then", fetchAwaitedChanges},
	{"a fetch that waits does not for a worker that is not registered", fetchAwaitedUnknown},
	{"what a fetch claimed whose wait was cut short is in Held", fetchAwaitedCut},
}

// moment is the Max of an Await that is expected to find nothing.
const moment = 30 * time.Millisecond

func forWork(worker string, queues ...string) driver.AwaitRequest {
	if len(queues) == 0 {
		queues = []string{driver.DefaultQueue}
	}
	return driver.AwaitRequest{Worker: worker, For: driver.ForWork, Queues: queues}
}

func awaitEnqueue(h *harness) {
	h.register("w")
	done := h.await(forWork("w"))
	h.add(task("a", nil))
	h.wantWoken("after an enqueue", done)
	h.claimOne("w", "a")
}

func awaitThere(h *harness) {
	h.add(task("a", nil))
	h.register("w")
	h.wantWoken("with work there", h.await(forWork("w")))
	h.wantWoken("with work still there", h.await(forWork("w")))
}

// wantIdle runs an Await with a short Max and wants it to last that long: nothing wakes it.
func (h *harness) wantIdle(what string, req driver.AwaitRequest) {
	h.Helper()
	req.Max = moment
	start := time.Now()
	h.must(h.store.Await(h.ctx(), req))
	if took := time.Since(start); took < moment/2 {
		h.Errorf("%s: Await returned after %v, want it to wait for its %v", what, took, moment)
	}
}

func awaitForeign(h *harness) {
	h.add(task("type", func(t *driver.Task) { t.Type = "foreign" }), task("queue", func(t *driver.Task) { t.Queue = "foreign" }))
	h.register("w")
	req := forWork("w")
	req.Types = []string{"t"}
	h.wantIdle("with foreign work there", req)
	done := h.await(req)
	h.add(task("a", nil))
	h.wantWoken("after an enqueue", done)
}

func awaitLeftover(h *harness) {
	h.register("a", "b")
	first, second := h.await(forWork("a")), h.await(forWork("b"))
	h.add(tasks("t", 2)...)
	woken, other := "a", second
	select {
	case err := <-first:
		h.must(err)
	case err := <-second:
		h.must(err)
		woken, other = "b", first
	case <-time.After(patience):
		h.Fatal("nobody woke")
	}
	if res := h.fetch(request(woken, 1)); len(res.Claims) != 1 || !res.More {
		h.Fatalf("got %v and More %v, want one claim and More", claimIDs(res.Claims), res.More)
	}
	h.wantWoken("after a fetch that left work", other)
}

// awaitOneTaskOneWorker counts the fetches of a group of idle workers while tasks come one by one. Were each task to
// wake all workers, they would be tasks × workers.
func awaitOneTaskOneWorker(h *harness) {
	const workers, n = 8, 40
	var fetches atomic.Int64
	done := make(chan string, n)
	ctx, stop := context.WithCancel(h.limit)
	defer stop()
	var wg sync.WaitGroup
	for i := range workers {
		w := fmt.Sprint("w-", i)
		h.register(w)
		wg.Go(func() { h.workUntil(ctx, w, &fetches, done) })
	}
	for _, t := range tasks("a", n) {
		h.add(t)
		select {
		case <-done:
		case <-time.After(patience):
			h.Fatal("a task was not done")
		}
	}
	got := fetches.Load()
	stop()
	wg.Wait()
	limit := int64(2*n + 2*workers)
	if !h.caps.Ordered {
		limit += n // the wake-up follows the task from shard to shard: who looks meanwhile finds it first, and one wakes in vain
	}
	if got > limit {
		h.Errorf("%d workers fetched %d times for %d tasks, want up to %d", workers, got, n, limit)
	}
}

// workUntil runs a worker that waits, fetches one task and completes it, until ctx ends.
func (h *harness) workUntil(ctx context.Context, worker string, fetches *atomic.Int64, done chan<- string) {
	for {
		req := forWork(worker)
		req.Max = patience
		switch err := h.store.Await(ctx, req); {
		case ctx.Err() != nil:
			return
		case err != nil:
			h.Errorf("await: %v", err)
			return
		}
		fetches.Add(1)
		res, err := h.store.Fetch(h.limit, request(worker, 1))
		if err != nil {
			h.Errorf("fetch: %v", err)
			return
		}
		for _, c := range res.Claims {
			errs, err := driver.SettleErrors(h.store.Settle(h.limit, worker, []driver.Settlement{{ID: c.ID, Token: c.Token, Outcome: driver.Complete}}))
			if err != nil || errs[0] != nil {
				h.Errorf("settle: %v %v", err, errs)
				return
			}
			done <- c.ID
		}
	}
}

func awaitAllWays(h *harness) {
	h.register("w", "idle")
	claimed := func(q string) driver.Claim {
		h.add(task(q, func(t *driver.Task) { t.Queue = q }))
		return h.claimOne("w", q, q)
	}
	released := claimed("released")
	discarded := claimed("discarded")
	h.end("w", discarded, driver.Discard)
	h.register("gone")
	h.add(task("unregistered", func(t *driver.Task) { t.Queue = "unregistered" }))
	h.claimOne("gone", "unregistered", "unregistered")
	h.add(task("held", func(t *driver.Task) { t.Queue, t.Hold = "held", true }))
	h.add(task("due", func(t *driver.Task) { t.Queue, t.Delay = "due", time.Minute }))
	for _, c := range []struct {
		queue string
		do    func()
	}{
		{"released", func() { h.end("w", released, driver.Release) }},
		{"discarded", func() { h.applyOK(driver.OpRetry, "discarded") }},
		{"unregistered", func() { h.must(h.store.Unregister(h.ctx(), "gone")) }},
		{"held", func() { h.applyOK(driver.OpRun, "held") }},
		{"due", func() { h.advance(time.Minute); h.maintain() }},
	} {
		done := h.await(forWork("idle", c.queue))
		c.do()
		h.wantWoken(c.queue, done)
	}
}

func awaitSooner(h *harness) {
	h.add(task("later", func(t *driver.Task) { t.Delay = 2 * time.Hour }))
	h.register("w")
	done := h.await(forWork("w"))
	// Whether the Await had begun when this came can't be seen from here: so it comes again, each time sooner.
	for i := range 1000 {
		h.add(task(fmt.Sprint("sooner-", i), func(t *driver.Task) { t.Delay = time.Hour - time.Duration(i)*time.Second }))
		select {
		case err := <-done:
			h.must(err)
			return
		case <-time.After(time.Millisecond):
		}
	}
	h.wantWoken("after sooner tasks", done)
}

// awaitSoonerSettled has tasks settled that are due again, each sooner than those before, until an idle worker wakes.
func awaitSoonerSettled(h *harness) {
	for _, o := range []driver.Outcome{driver.Retry, driver.Snooze} {
		queue := string(o)
		h.register("w-"+queue, "idle-"+queue)
		const n = 100
		list := tasks(queue, n)
		for _, t := range list {
			t.Queue = queue
		}
		h.add(list...)
		claims := h.fetch(request("w-"+queue, n, queue)).Claims
		for h.fetch(request("idle-"+queue, 1, queue)).More { // until no shard is left to be asked
		}
		done := h.await(forWork("idle-"+queue, queue))
		woken := false
		for i, c := range claims {
			h.endWith("w-"+queue, driver.Settlement{ID: c.ID, Token: c.Token, Outcome: o, Delay: time.Hour - time.Duration(i)*time.Minute/2})
			select {
			case err := <-done:
				h.must(err)
				woken = true
			case <-time.After(time.Millisecond):
			}
			if woken {
				break
			}
		}
		if !woken {
			h.wantWoken("after "+queue, done)
		}
	}
}

func awaitResume(h *harness) {
	h.setQueue(driver.DefaultQueue, driver.QueuePatch{Paused: new(true)})
	h.add(task("a", nil))
	h.register("w")
	done := h.await(forWork("w"))
	h.setQueue(driver.DefaultQueue, driver.QueuePatch{Paused: new(false)})
	h.wantWoken("after resuming", done)
	h.claimOne("w", "a")
}

func awaitPaused(h *harness) {
	h.setQueue(driver.DefaultQueue, driver.QueuePatch{Paused: new(true)})
	h.add(task("a", nil))
	h.register("w")
	h.wantIdle("with work in a paused queue", forWork("w"))
}

func awaitMax(h *harness) {
	h.register("w")
	h.wantIdle("for work", forWork("w"))
	h.wantIdle("for control", driver.AwaitRequest{Worker: "w", For: driver.ForControl})
}

func awaitControl(h *harness) {
	c := h.running("w", "a")
	done := h.await(driver.AwaitRequest{Worker: "w", For: driver.ForControl})
	h.applyOK(driver.OpCancel, "a")
	h.wantWoken("after a cancel", done)
	if res := h.heartbeat("w"); len(res.Cancels) != 1 || res.Cancels[0] != (driver.Ref{ID: "a", Token: c.Token}) {
		h.Errorf("the heartbeat delivers %v", res.Cancels)
	}
}

func awaitControlThere(h *harness) {
	h.running("w", "a")
	h.applyOK(driver.OpCancel, "a")
	h.wantWoken("with a cancellation there", h.await(driver.AwaitRequest{Worker: "w", For: driver.ForControl}))
}

func awaitControlDelivered(h *harness) {
	h.running("w", "a")
	h.applyOK(driver.OpCancel, "a")
	h.heartbeat("w")
	h.wantIdle("after the delivery", driver.AwaitRequest{Worker: "w", For: driver.ForControl})
	h.add(task("b", nil))
	h.claimOne("w", "b")
	done := h.await(driver.AwaitRequest{Worker: "w", For: driver.ForControl})
	h.applyOK(driver.OpCancel, "b")
	h.wantWoken("after another cancel", done)
}

func awaitUnknown(h *harness) {
	h.register("w")
	h.must(h.store.Unregister(h.ctx(), "w"))
	for _, worker := range []string{"nobody", "w"} {
		for _, what := range []driver.AwaitFor{driver.ForWork, driver.ForControl} {
			err := h.store.Await(h.ctx(), driver.AwaitRequest{Worker: worker, For: what, Queues: []string{"default"}, Max: patience})
			h.wantErr(fmt.Sprintf("await of %s for %d", worker, what), err, driver.ErrLeaseLost)
		}
	}
}

func awaitOtherHandle(h *harness) {
	other := h.reopen()
	h.register("w")
	for i := range 5 {
		done := h.await(forWork("w"))
		id := fmt.Sprint("a-", i)
		other.add(task(id, nil))
		h.wantWoken("after an enqueue elsewhere", done)
		h.end("w", h.claimOne("w", id), driver.Complete)
	}
}

func awaitControlOtherHandle(h *harness) {
	other := h.reopen()
	h.running("w", "a")
	done := h.await(driver.AwaitRequest{Worker: "w", For: driver.ForControl})
	other.applyOK(driver.OpCancel, "a")
	h.wantWoken("after a cancel elsewhere", done)
	if res := h.heartbeat("w"); len(res.Cancels) != 1 {
		h.Errorf("the heartbeat delivers %v", res.Cancels)
	}
}
