package waggle_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/waggleq/waggle"
	"github.com/waggleq/waggle/driver"
)

func TestOneTaskOperations(t *testing.T) {
	bubble(t, func(t *testing.T, e *env) {
		ctx := t.Context()
		id := e.enqueue("x", nil, &waggle.EnqueueOptions{Hold: true})
		e.wantState(id, waggle.Pending)
		for _, step := range []struct {
			do   func(context.Context, string) error
			err  error
			want waggle.State
		}{
			{e.client.Retry, waggle.ErrState, waggle.Pending},
			{e.client.RunNow, nil, waggle.Available},
			{e.client.RunNow, waggle.ErrState, waggle.Available},
			{e.client.Cancel, nil, waggle.Cancelled},
			{e.client.Cancel, waggle.ErrState, waggle.Cancelled},
			{e.client.Retry, nil, waggle.Available},
		} {
			if err := step.do(ctx, id); !errors.Is(err, step.err) {
				t.Errorf("err = %v, want %v", err, step.err)
			}
			e.wantState(id, step.want)
		}
		if err := e.client.Delete(ctx, id); err != nil {
			t.Error(err)
		}
		if err := e.client.Delete(ctx, id); !errors.Is(err, waggle.ErrNotFound) {
			t.Errorf("Delete again = %v", err)
		}
	})
}

func TestListAndAll(t *testing.T) {
	bubble(t, func(t *testing.T, e *env) {
		for i := range 1234 {
			e.enqueue([]string{"a", "b"}[i%2], nil, &waggle.EnqueueOptions{ID: fmt.Sprintf("t%04d", i)})
		}
		var ids []string
		for info, err := range e.client.All(t.Context(), waggle.Filter{Types: []string{"b"}}) {
			if err != nil {
				t.Fatal(err)
			}
			ids = append(ids, info.ID)
		}
		slices.Sort(ids)
		if n := len(slices.Compact(ids)); n != 617 || ids[0] != "t0001" {
			t.Errorf("%d different ids, the first %s", n, ids[0])
		}
		page, err := e.client.List(t.Context(), waggle.Filter{}, waggle.Page{Size: 10})
		if err != nil || len(page.Tasks) != 10 || page.Next == "" || page.Tasks[0].ID != "t1233" {
			t.Errorf("List = %+v, %v", page, err)
		}
		n := 0
		for range e.client.All(t.Context(), waggle.Filter{}) {
			if n++; n == 3 {
				break
			}
		}
		for _, err := range e.client.All(t.Context(), waggle.Filter{States: []waggle.State{"odd"}}) {
			if !errors.Is(err, waggle.ErrInvalid) {
				t.Errorf("an unknown state: %v", err)
			}
		}
	})
}

func TestPauseResumePurge(t *testing.T) {
	bubble(t, func(t *testing.T, e *env) {
		var c counter
		r := e.work(nil, func(w *waggle.Worker) { w.HandleFunc("x", c.until(0), nil) })
		synctest.Wait()
		if err := e.client.Pause(t.Context(), "default"); err != nil {
			t.Fatal(err)
		}
		for range 2500 {
			e.enqueue("x", nil, nil)
		}
		fetches := e.store.count("fetch")
		time.Sleep(time.Minute)
		if c.started.Load() != 0 {
			t.Errorf("%d tasks of a paused queue ran", c.started.Load())
		}
		if n := e.store.count("fetch") - fetches; n > 65 {
			t.Errorf("%d fetches in a minute for a paused queue", n)
		}
		var steps []int
		n, err := e.client.Purge(t.Context(), "default", nil, func(n int) { steps = append(steps, n) })
		if err != nil || n != 2500 || !slices.Equal(steps, []int{1000, 2000, 2500}) {
			t.Errorf("Purge = %d, %v, steps %v", n, err, steps)
		}
		id := e.enqueue("x", nil, nil)
		if err := e.client.Resume(t.Context(), "default"); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		e.wantState(id, waggle.Completed)
		r.stop()
	})
}

func TestDrainQueue(t *testing.T) {
	bubble(t, func(t *testing.T, e *env) {
		var c counter
		r := e.work(nil, func(w *waggle.Worker) { w.HandleFunc("x", c.until(5*time.Second), nil) })
		for i := range 3 {
			e.enqueue("x", nil, &waggle.EnqueueOptions{Delay: time.Duration(i) * 10 * time.Second})
		}
		var left []int
		began := time.Now()
		if err := e.client.Drain(t.Context(), "default", func(n int) { left = append(left, n) }); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took < 25*time.Second || took > 26*time.Second {
			t.Errorf("took %v", took)
		}
		if !slices.Equal(left, []int{3, 2, 1, 0}) {
			t.Errorf("progress: %v", left)
		}
		if _, err := e.client.Enqueue(t.Context(), "x", nil, nil); !errors.Is(err, waggle.ErrQueueClosed) {
			t.Errorf("Enqueue into a draining queue = %v", err)
		}
		if err := e.client.Resume(t.Context(), "default"); err != nil {
			t.Fatal(err)
		}
		e.enqueue("x", nil, &waggle.EnqueueOptions{Hold: true})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := e.client.Drain(ctx, "default", nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Drain of a queue that does not empty = %v", err)
		}
		r.stop()
	})
}

