package sqlitestore

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"github.com/waggleq/waggle/driver"
)

var _ driver.Store = (*Store)(nil)

// open returns a store that is audited and closed at the end of the test.
func open(t testing.TB, path string, opts *Options) *Store {
	t.Helper()
	s, err := Open(t.Context(), path, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if !t.Failed() {
			wantSound(t, s)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// wantSound fails the test for everything that Audit finds. A store that was closed or broken by the test is let go.
func wantSound(t testing.TB, s *Store) {
	t.Helper()
	findings, err := s.Audit(context.Background(), false)
	if err != nil && !errors.Is(err, driver.ErrClosed) && !errors.Is(err, driver.ErrUnavailable) {
		t.Errorf("audit: %v", err)
	}
	for _, f := range findings {
		t.Errorf("audit: %+v", f)
	}
}

func dbPath(t testing.TB) string { return filepath.Join(t.TempDir(), "waggle.db") }

// add enqueues n tasks that must be accepted, and returns their ids.
func add(t testing.TB, s driver.Store, n int, edit func(i int, task *driver.Task)) []string {
	t.Helper()
	var ids []string
	for n > 0 {
		tasks := make([]*driver.Task, min(n, 1000))
		for i := range tasks {
			tasks[i] = &driver.Task{Type: "t", Payload: []byte(`{"n":1}`)}
			if edit != nil {
				edit(len(ids)+i, tasks[i])
			}
		}
		results, err := s.Enqueue(t.Context(), tasks, driver.EnqueueOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range results {
			if r.Err != nil {
				t.Fatal(r.Err)
			}
			ids = append(ids, r.ID)
		}
		n -= len(tasks)
	}
	return ids
}

func register(t testing.TB, s driver.Store, ids ...string) {
	t.Helper()
	for _, id := range ids {
		if err := s.Register(t.Context(), driver.WorkerInfo{ID: id}, time.Minute); err != nil {
			t.Fatal(err)
		}
	}
}

func fetch(t testing.TB, s driver.Store, worker string, n int) []driver.Claim {
	t.Helper()
	res, err := s.Fetch(t.Context(), driver.FetchRequest{Worker: worker, Lease: time.Minute, Queues: []string{"default"}, Max: n})
	if err != nil {
		t.Fatal(err)
	}
	return res.Claims
}

func settle(t testing.TB, s driver.Store, worker string, outcome driver.Outcome, claims ...driver.Claim) {
	t.Helper()
	items := make([]driver.Settlement, len(claims))
	for i, c := range claims {
		items[i] = driver.Settlement{ID: c.ID, Token: c.Token, Outcome: outcome, Error: "went wrong"}
		if outcome == driver.Complete {
			items[i].Error = ""
		}
	}
	errs, err := driver.SettleErrors(s.Settle(t.Context(), worker, items))
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

func counts(t testing.TB, s driver.Store) map[driver.State]int {
	t.Helper()
	queues, err := s.Queues(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, q := range queues {
		if q.Name == "default" {
			return q.Counts
		}
	}
	return nil
}

// wantErr fails the test unless err wraps want and reads as one sentence that has all of words.
func wantErr(t testing.TB, err, want error, words ...string) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("got error %v, want %v", err, want)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("the error %q does not say %q", err, w)
		}
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("the error %q has more than one line", err)
	}
}

func TestOpenRefusesAllBadOptionsAtOnce(t *testing.T) {
	t.Parallel()
	_, err := Open(t.Context(), dbPath(t), &Options{ReadConns: -1, MaxEventBytes: 1, MaxBytes: 1, MinFree: -2, PollEvery: time.Hour,
		Limits: driver.Limits{MaxPayload: -1}})
	if !errors.Is(err, driver.ErrInvalid) {
		t.Fatalf("got %v, want ErrInvalid", err)
	}
	for _, word := range []string{"read connections", "event log", "limited", "free", "polling", "payload"} {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("the error does not mention %q: %v", word, err)
		}
	}
}

func TestNewFilesArePrivate(t *testing.T) {
	t.Parallel()
	path := dbPath(t)
	add(t, open(t, path, nil), 1, nil)
	for name, want := range map[string]os.FileMode{path: 0o600, path + "-wal": 0o600, path + "-shm": 0o600} {
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != want {
			t.Errorf("%s has mode %o, want %o", name, got, want)
		}
	}
}

func TestAMistypedDirectoryIsNotMade(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "a", "b")
	s, err := Open(t.Context(), filepath.Join(dir, "waggle.db"), nil)
	if err == nil {
		_ = s.Close()
	}
	if !errors.Is(err, driver.ErrUnavailable) || !strings.Contains(err.Error(), "there is no directory "+dir) {
		t.Errorf("got %v, want ErrUnavailable with the directory", err)
	}
	if _, err := os.Stat(filepath.Dir(dir)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a directory was made: %v", err)
	}
}

// other runs statements as another program would.
func other(t *testing.T, path string, statements ...string) {
	c, err := sqlite.OpenConn(path, sqlite.OpenReadWrite|sqlite.OpenCreate)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	for _, text := range statements {
		if err := sqlitex.ExecuteTransient(c, text, nil); err != nil {
			t.Fatal(err)
		}
	}
}

func TestOpenRefusesWhatIsNoStore(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		make  func(t *testing.T, path string)
		want  error
		words string
	}{
		"a text file": {func(t *testing.T, path string) { write(t, path, []byte(strings.Repeat("no database\n", 500))) }, driver.ErrCorrupt, "is not a database, or"},
		"a directory": {func(t *testing.T, path string) {
			if err := os.Mkdir(path, 0o700); err != nil {
				t.Fatal(err)
			}
		}, driver.ErrInvalid, "is not a file"},
		"another program's tables": {func(t *testing.T, path string) { other(t, path, "CREATE TABLE x (y)") }, driver.ErrInvalid, "another program"},
		"another program's mark":   {func(t *testing.T, path string) { other(t, path, "PRAGMA application_id=77", "CREATE TABLE x (y)") }, driver.ErrInvalid, "another program"},
		"a store without tables":   {func(t *testing.T, path string) { other(t, path, "PRAGMA application_id="+itoa(applicationID)) }, driver.ErrCorrupt, "no tables"},
		"a newer format": {func(t *testing.T, path string) {
			other(t, path, "PRAGMA application_id="+itoa(applicationID), "PRAGMA user_version=999", "CREATE TABLE x (y)")
		}, driver.ErrUnsupported, "newer version"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := dbPath(t)
			c.make(t, path)
			before, _ := os.ReadFile(path)
			for range 2 { // the answer stays the same
				_, err := Open(t.Context(), path, nil)
				wantErr(t, err, c.want, c.words, path)
			}
			if after, _ := os.ReadFile(path); string(after) != string(before) {
				t.Error("the file was changed")
			}
		})
	}
	_, err := Open(t.Context(), "", nil)
	wantErr(t, err, driver.ErrInvalid, "path of a file")
	_, err = Open(t.Context(), "/proc/no/such/place.db", nil)
	wantErr(t, err, driver.ErrUnavailable, "directory")
}

