package waggle_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/waggleq/waggle"
	"github.com/waggleq/waggle/driver"
)

// counter counts runs of a handler and tells how they ended.
type counter struct {
	started, ended atomic.Int32
	cause          atomic.Pointer[error]
}

// until returns a handler that runs for d, or until its context ends and then returns an error.
func (c *counter) until(d time.Duration) waggle.Handler {
	return func(ctx context.Context, _ *waggle.Task) error {
		c.started.Add(1)
		defer c.ended.Add(1)
		select {
		case <-time.After(d):
			return nil
		case <-ctx.Done():
			cause := context.Cause(ctx)
			c.cause.Store(&cause)
			return ctx.Err()
		}
	}
}

func (c *counter) lastCause() error {
	if p := c.cause.Load(); p != nil {
		return *p
	}
	return nil
}

func TestLeaseIsKept(t *testing.T) {
	bubble(t, func(t *testing.T, e *env) {
		var c counter
		r := e.work(&waggle.WorkerOptions{Lease: time.Second}, func(w *waggle.Worker) { w.HandleFunc("x", c.until(5*time.Minute), nil) })
		info := e.wait(e.enqueue("x", nil, nil))
		if info.State != waggle.Completed || info.Crashes != 0 || c.started.Load() != 1 {
			t.Errorf("%s after %d runs, %d crashes", info.State, c.started.Load(), info.Crashes)
		}
		r.stop()
	})
}

// A fetch puts the next heartbeat off if it renewed the lease in all shards, and only then; but one a lease is sent in any
// case, for what only heartbeats deliver.
func TestFetchPutsHeartbeatOff(t *testing.T) {
	for partly, want := range map[bool][2]int{false: {9, 12}, true: {29, 31}} {
		t.Run(fmt.Sprint("partly ", partly), func(t *testing.T) {
			bubble(t, func(t *testing.T, e *env) {
				e.store.partly = partly
				var c counter
				r := e.work(&waggle.WorkerOptions{Lease: 3 * time.Second}, func(w *waggle.Worker) { w.HandleFunc("x", c.until(0), nil) })
				for range 60 {
					e.enqueue("x", nil, nil)
					time.Sleep(500 * time.Millisecond)
				}
				if n := e.store.count("heartbeat"); n < want[0] || n > want[1] {
					t.Errorf("%d heartbeats in 30 s at a lease of 3 s, want %d to %d", n, want[0], want[1])
				}
				r.stop()
			})
		})
	}
}

// A worker that is cut off from the store gives its tasks up before anyone else may have them, and goes on afterwards.
func TestCutOff(t *testing.T) {
	for name, what := range map[string]fault{"refused": before, "blackhole": hang} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, e *env) {
				var c counter
				r := e.work(nil, func(w *waggle.Worker) { w.HandleFunc("x", c.until(20*time.Second), nil) })
				id := e.enqueue("x", nil, nil)
				synctest.Wait()
				first := r.w.ID()
				held := e.workers()[0].LeaseEnd
				e.store.set(func(string) fault { return what })
				time.Sleep(time.Until(held) - 2*time.Second)
				if c.ended.Load() != 0 {
					t.Error("the handler was cancelled early")
				}
				time.Sleep(time.Until(held))
				synctest.Wait()
				if c.ended.Load() != 1 || !errors.Is(c.lastCause(), waggle.ErrLeaseLost) {
					t.Errorf("at the end of the lease: %d handlers have ended, cause %v", c.ended.Load(), c.lastCause())
				}
				time.Sleep(time.Minute)
				if n := e.logs.count(slog.LevelError, ""); n > 8 {
					t.Errorf("%d errors logged for one outage", n)
				}
				e.store.set(nil)
				info := e.wait(id)
				if info.State != waggle.Completed || c.started.Load() != 2 {
					t.Errorf("%s after %d runs", info.State, c.started.Load())
				}
				// Nobody else recovered it meanwhile, and the worker gave it back itself: no crash.
				if info.Crashes != 0 || info.Attempt != 1 {
					t.Errorf("%d crashes, attempt %d", info.Crashes, info.Attempt)
				}
				if second := r.w.ID(); second == first || info.Worker != second {
					t.Errorf("registered as %s, then %s; run by %s", first, second, info.Worker)
				}
				r.stop()
			})
		})
	}
}

