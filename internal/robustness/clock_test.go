package robustness

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/waggleq/waggle"
	"github.com/waggleq/waggle/driver"
)

// TestWorkersClockIsOff has worker processes whose clocks are hours and days away from the store's. Nothing starts
// before its time by the store's clock, and no healthy worker loses its lease.
func TestWorkersClockIsOff(t *testing.T) {
	onEachClock(t, func(t *testing.T, e engine) {
		for _, off := range []time.Duration{time.Hour, -time.Hour, 24 * time.Hour, -24 * time.Hour} {
			t.Run(off.String(), func(t *testing.T) {
				t.Parallel()
				s := newSiteShifted(t, e, -off)
				s.enqueue("long", act{Do: doGate})
				w := s.worker(role{Name: "worker"})
				w.awaitKind(lineStarted, "long")
				var later []string
				for i := range 5 {
					later = append(later, fmt.Sprintf("later-%d", i))
					s.enqueue(later[i], act{}, func(o *waggle.EnqueueOptions) { o.Delay = time.Duration(i) * 200 * time.Millisecond })
				}
				s.sleepLeases(3)
				for _, r := range s.awaitEnd(later...) {
					if r.ClaimedAt.Before(r.DueAt) || r.ClaimedAt.Sub(r.DueAt) > late {
						t.Errorf("%s was due at %v and claimed at %v", r.ID, r.DueAt, r.ClaimedAt)
					}
				}
				w.tell("long")
				s.wantEnds(ends{state: driver.Completed, attempt: 1}, append(later, "long")...)
				s.endInOrder(w)
			})
		}
	})
}

// late is how much too late a task may start here: these tests look for what starts too early, or never.
const late = 10 * time.Second

// stepping is a site whose store's clock is set by the test, with a worker in this process.
type stepping struct {
	*site
	e       engine
	offset  atomic.Int64
	clocked driver.Store // a handle with the stepping clock
}

func newStepping(t *testing.T, e engine) *stepping {
	s := &stepping{site: newSite(t, e), e: e}
	s.clocked = s.open()
	must(t, s.client.Close(t.Context()))
	own, err := openLog(filepath.Join(s.dir, "stepping.jsonl"), "stepping")
	must(t, err)
	s.client, err = waggle.NewClient(own.wrap(s.clocked), nil)
	must(t, err)
	return s
}

// open opens the store once more, as another process with the same clock.
func (s *stepping) open() driver.Store {
	s.Helper()
	store, err := s.e.open(s.Context(), s.url, func() time.Time { return time.Now().Add(time.Duration(s.offset.Load())) })
	must(s, err)
	s.Cleanup(func() { _ = store.Close() })
	return store
}

func (s *stepping) step(d time.Duration) { s.offset.Add(int64(d)) }

// local is a worker in this process.
type local struct {
	*proc
	lines chan line
	end   func()
}

func (s *stepping) local(name string, lease time.Duration) *local {
	s.Helper()
	hist, err := openLog(filepath.Join(s.dir, name+".jsonl"), name)
	must(s, err)
	w := &local{lines: make(chan line, 1000)}
	from, to := io.Pipe()
	w.proc = &proc{
		role:  role{Role: roleWorker, Name: name, Lease: lease, Slots: 4, Drain: waggle.NoDrain},
		store: hist.wrap(s.open()), hist: hist, out: json.NewEncoder(to), gates: map[string]chan struct{}{},
		log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	}
	go func() {
		in := json.NewDecoder(from)
		for {
			var l line
			if in.Decode(&l) != nil {
				close(w.lines)
				return
			}
			w.lines <- l
		}
	}()
	ctx, cancel := context.WithCancel(s.Context())
	done := make(chan error, 1)
	go func() { done <- w.work(ctx) }()
	w.end = func() {
		cancel()
		if err := <-done; err != nil {
			s.Error(err)
		}
		_ = to.Close()
	}
	return w
}

// await waits for a line of a kind about a task.
func (w *local) await(t testing.TB, kind, task string) line {
	t.Helper()
	deadline := time.After(patience)
	for {
		select {
		case l, ok := <-w.lines:
			if !ok {
				t.Fatalf("the worker has ended, waited for %s %s", kind, task)
			}
			if l.Kind == kind && l.Task == task {
				return l
			}
		case <-deadline:
			t.Fatalf("waited in vain for %s %s", kind, task)
		}
	}
}

