package sqlitestore

import (
	"testing"
	"time"

	"github.com/waggleq/waggle/driver"
)

// A Fetch that waits in vain writes nothing, in whatever a queue holds that is not its business; one that has something to
// do does it.
func TestAnIdleFetchWritesNothing(t *testing.T) {
	t.Parallel()
	s, err := Open(t.Context(), t.TempDir()+"/q.db", nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(s.Register(t.Context(), driver.WorkerInfo{ID: "w"}, time.Minute))
	fetch := func(wait time.Duration) *driver.FetchResult {
		t.Helper()
		res, err := s.Fetch(t.Context(), driver.FetchRequest{Worker: "w", Lease: time.Minute, Queues: []string{"q", "none"}, Types: []string{"t"}, Max: 1, Wait: wait})
		must(err)
		return res
	}
	add := func(task *driver.Task, o driver.EnqueueOptions) {
		t.Helper()
		_, err := s.Enqueue(t.Context(), []*driver.Task{task}, o)
		must(err)
	}
	add(&driver.Task{ID: "done", Type: "t", Queue: "q"}, driver.EnqueueOptions{})
	c := fetch(0).Claims[0]
	_, err = s.Settle(t.Context(), "w", []driver.Settlement{{ID: c.ID, Token: c.Token, Outcome: driver.Complete}})
	must(err)
	add(&driver.Task{ID: "foreign", Type: "other", Queue: "q"}, driver.EnqueueOptions{})
	fetch(0) // looks up when the oldest of the ended tasks ended
	token := func() (n int64) {
		got := make(chan int64)
		s.queue.call(func(w *writer) { got <- w.st.nextToken })
		return <-got
	}
	before := token()
	if res := fetch(time.Millisecond); !res.LeaseEnd.IsZero() || res.Waited < time.Millisecond || res.Now.IsZero() || !res.NextDue.IsZero() || token() != before {
		t.Errorf("got %+v, and the next token went from %d to %d, want nothing written", res, before, token())
	}
	add(&driver.Task{ID: "expires", Type: "t", Queue: "q", ExpiresAt: time.Now().Add(time.Minute)}, driver.EnqueueOptions{})
	if res := fetch(time.Millisecond); len(res.Claims) != 1 || res.LeaseEnd.IsZero() {
		t.Errorf("got %+v, want the task", res)
	}
}
