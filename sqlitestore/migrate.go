package sqlitestore

import (
	"context"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/waggleq/waggle/driver"
	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"
)

// applicationID marks the file as Waggle's, for this program and for file(1): "Wagl".
const applicationID = 0x5761676c

// quickCheckBytes is how large a file may be to be checked in full when it is opened; it takes about 5 ms a MiB.
const quickCheckBytes = 4 << 20

// migration brings a database from version-1 to version.
type migration struct {
	version int64
	text    string
}

// migrations are the files sql/migrations/NNNN_name.sql, in order.
var migrations = mustLoadMigrations(sqlFiles)

func mustLoadMigrations(files fs.FS) []migration {
	names, err := fs.Glob(files, "sql/migrations/*.sql")
	if err != nil {
		panic(err) // the pattern is a constant
	}
	list := make([]migration, 0, len(names))
	for i, name := range names {
		text, err := fs.ReadFile(files, name)
		if err != nil {
			panic(err) // the file is part of the program
		}
		digits, _, _ := strings.Cut(strings.TrimPrefix(name, "sql/migrations/"), "_")
		if n, err := strconv.Atoi(digits); err != nil || n != i+1 {
			panic("sqlitestore: migrations must be numbered without gaps: " + name)
		}
		list = append(list, migration{int64(i + 1), string(text)})
	}
	return list
}

// prepareDatabase makes sure that the file is this program's database, sound, in WAL mode and of the newest version.
func prepareDatabase(ctx context.Context, c *conn, path string) error {
	c.db.SetBusyTimeout(100 * time.Millisecond)
	defer c.db.SetBusyTimeout(0)
	version, err := identify(ctx, c, path)
	if err != nil {
		return err
	}
	if err := retryBusy(ctx, func() error { return switchToWAL(c) }); err != nil {
		return err
	}
	if version > 0 {
		if err := quickCheck(ctx, c, path); err != nil {
			return err
		}
	}
	return migrate(ctx, c, path, migrations)
}

// identify returns the version of the database's schema, 0 for a new one.
func identify(ctx context.Context, c *conn, path string) (version int64, err error) {
	var id, objects int64
	err = retryBusy(ctx, func() error {
		// In one snapshot: another process may be making the store at this moment.
		if err := c.stmt("begin_read").exec(); err != nil {
			return err
		}
		defer func() { _ = c.stmt("rollback").exec() }() // nothing was written
		for _, q := range []struct {
			text string
			to   *int64
		}{{"PRAGMA application_id", &id}, {"PRAGMA user_version", &version}, {"SELECT count(*) FROM sqlite_schema", &objects}} {
			if *q.to, err = c.number(q.text); err != nil {
				return err
			}
			betweenLooks()
		}
		return nil
	})
	switch {
	case notADatabase(err):
		return 0, noDatabase(path)
	case err != nil:
		return 0, err
	case id != applicationID && (id != 0 || objects > 0):
		return 0, driver.Invalidf("%s is the database of another program: choose another path", path)
	case id == applicationID && (version < 1 || objects == 0):
		return 0, corruptf("%s says that it is a store, but has no tables: restore the file from a backup", path)
	case version > newestFormat:
		return 0, newerFormat(path, version)
	}
	return version, nil
}

// betweenLooks is for tests, in which another process makes the store there.
var betweenLooks = func() {}

// newestFormat is the version of the schema that this program writes.
var newestFormat = migrations[len(migrations)-1].version

func newerFormat(path string, version int64) error {
	return driver.Errorf(driver.ErrUnsupported, "%s was made by a newer version of this program (format %d, this one reads up to %d): update this program", path, version, newestFormat)
}

// checkFormat refuses a database that a newer program has migrated while this one had it open. It is to be called in
// a transaction.
func (s *Store) checkFormat(c *conn) error {
	version, err := c.stmt("user_version").one()
	if err == nil && version > newestFormat {
		err = newerFormat(s.path, version)
	}
	return err
}

