package sqlitestore

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"zombiezen.com/go/sqlite/sqlitex"

	"github.com/waggleq/waggle/driver"
)

// FuzzStoredTask puts bytes of any kind where a task is stored. Whatever they are, the task can be looked at, printed
// and listed, the tasks beside it are worked off, and an audit that repairs leaves a sound store.
func FuzzStoredTask(f *testing.F) {
	task := &driver.Task{ID: "damaged", Type: "t", Headers: map[string]string{"a": "b"}, Tags: []string{"x"}, At: time.UnixMilli(1_700_000_000_000)}
	f.Add([]byte("\xffdamaged"), driver.AppendEnvelope(nil, task), []byte("null"), int64(1_700_000_000_000), int64(0), `[{"attempt":1,"error":"e"}]`, `[{"message":"m"}]`)
	f.Add([]byte{}, []byte{9}, []byte("{"), int64(-1), int64(1<<62), `{`, `[1]`)
	f.Fuzz(func(t *testing.T, id, envelope, payload []byte, at, sum int64, history, logs string) {
		s := open(t, dbPath(t), nil)
		add(t, s, 1, func(_ int, task *driver.Task) { task.ID = "damaged" })
		add(t, s, 1, func(_ int, task *driver.Task) { task.ID = "sound" })
		raw, err := s.connect(false)
		must(t, err)
		defer func() { must(t, raw.close()) }()
		run := func(text string, args ...any) error {
			return sqlitex.ExecuteTransient(raw.db, text, &sqlitex.ExecOptions{Args: args})
		}
		must(t, run("UPDATE store SET sums_from = 1000")) // rows without checksums will do
		must(t, raw.sealWhere("store", "UPDATE store SET sum = rowsum(%c)"))
		if sum == 0 {
			sum = checksum(id, envelope, payload) // damage that has a matching sum
		}
		if run("UPDATE task SET id=?, envelope=?, payload=?, enqueued_at=?, at=?, sum=? WHERE seq=(SELECT min(seq) FROM task)", id, envelope, payload, at, at, sum) != nil {
			return // the database itself does not take it: the id is there twice
		}
		must(t, run("INSERT INTO meta SELECT min(seq), 'available', ?, min(seq), 1, 0, 0, 0, 0, ?, ?, NULL FROM task", at, at, history))
		must(t, run("INSERT INTO report SELECT min(seq), ?, ?, NULL FROM task", logs, logs))

		page, err := s.List(t.Context(), driver.Filter{}, driver.Page{})
		if err != nil || len(page.Records) != 2 {
			t.Fatalf("the list has %d tasks, %v", len(page.Records), err)
		}
		for _, r := range page.Records {
			if _, err := json.Marshal(r); err != nil {
				t.Errorf("the record can't be printed: %v", err)
			}
		}
		register(t, s, "w")
		claims := fetch(t, s, "w", 10)
		settle(t, s, "w", driver.Complete, claims...)
		if got, err := s.Get(t.Context(), []string{"sound"}); err != nil || got[0] == nil || got[0].State != driver.Completed {
			t.Errorf("the sound task: %+v, %v", got, err)
		}
		_, err = s.Audit(t.Context(), true) // open looks whether all is sound now
		must(t, err)
	})
}

// FuzzColumns hands the decoders of JSON columns what they have not written.
func FuzzColumns(f *testing.F) {
	f.Add(`[{"attempt":1,"outcome":"retry","started":"2030-01-01T00:00:00Z"}]`, `[{"message":"m","attrs":"a=b"}]`)
	f.Add(`[{"attempt":1},2]`, "\xff")
	f.Fuzz(func(t *testing.T, history, logs string) {
		attempts := decodeHistory(history)
		if diff := cmp.Diff(attempts, decodeHistory(encodeJSON(attempts)), cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("the history came back as (-want +got):\n%s", diff)
		}
		lines := decodeLogs(logs)
		if diff := cmp.Diff(lines, decodeLogs(encodeJSON(lines)), cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("the log came back as (-want +got):\n%s", diff)
		}
	})
}

func FuzzParseCursor(f *testing.F) {
	s := &Store{incarn: "00000000-0000-7000-8000-000000000000"}
	f.Add(s.cursor("list", 77))
	f.Add(s.cursor("events", 0))
	f.Add("list:x:-1")
	f.Fuzz(func(t *testing.T, text string) {
		for _, of := range []string{"list", "events"} {
			n, err := s.parseCursor(of, text)
			if err != nil {
				continue
			}
			if again, err := s.parseCursor(of, s.cursor(of, n)); n < 0 || err != nil || again != n {
				t.Errorf("%q is the place %d, which came back as %d, %v", text, n, again, err)
			}
		}
	})
}
