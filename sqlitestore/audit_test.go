package sqlitestore

import (
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"github.com/waggleq/waggle/driver"
)

// mixed fills a store with tasks in every state, with all that can hang on one.
func mixed(t testing.TB, s *Store) {
	t.Helper()
	register(t, s, "w")
	add(t, s, 12, func(_ int, task *driver.Task) { task.Tags = []string{"x"} })
	claims := fetch(t, s, "w", 10)
	settle(t, s, "w", driver.Complete, claims[0], claims[1])
	settle(t, s, "w", driver.Retry, claims[2])
	settle(t, s, "w", driver.Discard, claims[3])
	settle(t, s, "w", driver.Snooze, claims[4])
	add(t, s, 2, func(_ int, task *driver.Task) { task.Delay = time.Hour })
	add(t, s, 2, func(_ int, task *driver.Task) { task.Hold = true })
	add(t, s, 2, func(_ int, task *driver.Task) { task.ExpiresIn = time.Hour })
	add(t, s, 2, func(i int, task *driver.Task) { task.Unique = &driver.Unique{Key: string(rune('a' + i))} })
	ref := driver.PlanRef{Kind: "k", Name: "p"}
	steps := []driver.PlanStep{{PlanRef: ref, State: "on", Wake: time.Now().Add(time.Hour), Parts: map[string][]byte{"x": []byte("y")}}}
	_, err := s.Advance(t.Context(), steps)
	must(t, err)
	_, err = s.Signal(t.Context(), []driver.Signal{{PlanRef: ref, ID: "1", Signal: "go"}, {PlanRef: ref, ID: "2", Signal: "go"}})
	must(t, err)
	_, err = s.Report(t.Context(), "w", []driver.Report{{ID: claims[5].ID, Token: claims[5].Token, Progress: &driver.Progress{Done: 1}}})
	must(t, err)
}

// TestAuditFindsAndRepairs spoils one thing at a time, by hand, and has it found and repaired.
func TestAuditFindsAndRepairs(t *testing.T) {
	t.Parallel()
	cases := map[string]struct{ spoil, kind string }{
		"no entry in ready":        {"DELETE FROM ready WHERE seq = (SELECT min(seq) FROM ready)", "wrong-place"},
		"an entry without a task":  {"INSERT INTO ready VALUES (1, 0, 999999, 999999)", "orphan-ready"},
		"a second entry":           {"INSERT INTO ready SELECT lane, prio, 999999, seq FROM ready LIMIT 1", "orphan-ready"},
		"no entry in due":          {"DELETE FROM due WHERE seq = (SELECT min(seq) FROM due)", "wrong-place"},
		"another due time":         {"UPDATE due SET at = at + 1000", "wrong-due"},
		"due without a task":       {"INSERT INTO due VALUES (999999, 1, 5)", "orphan-row"},
		"no entry in pending":      {"DELETE FROM pending", "wrong-place"},
		"held and ready":           {"INSERT INTO ready SELECT lane, prio, ord, seq FROM held LIMIT 1", "wrong-place"},
		"held and ended":           {"INSERT INTO held SELECT seq, 1, 1, lane, 0, seq, 1, 0, 0, 1 FROM ended LIMIT 1", "wrong-place"},
		"held by nobody":           {"UPDATE held SET worker = 77 WHERE seq = (SELECT min(seq) FROM held)", "held-by-nobody"},
		"held lost":                {"DELETE FROM held", "wrong-place"},
		"ended lost":               {"DELETE FROM ended", "wrong-place"},
		"a task lost":              {"DELETE FROM task WHERE seq = (SELECT min(seq) FROM ended)", "orphan-row"},
		"a ready task lost":        {"DELETE FROM task WHERE seq = (SELECT min(seq) FROM ready)", "orphan-ready"},
		"a state that is not true": {"UPDATE meta SET state = 'available' WHERE seq IN (SELECT seq FROM due)", "wrong-place"},
		"another lane":             {"UPDATE ended SET lane = 99", "wrong-lane"},
		"another size":             {"UPDATE ended SET bytes = bytes + 1", "wrong-size"},
		"extra forgotten":          {"UPDATE ended SET extra = 0", "wrong-extra"},
		"no expiry":                {"DELETE FROM expiry", "missing-expiry"},
		"expiry without a task":    {"INSERT INTO expiry VALUES (1, 5, 999999)", "orphan-expiry"},
		"no unique key":            {"DELETE FROM uniq", "missing-unique"},
		"a key without an owner":   {"INSERT INTO uniq (key, seq, id, until) VALUES (x'7a', 999999, x'ff7a', 'done')", "orphan-unique"},
		"a lane miscounted":        {"UPDATE lane SET available = available + 3, active = active - 1", "wrong-count"},
		"bytes miscounted":         {"UPDATE queue SET kept_completed = 1", "wrong-bytes"},
		"totals that do not add":   {"UPDATE queue SET enqueued = enqueued + 1", "wrong-totals"},
		"seqs to be given twice":   {"UPDATE store SET next_seq = 1", "wrong-number"},
		"tokens to be given twice": {"UPDATE store SET next_token = 1", "wrong-number"},
		"events miscounted":        {"UPDATE store SET event_bytes = 1", "wrong-event-bytes"},
		"a payload changed":        {"UPDATE task SET payload = x'00' WHERE seq = (SELECT min(seq) FROM ready)", "damaged-task"},
		"a plan never looked at":   {"UPDATE plan SET at = NULL", "wrong-plan-place"},
		"a plan looked at late":    {"UPDATE plan SET at = at + 999", "wrong-plan-place"},
		"a plan's news lost":       {"DELETE FROM plan_news WHERE no = 1", "wrong-plan-news"},
		"news not counted":         {"UPDATE plan SET news = 1", "wrong-plan-news"},
		"a plan lost":              {"DELETE FROM plan", "orphan-plan-row"},
		"an envelope of tomorrow":  {"UPDATE task SET envelope = x'0900' WHERE seq = (SELECT min(seq) FROM due)", "damaged-task"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := dbPath(t)
			s := open(t, path, nil)
			mixed(t, s)
			wantSound(t, s)
			raw := rawConn(t, path)
			must(t, sqlitex.ExecuteTransient(raw.db, c.spoil, nil))
			if raw.changes() == 0 {
				t.Fatal("nothing was spoilt")
			}
			must(t, raw.sealWhere("plan", "UPDATE plan SET sum = rowsum(%c)")) // of a row that is damaged nothing more is looked at
			must(t, raw.close())
			findings, err := s.Audit(t.Context(), false)
			must(t, err)
			if !slices.ContainsFunc(findings, func(f driver.Finding) bool { return f.Kind == c.kind && !f.Repaired && f.Detail != "" }) {
				t.Fatalf("no finding is %q: %+v", c.kind, findings)
			}
			findings, err = s.Audit(t.Context(), true)
			must(t, err)
			for _, f := range findings {
				if !f.Repaired {
					t.Errorf("not repaired: %+v", f)
				}
			}
			wantSound(t, s)
			add(t, s, 3, nil) // and it works
			if len(fetch(t, s, "w", 3)) != 3 {
				t.Error("the repaired store gives out nothing")
			}
		})
	}
}

