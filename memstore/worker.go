package memstore

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/waggleq/waggle/driver"
)

// graveyard remembers the ids of the newest workers that have left, so that they are not used for a second life.
type graveyard []string

const maxGraves = 1000

func (g *graveyard) bury(id string) {
	if len(*g) >= maxGraves {
		*g = slices.Delete(*g, 0, maxGraves/2)
	}
	*g = append(*g, id)
}

// Register implements [driver.Fetcher].
func (s *Store) Register(ctx context.Context, info driver.WorkerInfo, lease time.Duration) error {
	if err := cmp.Or(driver.CheckWorker(&info), driver.CheckLease(lease)); err != nil {
		return err
	}
	if err := s.lock(ctx); err != nil {
		return err
	}
	defer s.mu.Unlock()
	w := s.workers[info.ID]
	switch {
	case w == nil && !slices.Contains(s.gone, info.ID):
		w = &worker{since: s.now, cancels: map[string]driver.Token{}}
		s.workers[info.ID] = w
		s.emit(driver.Event{Kind: driver.EventWorkerJoined, Worker: info.ID})
	case w == nil || w.lost:
		return driver.Errorf(driver.ErrLeaseLost, "worker id %s was used before: register with a new one", info.ID)
	}
	w.WorkerInfo = copyInfo(info)
	w.leaseEnd = s.now.Add(lease.Truncate(time.Millisecond))
	return nil
}

func copyInfo(info driver.WorkerInfo) driver.WorkerInfo {
	info.Queues, info.Types = slices.Clone(info.Queues), slices.Clone(info.Types)
	return info
}

// Heartbeat implements [driver.Fetcher].
func (s *Store) Heartbeat(ctx context.Context, id string, lease time.Duration) (*driver.HeartbeatResult, error) {
	if err := driver.CheckLease(lease); err != nil {
		return nil, err
	}
	if err := s.lock(ctx); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	w, err := s.renew(id, lease)
	if err != nil {
		return nil, err
	}
	w.directiveNews = false
	return &driver.HeartbeatResult{Now: s.now, LeaseEnd: w.leaseEnd, Cancels: w.refs(), Directive: w.directive}, nil
}

// Direct implements [driver.Maintainer].
func (s *Store) Direct(ctx context.Context, id string, d driver.Directive) error {
	if err := s.lock(ctx); err != nil {
		return err
	}
	defer s.mu.Unlock()
	if err := driver.CheckDirect(id, driver.DirectServe, d); err != nil {
		return err
	}
	w, err := s.worker(id)
	if err != nil {
		return driver.NoWorker(id)
	}
	if err := driver.CheckDirect(id, w.directive, d); err != nil {
		return err
	}
	w.directive, w.directiveNews = d, true
	w.wakeControl()
	return nil
}

// Unregister implements [driver.Fetcher].
func (s *Store) Unregister(ctx context.Context, id string) error {
	if err := s.lock(ctx); err != nil {
		return err
	}
	defer s.mu.Unlock()
	w, err := s.worker(id)
	if err != nil {
		return nil // unknown, or being recovered
	}
	for w.held.len > 0 {
		s.release(w.held.first)
	}
	s.bury(w, driver.EventWorkerLeft)
	return nil
}

// bury ends the life of a worker that holds nothing any more.
func (s *Store) bury(w *worker, kind driver.EventKind) {
	delete(s.workers, w.ID)
	s.gone.bury(w.ID)
	s.emit(driver.Event{Kind: kind, Worker: w.ID})
	s.wakeAll(w)
}

// Workers implements [driver.Inspector].
func (s *Store) Workers(ctx context.Context) ([]driver.WorkerStatus, error) {
	if err := s.lock(ctx); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	list := make([]driver.WorkerStatus, 0, len(s.workers))
	for _, w := range s.workers {
		list = append(list, driver.WorkerStatus{WorkerInfo: copyInfo(w.WorkerInfo), Since: w.since, LeaseEnd: w.leaseEnd,
			Held: w.held.len, Directive: w.directive})
	}
	slices.SortFunc(list, func(a, b driver.WorkerStatus) int { return cmp.Compare(a.ID, b.ID) })
	return list, nil
}
