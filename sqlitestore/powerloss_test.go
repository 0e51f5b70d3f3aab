package sqlitestore

import (
	"encoding/binary"
	"maps"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/waggleq/waggle/driver"
)

// TestPowerLossUndoesAtMostClaims cuts the power while a worker holds claims: it opens what a disk may hold then, which is
// the log up to the last fsync and any part of what was written after it. Everything that was promised to be on the disk
// is there, and what was claimed runs again, under tokens that were never given before.
func TestPowerLossUndoesAtMostClaims(t *testing.T) {
	t.Parallel()
	path := dbPath(t)
	must(t, open(t, path, nil).Close()) // which ends the log that the migrations have filled
	s := open(t, path, nil)
	register(t, s, "w")
	ids := add(t, s, 50, nil)
	done := fetch(t, s, "w", 10)
	settle(t, s, "w", driver.Complete, done...)
	synced := logLength(t, s)
	wantLazy(t, s, false)

	lost := fetch(t, s, "w", 20)
	wantLazy(t, s, true)
	written := logLength(t, s)
	if written <= synced {
		t.Fatalf("the log has %d bytes after the claim, as before it: this test shows nothing", written)
	}
	for _, length := range []int64{synced, synced + 1, (synced + written) / 2, written - 1, written} {
		after := open(t, imageOf(t, path, length), nil)
		undone := length < written
		want := map[driver.State]int{driver.Completed: 10, driver.Available: 40}
		if !undone {
			want = map[driver.State]int{driver.Completed: 10, driver.Available: 20, driver.Active: 20}
		}
		got := counts(t, after)
		maps.DeleteFunc(got, func(_ driver.State, n int) bool { return n == 0 })
		if !maps.Equal(got, want) {
			t.Errorf("the log cut to %d of %d bytes: got %v, want %v", length, written, got, want)
		}
		records, err := after.Get(t.Context(), ids)
		must(t, err)
		for i, r := range records {
			if r == nil {
				t.Errorf("the log cut to %d bytes: task %s is lost", length, ids[i])
			}
		}
		if undone {
			wantNewTokens(t, after, lost)
		}
		wantSound(t, after)
	}

	// The next commit that waits for the disk takes the claims along.
	settle(t, s, "w", driver.Complete, lost[0])
	wantLazy(t, s, false)
	after := open(t, imageOf(t, path, logLength(t, s)), nil)
	if got := counts(t, after); got[driver.Active] != len(lost)-1 || got[driver.Completed] != 11 {
		t.Errorf("after a settlement: got %v", got)
	}
}

// imageOf returns a copy of a store's files with the log cut to a length.
func imageOf(t *testing.T, path string, length int64) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "image.db")
	for _, suffix := range []string{"", "-wal"} {
		b, err := os.ReadFile(path + suffix)
		must(t, err)
		if suffix != "" {
			b = b[:length]
		}
		write(t, to+suffix, b)
	}
	return to
}

// logLength is how much of the log's file counts: it is used again from its beginning.
func logLength(t *testing.T, s *Store) int64 {
	t.Helper()
	var index [indexHead]byte
	_, err := s.guard.shmFile.ReadAt(index[:], 0)
	must(t, err)
	return 32 + int64(binary.NativeEndian.Uint32(index[16:]))*(24+s.guard.pageSize)
}

func size(t *testing.T, path string) int64 {
	t.Helper()
	info, err := os.Stat(path)
	must(t, err)
	return info.Size()
}

// wantLazy checks whether the last commit left out its fsync.
func wantLazy(t *testing.T, s *Store, want bool) {
	t.Helper()
	lazy := make(chan bool, 1)
	s.queue.call(func(w *writer) { lazy <- w.lazy })
	if got := <-lazy; got != want {
		t.Errorf("whether the last commit left out its fsync: %v, want %v", got, want)
	}
}

// syncs is how often the store has taken its log to the disk.
func syncs(s *Store) int {
	n := make(chan int, 1)
	s.queue.call(func(w *writer) { n <- w.syncs })
	return <-n
}

// TestEachCallWaitsForItsSync counts the syncs of calls that are answered as stored on the disk, and of claims.
func TestEachCallWaitsForItsSync(t *testing.T) {
	t.Parallel()
	s := open(t, dbPath(t), nil)
	n := syncs(s)
	counted := func(what string, want int, do func()) {
		t.Helper()
		do()
		now := syncs(s)
		if now-n != want {
			t.Errorf("%s: %d syncs, want %d", what, now-n, want)
		}
		n = now
	}
	counted("register", 1, func() { register(t, s, "w") })
	counted("enqueue", 1, func() { add(t, s, 5, nil) })
	var claims []driver.Claim
	counted("fetch", 0, func() { claims = fetch(t, s, "w", 2) })
	counted("settle", 1, func() { settle(t, s, "w", driver.Complete, claims...) })
	counted("heartbeat", 1, func() {
		_, err := s.Heartbeat(t.Context(), "w", time.Minute)
		must(t, err)
	})
}

// TestNothingIsPromisedAfterAFailedSync has the system fail to write the log: the call is not answered as stored, and neither is any later one,
// though later syncs would succeed.
func TestNothingIsPromisedAfterAFailedSync(t *testing.T) {
	t.Parallel()
	s := open(t, dbPath(t), nil)
	add(t, s, 1, nil)
	sync := func(f func(*os.File) error) {
		done := make(chan struct{})
		s.queue.call(func(w *writer) { w.syncData = f; close(done) })
		<-done
	}
	sync(func(*os.File) error { return unix.EIO })
	enqueue := func() error {
		_, err := s.Enqueue(t.Context(), []*driver.Task{{Type: "t"}}, driver.EnqueueOptions{})
		return err
	}
	wantErr(t, enqueue(), driver.ErrUnavailable)
	sync(syncData)
	wantErr(t, enqueue(), driver.ErrUnavailable)
	after := open(t, s.path, nil)
	if got := counts(t, after)[driver.Available]; got != 2 {
		t.Errorf("%d tasks are there for who opens the store anew, want 2: the outcome of the call was unknown", got)
	}
}

// wantNewTokens claims everything again and checks that no token of a lost claim comes back.
func wantNewTokens(t *testing.T, s *Store, lost []driver.Claim) {
	t.Helper()
	register(t, s, "w2")
	before := map[string]driver.Token{}
	for _, c := range lost {
		before[c.ID] = c.Token
	}
	for _, c := range fetch(t, s, "w2", 100) {
		if old, ok := before[c.ID]; ok && c.Token <= old {
			t.Errorf("task %s has the token %d again, after %d was lost", c.ID, c.Token, old)
		}
		delete(before, c.ID)
	}
	if len(before) > 0 {
		t.Errorf("%d tasks of lost claims were not claimed again", len(before))
	}
}
