package sqlitestore

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/waggleq/waggle/driver"
)

// TestAFlippedBitIsNeverShownAsRight flips single bits of every column of every table, as the schema has them, in a store
// that has rows in all of them. What the store then shows is what was stored, or is marked, or is refused as damage; and
// Audit finds every flip. A table or column that is added without a checksum fails here.
func TestAFlippedBitIsNeverShownAsRight(t *testing.T) {
	t.Parallel()
	path := dbPath(t)
	s, err := Open(t.Context(), path, nil)
	must(t, err)
	everything(t, s)
	want := shownBy(t, s)
	raw := rawConn(t, path)
	t.Cleanup(func() { _ = raw.close() })
	must(t, raw.run("PRAGMA synchronous=off"))
	tables, flips := tablesOf(t, raw), 0
	for _, table := range tables {
		for _, f := range flipsOf(t, raw, table) {
			if raw.run(f.do) != nil {
				continue // the database itself refuses such a row
			}
			flips++
			for what, diff := range want.compare(shownBy(t, s)) {
				if foundByAuditAlone[f.column] {
					continue
				}
				t.Errorf("%s: %s is shown as right (-stored +shown):\n%s", f.do, what, diff)
			}
			findings, err := s.Audit(t.Context(), false)
			must(t, err)
			if len(findings) == 0 {
				t.Errorf("%s: the audit finds nothing", f.do)
			}
			must(t, raw.run(f.undo))
		}
	}
	if flips < 500 || len(tables) < 20 {
		t.Errorf("only %d flips in %d tables", flips, len(tables))
	}
	// Undone, all is as it was. And a store whose file was changed while it was closed opens, and says the same.
	for what, diff := range want.compare(shownBy(t, s)) {
		t.Errorf("after all flips were undone, %s (-before +now):\n%s", what, diff)
	}
	for what, unsure := range shownBy(t, s).unsure {
		if unsure {
			t.Errorf("after all flips were undone, %s is damaged", what)
		}
	}
	must(t, s.Close())
	for _, table := range tables {
		list := flipsOf(t, raw, table)
		f := list[len(list)/2]
		if raw.run(f.do) != nil {
			continue
		}
		s, err := Open(t.Context(), path, nil)
		if err != nil {
			t.Fatalf("%s: %v", f.do, err)
		}
		findings, err := s.Audit(t.Context(), false)
		must(t, err)
		if len(findings) == 0 {
			t.Errorf("%s, and opened: the audit finds nothing", f.do)
		}
		must(t, s.Close())
		must(t, raw.run(f.undo))
	}
}

// foundByAuditAlone are the columns by which a row is looked up, or that order an index. When such a value is damaged, what
// is looked up is not there any more: what is shown lacks it, and nothing that is read tells. Audit does.
var foundByAuditAlone = map[string]bool{
	"event.no":       true, // the oldest events, as when they are dropped
	"held.worker":    true, // how many tasks a worker holds; the task itself is marked
	"keyed.active":   true, // how many tasks of all keys count against a limit
	"keyed.queue":    true, // the same
	"meta.seq":       true, // the attempts before the one that runs
	"plan.kind":      true, // there is no such plan
	"plan.name":      true, // the same
	"plan_part.plan": true, // a part, but the body
	"ready.lane":     true, // since when the longest waiting task of a queue has been available
	"ready.ord":      true, // the same
	"ready.seq":      true, // the same
	"worker.no":      true, // a task names no worker, as when it is forgotten
}

// everything makes rows in all tables.
func everything(t *testing.T, s *Store) {
	t.Helper()
	mixed(t, s)
	register(t, s, "w2", "w3")
	last := fetch(t, s, "w2", 1)[0]
	_, err := s.Settle(t.Context(), "w2", []driver.Settlement{{ID: last.ID, Token: last.Token, Outcome: driver.Complete, Result: []byte(`{"sum":12345}`)}})
	must(t, err)
	must(t, s.Unregister(t.Context(), "w3"))
	must(t, s.Direct(t.Context(), "w2", driver.DirectQuiet))
	add(t, s, 1, func(_ int, task *driver.Task) {
		task.Unique = &driver.Unique{Key: "ttl", Until: driver.UntilTTL, TTL: time.Hour}
	})
	limits := []driver.Limit{{PerKey: true, Concurrency: 1}, {Rate: 1, Per: time.Hour, Burst: 2}}
	_, err = s.SetQueue(t.Context(), "keys", driver.QueuePatch{Limits: &limits})
	must(t, err)
	add(t, s, 6, func(i int, task *driver.Task) { task.Queue, task.Key = "keys", string(rune('a'+i/3)) })
	res, err := s.Fetch(t.Context(), driver.FetchRequest{Worker: "w", Lease: time.Hour, Queues: []string{"keys"}, Max: 1})
	must(t, err)
	if len(res.Claims) != 1 {
		t.Fatalf("got %d claims of tasks with keys", len(res.Claims))
	}
}

// shown is all that a store shows, by what it is about; unsure is what is marked or refused as damage.
type shown struct {
	all    map[string]any
	unsure map[string]bool
}

// compare yields what is shown as right and is not as it was.
func (before *shown) compare(now *shown) map[string]string {
	wrong := make(map[string]string)
	for what, v := range now.all {
		if diff := cmp.Diff(before.all[what], v, cmpopts.EquateEmpty(), cmpopts.IgnoreFields(driver.WorkerStatus{}, "LeaseEnd")); diff != "" && !now.unsure[what] {
			wrong[what] = diff
		}
	}
	return wrong
}

