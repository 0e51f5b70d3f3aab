package waggle_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/waggleq/waggle"
)

// batches notes what a handler of batches was called with, and when.
type batches struct {
	mu    sync.Mutex
	began time.Time
	calls []string // "2s a b c"
}

func (b *batches) handle(_ context.Context, batch []waggle.BatchItem[string]) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	words := []string{time.Since(b.began).Round(10 * time.Millisecond).String()}
	for _, item := range batch {
		words = append(words, item.In)
	}
	b.calls = append(b.calls, strings.Join(words, " "))
	return nil
}

func (b *batches) sorted() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Sorted(slices.Values(b.calls))
}

func TestBatchesAreCompleteByNumberOrTime(t *testing.T) {
	type put struct {
		after time.Duration
		names string
		opts  *waggle.EnqueueOptions
	}
	for _, tt := range []struct {
		name string
		opts *waggle.BatchOptions
		puts []put
		want []string
	}{
		{"number", &waggle.BatchOptions{Max: 3, Wait: time.Minute}, []put{{0, "a b c d e f g", nil}}, []string{"0s a b c", "0s d e f", "1m0s g"}},
		{"time after the first", &waggle.BatchOptions{Wait: 10 * time.Second}, []put{{0, "a", nil}, {6 * time.Second, "b", nil}, {6 * time.Second, "c", nil}},
			[]string{"10s a b", "22s c"}},
		{"time after the last", &waggle.BatchOptions{Wait: 10 * time.Second, Quiet: 4 * time.Second},
			[]put{{0, "a", nil}, {3 * time.Second, "b", nil}, {3 * time.Second, "c", nil}, {5 * time.Second, "d", nil}},
			[]string{"10s a b c", "15s d"}},
		{"time after the last, bounded", &waggle.BatchOptions{Wait: 5 * time.Second, Quiet: 4 * time.Second},
			[]put{{0, "a", nil}, {3 * time.Second, "b", nil}, {3 * time.Second, "c", nil}}, []string{"10s c", "5s a b"}},
		{"keys apart", &waggle.BatchOptions{Max: 2, Wait: 9 * time.Second}, []put{
			{0, "a", &waggle.EnqueueOptions{Key: "x"}}, {0, "b", &waggle.EnqueueOptions{Key: "y"}}, {0, "c", nil},
			{time.Second, "d", &waggle.EnqueueOptions{Key: "x"}},
		}, []string{"1s a d", "9s b", "9s c"}},
		{"timeouts apart", &waggle.BatchOptions{Max: 2, Wait: 9 * time.Second}, []put{
			{0, "a", &waggle.EnqueueOptions{Timeout: time.Minute}}, {0, "b", &waggle.EnqueueOptions{Timeout: time.Hour}},
			{time.Second, "c", &waggle.EnqueueOptions{Timeout: time.Hour}},
		}, []string{"1s b c", "9s a"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, e *env) {
				b := &batches{began: time.Now()}
				r := e.work(&waggle.WorkerOptions{Slots: 2}, func(w *waggle.Worker) { waggle.HandleBatch(w, "x", b.handle, tt.opts) })
				synctest.Wait()
				b.began = time.Now()
				for _, p := range tt.puts {
					time.Sleep(p.after)
					var tasks []waggle.NewTask
					for name := range strings.FieldsSeq(p.names) {
						tasks = append(tasks, waggle.NewTask{Type: "x", Payload: name, Options: p.opts})
					}
					if _, err := e.client.EnqueueBatch(t.Context(), tasks); err != nil {
						t.Fatal(err)
					}
				}
				time.Sleep(2 * time.Minute)
				if diff := cmp.Diff(tt.want, b.sorted()); diff != "" {
					t.Errorf("calls, want -, got +:\n%s", diff)
				}
				r.stop()
			})
		})
	}
}

