package sqlitestore

import (
	"github.com/waggleq/waggle/driver"
	"zombiezen.com/go/sqlite"
)

// plans checks that every plan is thought of when it should be, has the news that it says, and that nothing is left of
// plans that are gone.
func (a *auditor) plans() error {
	err := a.stmt("audit_plans").rows(func(s *sqlite.Stmt) error {
		a.add(defect{seq: s.ColumnInt64(0)}, "wrong-plan-news", s.ColumnText(1), "plan %s: %s", s.ColumnText(1), s.ColumnText(2))
		return nil
	})
	if err != nil {
		return err
	}
	err = a.stmt("audit_plan_orphans").rows(func(s *sqlite.Stmt) error {
		a.add(defect{seq: s.ColumnInt64(0)}, "orphan-plan-row", "", "%s belongs to plan %d, which does not exist", s.ColumnText(1), s.ColumnInt64(0))
		return nil
	})
	if err != nil {
		return err
	}
	var refs []driver.PlanRef
	err = a.stmt("audit_plan_heads").rows(func(s *sqlite.Stmt) error {
		refs = append(refs, driver.PlanRef{Kind: s.ColumnText(0), Name: s.ColumnText(1)})
		return nil
	})
	for _, ref := range refs {
		if err != nil {
			return err
		}
		var p *planHead
		p, err = a.planHead(ref)
		if isDamage(err) {
			err = nil // found by another check
		} else if err == nil && p != nil && p.misplaced() {
			a.add(defect{seq: p.no}, "wrong-plan-place", ref.String(), "plan %s is to be looked at at %v, but stands at %v", ref, p.Due(), timeOf(p.at))
		}
	}
	return err
}

// misplaced reports whether a plan would be thought of too late, or never. One whose reservation has ended may still
// stand at its end.
func (p *planHead) misplaced() bool {
	if p.at == p.place(p.reserved) {
		return false
	}
	return p.reserved == 0 || p.at != p.place(p.reserved-1)
}

// mendPlan puts a plan where it belongs, with the news that there are, or removes what is left of one.
func (t *tx) mendPlan(d *defect) error {
	ref, ok := driver.ParsePlanRef(d.ID)
	if !ok {
		return t.dropPlan(d.seq)
	}
	p, err := t.planHead(ref)
	if isDamage(err) {
		return nil // nothing tells what was right
	}
	if err != nil || p == nil {
		return err
	}
	_, err = t.stmt("mend_plan_news").ints(p.no, p.seen).row(func(s *sqlite.Stmt) error {
		p.seen, p.news = s.ColumnInt64(0), s.ColumnInt64(1)
		return nil
	})
	if err != nil {
		return err
	}
	t.after.plans++
	p.reserved = 0
	p.at = p.place(t.now)
	return t.putPlan(p)
}
