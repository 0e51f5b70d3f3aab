package waggle_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/waggleq/waggle"
	"github.com/waggleq/waggle/driver"
)

// A thousand waits cost one reader, and no polling.
func TestWaitSharesOneReader(t *testing.T) {
	bubble(t, func(t *testing.T, e *env) {
		r := e.work(nil, func(w *waggle.Worker) {
			waggle.Handle(w, "x", func(_ context.Context, t *waggle.Task, in int) error {
				if in%3 == 0 {
					return waggle.Discard(errBoom)
				}
				return t.SetResult(in)
			}, nil)
		})
		var wg sync.WaitGroup
		for i := range 1000 {
			id := e.enqueue("x", i, &waggle.EnqueueOptions{Delay: time.Hour, ID: fmt.Sprint("t", i)})
			wg.Go(func() {
				info := e.wait(id)
				got, err := waggle.Result[int](info)
				if i%3 == 0 {
					if !errors.Is(err, waggle.ErrState) || info.State != waggle.Discarded {
						t.Errorf("task %d: %s, %v", i, info.State, err)
					}
				} else if err != nil || got != i {
					t.Errorf("task %d: %d, %v", i, got, err)
				}
			})
		}
		synctest.Wait()
		gets, events := e.store.count("get"), e.store.count("events")
		began := time.Now()
		wg.Wait()
		if took := time.Since(began); took > time.Hour+10*time.Millisecond {
			t.Errorf("took %v", took)
		}
		if n := e.store.count("events") - events; n > 300 { // one long poll of 30s after another
			t.Errorf("%d reads of events", n)
		}
		if n := e.store.count("get") - gets; n > 200 {
			t.Errorf("%d gets for 1000 tasks", n)
		}
		r.stop()
	})
}

func TestWaitEnds(t *testing.T) {
	bubble(t, func(t *testing.T, e *env) {
		if _, err := e.client.Wait(t.Context(), "nowhere"); !errors.Is(err, waggle.ErrNotFound) {
			t.Errorf("Wait for no task = %v", err)
		}
		id := e.enqueue("x", nil, nil)
		why := errors.New("enough")
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, why)
		defer cancel()
		if _, err := e.client.Wait(ctx, id); !errors.Is(err, why) {
			t.Errorf("Wait with a context that ends = %v", err)
		}
		for name, act := range map[string]func(context.Context, string) error{"cancel": e.client.Cancel, "delete": e.client.Delete} {
			id := e.enqueue("x", nil, nil)
			done := make(chan error, 1)
			go func() {
				info, err := e.client.Wait(t.Context(), id)
				if err == nil && info.State != waggle.Cancelled {
					err = fmt.Errorf("state %s", info.State)
				}
				done <- err
			}()
			synctest.Wait()
			if err := act(t.Context(), id); err != nil {
				t.Fatal(err)
			}
			if err := <-done; (name == "delete") != errors.Is(err, waggle.ErrNotFound) || name == "cancel" && err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if info, err := e.client.Wait(t.Context(), id); name == "cancel" && (err != nil || info.State != waggle.Cancelled) {
				t.Errorf("Wait for an ended task = %v, %v", info, err)
			}
		}
		done := make(chan error, 1)
		go func() { _, err := e.client.Wait(t.Context(), id); done <- err }()
		synctest.Wait()
		if err := e.client.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if err := <-done; !errors.Is(err, waggle.ErrClosed) {
			t.Errorf("Wait of a client that is closed = %v", err)
		}
	})
}

