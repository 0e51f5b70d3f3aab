package waggle_test

import (
	"context"
	"errors"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/waggleq/waggle"
)

type sumArgs struct{ A, B int }

var sumType = waggle.NewType[sumArgs]("sum", &waggle.EnqueueOptions{Queue: "sums", MaxAttempts: 3})

// TestType enqueues, handles and waits through one name.
func TestType(t *testing.T) {
	bubble(t, func(t *testing.T, e *env) {
		r := e.work(&waggle.WorkerOptions{Queues: []waggle.Queue{{Name: "sums"}, {Name: "other"}}}, func(w *waggle.Worker) {
			sumType.Handle(w, func(_ context.Context, task *waggle.Task, in sumArgs) error { return task.SetResult(in.A + in.B) })
		})
		receipt, err := sumType.Enqueue(t.Context(), e.client, sumArgs{1, 2})
		if err != nil {
			t.Fatal(err)
		}
		if sum, err := waggle.WaitResult[int](t.Context(), e.client, receipt.ID); err != nil || sum != 3 {
			t.Errorf("the result is %d, %v", sum, err)
		}
		if info := e.get(receipt.ID); info.Queue != "sums" || info.MaxAttempts != 3 || info.Type != sumType.Name() {
			t.Errorf("the task is %+v", info)
		}
		results, err := sumType.EnqueueBatch(t.Context(), e.client, []sumArgs{{1, 1}, {2, 2}}, &waggle.EnqueueOptions{Queue: "other"})
		if err != nil || len(results) != 2 {
			t.Fatal(results, err)
		}
		for i, b := range results {
			if sum, err := waggle.WaitResult[int](t.Context(), e.client, b.ID); err != nil || sum != 2*(i+1) || e.get(b.ID).Queue != "other" {
				t.Errorf("the result of %d is %d, %v", i, sum, err)
			}
		}
		if _, err := waggle.WaitResult[int](t.Context(), e.client, "nothing"); !errors.Is(err, waggle.ErrNotFound) {
			t.Error(err)
		}
		o := &waggle.EnqueueOptions{}
		if _, err := sumType.Enqueue(t.Context(), e.client, sumArgs{}, o, o); !errors.Is(err, waggle.ErrInvalid) {
			t.Errorf("two sets of options: %v", err)
		}
		if _, err := waggle.NewType[int]("a b").Enqueue(t.Context(), e.client, 1); !errors.Is(err, waggle.ErrInvalid) {
			t.Errorf("a bad name: %v", err)
		}
		r.stop()
	})
}

// TestBackoffOfOnesOwn: how long a failed task waits is any function of the attempt and the error, of the type or else of
// the worker; one that panics is not used.
func TestBackoffOfOnesOwn(t *testing.T) {
	bubble(t, func(t *testing.T, e *env) {
		boom := errors.New("boom")
		fail := func(context.Context, *waggle.Task, int) error { return boom }
		r := e.work(&waggle.WorkerOptions{Backoff: &waggle.Backoff{Base: time.Hour, Factor: 1, Fixed: true}}, func(w *waggle.Worker) {
			waggle.NewType[int]("own").Handle(w, fail, &waggle.HandleOptions{BackoffFunc: func(attempt int, err error) time.Duration {
				if !errors.Is(err, boom) {
					return 0
				}
				return time.Duration(attempt) * time.Minute
			}})
			waggle.NewType[int]("worker").Handle(w, fail)
			waggle.NewType[int]("panics").Handle(w, fail, &waggle.HandleOptions{BackoffFunc: func(int, error) time.Duration { panic("no") }})
			waggle.NewType[int]("absurd").Handle(w, fail, &waggle.HandleOptions{BackoffFunc: func(int, error) time.Duration { return -time.Hour }})
		})
		var ids []string
		for _, typ := range []string{"own", "worker", "panics", "absurd"} {
			ids = append(ids, e.enqueue(typ, 1, &waggle.EnqueueOptions{MaxAttempts: 3}))
		}
		time.Sleep(4 * time.Minute) // own: after 1 and 2 more minutes its attempts are used up
		e.wantState(ids[0], waggle.Discarded)
		e.wantState(ids[1], waggle.Retryable)
		e.wantState(ids[2], waggle.Retryable)
		e.wantState(ids[3], waggle.Discarded)
		r.stop()
	})
}

