package history_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/driver/drivertest"
	"github.com/waggleq/waggle/driver/drivertest/history"
	"github.com/waggleq/waggle/memstore"
)

const lease = 5 * time.Second

// world is a small run: producers and workers in one goroutine, with workers that die and come back too late.
type world struct {
	t       *testing.T
	now     time.Time
	store   driver.Store // what the world uses: recorded, over a bug or faults, over memory
	log     bytes.Buffer
	rec     *history.Recorder
	workers []string
	born    int // workers so far
	steps   int // claims so far
	zombies []zombie
}

// zombie is what a dead worker held: it tries to settle it when others have had it.
type zombie struct {
	worker string
	claim  driver.Claim
	round  int
}

func newWorld(t *testing.T, between func(driver.Store) driver.Store) *world {
	w := &world{t: t, now: time.UnixMilli(1_800_000_000_000).UTC()}
	s, err := memstore.Open(&memstore.Options{Clock: func() time.Time { return w.now }})
	if err != nil {
		t.Fatal(err)
	}
	w.rec = history.NewRecorder(&w.log, "world")
	w.store = history.Wrap(between(s), w.rec)
	return w
}

// try repeats a call that a fault hit, as a client would.
func try(t *testing.T, call func() error) {
	t.Helper()
	for range 20 {
		err := call()
		if err == nil {
			return
		}
		if !errors.Is(err, driver.ErrUnavailable) {
			t.Fatal(err)
		}
	}
	t.Fatal("the store is never available")
}

func (w *world) produce(round int) {
	batch := make([]*driver.Task, 6)
	for i := range batch {
		n := round*6 + i
		batch[i] = &driver.Task{ID: fmt.Sprintf("t-%03d", n), Type: "t", MaxAttempts: 4, CrashLimit: 3, Payload: []byte("1")}
		switch i {
		case 1:
			batch[i].Delay = 3 * time.Second
		case 2, 3: // two of the same key: the second is refused while the first lives
			batch[i].Unique = &driver.Unique{Key: fmt.Sprint("key-", round%3), OnConflict: driver.ConflictReject}
		case 4:
			batch[i].Type = "bad type"
		case 5:
			if round%3 == 0 {
				batch[i].Type = "poison"
			}
		}
	}
	try(w.t, func() error {
		_, err := w.store.Enqueue(w.t.Context(), batch, driver.EnqueueOptions{})
		return err
	})
}

func (w *world) hire() string {
	w.born++
	id := fmt.Sprint("w-", w.born)
	try(w.t, func() error { return w.store.Register(w.t.Context(), driver.WorkerInfo{ID: id}, lease) })
	return id
}

// round lets every worker do a fetch's work, then time passes.
func (w *world) round(round int) {
	for i := range w.workers {
		claims := w.fetch(i)
		id := w.workers[i]
		if dies := (round+i)%4 == 3; dies && len(claims) > 0 {
			for _, c := range claims {
				w.rec.Started(id, c)
				w.zombies = append(w.zombies, zombie{worker: id, claim: c, round: round})
			}
			w.workers[i] = w.hire()
			continue
		}
		for _, c := range claims {
			w.work(id, c)
		}
	}
	w.haunt(round)
	w.now = w.now.Add(2 * time.Second)
}

// fetch claims for the i-th worker; after a lost reply it asks what the worker holds. A worker whose lease ran out over
// its faults begins a new life.
func (w *world) fetch(i int) []driver.Claim {
	id := w.workers[i]
	res, err := w.store.Fetch(w.t.Context(), driver.FetchRequest{Worker: id, Lease: lease, Queues: []string{"default"}, Max: 3})
	if err == nil {
		return res.Claims
	}
	var held []driver.Claim
	try(w.t, func() (err error) {
		held, err = w.store.Held(w.t.Context(), id)
		if errors.Is(err, driver.ErrLeaseLost) {
			w.workers[i], held, err = w.hire(), nil, nil
		}
		return err
	})
	return held
}

func (w *world) work(id string, c driver.Claim) {
	w.rec.Started(id, c)
	w.steps++
	o := driver.Complete
	switch {
	case c.Type == "poison":
		o = driver.Retry
	case w.steps%9 == 4:
		o = driver.Retry
	case w.steps%9 == 7:
		o = driver.Release
	}
	w.rec.Ended(id, c, o)
	w.settle(id, driver.Settlement{ID: c.ID, Token: c.Token, Outcome: o})
}

func (w *world) settle(id string, s driver.Settlement) {
	try(w.t, func() error {
		_, err := w.store.Settle(w.t.Context(), id, []driver.Settlement{s})
		return err
	})
}

