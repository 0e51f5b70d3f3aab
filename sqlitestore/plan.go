package sqlitestore

import (
	"context"
	"strings"
	"time"

	"github.com/waggleq/waggle/driver"
	"zombiezen.com/go/sqlite"
)

// place returns when a plan is to be thought of, 0: never.
func (p *planHead) place(now int64) int64 {
	p.Waiting = int(p.news - p.seen)
	return millis(p.Place(timeOf(p.reserved), timeOf(now)))
}

// due reports whether a plan is to be looked at now.
func (p *planHead) due(now int64) bool {
	at := p.Due()
	return !at.IsZero() && at.UnixMilli() <= now
}

// placed notes that a plan has got another place, of which a worker has to hear if it is due, or sooner than all others.
func (t *tx) placed(p *planHead, first int64) {
	before := p.at
	p.at = p.place(t.now)
	if p.at == 0 || p.at == before {
		return
	}
	isNew := p.at <= t.now && (before == 0 || before > t.now)
	if isNew || first == 0 || p.at < first {
		t.after.plans++
	}
}

// tell adds news to a plan, if there is one.
func (t *tx) tell(ref driver.PlanRef, n *driver.News) error {
	p, err := t.planHead(ref)
	if isDamage(err) {
		return nil // the task has ended all the same; Audit tells of the plan
	}
	if err != nil || p == nil {
		return err
	}
	return t.tellPlan(p, n)
}

func (t *tx) tellPlan(p *planHead, n *driver.News) error {
	first, err := t.stmt("plan_first").one()
	if err != nil {
		return err
	}
	p.news++
	if err := t.sealed("plan_news_put").ints(p.no, p.news).blob(driver.AppendNews(nil, n)).seal(false).exec(); err != nil {
		return err
	}
	t.placed(p, first)
	return t.putPlan(p)
}

// tellEnd tells a task's plan that the task has ended or, with none, was deleted before it had.
func (t *tx) tellEnd(r *row, to standing) error {
	plan := r.task().Plan
	if plan == nil {
		return nil
	}
	state := driver.State("")
	if to != none {
		state = to.state()
	}
	n := endNews(t.time(), r.id, plan.Step, state, driver.Reason(r.reason), r.history)
	if to == completed {
		n.Result, n.ResultEncoding = r.result, driver.Encoding(r.encoding)
	}
	return t.tell(plan.PlanRef, &n)
}

func endNews(now time.Time, id, step string, state driver.State, reason driver.Reason, history string) driver.News {
	var last *driver.Attempt
	if list := decodeHistory(history); len(list) > 0 {
		last = &list[len(list)-1]
	}
	return driver.EndNews(now, id, step, state, reason, last)
}

// offerPlans removes plans whose time is over, and reserves up to most of those that are due. first is when the next
// plan is to be thought of, 0: none.
func (t *tx) offerPlans(most int) (refs []driver.PlanRef, first int64, err error) {
	if first, err = t.stmt("plan_first").one(); err != nil || first == 0 || first > t.now {
		return nil, first, err
	}
	if _, _, err := t.expirePlans(maxSweep); err != nil {
		return nil, 0, err
	}
	var due []driver.PlanRef
	err = t.stmt("plan_due").ints(t.now, int64(most)).rows(func(s *sqlite.Stmt) error {
		due = append(due, driver.PlanRef{Kind: s.ColumnText(0), Name: s.ColumnText(1)})
		return nil
	})
	for i := 0; err == nil && i < len(due); i++ {
		var p *planHead
		switch p, err = t.planHead(due[i]); {
		case isDamage(err):
			err = t.putAside(due[i])
		case err != nil || p == nil || !p.Expires.IsZero() && millis(p.Expires) <= t.now:
		default:
			refs = append(refs, due[i])
			err = t.reservePlan(p)
		}
	}
	if err != nil {
		return nil, 0, err
	}
	first, err = t.stmt("plan_first").one()
	if first != 0 && first <= t.now {
		t.after.plans++
	}
	return refs, first, err
}

func (t *tx) reservePlan(p *planHead) error {
	p.reserved = t.now + driver.PlanReserve.Milliseconds()
	p.at = p.place(t.now)
	return t.putPlan(p)
}

// expirePlans removes at most limit plans that have expired.
func (t *tx) expirePlans(limit int) (n int, more bool, err error) {
	var list []*planHead
	var damaged []driver.PlanRef
	err = t.stmt("plan_expired").ints(t.now, int64(limit)+1).rows(func(s *sqlite.Stmt) error {
		if p := scanPlan(s); intact(s, 0, planColumns) {
			list = append(list, p)
		} else {
			damaged = append(damaged, p.PlanRef)
		}
		return nil
	})
	if more = len(list) > limit; more {
		list = list[:limit]
	}
	for i := 0; err == nil && i < len(list); i++ {
		err = t.dropPlan(list[i].no)
	}
	for i := 0; err == nil && i < len(damaged); i++ {
		err = t.putAside(damaged[i])
	}
	return len(list), more, err
}

