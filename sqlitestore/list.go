package sqlitestore

import (
	"cmp"
	"context"
	"encoding/json"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/waggleq/waggle/driver"
	"zombiezen.com/go/sqlite"
)

// record returns the record of a task as it was recorded last, nil if there is none. Of one that can't be read it returns what can.
func (c *conn) record(seq int64) (*driver.Record, error) {
	var rec *driver.Record
	var lane, queue, worker int64
	from := c.sumsFrom()
	_, err := c.stmt("record").ints(seq).row(func(s *sqlite.Stmt) error {
		r := scanRow(s)
		rec = r.record(s.ColumnText(colRecord), s.ColumnText(colRecord+1))
		rec.Worker = s.ColumnText(colRecord + 2)
		rec.Damaged = r.damagedParts(s, from)
		if r.hasStarted {
			rec.Attempts = driver.AppendAttempt(rec.Attempts, driver.Attempt{Number: rec.Attempt, Outcome: driver.Complete, Worker: rec.Worker,
				Host: s.ColumnText(colRecord + 3), Build: s.ColumnText(colRecord + 4), Started: timeOf(r.started), Ended: rec.EndedAt})
		}
		if text := s.ColumnText(colRecord + 5); text != "" {
			rec.Progress = new(driver.Progress)
			_ = json.Unmarshal([]byte(text), rec.Progress) // what can be read of it
		}
		rec.Logs = decodeLogs(s.ColumnText(colRecord + 6))
		rec.Damaged = r.missingParts(s, rec.Damaged)
		worker = s.ColumnInt64(colRecord + 9)
		lane, queue = r.laneNo, s.ColumnInt64(colRecord+10)
		return nil
	})
	if rec == nil || err != nil {
		return rec, err
	}
	if !c.isSound("lane_row", lane) || !c.isSound("queue_row", queue) || rec.Queue == "" {
		rec.Damaged = append(rec.Damaged, driver.PartQueue)
	}
	if worker != 0 && !c.isSound("worker_by_no", worker) {
		rec.Damaged = append(rec.Damaged, driver.PartWorker)
	}
	return rec, nil
}

func (r *row) record(queue, typ string) *driver.Record {
	rec := &driver.Record{
		Task:  *r.task(),
		State: r.standing.state(), Attempt: int(r.attempt), Crashes: int(r.crashes), CancelRequested: r.cancel > 0,
		EnqueuedAt: timeOf(r.enqueuedAt), DueAt: timeOf(r.due), ClaimedAt: timeOf(r.claimedAt), Token: driver.Token(r.token),
		Attempts: decodeHistory(r.history),
	}
	rec.ID, rec.Type, rec.Queue, rec.Priority, rec.Payload = r.id, typ, queue, int(r.prio), r.payload
	if r.standing.ended() {
		rec.Reason, rec.EndedAt = driver.Reason(r.reason), timeOf(r.endedAt)
		rec.Result, rec.ResultEncoding = r.result, driver.Encoding(r.encoding)
	}
	return rec
}

