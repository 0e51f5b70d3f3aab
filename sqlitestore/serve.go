package sqlitestore

import (
	"context"
	"slices"
	"time"

	"github.com/waggleq/waggle/driver"
)

// A slot of a limit is worth most to who can fill it at once. So a Fetch that waits in this process claims the next task in the
// transaction that has freed the slot, which is most often the settlement of the task that had it: one commit instead
// of two, no time in which the slot is nobody's, and no other process that is woken for it in vain.

// errand is a Fetch that waits for work. Once its waiter was taken off the list it is the writer's, until woken is closed.
type errand struct {
	req    *driver.FetchRequest
	narrow bool // a queue of it has limits or ordered keys: much that becomes available may not start, or others are faster
	res    *driver.FetchResult
	err    error
}

// awaitFetch waits as a Fetch has asked. A result is the answer already; none says that the Fetch is to be done now.
func (s *Store) awaitFetch(ctx context.Context, req *driver.FetchRequest) (*driver.FetchResult, time.Duration, error) {
	if req.Wait <= 0 {
		return nil, 0, nil
	}
	await := driver.AwaitRequest{Worker: req.Worker, For: driver.ForWork, Queues: req.Queues, Types: req.Types, Plans: req.Plans > 0, Max: req.Wait}
	for began := time.Now(); ; {
		e := &errand{req: req}
		err := s.await(ctx, &await, &waiter{fetch: e, woken: make(chan struct{})})
		waited := time.Since(began)
		if e.res != nil || e.err != nil {
			return e.answer(waited)
		}
		over := waited >= req.Wait
		if err != nil || !over && !e.narrow {
			return nil, waited, err
		}
		res, err := s.idle(ctx, req)
		if err != nil || res == nil {
			return nil, waited, err
		}
		await.Max = req.Wait - waited
		if over || !res.NextDue.IsZero() && res.NextDue.Sub(res.Now) < await.Max {
			res.Waited = waited
			return res, waited, nil
		}
	}
}

func (e *errand) answer(waited time.Duration) (*driver.FetchResult, time.Duration, error) {
	if e.err != nil {
		return nil, waited, e.err
	}
	e.res.Waited = waited
	return e.res, waited, nil
}

// narrow reports whether one of the queues has limits or ordered keys.
func (st *state) narrow(queues []string) bool {
	return slices.ContainsFunc(queues, func(name string) bool { return st.queues[name] != nil && st.queues[name].narrow() })
}

func (q *queue) narrow() bool { return len(q.config.Limits) > 0 || q.config.Keys.Ordered() }

// serve has fetches that wait claim what the transaction lets start in queues with limits or ordered keys.
func (w *writer) serve() error {
	for {
		waiting := w.nextServed()
		if waiting == nil {
			return nil
		}
		w.served = append(w.served, waiting)
		e := waiting.fetch
		res, err := w.tx.fetch(e.req)
		if isFailure(err) {
			return err
		}
		e.res, e.err = res, err
	}
}

// nextServed takes the fetch off the list that has waited longest for something that may start now. One that does not serve all
// types that wait in the queue has to compete for the slot as ever: it must not keep the others from it for good.
func (w *writer) nextServed() *waiter {
	ws := w.s.waiters
	for l := range w.tx.after.work {
		if !l.queue.narrow() || l.queue.config.Paused || l.startable(w.tx.now) == 0 {
			continue
		}
		ws.mu.Lock()
		for e := ws.work.Front(); e != nil; e = e.Next() {
			waiting := e.Value.(*waiter)
			if waiting.fetch != nil && waiting.fetch.req.Max > 0 && waiting.wants(l) && waiting.wantsAll(l.queue) {
				ws.work.Remove(e)
				ws.mu.Unlock()
				return waiting
			}
		}
		ws.mu.Unlock()
	}
	return nil
}

// wantsAll reports whether the waiter serves all that waits in a queue.
func (w *waiter) wantsAll(q *queue) bool {
	for _, l := range q.lanes {
		if l.count[available] > 0 && !w.wants(l) {
			return false
		}
	}
	return true
}

// hand gives the fetches that were served in a transaction what they got, or, if it was not committed, has them fetch by themselves.
func (w *writer) hand(committed bool, err error) {
	for _, waiting := range w.served {
		if e := waiting.fetch; !committed {
			e.res, e.err = nil, nil
		} else if err != nil {
			e.res, e.err = nil, err
		}
		close(waiting.woken)
	}
	clear(w.served)
	w.served = w.served[:0]
}