func (t *tx) dropPlan(no int64) error {
	for _, name := range []string{"plan_delete", "plan_part_delete", "plan_news_delete", "plan_signal_delete"} {
		if err := t.stmt(name).ints(no).exec(); err != nil {
			return err
		}
	}
	return nil
}

// preparedStep is a step of a plan with all that can be worked out outside the writer.
type preparedStep struct {
	*driver.PlanStep
	tasks []newTask
	err   error
}

// Advance implements [driver.Planner].
func (s *Store) Advance(ctx context.Context, steps []driver.PlanStep) ([]driver.PlanResult, error) {
	prepared, bytes := make([]preparedStep, len(steps)), 0
	now := timeOf(s.now())
	for i := range steps {
		p := &prepared[i]
		p.PlanStep = &steps[i]
		tasks, err := driver.PreparePlanStep(p.PlanStep, s.caps, now)
		if p.err = err; err != nil {
			continue
		}
		n := 0
		p.tasks, n = s.prepare(tasks)
		bytes += n + len(p.Body) + 200
		for _, b := range p.Parts {
			bytes += len(b)
		}
	}
	results := make([]driver.PlanResult, len(steps))
	err := s.submit(&op{ctx: ctx, adds: true, bytes: bytes, run: func(t *tx) error {
		if err := t.settleFresh(); err != nil {
			return err
		}
		for i := range prepared {
			var err error
			if results[i], err = t.advance(&prepared[i]); err != nil {
				return err
			}
		}
		return nil
	}})
	if err != nil {
		return nil, err
	}
	return results, nil
}

func (t *tx) advance(step *preparedStep) (driver.PlanResult, error) {
	if step.err != nil {
		return driver.PlanResult{Err: step.err}, nil
	}
	p, err := t.planHead(step.PlanRef)
	switch {
	case isDamage(err):
		return driver.PlanResult{Err: err}, nil
	case err != nil:
		return driver.PlanResult{}, err
	case p == nil && step.Expect != 0:
		return driver.PlanResult{Err: driver.PlanConflict(step.PlanStep, 0)}, nil
	case p == nil:
		p, err = t.insertPlan(step.PlanStep)
	case p.Version != step.Expect:
		return driver.PlanResult{Version: p.Version, Err: driver.PlanConflict(step.PlanStep, p.Version)}, nil
	default:
		p.Version++
	}
	if err == nil {
		err = t.savePlan(p, step.PlanStep)
	}
	for i := 0; err == nil && i < len(step.tasks); i++ {
		err = t.acceptOf(p, &step.tasks[i])
	}
	return driver.PlanResult{Version: p.Version}, err
}

func (t *tx) insertPlan(step *driver.PlanStep) (*planHead, error) {
	p := &planHead{Plan: driver.Plan{PlanRef: step.PlanRef, Version: driver.FirstPlanVersion(t.time()), Created: t.time()}}
	err := t.stmt("plan_insert").text(p.Kind).text(p.Name).exec()
	if err == nil {
		p.no, err = t.stmt("plan_last").one()
	}
	return p, err
}

// savePlan makes of a plan what a step says.
func (t *tx) savePlan(p *planHead, step *driver.PlanStep) error {
	first, err := t.stmt("plan_first").one()
	if err != nil {
		return err
	}
	p.State, p.Wake, p.Expires, p.Updated, p.reserved = step.State, step.Wake, step.Expires, t.time(), 0
	if seen := min(step.Seen, p.news); seen > p.seen {
		p.seen = seen
		if err := t.stmt("plan_news_drop").ints(p.no, seen).exec(); err != nil {
			return err
		}
	}
	if err := t.putPart(p.no, "", step.Body); err != nil {
		return err
	}
	for name, b := range step.Parts {
		if b == nil {
			err = t.stmt("plan_part_drop").ints(p.no).text(name).exec()
		} else {
			err = t.putPart(p.no, name, b)
		}
		if err != nil {
			return err
		}
	}
	t.placed(p, first)
	return t.putPlan(p)
}

func (t *tx) putPart(plan int64, name string, b []byte) error {
	if b == nil {
		b = []byte{} // not NULL
	}
	return t.sealed("plan_part_put").ints(plan).text(name).blob(b).seal(false).exec()
}

