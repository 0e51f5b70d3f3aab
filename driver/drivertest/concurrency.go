package drivertest

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/waggleq/waggle/driver"
)

var concurrencyCases = []testCase{
	{"many producers and workers: every task is done exactly once", concurrentWork},
	{"all methods at once leave a sound store", concurrentAll},
	{"several handles at once: every task is done exactly once", concurrentHandles},
	{"the clock never goes back, however moves of it and calls overlap", clockUnderCalls},
}

// crew is a group of producers and workers on one store, or on several handles of it.
type crew struct {
	h     *harness
	total int64
	done  atomic.Int64
	runs  sync.Map // id → *atomic.Int64: accepted completions
	wg    sync.WaitGroup
}

// produce enqueues n tasks in batches of up to 7.
func (c *crew) produce(s driver.Store, name string, n int) {
	c.wg.Go(func() {
		for i := 0; i < n; {
			batch := tasks(fmt.Sprintf("%s-%d", name, i), min(7, n-i))
			for j, t := range batch {
				t.Priority, t.Type = j%3, fmt.Sprint("type-", j%2)
			}
			results, err := s.Enqueue(c.h.limit, batch, driver.EnqueueOptions{})
			if err != nil {
				c.h.Errorf("enqueue: %v", err)
				return
			}
			for _, r := range results {
				if r.Err != nil || r.Existing {
					c.h.Errorf("enqueue: %+v", r)
				}
			}
			i += len(batch)
		}
	})
}

// work runs a worker until all tasks are done. Every fifth claim is retried, every seventh released.
func (c *crew) work(s driver.Store, name string, size int) {
	c.wg.Go(func() {
		if err := s.Register(c.h.limit, driver.WorkerInfo{ID: name}, lease); err != nil {
			c.h.Errorf("register: %v", err)
			return
		}
		for round := 0; c.done.Load() < c.total; round++ {
			res, err := s.Fetch(c.h.limit, request(name, size))
			if err != nil {
				c.h.Errorf("fetch: %v", err)
				return
			}
			if !c.settle(s, name, round, res.Claims) {
				return
			}
			if len(res.Claims) == 0 && !res.More {
				req := forWork(name)
				req.Max = time.Millisecond
				if err := s.Await(c.h.limit, req); err != nil {
					c.h.Errorf("await: %v", err)
					return
				}
			}
		}
	})
}

func (c *crew) settle(s driver.Store, worker string, round int, claims []driver.Claim) bool {
	items := make([]driver.Settlement, len(claims))
	for i, claim := range claims {
		o := driver.Complete
		switch k := round + i; {
		case k%5 == 4 && claim.Attempt < 3:
			o = driver.Retry
		case k%7 == 6:
			o = driver.Release
		}
		items[i] = driver.Settlement{ID: claim.ID, Token: claim.Token, Outcome: o}
	}
	errs, err := driver.SettleErrors(s.Settle(c.h.limit, worker, items))
	if err != nil {
		c.h.Errorf("settle: %v", err)
		return false
	}
	for i, err := range errs {
		if err != nil {
			c.h.Errorf("settle: %v", err)
		}
		if err == nil && items[i].Outcome == driver.Complete {
			n, _ := c.runs.LoadOrStore(items[i].ID, new(atomic.Int64))
			n.(*atomic.Int64).Add(1)
			c.done.Add(1)
		}
	}
	return true
}

// check waits for all and wants every task done once.
func (c *crew) check() {
	c.h.Helper()
	c.wg.Wait()
	n := int64(0)
	c.runs.Range(func(id, runs any) bool {
		n++
		if got := runs.(*atomic.Int64).Load(); got != 1 {
			c.h.Errorf("task %s was completed %d times", id, got)
		}
		return true
	})
	counts := c.h.queue(driver.DefaultQueue).Counts
	if n != c.total || counts[driver.Completed] != int(c.total) {
		c.h.Errorf("%d tasks were completed, the store counts %v, want %d", n, counts, c.total)
	}
}

