package sqlitestore

import (
	"github.com/waggleq/waggle/driver"
	"zombiezen.com/go/sqlite"
)

// planHead is the row of a plan.
type planHead struct {
	driver.Plan // without body, parts and news
	no          int64
	news, seen  int64
	reserved    int64
	at          int64 // 0: it is not to be thought of
}

// planHead returns a plan's row, nil if there is none; with an error that isDamage, if it can't be relied on.
func (c *conn) planHead(ref driver.PlanRef) (*planHead, error) {
	var p *planHead
	_, err := c.stmt("plan_get").text(ref.Kind).text(ref.Name).row(func(s *sqlite.Stmt) error {
		p = scanPlan(s)
		if !intact(s, 0, planColumns) {
			return damagedf("plan %s", ref)
		}
		return nil
	})
	return p, err
}

// scanPlan reads a row of table plan.
func scanPlan(s *sqlite.Stmt) *planHead {
	p := &planHead{no: s.ColumnInt64(0), news: s.ColumnInt64(9), seen: s.ColumnInt64(10), reserved: s.ColumnInt64(11), at: s.ColumnInt64(12)}
	p.Plan = driver.Plan{PlanRef: driver.PlanRef{Kind: s.ColumnText(1), Name: s.ColumnText(2)}, Version: s.ColumnInt64(3), State: s.ColumnText(4),
		Wake: timeOf(s.ColumnInt64(5)), Expires: timeOf(s.ColumnInt64(6)), Created: timeOf(s.ColumnInt64(7)), Updated: timeOf(s.ColumnInt64(8)),
		Waiting: int(p.news - p.seen)}
	return p
}

// putPlan writes a plan's row.
func (t *tx) putPlan(p *planHead) error {
	return t.sealed("plan_save").ints(p.no).text(p.Kind).text(p.Name).ints(p.Version).text(p.State).optInt(millis(p.Wake)).optInt(millis(p.Expires)).
		ints(millis(p.Created), millis(p.Updated), p.news, p.seen, p.reserved).optInt(p.at).seal(false).exec()
}

// putAside has nobody think of a plan that is damaged, so that it holds up no other.
func (t *tx) putAside(ref driver.PlanRef) error {
	return t.stmt("plan_aside").text(ref.Kind).text(ref.Name).exec()
}
