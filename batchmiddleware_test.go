package waggle_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/waggleq/waggle"
)

type spanKey struct{}

// Middleware of batches wraps each call once, the first outermost. It reaches the handler by the context, and sees what became
// of each task.
func TestBatchMiddleware(t *testing.T) {
	bubble(t, func(t *testing.T, e *env) {
		var calls []string // only one batch runs at a time
		note := func(name string) waggle.BatchMiddleware {
			return func(next waggle.BatchHandler) waggle.BatchHandler {
				return func(ctx context.Context, batch []waggle.BatchItem[[]byte]) error {
					calls = append(calls, fmt.Sprint(name, " before ", len(batch), " ", string(batch[0].In)))
					err := next(context.WithValue(ctx, spanKey{}, name), batch)
					for _, item := range batch {
						ended, verdict := item.Ended()
						calls = append(calls, fmt.Sprint(name, " ", item.ID, " ", ended, " ", verdict != nil))
					}
					calls = append(calls, fmt.Sprint(name, " after ", err))
					return err
				}
			}
		}
		var tasks []waggle.NewTask
		for i, payload := range []any{"ok", 7, "left"} {
			tasks = append(tasks, waggle.NewTask{Type: "x", Payload: payload, Options: &waggle.EnqueueOptions{ID: fmt.Sprint("t", i)}})
		}
		if _, err := e.client.EnqueueBatch(t.Context(), tasks); err != nil {
			t.Fatal(err)
		}
		single := e.enqueue("y", nil, nil)
		r := e.work(&waggle.WorkerOptions{BatchMiddleware: []waggle.BatchMiddleware{note("outer"), note("inner")}}, func(w *waggle.Worker) {
			waggle.HandleBatch(w, "x", func(ctx context.Context, batch []waggle.BatchItem[string]) error {
				calls = append(calls, fmt.Sprint("handler ", len(batch), " ", ctx.Value(spanKey{})))
				batch[0].End(nil)
				return errBoom
			}, &waggle.BatchOptions{Max: 3, HandleOptions: waggle.HandleOptions{Backoff: &waggle.Backoff{Base: time.Hour, Fixed: true}}})
			w.HandleFunc("y", func(context.Context, *waggle.Task) error { return nil }, nil)
		})
		synctest.Wait()
		r.stop()
		want := []string{`outer before 3 "ok"`, `inner before 3 "ok"`, "handler 2 inner"}
		for _, name := range []string{"inner", "outer"} {
			want = append(want, name+" t0 true false", name+" t1 true true", name+" t2 false false", name+" after boom")
		}
		if diff := cmp.Diff(want, calls); diff != "" {
			t.Errorf("want -, got +:\n%s", diff)
		}
		e.wantState("t0", waggle.Completed)
		e.wantState("t1", waggle.Retryable)
		e.wantState("t2", waggle.Retryable)
		e.wantState(single, waggle.Completed)
	})
}

// Middleware of batches may end some tasks and hand on the others; its own end, panic or Goexit is that of those left.
func TestBatchMiddlewareDecides(t *testing.T) {
	for name, tt := range map[string]struct {
		middleware waggle.BatchMiddleware
		want       []waggle.State // of a and b
	}{
		"some": {func(next waggle.BatchHandler) waggle.BatchHandler {
			return func(ctx context.Context, batch []waggle.BatchItem[[]byte]) error {
				batch[0].End(waggle.Discard(errors.New("refused")))
				return next(ctx, batch[1:])
			}
		}, []waggle.State{waggle.Discarded, waggle.Completed}},
		"all": {func(waggle.BatchHandler) waggle.BatchHandler {
			return func(context.Context, []waggle.BatchItem[[]byte]) error { return errBoom }
		}, []waggle.State{waggle.Retryable, waggle.Retryable}},
		"none": {func(next waggle.BatchHandler) waggle.BatchHandler {
			return func(ctx context.Context, _ []waggle.BatchItem[[]byte]) error { return next(ctx, nil) }
		}, []waggle.State{waggle.Completed, waggle.Completed}},
		"panic": {func(waggle.BatchHandler) waggle.BatchHandler {
			return func(context.Context, []waggle.BatchItem[[]byte]) error { panic("boom") }
		}, []waggle.State{waggle.Retryable, waggle.Retryable}},
		"exit": {func(waggle.BatchHandler) waggle.BatchHandler {
			return func(_ context.Context, batch []waggle.BatchItem[[]byte]) error {
				batch[0].End(nil)
				runtime.Goexit()
				return nil
			}
		}, []waggle.State{waggle.Completed, waggle.Retryable}},
		"recover": {func(next waggle.BatchHandler) waggle.BatchHandler {
			return func(ctx context.Context, batch []waggle.BatchItem[[]byte]) (err error) {
				defer func() {
					if v := recover(); v != nil {
						err = waggle.Discard(fmt.Errorf("recovered %v", v))
					}
				}()
				panics := func(context.Context, []waggle.BatchItem[[]byte]) error { panic("bug") }
				return errors.Join(next(ctx, nil), panics(ctx, batch))
			}
		}, []waggle.State{waggle.Discarded, waggle.Discarded}},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, e *env) {
				ids := []string{e.enqueue("x", "a", nil), e.enqueue("x", "b", nil)}
				r := e.work(&waggle.WorkerOptions{BatchMiddleware: []waggle.BatchMiddleware{tt.middleware}}, func(w *waggle.Worker) {
					waggle.HandleBatch(w, "x", func(context.Context, []waggle.BatchItem[string]) error { return nil },
						&waggle.BatchOptions{Max: 2, HandleOptions: waggle.HandleOptions{Backoff: &waggle.Backoff{Base: time.Hour, Fixed: true}}})
				})
				time.Sleep(time.Second)
				for i, want := range tt.want {
					e.wantState(ids[i], want)
				}
				r.stop()
			})
		})
	}
}