func write(t testing.TB, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestNetworkFileSystemsAreRefused(t *testing.T) {
	t.Parallel()
	for magic, name := range networkFS {
		path := dbPath(t)
		_, err := Open(t.Context(), path, &Options{statfs: func(string) (fsInfo, error) { return fsInfo{magic: magic, free: 1 << 40}, nil }})
		wantErr(t, err, driver.ErrInvalid, name, "network file system", "local disk")
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: a file was made", name)
		}
	}
	for _, local := range []int64{0xEF53, 0x01021994, 0x9123683E, 0x58465342} { // ext4, tmpfs, btrfs, xfs
		if err := refuseNetwork("/", func(string) (fsInfo, error) { return fsInfo{magic: local}, nil }); err != nil {
			t.Errorf("magic %x: %v", local, err)
		}
	}
}

func TestFilesThatGoAwayAreNoticedBeforeAnythingIsLost(t *testing.T) {
	t.Parallel()
	cases := map[string]func(t *testing.T, path string){
		"deleted":     func(t *testing.T, path string) { must(t, os.Remove(path)) },
		"moved":       func(t *testing.T, path string) { must(t, os.Rename(path, path+".old")) },
		"log deleted": func(t *testing.T, path string) { must(t, os.Remove(path+"-wal")) },
		"replaced": func(t *testing.T, path string) {
			write(t, path+".new", nil)
			must(t, os.Rename(path+".new", path))
		},
	}
	for name, spoil := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := dbPath(t)
			s := open(t, path, nil)
			register(t, s, "w")
			add(t, s, 3, nil)
			claims := fetch(t, s, "w", 1)
			spoil(t, path)
			_, err := s.Enqueue(t.Context(), []*driver.Task{{Type: "t"}}, driver.EnqueueOptions{})
			wantErr(t, err, driver.ErrUnavailable, path, "while it was in use")
			_, err = s.Settle(t.Context(), "w", []driver.Settlement{{ID: claims[0].ID, Token: claims[0].Token, Outcome: driver.Complete}})
			wantErr(t, err, driver.ErrUnavailable, path)
			_, err = s.Get(t.Context(), []string{claims[0].ID})
			wantErr(t, err, driver.ErrUnavailable, path)
		})
	}
}