// shownBy asks a store for everything. An error must be that of damage.
func shownBy(t *testing.T, s *Store) *shown {
	t.Helper()
	all := &shown{map[string]any{}, map[string]bool{}}
	put := func(what string, v any, damaged bool, err error) {
		if err != nil && !errors.Is(err, driver.ErrCorrupt) {
			t.Errorf("%s: %v, want ErrCorrupt", what, err)
		}
		if err == nil {
			all.all[what] = v
		}
		all.unsure[what] = damaged || err != nil
	}
	page, err := s.List(t.Context(), driver.Filter{}, driver.Page{Size: 1000})
	if put("tasks", nil, false, err); err == nil {
		for _, r := range page.Records {
			put("task "+r.ID, *r, len(r.Damaged) > 0, nil)
		}
	}
	queues, err := s.Queues(t.Context())
	put("queues", nil, false, err)
	for _, q := range queues {
		put("queue "+q.Name, q, q.Damaged, nil)
	}
	workers, err := s.Workers(t.Context())
	put("workers", nil, false, err)
	for _, w := range workers {
		put("worker "+w.ID, w, w.Damaged, nil)
	}
	events, err := s.Events(t.Context(), driver.EventQuery{})
	if put("events", nil, false, err); err == nil {
		put("events", events.Events, events.Gap, nil)
	}
	ref := driver.PlanRef{Kind: "k", Name: "p"}
	plans, err := s.GetPlans(t.Context(), []driver.PlanRef{ref}, driver.PlanRead{AllParts: true, News: 10})
	if put("plan", nil, false, err); err == nil && plans[0] != nil {
		put("plan", plans[0], false, nil)
	}
	list, err := s.Plans(t.Context(), driver.PlanQuery{Kind: "k"}, driver.Page{})
	if put("plans", nil, false, err); err == nil {
		for _, p := range list.Plans {
			put("plan in the list: "+p.Name, p, p.State == driver.PlanDamaged, nil)
		}
	}
	return all
}

// tablesOf returns the names of all tables.
func tablesOf(t *testing.T, raw *conn) (names []string) {
	t.Helper()
	must(t, sqlitex.ExecuteTransient(raw.db, "SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name", &sqlitex.ExecOptions{ResultFunc: func(s *sqlite.Stmt) error {
		names = append(names, s.ColumnText(0))
		return nil
	}}))
	return names
}

// flip is a statement that flips a bit, and the one that flips it back.
type flip struct{ do, undo, column string }

// flipsOf returns flips of a bit each: in the first and the last row of a table, in each column a few bits.
func flipsOf(t *testing.T, raw *conn, table string) (list []flip) {
	t.Helper()
	var rows []map[string]string
	var values [][]struct{ column, value string }
	must(t, sqlitex.ExecuteTransient(raw.db, "SELECT * FROM "+table, &sqlitex.ExecOptions{ResultFunc: func(s *sqlite.Stmt) error {
		row, flips := make(map[string]string), []struct{ column, value string }{}
		for i := range s.ColumnCount() {
			row[s.ColumnName(i)] = literal(s, i)
			for _, v := range flipped(s, i) {
				flips = append(flips, struct{ column, value string }{s.ColumnName(i), v})
			}
		}
		rows, values = append(rows, row), append(values, flips)
		return nil
	}}))
	if len(rows) == 0 {
		t.Fatalf("table %s is empty", table)
	}
	for _, i := range slices.Compact([]int{0, len(rows) - 1}) {
		for _, v := range values[i] {
			old := rows[i][v.column]
			list = append(list, flip{update(table, rows[i], v.column, old, v.value), update(table, rows[i], v.column, v.value, old), table + "." + v.column})
		}
	}
	return list
}

// update is a statement that changes a column of one row.
func update(table string, row map[string]string, column, from, to string) string {
	var where []string
	for name, v := range row {
		if name == column {
			v = from
		}
		where = append(where, name+" IS "+v)
	}
	slices.Sort(where)
	return "UPDATE " + table + " SET " + column + " = " + to + " WHERE " + strings.Join(where, " AND ")
}

// flipped returns the values that a column has with one bit flipped.
func flipped(s *sqlite.Stmt, col int) (values []string) {
	switch s.ColumnType(col) {
	case sqlite.TypeInteger:
		for _, bit := range []int{0, 31} {
			values = append(values, itoa(s.ColumnInt64(col)^1<<bit))
		}
	case sqlite.TypeText, sqlite.TypeBlob:
		b := content(s, col)
		for _, at := range slices.Compact([]int{0, len(b) - 1}) {
			if len(b) > 0 {
				b[at] ^= 1
				values = append(values, quoted(s.ColumnType(col), b))
				b[at] ^= 1
			}
		}
	case sqlite.TypeNull:
	}
	return values
}

func content(s *sqlite.Stmt, col int) []byte {
	if s.ColumnType(col) == sqlite.TypeText {
		return []byte(s.ColumnText(col))
	}
	return columnBytes(s, col)
}

func quoted(typ sqlite.ColumnType, b []byte) string {
	if typ == sqlite.TypeText {
		return "'" + strings.ReplaceAll(string(b), "'", "''") + "'"
	}
	return fmt.Sprintf("x'%x'", b)
}

// literal is a column's value in SQL.
func literal(s *sqlite.Stmt, col int) string {
	switch typ := s.ColumnType(col); typ {
	case sqlite.TypeInteger:
		return itoa(s.ColumnInt64(col))
	case sqlite.TypeText, sqlite.TypeBlob:
		return quoted(typ, content(s, col))
	default:
		return "NULL"
	}
}
