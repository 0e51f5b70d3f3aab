package robustness

import (
	"context"
	"io"
	"testing"
	"time"

	"github.com/waggleq/waggle"
	"github.com/waggleq/waggle/driver"
)

// TestLogPipeBlocked has nobody read what a worker logs, until it can write no more: its slots fill up with handlers
// that wait to log how they ended, and it claims no more. Other workers do the rest. When the pipe is read again it goes
// on; when the reader goes away the worker dies of it. What it held meanwhile it holds on to, or loses with its lease.
func TestLogPipeBlocked(t *testing.T) {
	ends := map[string]func(*testing.T, *child){
		"read again": func(t *testing.T, c *child) {
			go func() { _, _ = io.Copy(io.Discard, c.stdout) }() // until the child has ended
		},
		"closed": func(t *testing.T, c *child) {
			must(t, c.stdout.Close())
			if state := c.wait(); state.Success() {
				t.Errorf("the worker ended with %v", state)
			}
		},
	}
	onEachEngine(t, func(t *testing.T, e engine) {
		for name, end := range ends {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				s := newSite(t, e)
				ids := s.enqueueFailing(300)
				victim := s.worker(role{Name: "victim", LogStdout: true})
				victim.awaitEnded(15) // about as many as the pipe takes
				rescuer := s.worker(role{Name: "rescuer"})
				held := s.awaitRestHeldBy("victim")
				s.sleepLeases(2)
				if now := s.heldBy("victim"); len(now) > held {
					t.Errorf("the blocked worker held %d tasks and holds %d now", held, len(now))
				}
				end(t, victim)
				for _, r := range s.awaitEnd(ids...) {
					if r.State != driver.Discarded || r.Reason != driver.ReasonAttempts || r.Attempt != 1 {
						t.Errorf("%s is %s (%s) after attempt %d, want it discarded after its one", r.ID, r.State, r.Reason, r.Attempt)
					}
				}
				s.endInOrder(rescuer)
				if !victim.ended() {
					s.endInOrder(victim)
				}
			})
		}
	})
}

// enqueueFailing stores tasks that fail once and for all.
func (s *site) enqueueFailing(n int) []string {
	s.Helper()
	tasks := make([]waggle.NewTask, n)
	for i := range tasks {
		tasks[i] = waggle.NewTask{Type: taskType, Payload: act{Do: doFail}, Options: &waggle.EnqueueOptions{MaxAttempts: 1}}
	}
	results, err := s.client.EnqueueBatch(s.Context(), tasks)
	must(s, err)
	ids := make([]string, n)
	for i, r := range results {
		must(s, r.Err)
		ids[i] = r.ID
	}
	return ids
}

// awaitEnded waits until a worker has ended n handlers.
func (c *child) awaitEnded(n int) {
	c.t.Helper()
	c.await("handlers to end", func(l line) bool {
		if l.Kind == lineEnded {
			n--
		}
		return n == 0
	})
}

// awaitRestHeldBy waits until all that has not ended is in the hands of one worker, and returns how many that are.
func (s *site) awaitRestHeldBy(name string) int {
	s.Helper()
	held := -1
	s.eventually("all but what "+name+" holds to end", func(ctx context.Context) bool {
		q, err := s.client.Queue(ctx, waggle.DefaultQueue)
		must(s, err)
		n := len(s.heldBy(name))
		live := 0
		for state, count := range q.Counts {
			if !state.Ended() {
				live += count
			}
		}
		still := n == held && n == live
		held = n
		return still
	})
	s.Logf("%s is blocked and holds %d tasks", name, held)
	return held
}

// eventually asks again and again until the answer is yes.
func (s *site) eventually(what string, ask func(context.Context) bool) {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.Context(), patience)
	defer cancel()
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for !ask(ctx) {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			s.Fatalf("waited in vain for %s", what)
		}
	}
}
