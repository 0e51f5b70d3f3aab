package room

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"
)

const (
	// hearMost is how late a web server hears of what another process wrote to the file.
	hearMost  = 15 * time.Millisecond
	hintsKept = 1000
	// writeMost is how long a write waits for those of other processes, which SQLite lets in without an order.
	writeMost = 10 * time.Second
)

//go:embed schema.sql
var schema string

// sqliteDatabase keeps the rooms in a SQLite file, for processes of one machine. What it has written is on disk.
type sqliteDatabase struct {
	pool    *sqlitex.Pool
	hinting chan struct{} // holds one while a hint is written
	writing chan struct{} // holds one while this process writes: its writes take turns
}

func openSQLite(path string) (*sqliteDatabase, error) {
	pool, err := sqlitex.NewPool(path, sqlitex.PoolOptions{PoolSize: 8, PrepareConn: func(c *sqlite.Conn) error {
		c.SetBlockOnBusy()
		return sqlitex.ExecuteTransient(c, "PRAGMA synchronous = FULL", nil)
	}})
	if err != nil {
		return nil, err
	}
	db := &sqliteDatabase{pool, make(chan struct{}, 1), make(chan struct{}, 1)}
	err = db.with(context.Background(), func(c *sqlite.Conn) error { return sqlitex.ExecuteScript(c, schema, nil) })
	return db, err
}

// with lends a connection, whose statements end with ctx.
func (db *sqliteDatabase) with(ctx context.Context, f func(*sqlite.Conn) error) error {
	c, err := db.pool.Take(ctx)
	if err != nil {
		return unavailable(err)
	}
	defer db.pool.Put(c)
	err = f(c)
	switch sqlite.ErrCode(err).ToPrimary() {
	case sqlite.ResultBusy, sqlite.ResultLocked, sqlite.ResultInterrupt, sqlite.ResultFull, sqlite.ResultIOErr:
		return unavailable(err)
	}
	return err
}

// write is one transaction, on disk when it returns nil.
func (db *sqliteDatabase) write(ctx context.Context, f func(*sqlite.Conn) error) error {
	ctx, cancel := context.WithTimeout(ctx, writeMost)
	defer cancel()
	select {
	case db.writing <- struct{}{}:
		defer func() { <-db.writing }()
	case <-ctx.Done():
		return unavailable(context.Cause(ctx))
	}
	return db.with(ctx, func(c *sqlite.Conn) (err error) {
		end, err := sqlitex.ImmediateTransaction(c)
		if err != nil {
			return err
		}
		defer end(&err)
		return f(c)
	})
}

// query runs a statement and calls row for each of its rows.
func query(c *sqlite.Conn, text string, row func(*sqlite.Stmt) error, args ...any) error {
	return sqlitex.Execute(c, text, &sqlitex.ExecOptions{Args: args, ResultFunc: row})
}

// known returns the sum and the number of a message, empty and 0 if it has none.
func known(c *sqlite.Conn, room, id string) (sum string, number int64, err error) {
	err = query(c, "SELECT sum, number FROM message WHERE room = ? AND id = ?", func(s *sqlite.Stmt) error {
		sum, number = s.ColumnText(0), s.ColumnInt64(1)
		return nil
	}, room, id)
	return sum, number, err
}

// announced is what Announce does in its transaction, and Store again.
func announced(c *sqlite.Conn, room, id, want string) (int64, error) {
	sum, number, err := known(c, room, id)
	switch {
	case err != nil:
		return 0, err
	case sum != "" && sum != want:
		return 0, ErrConflict
	case sum == "":
		err = query(c, "INSERT INTO message (room, id, sum) VALUES (?, ?, ?)", nil, room, id, want)
	}
	return number, err
}

func (db *sqliteDatabase) Announce(ctx context.Context, room string, h Head) (number int64, err error) {
	err = db.write(ctx, func(c *sqlite.Conn) (err error) {
		number, err = announced(c, room, h.ID, h.Sum)
		return err
	})
	return number, err
}

func (db *sqliteDatabase) Store(ctx context.Context, room string, chunks []Chunk) ([]Stored, error) {
	stored := make([]Stored, len(chunks))
	err := db.write(ctx, func(c *sqlite.Conn) error {
		for i, k := range chunks {
			var err error
			if stored[i], err = storeChunk(c, room, &k); err != nil {
				return err
			}
		}
		return nil
	})
	return stored, err
}

func storeChunk(c *sqlite.Conn, room string, k *Chunk) (Stored, error) {
	number, err := announced(c, room, k.ID, k.Sum)
	switch {
	case errors.Is(err, ErrConflict):
		return Stored{Conflict: true}, nil
	case err != nil || number > 0:
		return Stored{Number: number}, err
	}
	if err := query(c, "INSERT OR IGNORE INTO chunk VALUES (?, ?, ?, ?)", nil, room, k.ID, k.N, k.Text); err != nil {
		return Stored{}, err
	}
	var s Stored
	err = query(c, "SELECT count(*) FROM chunk WHERE room = ? AND id = ?", func(r *sqlite.Stmt) error {
		s.Count = r.ColumnInt(0)
		return nil
	}, room, k.ID)
	return s, err
}

