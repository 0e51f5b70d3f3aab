//go:build unix

package sqlitestore

import (
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/waggleq/waggle/driver"
)

// TestWhatLiesBesideIsNoFile has something else lie where the mark and the bell should be: the store neither waits for it nor
// writes through it.
func TestWhatLiesBesideIsNoFile(t *testing.T) {
	t.Parallel()
	for name, put := range map[string]func(db, path string) error{
		"a pipe":                 func(_, path string) error { return unix.Mkfifo(path, 0o600) },
		"a link to the database": os.Symlink,
		"a folder":               func(_, path string) error { return os.Mkdir(path, 0o700) },
		"a link to nothing":      func(db, path string) error { return os.Symlink(db+"-nothing", path) },
	} {
		for _, suffix := range []string{"-mark", "-bell"} {
			t.Run(name+suffix, func(t *testing.T) {
				t.Parallel()
				path := dbPath(t)
				s, err := Open(t.Context(), path, nil)
				must(t, err)
				must(t, s.Close())
				must(t, put(path, path+suffix))
				for round := range 2 {
					opened := make(chan error, 1)
					go func() {
						s, err = Open(t.Context(), path, nil)
						opened <- err
					}()
					select {
					case err := <-opened:
						must(t, err)
					case <-time.After(time.Minute):
						t.Fatal("it does not open")
					}
					results, err := s.Enqueue(t.Context(), []*driver.Task{{Type: "t"}}, driver.EnqueueOptions{})
					must(t, err)
					must(t, results[0].Err)
					list, err := s.List(t.Context(), driver.Filter{}, driver.Page{Size: 10})
					must(t, err)
					if len(list.Records) != round+1 {
						t.Errorf("%d tasks are there, want %d", len(list.Records), round+1)
					}
					must(t, s.Close())
					head, err := os.ReadFile(path)
					must(t, err)
					if string(head[:15]) != "SQLite format 3" {
						t.Errorf("the database begins with %q", head[:15])
					}
				}
				if _, err := os.Lstat(path + "-nothing"); err == nil {
					t.Error("something was written through the link")
				}
			})
		}
	}
}
