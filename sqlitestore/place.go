package sqlitestore

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/waggleq/waggle/driver"
)

// fileMode keeps tasks from other users.
const fileMode os.FileMode = 0o600

// preparePath returns the path of the database, absolute and without symbolic links. It makes the file if it is needed and
// wanted, and refuses places where a database can't live and files that do not belong together. SQLite has not seen them
// yet: it would delete a log whose database is empty.
func preparePath(path string, o *settings) (string, error) {
	if path == "" || path == ":memory:" {
		return "", driver.Invalidf("the sqlite store needs the path of a file; for tasks in memory use the memory store")
	}
	if err := refuseURL(path); err != nil {
		return "", err
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return "", driver.Errorf(driver.ErrUnavailable, "open %s: %w", path, err)
	}
	if to, err := os.Readlink(path); err == nil {
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			return "", driver.Errorf(driver.ErrUnavailable, "%s is a symbolic link to %s, which is not there: put it back, or delete the link", path, to)
		}
	}
	if _, err := os.Stat(path); o.MustExist && errors.Is(err, fs.ErrNotExist) {
		if wal, _ := besides(path + "-wal"); wal == 0 && readMark(path) == nil {
			return "", noStore(path)
		}
	}
	if err := checkDirectory(filepath.Dir(path)); err != nil {
		return "", err
	}
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real // the -wal file lies beside the real one
	}
	if err := refuseNetwork(filepath.Dir(path), o.statfs); err != nil {
		return "", err
	}
	if err := checkFiles(path, o.MustExist); err != nil || o.MustExist {
		return path, err
	}
	// Closed before any connection opens it: closing a file ends all locks that this process has on it.
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, fileMode)
	switch {
	case err == nil:
		return path, f.Close()
	case errors.Is(err, fs.ErrExist):
		return path, nil
	}
	return "", driver.Errorf(driver.ErrUnavailable, "the database file can't be created: %w", err)
}

// refuseURL returns an error for the URL of a store, which would become the name of a file.
func refuseURL(path string) error {
	scheme, rest, found := strings.Cut(path, ":")
	switch {
	case !found || len(scheme) < 2 || strings.ContainsAny(scheme, `/\`):
		return nil
	case strings.EqualFold(scheme, "sqlite") || strings.EqualFold(scheme, "file"):
		return driver.Invalidf("%q is a URL, and sqlitestore.Open takes a path: call sqlitestore.Open(ctx, %q, opts), or stores.Open for a URL", path, strings.TrimPrefix(rest, "//"))
	case strings.HasPrefix(rest, "//"):
		return driver.Invalidf("this is a URL of scheme %q, and sqlitestore.Open takes the path of a file: call stores.Open for a URL", scheme)
	}
	return nil
}

func checkDirectory(dir string) error {
	switch info, err := os.Stat(dir); {
	case errors.Is(err, fs.ErrNotExist):
		return driver.Errorf(driver.ErrUnavailable, "there is no directory %s for the database: check the path, or create the directory first", dir)
	case err != nil:
		return driver.Errorf(driver.ErrUnavailable, "the directory of the database can't be examined: %w", err)
	case !info.IsDir():
		return driver.Errorf(driver.ErrUnavailable, "%s is not a directory, so no database can be in it: check the path", dir)
	}
	return nil
}

// checkFiles looks at the database and what lies beside it.
func checkFiles(path string, mustExist bool) error {
	// The database last: another process may be making it, and it is there before its log and its mark.
	wal, err := besides(path + "-wal")
	if err != nil {
		return err
	}
	if _, err := besides(path + "-shm"); err != nil {
		return err
	}
	mark := readMark(path)
	betweenLooks()
	info, err := os.Stat(path)
	missing := errors.Is(err, fs.ErrNotExist)
	switch {
	case err != nil && !missing:
		return driver.Errorf(driver.ErrUnavailable, "the database file can't be read: %w", err)
	case !missing && info.IsDir():
		return driver.Invalidf("%s is not a file: name a file, such as %s", path, filepath.Join(path, "waggle.db"))
	case !missing && !info.Mode().IsRegular():
		return driver.Invalidf("%s is not a file: name a file, such as %s", path, filepath.Join(filepath.Dir(path), "waggle.db"))
	}
	empty := missing || info.Size() == 0
	switch {
	case empty && wal > 0:
		return emptyBesideLog(path, missing, wal)
	case empty && mark != nil:
		return emptyBesideMark(path, missing, mark.events)
	case empty && mustExist:
		return noStore(path)
	case !missing && links(info) > 1:
		return driver.Invalidf("%s has %d names (hard links), and each would get a log of its own: delete all but one, or copy the file instead (find / -samefile %s)", path, links(info), path)
	}
	return nil
}

func noStore(path string) error {
	return driver.Errorf(driver.ErrUnavailable, "there is no store at %s: check the path; one is made when the first task is added or the first worker is started", path)
}

// emptyBesideLog tells of a log without its database.
func emptyBesideLog(path string, missing bool, wal int64) error {
	state := "is empty"
	if missing {
		state = "is gone"
	}
	return corruptf("%s %s, but its log %s-wal holds %d bytes of it: put the database back beside its log, restore both from a backup, "+
		"or move the log away to begin with an empty store", path, state, path, wal)
}

// emptyBesideMark tells of a mark without its database and log.
func emptyBesideMark(path string, missing bool, events int64) error {
	state := "is empty"
	if missing {
		state = "is gone"
	}
	return corruptf("%s %s, and so is its log, but %s-mark says that %d changes were stored in them: put both back, restore them from a backup, "+
		"or delete the mark to begin with an empty store", path, state, path, events)
}

// besides returns the size of a file that SQLite keeps beside the database, 0 if there is none.
func besides(path string) (int64, error) {
	switch info, err := os.Lstat(path); {
	case errors.Is(err, fs.ErrNotExist):
		return 0, nil
	case err != nil:
		return 0, driver.Errorf(driver.ErrUnavailable, "%s can't be examined: %w", path, err)
	case !info.Mode().IsRegular():
		return 0, driver.Invalidf("%s is not a file, but SQLite keeps a part of the database there: move it away", path)
	default:
		return info.Size(), nil
	}
}
