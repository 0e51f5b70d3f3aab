package sqlitestore

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/waggleq/waggle/driver"
)

// harms are what can be done to one file of a store. other is the same file of another store.
var harms = map[string]func(t *testing.T, path, other string){
	"deleted":   func(t *testing.T, path, _ string) { must(t, os.Remove(path)) },
	"moved":     func(t *testing.T, path, _ string) { must(t, os.Rename(path, path+".away")) },
	"emptied":   func(t *testing.T, path, _ string) { must(t, os.Truncate(path, 0)) },
	"cut":       func(t *testing.T, path, _ string) { must(t, os.Truncate(path, size(t, path)/2)) },
	"zeroed":    func(t *testing.T, path, _ string) { overwrite(t, path, make([]byte, size(t, path))) },
	"overwrote": func(t *testing.T, path, other string) { overwrite(t, path, read(t, other)) },
	"replaced": func(t *testing.T, path, other string) {
		write(t, path+".new", read(t, other))
		must(t, os.Rename(path+".new", path))
	},
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	must(t, err)
	return b
}

// overwrite writes into a file as cp does.
func overwrite(t *testing.T, path string, b []byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC, 0)
	must(t, err)
	_, err = f.Write(b)
	must(t, errors.Join(err, f.Close()))
}

// otherStore returns the path of a store in use by nobody, with all its files.
func otherStore(t *testing.T) string { return crashed(t, 5) }

// refusal reports whether an error names the store and what is wrong, by one of the errors for it.
func refusal(err error, path string) bool {
	return (errors.Is(err, driver.ErrCorrupt) || errors.Is(err, driver.ErrUnavailable)) && strings.Contains(err.Error(), path)
}

// TestHarmAfterACrash does everything to each file, and to each two, that a crash left behind. The store has all that it
// had, or it is refused with its name, again and again, and the files stay as they are.
func TestHarmAfterACrash(t *testing.T) {
	t.Parallel()
	const tasks = 30
	path, other := crashed(t, tasks), otherStore(t)
	image, otherImage := dirState(t, path), dirState(t, other)
	suffixes := []string{"", "-wal", "-shm", "-mark"}
	try := func(t *testing.T, what string, harm func(t *testing.T, path, other string)) {
		t.Helper()
		dir := t.TempDir()
		path, other := filepath.Join(dir, "waggle.db"), filepath.Join(dir, "other", "waggle.db")
		must(t, os.Mkdir(filepath.Dir(other), 0o700))
		for name, b := range image {
			write(t, filepath.Join(dir, name), []byte(b))
		}
		for name, b := range otherImage {
			write(t, filepath.Join(dir, "other", name), []byte(b))
		}
		harm(t, path, other)
		before := dirState(t, path)
		delete(before, "waggle.db-shm") // nothing is in it that the log does not tell
		for range 2 {
			s, err := Open(t.Context(), path, nil)
			if err != nil {
				if !refusal(err, path) {
					t.Errorf("%s: refused with %v", what, err)
				}
				after := dirState(t, path)
				delete(after, "waggle.db-shm")
				if fmt.Sprint(after) != fmt.Sprint(before) {
					t.Errorf("%s: a refusal changed the files", what)
				}
				continue
			}
			if n := counts(t, s)[driver.Available]; n != tasks {
				t.Errorf("%s: it has %d tasks, and nobody says so", what, n)
			}
			must(t, s.Close())
			break
		}
	}
	for name, harm := range harms {
		for i, suffix := range suffixes {
			what := "q.db" + suffix + " " + name
			try(t, what, func(t *testing.T, path, other string) { harm(t, path+suffix, other+suffix) })
			for name2, harm2 := range harms {
				for _, suffix2 := range suffixes[i+1:] {
					if suffix == "-mark" || suffix2 == "-mark" {
						continue // without it a lost log can't be noticed
					}
					try(t, what+", q.db"+suffix2+" "+name2, func(t *testing.T, path, other string) {
						harm(t, path+suffix, other+suffix)
						harm2(t, path+suffix2, other+suffix2)
					})
				}
			}
		}
	}
}

// TestHarmInUse does everything to each file of a store that another process has open. Neither that process nor a new one
// accepts a task that is not there at the end.
func TestHarmInUse(t *testing.T) {
	t.Parallel()
	for name, harm := range harms {
		for _, suffix := range []string{"", "-wal", "-shm"} {
			t.Run(name+suffix, func(t *testing.T) {
				t.Parallel()
				if suffix == "-shm" && (name == "emptied" || name == "cut" || name == "overwrote" || name == "zeroed") {
					t.Skip("the memory of a process that maps a file which is cut is gone: the system ends it")
				}
				path, other := dbPath(t), otherStore(t)
				p := child(t, "serve", path)
				ask := func() string {
					_, err := fmt.Fprintln(p.stdin)
					must(t, err)
					return p.line()
				}
				if got := p.line(); got != "open" {
					t.Fatal(got)
				}
				var accepted []string
				for range 20 {
					accepted = append(accepted, ask())
				}
				harm(t, path+suffix, other+suffix)
				errs := 0
				for range 3 {
					if got := ask(); strings.HasPrefix(got, "error:") {
						errs++
						if !strings.Contains(got, path) || !strings.Contains(got, "while it was in use") {
							t.Errorf("the process that has it open says %q", got)
						}
					} else {
						accepted = append(accepted, got)
					}
				}
				if errs != 3 {
					t.Errorf("the process that has it open noticed it %d times of 3", errs)
				}
				s, err := Open(t.Context(), path, nil)
				if err == nil {
					results, err := s.Enqueue(t.Context(), []*driver.Task{{Type: "t"}}, driver.EnqueueOptions{})
					if err == nil {
						accepted = append(accepted, results[0].ID)
					}
					must(t, s.Close())
				} else if !refusal(err, path) {
					t.Errorf("a new process is refused with %v", err)
				}
				must(t, p.Process.Kill())
				_ = p.Wait() // it was killed
				wantAllOrRefused(t, path, accepted)
			})
		}
	}
}

func wantAllOrRefused(t *testing.T, path string, ids []string) {
	t.Helper()
	s, err := Open(t.Context(), path, nil)
	if err != nil {
		if !refusal(err, path) {
			t.Errorf("afterwards it is refused with %v", err)
		}
		return
	}
	defer func() { must(t, s.Close()) }()
	records, err := s.Get(t.Context(), ids)
	must(t, err)
	for i, r := range records {
		if r == nil {
			t.Errorf("task %s was accepted and is gone without a word", ids[i])
		}
	}
}
