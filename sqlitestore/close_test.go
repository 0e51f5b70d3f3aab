package sqlitestore

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/waggleq/waggle/driver"
)

// TestCloseWithChangesInLine closes a store while its writer is busy and a change waits: the change is refused, and
// Close returns.
func TestCloseWithChangesInLine(t *testing.T) {
	s, err := Open(t.Context(), filepath.Join(t.TempDir(), "waggle.db"), nil)
	if err != nil {
		t.Fatal(err)
	}
	started, busy := make(chan struct{}), make(chan struct{})
	s.queue.call(func(*writer) {
		close(started)
		<-busy
	})
	<-started
	waits := &op{ctx: t.Context(), run: func(*tx) error { return nil }, done: make(chan error, 1)}
	if !s.queue.put(waits) {
		t.Fatal("the open store takes no changes")
	}
	closed := make(chan error)
	go func() { closed <- s.Close() }()
	<-s.closing
	for s.queue.call(func(*writer) {}) { // until Close has shut the line
		runtime.Gosched()
	}
	close(busy)
	select {
	case err := <-closed:
		if err != nil {
			t.Errorf("Close returned %v", err)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("Close does not return")
	}
	if err := <-waits.done; !errors.Is(err, driver.ErrClosed) {
		t.Errorf("the change in line got %v, want ErrClosed", err)
	}
}

// Whoever closes a store that nobody else has open leaves one file, with all that was stored in it.
func TestCloseWritesTheLogBack(t *testing.T) {
	t.Parallel()
	path := dbPath(t)
	for i := range 20 {
		s, err := Open(t.Context(), path, nil)
		must(t, err)
		ids := add(t, s, 1, nil)
		_, err = s.Get(t.Context(), ids) // by another connection than the writer's
		must(t, err)
		must(t, s.Close())
		if _, err := os.Stat(path + "-wal"); !errors.Is(err, fs.ErrNotExist) {
			t.Fatalf("the log is there after %d closes (%v)", i+1, err)
		}
	}
}
