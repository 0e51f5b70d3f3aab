package sqlitestore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"github.com/waggleq/waggle/driver"
)

// schemaOf returns the definitions of all objects in a database, by name.
func schemaOf(t *testing.T, path string, script string) map[string]string {
	t.Helper()
	db, err := sqlite.OpenConn(path, sqlite.OpenReadWrite|sqlite.OpenCreate)
	must(t, err)
	defer func() { _ = db.Close() }()
	if script != "" {
		must(t, sqlitex.ExecuteScript(db, script, nil))
	}
	all := make(map[string]string)
	space, comment := regexp.MustCompile(`\s+`), regexp.MustCompile(`--[^\n]*`)
	err = sqlitex.ExecuteTransient(db, "SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL", &sqlitex.ExecOptions{ResultFunc: func(s *sqlite.Stmt) error {
		text := strings.TrimSpace(space.ReplaceAllString(comment.ReplaceAllString(s.ColumnText(1), ""), " "))
		all[s.ColumnText(0)] = strings.NewReplacer(" ,", ",", " )", ")").Replace(text) // columns that were added stand differently
		return nil
	}})
	must(t, err)
	return all
}

func TestMigrationsEndAtTheSchema(t *testing.T) {
	t.Parallel()
	path := dbPath(t)
	s, err := Open(t.Context(), path, nil)
	must(t, err)
	must(t, s.Close())
	text, err := sqlFiles.ReadFile("sql/schema.sql")
	must(t, err)
	want := schemaOf(t, dbPath(t), string(text))
	if len(want) < 20 {
		t.Fatalf("the schema has only %d objects", len(want))
	}
	if diff := cmp.Diff(want, schemaOf(t, path, "")); diff != "" {
		t.Errorf("the migrations end elsewhere (-schema +migrated):\n%s", diff)
	}
}

func TestAllStatementsCanBePrepared(t *testing.T) {
	t.Parallel()
	s := open(t, dbPath(t), nil)
	err := s.read(t.Context(), func(c *conn) error {
		for name, text := range statements {
			q, _, err := c.db.PrepareTransient(text)
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			_ = q.Finalize()
		}
		return nil
	})
	must(t, err)
}

// TestAMigrationKilledAtAnyStepIsDoneByTheNext opens what a kill before each statement of a new database's creation and of
// each later migration leaves: one process copies the files at each step, which is what the system would have kept of
// them, and others are killed in earnest at the first, at a middle and at the last step.
func TestAMigrationKilledAtAnyStepIsDoneByTheNext(t *testing.T) {
	t.Parallel()
	steps := 0
	for i, m := range migrations {
		if steps += len(splitStatements(m.text)) + 2; i == 0 { // and what applyMigration adds
			steps += 2
		}
	}
	opens := func(path string, step int) {
		s := open(t, path, nil)
		add(t, s, 1, nil)
		if got := counts(t, s)[driver.Available]; got != 1 {
			t.Errorf("killed at step %d: %d tasks are available, want 1", step, got)
		}
	}
	path, kept := dbPath(t), t.TempDir()
	if err := child(t, "migrate", path, "-1", kept).Wait(); err != nil {
		t.Fatalf("the process that keeps copies ended with %v", err)
	}
	if all, err := os.ReadDir(kept); err != nil || len(all) != steps {
		t.Fatalf("there are copies of %d steps (%v), want %d", len(all), err, steps)
	}
	for step := range steps {
		opens(filepath.Join(kept, fmt.Sprint(step), "q.db"), step)
	}
	for _, step := range []int{0, steps / 2, steps - 1, steps} {
		path := dbPath(t)
		if err := child(t, "migrate", path, fmt.Sprint(step), "").Wait(); (err == nil) != (step == steps) {
			t.Fatalf("step %d: the process ended with %v", step, err)
		}
		opens(path, step)
	}
}

// childMigrate makes a database. It kills itself before a step, or copies the files before each.
func childMigrate(args []string) {
	path, kill, kept := args[0], 0, args[2]
	if _, err := fmt.Sscan(args[1], &kill); err != nil {
		panic(err)
	}
	step := 0
	beforeMigrationStep = func() {
		if step == kill {
			killSelf()
		}
		if kept != "" {
			copyFiles(path, filepath.Join(kept, fmt.Sprint(step)))
		}
		step++
	}
	s, err := Open(context.Background(), path, nil)
	if err != nil {
		panic(err)
	}
	if err := s.Close(); err != nil {
		panic(err)
	}
}

