// Package sqlitestore is Waggle's default engine: a [driver.Store] in one SQLite file, with no service to run.
//
// Several processes on one machine may use the file at once. What is accepted is on stable storage: every change is a
// transaction whose commit waits for fsync. One goroutine, the writer, makes all changes of a process; calls that come
// while it is busy share its next transaction, so a thousand of them wait for one fsync, and a lone one for its own.
// Inspection reads from a few connections of its own and never waits for writers.
//
// The file lies in WAL mode: beside it are path-wal and path-shm while it is in use, path-bell, and path-mark, which says how much
// the others have to hold. All belong together. One that is moved, deleted, cut or overwritten while a process has the
// store open is noticed before anything more is accepted; one that a crash left behind, when the store is opened. Network
// file systems can't keep what SQLite needs of them and are refused.
package sqlitestore

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/waggleq/waggle/driver"
	"zombiezen.com/go/sqlite"
)

// minSQLite is the oldest SQLite whose WAL mode is safe with several processes: 3.51.3 repairs a race between a
// checkpoint and a writer that could lose a transaction.
const minSQLite = 3_051_003

// Options are the settings of a store; the zero value of a field means its default.
type Options struct {
	// Clock is the store's clock; default [time.Now]. Processes that share a file must have the same clock.
	Clock func() time.Time
	// Limits is what is accepted.
	Limits driver.Limits
	// ReadConns is how many inspecting calls run at once, 1…64; default 3.
	ReadConns int
	// MaxEventBytes bounds the event log, 64 KiB…1 GiB; default 8 MiB, about 400 000 events.
	MaxEventBytes int64
	// MaxBytes bounds the database file; Enqueue returns [driver.ErrStoreFull] when it is nearly reached. At least
	// 1 MiB; default 0: only the disk bounds it. It holds for this process alone.
	MaxBytes int64
	// MinFree is how much of the disk Enqueue leaves free, so that what is stored can still be worked off on a disk
	// that is nearly full; default 8 MiB. -1: nothing.
	MinFree int64
	// PollEvery is how often an idle store looks for changes by other processes where the operating system does not
	// tell of them, 1ms…1s; default 5ms.
	PollEvery time.Duration
	// MustExist refuses a path where there is no store yet with [driver.ErrUnavailable], and makes none.
	MustExist bool

	statfs func(path string) (fsInfo, error) // for tests
	steps  *atomic.Int64                     // for tests: counts the steps of statements
}

// settings are Options with their defaults.
type settings struct {
	Options
	pollEvery time.Duration
}

func (o *Options) withDefaults() settings {
	var s settings
	if o != nil {
		s.Options = *o
	}
	if s.Clock == nil {
		s.Clock = time.Now
	}
	if s.ReadConns == 0 {
		s.ReadConns = 3
	}
	if s.MaxEventBytes == 0 {
		s.MaxEventBytes = 8 << 20
	}
	if s.MinFree == 0 {
		s.MinFree = 8 << 20
	}
	if s.PollEvery == 0 {
		s.PollEvery = 5 * time.Millisecond
	}
	if s.statfs == nil {
		s.statfs = statfs
	}
	s.pollEvery = s.PollEvery
	return s
}

func (s *settings) validate() error {
	var errs []error
	refuse := func(bad bool, format string, args ...any) {
		if bad {
			errs = append(errs, driver.Invalidf(format, args...))
		}
	}
	limits, err := s.Limits.WithDefaults()
	s.Limits = limits
	errs = append(errs, err)
	refuse(s.ReadConns < 1 || s.ReadConns > 64, "the number of read connections must be between 1 and 64, got %d", s.ReadConns)
	refuse(s.MaxEventBytes < 64<<10 || s.MaxEventBytes > 1<<30, "the event log must have between 64 KiB and 1 GiB, got %d bytes", s.MaxEventBytes)
	refuse(s.MaxBytes != 0 && s.MaxBytes < 1<<20, "the database can't be limited to less than 1 MiB, got %d bytes", s.MaxBytes)
	refuse(s.MinFree < -1, "the space to leave free must not be negative, got %d bytes", s.MinFree)
	refuse(s.PollEvery < time.Millisecond || s.PollEvery > time.Second, "the polling interval must be between 1ms and 1s, got %v", s.PollEvery)
	return errors.Join(errs...)
}

