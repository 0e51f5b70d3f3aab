package sqlitestore

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"time"

	"zombiezen.com/go/sqlite"

	"github.com/waggleq/waggle/driver"
)

// Salvaged says what [Salvage] found.
type Salvaged struct {
	Tasks   int // handed over
	Damaged int // of these, tasks of which only a part could be read: their state is empty, their history is not there
	Lost    int // tasks whose own record can't be read, as far as they can be counted
}

// Salvage reads a store's file that Open refuses, or whose tasks can't be read any more, and calls yield for every task
// whose own record is whole, the oldest first; an error of yield ends it. A record's Task can be enqueued in another
// store as it is. Nothing of the file is changed: what is read is a copy of it, in the system's directory for temporary
// files. All workers should have been stopped.
//
// Where the file's list of tables can't be read any more it returns [driver.ErrCorrupt], and nothing can be saved.
func Salvage(ctx context.Context, path string, yield func(*driver.Record) error) (*Salvaged, error) {
	var found *Salvaged
	err := salvageCopy(ctx, path, func(v *salvager) error {
		v.yield = yield
		// A number that no task is behind, from whichever place still tells one.
		last := v.most("salvage_next", "salvage_last_task", "salvage_last_id", "salvage_last_ended", "salvage_last_due", "salvage_last_held")
		if err := v.span("salvage_tasks", 1, int64(last), v.task); err != nil {
			return err
		}
		v.found.Lost = max(v.found.Lost, v.most("salvage_count", "salvage_counters")-v.found.Tasks)
		found = &v.found
		return nil
	})
	return found, err
}

// SalvagePlans does for schedules and workflows what [Salvage] does for tasks: it calls yield for every plan that can be read
// with its parts and news, and returns how many can't. Client.RestorePlan puts one into another store, after the tasks.
func SalvagePlans(ctx context.Context, path string, yield func(*driver.Plan) error) (lost int, err error) {
	err = salvageCopy(ctx, path, func(v *salvager) error {
		last := int64(v.most("salvage_last_plan", "salvage_last_plan_name"))
		return v.span("salvage_plans", 1, last, func(no int64) error {
			p, err := v.plan(no)
			if err != nil {
				lost++
				return nil
			}
			return yield(p)
		})
	})
	return lost, err
}

// plan reads one plan.
func (v *salvager) plan(no int64) (*driver.Plan, error) {
	head := &planHead{no: no}
	found, err := v.c.stmt("salvage_plan").ints(no).row(func(s *sqlite.Stmt) error {
		head.Plan = driver.Plan{PlanRef: driver.PlanRef{Kind: s.ColumnText(0), Name: s.ColumnText(1)}, Version: s.ColumnInt64(2), State: s.ColumnText(3),
			Wake: timeOf(s.ColumnInt64(4)), Expires: timeOf(s.ColumnInt64(5)), Created: timeOf(s.ColumnInt64(6)), Updated: timeOf(s.ColumnInt64(7))}
		head.news, head.seen = s.ColumnInt64(8), s.ColumnInt64(9)
		head.Waiting = int(head.news - head.seen)
		return nil
	})
	switch {
	case err != nil:
		return nil, err
	case !found:
		return nil, corruptf("plan %d is not there", no)
	}
	p, err := v.c.plan(head, &driver.PlanRead{AllParts: true, News: driver.MaxPlanNews})
	if err == nil && p.Validate() != nil {
		err = corruptf("plan %d has no name", no)
	}
	return p, err
}

// salvageCopy calls read with a copy of a store's file.
func salvageCopy(ctx context.Context, path string, read func(*salvager) error) error {
	dir, err := os.MkdirTemp("", "waggle-salvage-")
	if err != nil {
		return driver.Errorf(driver.ErrUnavailable, "there is no space for a copy of %s: %w", path, err)
	}
	defer os.RemoveAll(dir)
	copied := filepath.Join(dir, "copy.db")
	for _, suffix := range []string{"", "-wal"} {
		err := copyFile(copied+suffix, path+suffix)
		if err != nil && !(suffix != "" && errors.Is(err, fs.ErrNotExist)) {
			return driver.Errorf(driver.ErrUnavailable, "%s can't be copied: %w", path+suffix, err)
		}
	}
	db, err := sqlite.OpenConn(copied, sqlite.OpenReadWrite)
	if err != nil {
		return dbErr(err)
	}
	v := &salvager{ctx: ctx, c: newConn(db), now: time.Now()}
	defer v.c.close()
	// Without this a file that was cut short is refused as a whole.
	if err := v.c.run("PRAGMA writable_schema=on"); err != nil {
		return err
	}
	// The list of tables need not be whole: what was added by later versions may have been lost with the file's end.
	if _, err := v.c.number("SELECT 1 FROM task WHERE false"); err != nil {
		return noDatabase(path)
	}
	return read(v)
}

