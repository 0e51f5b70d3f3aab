package sqlitestore

import (
	"fmt"
	"testing"
	"time"

	"github.com/waggleq/waggle/driver"
)

// keyRows are the rows of table keyed by key: what is active, what waits, and by lane.
func keyRows(t *testing.T, s *Store) map[string]string {
	t.Helper()
	rows := map[string]string{}
	err := s.read(t.Context(), func(c *conn) error {
		q, _, err := c.db.PrepareTransient("SELECT key, active, waiting, held FROM keyed")
		if err != nil {
			return err
		}
		defer func() { _ = q.Finalize() }()
		for {
			found, err := q.Step()
			if err != nil || !found {
				return err
			}
			rows[q.ColumnText(0)] = fmt.Sprintf("%d %d %s", q.ColumnInt64(1), q.ColumnInt64(2), q.ColumnText(3))
		}
	})
	must(t, err)
	return rows
}

func byKey(_ int, task *driver.Task) { task.Key = "k" }

func perKey(n int) driver.QueuePatch {
	limits := []driver.Limit{{PerKey: true, Concurrency: n}}
	return driver.QueuePatch{Limits: &limits}
}

// A queue without limits for keys or their order counts nothing of them: it begins and ends with the configuration.
func TestKeysAreCountedWhereItIsAskedFor(t *testing.T) {
	t.Parallel()
	s := open(t, dbPath(t), nil)
	register(t, s, "w")
	add(t, s, 4, byKey)
	claims := fetch(t, s, "w", 2)
	want := func(when, row string) {
		t.Helper()
		if got := keyRows(t, s)["k"]; got != row {
			t.Errorf("%s: the key has %q, want %q", when, got, row)
		}
		wantSound(t, s)
	}
	want("two are active", "0 0 {}")
	_, err := s.Settle(t.Context(), "w", []driver.Settlement{{ID: claims[0].ID, Token: claims[0].Token, Outcome: driver.Retry, Delay: time.Hour}})
	must(t, err)
	want("one waits for its retry", "0 0 {}")
	_, err = s.SetQueue(t.Context(), "default", perKey(1))
	must(t, err)
	want("with a limit", `1 1 {"1":1}`)
	if got := fetch(t, s, "w", 1); len(got) != 0 {
		t.Errorf("%d tasks start beyond the limit", len(got))
	}
	settle(t, s, "w", driver.Complete, claims[1])
	want("none is active", "0 1 {}")
	if got := fetch(t, s, "w", 2); len(got) != 1 {
		t.Errorf("%d tasks start, want one", len(got))
	}
	want("one is active", `1 1 {"1":1}`)
	_, err = s.SetQueue(t.Context(), "default", driver.QueuePatch{Limits: &[]driver.Limit{}})
	must(t, err)
	want("without the limit", "0 0 {}")
}

// The end of a task writes nothing of its key where nothing is counted.
func TestAnEndLeavesItsKeyAlone(t *testing.T) {
	t.Parallel()
	s := open(t, dbPath(t), nil)
	register(t, s, "w")
	add(t, s, 2, byKey)
	claims := fetch(t, s, "w", 1)
	must(t, s.write(t.Context(), func(tx *tx) error { // whoever writes the row meanwhile fails
		return tx.run("CREATE TRIGGER untouched BEFORE UPDATE ON keyed BEGIN SELECT raise(ABORT, 'written'); END")
	}))
	settle(t, s, "w", driver.Complete, claims...)
	must(t, s.write(t.Context(), func(tx *tx) error { return tx.run("DROP TRIGGER untouched") }))
}

// A store of before may have counted everywhere. What is damaged stays so.
func TestMigrationForgetsWhatIsNotCounted(t *testing.T) {
	t.Parallel()
	path := dbPath(t)
	s, err := Open(t.Context(), path, nil)
	must(t, err)
	register(t, s, "w")
	for _, queue := range []string{"default", "limited", "ordered"} {
		add(t, s, 2, func(_ int, task *driver.Task) { task.Queue, task.Key = queue, queue })
	}
	add(t, s, 2, func(_ int, task *driver.Task) { task.Key = "damaged" })
	_, err = s.SetQueue(t.Context(), "limited", perKey(1))
	must(t, err)
	hold := driver.KeysHold
	_, err = s.SetQueue(t.Context(), "ordered", driver.QueuePatch{Keys: &hold})
	must(t, err)
	res, err := s.Fetch(t.Context(), driver.FetchRequest{Worker: "w", Lease: driver.DefaultLease, Queues: []string{"limited", "ordered"}, Max: 10})
	must(t, err)
	if len(res.Claims) != 2 {
		t.Fatalf("%d tasks were claimed, want one of each key", len(res.Claims))
	}
	fetch(t, s, "w", 2)
	must(t, s.write(t.Context(), func(tx *tx) error {
		for _, text := range []string{
			"UPDATE keyed SET active = 1, held = '{\"1\":1}', sum = rowsum(no, queue, key, tag, waiting, 1, queued, until, '{\"1\":1}', arrivals) WHERE key = 'default'",
			"UPDATE keyed SET active = 1 WHERE key = 'damaged'",
			"PRAGMA user_version = 7",
		} {
			if err := tx.run(text); err != nil {
				return err
			}
		}
		return nil
	}))
	must(t, s.Close())

	s, err = Open(t.Context(), path, nil)
	must(t, err)
	defer func() { must(t, s.Close()) }()
	rows := keyRows(t, s)
	for key, want := range map[string]string{"default": "0 0 {}", "limited": `1 0 {"2":1}`, "ordered": `1 0 {"3":1}`, "damaged": "1 0 {}"} {
		if rows[key] != want {
			t.Errorf("key %s has %q, want %q", key, rows[key], want)
		}
	}
	findings, err := s.Audit(t.Context(), true)
	must(t, err)
	if len(findings) == 0 {
		t.Error("the damaged row became right")
	}
	wantSound(t, s)
}