// TestBackoffAfterAPanic: a backoff function that panics or ends its goroutine does no harm where the handler has done the
// same either.
func TestBackoffAfterAPanic(t *testing.T) {
	bubble(t, func(t *testing.T, e *env) {
		handlers := map[string]waggle.Handler{
			"error":  func(context.Context, *waggle.Task) error { return errBoom },
			"panic":  func(context.Context, *waggle.Task) error { panic("oh no") },
			"goexit": func(context.Context, *waggle.Task) error { runtime.Goexit(); return nil },
		}
		backoffs := map[string]func(int, error) time.Duration{
			"panic":  func(int, error) time.Duration { panic("no backoff") },
			"goexit": func(int, error) time.Duration { runtime.Goexit(); return 0 },
		}
		r := e.work(&waggle.WorkerOptions{Backoff: &waggle.Backoff{Base: time.Hour, Factor: 1, Fixed: true}}, func(w *waggle.Worker) {
			for handler, h := range handlers {
				for backoff, f := range backoffs {
					w.HandleFunc(handler+"."+backoff, h, &waggle.HandleOptions{BackoffFunc: f})
				}
			}
		})
		began := time.Now()
		for handler := range handlers {
			for backoff := range backoffs {
				id := e.enqueue(handler+"."+backoff, nil, nil)
				synctest.Wait()
				info := e.wantState(id, waggle.Retryable)
				if wait := info.DueAt.Sub(began); wait != time.Hour || info.Crashes != 0 {
					t.Errorf("%s: it waits for %v after %d crashes, want an hour and none", info.Type, wait, info.Crashes)
				}
			}
		}
		r.stop()
	})
}

// TestOneClientForBothSides: what handlers enqueue goes through the middleware of the client that the worker was given.
func TestOneClientForBothSides(t *testing.T) {
	bubble(t, func(t *testing.T, e *env) {
		mark := func(next waggle.EnqueueFunc) waggle.EnqueueFunc {
			return func(ctx context.Context, tasks []waggle.NewTask) ([]waggle.EnqueueResult, error) {
				for i := range tasks {
					tasks[i].Options = &waggle.EnqueueOptions{Tags: []string{"marked"}, ID: "child"}
				}
				return next(ctx, tasks)
			}
		}
		client, err := waggle.NewClient(e.store, &waggle.ClientOptions{Middleware: []waggle.EnqueueMiddleware{mark}})
		if err != nil {
			t.Fatal(err)
		}
		r := e.work(&waggle.WorkerOptions{Client: client}, func(w *waggle.Worker) {
			w.HandleFunc("parent", func(ctx context.Context, task *waggle.Task) error {
				_, err := task.Client().Enqueue(ctx, "child", nil, nil)
				return err
			}, nil)
		})
		e.wait(e.enqueue("parent", nil, nil))
		if info := e.get("child"); len(info.Tags) != 1 {
			t.Errorf("the child has the tags %q", info.Tags)
		}
		r.stop()
		if _, err := client.Enqueue(t.Context(), "x", nil, nil); err != nil {
			t.Errorf("the client is closed with the worker: %v", err)
		}
		if err := client.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if _, err := waggle.NewWorker(e.mem, &waggle.WorkerOptions{Client: client}); !errors.Is(err, waggle.ErrInvalid) {
			t.Errorf("a client of another store: %v", err)
		}
	})
}

// TestNilStore: a store that could not be opened is an error, not a panic.
func TestNilStore(t *testing.T) {
	t.Parallel()
	var none *leveled
	if _, err := waggle.NewClient(none, nil); !errors.Is(err, waggle.ErrInvalid) {
		t.Error(err)
	}
	if _, err := waggle.NewWorker(none, nil); !errors.Is(err, waggle.ErrInvalid) {
		t.Error(err)
	}
}