func (e *env) workers() []waggle.WorkerStatus {
	e.t.Helper()
	list, err := e.client.Workers(e.t.Context())
	if err != nil {
		e.t.Fatal(err)
	}
	return list
}

// A worker that others have recovered from can change nothing, also if its handler goes on.
func TestRecoveredByOthers(t *testing.T) {
	bubble(t, func(t *testing.T, e *env) {
		release := make(chan struct{})
		var runs atomic.Int32
		r := e.work(&waggle.WorkerOptions{Lease: time.Second}, func(w *waggle.Worker) {
			w.HandleFunc("x", func(_ context.Context, t *waggle.Task) error {
				if runs.Add(1) == 1 {
					<-release // ignores its context
					return t.SetResult("late")
				}
				return t.SetResult("right")
			}, nil)
		})
		id := e.enqueue("x", nil, nil)
		synctest.Wait()
		e.store.set(outage)
		time.Sleep(3 * time.Second)
		if _, err := e.mem.Maintain(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
		e.wantState(id, waggle.Available)
		e.store.set(nil)
		time.Sleep(2 * time.Second)
		// The same process gets it back while the first run goes on: it is not run twice at once.
		if runs.Load() != 1 {
			t.Errorf("%d runs at once", runs.Load())
		}
		close(release)
		info := e.wait(id)
		if got, err := waggle.Result[string](info); got != "right" || err != nil || runs.Load() != 2 {
			t.Errorf("result %q, %v after %d runs", got, err, runs.Load())
		}
		r.stop()
	})
}

// An outcome whose reply is lost is sent again; one that finished while the store was away is not run again.
func TestSettleRepliesLost(t *testing.T) {
	for name, fn := range map[string]func(string) fault{
		"reply lost":  once("settle", after, 3),
		"not reached": once("settle", before, 3),
		"hangs":       once("settle", hang, 1),
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, e *env) {
				var c counter
				e.store.set(fn)
				r := e.work(nil, func(w *waggle.Worker) { w.HandleFunc("x", c.until(0), nil) })
				for range 20 {
					e.enqueue("x", nil, nil)
				}
				time.Sleep(20 * time.Second)
				synctest.Wait()
				if st := r.w.Stats(); c.started.Load() != 20 || st.Settling != 0 {
					t.Errorf("%d runs of 20 tasks, %+v", c.started.Load(), st)
				}
				e.wantAll(20, waggle.Completed)
				r.stop()
			})
		})
	}
}

func (e *env) wantAll(n int, state waggle.State) {
	e.t.Helper()
	got := 0
	for info, err := range e.client.All(e.t.Context(), waggle.Filter{States: []waggle.State{state}}) {
		if err != nil {
			e.t.Fatal(err)
		}
		if info.Attempt > 1 || info.Crashes > 0 {
			e.t.Errorf("task %s: attempt %d, %d crashes", info.ID, info.Attempt, info.Crashes)
		}
		got++
	}
	if got != n {
		e.t.Errorf("%d tasks are %s, want %d", got, state, n)
	}
}

// Claims whose reply is lost are found again and run, once.
func TestFetchRepliesLost(t *testing.T) {
	bubble(t, func(t *testing.T, e *env) {
		var c counter
		n := 0
		e.store.set(func(op string) fault {
			if op == "fetch" || op == "held" {
				if n++; n%2 == 0 {
					return after
				}
			}
			return none
		})
		r := e.work(nil, func(w *waggle.Worker) { w.HandleFunc("x", c.until(100*time.Millisecond), nil) })
		for range 500 {
			e.enqueue("x", nil, nil)
		}
		time.Sleep(2 * time.Minute)
		if c.started.Load() != 500 {
			t.Errorf("%d runs of 500 tasks", c.started.Load())
		}
		e.wantAll(500, waggle.Completed)
		r.stop()
	})
}

