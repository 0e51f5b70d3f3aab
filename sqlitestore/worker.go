package sqlitestore

import (
	"cmp"
	"context"
	"encoding/json"
	"time"

	"github.com/waggleq/waggle/driver"
	"zombiezen.com/go/sqlite"
)

// Register implements [driver.Fetcher].
func (s *Store) Register(ctx context.Context, info driver.WorkerInfo, lease time.Duration) error {
	if err := cmp.Or(driver.CheckWorker(&info), driver.CheckLease(lease)); err != nil {
		return err
	}
	encoded := encodeJSON(info)
	return s.write(ctx, func(t *tx) error {
		w, err := t.st.anyWorker(t.conn, info.ID)
		leaseEnd := t.now + lease.Milliseconds()
		if err == nil {
			t.w.watch.crowd, err = t.stmt("worker_count").one()
		}
		switch {
		case err != nil:
			return err
		case w == nil:
			no := t.st.nextWorker
			t.st.nextWorker++
			t.workerEvent(driver.EventWorkerJoined, info.ID)
			return t.saveWorker("worker_insert", &worker{no: no, id: info.ID, life: alive, leaseEnd: leaseEnd, since: t.now,
				host: info.Host, build: info.Build, info: encoded})
		case w.life != alive:
			return driver.Errorf(driver.ErrLeaseLost, "worker id %s was used before: register with a new one", info.ID)
		}
		if w.host != info.Host || w.build != info.Build {
			if err := t.keepAuthor(w); err != nil {
				return err
			}
		}
		w.host, w.build, w.info, w.leaseEnd = info.Host, info.Build, encoded, leaseEnd
		return t.saveWorker("worker_update", w)
	})
}

// saveWorker writes what one of the statements worker_… changes of a row.
func (t *tx) saveWorker(statement string, w *worker) error {
	return t.sealed(statement).ints(w.no).text(w.id).text(w.life).ints(w.leaseEnd, w.since).text(w.host).text(w.build).text(w.info).
		text(string(w.directive)).ints(flag(w.directed)).seal(w.damaged).exec()
}

// keepAuthor writes the host and build of a worker, before they change, into the history of the tasks that it has
// completed: their rows only name the worker.
func (t *tx) keepAuthor(w *worker) error {
	var seqs []int64
	err := t.stmt("ended_by").ints(w.no).rows(func(s *sqlite.Stmt) error {
		seqs = append(seqs, s.ColumnInt64(0))
		return nil
	})
	for i := 0; err == nil && i < len(seqs); i++ {
		var r *row
		if r, err = t.loadWhole(seqs[i]); err != nil || r == nil {
			continue
		}
		r.noteCompletion(w)
		if err = t.saveMeta(r); err == nil {
			err = t.stmt("ended_noted").ints(r.seq, endedSum(r, r.lane.queue.no, r.lane.no, 1, null)).exec()
		}
	}
	return err
}

func (t *tx) workerEvent(kind driver.EventKind, id string) {
	t.events = append(t.events, driver.Event{Time: t.time(), Kind: kind, Worker: id})
}

// Heartbeat implements [driver.Fetcher].
func (s *Store) Heartbeat(ctx context.Context, id string, lease time.Duration) (*driver.HeartbeatResult, error) {
	if err := driver.CheckLease(lease); err != nil {
		return nil, err
	}
	res := &driver.HeartbeatResult{}
	err := s.write(ctx, func(t *tx) error {
		w, err := t.st.worker(t.conn, id)
		if err != nil {
			return err
		}
		leaseEnd := t.now + lease.Milliseconds()
		res.Now, res.LeaseEnd = t.time(), timeOf(leaseEnd)
		res.Directive, w.leaseEnd, w.directed = w.directive, leaseEnd, false
		if err := t.saveWorker("worker_beat", w); err != nil {
			return err
		}
		if t.w.watch.crowd, err = t.stmt("worker_count").one(); err != nil {
			return err
		}
		res.Cancels, err = t.cancels(w)
		return err
	})
	if err != nil {
		return nil, err
	}
	return res, nil
}

// Direct implements [driver.Maintainer].
func (s *Store) Direct(ctx context.Context, id string, d driver.Directive) error {
	if err := driver.CheckDirect(id, driver.DirectServe, d); err != nil {
		return err
	}
	return s.write(ctx, func(t *tx) error {
		w, err := t.st.anyWorker(t.conn, id)
		switch {
		case err != nil:
			return err
		case w == nil || w.life != alive:
			return driver.NoWorker(id)
		}
		if err := driver.CheckDirect(id, w.directive, d); err != nil {
			return err
		}
		t.after.controls = append(t.after.controls, w.id)
		w.directive, w.directed = d, true
		return t.saveWorker("worker_direct", w)
	})
}

