package sqlitestore

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/waggleq/waggle/driver"
	"zombiezen.com/go/sqlite"
)

// Queues implements [driver.Inspector].
func (s *Store) Queues(ctx context.Context, names ...string) ([]driver.QueueInfo, error) {
	infos := []driver.QueueInfo{}
	err := s.read(ctx, func(c *conn) error {
		infos = infos[:0]
		p := &present{conn: c, now: s.now(), oldest: make(map[*lane]int64)}
		st, err := p.load(names)
		if err != nil {
			return err
		}
		oldest := make(map[*queue]int64)
		for l, at := range p.oldest {
			if oldest[l.queue] == 0 || at < oldest[l.queue] {
				oldest[l.queue] = at
			}
		}
		for _, q := range st.queues {
			if q.hidden() || len(names) > 0 && !slices.Contains(names, q.name) {
				continue
			}
			info := q.info(timeOf(oldest[q]))
			info.Damaged = q.damaged != nil || len(st.strays) > 0 // any queue may lack what is counted of one that is lost
			if err := p.limits(q, &info); err != nil {
				return err
			}
			infos = append(infos, info)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(infos, func(a, b driver.QueueInfo) int { return cmp.Compare(a.Name, b.Name) })
	return infos, nil
}

func (q *queue) info(oldest time.Time) driver.QueueInfo {
	info := driver.QueueInfo{Name: q.name, Config: *q.config.Clone(), Counts: make(map[driver.State]int), Totals: q.totals, OldestAvailable: oldest}
	for _, state := range driver.States {
		info.Counts[state] = 0
	}
	for _, l := range q.lanes {
		live, counts := int64(0), make(map[driver.State]int)
		for i, n := range l.count {
			state := standing(i).state()
			info.Counts[state] += int(n)
			if n > 0 {
				counts[state] = int(n)
			}
			if !state.Ended() {
				live += n
			}
		}
		if live > 0 {
			info.Types = append(info.Types, driver.TypeInfo{Type: l.typ, Counts: counts})
		}
	}
	slices.SortFunc(info.Types, func(a, b driver.TypeInfo) int { return cmp.Compare(a.Type, b.Type) })
	return info
}

// present brings a copy of the small tables up to the store's present: what is due counts as available, and what has
// expired as discarded, though nobody has come by to record it. It costs a look into an index for each lane in which tasks
// wait for their time or expire.
type present struct {
	*conn
	now    int64
	oldest map[*lane]int64 // since when its longest waiting task has been available
}

// fewQueues is up to how many queues are read one by one: what they cost does not depend on how many there are.
const fewQueues = 100

// load returns the small tables as they are at the store's present, of the queues named at least; none: of all.
func (p *present) load(names []string) (*state, error) {
	if len(names) == 0 || len(names) > fewQueues {
		st, err := loadState(p.conn)
		if err == nil {
			err = p.heads(st, p.stmt("available_heads"))
		}
		if err != nil {
			return nil, err
		}
		return st, p.bringUp(st)
	}
	st := &state{queues: make(map[string]*queue), lanes: make(map[int64]*lane)}
	for _, name := range names {
		if err := st.reload(p.conn, name, func(*lane, *lane) {}); err != nil {
			return nil, err
		}
	}
	for _, l := range st.lanes {
		if err := p.heads(st, p.stmt("lane_heads").ints(l.no)); err != nil {
			return nil, err
		}
	}
	return st, p.bringUp(st)
}

// heads notes since when the front tasks have been available.
func (p *present) heads(st *state, front *stmt) error {
	return front.rows(func(s *sqlite.Stmt) error {
		if l, at := st.lanes[s.ColumnInt64(0)], s.ColumnInt64(1); l != nil {
			p.waits(l, at)
		}
		return nil
	})
}

// bringUp counts what is due and what has expired.
func (p *present) bringUp(st *state) (err error) {
	for _, l := range st.lanes {
		if err == nil && l.expiring > 0 {
			err = p.expire(l)
		}
		if err == nil && l.count[scheduled]+l.count[retryable] > 0 {
			err = p.promote(l)
		}
	}
	return err
}

// waits notes that a task of the lane has been available since a time.
func (p *present) waits(l *lane, since int64) {
	if p.oldest[l] == 0 || since < p.oldest[l] {
		p.oldest[l] = since
	}
}

// expire counts the available tasks that have expired.
func (p *present) expire(l *lane) error {
	n, err := p.stmt("expiry_count").ints(l.no, p.now).one()
	if err != nil || n == 0 {
		return err
	}
	delete(p.oldest, l) // it may be one of them
	l.count[available] -= n
	p.discard(l, n)
	if l.count[available] == 0 {
		return nil
	}
	since, err := p.stmt("available_oldest").ints(l.no, p.now).one()
	if since > 0 {
		p.waits(l, since)
	}
	return err
}

func (p *present) discard(l *lane, n int64) {
	l.count[discarded] += n
	l.queue.totals.Discarded += n
}

// promote counts the scheduled and retryable tasks that are due.
func (p *present) promote(l *lane) error {
	first, err := p.stmt("due_first").ints(l.no).one()
	if err != nil || first == 0 || first > p.now {
		return err
	}
	return p.stmt("due_count").ints(l.no, p.now).rows(func(s *sqlite.Stmt) error {
		from, n, expired := standingOf(s.ColumnText(0)), s.ColumnInt64(1), s.ColumnInt64(2)
		if from != scheduled && from != retryable {
			return nil // Audit finds it
		}
		l.count[from] -= n
		l.count[available] += n - expired
		p.discard(l, expired)
		if !s.ColumnIsNull(3) {
			p.waits(l, s.ColumnInt64(3))
		}
		return nil
	})
}