// TestSuspended has time pass in the store that did not pass for a worker: its machine was suspended, and its clock, by
// which its lease is good, stood still. That it trusts its lease must not suffice to settle.
func TestSuspended(t *testing.T) {
	onEachClock(t, func(t *testing.T, e engine) {
		const long = 10 * time.Second
		s := newStepping(t, e)
		s.enqueue("t", act{Do: doGate})
		w := s.local("suspended", long)
		old := w.await(t, lineStarted, "t").Worker
		s.step(3 * long)
		other := driver.WorkerInfo{ID: "other:1"}
		must(t, s.clocked.Register(t.Context(), other, time.Hour))
		res, err := s.clocked.Fetch(t.Context(), driver.FetchRequest{Worker: other.ID, Lease: time.Hour, Queues: []string{"default"}, Max: 1})
		must(t, err)
		if len(res.Claims) != 1 || res.Claims[0].ID != "t" {
			t.Fatalf("the other worker got %v, want the task of the suspended one", res.Claims)
		}
		close(w.gate("t"))
		w.await(t, lineEnded, "t")
		s.enqueue("next", act{})
		if next := w.await(t, lineStarted, "next").Worker; next == old {
			t.Errorf("the worker goes on as %s, whose lease is lost", old)
		}
		s.wantHolder("other", "t")
		errs, err := driver.SettleErrors(s.clocked.Settle(t.Context(), other.ID, []driver.Settlement{{ID: "t", Token: res.Claims[0].Token, Outcome: driver.Complete}}))
		must(t, err)
		must(t, errs[0])
		s.wantEnds(ends{state: driver.Completed, attempt: 1, crashes: 1, worker: "other"}, "t")
		w.end()
		must(t, s.clocked.Unregister(t.Context(), other.ID))
	})
}

// TestStoreClockSteps sets the store's clock back and forth by ten minutes while a worker is at work. Nothing starts
// before its time by more than the step; a step back takes nothing from a healthy worker and freezes a dead one's lease
// no longer than step and lease; whatever a step forward takes from a worker runs again.
func TestStoreClockSteps(t *testing.T) {
	const step = 10 * time.Minute
	onEachClock(t, func(t *testing.T, e engine) {
		s := newStepping(t, e)
		w := s.local("worker", lease)
		s.enqueue("held", act{Do: doGate})
		w.await(t, lineStarted, "held")

		s.step(-step)
		s.enqueue("later", act{}, func(o *waggle.EnqueueOptions) { o.Delay = 2 * lease })
		s.wantHolder("worker", "held")
		if r := s.awaitEnd("later")[0]; r.ClaimedAt.Before(r.DueAt) || r.ClaimedAt.Sub(r.DueAt) > late {
			t.Errorf("after a step back, a task due at %v was claimed at %v", r.DueAt, r.ClaimedAt)
		}
		close(w.gate("held"))
		s.wantEnds(ends{state: driver.Completed, attempt: 1}, "held")

		s.dead("dead", "of-dead")
		s.step(-step)
		s.enqueue("between", act{})
		s.wantEnds(ends{state: driver.Completed, attempt: 1}, "between")
		s.wantHolder("dead", "of-dead")
		s.step(step)
		s.eventually("the dead worker's task to be recovered", func(context.Context) bool {
			r := s.get("of-dead")
			return r.State == driver.Available && r.Crashes == 1
		})

		s.enqueue("held-again", act{Do: doGate})
		s.enqueue("in-five", act{}, func(o *waggle.EnqueueOptions) { o.Delay = step / 2 })
		w.await(t, lineStarted, "held-again")
		s.step(step)
		s.wantEnds(ends{state: driver.Completed, attempt: 1}, "in-five")
		close(w.gate("held-again"))
		if r := s.awaitEnd("held-again")[0]; r.State != driver.Completed || r.Crashes > 1 {
			t.Errorf("after a step forward, the task is %s with %d crashes", r.State, r.Crashes)
		}
		w.end()
	})
}

// dead has a worker claim a task of a queue that nobody else serves, and be heard of no more.
func (s *stepping) dead(name, id string) {
	s.Helper()
	const queue = "graves"
	s.enqueue(id, act{}, func(o *waggle.EnqueueOptions) { o.Queue = queue })
	must(s, s.clocked.Register(s.Context(), driver.WorkerInfo{ID: name + ":1"}, lease))
	res, err := s.clocked.Fetch(s.Context(), driver.FetchRequest{Worker: name + ":1", Lease: lease, Queues: []string{queue}, Max: 1})
	must(s, err)
	if len(res.Claims) != 1 {
		s.Fatalf("%s got %v, want the task %s", name, res.Claims, id)
	}
}