// Get implements [driver.Inspector].
func (s *Store) Get(ctx context.Context, ids []string) ([]*driver.Record, error) {
	records := make([]*driver.Record, len(ids))
	err := s.read(ctx, func(c *conn) error {
		for i, id := range ids {
			seq, err := c.seqOf(id)
			if err != nil {
				return err
			}
			if seq == 0 {
				continue
			}
			if records[i], err = c.recordAt(seq, s.now()); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return records, nil
}

// recordAt returns the record of a task as it stands at a time, nil if there is none.
func (c *conn) recordAt(seq, now int64) (*driver.Record, error) {
	rec, err := c.record(seq)
	if rec != nil {
		rec.Present(timeOf(now))
	}
	return rec, err
}

func (c *conn) seqOf(id string) (int64, error) {
	return c.stmt("task_seq").blob(driver.PackID(nil, id)).one()
}

// List implements [driver.Inspector].
func (s *Store) List(ctx context.Context, f driver.Filter, page driver.Page) (*driver.RecordPage, error) {
	size, err := driver.CheckPage(page)
	if err != nil {
		return nil, err
	}
	if err := f.Validate(); err != nil {
		return nil, err
	}
	from := int64(math.MaxInt64)
	if page.Cursor != "" {
		if from, err = s.parseCursor("list", page.Cursor); err != nil {
			return nil, err
		}
	}
	res := &driver.RecordPage{}
	last := from
	scan := newScan(&f, f.States, true, s.now(), size)
	for more := true; more; {
		// Each part is a snapshot of its own, so that a long search does not keep the log from being written back.
		err := s.read(ctx, func(c *conn) error {
			seqs, left, err := scan.next(c, from)
			more = left
			for _, seq := range seqs {
				from = seq
				rec, err := c.recordAt(seq, scan.now)
				if err != nil {
					return err
				}
				if rec == nil || !f.Match(rec) {
					continue
				}
				if len(res.Records) == size {
					res.Next, more = s.cursor("list", last), false
					return nil
				}
				res.Records, last = append(res.Records, rec), seq
			}
			return err
		})
		if err != nil {
			return nil, err
		}
		from = scan.reached
	}
	return res, nil
}

// cursor returns a cursor that no other list and no other store takes for its own.
func (s *Store) cursor(of string, n int64) string {
	return of + ":" + s.incarn + ":" + strconv.FormatInt(n, 36)
}

func (s *Store) parseCursor(of, cursor string) (int64, error) {
	if digits, ok := strings.CutPrefix(cursor, of+":"+s.incarn+":"); ok {
		if n, err := strconv.ParseInt(digits, 36, 64); err == nil && n >= 0 {
			return n, nil
		}
	}
	return 0, driver.Invalidf("the cursor %q is not one that this store gave out for a list like this", driver.CutText(cursor, 64))
}

// scanPart is up to how many candidates a scan looks at in one snapshot. It begins with about as many as are wanted.
const scanPart = 2000

// scan finds the tasks that may match a filter, in the order of their seqs, part by part.
type scan struct {
	f       *driver.Filter
	newest  bool // the newest first
	states  []driver.State
	lanes   map[int64]bool // nil: any
	now     int64
	part    int64 // candidates of the next part
	reached int64 // where the last part ended
}

func newScan(f *driver.Filter, states []driver.State, newest bool, now int64, wanted int) *scan {
	return &scan{f: f, states: states, newest: newest, now: now, part: min(int64(wanted)+1, scanPart)}
}

// next returns the candidates beyond a seq, and whether there may be more.
func (sc *scan) next(c *conn, from int64) (seqs []int64, more bool, err error) {
	if len(sc.f.IDs) > 0 {
		return sc.byID(c, from)
	}
	if err := sc.findLanes(c); err != nil {
		return nil, false, err
	}
	tables, err := sc.tables(c)
	if err != nil {
		return nil, false, err
	}
	part := sc.part
	sc.part = min(4*part, scanPart)
	type entry struct{ seq, lane int64 }
	var entries []entry
	// A table that gave a full part may have more beyond its last entry: no table is trusted further than that.
	limit := int64(math.MaxInt64)
	if sc.newest {
		limit = -1
	}
	for _, table := range tables {
		n, last := 0, int64(0)
		st := c.stmt(sc.prefix()+table).ints(from, part)
		if table == "overdue" || table == "lapsed" {
			st.ints(sc.now)
		}
		err := st.rows(func(s *sqlite.Stmt) error {
			n, last = n+1, s.ColumnInt64(0)
			entries = append(entries, entry{last, s.ColumnInt64(1)})
			return nil
		})
		if err != nil {
			return nil, false, err
		}
		if n == int(part) {
			more = true
			if sc.newest {
				limit = max(limit, last)
			} else {
				limit = min(limit, last)
			}
		}
	}
	slices.SortFunc(entries, func(a, b entry) int {
		if sc.newest {
			a, b = b, a
		}
		return cmp.Compare(a.seq, b.seq)
	})
	sc.reached = limit
	for i, e := range entries {
		beyond := sc.newest && e.seq < limit || !sc.newest && e.seq > limit
		if beyond {
			break
		}
		if (i == 0 || e.seq != entries[i-1].seq) && (sc.lanes == nil || sc.lanes[e.lane]) {
			seqs = append(seqs, e.seq)
		}
	}
	return seqs, more, nil
}

func (sc *scan) prefix() string {
	if sc.newest {
		return "list_"
	}
	return "first_"
}

func (sc *scan) byID(c *conn, from int64) (seqs []int64, more bool, err error) {
	for _, id := range sc.f.IDs {
		seq, err := c.seqOf(id)
		if err != nil {
			return nil, false, err
		}
		if seq != 0 && (sc.newest && seq < from || !sc.newest && seq > from) {
			seqs = append(seqs, seq)
		}
	}
	slices.Sort(seqs)
	seqs = slices.Compact(seqs)
	if sc.newest {
		slices.Reverse(seqs)
	}
	return seqs, false, nil
}

// findLanes finds the lanes that the filter's queues and types allow.
func (sc *scan) findLanes(c *conn) error {
	if len(sc.f.Queues) == 0 && len(sc.f.Types) == 0 {
		return nil
	}
	sc.lanes = make(map[int64]bool)
	return c.stmt("lane_names").rows(func(s *sqlite.Stmt) error {
		q, typ := s.ColumnText(1), s.ColumnText(2)
		if (len(sc.f.Queues) == 0 || slices.Contains(sc.f.Queues, q)) && (len(sc.f.Types) == 0 || slices.Contains(sc.f.Types, typ)) {
			sc.lanes[s.ColumnInt64(0)] = true
		}
		return nil
	})
}

// fewAvailable is up to how many available tasks a scan sorts them instead of reading all tasks.
const fewAvailable = 50_000

// tables returns the tables that have the tasks in the wanted states, also those that are in one since their time came,
// which is not recorded yet.
func (sc *scan) tables(c *conn) ([]string, error) {
	if len(sc.states) == 0 {
		return []string{"all"}, nil
	}
	set := make(map[string]bool)
	for _, state := range sc.states {
		switch state {
		case driver.Scheduled, driver.Retryable:
			set["due"] = true
		case driver.Pending:
			set["pending"] = true
		case driver.Active:
			set["held"] = true
		case driver.Available:
			n, err := c.stmt("available_count").one()
			if err != nil {
				return nil, err
			}
			if n > fewAvailable {
				return []string{"all"}, nil
			}
			set["ready"], set["overdue"] = true, true
		case driver.Discarded:
			set["ended"], set["overdue"], set["lapsed"] = true, true, true
		default:
			set["ended"] = true
		}
	}
	if set["due"] {
		delete(set, "overdue") // all of them
	}
	var tables []string
	for name := range set {
		tables = append(tables, name)
	}
	return tables, nil
}
