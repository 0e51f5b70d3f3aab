package drivertest

import (
	"context"
	"fmt"
	"time"

	"github.com/waggleq/waggle/driver"
)

// awaited is how a fetch that waited has ended.
type awaited struct {
	*driver.FetchResult
	worker string
	err    error
	took   time.Duration
}

// fetchLater runs a fetch that waits, in its own goroutine.
func (h *harness) fetchLater(ctx context.Context, req driver.FetchRequest) <-chan awaited {
	if req.Wait == 0 {
		req.Wait = 2 * patience
	}
	done := make(chan awaited, 1)
	began := time.Now()
	go func() {
		res, err := h.store.Fetch(ctx, req)
		done <- awaited{res, req.Worker, err, time.Since(began)}
	}()
	return done
}

// wantClaims waits for the end of a fetch and wants these claims of it.
func (h *harness) wantClaims(what string, done <-chan awaited, ids ...string) awaited {
	h.Helper()
	select {
	case got := <-done:
		h.must(got.err)
		if fmt.Sprint(claimIDs(got.Claims)) != fmt.Sprint(ids) {
			h.Errorf("%s: got the claims %v, want %v", what, claimIDs(got.Claims), ids)
		}
		if got.Waited > got.took {
			h.Errorf("%s: it says that it waited for %v, and took %v", what, got.Waited, got.took)
		}
		return got
	case <-time.After(patience):
		h.Fatalf("%s: Fetch did not return", what)
		return awaited{}
	}
}

func fetchAwaited(h *harness) {
	h.register("w")
	other := h.reopen()
	for i, from := range []*harness{h, other, h, other, h} {
		done := h.fetchLater(h.limit, request("w", 10))
		id := fmt.Sprint("a-", i)
		from.add(task(id, nil))
		h.end("w", h.firstClaim(done, request("w", 10), id), driver.Complete)
	}
}

func fetchAwaitedThere(h *harness) {
	h.add(task("a", nil))
	h.register("w")
	h.wantClaims("with work there", h.fetchLater(h.limit, request("w", 10)), "a")
}

func fetchAwaitedIdle(h *harness) {
	h.register("w")
	before := h.workers()["w"].LeaseEnd
	req := request("w", 10)
	req.Wait = moment
	got := h.wantClaims("with nothing there", h.fetchLater(h.limit, req))
	if got.took < moment/2 {
		h.Errorf("Fetch returned after %v, want it to wait for its %v", got.took, moment)
	}
	if !h.caps.Ordered {
		return
	}
	// It may leave the lease alone, but must say so.
	end := h.workers()["w"].LeaseEnd
	if !got.LeaseEnd.IsZero() && !end.Equal(got.LeaseEnd) || got.LeaseEnd.IsZero() && !end.Equal(before) {
		h.Errorf("the lease ended at %v, Fetch said %v, and now it ends at %v", before, got.LeaseEnd, end)
	}
}

func fetchAwaitedForeign(h *harness) {
	h.add(task("type", func(t *driver.Task) { t.Type = "foreign" }), task("queue", func(t *driver.Task) { t.Queue = "foreign" }))
	h.register("w")
	req := request("w", 10)
	req.Types, req.Wait = []string{"t"}, moment
	h.wantClaims("with foreign work there", h.fetchLater(h.limit, req))
	req.Wait = 0
	done := h.fetchLater(h.limit, req)
	h.add(task("a", nil))
	h.firstClaim(done, req, "a")
}

// fetchAwaitedOne counts the waits of a group of idle workers that end in vain while tasks come one by one. Were each task
// to end all waits, they would be tasks × workers.
func fetchAwaitedOne(h *harness) {
	const workers, n = 8, 20
	ctx, stop := context.WithCancel(h.limit)
	defer stop()
	ended := make(chan awaited, workers)
	again := func(worker string) {
		go func() { ended <- <-h.fetchLater(ctx, request(worker, 1)) }()
	}
	for i := range workers {
		h.register(fmt.Sprint("w-", i))
		again(fmt.Sprint("w-", i))
	}
	vain := 0
	for i := range n {
		id := fmt.Sprint("t-", i)
		h.add(task(id, nil))
		for claimed := false; !claimed; {
			select {
			case got := <-ended:
				h.must(got.err)
				if len(got.Claims) == 0 {
					vain++
				}
				for _, c := range got.Claims {
					claimed = claimed || c.ID == id
					h.end(got.worker, c, driver.Complete)
				}
				again(got.worker)
			case <-time.After(patience):
				h.Fatalf("nobody got %s", id)
			}
		}
	}
	limit := n + 2*workers // as in awaitOneTaskOneWorker, with what was claimed left out
	if !h.caps.Ordered {
		limit += n
	}
	if vain > limit {
		h.Errorf("%d tasks ended %d waits in vain, want up to %d", n, vain, limit)
	}
}

