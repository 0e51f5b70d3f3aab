package sqlitestore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"strings"

	"github.com/waggleq/waggle/driver"
	"zombiezen.com/go/sqlite"
)

// The rows that belong to no single task have a checksum too, in the last column of their table: that of all columns
// before it, in their order. A statement that writes such a row binds all of them, though it may change only some: the
// values come from a copy that was checked when it was read, so that a write never makes damage right. What is known to be
// damaged is written without a checksum, and so stays known. The tables that only say where a task stands (ready, due,
// pending, expiry, queued) have none: Audit derives them from the tasks.

// summed are the tables whose rows end with the checksum of all that is before it.
var summed = []string{"store", "queue", "lane", "uniq", "worker", "event", "plan", "plan_part", "plan_news", "plan_signal", "share", "keyed", "flow"}

// How many columns there are before the checksum, where rows are read whole.
const (
	storeColumns  = 9
	queueColumns  = 14
	laneColumns   = 14
	uniqColumns   = 5
	workerColumns = 10
	eventColumns  = 3
	planColumns   = 13
	shareColumns  = 4
	keyedColumns  = 10
	flowColumns   = 9
)

func sumInt(b []byte, v int64) []byte {
	return binary.LittleEndian.AppendUint64(append(b, 'i'), uint64(v))
}

func sumNull(b []byte) []byte { return append(b, '0') }

func sumText[T string | []byte](b []byte, kind byte, v T) []byte {
	return append(binary.LittleEndian.AppendUint32(append(b, kind), uint32(len(v))), v...)
}

func sumOf(b []byte) int64 { return int64(crc32.Checksum(b, castagnoli)) }

// sealed is stmt for a statement whose parameters are all columns of a row, in their order, and at last its checksum.
func (c *conn) sealed(name string) *stmt {
	q := c.stmt(name)
	q.sealing, q.sum = true, q.sum[:0]
	return q
}

// seal binds the checksum of what was bound. A row that is known to be damaged gets none.
func (q *stmt) seal(damaged bool) *stmt {
	q.sealing = false
	sum := sumOf(q.sum)
	if cap(q.sum) > 64<<10 {
		q.sum = nil
	}
	if damaged {
		return q.null()
	}
	return q.ints(sum)
}

// intact compares n columns, from one on, with the checksum that follows them.
func intact(s *sqlite.Stmt, from, n int) bool {
	if s.ColumnType(from+n) != sqlite.TypeInteger {
		return false
	}
	buf := sumBuffers.Get().(*[]byte)
	b := (*buf)[:0]
	for col := from; col < from+n; col++ {
		switch s.ColumnType(col) {
		case sqlite.TypeInteger:
			b = sumInt(b, s.ColumnInt64(col))
		case sqlite.TypeText:
			b = sumColumn(b, 't', s, col)
		case sqlite.TypeBlob:
			b = sumColumn(b, 'b', s, col)
		default:
			b = sumNull(b)
		}
	}
	sum := sumOf(b)
	if cap(b) <= 64<<10 {
		*buf = b
	}
	sumBuffers.Put(buf)
	return s.ColumnInt64(from+n) == sum
}

func sumColumn(b []byte, kind byte, s *sqlite.Stmt, col int) []byte {
	n := s.ColumnLen(col)
	b = binary.LittleEndian.AppendUint32(append(b, kind), uint32(n))
	at := len(b)
	b = append(b, make([]byte, n)...)
	s.ColumnBytes(col, b[at:])
	return b
}

// rowsum is the SQL function that makes the checksum of a row, for migrations and repairs.
func rowsum(db *sqlite.Conn) error {
	return db.CreateFunction("rowsum", &sqlite.FunctionImpl{NArgs: -1, Deterministic: true, Scalar: func(_ sqlite.Context, args []sqlite.Value) (sqlite.Value, error) {
		var b []byte
		for _, v := range args {
			switch v.Type() {
			case sqlite.TypeInteger:
				b = sumInt(b, v.Int64())
			case sqlite.TypeText:
				b = sumText(b, 't', v.Text())
			case sqlite.TypeBlob:
				b = sumText(b, 'b', v.Blob())
			default:
				b = sumNull(b)
			}
		}
		return sqlite.IntegerValue(sumOf(b)), nil
	}})
}

// damage is an error for a row that does not match its checksum. It is no failure of the database: it concerns what the
// row is about, and nothing else.
type damage struct{ err error }

func (d *damage) Error() string { return d.err.Error() }
func (d *damage) Unwrap() error { return d.err }

func isDamage(err error) bool { _, ok := errors.AsType[*damage](err); return ok }

func damagedf(format string, args ...any) error {
	return &damage{driver.Errorf(driver.ErrCorrupt, "%s is damaged in the store: Audit lists all damage and repairs what it can; or restore the store from a backup", fmt.Sprintf(format, args...))}
}

// rowRef is a row by its table and number.
type rowRef struct {
	statement string
	no        int64
}

// isSound reports whether a row that is read beside others matches its checksum; within a transaction it looks but once. A
// row that is not there is as good as a sound one: what relies on it has other checks.
func (c *conn) isSound(statement string, no int64) bool {
	ref := rowRef{statement, no}
	sound, known := c.sound[ref]
	if !known {
		sound = true
		_, err := c.stmt(statement).ints(no).row(func(s *sqlite.Stmt) error {
			sound = intact(s, 0, s.ColumnCount()-1)
			return nil
		})
		sound = sound && err == nil
		c.sound[ref] = sound
	}
	return sound
}

// rowName names a row for people: its table and the columns that it begins with.
func rowName(table string, s *sqlite.Stmt) string {
	var parts []string
	for col := range min(3, s.ColumnCount()-1) {
		switch s.ColumnType(col) {
		case sqlite.TypeInteger:
			parts = append(parts, fmt.Sprintf("%s %d", s.ColumnName(col), s.ColumnInt64(col)))
		case sqlite.TypeText:
			parts = append(parts, fmt.Sprintf("%s %q", s.ColumnName(col), driver.CutText(s.ColumnText(col), 80)))
		case sqlite.TypeBlob:
			parts = append(parts, fmt.Sprintf("%s %q", s.ColumnName(col), driver.CutText(string(columnBytes(s, col)), 40)))
		}
		if col == 0 && table != "lane" && !strings.HasPrefix(table, "plan_") && s.ColumnType(1) != sqlite.TypeText {
			break
		}
	}
	return table + " " + strings.Join(parts, ", ")
}