func TestQueueAndSettings(t *testing.T) {
	bubble(t, func(t *testing.T, e *env) {
		if _, err := e.client.Queue(t.Context(), "none"); !errors.Is(err, waggle.ErrNotFound) {
			t.Errorf("Queue = %v", err)
		}
		keep := driver.DefaultRetention()
		keep.Completed = waggle.Keep{Count: 3, Age: time.Hour, Bytes: -1}
		if err := e.client.SetRetention(t.Context(), "q", keep); err != nil {
			t.Fatal(err)
		}
		q, err := e.client.Queue(t.Context(), "q")
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(keep, q.Config.Retention); diff != "" {
			t.Error(diff)
		}
		// What is not named stays as it is: no dead letter goes because completed tasks are to stay longer.
		if err := e.client.SetRetention(t.Context(), "q", waggle.Retention{Completed: waggle.Keep{Count: 4}}); err != nil {
			t.Fatal(err)
		}
		keep.Completed.Count = 4
		if q, err := e.client.Queue(t.Context(), "q"); err != nil || q.Config.Retention != keep {
			t.Errorf("the retention is %+v, %v; want %+v", q.Config.Retention, err, keep)
		}
		if err := e.client.SetRetention(t.Context(), "q", waggle.Retention{Completed: waggle.Keep{Age: -1}}); !errors.Is(err, waggle.ErrInvalid) {
			t.Errorf("a negative age: %v", err)
		}
		if err := e.client.Pause(t.Context(), "no good"); !errors.Is(err, waggle.ErrInvalid) {
			t.Errorf("Pause = %v", err)
		}
	})
}

// The JSON form of a task is what programs read: its members are fixed.
func TestTaskInfoJSON(t *testing.T) {
	bubble(t, func(t *testing.T, e *env) {
		r := e.work(nil, func(w *waggle.Worker) {
			w.HandleFunc("x", func(_ context.Context, t *waggle.Task) error { return t.SetResult([]byte("out")) }, nil)
		})
		id := e.enqueue("x", "in", &waggle.EnqueueOptions{ID: "one", Timeout: time.Second})
		b, err := json.Marshal(e.wait(id))
		if err != nil {
			t.Fatal(err)
		}
		var got map[string]any
		if err := json.Unmarshal(b, &got); err != nil {
			t.Fatal(err)
		}
		for _, key := range []string{"attempts", "enqueued_at", "due_at", "claimed_at", "ended_at", "worker"} {
			if got[key] == nil {
				t.Errorf("no member %q", key)
			}
			delete(got, key)
		}
		want := map[string]any{
			"id": "one", "type": "x", "queue": "default", "state": "completed", "attempt": 1.0, "crashes": 0.0,
			"max_attempts": 25.0, "crash_limit": 5.0, "priority": 0.0, "payload": "in", "result": map[string]any{"base64": "b3V0"},
			"cancel_requested": false, "timeout_ms": 1000.0,
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("want -, got +:\n%s", diff)
		}
		r.stop()
	})
}

func TestHandlePayloads(t *testing.T) {
	bubble(t, func(t *testing.T, e *env) {
		r := e.work(nil, func(w *waggle.Worker) {
			waggle.Handle(w, "raw", func(_ context.Context, t *waggle.Task, in []byte) error { return t.SetResult(in) }, nil)
			waggle.Handle(w, "number", func(_ context.Context, t *waggle.Task, in int) error { return t.SetResult(in + 1) }, nil)
			w.HandleFunc("big", func(_ context.Context, t *waggle.Task) error { return t.SetResult(make([]byte, 64<<10+1)) }, nil)
		})
		if got, err := waggle.Result[[]byte](e.wait(e.enqueue("raw", []byte{0, 255}, nil))); err != nil || !slices.Equal(got, []byte{0, 255}) {
			t.Errorf("raw: %v, %v", got, err)
		}
		if got, err := waggle.Result[int](e.wait(e.enqueue("number", 41, nil))); err != nil || got != 42 {
			t.Errorf("number: %v, %v", got, err)
		}
		once := &waggle.EnqueueOptions{MaxAttempts: 1}
		for typ, payload := range map[string]any{"number": "no number", "big": nil} {
			info := e.wait(e.enqueue(typ, payload, once))
			if info.State != waggle.Discarded || info.LastError() == "" {
				t.Errorf("%s: %s %q", typ, info.State, info.LastError())
			}
		}
		if _, err := waggle.Result[int](e.wait(e.enqueue("raw", []byte("x"), nil))); !errors.Is(err, waggle.ErrInvalid) {
			t.Errorf("raw bytes read as a number: %v", err)
		}
		r.stop()
	})
}