// copyFiles copies a database with the files beside it. It does not open the database's file itself: to close it again
// would end the locks of this process.
func copyFiles(path, dir string) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		panic(err)
	}
	for _, suffix := range []string{"", "-wal", "-shm", "-mark", "-journal"} {
		if _, err := os.Stat(path + suffix); err != nil {
			continue
		}
		if out, err := exec.Command("cp", path+suffix, filepath.Join(dir, "q.db"+suffix)).CombinedOutput(); err != nil {
			panic(string(out))
		}
	}
}

func TestALaterMigrationIsAtomic(t *testing.T) {
	t.Parallel()
	path := dbPath(t)
	s, err := Open(t.Context(), path, nil)
	must(t, err)
	add(t, s, 5, nil)
	must(t, s.Close())
	next := migration{int64(len(migrations) + 1), "ALTER TABLE task ADD COLUMN extra TEXT;\nCREATE TABLE more (x INTEGER) STRICT;\nINSERT INTO nowhere VALUES (1);\n"}
	c := rawConn(t, path)
	if err := migrate(t.Context(), c, path, slices.Concat(migrations, []migration{next})); err == nil {
		t.Fatal("a broken migration succeeded")
	}
	must(t, c.close())
	s = open(t, path, nil)
	if got := counts(t, s)[driver.Available]; got != 5 {
		t.Errorf("%d tasks are left, want 5", got)
	}
	if _, ok := schemaOf(t, path, "")["more"]; ok {
		t.Error("half of a migration was kept")
	}
}

func rawConn(t testing.TB, path string) *conn {
	t.Helper()
	db, err := sqlite.OpenConn(path, sqlite.OpenReadWrite)
	must(t, err)
	return newConn(db)
}

// TestASecondProcessWaitsForTheFirstToMigrate starts many processes on a file that does not exist.
func TestASecondProcessWaitsForTheFirstToMigrate(t *testing.T) {
	t.Parallel()
	path := dbPath(t)
	var all []*process
	for i := range 6 {
		all = append(all, child(t, "enqueue", path, fmt.Sprint(i), "10"))
	}
	for _, c := range all {
		if err := c.Wait(); err != nil {
			t.Error(err)
		}
	}
	if got := counts(t, open(t, path, nil))[driver.Available]; got != 60 {
		t.Errorf("%d tasks are available, want 60", got)
	}
}

func TestMain(m *testing.M) {
	if role := os.Getenv("WAGGLE_TEST_ROLE"); role != "" {
		runChild(role, os.Args[1:])
		return
	}
	os.Exit(m.Run())
}

func TestAStoreThatANewerProgramMigratesIsLeftAlone(t *testing.T) {
	t.Parallel()
	path := dbPath(t)
	s := open(t, path, nil)
	task := &driver.Task{ID: "before", Type: "t"}
	if _, err := s.Enqueue(t.Context(), []*driver.Task{task}, driver.EnqueueOptions{}); err != nil {
		t.Fatal(err)
	}
	other(t, path, "ALTER TABLE store ADD COLUMN next INTEGER", "PRAGMA user_version="+itoa(newestFormat+1))
	calls := map[string]func() error{
		"Enqueue": func() error {
			_, err := s.Enqueue(t.Context(), []*driver.Task{{Type: "t"}}, driver.EnqueueOptions{})
			return err
		},
		"Get":       func() error { _, err := s.Get(t.Context(), []string{"before"}); return err },
		"Heartbeat": func() error { _, err := s.Heartbeat(t.Context(), "w", driver.DefaultLease); return err },
		"Queues":    func() error { _, err := s.Queues(t.Context()); return err },
	}
	for name, call := range calls {
		if err := call(); !errors.Is(err, driver.ErrUnsupported) || !strings.Contains(err.Error(), "update this program") {
			t.Errorf("%s: got %v, want ErrUnsupported with what to do", name, err)
		}
	}
	other(t, path, "ALTER TABLE store DROP COLUMN next", "PRAGMA user_version="+itoa(newestFormat))
	if r, err := s.Get(t.Context(), []string{"before"}); err != nil || r[0] == nil || r[0].State != driver.Available {
		t.Errorf("after all: %v, %v", r, err)
	}
}
