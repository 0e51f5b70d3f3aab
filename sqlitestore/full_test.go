package sqlitestore

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/waggleq/waggle/driver"
)

// fillUp enqueues until the store is full, and returns how many tasks it took.
func fillUp(t *testing.T, s *Store) int {
	t.Helper()
	payload := []byte(`"` + strings.Repeat("x", 2000) + `"`)
	for n := 0; n < 100_000; {
		tasks := make([]*driver.Task, 50)
		for i := range tasks {
			tasks[i] = &driver.Task{ID: fmt.Sprintf("task-%d", n+i), Type: "t", Payload: payload}
		}
		_, err := s.Enqueue(t.Context(), tasks, driver.EnqueueOptions{})
		if err == nil {
			n += len(tasks)
			continue
		}
		wantErr(t, err, driver.ErrStoreFull)
		for _, task := range tasks {
			if r, err := s.Get(t.Context(), []string{task.ID}); err != nil || r[0] != nil {
				t.Fatalf("a refused task is in the store: %v, error %v", r[0], err)
			}
		}
		return n
	}
	t.Fatal("the store is never full")
	return 0
}

// workOff runs a full store empty, and makes sure that it takes tasks again.
func workOff(t *testing.T, s *Store, n int) {
	t.Helper()
	if got := counts(t, s)[driver.Available]; got != n {
		t.Errorf("%d tasks are available, want %d", got, n)
	}
	register(t, s, "w")
	keep := driver.DefaultRetention()
	keep.Completed = driver.KeepNone
	_, err := s.SetQueue(t.Context(), "default", driver.QueuePatch{Retention: &keep})
	must(t, err)
	done := 0
	for claims := fetch(t, s, "w", 20); len(claims) > 0; claims = fetch(t, s, "w", 20) {
		settle(t, s, "w", driver.Complete, claims...)
		done += len(claims)
	}
	if done != n {
		t.Errorf("%d tasks were worked off, want %d", done, n)
	}
	for more := true; more; {
		res, err := s.Maintain(t.Context(), 0)
		must(t, err)
		more = res.More
	}
	add(t, s, 10, nil)
	wantSound(t, s)
}

func TestAFullStoreRefusesTasksAndIsWorkedOff(t *testing.T) {
	t.Parallel()
	s := open(t, dbPath(t), &Options{MaxBytes: 4 << 20})
	workOff(t, s, fillUp(t, s))
}

func TestAFullDiskRefusesTasksAndIsWorkedOff(t *testing.T) {
	t.Parallel()
	dir := smallDisk(t, "24m")
	s := open(t, filepath.Join(dir, "waggle.db"), &Options{MinFree: 8 << 20})
	workOff(t, s, fillUp(t, s))
}

// TestADiskThatOthersFill leaves not one byte, so that even what is never refused fails, until space returns.
func TestADiskThatOthersFill(t *testing.T) {
	t.Parallel()
	dir := smallDisk(t, "24m")
	s := open(t, filepath.Join(dir, "waggle.db"), &Options{MinFree: -1})
	register(t, s, "w")
	add(t, s, 20, nil)
	claims := fetch(t, s, "w", 10)
	ballast := filepath.Join(dir, "ballast")
	f, err := os.Create(ballast)
	must(t, err)
	for block := make([]byte, 64<<10); err == nil; {
		_, err = f.Write(block)
	}
	must(t, f.Close())
	n := fillUp(t, s)
	if r, err := s.Get(t.Context(), []string{claims[0].ID}); err != nil || r[0] == nil || r[0].State != driver.Active {
		t.Errorf("reading fails on a full disk: %v", err)
	}
	must(t, os.Remove(ballast))
	settle(t, s, "w", driver.Complete, claims...)
	add(t, s, 5, nil)
	if got := counts(t, s); got[driver.Available] != 10+n+5 || got[driver.Completed] != 10 {
		t.Errorf("the store has %v, want %d available and 10 completed", got, 10+n+5)
	}
}

// smallDisk mounts a small file system of its own.
func smallDisk(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
			t.Skipf("NOT TESTED ON A REAL DISK: mounting a small tmpfs needs root: %v. The variant with a size limit runs anyway.", err)
		}
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// TestALongReaderIsToldOf keeps a snapshot open while much is written.
func TestALongReaderIsToldOf(t *testing.T) {
	t.Parallel()
	path := dbPath(t)
	s := open(t, path, nil)
	reader := rawConn(t, path)
	must(t, reader.run("BEGIN"))
	must(t, reader.run("SELECT count(*) FROM task"))
	payload := []byte(`"` + strings.Repeat("x", 60_000) + `"`)
	for _, wal := s.bytesOnDisk(); wal <= largeWAL; _, wal = s.bytesOnDisk() {
		add(t, s, 100, func(_ int, task *driver.Task) { task.Payload = payload })
	}
	info, err := s.Info(t.Context())
	must(t, err)
	if len(info.Warnings) != 1 || !strings.Contains(info.Warnings[0], "write-ahead log") {
		t.Errorf("the warnings are %q, want one of the log", info.Warnings)
	}
	must(t, reader.run("COMMIT"))
	must(t, reader.close())
	for range 40 { // the log is written back, and cut when it begins anew
		add(t, s, 1, nil)
	}
	if _, wal := s.bytesOnDisk(); wal > largeWAL {
		t.Errorf("the log still has %d MiB after the reader is gone", wal>>20)
	}
}