// An expired task has ended for whoever waits, though no worker is there to record it.
// A task's id can go to another task while somebody waits for the first one: that wait is over.
func TestWaitForWhatIsReplaced(t *testing.T) {
	bubble(t, func(t *testing.T, e *env) {
		id := e.enqueue("x", 1, &waggle.EnqueueOptions{ID: "a", Delay: time.Hour})
		done := make(chan error, 1)
		go func() {
			_, err := e.client.Wait(t.Context(), id)
			done <- err
		}()
		synctest.Wait()
		time.Sleep(time.Millisecond) // bubble time: the other task is a later one
		if err := e.client.Delete(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		e.enqueue("x", 2, &waggle.EnqueueOptions{ID: "a", Delay: time.Hour})
		if err := <-done; !errors.Is(err, waggle.ErrNotFound) {
			t.Errorf("got %v, want ErrNotFound", err)
		}
	})
}

// Whoever waits while a task ends is told how, also where nothing of it is kept.
func TestWaitWithoutRetention(t *testing.T) {
	bubble(t, func(t *testing.T, e *env) {
		none := driver.KeepNone
		if _, err := e.client.QueueSettings(t.Context(), "default", waggle.QueuePatch{Retention: &waggle.Retention{Completed: none, Cancelled: none, Discarded: none}}); err != nil {
			t.Fatal(err)
		}
		r := e.work(nil, func(w *waggle.Worker) {
			waggle.Handle(w, "x", func(context.Context, *waggle.Task, int) error { return nil }, nil)
		})
		for i := range 20 {
			id := e.enqueue("x", i, &waggle.EnqueueOptions{Delay: time.Second})
			if info, err := e.client.Wait(t.Context(), id); err != nil || info.State != waggle.Completed || info.EndedAt.IsZero() {
				t.Errorf("got %+v, %v", info, err)
			}
		}
		r.stop()
	})
}

func TestWaitForWhatExpires(t *testing.T) {
	bubble(t, func(t *testing.T, e *env) {
		began := time.Now()
		plain := e.enqueue("x", nil, &waggle.EnqueueOptions{ExpiresIn: time.Minute})
		delayed := e.enqueue("x", nil, &waggle.EnqueueOptions{Delay: 30 * time.Second, ExpiresIn: time.Minute})
		for _, id := range []string{plain, delayed, plain} {
			info, err := e.client.Wait(t.Context(), id)
			if err != nil || info.State != waggle.Discarded || info.Reason != driver.ReasonExpired {
				t.Errorf("Wait for a task that expires = %+v, %v", info, err)
			}
			if took := time.Since(began); took < time.Minute || took > time.Minute+50*time.Millisecond {
				t.Errorf("Wait returned after %v, the task expires after a minute", took)
			}
		}
	})
}

// Waits survive an outage, and events that were dropped before they were read.
func TestWaitSurvives(t *testing.T) {
	for name, disturb := range map[string]func(e *env){
		"outage": func(e *env) {
			e.store.set(func(op string) fault {
				if op == "events" || op == "get" {
					return before
				}
				return none
			})
		},
		"gap": func(e *env) { e.store.set(func(string) fault { return none }); e.store.gap() },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, e *env) {
				id := e.enqueue("x", nil, nil)
				done := make(chan error, 1)
				go func() {
					info, err := e.client.Wait(t.Context(), id)
					if err == nil && info.State != waggle.Cancelled {
						err = fmt.Errorf("state %s", info.State)
					}
					done <- err
				}()
				synctest.Wait()
				disturb(e)
				if err := e.client.Cancel(t.Context(), id); err != nil {
					t.Fatal(err)
				}
				time.Sleep(10 * time.Second)
				e.store.set(nil)
				if err := <-done; err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// gap has the next page of events be empty but for the news that some were dropped.
func (f *faulty) gap() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.dropped = true
}

func (f *faulty) dropEvents(page *driver.EventPage, err error) (*driver.EventPage, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.dropped && err == nil && len(page.Events) > 0 {
		f.dropped = false
		return &driver.EventPage{Next: page.Next, Gap: true}, nil
	}
	return page, err
}

func TestEvents(t *testing.T) {
	bubble(t, func(t *testing.T, e *env) {
		id := e.enqueue("x", nil, nil)
		if err := e.client.Cancel(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var kinds []string
		for ev, err := range e.client.Events(ctx, "") {
			if err != nil {
				t.Fatal(err)
			}
			kinds = append(kinds, string(ev.Kind))
			if len(kinds) == 2 {
				e.store.gap()
				e.enqueue("x", nil, nil)
			}
			if len(kinds) == 3 {
				e.enqueue("y", nil, nil)
			}
			if len(kinds) == 4 {
				cancel()
			}
		}
		if diff := cmp.Diff([]string{"available", "cancelled", "gap", "available"}, kinds); diff != "" {
			t.Error(diff)
		}
		e.store.fail(errDown)
		for _, err := range e.client.Events(t.Context(), "") {
			if !errors.Is(err, waggle.ErrUnavailable) {
				t.Errorf("err = %v", err)
			}
		}
		e.store.fail(nil)
	})
}