// Store is an open store. Open makes one.
type Store struct {
	path    string
	opts    settings
	caps    driver.Capabilities
	guard   *guard
	readers chan *conn
	waiters *waiters
	queue   opQueue
	incarn  string

	closeOnce sync.Once
	closing   chan struct{}  // closed by Close
	alone     chan struct{}  // closed by Close once the writer has the only connection
	running   sync.WaitGroup // the writer and the readers under way
	closed    atomic.Bool
	closeErr  error // of the writer; see running
}

var errClosed = driver.Errorf(driver.ErrClosed, "the sqlite store is closed")

// Open opens the store in the file at path, made if needed with mode 0600, in a directory that is there. opts may be nil.
// It waits for another process that is just making or migrating the file.
//
// Errors: [driver.ErrInvalid] (options; path is a URL; the file is the database of another program, or has a second name;
// the file system is a network file system), [driver.ErrCorrupt] (the file is no database, is damaged, or does not belong
// to the files beside it), [driver.ErrUnsupported] (a newer version of this program made it), [driver.ErrUnavailable]
// (there is no such directory, or, with MustExist, no store; it can't be opened). An error changes no file.
func Open(ctx context.Context, path string, opts *Options) (*Store, error) {
	o := opts.withDefaults()
	if err := o.validate(); err != nil {
		return nil, err
	}
	if sqlite.VersionNumber < minSQLite {
		return nil, driver.Errorf(driver.ErrUnsupported, "this program was built with SQLite %s, 3.51.3 or later is needed", sqlite.Version)
	}
	path, err := preparePath(path, &o)
	if err != nil {
		return nil, err
	}
	s := &Store{path: path, opts: o, closing: make(chan struct{}), alone: make(chan struct{}), waiters: newWaiters()}
	s.queue.news = make(chan struct{}, 1)
	disk := driver.DurabilityDisk
	s.caps = driver.Capabilities{
		Engine: "sqlite", Durability: []driver.Durability{disk}, DefaultDurability: disk,
		Ordered: true, Shared: true, Keys: true, Limits: true, Plans: true, Limit: o.Limits,
	}
	if err := s.start(ctx); err != nil {
		if strings.HasPrefix(err.Error(), path) {
			return nil, err
		}
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return s, nil
}

// start opens the writer's connection and starts the writer.
func (s *Store) start(ctx context.Context) error {
	files, err := useFiles(s.path)
	if err != nil {
		return err
	}
	if err := admit(ctx, s.path, files); err != nil {
		files.leave(nil)
		return err
	}
	main, err := s.connect(false)
	if err == nil {
		if err = s.takeOver(ctx, main, files); err != nil {
			_ = main.close() // nothing was done with it
		}
	}
	if err != nil {
		files.leave(nil)
		if notADatabase(err) {
			return noDatabase(s.path)
		}
		return err
	}
	w := &writer{s: s, c: main, held: make(map[string]*holding), syncData: syncData, watch: watch{mark: &s.guard.mark, bell: &s.guard.bell, pollEvery: s.opts.pollEvery}}
	s.running.Go(func() {
		w.loop()
		<-s.alone // or nobody would be the last to close, and write the log back: two that close at once keep each other from it
		s.closeErr = w.close()
	})
	return nil
}

// takeOver makes a store of what the first connection has opened.
func (s *Store) takeOver(ctx context.Context, main *conn, files *descriptors) (err error) {
	if err := prepareDatabase(ctx, main, s.path); err != nil {
		return err
	}
	if err := s.limitSize(main); err != nil {
		return err
	}
	if err := main.run("PRAGMA synchronous=normal"); err != nil { // see writer.sync
		return err
	}
	if s.incarn, err = main.stmt("incarnation").str(); err != nil {
		return err
	}
	if s.guard, err = newGuard(ctx, s.path, files, main); err != nil {
		return err
	}
	s.readers = make(chan *conn, s.opts.ReadConns)
	for range s.opts.ReadConns {
		s.readers <- nil // opened by the first who needs it
	}
	return nil
}

// fileGone returns an error if the store's files are not those that are open any more, or are damaged.
func (s *Store) fileGone() error { return s.guard.check() }

// connect opens a connection with the settings that all have.
func (s *Store) connect(reader bool) (*conn, error) {
	db, err := sqlite.OpenConn(s.path, sqlite.OpenReadWrite)
	if err != nil {
		return nil, dbErr(err)
	}
	c := newConn(db)
	c.steps = s.opts.steps
	// A larger one costs more than it saves: each commit of a transaction in which SQLite has put pages in order goes through all
	// that is in it. See BenchmarkKeys.
	cache := "-4000"
	if reader {
		cache = "-2000"
	}
	for _, pragma := range []string{"foreign_keys=off", "synchronous=full", "temp_store=memory", "trusted_schema=off",
		"cache_size=" + cache, "wal_autocheckpoint=2000", "journal_size_limit=16777216", "cell_size_check=on"} {
		if err := c.run("PRAGMA " + pragma); err != nil {
			_ = c.close()
			return nil, err
		}
	}
	db.SetBusyTimeout(0) // the writer waits by itself; readers are never in anybody's way
	if reader {
		db.SetBusyTimeout(5 * time.Second) // but for the moment in which a crashed process's WAL is recovered
		if err := c.run("PRAGMA query_only=on"); err != nil {
			_ = c.close()
			return nil, err
		}
	}
	return c, nil
}

// run runs a statement that is used once, whatever rows it returns.
func (c *conn) run(text string) error {
	s, _, err := c.db.PrepareTransient(text)
	if err != nil {
		return dbErr(err)
	}
	q := &stmt{s: s}
	err = q.rows(func(*sqlite.Stmt) error { return nil })
	_ = s.Finalize() // repeats err
	return err
}

// Capabilities implements [driver.Store].
func (s *Store) Capabilities() driver.Capabilities { return s.caps }

// Close implements [driver.Store].
func (s *Store) Close() error {
	var err error
	s.closeOnce.Do(func() {
		s.closed.Store(true)
		close(s.closing)
		s.queue.mu.Lock()
		s.queue.closed = true
		s.queue.signal()
		s.queue.mu.Unlock()
		for range s.opts.ReadConns {
			c := <-s.readers // waits for the calls under way
			if c != nil {
				err = errors.Join(err, c.close())
			}
		}
		close(s.alone)
		s.running.Wait()
		err = errors.Join(err, s.closeErr)
	})
	return err
}

// now is the store's clock in milliseconds.
func (s *Store) now() int64 { return s.opts.Clock().UnixMilli() }

// read runs f on a connection of its own, in one snapshot.
func (s *Store) read(ctx context.Context, f func(*conn) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	var c *conn
	select {
	case <-s.closing:
		return errClosed
	case <-ctx.Done():
		return ctx.Err()
	case c = <-s.readers:
	}
	defer func() { s.readers <- c }()
	if s.closed.Load() {
		return errClosed
	}
	if err := s.fileGone(); err != nil {
		return err
	}
	if c == nil {
		var err error
		if c, err = s.connect(true); err != nil {
			return err
		}
		if err := s.fileGone(); err != nil { // it may have opened others
			return err
		}
	}
	if done := ctx.Done(); done != nil {
		c.db.SetInterrupt(done)
		defer c.db.SetInterrupt(nil)
	}
	err := c.stmt("begin_read").exec()
	if err == nil {
		clear(c.sound)
		if err = s.checkFormat(c); err == nil {
			err = f(c)
		}
		if !c.db.AutocommitEnabled() {
			c.db.SetInterrupt(nil)
			_ = c.stmt("rollback").exec() // nothing was written
		}
	}
	if isInterrupted(err) && ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}