// Unregister implements [driver.Fetcher].
func (s *Store) Unregister(ctx context.Context, id string) error {
	return s.write(ctx, func(t *tx) error {
		if err := t.settleFresh(); err != nil {
			return err
		}
		w, err := t.st.anyWorker(t.conn, id)
		if err != nil || w == nil || w.life != alive {
			return err // unknown, or being recovered
		}
		if _, err := t.giveBack(w, -1, t.release); err != nil {
			return err
		}
		return t.bury(w, driver.EventWorkerLeft)
	})
}

// giveBack does something to the tasks that a worker holds, at most limit of them (-1: all), and returns how many.
func (t *tx) giveBack(w *worker, limit int, do func(*row) error) (n int, err error) {
	var seqs []int64
	err = t.stmt("held_by").ints(w.no, int64(limit)).rows(func(s *sqlite.Stmt) error {
		seqs = append(seqs, s.ColumnInt64(0))
		return nil
	})
	if err != nil {
		return 0, err
	}
	for _, seq := range seqs {
		r, err := t.load(seq)
		if err == nil && r == nil {
			err = t.stmt("held_delete").ints(seq).exec() // of a task that is not there: Audit counts anew
		} else if err == nil {
			err = do(r)
		}
		if err != nil {
			return 0, err
		}
	}
	return len(seqs), nil
}

// bury ends the life of a worker that holds nothing any more. Its row stays, so that the id is not used again, until
// nothing that it has worked on can be left.
func (t *tx) bury(w *worker, kind driver.EventKind) error {
	w.life = gone
	t.workerEvent(kind, w.id)
	t.after.controls = append(t.after.controls, w.id)
	w.leaseEnd = t.now
	return t.saveWorker("worker_life", w)
}

// recoverLost takes at most limit tasks from workers whose lease has run out.
func (t *tx) recoverLost(limit int) (n int, more bool, err error) {
	for {
		w, err := t.nextLost()
		if err != nil || w == nil {
			return n, false, err
		}
		if n == limit {
			return n, true, nil
		}
		got, err := t.giveBack(w, limit-n, func(r *row) error { return t.crash(r, w) })
		if err != nil {
			return n, false, err
		}
		if n += got; n == limit {
			left, err := t.stmt("held_by").ints(w.no, 1).row(nil)
			if err != nil || left {
				return n, left, err
			}
		}
		if err := t.bury(w, driver.EventWorkerLost); err != nil {
			return n, false, err
		}
	}
}

// nextLost returns a worker whose lease has run out, marked as lost, nil if there is none.
func (t *tx) nextLost() (*worker, error) {
	var w *worker
	_, err := t.stmt("worker_first").row(func(s *sqlite.Stmt) error {
		if s.ColumnInt64(3) <= t.now {
			w = scanWorker(s)
		}
		return nil
	})
	if err != nil || w == nil {
		return nil, err
	}
	if known := t.st.workers[w.id]; known != nil {
		w = known
	} else if !w.damaged { // nobody can renew the lease of one that is
		t.st.workers[w.id] = w
	}
	if w.life == lost {
		return w, nil
	}
	w.life = lost
	return w, t.saveWorker("worker_life", w)
}

// Workers implements [driver.Inspector].
func (s *Store) Workers(ctx context.Context) ([]driver.WorkerStatus, error) {
	list := []driver.WorkerStatus{}
	err := s.read(ctx, func(c *conn) error {
		return c.stmt("worker_list").rows(func(s *sqlite.Stmt) error {
			r := scanWorker(s)
			w := driver.WorkerStatus{Since: timeOf(r.since), LeaseEnd: timeOf(r.leaseEnd), Held: s.ColumnInt(workerColumns + 1), Directive: r.directive}
			err := json.Unmarshal([]byte(r.info), &w.WorkerInfo)
			if w.Damaged = r.damaged || err != nil; w.Damaged {
				w.ID = r.id
			}
			list = append(list, w)
			return nil
		})
	})
	if err != nil {
		return nil, err
	}
	return list, nil
}

// workerByNo returns a worker by its number, nil if it is forgotten.
func (t *tx) workerByNo(no int64) (*worker, error) {
	var w *worker
	_, err := t.stmt("worker_by_no").ints(no).row(func(s *sqlite.Stmt) error {
		w = scanWorker(s)
		return nil
	})
	return w, err
}