// Claims of a fetch that was executed twice, of which nobody told the worker, are found: within a good minute by a worker
// that has nothing else to do, later by one that always has.
func TestFetchDoneTwice(t *testing.T) {
	for name, busy := range map[string]bool{"idle": false, "busy": true} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, e *env) {
				var c counter
				const n = 20
				for range n {
					e.enqueue("x", nil, nil)
				}
				e.store.set(once("fetch", twice, 1))
				r := e.work(&waggle.WorkerOptions{Slots: 4}, func(w *waggle.Worker) { w.HandleFunc("x", c.until(2*time.Second), nil) })
				more, most := 0, 80
				if busy {
					more, most = 720, 720
				}
				for i := range most {
					if i < more {
						e.enqueue("x", nil, nil)
					}
					if i == 30 && int(c.started.Load()) >= n+min(i, more) {
						t.Error("no claim was lost: the test shows nothing")
					}
					time.Sleep(time.Second)
				}
				time.Sleep(10 * time.Second)
				e.wantAll(n+more, waggle.Completed)
				if got := e.store.count("held"); got > 1+most/60 {
					t.Errorf("asked %d times in %d s what it holds", got, most)
				}
				r.stop()
			})
		})
	}
}

// What finished while the store was out of reach counts, if nobody has taken it meanwhile.
func TestFinishedDuringOutage(t *testing.T) {
	bubble(t, func(t *testing.T, e *env) {
		var c counter
		r := e.work(nil, func(w *waggle.Worker) { w.HandleFunc("x", c.until(2*time.Second), nil) })
		id := e.enqueue("x", nil, nil)
		synctest.Wait()
		e.store.set(outage)
		time.Sleep(30 * time.Second)
		e.store.set(nil)
		time.Sleep(10 * time.Second)
		if info := e.wantState(id, waggle.Completed); c.started.Load() != 1 || info.Crashes != 0 {
			t.Errorf("%d runs, %d crashes", c.started.Load(), info.Crashes)
		}
		r.stop()
	})
}

// crashed enqueues a task with which two workers have died.
func (e *env) crashed() string {
	e.t.Helper()
	ctx := e.t.Context()
	id := e.enqueue("poison", nil, &waggle.EnqueueOptions{Priority: -1})
	for i := range 2 {
		worker := fmt.Sprint(id, ":", i)
		if err := e.mem.Register(ctx, driver.WorkerInfo{ID: worker}, time.Second); err != nil {
			e.t.Fatal(err)
		}
		res, err := e.mem.Fetch(ctx, driver.FetchRequest{Worker: worker, Lease: time.Second, Queues: []string{"default"}, Types: []string{"poison"}, Max: 1})
		if err != nil || len(res.Claims) != 1 {
			e.t.Fatal(res, err)
		}
		time.Sleep(1100 * time.Millisecond)
		if _, err := e.mem.Maintain(ctx, 0); err != nil {
			e.t.Fatal(err)
		}
	}
	if info := e.get(id); info.Crashes != 2 {
		e.t.Fatalf("%d crashes", info.Crashes)
	}
	return id
}

// company registers two types and records what runs beside what.
type company struct {
	mu             sync.Mutex
	healthy        int           // running
	beside         int           // most that ran or started beside the poison
	poison         bool          // running
	poisonAt, done time.Duration // when it started and ended
	born           time.Time
}

func (c *company) register(healthy, poison time.Duration) func(w *waggle.Worker) {
	c.born = time.Now()
	return func(w *waggle.Worker) {
		w.HandleFunc("poison", func(context.Context, *waggle.Task) error {
			c.note(func() { c.poison, c.poisonAt, c.beside = true, time.Since(c.born), c.healthy })
			time.Sleep(poison)
			c.note(func() { c.poison, c.done = false, time.Since(c.born) })
			return nil
		}, nil)
		w.HandleFunc("healthy", func(context.Context, *waggle.Task) error {
			c.note(func() {
				c.healthy++
				if c.poison {
					c.beside++
				}
			})
			time.Sleep(healthy)
			c.note(func() { c.healthy-- })
			return nil
		}, nil)
	}
}

func (c *company) note(fn func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	fn()
}

// A task that has crashed its workers runs alone.
func TestProbation(t *testing.T) {
	bubble(t, func(t *testing.T, e *env) {
		poison := e.crashed()
		for range 30 {
			e.enqueue("healthy", nil, nil)
		}
		var c company
		r := e.work(nil, c.register(time.Second, 5*time.Second))
		time.Sleep(20 * time.Second)
		e.wantState(poison, waggle.Completed)
		if c.beside != 0 || c.poisonAt != 0 {
			t.Errorf("%d tasks beside it, it started after %v", c.beside, c.poisonAt)
		}
		e.wantCompleted("default", 31)
		r.stop()
	})
}

