package sqlitestore

import (
	"context"
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"sync/atomic"
	"time"

	"github.com/waggleq/waggle/driver"
	"zombiezen.com/go/sqlite"
)

// admission is how long a process that opens or closes the store at this moment may leave the locks in between.
const admission = 3 * time.Second

// admissionLooks is how often files that nobody seems to use are looked at again before they are called damaged.
const admissionLooks = 2

// markChecks is how often a writer looks whether its mark is still there.
const markChecks = time.Second

// guard watches the files of an open store: SQLite goes on with what it has opened, whatever becomes of it.
type guard struct {
	path     string
	files    *descriptors
	db       os.FileInfo
	wal      os.FileInfo
	shm      os.FileInfo
	shmFile  *os.File
	walFile  *os.File
	size     atomic.Int64 // of the database, at least: it only grows
	closing  atomic.Bool  // this store lets go of the files itself
	pageSize int64

	// Of the writer's goroutine:
	mark   markFile
	bell   bellFile
	marked time.Time // when it was last looked for
	row    storeRow  // as it was last seen in the database's file, empty if it was not
	rowBuf []byte
}

// admit refuses a store that others use by files that this process would not use, and one that has lost what it had.
// SQLite has opened nothing yet.
func admit(ctx context.Context, path string, d *descriptors) error {
	for look := 0; ; look++ {
		used, err := usedByOthers(ctx, path, d)
		if err != nil || used {
			return err
		}
		if d.shared() { // by this process
			return nil
		}
		err = checkMark(path, d.db)
		if err == nil || look == admissionLooks {
			return err
		}
		// The files are read one after the other: who opened or ended the store in between makes them look torn.
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// usedByOthers reports whether other processes have the store open. It returns an error if they do, but by another file of
// shared memory than the one that is there: two such indexes over one log overwrite each other's tasks.
func usedByOthers(ctx context.Context, path string, d *descriptors) (bool, error) {
	deadline := time.Now().Add(admission)
	for {
		if !lockedByOthers(d.db, sharedFirst, sharedLen) {
			return false, nil
		}
		shm, _, err := d.memory(path + "-shm")
		if err == nil && lockedByOthers(shm, memoryInUse, 1) {
			return true, nil
		}
		if time.Now().After(deadline) {
			return true, foreignMemory(path, err != nil)
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			return true, ctx.Err()
		}
	}
}

func foreignMemory(path string, gone bool) error {
	what := "is not the one that they use"
	if gone {
		what = "is gone"
	}
	return driver.Errorf(driver.ErrUnavailable, "%s is used by other processes, but its shared memory %s-shm %s: it was deleted or replaced while they ran, "+
		"and what is stored now could be lost: stop all processes that use the store, then start one of them", path, path, what)
}

// checkMark compares the files that a crash left with the mark that lies beside them. Nobody uses them.
func checkMark(path string, db *os.File) error {
	m := readMark(path)
	if m == nil {
		return nil
	}
	betweenLooks()
	row, found := readStoreRow(db, int64(m.root), int64(m.pageSize), nil)
	betweenLooks()
	wal, err := besides(path + "-wal")
	switch {
	case err != nil:
		return err
	case wal == 0 && !found:
		return lostLog(path, m.events)
	case wal == 0 && row.incarnation != m.incarnation:
		return corruptf("%s is another store than the one that was in use here, and that one's log is gone: put both back, or delete %s-mark to use this one", path, path)
	case wal == 0 && row.events < m.events:
		return lostLog(path, m.events-row.events)
	case wal == 0:
		return nil
	case found && row.incarnation != m.incarnation:
		return corruptf("%s is not the database that the log %s-wal belongs to: put the right one back, or move the log and %s-mark away to go on with this one", path, path, path)
	}
	return checkLog(path, m)
}

// checkLog reads the database through its log, without a change to either.
func checkLog(path string, m *mark) error {
	db, err := sqlite.OpenConn(path, sqlite.OpenReadOnly)
	if err != nil {
		return nil // the next to open it tells
	}
	c := newConn(db)
	defer func() { _ = c.close() }() // it was only read
	var row storeRow
	found, err := c.stmt("store_event").row(func(s *sqlite.Stmt) error {
		row = storeRow{s.ColumnText(0), s.ColumnInt64(1)}
		return nil
	})
	switch {
	case err != nil || !found:
		if m.events > 0 {
			return corruptf("%s with its log %s-wal is not the store that it was: restore both from a backup (%v)", path, path, err)
		}
	case row.incarnation != m.incarnation:
		return corruptf("the log %s-wal does not belong to %s: put the right one back, or move the log and %s-mark away to go on without", path, path, path)
	case row.events < m.events:
		return corruptf("the log %s-wal of %s was cut or damaged: the last %d changes that were stored are not in it. Put the whole log back, "+
			"or delete %s-mark to go on without them", path, path, m.events-row.events, path)
	}
	return nil
}

func lostLog(path string, events int64) error {
	return corruptf("the log %s-wal is gone or empty, and with it the last %d changes that were stored in %s: put the log back, "+
		"or delete %s-mark to go on without them", path, events, path, path)
}

// readStoreRow reads the row of table store from the database's file itself.
func readStoreRow(db *os.File, root, pageSize int64, buf []byte) (storeRow, bool) {
	if int64(len(buf)) != pageSize {
		buf = make([]byte, pageSize)
	}
	if _, err := db.ReadAt(buf, (root-1)*pageSize); err != nil {
		return storeRow{}, false
	}
	return decodeStoreRow(buf)
}

// newGuard begins to watch the files of a store that was just opened with a connection.
func newGuard(ctx context.Context, path string, d *descriptors, c *conn) (*guard, error) {
	if _, err := usedByOthers(ctx, path, d); err != nil {
		return nil, err
	}
	g := &guard{path: path, files: d, db: d.dbInfo}
	var err error
	if g.shmFile, g.shm, err = d.memory(path + "-shm"); err != nil {
		return nil, driver.Errorf(driver.ErrUnavailable, "the shared memory is gone: %w", err)
	}
	if g.walFile, err = os.OpenFile(path+"-wal", os.O_RDWR, 0); err != nil {
		return nil, driver.Errorf(driver.ErrUnavailable, "the write-ahead log is gone: %w", err)
	}
	if g.wal, err = g.walFile.Stat(); err != nil {
		return nil, errors.Join(driver.Errorf(driver.ErrUnavailable, "the write-ahead log can't be read: %w", err), g.walFile.Close())
	}
	err = g.learn(c)
	if err == nil {
		err = g.check()
	}
	if err != nil {
		return nil, errors.Join(err, g.walFile.Close())
	}
	return g, nil
}

// learn asks the database what its files have to look like. A database whose row is still in the log alone is given it.
func (g *guard) learn(c *conn) (err error) {
	if g.pageSize, err = c.stmt("page_size").one(); err != nil {
		return err
	}
	root, err := c.stmt("store_root").one()
	if err != nil {
		return err
	}
	var row storeRow
	if _, err = c.stmt("store_event").row(func(s *sqlite.Stmt) error {
		row = storeRow{s.ColumnText(0), s.ColumnInt64(1)}
		return nil
	}); err != nil {
		return err
	}
	var found bool
	if g.row, found = readStoreRow(g.files.db, root, g.pageSize, nil); !found {
		if err := c.run("PRAGMA wal_checkpoint(passive)"); err != nil {
			return err
		}
		g.row, _ = readStoreRow(g.files.db, root, g.pageSize, nil) // or later
	}
	g.bell = bellFile{path: g.path + "-bell", db: g.db}
	g.mark = markFile{path: g.path + "-mark", db: g.db, mark: mark{incarnation: row.incarnation, root: uint32(root), pageSize: uint32(g.pageSize)}}
	return nil
}

// check is inspect for calls that may run while the store is being closed: then what it does to its own files is no harm.
func (g *guard) check() error {
	err := g.inspect()
	if err != nil && g.closing.Load() {
		return driver.ErrClosed
	}
	return err
}

// inspect returns an error if the store's path leads to other files than those that are open, or if what is in them is not
// what was written: what is stored would be lost.
func (g *guard) inspect() error {
	var sizes [3]int64
	for i, f := range [3]struct {
		path string
		open os.FileInfo
	}{{g.path, g.db}, {g.path + "-wal", g.wal}, {g.path + "-shm", g.shm}} {
		now, err := os.Stat(f.path)
		switch {
		case errors.Is(err, fs.ErrNotExist) && i == 2:
			return driver.Errorf(driver.ErrUnavailable, "%s was moved or deleted while it was in use: stop all processes that use the store, then start one of them", f.path)
		case errors.Is(err, fs.ErrNotExist):
			return driver.Errorf(driver.ErrUnavailable, "%s was moved or deleted while it was in use: put it back, or restart to begin with an empty store", f.path)
		case err != nil:
			return driver.Errorf(driver.ErrUnavailable, "the database file can't be found: %w", err)
		case !os.SameFile(now, f.open) && i == 2:
			return driver.Errorf(driver.ErrUnavailable, "%s was replaced by another file while it was in use: stop all processes that use the store, then start one of them", f.path)
		case !os.SameFile(now, f.open):
			return driver.Errorf(driver.ErrUnavailable, "%s was replaced by another file while it was in use: restart to use the new one", f.path)
		}
		sizes[i] = now.Size()
	}
	if err := g.checkSize(sizes[0]); err != nil {
		return err
	}
	if sizes[2] < indexHead {
		return damaged(g.path+"-shm", "was emptied")
	}
	return g.checkLog()
}

// damaged tells of a file that somebody has written to.
func damaged(path, what string) error {
	return corruptf("%s %s while it was in use: the store is damaged; stop all processes that use it, keep a copy of its files, and restore them from a backup", path, what)
}

// checkSize notices a database that was cut. A smaller one is right if it says so itself: then it was packed.
func (g *guard) checkSize(size int64) error {
	known := g.size.Load()
	if size >= known {
		g.size.CompareAndSwap(known, size)
		return nil
	}
	var head [32]byte
	if _, err := g.files.db.ReadAt(head[:], 0); err == nil && string(head[:15]) == "SQLite format 3" &&
		int64(binary.BigEndian.Uint32(head[28:]))*g.pageSize <= size {
		g.size.CompareAndSwap(known, size)
		return nil
	}
	return damaged(g.path, "was cut from "+itoa(known)+" to "+itoa(size)+" bytes")
}

// indexHead is the size of what the shared memory says of the log, twice: see SQLite's WalIndexHdr.
const indexHead = 96

// checkLog compares the end of the log with what the shared memory says of it.
func (g *guard) checkLog() error {
	var err error
	for try := range 10 {
		if try > 1 {
			time.Sleep(time.Duration(try) * time.Millisecond) // another process may write at this moment
		}
		var index [indexHead]byte
		if _, err := g.shmFile.ReadAt(index[:], 0); err != nil || [48]byte(index[:]) != [48]byte(index[48:]) {
			continue
		}
		if err = g.compareLog(index[:48]); err == nil {
			return nil
		}
	}
	return err
}

func (g *guard) compareLog(index []byte) error {
	frames := int64(binary.NativeEndian.Uint32(index[16:]))
	if index[12] == 0 || frames == 0 {
		return nil // nothing of it counts
	}
	var frame [24]byte
	if _, err := g.walFile.ReadAt(frame[:], 32+(frames-1)*(24+g.pageSize)); err != nil {
		return damaged(g.path+"-wal", "was cut")
	}
	sum := [2]uint32{binary.BigEndian.Uint32(frame[16:]), binary.BigEndian.Uint32(frame[20:])}
	if [8]byte(frame[8:]) != [8]byte(index[32:]) || sum != [2]uint32{binary.NativeEndian.Uint32(index[24:]), binary.NativeEndian.Uint32(index[28:])} {
		return damaged(g.path+"-wal", "was overwritten")
	}
	return nil
}

// checkRow notices a database that was overwritten by another, or by an older copy of itself. It is for the writer, between
// transactions.
func (g *guard) checkRow(c *conn) error {
	if time.Since(g.marked) > markChecks {
		g.marked = time.Now()
		g.mark.again()
		g.bell.again()
	}
	if int64(len(g.rowBuf)) != g.pageSize {
		g.rowBuf = make([]byte, g.pageSize)
	}
	for try := range 5 {
		row, found := readStoreRow(g.files.db, int64(g.mark.root), g.pageSize, g.rowBuf)
		switch {
		case !found && g.row.incarnation == "":
			return nil // it is still in the log alone
		case found && row.incarnation == g.mark.incarnation && row.events >= g.row.events:
			g.row = row
			return nil
		}
		time.Sleep(time.Duration(try) * time.Millisecond) // a checkpoint may write it at this moment
		if root, err := c.stmt("store_root").one(); err == nil && root > 0 {
			g.mark.root = uint32(root) // it was packed
		}
	}
	return damaged(g.path, "was overwritten")
}

// close ends the watch. The connection, the last one of the store, is closed if all files are as they should be;
// otherwise it is left open, so that it does not write into them or delete them.
func (g *guard) close(c *conn) error {
	g.closing.Store(true)
	err := g.inspect()
	_ = g.walFile.Close() // nothing was written through it
	if err != nil {
		g.files.leave(c.db)
		return nil // it was told to whoever called
	}
	err = c.close()
	g.mark.close(g.path + "-wal")
	g.bell.close(g.path + "-wal")
	g.files.leave(nil)
	return err
}
