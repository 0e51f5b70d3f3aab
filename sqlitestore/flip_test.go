package sqlitestore

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/waggleq/waggle/driver"
)

// TestAFlippedBitIsNeverShownAsRight flips single bits of every column of the rows that belong to tasks, in tasks of every
// state. What a record then says is what was stored, or the record names the part that it is not sure of; and Audit finds
// every flip.
func TestAFlippedBitIsNeverShownAsRight(t *testing.T) {
	t.Parallel()
	path := dbPath(t)
	s, err := Open(t.Context(), path, nil)
	must(t, err)
	mixed(t, s)
	register(t, s, "w2")
	last := fetch(t, s, "w2", 1)[0]
	_, err = s.Settle(t.Context(), "w2", []driver.Settlement{{ID: last.ID, Token: last.Token, Outcome: driver.Complete, Result: []byte(`{"sum":12345}`)}})
	must(t, err)
	want := recordsOf(t, s)

	raw := rawConn(t, path)
	t.Cleanup(func() { _ = raw.close() })
	must(t, raw.run("PRAGMA synchronous=off"))
	tables, flips := []string{"task", "ended", "meta", "held", "report"}, 0
	for _, table := range tables {
		for _, f := range flipsOf(t, path, table) {
			flips++
			must(t, raw.run(f.do))
			page, err := s.List(t.Context(), driver.Filter{}, driver.Page{Size: 1000})
			must(t, err)
			for _, r := range page.Records {
				w := want[r.ID]
				if len(r.Damaged) > 0 || w != nil && cmp.Equal(*w, *r, cmpopts.EquateEmpty()) {
					continue
				}
				t.Errorf("%s: task %s is shown as right (-stored +shown):\n%s", f.do, r.ID, cmp.Diff(w, r))
			}
			findings, err := s.Audit(t.Context(), false)
			must(t, err)
			if len(findings) == 0 {
				t.Errorf("%s: the audit finds nothing", f.do)
			}
			must(t, raw.run(f.undo))
		}
	}
	if flips < 200 {
		t.Errorf("only %d flips", flips)
	}
	// Undone, all is as it was. And a store whose file was changed while it was closed opens, and says the same.
	if diff := cmp.Diff(want, recordsOf(t, s), cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("after all flips were undone (-before +now):\n%s", diff)
	}
	must(t, s.Close())
	for _, table := range tables {
		f := flipsOf(t, path, table)[0]
		must(t, raw.run(f.do))
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

func recordsOf(t *testing.T, s *Store) map[string]*driver.Record {
	t.Helper()
	page, err := s.List(t.Context(), driver.Filter{}, driver.Page{Size: 1000})
	must(t, err)
	all := make(map[string]*driver.Record)
	for _, r := range page.Records {
		if len(r.Damaged) > 0 {
			t.Errorf("the sound task %s is damaged: %v", r.ID, r.Damaged)
		}
		all[r.ID] = r
	}
	return all
}

// flip is a statement that flips a bit, and the one that flips it back.
type flip struct{ do, undo string }

// flipsOf returns flips of a bit each: in the first, middle and last row of a table, in each column a few bits.
func flipsOf(t *testing.T, path, table string) []flip {
	t.Helper()
	raw := rawConn(t, path)
	defer func() { must(t, raw.close()) }()
	var seqs []int64
	must(t, sqlitex.ExecuteTransient(raw.db, "SELECT seq FROM "+table+" ORDER BY seq", &sqlitex.ExecOptions{ResultFunc: func(s *sqlite.Stmt) error {
		seqs = append(seqs, s.ColumnInt64(0))
		return nil
	}}))
	if len(seqs) == 0 {
		t.Fatalf("table %s is empty", table)
	}
	picked := []int64{seqs[0], seqs[len(seqs)/2], seqs[len(seqs)-1]}
	slices.Sort(picked)
	var list []flip
	for _, seq := range slices.Compact(picked) {
		err := sqlitex.ExecuteTransient(raw.db, fmt.Sprintf("SELECT * FROM %s WHERE seq = %d", table, seq), &sqlitex.ExecOptions{ResultFunc: func(s *sqlite.Stmt) error {
			for i := range s.ColumnCount() {
				if s.ColumnName(i) == "seq" {
					continue
				}
				set := func(v string) string {
					return fmt.Sprintf("UPDATE %s SET %s = %s WHERE seq = %d", table, s.ColumnName(i), v, seq)
				}
				for _, v := range flipped(s, i) {
					list = append(list, flip{set(v), set(literal(s, i))})
				}
			}
			return nil
		}})
		must(t, err)
	}
	return list
}

// flipped returns the values that a column has with one bit flipped.
func flipped(s *sqlite.Stmt, col int) (values []string) {
	switch s.ColumnType(col) {
	case sqlite.TypeInteger:
		for _, bit := range []int{0, 1, 12, 31} {
			values = append(values, itoa(s.ColumnInt64(col)^1<<bit))
		}
	case sqlite.TypeText, sqlite.TypeBlob:
		b := content(s, col)
		for _, at := range []int{0, len(b) / 2, len(b) - 1} {
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
