package waggle_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/waggleq/waggle"
)

// TestPayloadIsStoredAsWritten: what has angle brackets takes the room that it has, as payload and as result.
func TestPayloadIsStoredAsWritten(t *testing.T) {
	bubble(t, func(t *testing.T, e *env) {
		page := strings.Repeat("<b>&amp;</b>", 5000)
		r := e.work(nil, func(w *waggle.Worker) {
			waggle.Handle(w, "page", func(_ context.Context, task *waggle.Task, in string) error { return task.SetResult(in) }, nil)
		})
		receipt, err := e.client.Enqueue(t.Context(), "page", page, nil)
		if err != nil {
			t.Fatal(err)
		}
		info, err := e.client.Wait(t.Context(), receipt.ID)
		if err != nil {
			t.Fatal(err)
		}
		if want := `"` + page + `"`; string(info.Payload.Bytes) != want || string(info.Result.Bytes) != want {
			t.Errorf("stored are %d bytes of payload and %d of result, want the %d that were written", len(info.Payload.Bytes), len(info.Result.Bytes), len(want))
		}
		r.stop()
	})
}

// TestUniquePayloadByValue: the same JSON value is the same payload however it is written.
func TestUniquePayloadByValue(t *testing.T) {
	bubble(t, func(t *testing.T, e *env) {
		type args struct {
			B string `json:"b"`
			A float64
		}
		unique := &waggle.EnqueueOptions{Unique: &waggle.UniqueOptions{}}
		first, err := e.client.Enqueue(t.Context(), "sync", args{"<x>", 1500}, unique)
		if err != nil {
			t.Fatal(err)
		}
		for same, want := range map[string]bool{
			`{"b":"<x>","A":1500}`:                    true,
			` {"A" : 1.50e3, "b" : "\u003cx\u003e" }`: true,
			`{"A":15000e-1,"b":"<x>"}`:                true,
			`{"A":1501,"b":"<x>"}`:                    false,
			`{"A":1500.0000000000000001,"b":"<x>"}`:   false,
			`{"A":-1500,"b":"<x>"}`:                   false,
			`{"A":"1500","b":"<x>"}`:                  false,
		} {
			r, err := e.client.Enqueue(t.Context(), "sync", json.RawMessage(same), unique)
			if err != nil || (r.ID == first.ID) != want {
				t.Errorf("%s: the same %v, %v; want %v", same, r.ID == first.ID, err, want)
			}
		}
	})
}

// TestDiffers: an id that is known for another task is not taken for the same.
func TestDiffers(t *testing.T) {
	bubble(t, func(t *testing.T, e *env) {
		opts := waggle.EnqueueOptions{ID: "invoice-1"}
		if _, err := e.client.Enqueue(t.Context(), "invoice", map[string]int{"n": 1}, &opts); err != nil {
			t.Fatal(err)
		}
		elsewhere := opts
		elsewhere.Queue = "other"
		for _, c := range []struct {
			task waggle.NewTask
			want []string
		}{
			{waggle.NewTask{Type: "invoice", Payload: json.RawMessage(`{"n": 1.0}`), Options: &opts}, nil},
			{waggle.NewTask{Type: "invoice", Payload: json.RawMessage(`{"n":2}`), Options: &opts}, []string{"payload"}},
			{waggle.NewTask{Type: "bill", Payload: []byte{1}, Options: &elsewhere}, []string{"type", "queue", "payload"}},
		} {
			single, err := e.client.Enqueue(t.Context(), c.task.Type, c.task.Payload, c.task.Options)
			if err != nil || !single.Existing || !cmp.Equal(single.Differs, c.want) {
				t.Errorf("%+v, %v; want it to differ in %v", single, err, c.want)
			}
			batch, err := e.client.EnqueueBatch(t.Context(), []waggle.NewTask{{Type: "noop"}, c.task})
			if err != nil || batch[0].Differs != nil || !cmp.Equal(batch[1].Differs, c.want) {
				t.Errorf("in a batch: %+v, %v; want it to differ in %v", batch, err, c.want)
			}
			strict := *c.task.Options
			strict.RejectDiffering = true
			_, err = e.client.Enqueue(t.Context(), c.task.Type, c.task.Payload, &strict)
			if errors.Is(err, waggle.ErrDuplicate) != (c.want != nil) {
				t.Errorf("refused with %v; want a refusal: %v", err, c.want != nil)
			}
		}
	})
}

// TestRefusedTaskHasItsID, and all that is wrong with it.
func TestRefusedTaskHasItsID(t *testing.T) {
	bubble(t, func(t *testing.T, e *env) {
		for name, payload := range map[string]any{"too large": strings.Repeat("x", 2<<20), "no JSON": func() {}} {
			opts := &waggle.EnqueueOptions{Queue: "no queue", Priority: 1000, MaxAttempts: -1}
			r, err := e.client.Enqueue(t.Context(), "not a type", payload, opts)
			if r.ID == "" || !errors.Is(err, waggle.ErrInvalid) {
				t.Errorf("%s: %+v, %v", name, r, err)
			}
			for _, part := range []string{"payload", "task type", "queue", "priority", "max attempts"} {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%s: %v; want it to tell of the %s", name, err, part)
				}
			}
			batch, err := e.client.EnqueueBatch(t.Context(), []waggle.NewTask{{Type: "a", Payload: payload}})
			if err != nil || batch[0].ID == "" || !errors.Is(batch[0].Err, waggle.ErrInvalid) {
				t.Errorf("%s in a batch: %+v, %v", name, batch, err)
			}
		}
		_, err := e.client.Enqueue(t.Context(), "not a type", nil, &waggle.EnqueueOptions{Priority: 1000})
		if err == nil || !strings.Contains(err.Error(), "task type") || !strings.Contains(err.Error(), "priority") {
			t.Errorf("%v; want all that is wrong", err)
		}
	})
}
