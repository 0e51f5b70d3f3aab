package sqlitestore

import (
	"fmt"
	"os"
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
	must(t, s.Close())
	file, err := os.ReadFile(path)
	must(t, err)
	want := recordsOf(t, path)

	flips := 0
	for _, table := range []string{"task", "ended", "meta", "held", "report"} {
		for _, f := range flipsOf(t, path, table) {
			flips++
			work := dbPath(t)
			write(t, work, file)
			raw := rawConn(t, work)
			must(t, sqlitex.ExecuteTransient(raw.db, f, nil))
			must(t, raw.close())
			s, err := Open(t.Context(), work, nil)
			if err != nil {
				t.Fatalf("%s: %v", f, err)
			}
			page, err := s.List(t.Context(), driver.Filter{}, driver.Page{Size: 1000})
			must(t, err)
			for _, r := range page.Records {
				w := want[r.ID]
				if len(r.Damaged) > 0 || w != nil && cmp.Equal(*w, *r, cmpopts.EquateEmpty()) {
					continue
				}
				t.Errorf("%s: task %s is shown as right (-stored +shown):\n%s", f, r.ID, cmp.Diff(w, r))
			}
			findings, err := s.Audit(t.Context(), false)
			must(t, err)
			if len(findings) == 0 {
				t.Errorf("%s: the audit finds nothing", f)
			}
			must(t, s.Close())
		}
	}
	if flips < 200 {
		t.Errorf("only %d flips", flips)
	}
}

func recordsOf(t *testing.T, path string) map[string]*driver.Record {
	t.Helper()
	s, err := Open(t.Context(), path, nil)
	must(t, err)
	defer func() { must(t, s.Close()) }()
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

// flipsOf returns statements that flip a bit each: in the first, middle and last row of a table, in each column a few bits.
func flipsOf(t *testing.T, path, table string) []string {
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
	var list []string
	for _, seq := range slices.Compact(picked) {
		err := sqlitex.ExecuteTransient(raw.db, fmt.Sprintf("SELECT * FROM %s WHERE seq = %d", table, seq), &sqlitex.ExecOptions{ResultFunc: func(s *sqlite.Stmt) error {
			for i := range s.ColumnCount() {
				for _, v := range flipped(s, i) {
					if s.ColumnName(i) != "seq" {
						list = append(list, fmt.Sprintf("UPDATE %s SET %s = %s WHERE seq = %d", table, s.ColumnName(i), v, seq))
					}
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
		n := s.ColumnLen(col)
		for _, at := range []int{0, n / 2, n - 1} {
			b := make([]byte, n)
			if s.ColumnType(col) == sqlite.TypeText {
				copy(b, s.ColumnText(col))
			} else {
				s.ColumnBytes(col, b)
			}
			if n > 0 {
				b[at] ^= 1
				text := fmt.Sprintf("x'%x'", b)
				if s.ColumnType(col) == sqlite.TypeText {
					text = "'" + strings.ReplaceAll(string(b), "'", "''") + "'"
				}
				values = append(values, text)
			}
		}
	case sqlite.TypeNull:
	}
	return values
}
