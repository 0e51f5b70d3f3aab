// Package bareloop is the yardstick for what sits on SQLite: payloads through one table of a bare file with the settings
// of package sqlitestore, inserted, then claimed and deleted, in batches, with nothing of a queue about them.
package bareloop

import (
	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"github.com/waggleq/waggle/driver"
)

// Loop is an open file. It is used by one goroutine at a time.
type Loop struct{ c *sqlite.Conn }

// Open makes a file at path, with the same journal, durability and cache that package sqlitestore asks for.
func Open(path string) (*Loop, error) {
	c, err := sqlite.OpenConn(path, sqlite.OpenReadWrite|sqlite.OpenCreate|sqlite.OpenWAL)
	if err != nil {
		return nil, err
	}
	for _, text := range []string{
		"PRAGMA synchronous=full", "PRAGMA cache_size=-16000", "PRAGMA wal_autocheckpoint=2000",
		"CREATE TABLE task (seq INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE, claimed INTEGER, payload BLOB)",
		"CREATE INDEX task_free ON task (seq) WHERE claimed IS NULL",
	} {
		if err := sqlitex.ExecuteTransient(c, text, nil); err != nil {
			_ = c.Close() // nothing was done with it
			return nil, err
		}
	}
	return &Loop{c}, nil
}

// Close closes the file.
func (l *Loop) Close() error { return l.c.Close() }

// Enqueue inserts n rows with this payload and ids of their own, in one transaction.
func (l *Loop) Enqueue(payload []byte, n int) error {
	if err := l.exec("BEGIN IMMEDIATE"); err != nil {
		return err
	}
	insert, err := l.c.Prepare("INSERT INTO task (id, payload) VALUES (?, ?)")
	if err != nil {
		return err
	}
	for range n {
		insert.BindBytes(1, driver.PackID(nil, driver.NewID()))
		insert.BindBytes(2, payload)
		if err := step(insert); err != nil {
			return err
		}
	}
	return l.exec("COMMIT")
}

// Process claims up to n rows in one transaction and deletes them in another. It returns how many there were.
func (l *Loop) Process(n int) (int, error) {
	if err := l.exec("BEGIN IMMEDIATE"); err != nil {
		return 0, err
	}
	rows, err := l.read(n)
	if err != nil {
		return 0, err
	}
	if err := l.each("UPDATE task SET claimed = 1 WHERE seq = ?", rows); err != nil {
		return 0, err
	}
	for _, text := range []string{"COMMIT", "BEGIN IMMEDIATE"} {
		if err := l.exec(text); err != nil {
			return 0, err
		}
	}
	if err := l.each("DELETE FROM task WHERE seq = ?", rows); err != nil {
		return 0, err
	}
	return len(rows), l.exec("COMMIT")
}

// read returns the first n free rows, and reads their payloads as whoever runs them would.
func (l *Loop) read(n int) ([]int64, error) {
	rows := make([]int64, 0, n)
	q, err := l.c.Prepare("SELECT seq, id, payload FROM task WHERE claimed IS NULL ORDER BY seq LIMIT ?")
	if err != nil {
		return nil, err
	}
	q.BindInt64(1, int64(n))
	for {
		found, err := q.Step()
		if err != nil || !found {
			return rows, err
		}
		rows = append(rows, q.ColumnInt64(0))
		payload := make([]byte, q.ColumnLen(2))
		q.ColumnBytes(2, payload)
	}
}

func (l *Loop) each(text string, rows []int64) error {
	q, err := l.c.Prepare(text)
	if err != nil {
		return err
	}
	for _, seq := range rows {
		q.BindInt64(1, seq)
		if err := step(q); err != nil {
			return err
		}
	}
	return nil
}

func (l *Loop) exec(text string) error {
	q, err := l.c.Prepare(text)
	if err != nil {
		return err
	}
	return step(q)
}

// step runs a statement that returns no rows.
func step(q *sqlite.Stmt) error {
	if _, err := q.Step(); err != nil {
		return err
	}
	return q.Reset()
}
