package waggle_test

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/waggleq/waggle"
)

// TestBeyondRetention: what is counted before a change of retention is what goes after it.
func TestBeyondRetention(t *testing.T) {
	bubble(t, func(t *testing.T, e *env) {
		r := e.work(nil, func(w *waggle.Worker) {
			w.HandleFunc("done", func(context.Context, *waggle.Task) error { return nil }, nil)
			w.HandleFunc("dead", func(context.Context, *waggle.Task) error { return waggle.Discard(errBoom) }, nil)
		})
		for i := range 10 {
			e.wait(e.enqueue("done", nil, &waggle.EnqueueOptions{ID: fmt.Sprint("done-", i)}))
			e.wait(e.enqueue("dead", nil, &waggle.EnqueueOptions{ID: fmt.Sprint("dead-", i)}))
			time.Sleep(time.Minute)
		}
		r.stop()
		for _, c := range []struct {
			patch waggle.Retention
			want  map[waggle.State]int
		}{
			{waggle.Retention{}, map[waggle.State]int{}},
			{waggle.Retention{Completed: waggle.Keep{Age: 30 * time.Minute}}, map[waggle.State]int{}},
			{waggle.Retention{Completed: waggle.Keep{Age: 7*time.Minute + time.Second}}, map[waggle.State]int{waggle.Completed: 3}},
			{waggle.Retention{Completed: waggle.Keep{Count: 5}}, map[waggle.State]int{waggle.Completed: 2}},
			{waggle.Retention{Discarded: waggle.KeepNone}, map[waggle.State]int{waggle.Discarded: 10}},
		} {
			before, err := e.client.Queue(t.Context(), waggle.DefaultQueue)
			if err != nil {
				t.Fatal(err)
			}
			gone, err := e.client.BeyondRetention(t.Context(), waggle.DefaultQueue, c.patch)
			if diff := cmp.Diff(c.want, gone); err != nil || diff != "" {
				t.Errorf("%+v: %v, want -, got +: %s", c.patch, err, diff)
			}
			if err := e.client.SetRetention(t.Context(), waggle.DefaultQueue, c.patch); err != nil {
				t.Fatal(err)
			}
			if _, err := e.mem.Maintain(t.Context(), 0); err != nil {
				t.Fatal(err)
			}
			after, err := e.client.Queue(t.Context(), waggle.DefaultQueue)
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range []waggle.State{waggle.Completed, waggle.Discarded} {
				if went := before.Counts[s] - after.Counts[s]; went != gone[s] {
					t.Errorf("%+v: %d %s went, %d were counted", c.patch, went, s, gone[s])
				}
			}
		}
	})
}

// TestRetentionAsJSON: settings that an earlier version stored, where 0 was none, mean what they meant, and what is not set
// of a patch is not set in its JSON either.
func TestRetentionAsJSON(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]waggle.Keep{
		`{"age":3600000000000,"count":10000,"bytes":-1}`: {Age: time.Hour, Count: 10_000, Bytes: -1},
		`{"age":0,"count":0,"bytes":0}`:                  waggle.KeepNone,
		`{"age":3600000000000,"count":0,"bytes":-1}`:     waggle.KeepNone,
		`{"none":true}`:         waggle.KeepNone,
		`{"age":3600000000000}`: {Age: time.Hour},
		`{}`:                    {},
	} {
		var k waggle.Keep
		if err := json.Unmarshal([]byte(text), &k); err != nil || k != want {
			t.Errorf("%s is read as %+v, %v; want %+v", text, k, err, want)
		}
		again, err := json.Marshal(want)
		if err != nil || json.Unmarshal(again, &k) != nil || k != want {
			t.Errorf("%+v comes back from %s as %+v, %v", want, again, k, err)
		}
	}
}