func concurrentWork(h *harness) {
	const producers, each = 6, 60
	c := &crew{h: h, total: producers * each}
	for i := range producers {
		c.produce(h.store, fmt.Sprint("p-", i), each)
	}
	for i, size := range []int{1, 2, 5, 10, 50} {
		c.work(h.store, fmt.Sprint("w-", i), size)
	}
	c.check()
}

func concurrentHandles(h *harness) {
	other := h.reopen()
	const producers, each = 4, 50
	c := &crew{h: h, total: producers * each}
	stores := []driver.Store{h.store, other.store}
	for i := range producers {
		c.produce(stores[i%2], fmt.Sprint("p-", i), each)
	}
	for i, size := range []int{1, 3, 7, 20} {
		c.work(stores[i%2], fmt.Sprint("w-", i), size)
	}
	c.check()
}

// concurrentSettings sets a queue from several sides at once. Each changes what it names and nothing else, and in the end all
// tasks of the queue are paused or none, wherever they are.
func concurrentSettings(h *harness) {
	const n = 24
	stores := []driver.Store{h.store, h.store}
	if h.caps.Shared {
		stores[1] = h.reopen().store
	}
	h.register("w")
	for round := range 8 {
		queue := fmt.Sprint("q-", round)
		keeps := []driver.Retention{{Completed: driver.Keep{Count: 7}}, {Completed: driver.Keep{Age: time.Minute}}, {Cancelled: driver.Keep{Count: 8}}, {Discarded: driver.KeepNone}}
		var wg sync.WaitGroup
		for i, keep := range keeps {
			wg.Go(func() {
				patch := driver.QueuePatch{Paused: new(i%2 == 0), Retention: &keep}
				if h.caps.Limits {
					patch.PutLimits = []driver.Limit{{Type: fmt.Sprint("type-", i), Concurrency: i + 1}}
				}
				if _, err := stores[i%2].SetQueue(h.limit, queue, patch); err != nil {
					h.Errorf("set queue: %v", err)
				}
			})
		}
		wg.Wait()
		config := h.queue(queue).Config
		want := driver.DefaultRetention()
		for _, keep := range keeps {
			want = keep.Over(want)
		}
		if config.Retention != want {
			h.Errorf("round %d: the retention is %+v, want %+v", round, config.Retention, want)
		}
		if h.caps.Limits && len(config.Limits) != len(keeps) {
			h.Errorf("round %d: of %d limits set are there %v", round, len(keeps), config.Limits)
		}
		list := h.line(queue, n)
		for _, t := range list {
			t.Queue = queue
		}
		h.add(list...)
		got := 0
		for claims := h.claim("w", n, queue); len(claims) > 0; claims = h.claim("w", n, queue) {
			got += len(claims)
		}
		if config.Paused && got > 0 || !config.Paused && got < n {
			h.Errorf("round %d: the queue is paused: %v, and %d of %d tasks start", round, config.Paused, got, n)
		}
	}
}

// clockUnderCalls moves the clock while tasks are enqueued: what came later into the line must not be stamped earlier. All
// that is concluded from the times of records, as by the checker of histories, relies on that.
func clockUnderCalls(h *harness) {
	stores := []driver.Store{h.store, h.store}
	if h.caps.Shared {
		stores[1] = h.reopen().store
	}
	const producers, each = 4, 50
	var wg sync.WaitGroup
	for i := range producers {
		list := h.line(fmt.Sprint("p-", i), each)
		wg.Go(func() {
			for _, t := range list {
				if _, err := stores[i%2].Enqueue(h.limit, []*driver.Task{t}, driver.EnqueueOptions{}); err != nil {
					h.Errorf("enqueue: %v", err)
					return
				}
				h.advance(time.Second)
			}
		})
	}
	wg.Wait()
	h.register("w")
	claims := h.claim("w", producers*each)
	if len(claims) != producers*each {
		h.Errorf("%d tasks are in the line, want %d", len(claims), producers*each)
	}
	var last *driver.Record
	for _, c := range claims {
		r := h.get(c.ID)
		if last != nil && r.EnqueuedAt.Before(last.EnqueuedAt) {
			h.Errorf("%s was enqueued at %v, and %s after it at %v", last.ID, last.EnqueuedAt, r.ID, r.EnqueuedAt)
		}
		last = r
	}
}

