package sqlitestore

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/waggleq/waggle/driver"
)

// crashed returns the path of a store that a crash left behind with n tasks, most of it in its log.
func crashed(t *testing.T, n int) string {
	t.Helper()
	path := dbPath(t)
	p := child(t, "crash", path, "a", itoa(int64(n)))
	for p.line() != "done" {
	}
	must(t, p.Process.Kill())
	_ = p.Wait() // it was killed
	if size(t, path+"-wal") == 0 {
		t.Fatal("the crash left no log")
	}
	return path
}

// dirState is the names, sizes and contents of a directory.
func dirState(t *testing.T, path string) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(path))
	must(t, err)
	state := make(map[string]string)
	for _, e := range entries {
		if e.IsDir() {
			continue
		}
		b, err := os.ReadFile(filepath.Join(filepath.Dir(path), e.Name()))
		must(t, err)
		state[e.Name()] = string(b)
	}
	return state
}

// wantUntouched fails the test unless a directory is as it was.
func wantUntouched(t *testing.T, path string, before map[string]string) {
	t.Helper()
	after := dirState(t, path)
	for name, b := range before {
		if after[name] != b {
			t.Errorf("%s was changed: %d bytes before, %d after", name, len(b), len(after[name]))
		}
	}
	for name := range after {
		if _, was := before[name]; !was {
			t.Errorf("%s was made", name)
		}
	}
}

// TestALogWithoutItsDatabaseIsRefused takes the main file from the log that a crash left. Whoever opens it is refused,
// nothing is made and nothing deleted, and once the file is back everything is there.
func TestALogWithoutItsDatabaseIsRefused(t *testing.T) {
	t.Parallel()
	for name, words := range map[string]string{"moved": "is gone", "emptied": "is empty"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := crashed(t, 30)
			main, err := os.ReadFile(path)
			must(t, err)
			if name == "moved" {
				must(t, os.Remove(path))
			} else {
				must(t, os.Truncate(path, 0))
			}
			before := dirState(t, path)
			for _, opts := range []*Options{nil, {MustExist: true}, nil} {
				_, err := Open(t.Context(), path, opts)
				wantErr(t, err, driver.ErrCorrupt, path, words, path+"-wal holds "+itoa(int64(len(before[filepath.Base(path)+"-wal"])))+" bytes")
			}
			wantUntouched(t, path, before)
			write(t, path, main)
			if got := counts(t, open(t, path, nil))[driver.Available]; got != 30 {
				t.Errorf("%d tasks are available, want 30", got)
			}
		})
	}
}

func TestWhoOnlyLooksMakesNoStore(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "empty.db"), nil)
	before := dirState(t, filepath.Join(dir, "x"))
	for _, name := range []string{"q.db", "empty.db", "no/such/q.db"} {
		path := filepath.Join(dir, name)
		_, err := Open(t.Context(), path, &Options{MustExist: true})
		wantErr(t, err, driver.ErrUnavailable, "there is no store at "+path, "first task is added")
	}
	wantUntouched(t, filepath.Join(dir, "x"), before)
	path := filepath.Join(dir, "empty.db")
	s, err := Open(t.Context(), path, nil)
	must(t, err)
	must(t, s.Close())
	add(t, open(t, path, &Options{MustExist: true}), 1, nil)
}

func TestAURLIsNoPath(t *testing.T) {
	t.Parallel()
	for url, words := range map[string]string{
		"sqlite:q.db": `sqlitestore.Open(ctx, "q.db", opts)`, "sqlite:///var/q.db": `sqlitestore.Open(ctx, "/var/q.db", opts)`,
		"file:q.db": `sqlitestore.Open(ctx, "q.db", opts)`, "redis://localhost": "stores.Open",
	} {
		_, err := Open(t.Context(), url, nil)
		wantErr(t, err, driver.ErrInvalid, words)
	}
	for _, name := range []string{"sqlite:q.db", "q.db"} {
		if _, err := os.Lstat(name); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("a file %s was made", name)
		}
	}
	add(t, open(t, filepath.Join(t.TempDir(), "a:b.db"), nil), 1, nil)
}

// TestPlacesOfOtherKinds has links, directories and second names where the files of a store are looked for.
func TestPlacesOfOtherKinds(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		make  func(t *testing.T, path string)
		want  error
		words string
	}{
		"a link to nothing": {func(t *testing.T, path string) { must(t, os.Symlink(path+".no", path)) }, driver.ErrUnavailable, "symbolic link to"},
		"a directory for a log": {func(t *testing.T, path string) { must(t, os.Mkdir(path+"-wal", 0o700)) }, driver.ErrInvalid,
			"keeps a part of the database there"},
		"a link for a log": {func(t *testing.T, path string) { must(t, os.Symlink("/dev/null", path+"-wal")) }, driver.ErrInvalid, "move it away"},
		"a second name": {func(t *testing.T, path string) {
			s, err := Open(t.Context(), path, nil)
			must(t, err)
			must(t, s.Close())
			must(t, os.Link(path, path+".second"))
		}, driver.ErrInvalid, "2 names (hard links)"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := dbPath(t)
			c.make(t, path)
			for _, opts := range []*Options{nil, {MustExist: true}} {
				if _, err := os.Stat(path); opts != nil && err != nil && name != "a link to nothing" {
					continue // there is no store
				}
				_, err := Open(t.Context(), path, opts)
				wantErr(t, err, c.want, c.words, path)
			}
		})
	}
	dir := t.TempDir() // a link to a store is as good as the store
	must(t, os.Symlink(filepath.Join(dir, "q.db"), filepath.Join(dir, "link.db")))
	add(t, open(t, filepath.Join(dir, "q.db"), nil), 1, nil)
	add(t, open(t, filepath.Join(dir, "link.db"), nil), 1, nil)
}
