package sqlitestore

import (
	"encoding/binary"
	"hash/crc32"
	"math"
	"slices"
	"sync"

	"github.com/waggleq/waggle/driver"
	"zombiezen.com/go/sqlite"
)

// Every row that belongs to a task has a checksum of its own, which is made of the values that are written and compared
// with those that are read: SQLite does not notice a bit that changed on the disk. What does not match is marked in the
// task's record, and found by Audit.

// null stands for NULL in a checksum.
const null = math.MinInt64

// nullable is an integer column for a checksum.
func nullable(s *sqlite.Stmt, col int) int64 {
	if s.ColumnIsNull(col) {
		return null
	}
	return s.ColumnInt64(col)
}

// sumBuffers keep the checksums from allocating: what they are made of is put together first.
var sumBuffers = sync.Pool{New: func() any { b := make([]byte, 0, 512); return &b }}

// sumRow is the checksum of integers and of texts, each with its length.
func sumRow(from uint32, ints []int64, texts ...string) uint32 {
	buf := sumBuffers.Get().(*[]byte)
	b := (*buf)[:0]
	for _, v := range ints {
		b = binary.LittleEndian.AppendUint64(b, uint64(v))
	}
	for _, v := range texts {
		b = binary.LittleEndian.AppendUint32(b, uint32(len(v)))
		b = append(b, v...)
	}
	sum := crc32.Update(from, castagnoli, b)
	if cap(b) <= 64<<10 {
		*buf = b
	}
	sumBuffers.Put(buf)
	return sum
}

// newSum is set in the checksums of tasks that cover the whole row.
const newSum = 1 << 32

// taskSum is the checksum of a row of task; content is that of its blobs.
func taskSum(content, seq, lane, prio, enqueuedAt, at, expires int64, born, uniq string) int64 {
	return newSum | int64(sumRow(uint32(content), []int64{seq, lane, prio, enqueuedAt, at, expires}, born, uniq))
}

// heldSum is the checksum of a row of held. It grows evenly with what differs between the rows of one claim and with what
// is changed later, so that SQL can make it of claimSum.
func heldSum(claim, seq, ord, prio, cancel, reported int64) int64 {
	return claim + seq*3 + ord*5 + prio*7 + cancel<<40 + reported<<42
}

func claimSum(lane, worker, token, claimedAt int64) int64 {
	return int64(sumRow(0, []int64{lane, worker, token, claimedAt}))
}

func endedSum(r *row, queue, lane, extra, started int64) int64 {
	sum := sumRow(0, []int64{r.seq, queue, lane, r.endOrd, r.endedAt, r.kept, r.token, flag(r.settled), r.worker, r.claimedAt, r.attempt, extra, started},
		string(r.standing.state()), r.reason, r.encoding)
	return int64(crc32.Update(sum, castagnoli, r.result))
}

func metaSum(r *row) int64 {
	return int64(sumRow(0, []int64{r.seq, r.due, r.ord, r.attempt, r.crashes, r.token, flag(r.settled), r.worker, r.claimedAt},
		string(r.standing.state()), r.history))
}

func reportSum(seq int64, progress, logs string) int64 {
	return int64(sumRow(0, []int64{seq}, progress, logs))
}

// sumsFrom is the seq from which on every task's rows have checksums.
func (c *conn) sumsFrom() int64 {
	if c.sumFloor == 0 {
		floor, err := c.stmt("sums_from").one()
		if err != nil {
			return 1 // the table is damaged: nothing is taken for granted
		}
		c.sumFloor = max(floor, 1)
	}
	return c.sumFloor
}

// sound compares a checksum; a row of a time before them has none.
func sound(s *sqlite.Stmt, col int, seq, from, sum int64) bool {
	if s.ColumnIsNull(col) {
		return seq < from
	}
	return s.ColumnInt64(col) == sum
}