// TestDamagedTasksAreSetAsideAndTheRestGoesOn has a record that can't be read at the head of the line.
func TestDamagedTasksAreSetAsideAndTheRestGoesOn(t *testing.T) {
	t.Parallel()
	path := dbPath(t)
	s := open(t, path, nil)
	register(t, s, "w")
	ids := add(t, s, 3, nil)
	raw := rawConn(t, path)
	must(t, sqlitex.ExecuteTransient(raw.db, "UPDATE task SET payload = x'22' WHERE seq = (SELECT min(seq) FROM task)", nil))
	must(t, sqlitex.ExecuteTransient(raw.db, "DELETE FROM task WHERE seq = (SELECT max(seq) FROM task)", nil))
	must(t, raw.close())
	claims := fetch(t, s, "w", 10)
	if len(claims) != 1 || claims[0].ID != ids[1] {
		t.Fatalf("got %d claims, want that of the sound task", len(claims))
	}
	records, err := s.Get(t.Context(), ids[:1])
	must(t, err)
	if r := records[0]; r.State != driver.Discarded || r.Reason != driver.ReasonUndecodable {
		t.Errorf("the damaged task is %s because %s, want discarded as undecodable", r.State, r.Reason)
	}
	settle(t, s, "w", driver.Complete, claims...)
	_, err = s.Audit(t.Context(), true) // for the totals: one task was lost outside the store
	must(t, err)
}

// TestDamagedTasksInEveryState has a record that can't be read in each index. It is set aside when its turn comes, or by
// an audit where it has none, and the others go on.
func TestDamagedTasksInEveryState(t *testing.T) {
	t.Parallel()
	for _, index := range []string{"ready", "due", "pending", "held"} {
		t.Run(index, func(t *testing.T) {
			t.Parallel()
			path, shift := dbPath(t), atomic.Int64{}
			s := open(t, path, &Options{Clock: func() time.Time { return time.Now().Add(time.Duration(shift.Load())) }})
			mixed(t, s)
			raw := rawConn(t, path)
			must(t, sqlitex.ExecuteTransient(raw.db, "UPDATE task SET envelope = x'ff' WHERE seq = (SELECT min(seq) FROM "+index+")", nil))
			var id string
			must(t, sqlitex.ExecuteTransient(raw.db, "SELECT id FROM task WHERE envelope = x'ff'", &sqlitex.ExecOptions{ResultFunc: func(s *sqlite.Stmt) error {
				id = driver.UnpackID(columnBytes(s, 0))
				return nil
			}}))
			must(t, raw.close())
			shift.Store(int64(2 * time.Hour)) // all is due and every lease is over
			workOff := func() {
				register(t, s, "heir")
				_, err := s.Apply(t.Context(), driver.Change{Op: driver.OpRun, Filter: driver.Filter{All: true}})
				must(t, err)
				for range 3 {
					_, err := s.Maintain(t.Context(), 0)
					must(t, err)
					settle(t, s, "heir", driver.Complete, fetch(t, s, "heir", 100)...)
				}
			}
			workOff()
			_, err := s.Audit(t.Context(), true)
			must(t, err)
			wantSound(t, s)
			workOff()
			page, err := s.List(t.Context(), driver.Filter{}, driver.Page{})
			must(t, err)
			for _, r := range page.Records {
				if want := driver.ReasonUndecodable; !r.State.Ended() || r.ID == id && r.Reason != want {
					t.Errorf("%s is %s because %q; the damaged one is %s", r.ID, r.State, r.Reason, id)
				}
			}
		})
	}
}