// acceptOf stores a task that a step of a plan brings about, or tells the plan why not.
func (t *tx) acceptOf(p *planHead, n *newTask) error {
	var res driver.EnqueueResult
	if err := t.accept(n, &res); err != nil {
		return err
	}
	switch {
	case res.Err != nil:
		news := driver.RefusedNews(t.time(), &n.Task, res.Err)
		return t.tellPlan(p, &news)
	case res.Existing && res.ID != n.ID:
		news := driver.RefusedNews(t.time(), &n.Task, driver.PlanTaskTaken(&n.Task, res.ID))
		return t.tellPlan(p, &news)
	case res.Existing && res.State.Ended():
		return t.tellExisting(p, n.ID)
	}
	return nil
}

// tellExisting tells a plan of a task that had ended before the step that brings it about.
func (t *tx) tellExisting(p *planHead, id string) error {
	seq, err := t.seqOf(id)
	if err != nil {
		return err
	}
	rec, err := t.record(seq)
	if err != nil || rec == nil || rec.Plan == nil {
		return err
	}
	var last *driver.Attempt
	if n := len(rec.Attempts); n > 0 {
		last = &rec.Attempts[n-1]
	}
	news := driver.EndNews(t.time(), id, rec.Plan.Step, rec.State, rec.Reason, last)
	news.Result, news.ResultEncoding = rec.Result, rec.ResultEncoding
	return t.tellPlan(p, &news)
}

// Signal implements [driver.Planner].
func (s *Store) Signal(ctx context.Context, signals []driver.Signal) ([]error, error) {
	errs := make([]error, len(signals))
	err := s.submit(&op{ctx: ctx, adds: true, run: func(t *tx) error {
		for i := range signals {
			if errs[i] = t.signal(&signals[i]); isFailure(errs[i]) {
				return errs[i]
			}
		}
		return nil
	}})
	if err != nil {
		return nil, err
	}
	return errs, nil
}

func (t *tx) signal(sig *driver.Signal) error {
	if err := driver.CheckSignal(sig); err != nil {
		return err
	}
	p, err := t.planHead(sig.PlanRef)
	switch {
	case err != nil:
		return err
	case p == nil:
		return driver.PlanNotFound(sig.PlanRef)
	}
	known, err := t.stmt("plan_signal_known").ints(p.no).text(sig.ID).row(func(s *sqlite.Stmt) error {
		if !intact(s, 0, 3) {
			return damagedf("what signals plan %s has had", sig.PlanRef)
		}
		return nil
	})
	switch {
	case err != nil || known:
		return err
	case !p.Expires.IsZero():
		return driver.PlanEnded(sig.PlanRef)
	case p.Waiting >= driver.MaxPlanNews:
		return driver.PlanFull(sig.PlanRef)
	}
	no, err := t.stmt("plan_signal_next").ints(p.no).one()
	if err != nil {
		return err
	}
	if err := t.sealed("plan_signal_put").ints(p.no).text(sig.ID).ints(no).seal(false).exec(); err != nil {
		return err
	}
	if err := t.stmt("plan_signal_trim").ints(p.no, driver.MaxSignalIDs).exec(); err != nil {
		return err
	}
	return t.tellPlan(p, &driver.News{Time: t.time(), Signal: sig.Signal, SignalID: sig.ID, Payload: sig.Payload})
}

// GetPlans implements [driver.Planner].
func (s *Store) GetPlans(ctx context.Context, refs []driver.PlanRef, read driver.PlanRead) ([]*driver.Plan, error) {
	list := make([]*driver.Plan, len(refs))
	get := func(c *conn, t *tx) error {
		for i, ref := range refs {
			p, err := c.planHead(ref)
			if list[i] = nil; isDamage(err) && t != nil {
				if err := t.putAside(ref); err != nil {
					return err
				}
				continue // as if it were not there: the others go on
			}
			if err != nil {
				return err
			}
			if p == nil {
				continue
			}
			if t != nil && p.due(t.now) {
				if p.reserved > t.now {
					list[i] = &driver.Plan{PlanRef: ref, Busy: true}
					continue
				}
				if err := t.reservePlan(p); err != nil {
					return err
				}
			}
			list[i], err = c.plan(p, &read)
			if isDamage(err) && t != nil {
				list[i], err = nil, t.putAside(ref)
			}
			if err != nil {
				return err
			}
		}
		return nil
	}
	var err error
	if read.Reserve {
		err = s.submit(&op{ctx: ctx, lazy: true, run: func(t *tx) error { return get(t.conn, t) }})
	} else {
		err = s.read(ctx, func(c *conn) error { return get(c, nil) })
	}
	if err != nil {
		return nil, err
	}
	return list, nil
}

