package waggle_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/waggleq/waggle"
	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/memstore"
)

// TestProbationIsAlone has tasks that were twice in a worker that died run between others that were not: while one of
// them runs its worker holds nothing else, so that nothing else could be charged if it killed the process.
func TestProbationIsAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, err := memstore.Open(nil)
		if err != nil {
			t.Fatal(err)
		}
		defer store.Close()
		client, err := waggle.NewClient(store, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close(t.Context())
		enqueueAll(t, client, "suspect", 6)
		crashTwice(t, store, 6)
		enqueueAll(t, client, "fresh", 20)
		w, err := waggle.NewWorker(store, &waggle.WorkerOptions{Slots: 4, UntilEmpty: true})
		if err != nil {
			t.Fatal(err)
		}
		var ran atomic.Int32
		waggle.Handle(w, "t", func(ctx context.Context, task *waggle.Task, in int) error {
			ran.Add(1)
			if task.Crashes < 2 {
				time.Sleep(time.Duration(in) * time.Millisecond)
				return nil
			}
			held, err := store.Held(ctx, task.Worker())
			if err != nil || len(held) != 1 || held[0].ID != task.ID {
				t.Errorf("%s runs on probation, and its worker holds %d tasks (%v)", task.ID, len(held), err)
			}
			time.Sleep(300 * time.Millisecond)
			return nil
		}, nil)
		if err := w.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		if ran.Load() != 26 {
			t.Errorf("%d handlers ran, want 26", ran.Load())
		}
	})
}

func enqueueAll(t *testing.T, client *waggle.Client, name string, n int) {
	t.Helper()
	for i := range n {
		if _, err := client.Enqueue(t.Context(), "t", i, &waggle.EnqueueOptions{ID: fmt.Sprintf("%s-%d", name, i)}); err != nil {
			t.Fatal(err)
		}
	}
}

// crashTwice has two workers die with n tasks in their hands.
func crashTwice(t *testing.T, store driver.Store, n int) {
	t.Helper()
	for _, id := range []string{"first", "second"} {
		if err := store.Register(t.Context(), driver.WorkerInfo{ID: id}, time.Second); err != nil {
			t.Fatal(err)
		}
		res, err := store.Fetch(t.Context(), driver.FetchRequest{Worker: id, Lease: time.Second, Queues: []string{"default"}, Max: n})
		if err != nil || len(res.Claims) != n {
			t.Fatalf("fetched %d tasks: %v", len(res.Claims), err)
		}
		time.Sleep(2 * time.Second)
		if _, err := store.Maintain(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
	}
}
