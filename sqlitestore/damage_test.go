package sqlitestore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"testing"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"github.com/waggleq/waggle/driver"
)

// soundFile returns the bytes of a closed store with tasks in every state, and the first page of each of its trees.
func soundFile(t *testing.T) (file []byte, roots map[string]int) {
	t.Helper()
	path := dbPath(t)
	s, err := Open(t.Context(), path, nil)
	must(t, err)
	mixed(t, s)
	add(t, s, 500, nil) // so that there are inner pages
	must(t, s.Close())
	c := rawConn(t, path)
	roots = make(map[string]int)
	err = sqlitex.ExecuteTransient(c.db, "SELECT name, rootpage FROM sqlite_schema WHERE rootpage > 0", &sqlitex.ExecOptions{ResultFunc: func(s *sqlite.Stmt) error {
		roots[s.ColumnText(0)] = s.ColumnInt(1)
		return nil
	}})
	must(t, err)
	must(t, c.close())
	file, err = os.ReadFile(path)
	must(t, err)
	return file, roots
}

// exercise does everything once and returns the errors.
func exercise(t *testing.T, path string) []error {
	s, err := Open(t.Context(), path, nil)
	if err != nil {
		return []error{err}
	}
	defer func() { _ = s.Close() }()
	ctx := t.Context()
	errs := []error{s.Register(ctx, driver.WorkerInfo{ID: "x"}, driver.DefaultLease)}
	note := func(err error) { errs = append(errs, err) }
	results, err := s.Enqueue(ctx, []*driver.Task{{Type: "t"}}, driver.EnqueueOptions{})
	note(err)
	for _, r := range results {
		note(r.Err)
	}
	res, err := s.Fetch(ctx, driver.FetchRequest{Worker: "x", Lease: driver.DefaultLease, Queues: []string{"default"}, Max: 50})
	note(err)
	if res != nil {
		for _, c := range res.Claims {
			_, err := s.Settle(ctx, "x", []driver.Settlement{{ID: c.ID, Token: c.Token, Outcome: driver.Complete}})
			note(err)
		}
	}
	_, err = s.List(ctx, driver.Filter{}, driver.Page{Size: 1000})
	note(err)
	_, err = s.Queues(ctx)
	note(err)
	_, err = s.Workers(ctx)
	note(err)
	_, err = s.Events(ctx, driver.EventQuery{})
	note(err)
	_, err = s.Maintain(ctx, 0)
	note(err)
	findings, err := s.Audit(ctx, false)
	note(err)
	if len(findings) > 0 {
		note(driver.Errorf(driver.ErrCorrupt, "audit: %s %s", findings[0].Kind, findings[0].Detail))
	}
	return errs
}

// wantCorrupt fails the test unless damage was told by at least one ErrCorrupt, and by nothing else.
func wantCorrupt(t *testing.T, what string, errs []error) {
	t.Helper()
	told := false
	for _, err := range errs {
		told = told || errors.Is(err, driver.ErrCorrupt)
		if err != nil && !errors.Is(err, driver.ErrCorrupt) {
			t.Errorf("%s: got error %v, want ErrCorrupt", what, err)
		}
	}
	if !told {
		t.Errorf("%s: nothing tells of the damage", what)
	}
}

// TestDamagedPagesAreNoticed spoils the first page of every tree in several ways: its kind, its number of cells, where
// its content begins, and a run of bytes in its middle.
func TestDamagedPagesAreNoticed(t *testing.T) {
	t.Parallel()
	file, roots := soundFile(t)
	if len(roots) < 20 {
		t.Fatalf("found only %d trees", len(roots))
	}
	for name, page := range roots {
		start := (page - 1) * 4096
		cells := binary.BigEndian.Uint16(file[start+3:])
		for what, flip := range map[string]func(b []byte){
			"kind":  func(b []byte) { b[0] ^= 0x40 },
			"cells": func(b []byte) { b[3] ^= 0x10 },
			"start": func(b []byte) { b[5] ^= 0x80 },
			"cell":  func(b []byte) { b[8] ^= 0xf0; b[12] ^= 0xf0 },
		} {
			if what == "cell" && cells < 3 {
				continue // nothing is stored there
			}
			path := dbPath(t)
			damaged := append([]byte(nil), file...)
			flip(damaged[start : start+4096])
			write(t, path, damaged)
			wantCorrupt(t, fmt.Sprintf("the %s of the first page of %s", what, name), exercise(t, path))
		}
	}
}

func TestATruncatedOrDamagedFileIsRefused(t *testing.T) {
	t.Parallel()
	file, _ := soundFile(t)
	for what, bytes := range map[string][]byte{
		"half of it":       file[:len(file)/2/4096*4096],
		"one page":         file[:4096],
		"part of the head": file[:60],
		"a bad magic":      append([]byte("XQLite"), file[6:]...),
		"a bad page size":  append(append(append([]byte(nil), file[:16]...), 0x0f, 0xff), file[18:]...),
	} {
		path := dbPath(t)
		write(t, path, bytes)
		for range 2 {
			wantCorrupt(t, what, exercise(t, path))
		}
	}
}

// TestATruncatedLogLosesOnlyWhatWasCutOff copies a store in use, as a crash would leave it, and cuts its log.
func TestATruncatedLogLosesOnlyWhatWasCutOff(t *testing.T) {
	t.Parallel()
	path := dbPath(t)
	s := open(t, path, nil)
	for range 20 {
		add(t, s, 1, nil)
	}
	db, err := os.ReadFile(path)
	must(t, err)
	log, err := os.ReadFile(path + "-wal")
	must(t, err)
	for _, part := range []int{0, 1, 31, 33, 5000, len(log) / 2, len(log) - 1} {
		other := dbPath(t)
		write(t, other, db)
		write(t, other+"-wal", log[:part])
		cut, err := Open(t.Context(), other, nil)
		must(t, err)
		if n := counts(t, cut)[driver.Available]; n > 20 || part == len(log)-1 && n < 15 {
			t.Errorf("cut at %d: %d tasks are left", part, n)
		}
		wantSound(t, cut)
		must(t, cut.Close())
	}
}
