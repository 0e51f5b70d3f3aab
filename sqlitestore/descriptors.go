package sqlitestore

import (
	"errors"
	"io/fs"
	"os"
	"sync"

	"github.com/waggleq/waggle/driver"
	"zombiezen.com/go/sqlite"
)

// descriptors are the files of a database as this process has opened them beside SQLite, to look at them. All stores of
// the process on one database share them, and they are closed after the last: closing any descriptor of a file ends all
// locks that the process has on it, SQLite's too.
type descriptors struct {
	users   int
	db      *os.File
	dbInfo  os.FileInfo
	shm     *os.File
	shmInfo os.FileInfo
}

var inUse struct {
	mu  sync.Mutex
	all []*descriptors
	// left are connections that must not be closed: SQLite would write the log into a file that is not the database any
	// more, and delete it. They go with the process.
	left []*sqlite.Conn
}

// useFiles returns the descriptors of the database at path. Each call is to be followed by one of leave.
func useFiles(path string) (*descriptors, error) {
	inUse.mu.Lock()
	defer inUse.mu.Unlock()
	info, err := os.Stat(path)
	if err != nil {
		return nil, driver.Errorf(driver.ErrUnavailable, "the database file can't be read: %w", err)
	}
	for _, d := range inUse.all {
		if os.SameFile(d.dbInfo, info) {
			d.users++
			return d, nil
		}
	}
	d := &descriptors{users: 1}
	if d.db, err = os.Open(path); err != nil {
		return nil, driver.Errorf(driver.ErrUnavailable, "the database file can't be opened: %w", err)
	}
	if d.dbInfo, err = d.db.Stat(); err != nil {
		return nil, errors.Join(driver.Errorf(driver.ErrUnavailable, "the database file can't be read: %w", err), d.db.Close())
	}
	inUse.all = append(inUse.all, d)
	return d, nil
}

// shared reports whether another store of this process has the same files open.
func (d *descriptors) shared() bool {
	inUse.mu.Lock()
	defer inUse.mu.Unlock()
	return d.users > 1
}

// leave is called when a store's connections are closed, or were left open.
func (d *descriptors) leave(stillOpen *sqlite.Conn) {
	inUse.mu.Lock()
	defer inUse.mu.Unlock()
	if stillOpen != nil {
		inUse.left = append(inUse.left, stillOpen)
		return
	}
	if d.users--; d.users > 0 {
		return
	}
	for i, other := range inUse.all {
		if other == d {
			inUse.all = append(inUse.all[:i], inUse.all[i+1:]...)
			break
		}
	}
	_ = d.db.Close() // it was only read
	if d.shm != nil {
		_ = d.shm.Close() // it was only read
	}
}

// memory opens the shared memory of the database, as it is now.
func (d *descriptors) memory(path string) (*os.File, os.FileInfo, error) {
	inUse.mu.Lock()
	defer inUse.mu.Unlock()
	info, err := os.Stat(path)
	if err != nil {
		return nil, nil, err
	}
	if d.shm != nil && os.SameFile(info, d.shmInfo) {
		return d.shm, d.shmInfo, nil
	}
	if d.shm != nil && d.users > 1 {
		return nil, nil, fs.ErrNotExist // the one that this process uses is another
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	if info, err = f.Stat(); err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	if d.shm != nil {
		_ = d.shm.Close() // SQLite has not opened it yet, or it is gone
	}
	d.shm, d.shmInfo = f, info
	return f, info, nil
}
