package sqlitestore

import (
	"context"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/waggleq/waggle/driver"
)

// What a process writes to renew a lease, or to find that there is nothing to do, wakes none of the others that wait, and
// what wakes them costs by what has changed, however many queues there are.
func TestHeartbeatsWakeNobody(t *testing.T) {
	t.Parallel()
	const others, queues = 6, 300
	path := t.TempDir() + "/q.db"
	crowd := make([]*Store, others)
	for i := range crowd {
		s, err := Open(t.Context(), path, nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		crowd[i] = s
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	var tasks []*driver.Task
	for i := range queues {
		tasks = append(tasks, &driver.Task{ID: fmt.Sprint("task-", i), Type: "t", Queue: fmt.Sprint("queue-", i)})
	}
	_, err := crowd[0].Enqueue(t.Context(), tasks, driver.EnqueueOptions{})
	must(err)
	for i, s := range crowd {
		must(s.Register(t.Context(), driver.WorkerInfo{ID: fmt.Sprint("worker-", i)}, time.Minute))
	}
	busy, idle := crowd[0], crowd[1:]
	var waiting sync.WaitGroup
	for i, s := range idle {
		waiting.Go(func() {
			must := func(err error) {
				if err != nil {
					t.Error(err)
				}
			}
			must(s.Await(t.Context(), driver.AwaitRequest{Worker: fmt.Sprint("worker-", i+1), For: driver.ForWork, Queues: []string{"mine"}, Max: time.Minute}))
		})
	}
	type view struct {
		told  int
		state *state
		still *queue
	}
	see := func(s *Store) (v view) {
		done := make(chan struct{})
		s.queue.call(func(w *writer) {
			defer close(done)
			if w.watch.deaf {
				t.Error("the operating system does not tell of writes to the bell")
			}
			w.look()
			v = view{w.watch.told, w.st, w.st.queues["queue-7"]}
		})
		<-done
		return v
	}
	before := make([]view, len(idle))
	for i, s := range idle {
		awaitArmed(t, s)
		before[i] = see(s)
	}
	for range 20 {
		_, err := busy.Heartbeat(t.Context(), "worker-0", time.Minute)
		must(err)
		_, err = busy.Fetch(t.Context(), driver.FetchRequest{Worker: "worker-0", Lease: time.Minute, Queues: []string{"mine"}, Max: 1})
		must(err)
	}
	// What is told is told in order: whoever hears of this task has heard of all before.
	_, err = busy.Enqueue(t.Context(), []*driver.Task{{ID: "one", Type: "t", Queue: "mine"}}, driver.EnqueueOptions{})
	must(err)
	waiting.Wait()
	for i, s := range idle {
		now := see(s)
		if n := now.told - before[i].told; n > 1 {
			t.Errorf("store %d was woken %d times by 20 heartbeats, 20 fetches in vain and one task, want 1", i, n)
		}
		if now.state != before[i].state || now.still != before[i].still {
			t.Errorf("store %d has read all queues again, though one has changed", i)
		}
	}
}

// awaitArmed waits until the store's writer watches, and nothing that it was told of is left.
func awaitArmed(t *testing.T, s *Store) {
	t.Helper()
	for ctx, last := t.Context(), -1; ctx.Err() == nil; {
		armed := make(chan int)
		s.queue.call(func(w *writer) {
			n := -1
			if w.watch.armed {
				n = w.watch.told
			}
			armed <- n
		})
		n := <-armed
		if n >= 0 && n == last {
			return
		}
		last = n
		pauseFor(ctx, 50*time.Millisecond)
	}
}

func pauseFor(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// A bell that is deleted while stores watch it is made anew, and they go on hearing of each other.
func TestADeletedBellIsWatchedAgain(t *testing.T) {
	t.Parallel()
	path := t.TempDir() + "/q.db"
	open := func() *Store {
		s, err := Open(t.Context(), path, nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		return s
	}
	a, b := open(), open()
	if err := b.Register(t.Context(), driver.WorkerInfo{ID: "w"}, time.Minute); err != nil {
		t.Fatal(err)
	}
	await := func() chan error {
		done := make(chan error, 1)
		go func() {
			done <- b.Await(t.Context(), driver.AwaitRequest{Worker: "w", For: driver.ForWork, Queues: []string{"q"}, Max: time.Minute})
		}()
		return done
	}
	done := await()
	awaitArmed(t, b)
	if err := os.Remove(path + "-bell"); err != nil {
		t.Fatal(err)
	}
	for { // the operating system tells of it
		if _, err := os.Stat(path + "-bell"); err == nil {
			break
		}
		pauseFor(t.Context(), time.Millisecond)
	}
	awaitArmed(t, b)
	if _, err := a.Enqueue(t.Context(), []*driver.Task{{ID: "1", Type: "t", Queue: "q"}}, driver.EnqueueOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}