// number runs a statement that is used once and returns its integer.
func (c *conn) number(text string) (int64, error) {
	var v int64
	err := sqlitex.ExecuteTransient(c.db, text, &sqlitex.ExecOptions{ResultFunc: func(s *sqlite.Stmt) error {
		v = s.ColumnInt64(0)
		return nil
	}})
	return v, dbErr(err)
}

func switchToWAL(c *conn) error {
	mode := ""
	err := sqlitex.ExecuteTransient(c.db, "PRAGMA journal_mode=wal", &sqlitex.ExecOptions{ResultFunc: func(s *sqlite.Stmt) error {
		mode = s.ColumnText(0)
		return nil
	}})
	if err != nil {
		return dbErr(err)
	}
	if mode != "wal" {
		return driver.Errorf(driver.ErrUnavailable, "the file system does not offer what WAL mode needs (journal mode is %q): use a local disk", mode)
	}
	return nil
}

// quickCheck looks for damage in a small file. Larger ones are checked as they are read, and by Audit.
func quickCheck(ctx context.Context, c *conn, path string) error {
	if info, err := os.Stat(path); err != nil || info.Size() > quickCheckBytes {
		return nil // the next statement tells what is wrong
	}
	finding := ""
	err := retryBusy(ctx, func() error {
		finding = ""
		return dbErr(sqlitex.ExecuteTransient(c.db, "PRAGMA quick_check(1)", &sqlitex.ExecOptions{ResultFunc: func(s *sqlite.Stmt) error {
			finding = s.ColumnText(0)
			return nil
		}}))
	})
	if err == nil && finding != "ok" {
		err = corruptf("%s is damaged: restore it from a backup, or keep a copy and begin with a new one (%s)", path, strings.ReplaceAll(finding, "\n", " "))
	}
	return err
}

// migrate brings the database to the newest version, each step in one transaction. A process that comes second waits
// and finds the work done.
func migrate(ctx context.Context, c *conn, path string, list []migration) error {
	for _, m := range list {
		if err := retryBusy(ctx, func() error { return applyMigration(c, m) }); err != nil {
			return err
		}
	}
	// Another process may have been newer than this one in the meantime.
	_, err := identify(ctx, c, path)
	return err
}

// beforeMigrationStep is for tests, which end the process there.
var beforeMigrationStep = func() {}

func applyMigration(c *conn, m migration) (err error) {
	if version, err := c.number("PRAGMA user_version"); err != nil || version >= m.version {
		return err
	}
	if err := c.stmt("begin").exec(); err != nil {
		return err
	}
	defer func() {
		if err != nil && !c.db.AutocommitEnabled() {
			_ = c.stmt("rollback").exec() // err tells more
		}
	}()
	version, err := c.number("PRAGMA user_version")
	if err != nil {
		return err
	}
	if version >= m.version { // somebody was faster
		return c.stmt("commit").exec()
	}
	steps := splitStatements(m.text)
	if m.version == 1 {
		// The incarnation has nothing that would need quoting.
		steps = append(steps, strings.Replace(statements["store_create"], "?", "'"+driver.NewID()+"'", 1), "PRAGMA application_id="+itoa(applicationID))
	}
	for _, text := range append(steps, "PRAGMA user_version="+itoa(m.version), statements["commit"]) {
		beforeMigrationStep()
		if err := c.run(text); err != nil {
			return err
		}
	}
	return nil
}

// splitStatements splits a migration at the semicolons that end lines.
func splitStatements(text string) []string {
	var list []string
	for part := range strings.SplitSeq(withoutComments(text), ";\n") {
		if part = strings.TrimSpace(part); part != "" {
			list = append(list, part)
		}
	}
	return list
}

// retryBusy repeats f while another process has the database locked.
func retryBusy(ctx context.Context, f func() error) error {
	deadline := time.Now().Add(maxBusy)
	for {
		err := f()
		if !isBusy(err) || time.Now().After(deadline) {
			return err
		}
		timer := time.NewTimer(2 * time.Millisecond)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
	}
}

func itoa(v int64) string { return strconv.FormatInt(v, 10) }
