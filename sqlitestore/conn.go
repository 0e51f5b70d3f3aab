package sqlitestore

import (
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/waggleq/waggle/driver"
	"zombiezen.com/go/sqlite"
)

// conn is one connection to the database with its prepared statements. It is used by one goroutine at a time.
type conn struct {
	db    *sqlite.Conn
	stmts map[string]*stmt

	steps    *atomic.Int64 // counts the steps of statements; nil but in tests
	sumFloor int64         // see sumsFrom
	sound    map[rowRef]bool
}

// newConn is for a connection that only this program's statements run on.
func newConn(db *sqlite.Conn) *conn {
	_ = rowsum(db) // without it the statements that need it tell
	return &conn{db: db, stmts: make(map[string]*stmt), sound: make(map[rowRef]bool)}
}

func (c *conn) close() error {
	for _, q := range c.stmts {
		_ = q.s.Finalize() // repeats the error of its last run
	}
	clear(c.stmts)
	return c.db.Close()
}

// stmt is a prepared statement. Its parameters are bound in their order; a failure on the way is kept and returned by
// the call that runs it.
type stmt struct {
	s     *sqlite.Stmt
	n     int
	err   error
	steps *atomic.Int64

	sealing bool // what is bound goes into sum: see sealed
	sum     []byte
}

// stmt returns the named statement, ready to be bound.
func (c *conn) stmt(name string) *stmt {
	q := c.stmts[name]
	if q == nil {
		text, ok := statements[name]
		if !ok {
			return &stmt{err: fmt.Errorf("sqlitestore: there is no statement %q", name)}
		}
		s, _, err := c.db.PrepareTransient(text)
		if err != nil {
			return &stmt{err: dbErr(err)}
		}
		q = &stmt{s: s, steps: c.steps}
		c.stmts[name] = q
	}
	q.n, q.err, q.sealing = 0, nil, false
	return q
}

// another returns a second instance of a named statement, for running several at once. The caller finalizes it.
func (c *conn) another(name string) *stmt {
	s, _, err := c.db.PrepareTransient(statements[name])
	if err != nil {
		return &stmt{err: dbErr(err)}
	}
	return &stmt{s: s, steps: c.steps}
}

func (q *stmt) ints(values ...int64) *stmt {
	for _, v := range values {
		q.n++
		if q.s != nil {
			q.s.BindInt64(q.n, v)
		}
		if q.sealing {
			q.sum = sumInt(q.sum, v)
		}
	}
	return q
}

func (q *stmt) blob(b []byte) *stmt {
	q.n++
	if q.s != nil {
		q.s.BindBytes(q.n, b)
	}
	if q.sealing {
		q.sum = sumText(q.sum, 'b', b)
	}
	return q
}

func (q *stmt) text(s string) *stmt {
	q.n++
	if q.s != nil {
		q.s.BindText(q.n, s)
	}
	if q.sealing {
		q.sum = sumText(q.sum, 't', s)
	}
	return q
}

func (q *stmt) null() *stmt {
	q.n++
	if q.s != nil {
		q.s.BindNull(q.n)
	}
	if q.sealing {
		q.sum = sumNull(q.sum)
	}
	return q
}

// optText binds NULL for the empty string.
func (q *stmt) optText(s string) *stmt {
	if s == "" {
		return q.null()
	}
	return q.text(s)
}

// optInt binds NULL for 0.
func (q *stmt) optInt(v int64) *stmt {
	if v == 0 {
		return q.null()
	}
	return q.ints(v)
}

// exec runs a statement that returns no rows.
func (q *stmt) exec() error {
	_, err := q.step()
	q.reset()
	return err
}

// row runs a statement for its first row, and reports whether there was one. scan may be nil.
func (q *stmt) row(scan func(*sqlite.Stmt) error) (bool, error) {
	found, err := q.step()
	if err == nil && found && scan != nil {
		err = scan(q.s)
	}
	q.reset()
	return found, err
}

// rows runs a statement and calls scan for every row.
func (q *stmt) rows(scan func(*sqlite.Stmt) error) error {
	for {
		found, err := q.step()
		if err == nil && found {
			err = scan(q.s)
		}
		if err != nil || !found {
			q.reset()
			return err
		}
	}
}