func TestEachTaskOfABatchEndsForItself(t *testing.T) {
	bubble(t, func(t *testing.T, e *env) {
		names := []string{"done", "result", "fails", "snoozes", "discarded", "cancelled", "left", "number"}
		ids := map[string]string{}
		var tasks []waggle.NewTask
		for _, name := range names {
			ids[name] = "id-" + name
			var payload any = name
			if name == "number" {
				payload = 7
			}
			tasks = append(tasks, waggle.NewTask{Type: "x", Payload: payload, Options: &waggle.EnqueueOptions{ID: ids[name]}})
		}
		if _, err := e.client.EnqueueBatch(t.Context(), tasks); err != nil {
			t.Fatal(err)
		}
		r := e.work(nil, func(w *waggle.Worker) {
			waggle.HandleBatch(w, "x", func(_ context.Context, batch []waggle.BatchItem[string]) error {
				if len(batch) != len(names)-1 {
					return fmt.Errorf("got %d tasks", len(batch))
				}
				for _, item := range batch {
					if got, ok := waggle.TaskFrom(item.Context()); !ok || got != item.Task {
						t.Errorf("the context of %s leads to %v", item.In, got)
					}
					switch item.In {
					case "done":
						item.End(errBoom)
						item.End(nil)
					case "result":
						if err := item.SetResult("r"); err != nil {
							t.Error(err)
						}
						item.End(nil)
					case "fails":
						item.End(errBoom)
					case "snoozes":
						item.End(waggle.Snooze(time.Hour))
					case "discarded":
						item.End(waggle.Discard(errBoom))
					case "cancelled":
						item.End(waggle.Cancel(errBoom))
					}
				}
				return errors.New("the rest failed")
			}, &waggle.BatchOptions{Max: len(names), HandleOptions: waggle.HandleOptions{Backoff: &waggle.Backoff{Base: time.Hour, Fixed: true}}})
		})
		synctest.Wait()
		got := map[string]string{}
		for _, name := range names {
			info := e.get(ids[name])
			got[name] = strings.TrimSpace(string(info.State) + " " + info.LastError())
		}
		want := map[string]string{
			"done": "completed", "result": "completed", "fails": "retryable boom", "snoozes": "scheduled", "discarded": "discarded boom",
			"cancelled": "cancelled boom", "left": "retryable the rest failed", "number": got["number"],
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("want -, got +:\n%s", diff)
		}
		if !strings.HasPrefix(got["number"], "retryable the payload of a x task can't be read") && !strings.HasPrefix(got["number"], "retryable the payload of") {
			t.Errorf("a payload of another kind: %s", got["number"])
		}
		if v, err := waggle.Result[string](e.get(ids["result"])); v != "r" || err != nil {
			t.Errorf("result %q, %v", v, err)
		}
		r.stop()
	})
}

func TestABatchThatBlowsUp(t *testing.T) {
	for name, blow := range map[string]func(ctx context.Context) error{
		"panic":   func(context.Context) error { panic("boom") },
		"exit":    func(context.Context) error { runtime.Goexit(); return nil },
		"timeout": func(ctx context.Context) error { <-ctx.Done(); return context.Cause(ctx) },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, e *env) {
				first, second := e.enqueue("x", "a", nil), e.enqueue("x", "b", nil)
				other := e.enqueue("y", nil, nil)
				r := e.work(&waggle.WorkerOptions{Slots: 1}, func(w *waggle.Worker) {
					waggle.HandleBatch(w, "x", func(ctx context.Context, batch []waggle.BatchItem[string]) error {
						batch[0].End(nil)
						return blow(ctx)
					}, &waggle.BatchOptions{Max: 2, HandleOptions: waggle.HandleOptions{
						Timeout: time.Second, Backoff: &waggle.Backoff{Base: time.Hour, Fixed: true},
					}})
					w.HandleFunc("y", func(context.Context, *waggle.Task) error { return nil }, nil)
				})
				e.wait(other)
				time.Sleep(2 * time.Second)
				if a, b := e.get(first), e.get(second); a.State != waggle.Completed || b.State != waggle.Retryable || b.LastError() == "" {
					t.Errorf("%s, %s (%s), want the one completed and the other tried again", a.State, b.State, b.LastError())
				}
				r.stop()
			})
		})
	}
}