func (db *sqliteDatabase) Chunks(ctx context.Context, room string, h Head) (chunks []string, err error) {
	err = db.with(ctx, func(c *sqlite.Conn) error {
		return query(c, "SELECT chunk FROM chunk WHERE room = ? AND id = ? ORDER BY n", func(s *sqlite.Stmt) error {
			chunks = append(chunks, s.ColumnText(0))
			return nil
		}, room, h.ID)
	})
	if err == nil && len(chunks) < h.Of { // they go when the message gets its number
		return nil, nil
	}
	return chunks, err
}

func (db *sqliteDatabase) Append(ctx context.Context, room string, messages []Message) ([]int64, error) {
	numbers := make([]int64, len(messages))
	err := db.write(ctx, func(c *sqlite.Conn) error {
		for i := range messages {
			var err error
			if numbers[i], err = appendOne(c, room, &messages[i]); err != nil {
				return err
			}
		}
		return hint(c, room, Hint{Kind: HintLog})
	})
	return numbers, err
}

func appendOne(c *sqlite.Conn, room string, m *Message) (number int64, err error) {
	if _, number, err = known(c, room, m.ID); err != nil || number > 0 {
		return number, err
	}
	if number, err = length(c, room); err != nil {
		return 0, err
	}
	number++
	return number, errors.Join(
		query(c, "INSERT INTO log VALUES (?, ?, ?)", nil, room, number, encodeEntry(m)),
		query(c, "UPDATE message SET number = ? WHERE room = ? AND id = ?", nil, number, room, m.ID),
		query(c, "DELETE FROM chunk WHERE room = ? AND id = ?", nil, room, m.ID))
}

func length(c *sqlite.Conn, room string) (n int64, err error) {
	err = query(c, "SELECT max(number) FROM log WHERE room = ?", func(s *sqlite.Stmt) error {
		n = s.ColumnInt64(0) // 0 for NULL
		return nil
	}, room)
	return n, err
}

func (db *sqliteDatabase) Log(ctx context.Context, room string, after int64, most int) (entries []Entry, err error) {
	err = db.with(ctx, func(c *sqlite.Conn) error {
		return query(c, "SELECT number, entry FROM log WHERE room = ? AND number > ? ORDER BY number LIMIT ?", func(s *sqlite.Stmt) error {
			e, err := decodeEntry(s.ColumnInt64(0), s.ColumnText(1))
			entries = append(entries, e)
			return err
		}, room, after, most)
	})
	return entries, err
}

func (db *sqliteDatabase) Length(ctx context.Context, room string) (n int64, err error) {
	err = db.with(ctx, func(c *sqlite.Conn) (err error) {
		n, err = length(c, room)
		return err
	})
	return n, err
}

// Watch reads the hints that other processes have left.
func (db *sqliteDatabase) Watch(ctx context.Context, room string, f func(Hint)) {
	last := int64(-1)
	tick := time.NewTicker(hearMost)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		_ = db.with(ctx, func(c *sqlite.Conn) (err error) { // a failure: the next tick looks again
			if last < 0 {
				last, err = lastHint(c)
				return err
			}
			return query(c, "SELECT number, hint FROM hint WHERE number > ? AND room = ? ORDER BY number", func(s *sqlite.Stmt) error {
				last = s.ColumnInt64(0)
				var h Hint
				if json.Unmarshal([]byte(s.ColumnText(1)), &h) == nil {
					f(h)
				}
				return nil
			}, last, room)
		})
	}
}

func lastHint(c *sqlite.Conn) (n int64, err error) {
	err = query(c, "SELECT max(number) FROM hint", func(s *sqlite.Stmt) error {
		n = s.ColumnInt64(0)
		return nil
	})
	return n, err
}

func hint(c *sqlite.Conn, room string, h Hint) error {
	return errors.Join(
		query(c, "INSERT INTO hint (room, hint) VALUES (?, ?)", nil, room, encoded(h)),
		query(c, "DELETE FROM hint WHERE number <= (SELECT max(number) FROM hint) - ?", nil, hintsKept))
}

func (db *sqliteDatabase) Hint(room string, h Hint) {
	select {
	case db.hinting <- struct{}{}:
	default:
		return // the file has more to do: nothing depends on it
	}
	go func() {
		_ = db.write(context.Background(), func(c *sqlite.Conn) error { return hint(c, room, h) }) // lost: see above
		<-db.hinting
	}()
}

func (db *sqliteDatabase) Close() error {
	if err := db.pool.Close(); err != nil {
		return fmt.Errorf("close the rooms: %w", err)
	}
	return nil
}
