package memstore

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/waggleq/waggle/driver"
)

// Bounds of one Fetch.
const (
	maxClaims = 1000
	maxSweep  = 1000 // tasks a housekeeping step
)

// worker is a registered worker.
type worker struct {
	driver.WorkerInfo
	since, leaseEnd time.Time
	lost            bool                    // its recovery has begun
	held            list                    // in the order of claiming
	cancels         map[string]driver.Token // held tasks whose cancellation was asked for
	cancelNews      bool                    // some of them were not delivered yet
	control         []*waiter
	directive       driver.Directive
	directiveNews   bool // it was not delivered yet
}

// refs returns the asked cancellations and counts them as delivered.
func (w *worker) refs() []driver.Ref {
	w.cancelNews = false
	var refs []driver.Ref
	for id, token := range w.cancels {
		refs = append(refs, driver.Ref{ID: id, Token: token})
	}
	slices.SortFunc(refs, func(a, b driver.Ref) int { return cmp.Compare(a.ID, b.ID) })
	return refs
}

func (s *Store) worker(id string) (*worker, error) {
	if w := s.workers[id]; w != nil && !w.lost {
		return w, nil
	}
	return nil, driver.Errorf(driver.ErrLeaseLost, "worker %s is not registered, or its lease ran out", id)
}

func (s *Store) renew(id string, lease time.Duration) (*worker, error) {
	w, err := s.worker(id)
	if err == nil {
		w.leaseEnd = s.now.Add(lease.Truncate(time.Millisecond))
	}
	return w, err
}

// Fetch implements [driver.Fetcher].
func (s *Store) Fetch(ctx context.Context, req driver.FetchRequest) (*driver.FetchResult, error) {
	if err := driver.CheckFetch(&req); err != nil {
		return nil, err
	}
	waited, err := driver.AwaitFirst(ctx, s, &req)
	if err != nil {
		return nil, err
	}
	if err := s.lock(ctx); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	w, err := s.renew(req.Worker, req.Lease)
	if err != nil {
		return nil, err
	}
	s.recoverLost(maxSweep)
	res := &driver.FetchResult{Now: s.now, LeaseEnd: w.leaseEnd, Waited: waited, Cancels: w.refs()}
	var left *line
	s.lastToken++
	for i, name := range req.Queues {
		q := s.queues[name]
		if q == nil || slices.Contains(req.Queues[:i], name) {
			continue
		}
		lines := q.declared(req.Types)
		s.tidy(q, lines, maxSweep)
		if !q.config.Paused {
			res.Claims = s.claim(res.Claims, w, q, lines, min(req.Max, maxClaims))
			if t := s.next(q, lines); t != nil && left == nil {
				left = t.line
			}
		}
		for _, opens := range []time.Time{q.nextOpening(), s.rateOpens(lines)} {
			if !opens.IsZero() {
				res.NextDue = earlier(res.NextDue, opens)
			}
		}
		if t := first(lines, byDue); t != nil {
			res.NextDue = earlier(res.NextDue, t.DueAt)
		}
		for _, l := range lines {
			l.dueNews = false
		}
	}
	if left != nil {
		res.More = true
		s.wake(left)
	}
	if req.Plans > 0 {
		res.Plans = s.offerPlans(driver.PlanOffers(&req))
		if p := s.plans.index.top(); p != nil {
			res.NextDue = earlier(res.NextDue, p.at)
		}
	}
	for _, other := range s.workers {
		if other != w {
			res.NextDue = earlier(res.NextDue, other.leaseEnd)
		}
	}
	return res, nil
}

func earlier(a, b time.Time) time.Time {
	if a.IsZero() || b.Before(a) {
		return b
	}
	return a
}

// claim adds claims of the first tasks of a queue's lines until there are limit of them.
func (s *Store) claim(claims []driver.Claim, w *worker, q *queue, lines []*line, limit int) []driver.Claim {
	claims = slices.Grow(claims, min(limit-len(claims), ready(lines)))
	for len(claims) < limit {
		t := s.next(q, lines)
		if t == nil {
			break
		}
		if !t.ExpiresAt.IsZero() && !t.ExpiresAt.After(s.now) { // the sweep had more to do than it may
			s.expire(t)
			continue
		}
		t.Worker, t.Token, t.ClaimedAt = w.ID, s.lastToken, s.now
		t.Attempt++
		s.charge(t)
		s.freeKey(t, driver.UntilStarted)
		s.move(t, driver.Active, "")
		claims = appendClaim(claims, t)
	}
	return claims
}

func appendClaim(claims []driver.Claim, t *task) []driver.Claim {
	claims = append(claims, driver.Claim{Task: t.Task, Token: t.Token, Attempt: t.Attempt, Crashes: t.Crashes,
		EnqueuedAt: t.EnqueuedAt, ClaimedAt: t.ClaimedAt, CancelRequested: t.CancelRequested})
	claims[len(claims)-1].Detach()
	return claims
}

// Held implements [driver.Fetcher]. Claims come in the order in which they were made.
func (s *Store) Held(ctx context.Context, id string) ([]driver.Claim, error) {
	if err := s.lock(ctx); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	w, err := s.worker(id)
	if err != nil {
		return nil, err
	}
	claims := make([]driver.Claim, 0, w.held.len)
	for t := range w.held.all() {
		claims = appendClaim(claims, t)
	}
	return claims, nil
}