// taskSound compares the checksum of a task's own row, whose content is known.
func taskSound(sum, content, from, seq, lane, prio, enqueuedAt, at, expires int64, born, uniq string) bool {
	if sum < newSum {
		return seq < from && sum == content
	}
	return sum == taskSum(content, seq, lane, prio, enqueuedAt, at, expires, born, uniq)
}

// missingParts adds the parts of a task whose rows must be somewhere and are not, from the statement record: the number of a
// row can be damaged too.
func (r *row) missingParts(s *sqlite.Stmt, parts []driver.Part) []driver.Part {
	place, ok := s.ColumnText(colRecord+11), true
	switch r.standing {
	case available:
		ok = place == "available"
	case scheduled, retryable:
		ok = place == "due"
	case pending:
		ok = place == "pending"
	case active: // it is in held
	default:
		ok = !s.ColumnIsNull(colEnded)
	}
	if !ok && !slices.Contains(parts, driver.PartAttempts) {
		parts = append(parts, driver.PartAttempts)
	}
	if s.ColumnInt64(colSums+5) == 1 && s.ColumnIsNull(colRecord+7) && !slices.Contains(parts, driver.PartReport) {
		parts = append(parts, driver.PartReport)
	}
	return parts
}

// isFlag reports whether a column is 0 or 1.
func isFlag(s *sqlite.Stmt, col int) bool { return uint64(s.ColumnInt64(col)) <= 1 }

// The columns of the statements work and record that only checksums need.
const (
	colSums   = 41
	colRecord = colSums + 12
)

// damagedParts returns the parts of a task whose rows do not match their checksums, from the statement record.
func (r *row) damagedParts(s *sqlite.Stmt, from int64) []driver.Part {
	var parts []driver.Part
	add := func(ok bool, part driver.Part) {
		if !ok {
			parts = append(parts, part)
		}
	}
	content := checksum(r.packed, r.envelope, r.payload)
	add(taskSound(r.sum, content, from, r.seq, r.laneNo, r.prio, r.enqueuedAt, nullable(s, colSums+1), r.expires, s.ColumnText(colSums), r.uniq) &&
		driver.DecodeEnvelope(r.envelope, new(driver.Task)) == nil, driver.PartTask)
	if !s.ColumnIsNull(colMeta) {
		m := &row{seq: r.seq}
		m.scanMeta(s)
		add(m.standing >= 0 && isFlag(s, colMeta+6) && sound(s, colSums+2, r.seq, from, metaSum(m)), driver.PartAttempts)
	}
	if !s.ColumnIsNull(colHeld) {
		claim := claimSum(s.ColumnInt64(colSums+3), s.ColumnInt64(colHeld), s.ColumnInt64(colHeld+1), s.ColumnInt64(colHeld+3))
		sum := heldSum(claim, r.seq, s.ColumnInt64(colHeld+2), s.ColumnInt64(colSums+4), s.ColumnInt64(colHeld+4), s.ColumnInt64(colSums+5))
		add(uint64(s.ColumnInt64(colHeld+4)) <= 2 && isFlag(s, colSums+5) && sound(s, colSums+6, r.seq, from, sum), driver.PartClaim)
	}
	if !s.ColumnIsNull(colEnded) {
		e := &row{seq: r.seq}
		e.scanEnded(s)
		add(e.standing >= 0 && isFlag(s, colEnded+6) && sound(s, colSums+11, r.seq, from,
			endedSum(e, s.ColumnInt64(colSums+7), s.ColumnInt64(colSums+8), s.ColumnInt64(colSums+9), nullable(s, colSums+10))), driver.PartEnd)
	}
	if !s.ColumnIsNull(colRecord + 7) {
		add(sound(s, colRecord+8, r.seq, from, reportSum(s.ColumnInt64(colRecord+7), s.ColumnText(colRecord+5), s.ColumnText(colRecord+6))), driver.PartReport)
	}
	return parts
}