func fetchAwaitedChanges(h *harness) {
	h.setQueue("paused", driver.QueuePatch{Paused: new(false)})
	h.register("w")
	req := request("w", 10, "paused", "new", "resumed")
	done := h.fetchLater(h.limit, req)
	h.setQueue("paused", driver.QueuePatch{Paused: new(true)})
	h.add(task("p", func(t *driver.Task) { t.Queue = "paused" }))
	h.add(task("n", func(t *driver.Task) { t.Queue, t.Type = "new", "new-type" }))
	var claims []driver.Claim
	for got := range h.fetches(done, req) {
		if claims = append(claims, got.Claims...); len(claims) > 0 {
			break // one that was woken for the paused task has found nothing
		}
	}
	if fmt.Sprint(claimIDs(claims)) != "[n]" {
		h.Errorf("got %v, want the task of the new queue", claimIDs(claims))
	}
	done = h.fetchLater(h.limit, req)
	h.setQueue("paused", driver.QueuePatch{Paused: new(false)})
	for got := range h.fetches(done, req) {
		if len(got.Claims) > 0 {
			break
		}
	}
	h.wantState(driver.Active, "p", "n")
}

// firstClaim waits for the claim of one task by a fetch under way. With several shards its wait may end in vain before.
func (h *harness) firstClaim(done <-chan awaited, req driver.FetchRequest, id string) driver.Claim {
	h.Helper()
	for got := range h.fetches(done, req) {
		if len(got.Claims) > 0 || h.caps.Ordered {
			if fmt.Sprint(claimIDs(got.Claims)) != fmt.Sprint([]string{id}) {
				h.Fatalf("after an enqueue: got the claims %v, want %s", claimIDs(got.Claims), id)
			}
			return got.Claims[0]
		}
	}
	h.Fatalf("fetch after fetch ends its wait and has no claim, want %s", id)
	return driver.Claim{}
}

// fetches yields the results of a fetch under way and of those after it.
func (h *harness) fetches(done <-chan awaited, req driver.FetchRequest) func(yield func(awaited) bool) {
	return func(yield func(awaited) bool) {
		for range 5 {
			select {
			case got := <-done:
				h.must(got.err)
				if !yield(got) {
					return
				}
			case <-time.After(patience):
				h.Fatal("Fetch did not return")
			}
			done = h.fetchLater(h.limit, req)
		}
	}
}

func fetchAwaitedUnknown(h *harness) {
	h.register("w")
	h.must(h.store.Unregister(h.ctx(), "w"))
	for _, worker := range []string{"nobody", "w"} {
		got := <-h.fetchLater(h.limit, request(worker, 1))
		h.wantErr("the fetch of "+worker, got.err, driver.ErrLeaseLost)
	}
}

// fetchAwaitedCut ends the waits of fetches in the moment in which there is something to claim. Whatever has become of it,
// the worker can find out.
func fetchAwaitedCut(h *harness) {
	h.register("w")
	for i := range 40 {
		ctx, cancel := context.WithCancel(h.limit)
		done := h.fetchLater(ctx, request("w", 1))
		go cancel()
		id := fmt.Sprint("a-", i)
		h.add(task(id, nil))
		var got awaited
		select {
		case got = <-done:
		case <-time.After(patience):
			h.Fatal("Fetch did not return")
		}
		if got.err != nil {
			h.wantErr("a fetch whose wait was cut short", got.err, context.Canceled)
		}
		h.settleWhatItHolds("w", id)
	}
}

// settleWhatItHolds completes a task that is either held by a worker, as Held tells, or still to be claimed.
func (h *harness) settleWhatItHolds(worker, id string) {
	h.Helper()
	for limit := time.Now().Add(patience); time.Now().Before(limit); {
		claims, err := h.store.Held(h.ctx(), worker)
		h.must(err)
		if len(claims) == 0 {
			claims = h.fetch(request(worker, 1)).Claims
		}
		if len(claims) == 0 {
			continue // a request that was given up may still be under way
		}
		if fmt.Sprint(claimIDs(claims)) != fmt.Sprint([]string{id}) {
			h.Fatalf("%s holds %v, want %s", worker, claimIDs(claims), id)
		}
		h.end(worker, claims[0], driver.Complete)
		return
	}
	h.Fatalf("%s is neither held nor there to be claimed", id)
}