// plan returns what is wanted of a plan.
func (c *conn) plan(head *planHead, read *driver.PlanRead) (*driver.Plan, error) {
	p := head.Plan
	check := func(s *sqlite.Stmt) error {
		if !intact(s, 0, 3) {
			return damagedf("plan %s", p.PlanRef)
		}
		return nil
	}
	found, err := c.stmt("plan_part_get").ints(head.no).text("").row(func(s *sqlite.Stmt) error {
		p.Body = columnBytes(s, 2)
		return check(s)
	})
	if err == nil && !found {
		err = damagedf("plan %s (its body)", p.PlanRef)
	}
	if err != nil {
		return nil, err
	}
	part := func(s *sqlite.Stmt) error {
		if p.Parts == nil {
			p.Parts = map[string][]byte{}
		}
		p.Parts[s.ColumnText(1)] = columnBytes(s, 2)
		return check(s)
	}
	if read.AllParts {
		err = c.stmt("plan_part_all").ints(head.no).rows(part)
	}
	for _, name := range read.Parts {
		if err == nil && !read.AllParts && name != "" {
			_, err = c.stmt("plan_part_get").ints(head.no).text(name).row(part)
		}
	}
	if err == nil && read.News > 0 {
		p.News, err = c.news(head, read.News)
	}
	return &p, err
}

// news returns the first news that wait, at most limit, fewer where they are large.
func (c *conn) news(p *planHead, limit int) (list []driver.News, err error) {
	size, whole := 0, limit == 0 || p.news == p.seen
	err = c.stmt("plan_news_get").ints(p.no, p.seen, int64(limit)).until(func(s *sqlite.Stmt) (bool, error) {
		n, err := driver.DecodeNews(s.ColumnInt64(1), columnBytes(s, 2))
		if err != nil || !intact(s, 0, 3) || n.No != p.seen+int64(len(list))+1 {
			return false, damagedf("plan %s (its news)", p.PlanRef)
		}
		if size += n.Size(); len(list) > 0 && size > driver.NewsBytes {
			whole = true
			return false, nil
		}
		list = append(list, n)
		whole = len(list) == min(limit, int(p.news-p.seen))
		return true, nil
	})
	if err == nil && !whole {
		err = damagedf("plan %s (its news)", p.PlanRef)
	}
	return list, err
}

// Plans implements [driver.Planner].
func (s *Store) Plans(ctx context.Context, q driver.PlanQuery, page driver.Page) (*driver.PlanPage, error) {
	size, err := driver.CheckPage(page)
	if err != nil {
		return nil, err
	}
	if err := driver.CheckPlanQuery(&q); err != nil {
		return nil, err
	}
	prefix, after := "plans:"+s.incarn+":", ""
	if page.Cursor != "" {
		var ok bool
		if after, ok = strings.CutPrefix(page.Cursor, prefix); !ok {
			_, err := s.parseCursor("plans", page.Cursor)
			return nil, err
		}
	}
	res := &driver.PlanPage{}
	for more := true; more; {
		err := s.read(ctx, func(c *conn) (err error) {
			more, err = c.listPlans(res, &q, &after, size)
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	if len(res.Plans) > size {
		res.Plans = res.Plans[:size]
		res.Next = prefix + res.Plans[size-1].Name
	}
	return res, nil
}

// listPlans adds to a page what a part of the plans has, until it has one more than its size.
func (c *conn) listPlans(res *driver.PlanPage, q *driver.PlanQuery, after *string, size int) (more bool, err error) {
	var names []string
	err = c.stmt("plan_list").text(q.Kind).text(*after).text(q.Prefix).ints(int64(size) + 1).rows(func(s *sqlite.Stmt) error {
		names = append(names, s.ColumnText(0))
		return nil
	})
	for _, name := range names {
		if err != nil || !strings.HasPrefix(name, q.Prefix) || len(res.Plans) > size {
			return false, err
		}
		*after = name
		ref := driver.PlanRef{Kind: q.Kind, Name: name}
		var head *planHead
		if head, err = c.planHead(ref); head == nil || !isDamage(err) && (err != nil || !q.Match(&head.Plan)) {
			continue
		}
		var p *driver.Plan
		if err == nil {
			p, err = c.plan(head, &driver.PlanRead{})
		}
		if isDamage(err) {
			p, err = &driver.Plan{PlanRef: ref, State: driver.PlanDamaged}, nil
		}
		res.Plans = append(res.Plans, p)
	}
	return len(names) > size && len(res.Plans) <= size, err
}

// DeletePlans implements [driver.Planner].
func (s *Store) DeletePlans(ctx context.Context, refs []driver.PlanRef) ([]error, error) {
	errs := make([]error, len(refs))
	err := s.write(ctx, func(t *tx) error {
		for i, ref := range refs {
			p, err := t.planHead(ref)
			if isDamage(err) {
				err = nil // to remove it, it need not be sound
			}
			if errs[i] = nil; err == nil && p == nil {
				errs[i] = driver.PlanNotFound(ref)
			} else if err == nil {
				err = t.dropPlan(p.no)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return errs, nil
}