// concurrentAll calls everything at once. What each call should return depends on the others; what must hold is that
// no call fails in a way that its comment does not name, and that the store is sound in the end, which the audit tells.
func concurrentAll(h *harness) {
	var wg sync.WaitGroup
	loop := func(what string, call func(i int) error) {
		wg.Go(func() {
			for i := range 40 {
				if err := call(i); err != nil {
					h.Errorf("%s: %v", what, err)
					return
				}
			}
		})
	}
	loop("enqueue", func(i int) error {
		batch := append(tasks(fmt.Sprint("a-", i), 5), withKey(fmt.Sprint("u-", i), "key"))
		batch[0].ExpiresIn, batch[1].Delay, batch[2].Hold = time.Second, time.Second, true
		_, err := h.store.Enqueue(h.limit, batch, driver.EnqueueOptions{})
		return err
	})
	for w := range 3 {
		loop("worker", func(i int) error { return h.shortLife(fmt.Sprintf("w-%d-%d", w, i/10), i) })
	}
	for _, op := range []driver.Op{driver.OpCancel, driver.OpRetry, driver.OpRun, driver.OpDelete} {
		loop(string(op), func(i int) error {
			_, err := h.store.Apply(h.limit, driver.Change{Op: op, Filter: driver.Filter{Types: []string{"t"}}, Max: 1 + i%3})
			return err
		})
	}
	loop("clock and maintain", func(i int) error {
		h.advance(lease / 10)
		_, err := h.store.Maintain(h.limit, 5)
		return err
	})
	loop("pause and resume", func(i int) error {
		_, err := h.store.SetQueue(h.limit, driver.DefaultQueue, driver.QueuePatch{Paused: new(i%2 == 0)})
		return err
	})
	loop("look", func(int) error {
		for _, look := range looks {
			if err := look(h); err != nil {
				return err
			}
		}
		return nil
	})
	wg.Wait()
}

var looks = []func(h *harness) error{
	func(h *harness) error {
		_, err := h.store.List(h.limit, driver.Filter{States: []driver.State{driver.Available, driver.Active}}, driver.Page{Size: 50})
		return err
	},
	func(h *harness) error { _, err := h.store.Queues(h.limit); return err },
	func(h *harness) error { _, err := h.store.Workers(h.limit); return err },
	func(h *harness) error { _, err := h.store.Events(h.limit, driver.EventQuery{Max: 10}); return err },
}

// shortLife is one round of a worker that comes, works and now and then leaves or is lost.
func (h *harness) shortLife(worker string, round int) error {
	if round%10 == 0 {
		if err := h.store.Register(h.limit, driver.WorkerInfo{ID: worker}, lease); err != nil {
			return err
		}
	}
	res, err := h.store.Fetch(h.limit, request(worker, 4))
	if errors.Is(err, driver.ErrLeaseLost) {
		return nil
	}
	if err != nil {
		return err
	}
	items := make([]driver.Settlement, 0, len(res.Claims))
	for i, c := range res.Claims {
		if o := plainOutcomes[(round+i)%len(plainOutcomes)].outcome; (round+i)%5 > 0 {
			items = append(items, driver.Settlement{ID: c.ID, Token: c.Token, Outcome: o})
		}
	}
	errs, err := driver.SettleErrors(h.store.Settle(h.limit, worker, items))
	for _, e := range errs {
		if e != nil && !errors.Is(e, driver.ErrLeaseLost) {
			return e
		}
	}
	if round%20 == 19 {
		return errors.Join(err, h.store.Unregister(h.limit, worker))
	}
	return err
}
