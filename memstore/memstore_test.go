package memstore

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/waggleq/waggle/driver"
)

var _ driver.Store = (*Store)(nil)

// open returns a store that is audited at the end of the test.
func open(t testing.TB, opts *Options) *Store {
	t.Helper()
	s, err := Open(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		findings, err := s.Audit(context.Background(), false)
		if err != nil && !errors.Is(err, driver.ErrClosed) {
			t.Error(err)
		}
		for _, f := range findings {
			t.Errorf("audit: %+v", f)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func enqueue(t testing.TB, s *Store, tasks ...*driver.Task) []driver.EnqueueResult {
	t.Helper()
	res, err := s.Enqueue(t.Context(), tasks, driver.EnqueueOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range res {
		if r.Err != nil {
			t.Fatal(r.Err)
		}
	}
	return res
}

func register(t testing.TB, s *Store, id string) {
	t.Helper()
	if err := s.Register(t.Context(), driver.WorkerInfo{ID: id}, time.Second); err != nil {
		t.Fatal(err)
	}
}

func fetch(t testing.TB, s *Store, worker string, limit int) *driver.FetchResult {
	t.Helper()
	res, err := s.Fetch(t.Context(), driver.FetchRequest{Worker: worker, Lease: time.Second, Queues: []string{driver.DefaultQueue}, Max: limit})
	if err != nil {
		t.Fatal(err)
	}
	return res
}

func settle(t testing.TB, s *Store, worker string, items ...driver.Settlement) {
	t.Helper()
	errs, err := driver.SettleErrors(s.Settle(t.Context(), worker, items))
	if err := errors.Join(append(errs, err)...); err != nil {
		t.Fatal(err)
	}
}

// With a new key for each task no start moves the virtual time on, and yet what is kept of them is bounded.
func TestKeysThatNeverComeBackAreForgotten(t *testing.T) {
	t.Parallel()
	s := open(t, nil)
	register(t, s, "w")
	const batch = 1000
	for i := 0; i < 8*driver.KeysResting; i += batch {
		list := make([]*driver.Task, batch)
		for j := range list {
			list[j] = &driver.Task{Type: "t", Key: fmt.Sprint("key-", i+j)}
		}
		enqueue(t, s, list...)
		res := fetch(t, s, "w", batch-1) // so that one waits at any time
		items := make([]driver.Settlement, len(res.Claims))
		for j, c := range res.Claims {
			items[j] = driver.Settlement{ID: c.ID, Token: c.Token, Outcome: driver.Complete}
		}
		settle(t, s, "w", items...)
		if kept := len(s.queues[driver.DefaultQueue].keys); kept > 4*driver.KeysResting {
			t.Fatalf("after %d keys that were used once %d are kept", i+batch, kept)
		}
	}
}

func TestTheOrderIsPriorityThenPlace(t *testing.T) {
	t.Parallel()
	s := open(t, nil)
	for i := range 200 {
		enqueue(t, s, &driver.Task{ID: fmt.Sprintf("t%03d", i), Type: fmt.Sprint("type", i%3), Priority: (i * 7) % 5})
	}
	register(t, s, "w")
	seen := ""
	for _, c := range fetch(t, s, "w", 200).Claims {
		key := fmt.Sprintf("%d %s", c.Priority, c.ID)
		if key <= seen {
			t.Errorf("%s came after %s", key, seen)
		}
		seen = key
	}
	if seen[0] != '4' {
		t.Errorf("the last claim is %s, want one of priority 4", seen)
	}
}

func TestAwaitWakesOneWorkerForOneTask(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := open(t, nil)
		woken := make(chan string, 3)
		for _, id := range []string{"a", "b", "c"} {
			register(t, s, id)
			go func() {
				if err := s.Await(t.Context(), driver.AwaitRequest{Worker: id, Queues: []string{driver.DefaultQueue}, Max: time.Hour}); err != nil {
					t.Error(err)
				}
				woken <- id
			}()
			synctest.Wait()
		}
		enqueue(t, s, &driver.Task{ID: "one", Type: "t"}, &driver.Task{ID: "other", Type: "t", Queue: "elsewhere"})
		synctest.Wait()
		if len(woken) != 1 {
			t.Fatalf("%d workers woke, want 1", len(woken))
		}
		enqueue(t, s, &driver.Task{ID: "two", Type: "t"})
		synctest.Wait()
		if len(woken) != 2 {
			t.Fatalf("%d workers woke, want 2", len(woken))
		}
		time.Sleep(time.Hour) // the bubble's clock
		synctest.Wait()
		if len(woken) != 3 {
			t.Fatalf("%d workers returned after Max, want 3", len(woken))
		}
	})
}

func TestAWorkerThatLeavesTakesNoHint(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := open(t, nil)
		woken := map[string]chan error{}
		for _, id := range []string{"leaving", "staying"} {
			register(t, s, id)
			done := make(chan error, 1)
			woken[id] = done
			go func() {
				done <- s.Await(t.Context(), driver.AwaitRequest{Worker: id, Queues: []string{driver.DefaultQueue}, Max: time.Hour})
			}()
			synctest.Wait()
		}
		if err := s.Unregister(t.Context(), "leaving"); err != nil {
			t.Fatal(err)
		}
		if err := <-woken["leaving"]; err != nil {
			t.Error(err)
		}
		enqueue(t, s, &driver.Task{Type: "t"})
		synctest.Wait()
		if len(woken["staying"]) != 1 {
			t.Error("the worker that stayed was not woken")
		}
	})
}