func TestCancelWithinABatch(t *testing.T) {
	bubble(t, func(t *testing.T, e *env) {
		gathering := e.enqueue("x", "gathering", nil)
		var ended []string
		r := e.work(nil, func(w *waggle.Worker) {
			waggle.HandleBatch(w, "x", func(ctx context.Context, batch []waggle.BatchItem[string]) error {
				for _, item := range batch {
					select {
					case <-item.Context().Done():
						ended = append(ended, item.In+" "+context.Cause(item.Context()).Error())
						item.End(context.Cause(item.Context()))
					case <-time.After(time.Minute):
						ended = append(ended, item.In+" ran")
					}
				}
				return context.Cause(ctx)
			}, &waggle.BatchOptions{Max: 2, Wait: time.Hour})
		})
		synctest.Wait()
		cancel := func(ids ...string) {
			t.Helper()
			for _, id := range ids {
				if err := e.client.Cancel(t.Context(), id); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(20 * time.Second)
			synctest.Wait()
		}
		cancel(gathering)
		if info := e.get(gathering); info.State != waggle.Cancelled {
			t.Errorf("cancelled while its batch gathers: %s", info.State)
		}
		one, two := e.enqueue("x", "one", nil), e.enqueue("x", "two", nil)
		synctest.Wait()
		cancel(one)
		time.Sleep(2 * time.Minute)
		three, four := e.enqueue("x", "three", nil), e.enqueue("x", "four", nil)
		synctest.Wait()
		cancel(three, four)
		want := []string{"one the task was cancelled", "two ran", "three the task was cancelled", "four the task was cancelled"}
		if diff := cmp.Diff(want, ended); diff != "" {
			t.Errorf("want -, got +:\n%s", diff)
		}
		for id, state := range map[string]waggle.State{one: waggle.Cancelled, two: waggle.Completed, three: waggle.Cancelled, four: waggle.Cancelled} {
			if info := e.get(id); info.State != state {
				t.Errorf("%s is %s, want %s", info.Payload, info.State, state)
			}
		}
		r.stop()
	})
}

func TestStoppedWhileABatchGathersOrRuns(t *testing.T) {
	bubble(t, func(t *testing.T, e *env) {
		ids := []string{e.enqueue("x", "a", nil), e.enqueue("x", "b", nil), e.enqueue("x", "c", nil)}
		r := e.work(&waggle.WorkerOptions{DrainTimeout: waggle.NoDrain}, func(w *waggle.Worker) {
			waggle.HandleBatch(w, "x", func(ctx context.Context, _ []waggle.BatchItem[string]) error {
				<-ctx.Done()
				return context.Cause(ctx)
			}, &waggle.BatchOptions{Max: 2, Wait: time.Hour})
		})
		synctest.Wait()
		for _, id := range ids {
			if info := e.get(id); info.State != waggle.Active {
				t.Errorf("%s is %s", info.Payload, info.State)
			}
		}
		if took := r.stop(); took > time.Second {
			t.Errorf("stopping took %v", took)
		}
		for _, id := range ids {
			if info := e.get(id); info.State != waggle.Available || info.Attempt != 0 || info.Crashes != 0 {
				t.Errorf("%s is %s after %d attempts and %d crashes", info.Payload, info.State, info.Attempt, info.Crashes)
			}
		}
	})
}

func TestUntilEmptyDoesNotWaitForABatch(t *testing.T) {
	bubble(t, func(t *testing.T, e *env) {
		for range 7 {
			e.enqueue("x", "a", nil)
		}
		began := time.Now()
		b := &batches{began: began}
		r := e.work(&waggle.WorkerOptions{UntilEmpty: true, Slots: 2}, func(w *waggle.Worker) {
			waggle.HandleBatch(w, "x", b.handle, &waggle.BatchOptions{Max: 5, Wait: time.Hour})
		})
		if err := <-r.done; err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("took %v", took)
		}
		if got := b.sorted(); len(got) != 2 {
			t.Errorf("calls: %q", got)
		}
	})
}

// A batch of more keys than may gather runs the oldest first, and nothing is left behind.
func TestMoreKeysThanMayGather(t *testing.T) {
	bubble(t, func(t *testing.T, e *env) {
		const keys = 2500
		var tasks []waggle.NewTask
		for i := range keys {
			tasks = append(tasks, waggle.NewTask{Type: "x", Payload: "a", Options: &waggle.EnqueueOptions{Key: fmt.Sprint("k", i)}})
		}
		if _, err := e.client.EnqueueBatch(t.Context(), tasks); err != nil {
			t.Fatal(err)
		}
		b := &batches{began: time.Now()}
		r := e.work(&waggle.WorkerOptions{Slots: 4}, func(w *waggle.Worker) {
			waggle.HandleBatch(w, "x", b.handle, &waggle.BatchOptions{Wait: time.Hour})
		})
		time.Sleep(time.Minute)
		if n := len(b.sorted()); n < keys-1001 || n == keys {
			t.Errorf("%d of %d batches have run after a minute", n, keys)
		}
		time.Sleep(time.Hour)
		if n := len(b.sorted()); n != keys {
			t.Errorf("%d of %d batches have run after an hour", n, keys)
		}
		r.stop()
	})
}

func TestBatchOptionsThatCannotBe(t *testing.T) {
	bubble(t, func(t *testing.T, e *env) {
		b := &batches{}
		for _, opts := range []waggle.BatchOptions{
			{Max: -1}, {Max: 1001}, {Wait: -1}, {Wait: time.Microsecond}, {Wait: 2 * time.Hour}, {Quiet: -time.Second}, {Quiet: 1},
			{HandleOptions: waggle.HandleOptions{Timeout: -1}},
		} {
			w, err := waggle.NewWorker(e.store, nil)
			if err != nil {
				t.Fatal(err)
			}
			waggle.HandleBatch(w, "x", b.handle, &opts)
			if err := w.Run(t.Context()); !errors.Is(err, waggle.ErrInvalid) {
				t.Errorf("%+v: %v", opts, err)
			}
		}
		w, err := waggle.NewWorker(e.store, nil)
		if err != nil {
			t.Fatal(err)
		}
		waggle.HandleBatch[string](w, "x", nil, nil)
		waggle.HandleBatch(w, "y", b.handle, nil)
		waggle.HandleBatch(w, "y", b.handle, nil)
		if err := w.Run(t.Context()); !errors.Is(err, waggle.ErrInvalid) || strings.Count(err.Error(), "type") < 2 {
			t.Errorf("got %v", err)
		}
	})
}