// haunt lets dead workers settle what they held, long after.
func (w *world) haunt(round int) {
	for _, z := range w.zombies {
		if z.round+6 == round {
			w.rec.Ended(z.worker, z.claim, driver.Complete)
			w.settle(z.worker, driver.Settlement{ID: z.claim.ID, Token: z.claim.Token, Outcome: driver.Complete})
		}
	}
}

// run plays the world to its end and returns what the checker says, having written and read the log.
func (w *world) run() []history.Violation {
	for range 3 {
		w.workers = append(w.workers, w.hire())
	}
	const busy, calm = 12, 40
	for round := range busy + calm {
		if round < busy {
			w.produce(round)
		}
		w.round(round)
		if round >= busy+8 { // no deaths any more
			w.zombies = nil
		}
	}
	for i := range w.workers {
		for _, c := range w.fetch(i) {
			w.work(w.workers[i], c)
		}
		id := w.workers[i]
		try(w.t, func() error { return w.store.Unregister(w.t.Context(), id) })
	}
	events, err := history.Read(&w.log)
	if err = errors.Join(err, w.rec.Err()); err != nil {
		w.t.Fatal(err)
	}
	var dump *history.Dump
	try(w.t, func() (err error) {
		dump, err = history.TakeDump(w.t.Context(), w.store)
		return err
	})
	return history.Check(events, dump, &history.Options{AtRest: true})
}

func sound(s driver.Store) driver.Store { return s }

func TestASoundStoreBreaksNothing(t *testing.T) {
	t.Parallel()
	for _, v := range newWorld(t, sound).run() {
		t.Error(v)
	}
}

func TestFaultsAreNoViolations(t *testing.T) {
	t.Parallel()
	for _, fault := range []drivertest.Fault{drivertest.FailBefore, drivertest.FailAfter, drivertest.Twice} {
		for seed := range uint64(5) {
			t.Run(fmt.Sprint(fault, seed), func(t *testing.T) {
				t.Parallel()
				plan := &drivertest.FaultPlan{Seed: seed}
				for _, m := range []string{"Enqueue", "Settle", "Fetch", "Held"} {
					if fault != drivertest.Twice || m != "Fetch" { // claims of the first of two fetches are known to nobody
						plan.Rules = append(plan.Rules, drivertest.Rule{Method: m, Fault: fault, Chance: 0.2})
					}
				}
				var faulty *drivertest.Faulty
				w := newWorld(t, func(s driver.Store) driver.Store {
					faulty = drivertest.NewFaulty(s, plan)
					return faulty
				})
				for _, v := range w.run() {
					t.Error(v)
				}
				if n := faulty.Hits("Enqueue") + faulty.Hits("Settle") + faulty.Hits("Fetch"); n < 10 {
					t.Errorf("%d faults were hit, want more", n)
				}
			})
		}
	}
}

func TestSeededBugsAreCaught(t *testing.T) {
	t.Parallel()
	for name, bug := range bugs {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			found := newWorld(t, bug.make).run()
			rules := map[history.Rule]int{}
			for _, v := range found {
				rules[v.Rule]++
			}
			if rules[bug.breaks] == 0 {
				t.Errorf("the checker found %v, want %s", rules, bug.breaks)
			}
			if len(found) > 0 {
				t.Logf("%v, such as: %s", rules, found[0])
			}
		})
	}
}

func TestLogsSurviveFilesAndKills(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	claim := driver.Claim{Task: driver.Task{ID: "a"}, Token: 7, ClaimedAt: time.UnixMilli(1_800_000_000_000).UTC()}
	var paths []string
	for _, name := range []string{"one", "two"} {
		path := filepath.Join(dir, name)
		f, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		r := history.NewRecorder(f, name)
		r.Enqueued(time.UnixMilli(1).UTC(), &driver.Task{ID: "a"}, driver.EnqueueResult{ID: "a", Durability: driver.DurabilityDisk})
		r.Started("w", claim)
		if err := errors.Join(r.Err(), f.Close()); err != nil {
			t.Fatal(err)
		}
		paths = append(paths, path)
	}
	data, err := os.ReadFile(paths[1])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(paths[1], data[:len(data)-9], 0o600); err != nil { // killed in the middle of a line
		t.Fatal(err)
	}
	events, err := history.ReadFiles(paths...)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range events {
		got = append(got, fmt.Sprint(e.Process, " ", e.Kind, " ", e.ID, " ", e.Token))
	}
	want := []string{"one enqueue-ok a 0", "one started a 7", "two enqueue-ok a 0"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	if !events[1].ClaimedAt.Equal(claim.ClaimedAt) {
		t.Errorf("claimed at %v, want %v", events[1].ClaimedAt, claim.ClaimedAt)
	}
	if _, err := history.Read(strings.NewReader("{}\nnonsense\n")); err == nil {
		t.Error("a damaged line in the middle is accepted")
	}
}