func TestAFileThatComesBackIsUsedAgain(t *testing.T) {
	t.Parallel()
	path := dbPath(t)
	s := open(t, path, nil)
	add(t, s, 1, nil)
	must(t, os.Rename(path, path+".old"))
	_, err := s.Queues(t.Context())
	wantErr(t, err, driver.ErrUnavailable, "put it back")
	must(t, os.Rename(path+".old", path))
	add(t, s, 1, nil)
	if got := counts(t, s)[driver.Available]; got != 2 {
		t.Errorf("%d tasks are available, want 2", got)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestSettingsOfTheConnections(t *testing.T) {
	t.Parallel()
	s := open(t, dbPath(t), nil)
	got := make(map[string]int64)
	ask := func(c *conn) {
		for _, name := range []string{"synchronous", "foreign_keys", "user_version", "application_id"} {
			v, err := c.number("PRAGMA " + name)
			must(t, err)
			got[name] = v
		}
	}
	done := make(chan struct{})
	if !s.queue.call(func(w *writer) { ask(w.c); close(done) }) {
		t.Fatal("the writer is gone")
	}
	<-done
	want := map[string]int64{"synchronous": 1, // see writer.sync
		"foreign_keys": 0, "user_version": int64(len(migrations)), "application_id": applicationID}
	for name, v := range want {
		if got[name] != v {
			t.Errorf("%s is %d, want %d", name, got[name], v)
		}
	}
	if sqlite.VersionNumber < minSQLite {
		t.Errorf("SQLite %s is too old", sqlite.Version)
	}
}

func TestTwoHandlesWorkOnOneFile(t *testing.T) {
	t.Parallel()
	path := dbPath(t)
	a, b := open(t, path, nil), open(t, path, nil)
	register(t, a, "wa")
	register(t, b, "wb")
	add(t, a, 400, nil)
	var all sync.WaitGroup
	var mu sync.Mutex
	seen := make(map[string]string)
	for worker, s := range map[string]*Store{"wa": a, "wb": b} {
		all.Go(func() {
			for {
				claims := fetch(t, s, worker, 7)
				if len(claims) == 0 {
					return
				}
				mu.Lock()
				for _, c := range claims {
					if by := seen[c.ID]; by != "" {
						t.Errorf("task %s was given to %s and to %s", c.ID, by, worker)
					}
					seen[c.ID] = worker
				}
				mu.Unlock()
				settle(t, s, worker, driver.Complete, claims...)
			}
		})
	}
	all.Wait()
	if len(seen) != 400 {
		t.Errorf("%d tasks were done, want 400", len(seen))
	}
	for _, s := range []*Store{a, b} {
		if got := counts(t, s)[driver.Completed]; got != 400 {
			t.Errorf("%d tasks are completed, want 400", got)
		}
	}
}

// TestAFailureHurtsNobodyElse has the database refuse one change in the middle of a transaction that many share.
func TestAFailureHurtsNobodyElse(t *testing.T) {
	t.Parallel()
	s := open(t, dbPath(t), nil)
	block, blocked := make(chan struct{}), make(chan struct{})
	s.queue.call(func(*writer) { close(blocked); <-block }) // so that what follows shares a transaction
	<-blocked
	var all sync.WaitGroup
	errs := make([]error, 40)
	for i := range errs {
		all.Go(func() {
			if i%10 == 3 {
				errs[i] = s.write(t.Context(), func(tx *tx) error {
					if err := tx.stmt("pending_insert").ints(-1, 1).exec(); err != nil {
						return err
					}
					return tx.stmt("queue_insert").ints(1).null().exec() // a queue has a name
				})
				return
			}
			_, errs[i] = s.Enqueue(t.Context(), []*driver.Task{{Type: "t"}}, driver.EnqueueOptions{})
		})
	}
	for queued := 0; queued < len(errs); {
		s.queue.mu.Lock()
		queued = len(s.queue.ops)
		s.queue.mu.Unlock()
		runtime.Gosched()
	}
	close(block)
	all.Wait()
	for i, err := range errs {
		if (i%10 == 3) != (err != nil) {
			t.Errorf("call %d: error %v", i, err)
		}
	}
	if got := counts(t, s)[driver.Available]; got != 36 {
		t.Errorf("%d tasks are available, want 36", got)
	}
}

func TestCallsThatGiveUpWhileTheyWaitChangeNothing(t *testing.T) {
	t.Parallel()
	s := open(t, dbPath(t), nil)
	block, blocked := make(chan struct{}), make(chan struct{})
	s.queue.call(func(*writer) { close(blocked); <-block })
	<-blocked
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		_, err := s.Enqueue(ctx, []*driver.Task{{Type: "t", ID: "given-up"}}, driver.EnqueueOptions{})
		done <- err
	}()
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("got error %v, want context.Canceled", err)
	}
	close(block)
	add(t, s, 1, nil)
	if r, err := s.Get(t.Context(), []string{"given-up"}); err != nil || r[0] != nil {
		t.Errorf("got %v and error %v, want no task", r[0], err)
	}
}

func TestCloseAnswersWhatWaits(t *testing.T) {
	t.Parallel()
	s, err := Open(t.Context(), dbPath(t), nil)
	must(t, err)
	block, blocked := make(chan struct{}), make(chan struct{})
	s.queue.call(func(*writer) { close(blocked); <-block })
	<-blocked
	errs := make(chan error)
	const calls = maxOps + 10 // more than one transaction takes
	for range calls {
		go func() {
			_, err := s.Enqueue(context.Background(), []*driver.Task{{Type: "t"}}, driver.EnqueueOptions{})
			errs <- err
		}()
	}
	for queued := 0; queued < calls; {
		s.queue.mu.Lock()
		queued = len(s.queue.ops)
		s.queue.mu.Unlock()
		runtime.Gosched()
	}
	closed := make(chan error)
	go func() { closed <- s.Close() }()
	<-s.closing
	close(block)
	for range calls {
		if err := <-errs; err != nil && !errors.Is(err, driver.ErrClosed) {
			t.Errorf("got error %v, want none or ErrClosed", err)
		}
	}
	must(t, <-closed)
	must(t, s.Close()) // again
}