func TestASoonerDueTimeReachesAWorkerThatWasNotWaiting(t *testing.T) {
	t.Parallel()
	s := open(t, nil)
	register(t, s, "w")
	enqueue(t, s, &driver.Task{Type: "t", Delay: time.Hour})
	if fetch(t, s, "w", 1).NextDue.IsZero() {
		t.Error("NextDue is zero")
	}
	enqueue(t, s, &driver.Task{Type: "t", Delay: time.Minute}) // between Fetch and Await
	req := driver.AwaitRequest{Worker: "w", Queues: []string{driver.DefaultQueue}, Max: 24 * time.Hour}
	if err := s.Await(t.Context(), req); err != nil { // would last a day
		t.Error(err)
	}
}

func TestTheEventLogIsBounded(t *testing.T) {
	t.Parallel()
	s := open(t, &Options{MaxEvents: 3})
	start, err := s.Events(t.Context(), driver.EventQuery{After: driver.EventsFromNow})
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"a", "b", "c", "d"} {
		enqueue(t, s, &driver.Task{ID: id, Type: "t"})
	}
	page, err := s.Events(t.Context(), driver.EventQuery{After: start.Next})
	if err != nil {
		t.Fatal(err)
	}
	if !page.Gap || len(page.Events) != 3 || page.Events[0].ID != "b" {
		t.Errorf("got %+v, want a gap and the events of b, c and d", page)
	}
	if _, err := s.Events(t.Context(), driver.EventQuery{After: "elsewhere"}); !errors.Is(err, driver.ErrInvalid) {
		t.Errorf("a foreign cursor: got %v, want ErrInvalid", err)
	}
}

func BenchmarkPath(b *testing.B) {
	const batch = 500
	s := open(b, nil)
	if err := s.Register(b.Context(), driver.WorkerInfo{ID: "w"}, time.Hour); err != nil {
		b.Fatal(err)
	}
	payload := fmt.Appendf(nil, "%q", strings.Repeat("x", 98))
	n := 0
	for b.Loop() {
		tasks := make([]*driver.Task, batch)
		for i := range tasks {
			tasks[i] = &driver.Task{Type: "t", Payload: payload}
		}
		enqueue(b, s, tasks...)
		items := make([]driver.Settlement, 0, batch)
		for _, c := range fetch(b, s, "w", batch).Claims {
			items = append(items, driver.Settlement{ID: c.ID, Token: c.Token, Outcome: driver.Complete})
		}
		settle(b, s, "w", items...)
		n += len(items)
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "tasks/s")
}