func (q *stmt) step() (bool, error) {
	if q.err != nil {
		return false, q.err
	}
	if q.steps != nil {
		q.steps.Add(1)
	}
	found, err := q.s.Step()
	if err != nil {
		return false, dbErr(err)
	}
	return found, nil
}

// prepared looks at a statement that is not run.
func (q *stmt) prepared(look func(*sqlite.Stmt)) error {
	if q.err == nil {
		look(q.s)
	}
	return q.err
}

// reset ends the statement's run. An error was returned by the step before.
func (q *stmt) reset() {
	if q.s != nil {
		_ = q.s.Reset()
	}
}

// one runs a statement whose first row has one integer; 0 if there is no row.
func (q *stmt) one() (int64, error) {
	var v int64
	_, err := q.row(func(s *sqlite.Stmt) error {
		v = s.ColumnInt64(0)
		return nil
	})
	return v, err
}

func (c *conn) changes() int { return c.db.Changes() }

func columnBytes(s *sqlite.Stmt, col int) []byte {
	n := s.ColumnLen(col)
	if n == 0 {
		return nil
	}
	b := make([]byte, n)
	s.ColumnBytes(col, b)
	return b
}

// failure is an error of the database, as opposed to one that the contract foresees.
type failure struct {
	code sqlite.ResultCode
	err  error
}

func (f *failure) Error() string   { return f.err.Error() }
func (f *failure) Unwrap() error   { return f.err }
func isFailure(err error) bool     { _, ok := errors.AsType[*failure](err); return ok }
func isBusy(err error) bool        { return primary(err) == sqlite.ResultBusy }
func isInterrupted(err error) bool { return primary(err) == sqlite.ResultInterrupt }

func primary(err error) sqlite.ResultCode {
	if f, ok := errors.AsType[*failure](err); ok {
		return f.code.ToPrimary()
	}
	return sqlite.ResultOK
}

// dbErr turns an error of the database into one that tells what it means for the store.
func dbErr(err error) error {
	if err == nil {
		return nil
	}
	code := sqlite.ErrCode(err)
	text, sentinel := classify(code)
	return &failure{code: code, err: driver.Errorf(sentinel, "%s (%w)", text, err)}
}

func classify(code sqlite.ResultCode) (text string, sentinel error) {
	switch code {
	case sqlite.ResultIOErrSHMSize, sqlite.ResultIOErrSHMMap:
		return "the disk that holds the database is full", driver.ErrStoreFull
	}
	switch code.ToPrimary() {
	case sqlite.ResultFull:
		return "the database can't grow: its disk is full or its size limit is reached", driver.ErrStoreFull
	case sqlite.ResultCorrupt, sqlite.ResultNotADB:
		return "the database file is damaged: stop all workers, keep a copy of it, and restore it from a backup", driver.ErrCorrupt
	case sqlite.ResultBusy, sqlite.ResultLocked:
		return "another process keeps the database locked", driver.ErrUnavailable
	case sqlite.ResultReadOnly, sqlite.ResultPerm, sqlite.ResultAuth:
		return "the database file can't be written: check its owner and mode", driver.ErrUnavailable
	case sqlite.ResultCantOpen:
		return "the database file can't be opened: check that its directory exists, and that both may be read and written", driver.ErrUnavailable
	case sqlite.ResultInterrupt:
		return "the call was interrupted", driver.ErrUnavailable
	}
	return "the database failed", driver.ErrUnavailable
}

// str runs a statement whose first row has one text; "" if there is no row.
func (q *stmt) str() (string, error) {
	v := ""
	_, err := q.row(func(s *sqlite.Stmt) error {
		v = s.ColumnText(0)
		return nil
	})
	return v, err
}

// until runs a statement and calls scan for its rows until it returns false.
func (q *stmt) until(scan func(*sqlite.Stmt) (bool, error)) error {
	defer q.reset()
	for {
		found, err := q.step()
		if err != nil || !found {
			return err
		}
		if more, err := scan(q.s); err != nil || !more {
			return err
		}
	}
}