func copyFile(to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, fileMode)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// salvager reads what can be read.
type salvager struct {
	now   time.Time
	ctx   context.Context
	c     *conn
	yield func(*driver.Record) error
	found Salvaged
}

// most returns the highest number that one of several statements gives, of those that can be run.
func (v *salvager) most(names ...string) int {
	most := int64(0)
	for _, name := range names {
		if n, err := v.c.stmt(name).one(); err == nil {
			most = max(most, n)
		}
	}
	return int(most)
}

// span calls each with the numbers of a table that a statement lists, from one number to another. Where a page is damaged it
// goes on with the halves of what is left.
func (v *salvager) span(list string, from, to int64, each func(int64) error) error {
	for from <= to {
		if err := v.ctx.Err(); err != nil {
			return err
		}
		const batch = 500
		var seqs []int64
		err := v.c.stmt(list).ints(from, to, batch).rows(func(s *sqlite.Stmt) error {
			seqs = append(seqs, s.ColumnInt64(0))
			return nil
		})
		for _, seq := range seqs {
			if err := each(seq); err != nil {
				return err
			}
			from = seq + 1
		}
		if err == nil {
			if len(seqs) < batch {
				return nil
			}
			continue
		}
		if from >= to {
			return nil // one number of a damaged page, which may have been a task's
		}
		middle := from + (to-from)/2
		if err := v.span(list, from, middle, each); err != nil {
			return err
		}
		from = middle + 1
	}
	return nil
}

// task hands over one task: all that is stored of it, or else its own record alone.
func (v *salvager) task(seq int64) error {
	r, err := v.c.record(seq)
	whole, sound, readErr := v.own(seq)
	switch {
	case readErr != nil || !sound:
		v.found.Lost++
		return nil
	case err != nil || r == nil || r.Type == "" || r.Queue == "":
		r = whole
		v.found.Damaged++
	}
	v.found.Tasks++
	r.Present(v.now)
	return v.yield(r)
}

// ownSound compares the checksum of a task's own row. One of a time before they covered all of it is taken as it is.
func ownSound(s *sqlite.Stmt, seq, content int64) bool {
	return taskSound(s.ColumnInt64(4), content, math.MaxInt64, seq, s.ColumnInt64(1), s.ColumnInt64(2), s.ColumnInt64(3), nullable(s, 7), s.ColumnInt64(8),
		s.ColumnText(9), s.ColumnText(10))
}

// own reads a task's own record, and reports whether it is the one that was written.
func (v *salvager) own(seq int64) (r *driver.Record, sound bool, err error) {
	var lane int64
	_, err = v.c.stmt("salvage_task").ints(seq).row(func(s *sqlite.Stmt) error {
		packed, envelope, payload := columnBytes(s, 0), columnBytes(s, 5), columnBytes(s, 6)
		lane = s.ColumnInt64(1)
		r = &driver.Record{EnqueuedAt: timeOf(s.ColumnInt64(3))}
		sound = ownSound(s, seq, checksum(packed, envelope, payload)) && driver.DecodeEnvelope(envelope, &r.Task) == nil
		r.ID, r.Priority, r.Payload = driver.UnpackID(packed), int(s.ColumnInt64(2)), payload
		return nil
	})
	if err != nil || r == nil {
		return nil, false, err
	}
	r.Type, r.Queue = "unknown", driver.DefaultQueue // unless the list of lanes can be read
	_, _ = v.c.stmt("salvage_lane").ints(lane).row(func(s *sqlite.Stmt) error {
		r.Queue, r.Type = s.ColumnText(0), s.ColumnText(1)
		return nil
	})
	return r, sound, nil
}
