package sqlitestore

import (
	"bytes"
	"fmt"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"github.com/waggleq/waggle/driver"
)

// TestSalvagePlans reads plans of a sound store and of damaged ones. What is handed over was stored so, and the rest is counted.
func TestSalvagePlans(t *testing.T) {
	t.Parallel()
	path := dbPath(t)
	s := open(t, path, nil)
	var refs []driver.PlanRef
	for i := range 60 {
		ref := driver.PlanRef{Kind: "flow", Name: fmt.Sprint("p", i)}
		refs = append(refs, ref)
		_, err := s.Advance(t.Context(), []driver.PlanStep{{PlanRef: ref, State: "one", Body: bytes.Repeat([]byte{'b'}, 3000),
			Parts: map[string][]byte{"part": bytes.Repeat([]byte{'p'}, 100)}}})
		must(t, err)
		errs, err := s.Signal(t.Context(), []driver.Signal{{PlanRef: ref, ID: "s", Signal: "go", Payload: []byte("1")}})
		must(t, err)
		must(t, errs[0])
	}
	list, err := s.GetPlans(t.Context(), refs, driver.PlanRead{AllParts: true, News: 100})
	must(t, err)
	want := map[string]*driver.Plan{}
	for _, p := range list {
		want[p.Name] = p
	}
	must(t, s.Close())
	read := func(path string) (map[string]*driver.Plan, int) {
		t.Helper()
		got := map[string]*driver.Plan{}
		lost, err := SalvagePlans(t.Context(), path, func(p *driver.Plan) error {
			got[p.Name] = p
			return nil
		})
		must(t, err)
		return got, lost
	}
	got, lost := read(path)
	if diff := cmp.Diff(want, got); diff != "" || lost != 0 {
		t.Errorf("of a sound store %d are lost (-want +got):\n%s", lost, diff)
	}
	file, err := os.ReadFile(path)
	must(t, err)
	for name, least := range map[string]int{"sqlite_autoindex_plan_1": len(want), "plan_part": 0, "task": len(want)} {
		damaged := bytes.Clone(file)
		damaged[(rootOf(t, path, name)-1)*4096] ^= 0x40
		harmed := dbPath(t)
		write(t, harmed, damaged)
		got, lost := read(harmed)
		if len(got) < least || len(got)+lost != len(want) {
			t.Errorf("without %s: %d plans, %d lost", name, len(got), lost)
		}
		for name, p := range got {
			if diff := cmp.Diff(want[name], p); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		}
	}
}

// rootOf is the first page of a tree.
func rootOf(t *testing.T, path, name string) (page int) {
	t.Helper()
	c := rawConn(t, path)
	err := sqlitex.Execute(c.db, "SELECT rootpage FROM sqlite_schema WHERE name = ?", &sqlitex.ExecOptions{Args: []any{name}, ResultFunc: func(s *sqlite.Stmt) error {
		page = s.ColumnInt(0)
		return nil
	}})
	must(t, err)
	must(t, c.close())
	if page == 0 {
		t.Fatalf("there is no tree %s", name)
	}
	return page
}
