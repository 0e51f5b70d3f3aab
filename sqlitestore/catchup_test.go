package sqlitestore

import (
	"testing"
	"time"

	"github.com/waggleq/waggle/driver"
)

// A store follows what another handle on the file does, without loading all queues, and its counters stay right.
func TestCatchUp(t *testing.T) {
	t.Parallel()
	path := t.TempDir() + "/q.db"
	var clock int64 = 1_800_000_000_000
	open := func() *Store {
		s, err := Open(t.Context(), path, &Options{Clock: func() time.Time { return time.UnixMilli(clock) }})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		return s
	}
	a, b := open(), open()
	// look returns the writer's copy of the small tables after a look.
	look := func(s *Store) *state {
		got := make(chan *state)
		s.queue.call(func(w *writer) { w.look(); got <- w.st })
		return <-got
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	add := func(s *Store, queue, id string) {
		t.Helper()
		_, err := s.Enqueue(t.Context(), []*driver.Task{{ID: id, Type: "t", Queue: queue}}, driver.EnqueueOptions{})
		must(err)
	}
	add(a, "still", "1")
	add(b, "busy", "2")
	first := look(a)
	still := first.queues["still"]
	must(b.Register(t.Context(), driver.WorkerInfo{ID: "w"}, time.Minute))
	add(b, "new", "3")
	for range 3 {
		_, err := b.Heartbeat(t.Context(), "w", time.Minute)
		must(err)
		res, err := b.Fetch(t.Context(), driver.FetchRequest{Worker: "w", Lease: time.Minute, Queues: []string{"busy", "busy"}, Max: 1})
		must(err)
		for _, c := range res.Claims {
			_, err := b.Settle(t.Context(), "w", []driver.Settlement{{ID: c.ID, Token: c.Token, Outcome: driver.Complete}})
			must(err)
		}
	}
	now := look(a)
	if now != first || now.queues["still"] != still {
		t.Error("all was loaded anew, though events name what has changed")
	}
	if got := now.queues["busy"].lanes["t"].count; got[completed] != 1 || got[available] != 0 || now.queues["new"].lanes["t"].count[available] != 1 {
		t.Errorf("the counts are %v, want what the other has done", got)
	}
	keep := driver.DefaultRetention()
	keep.Completed.Age = time.Second
	_, err := b.SetQueue(t.Context(), "busy", driver.QueuePatch{Retention: &keep})
	must(err)
	look(a)
	clock += 10_000
	_, err = b.Maintain(t.Context(), 0) // prunes, and no event tells of it
	must(err)
	if got := look(a).queues["busy"].lanes["t"].count; got[completed] != 0 {
		t.Errorf("the counts are %v after the other has pruned", got)
	}
	add(a, "busy", "4")
	findings, err := b.Audit(t.Context(), false)
	must(err)
	if len(findings) > 0 {
		t.Errorf("audit: %+v", findings)
	}
}
