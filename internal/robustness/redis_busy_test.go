package robustness

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/waggleq/waggle"
	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/internal/redisserver/redistest"
)

// TestBusyHandlersDoNotDelayControl has a thousand handlers of one process enqueue and report progress as fast as they can,
// through the store that their worker uses. Heartbeats and settlements go on beside them: 99 of 100 take less than a sixth
// of the lease, so that neither a lease is lost nor a result is late.
func TestBusyHandlersDoNotDelayControl(t *testing.T) {
	t.Parallel()
	takeTurn(t)
	const handlers, samples, lease = 1000, 200, driver.DefaultLease
	store, err := openStore(t.Context(), redistest.Start(t, nil).URL(), 0)
	must(t, err)
	t.Cleanup(func() { _ = store.Close() })
	client, err := waggle.NewClient(store, nil)
	must(t, err)
	worker, err := waggle.NewWorker(store, &waggle.WorkerOptions{Slots: handlers, Lease: lease})
	must(t, err)
	running, enough := make(chan struct{}, handlers), make(chan struct{})
	payload := strings.Repeat("x", 100)
	waggle.Handle(worker, "busy", func(ctx context.Context, task *waggle.Task, _ int) error {
		running <- struct{}{}
		for {
			select {
			case <-enough:
				return nil
			default:
			}
			if _, err := client.Enqueue(ctx, "side", payload, nil); err != nil {
				return err
			}
			task.Progress(1, 2, "busy")
		}
	}, nil)
	tasks := make([]waggle.NewTask, handlers)
	for i := range tasks {
		tasks[i] = waggle.NewTask{Type: "busy", Payload: i}
	}
	results, err := client.EnqueueBatch(t.Context(), tasks)
	must(t, err)
	ids := make([]string, handlers)
	for i, r := range results {
		must(t, r.Err)
		ids[i] = r.ID
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- worker.Run(ctx) }()
	for range handlers {
		<-running
	}

	var beats, settles []time.Duration
	for range samples {
		began := time.Now()
		_, err := store.Heartbeat(t.Context(), worker.ID(), lease)
		must(t, err)
		beats = append(beats, time.Since(began))
		began = time.Now()
		errs, err := driver.SettleErrors(store.Settle(t.Context(), worker.ID(), []driver.Settlement{{ID: "none", Token: 1, Outcome: driver.Complete}}))
		must(t, err)
		if !errors.Is(errs[0], driver.ErrLeaseLost) {
			t.Fatalf("the settlement of a task that is not there: got %v", errs[0])
		}
		settles = append(settles, time.Since(began))
	}
	close(enough)
	for what, took := range map[string][]time.Duration{"heartbeat": beats, "settlement": settles} {
		slices.Sort(took)
		p99 := took[samples*99/100]
		t.Logf("a %s takes %v, 99 of 100 less than %v", what, took[samples/2].Round(time.Millisecond), p99.Round(time.Millisecond))
		if p99 > lease/6 {
			t.Errorf("99 of 100 %ss take up to %v, want up to %v", what, p99, lease/6)
		}
	}
	awaitCompleted(t, store, ids)
	stop()
	must(t, <-ended)
	must(t, client.Close(t.Context()))
}

// awaitCompleted waits until tasks have been completed, and checks that each was tried once.
func awaitCompleted(t *testing.T, store driver.Store, ids []string) {
	t.Helper()
	for limit := time.Now().Add(patience); ; _ = wait(t.Context(), 20*time.Millisecond) {
		records, err := store.Get(t.Context(), ids)
		must(t, err)
		done := 0
		for i, r := range records {
			if r == nil || r.Attempt != 1 || r.Crashes != 0 {
				t.Fatalf("task %s was tried more than once: %+v", ids[i], r)
			}
			if r.State == driver.Completed {
				done++
			}
		}
		if done == len(ids) {
			return
		}
		if time.Now().After(limit) {
			t.Fatalf("%d of %d tasks are completed", done, len(ids))
		}
	}
}
