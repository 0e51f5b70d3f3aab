package robustness

import (
	"crypto/rand"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/waggleq/waggle"
	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/driver/drivertest/history"
)

// TestFilesLeftBehind kills all processes on a SQLite file, so that its log and shared memory lie about as they were,
// and does worse to the shared memory. Whatever was accepted is there when the file is opened again.
func TestFilesLeftBehind(t *testing.T) {
	t.Parallel()
	harm := map[string]func(t *testing.T, shm string){
		"as they are":           func(*testing.T, string) {},
		"shared memory deleted": func(t *testing.T, shm string) { must(t, os.Remove(shm)) },
		"shared memory garbage": func(t *testing.T, shm string) {
			garbage := make([]byte, 32<<10)
			_, _ = rand.Read(garbage) // never fails
			must(t, os.WriteFile(shm, garbage, 0o600))
		},
	}
	for name, do := range harm {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := &site{TB: t, dir: t.TempDir(), url: createSQLite(t)}
			worker := s.worker(role{Name: "worker"})
			producers := []*child{
				s.start(role{Role: roleProducer, Name: "one", Seed: 1, Mix: mixAll}),
				s.start(role{Role: roleProducer, Name: "many", Seed: 2, Mix: mixAll, Batch: 20, Fail: &failPoint{Op: "Enqueue", When: during, Nth: 10, Within: window}}),
			}
			producers[1].waitKilled()
			for _, c := range []*child{worker, producers[0]} {
				c.kill()
				c.waitKilled()
			}
			path := strings.TrimPrefix(s.url, "sqlite:")
			if info, err := os.Stat(path + "-wal"); err != nil || info.Size() == 0 {
				t.Fatalf("no log was left behind: %v", err)
			}
			do(t, path+"-shm")
			s.attach(t)
			s.awaitNobody()
			s.drain()
			s.check(&history.Options{AtRest: true, Recovery: patience})
		})
	}
}

// awaitNobody waits until the dead workers' leases have run out and their tasks were recovered.
func (s *site) awaitNobody() {
	s.Helper()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		_, err := s.store.Maintain(s.Context(), 0)
		must(s, err)
		workers, err := s.store.Workers(s.Context())
		must(s, err)
		if len(workers) == 0 {
			return
		}
		<-ticker.C
	}
}

// TestFileMovedAway moves a SQLite file away under a worker, and back. Meanwhile nothing is accepted; afterwards the
// worker goes on by itself, and nothing is lost.
func TestFileMovedAway(t *testing.T) {
	t.Parallel()
	s := newSite(t, engines["sqlite"])
	s.enqueue("held", act{Do: doGate})
	waiting := s.enqueueN("waiting", 10, act{Do: doGate}) // more than there are slots
	w := s.worker(role{Name: "worker", Slots: 2})
	w.awaitKind(lineStarted, "held")
	path := strings.TrimPrefix(s.url, "sqlite:")
	must(t, os.Rename(path, path+".away"))
	if _, err := s.client.Enqueue(t.Context(), taskType, act{}, &waggle.EnqueueOptions{ID: "lost"}); !errors.Is(err, driver.ErrUnavailable) {
		t.Errorf("an enqueue into a file that is not there returned %v, want ErrUnavailable", err)
	}
	w.await("a complaint", func(l line) bool { return l.Kind == lineLog && strings.Contains(l.Text, "moved or deleted") })
	w.await("the loss of the lease", func(l line) bool { return l.Kind == lineCause && l.Task == "held" })
	must(t, os.Rename(path+".away", path))
	for _, id := range append(waiting, "held") {
		w.tell(id)
	}
	for _, r := range s.awaitEnd(append(waiting, "held")...) {
		if r.State != driver.Completed || r.Attempt != 1 || r.Crashes > 1 {
			t.Errorf("%s is %s after attempt %d and %d crashes", r.ID, r.State, r.Attempt, r.Crashes)
		}
	}
	s.endInOrder(w)
}