// A worker that is told to be quiet gives back what gathers, and finishes the batch that runs; told to stop, it ends so.
func TestDirectedWhileABatchGathersAndRuns(t *testing.T) {
	for name, d := range map[string]waggle.Directive{"quiet": waggle.DirectQuiet, "stop": waggle.DirectStop} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, e *env) {
				var ran [][]string
				ids := map[string]string{}
				for _, s := range []string{"a", "b", "c"} {
					ids[s] = e.enqueue("x", s, nil)
				}
				r := e.work(nil, func(w *waggle.Worker) {
					waggle.HandleBatch(w, "x", func(ctx context.Context, batch []waggle.BatchItem[string]) error {
						var names []string
						for _, item := range batch {
							names = append(names, item.In)
						}
						slices.Sort(names)
						ran = append(ran, names)
						time.Sleep(10 * time.Second) // in the bubble's time
						return ctx.Err()
					}, &waggle.BatchOptions{Max: 2, Wait: time.Hour})
				})
				synctest.Wait()
				e.direct(d)
				time.Sleep(time.Second)
				e.wantState(ids["a"], waggle.Active)
				e.wantState(ids["b"], waggle.Active)
				if info := e.wantState(ids["c"], waggle.Available); info.Attempt != 0 || info.Crashes != 0 || len(info.Attempts) != 0 {
					t.Errorf("what gathered has %d attempts, %d crashes and the history %+v", info.Attempt, info.Crashes, info.Attempts)
				}
				later := e.enqueue("x", "d", nil)
				if d == waggle.DirectStop {
					if err := <-r.done; err != nil {
						t.Errorf("Run returned %v", err)
					}
				} else {
					time.Sleep(time.Minute)
				}
				e.wantState(ids["a"], waggle.Completed)
				e.wantState(ids["b"], waggle.Completed)
				e.wantState(ids["c"], waggle.Available)
				e.wantState(later, waggle.Available)
				if d == waggle.DirectStop {
					return
				}
				e.direct(waggle.DirectServe)
				time.Sleep(time.Minute)
				e.wantState(ids["c"], waggle.Completed)
				e.wantState(later, waggle.Completed)
				if diff := cmp.Diff([][]string{{"a", "b"}, {"c", "d"}}, ran); diff != "" {
					t.Errorf("batches, want -, got +:\n%s", diff)
				}
				r.stop()
			})
		})
	}
}

// A worker that is told to be quiet or to stop tries nothing of a type whose breaker is open: neither while it cools down nor when
// it could be tried.
func TestDirectedWhileABreakerIsOpen(t *testing.T) {
	for name, d := range map[string]waggle.Directive{"quiet": waggle.DirectQuiet, "stop": waggle.DirectStop} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, e *env) {
				begun, down := 0, true
				r := e.work(&waggle.WorkerOptions{Slots: 1}, func(w *waggle.Worker) {
					waggle.HandleBatch(w, "x", func(_ context.Context, batch []waggle.BatchItem[string]) error {
						if begun += len(batch); down {
							return errBoom
						}
						return nil
					}, &waggle.BatchOptions{Max: 2, Wait: 10 * time.Millisecond, HandleOptions: waggle.HandleOptions{
						Breaker: &waggle.Breaker{Min: 5, CoolDown: 20 * time.Second}, Backoff: &waggle.Backoff{Base: time.Second, Factor: 1, Fixed: true}}})
				})
				for range 20 {
					e.enqueue("x", "a", nil)
				}
				time.Sleep(10 * time.Second)
				if s := e.typeStatus("x"); s.State != waggle.BreakerOpen {
					t.Fatalf("after failures the breaker is %+v", s)
				}
				e.direct(d)
				time.Sleep(time.Second)
				before := begun
				if d == waggle.DirectStop {
					if err := <-r.done; err != nil {
						t.Errorf("Run returned %v", err)
					}
				}
				time.Sleep(2 * time.Minute)
				if q, err := e.client.Queue(t.Context(), "default"); err != nil || begun != before || q.Counts[waggle.Active] != 0 {
					t.Errorf("%d tasks were tried; queue %+v, %v", begun-before, q.Counts, err)
				}
				down = false
				if d == waggle.DirectStop {
					return
				}
				e.direct(waggle.DirectServe)
				time.Sleep(2 * time.Minute)
				if s := e.typeStatus("x"); s.State != waggle.BreakerClosed {
					t.Errorf("the breaker is %+v", s)
				}
				if q, err := e.client.Queue(t.Context(), "default"); err != nil || q.Counts[waggle.Completed] != 20 {
					t.Errorf("queue %+v, %v", q.Counts, err)
				}
				r.stop()
			})
		})
	}
}

func (e *env) typeStatus(typ string) waggle.TypeStatus {
	e.t.Helper()
	return statusOf(e.t, e.client, typ)
}