// It waits for what runs, but not for ever; nothing is started beside it in either case.
func TestProbationWaitsForCompany(t *testing.T) {
	for name, tt := range map[string]struct {
		healthy time.Duration
		at      time.Duration // when it is to start after it came
		beside  int
	}{
		"short": {3 * time.Second, 3 * time.Second, 0},
		"long":  {time.Minute, 10 * time.Second, 2},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, e *env) {
				poison := e.crashed()
				if err := e.client.Pause(t.Context(), "default"); err != nil {
					t.Fatal(err)
				}
				var c company
				r := e.work(&waggle.WorkerOptions{Queues: []waggle.Queue{{Name: "default"}, {Name: "other"}}}, c.register(tt.healthy, 20*time.Second))
				for range 2 {
					e.enqueue("healthy", nil, &waggle.EnqueueOptions{Queue: "other"})
				}
				synctest.Wait()
				if err := e.client.Resume(t.Context(), "default"); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				for range 20 {
					e.enqueue("healthy", nil, nil)
				}
				e.wait(poison)
				if c.poisonAt != tt.at || c.beside != tt.beside {
					t.Errorf("it started after %v beside %d tasks, want %v and %d", c.poisonAt, c.beside, tt.at, tt.beside)
				}
				time.Sleep(3 * time.Minute)
				e.wantCompleted("default", 21)
				r.stop()
			})
		})
	}
}

// What waits to start goes back at once when the worker stops, with nothing spent.
func TestStopGivesBackWhatWaits(t *testing.T) {
	bubble(t, func(t *testing.T, e *env) {
		poison := e.crashed()
		if err := e.client.Pause(t.Context(), "default"); err != nil {
			t.Fatal(err)
		}
		var c company
		r := e.work(&waggle.WorkerOptions{Queues: []waggle.Queue{{Name: "default"}, {Name: "other"}}}, c.register(5*time.Second, time.Second))
		e.enqueue("healthy", nil, &waggle.EnqueueOptions{Queue: "other"})
		synctest.Wait()
		if err := e.client.Resume(t.Context(), "default"); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if st := r.w.Stats(); st.Running != 1 || st.Waiting != 1 {
			t.Fatalf("stats: %+v", st)
		}
		r.cancel()
		synctest.Wait()
		if info := e.wantState(poison, waggle.Available); info.Attempt != 0 || info.Crashes != 2 {
			t.Errorf("attempt %d, %d crashes", info.Attempt, info.Crashes)
		}
		if took := r.stop(); took != 5*time.Second {
			t.Errorf("stopped after %v", took)
		}
	})
}

// Every claim of a task has a greater token.
func TestTokensGrow(t *testing.T) {
	bubble(t, func(t *testing.T, e *env) {
		var tokens []int64
		r := e.work(nil, func(w *waggle.Worker) {
			w.HandleFunc("x", func(_ context.Context, t *waggle.Task) error {
				tokens = append(tokens, t.Token())
				if len(tokens) < 4 {
					return waggle.Snooze(time.Second)
				}
				return nil
			}, nil)
		})
		e.wait(e.enqueue("x", nil, nil))
		for i := 1; i < len(tokens); i++ {
			if tokens[i] <= tokens[i-1] {
				t.Errorf("tokens: %v", tokens)
			}
		}
		r.stop()
	})
}

// A store that is closed under a worker ends it with that error.
func TestStoreClosed(t *testing.T) {
	bubble(t, func(t *testing.T, e *env) {
		var c counter
		r := e.work(nil, func(w *waggle.Worker) { w.HandleFunc("x", c.until(time.Hour), nil) })
		e.enqueue("x", nil, nil)
		synctest.Wait()
		e.store.set(func(string) fault { return none })
		closed := driver.Errorf(driver.ErrClosed, "closed")
		e.store.fail(closed)
		if err := <-r.done; !errors.Is(err, waggle.ErrClosed) {
			t.Errorf("Run = %v", err)
		}
		if !errors.Is(c.lastCause(), waggle.ErrLeaseLost) {
			t.Errorf("cause %v", c.lastCause())
		}
		e.store.fail(nil)
		r.cancel()
	})
}
