package sqlitestore

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"zombiezen.com/go/sqlite/sqlitex"

	"github.com/waggleq/waggle/driver"
)

// keyedMix fills a store with tasks of keys: active, waiting for another attempt, available, and parked at a limit.
func keyedMix(t testing.TB, s *Store) {
	t.Helper()
	register(t, s, "w")
	limits := []driver.Limit{{PerKey: true, Concurrency: 2}}
	_, err := s.SetQueue(t.Context(), driver.DefaultQueue, driver.QueuePatch{Limits: &limits})
	must(t, err)
	add(t, s, 12, func(i int, task *driver.Task) { task.Key = fmt.Sprint("k", i%2) })
	claims := fetch(t, s, "w", 10)
	errs, err := driver.SettleErrors(s.Settle(t.Context(), "w", []driver.Settlement{{ID: claims[0].ID, Token: claims[0].Token, Outcome: driver.Retry, Delay: time.Hour}}))
	must(t, err)
	must(t, errs[0])
	settle(t, s, "w", driver.Complete, claims[1])
	fetch(t, s, "w", 1)
}

// TestAuditFindsAndRepairsKeys spoils what is kept of keys, one thing at a time, and has it found and repaired.
func TestAuditFindsAndRepairsKeys(t *testing.T) {
	t.Parallel()
	cases := map[string]struct{ spoil, kind string }{
		"no entry in queued":      {"DELETE FROM queued WHERE seq = (SELECT min(seq) FROM queued)", "wrong-place"},
		"an entry without a task": {"INSERT INTO queued VALUES (999999, 1, 0, 1, 0, 999999)", "orphan-row"},
		"queued and held":         {"INSERT INTO queued SELECT seq, lane, prio, 1, 0, ord FROM held LIMIT 1", "wrong-place"},
		"under another key":       {"UPDATE queued SET key = 3 - key WHERE seq = (SELECT min(seq) FROM queued)", "wrong-key"},
		"a flow miscounted":       {"UPDATE flow SET n = n + 1", "wrong-flow"},
		"a flow without its head": {"UPDATE flow SET head = head + 1", "wrong-flow"},
		"flows lost":              {"DELETE FROM flow", "wrong-flow"},
		"parked wrongly":          {"UPDATE flow SET parked = 1 - parked", "wrong-flow"},
		"keys lost":               {"DELETE FROM keyed", "wrong-key"},
		"a slot that leaks":       {`UPDATE keyed SET held = '{"1":2}'`, "wrong-key"},
		"a slot too many":         {"UPDATE keyed SET held = '{}'", "wrong-key"},
		"waiting miscounted":      {"UPDATE keyed SET waiting = waiting + 1", "wrong-key"},
		"unreadable":              {"UPDATE keyed SET held = 'x'", "wrong-key"},
		"a lane miscounted":       {"UPDATE lane SET parked = parked + 1, flowing = flowing - 1", "wrong-count"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := dbPath(t)
			s := open(t, path, nil)
			keyedMix(t, s)
			wantSound(t, s)
			raw := rawConn(t, path)
			must(t, sqlitex.ExecuteTransient(raw.db, c.spoil, nil))
			if raw.changes() == 0 {
				t.Fatal("nothing was spoilt")
			}
			must(t, raw.close())
			findings, err := s.Audit(t.Context(), false)
			must(t, err)
			if !slices.ContainsFunc(findings, func(f driver.Finding) bool { return f.Kind == c.kind && f.Detail != "" }) {
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
			none := []driver.Limit{}
			_, err = s.SetQueue(t.Context(), driver.DefaultQueue, driver.QueuePatch{Limits: &none})
			must(t, err)
			if n, want := len(fetch(t, s, "w", 100)), int(counts(t, s)[driver.Available]); n == 0 || want != 0 {
				t.Errorf("the repaired store gives out %d tasks and keeps %d", n, want)
			}
		})
	}
}
