package waggle_test

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/waggleq/waggle"
	"github.com/waggleq/waggle/driver"
)

// fixed is a backoff of the same wait each time.
func fixed(d time.Duration) *waggle.Backoff { return &waggle.Backoff{Base: d, Factor: 1, Fixed: true} }

func always(d time.Duration) func(int, error) time.Duration {
	return func(int, error) time.Duration { return d }
}

// retryLevels are the options of a task, its type, the worker and the client.
type retryLevels struct {
	task     int
	typ      waggle.HandleOptions
	worker   waggle.WorkerOptions
	client   waggle.ClientOptions
	producer *waggle.ClientOptions // another client enqueues; nil: the worker's
	verdict  error
}

// TestRetryPrecedence: task, type, worker, client, default.
func TestRetryPrecedence(t *testing.T) {
	for name, tt := range map[string]struct {
		retryLevels
		attempts int
		wait     time.Duration
	}{
		"client":                      {retryLevels{client: waggle.ClientOptions{MaxAttempts: 3, Backoff: fixed(time.Minute)}}, 3, time.Minute},
		"function of the client":      {retryLevels{client: waggle.ClientOptions{MaxAttempts: 3, BackoffFunc: always(time.Minute)}}, 3, time.Minute},
		"worker over client":          {retryLevels{worker: waggle.WorkerOptions{Backoff: fixed(time.Second)}, client: waggle.ClientOptions{MaxAttempts: 3, BackoffFunc: always(time.Minute)}}, 3, time.Second},
		"function of the worker":      {retryLevels{task: 2, worker: waggle.WorkerOptions{Backoff: fixed(time.Second), BackoffFunc: always(time.Hour)}}, 2, time.Hour},
		"type over worker":            {retryLevels{typ: waggle.HandleOptions{MaxAttempts: 4, Backoff: fixed(2 * time.Second)}, worker: waggle.WorkerOptions{BackoffFunc: always(time.Hour)}}, 4, 2 * time.Second},
		"type over client":            {retryLevels{typ: waggle.HandleOptions{MaxAttempts: 4, BackoffFunc: always(2 * time.Second)}, client: waggle.ClientOptions{MaxAttempts: 2, Backoff: fixed(time.Hour)}}, 4, 2 * time.Second},
		"type over default, more":     {retryLevels{typ: waggle.HandleOptions{MaxAttempts: 30, Backoff: fixed(time.Second)}}, 30, time.Second},
		"task over type":              {retryLevels{task: 5, typ: waggle.HandleOptions{MaxAttempts: 2, Backoff: fixed(time.Second)}}, 5, time.Second},
		"task over client":            {retryLevels{task: 5, client: waggle.ClientOptions{MaxAttempts: 2, Backoff: fixed(time.Second)}}, 5, time.Second},
		"what another client has put": {retryLevels{producer: &waggle.ClientOptions{MaxAttempts: 3}, typ: waggle.HandleOptions{MaxAttempts: 2, Backoff: fixed(time.Second)}}, 3, time.Second},
		"verdict over type":           {retryLevels{task: 2, verdict: waggle.RetryAfter(3*time.Second, nil), typ: waggle.HandleOptions{BackoffFunc: always(time.Hour)}}, 2, 3 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, e *env) { checkRetries(t, e, &tt.retryLevels, tt.attempts, tt.wait) })
		})
	}
}

func checkRetries(t *testing.T, e *env, l *retryLevels, attempts int, wait time.Duration) {
	l.client.Logger = slog.New(e.logs)
	client, err := waggle.NewClient(e.store, &l.client)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close(t.Context())
	producer := client
	if l.producer != nil {
		if producer, err = waggle.NewClient(e.store, l.producer); err != nil {
			t.Fatal(err)
		}
		defer producer.Close(t.Context())
	}
	receipt, err := producer.Enqueue(t.Context(), "t", 1, &waggle.EnqueueOptions{MaxAttempts: l.task})
	if err != nil {
		t.Fatal(err)
	}
	var starts []time.Time
	l.worker.Client = client
	r := e.work(&l.worker, func(w *waggle.Worker) {
		w.HandleFunc("t", func(_ context.Context, task *waggle.Task) error {
			starts = append(starts, time.Now())
			if task.MaxAttempts != attempts {
				t.Errorf("the handler reads %d attempts, want %d", task.MaxAttempts, attempts)
			}
			if l.verdict != nil {
				return l.verdict
			}
			return errors.New("oops")
		}, &l.typ)
	})
	time.Sleep(time.Duration(attempts+1) * (wait + time.Second))
	synctest.Wait()
	r.stop()
	info := e.wantState(receipt.ID, waggle.Discarded)
	if len(starts) != attempts || info.Reason != driver.ReasonAttempts {
		t.Errorf("%d attempts, reason %s; want %d", len(starts), info.Reason, attempts)
	}
	for i := 1; i < len(starts); i++ {
		if d := starts[i].Sub(starts[i-1]).Round(10 * time.Millisecond); d < wait || d > wait+time.Second { // stores count milliseconds
			t.Errorf("attempt %d came after %v, want %v", i+1, d, wait)
		}
	}
}

// Bad options are told when they are given.
func TestRetryOptionsAreChecked(t *testing.T) {
	bubble(t, func(t *testing.T, e *env) {
		if _, err := waggle.NewClient(e.store, &waggle.ClientOptions{Backoff: &waggle.Backoff{Base: -1}}); !errors.Is(err, waggle.ErrInvalid) {
			t.Errorf("NewClient = %v", err)
		}
		w, err := waggle.NewWorker(e.store, nil)
		if err != nil {
			t.Fatal(err)
		}
		w.HandleFunc("t", func(context.Context, *waggle.Task) error { return nil }, &waggle.HandleOptions{MaxAttempts: -1})
		if err := w.Run(t.Context()); !errors.Is(err, waggle.ErrInvalid) {
			t.Errorf("Run = %v", err)
		}
	})
}
