package sqlitestore

import (
	"encoding/json"
	"hash/crc32"

	"github.com/waggleq/waggle/driver"
	"zombiezen.com/go/sqlite"
)

// row is all that is stored of a task, whatever table it is in.
type row struct {
	seq                   int64
	id                    string
	packed                []byte
	laneNo                int64
	lane                  *lane // only in the writer
	prio                  int64
	born                  standing
	uniq                  string
	enqueuedAt, expires   int64
	sum                   int64
	envelope, payload     []byte
	size                  int64 // of the payload
	standing              standing
	due, ord              int64
	attempt, crashes      int64
	token                 int64
	settled               bool
	worker                int64
	claimedAt             int64
	history               string
	hasMeta               bool
	cancel                int64
	endOrd, endedAt, kept int64
	reason                string
	started               int64
	hasStarted            bool
	encoding              string
	result                []byte
	decoded               *driver.Task
}

// Columns of the statements work and record.
const (
	colTask  = 0
	colMeta  = 13
	colHeld  = 23
	colEnded = 28
)

func scanRow(s *sqlite.Stmt) *row {
	r := &row{
		seq: s.ColumnInt64(0), packed: columnBytes(s, 1), laneNo: s.ColumnInt64(2), prio: s.ColumnInt64(3),
		uniq: s.ColumnText(5), enqueuedAt: s.ColumnInt64(6), due: s.ColumnInt64(7), expires: s.ColumnInt64(8),
		sum: s.ColumnInt64(9), envelope: columnBytes(s, 10), payload: columnBytes(s, 11), size: s.ColumnInt64(12),
	}
	r.id, r.ord = driver.UnpackID(r.packed), r.seq
	r.standing = available
	if !s.ColumnIsNull(4) {
		r.standing = standingOf(s.ColumnText(4))
	}
	r.born = r.standing
	if s.ColumnIsNull(7) {
		r.due = r.enqueuedAt
	}
	if !s.ColumnIsNull(colMeta) {
		r.scanMeta(s)
	}
	if !s.ColumnIsNull(colHeld) {
		r.standing = active
		r.worker, r.token, r.ord = s.ColumnInt64(colHeld), s.ColumnInt64(colHeld+1), s.ColumnInt64(colHeld+2)
		r.claimedAt, r.cancel = s.ColumnInt64(colHeld+3), s.ColumnInt64(colHeld+4)
		r.settled = false
		r.attempt++
	}
	if !s.ColumnIsNull(colEnded) {
		r.scanEnded(s)
	}
	return r
}

func (r *row) scanMeta(s *sqlite.Stmt) {
	const c = colMeta
	r.hasMeta = true
	r.standing = standingOf(s.ColumnText(c))
	r.due, r.ord, r.attempt, r.crashes = s.ColumnInt64(c+1), s.ColumnInt64(c+2), s.ColumnInt64(c+3), s.ColumnInt64(c+4)
	r.token, r.settled, r.worker, r.claimedAt = s.ColumnInt64(c+5), s.ColumnBool(c+6), s.ColumnInt64(c+7), s.ColumnInt64(c+8)
	r.history = s.ColumnText(c + 9)
}

func (r *row) scanEnded(s *sqlite.Stmt) {
	const c = colEnded
	r.standing = standingOf(s.ColumnText(c))
	r.endOrd, r.endedAt, r.kept, r.reason = s.ColumnInt64(c+1), s.ColumnInt64(c+2), s.ColumnInt64(c+3), s.ColumnText(c+4)
	r.token, r.settled, r.worker, r.claimedAt = s.ColumnInt64(c+5), s.ColumnBool(c+6), s.ColumnInt64(c+7), s.ColumnInt64(c+8)
	r.attempt = s.ColumnInt64(c + 9)
	r.hasStarted, r.started = !s.ColumnIsNull(c+10), s.ColumnInt64(c+10)
	r.encoding, r.result = s.ColumnText(c+11), columnBytes(s, c+12)
}

// load returns the task with a seq, nil if there is none.
func (t *tx) load(seq int64) (*row, error) {
	var r *row
	_, err := t.stmt("work").ints(seq).row(func(s *sqlite.Stmt) error {
		r = scanRow(s)
		return nil
	})
	if err != nil || r == nil {
		return nil, err
	}
	r.lane = t.laneNo(r.laneNo)
	return r, nil
}

// loadWhole is load with the payload and the result.
func (t *tx) loadWhole(seq int64) (*row, error) {
	var r *row
	_, err := t.stmt("record").ints(seq).row(func(s *sqlite.Stmt) error {
		r = scanRow(s)
		return nil
	})
	if err != nil || r == nil {
		return nil, err
	}
	r.lane = t.laneNo(r.laneNo)
	return r, nil
}

// find returns the task with an id, nil if there is none.
func (t *tx) find(id string) (*row, error) {
	seq, err := t.stmt("task_seq").blob(driver.PackID(nil, id)).one()
	if err != nil || seq == 0 {
		return nil, err
	}
	return t.load(seq)
}

// present is the state at the store's present, which may not be recorded yet; see [driver.StateAt].
func (r *row) present(now int64) driver.State {
	return driver.StateAt(r.standing.state(), timeOf(r.due), timeOf(r.expires), timeOf(now))
}

// lapsed reports whether the task has expired, which is not recorded yet.
func (r *row) lapsed(now int64) bool {
	return r.expires != 0 && r.expires <= now && !r.standing.ended() && r.present(now).Ended()
}

// task returns what the envelope says. One that can't be read is as good as empty.
func (r *row) task() *driver.Task {
	if r.decoded == nil {
		r.decoded = &driver.Task{MaxAttempts: driver.DefaultMaxAttempts, CrashLimit: driver.DefaultCrashLimit}
		_ = driver.DecodeEnvelope(r.envelope, r.decoded) // Audit and Fetch look for such records
	}
	return r.decoded
}

// note adds an attempt to the task's history.
func (r *row) note(w *worker, a driver.Attempt) {
	a.Number = int(r.attempt)
	if w != nil {
		a.Worker, a.Host, a.Build = w.id, w.host, w.build
	}
	r.history = encodeJSON(driver.AppendAttempt(decodeHistory(r.history), a))
}

// noteCompletion writes the attempt that completed the task into its history.
func (r *row) noteCompletion(w *worker) {
	r.note(w, driver.Attempt{Outcome: driver.Complete, Started: timeOf(r.started), Ended: timeOf(r.endedAt)})
	r.hasStarted = false
}

func decodeHistory(text string) []driver.Attempt {
	var list []driver.Attempt
	if text != "" {
		_ = json.Unmarshal([]byte(text), &list) // a damaged history is not worth losing the task for
	}
	return list
}

func encodeJSON(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return "" // the types have nothing that can't be encoded, but NaN
	}
	return string(b)
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// checksum guards what is stored of a task against damage that the database does not notice.
func checksum(packedID, envelope, payload []byte) int64 {
	sum := crc32.Update(0, castagnoli, packedID)
	sum = crc32.Update(sum, castagnoli, envelope)
	return int64(crc32.Update(sum, castagnoli, payload))
}
