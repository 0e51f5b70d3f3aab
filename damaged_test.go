package waggle_test

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/waggleq/waggle"
	"github.com/waggleq/waggle/driver"
)

// spoiltQueue is a store in which what is stored of one queue is damaged. Every other fetch does not look at it.
type spoiltQueue struct {
	driver.Store
	fetches atomic.Int64
}

func (s *spoiltQueue) Fetch(ctx context.Context, req driver.FetchRequest) (*driver.FetchResult, error) {
	res, err := s.Store.Fetch(ctx, req)
	if err == nil && s.fetches.Add(1)%2 == 1 {
		res.Damaged = driver.Errorf(driver.ErrCorrupt, "queue %q is damaged", "bad")
	}
	return res, err
}

// A worker that serves a damaged queue beside others says so, once, and goes on with the others.
func TestADamagedQueueIsToldOnce(t *testing.T) {
	t.Parallel()
	store, client := memoryStore(t)
	var log bytes.Buffer
	w, err := waggle.NewWorker(&spoiltQueue{Store: store}, &waggle.WorkerOptions{UntilEmpty: true, Slots: 1, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	waggle.Handle(w, "t", func(context.Context, *waggle.Task, any) error { return nil }, nil)
	for range 20 {
		if _, err := client.Enqueue(t.Context(), "t", nil, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(log.String(), `queue \"bad\" is damaged`); n != 1 {
		t.Errorf("told %d times:\n%s", n, log.String())
	}
	if st := w.Stats(); st.Completed != 20 {
		t.Errorf("%d tasks completed, want 20", st.Completed)
	}
}
