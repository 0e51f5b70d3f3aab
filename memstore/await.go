package memstore

import (
	"context"
	"slices"
	"time"

	"github.com/waggleq/waggle/driver"
)

// waiter is a worker in Await.
type waiter struct {
	worker        string
	queues, types []string
	plans         bool
	woken         chan struct{} // closed by whoever wakes it
}

func (w *waiter) wants(l *line) bool {
	return slices.Contains(w.queues, l.queue.name) && (len(w.types) == 0 || slices.Contains(w.types, l.typ))
}

// wake wakes the longest waiting worker that serves a line, and reports whether there was one.
func (s *Store) wake(l *line) bool {
	return s.wakeFirst(func(w *waiter) bool { return w.wants(l) })
}

// wakeFirst wakes the longest waiting of those workers that want to be, and reports whether there was one.
func (s *Store) wakeFirst(wants func(*waiter) bool) bool {
	i := slices.IndexFunc(s.waiters, wants)
	if i < 0 {
		return false
	}
	close(s.waiters[i].woken)
	s.waiters = slices.Delete(s.waiters, i, i+1)
	return true
}

// wakeAll ends the waiting of a worker that has left, so that it takes no hint from the others.
func (s *Store) wakeAll(w *worker) {
	w.wakeControl()
	s.waiters = slices.DeleteFunc(s.waiters, func(waiting *waiter) bool {
		if waiting.worker == w.ID {
			close(waiting.woken)
		}
		return waiting.worker == w.ID
	})
}

// wakeControl wakes what waits for news for this worker.
func (w *worker) wakeControl() {
	for _, waiting := range w.control {
		close(waiting.woken)
	}
	w.control = nil
}

// Await implements [driver.Fetcher].
func (s *Store) Await(ctx context.Context, req driver.AwaitRequest) error {
	waiting, forget, err := s.startWaiting(ctx, &req)
	if err != nil || waiting == nil {
		return err
	}
	defer forget()
	timeout := time.NewTimer(req.Max)
	defer timeout.Stop()
	select {
	case <-waiting.woken:
		return nil
	case <-timeout.C:
		return nil
	case <-s.done:
		return errClosed
	case <-ctx.Done():
	}
	select {
	case <-waiting.woken: // a hint must not get lost with the context of the one who got it
		return nil
	default:
		return ctx.Err()
	}
}

// startWaiting lines a waiter up, and returns it with what takes it out again; nil if there is no need to wait.
func (s *Store) startWaiting(ctx context.Context, req *driver.AwaitRequest) (*waiter, func(), error) {
	if err := s.lock(ctx); err != nil {
		return nil, nil, err
	}
	defer s.mu.Unlock()
	w, err := s.worker(req.Worker)
	if err != nil || req.Max <= 0 {
		return nil, nil, err
	}
	waiting := &waiter{req.Worker, slices.Clone(req.Queues), slices.Clone(req.Types), req.Plans, make(chan struct{})}
	line := &s.waiters
	if req.For == driver.ForControl {
		line = &w.control
	}
	if req.For == driver.ForControl && (w.cancelNews || w.directiveNews) || req.For == driver.ForWork && s.hasNews(req) {
		return nil, nil, nil
	}
	*line = append(*line, waiting)
	return waiting, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		*line = slices.DeleteFunc(*line, func(x *waiter) bool { return x == waiting }) // none if it was woken
	}, nil
}

// hasNews reports whether there is work, or a due time that no worker was told of, in the declared pairs.
func (s *Store) hasNews(req *driver.AwaitRequest) bool {
	if p := s.plans.index.top(); req.Plans && (s.plans.news || p != nil && !p.at.After(s.now)) {
		s.plans.news = false
		return true
	}
	for _, name := range req.Queues {
		q := s.queues[name]
		if q == nil {
			continue
		}
		for _, l := range q.declared(req.Types) {
			if !q.config.Paused && s.next(q, []*line{l}) != nil {
				return true
			}
			if l.dueNews {
				l.dueNews = false
				return true
			}
		}
	}
	return false
}
