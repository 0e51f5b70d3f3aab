package memstore

import (
	"context"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/waggleq/waggle/driver"
)

// copy returns the record, as it stands at the present, as callers may have it.
func (t *task) copy(now time.Time) *driver.Record {
	r := *t.present(now)
	r.Detach()
	r.Logs, r.Attempts, r.Result = slices.Clone(r.Logs), slices.Clone(r.Attempts), slices.Clone(r.Result)
	if r.Progress != nil {
		p := *r.Progress
		r.Progress = &p
	}
	return &r
}

// Get implements [driver.Inspector].
func (s *Store) Get(ctx context.Context, ids []string) ([]*driver.Record, error) {
	if err := s.lock(ctx); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	records := make([]*driver.Record, len(ids))
	for i, id := range ids {
		if t := s.tasks[id]; t != nil {
			records[i] = t.copy(s.now)
		}
	}
	return records, nil
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
	seq := int64(math.MaxInt64)
	if page.Cursor != "" {
		if seq, err = s.parseCursor("list", page.Cursor); err != nil {
			return nil, err
		}
	}
	if err := s.lock(ctx); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	res := &driver.RecordPage{}
	for t := range s.journal.before(seq) {
		if !f.Match(t.present(s.now)) {
			continue
		}
		if len(res.Records) == size {
			res.Next = s.cursor("list", seq)
			break
		}
		res.Records, seq = append(res.Records, t.copy(s.now)), t.seq
	}
	return res, nil
}

// Looked returns at how many tasks lists and operations by filter have looked so far: what they cost, for tests.
func (s *Store) Looked() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.journal.looked
}

// cursor returns a cursor that no other list and no other store takes for its own.
func (s *Store) cursor(of string, n int64) string {
	return of + ":" + s.incarnation + ":" + strconv.FormatInt(n, 36)
}

func (s *Store) parseCursor(of, cursor string) (int64, error) {
	if digits, ok := strings.CutPrefix(cursor, of+":"+s.incarnation+":"); ok {
		if n, err := strconv.ParseInt(digits, 36, 64); err == nil && n >= 0 {
			return n, nil
		}
	}
	return 0, errCursor(cursor)
}

func errCursor(cursor string) error {
	return driver.Invalidf("the cursor %q is not one that this store gave out for a list like this", driver.CutText(cursor, 64))
}
