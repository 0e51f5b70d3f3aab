package robustness

import (
	"bufio"
	"context"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/waggleq/waggle"
	"github.com/waggleq/waggle/driver"
)

// TestLogPipeBlocked has nobody read what a worker logs, until the pipe takes no more: the worker goes on with its tasks
// and its lease, and stops when it is told to. When the pipe is read again the lines come, and those that were dropped
// are counted. When the reader goes away the process dies of SIGPIPE, as Go has it for standard output, and others do the
// rest.
func TestLogPipeBlocked(t *testing.T) {
	onEachEngine(t, func(t *testing.T, e engine) {
		for _, end := range []string{"read again", "stopped", "closed"} {
			t.Run(end, func(t *testing.T) {
				t.Parallel()
				s := newSite(t, e)
				victim := s.worker(role{Name: "victim", LogStdout: true})
				s.awaitFailed(s.enqueueFailing(900))
				switch end {
				case "read again":
					lines := bufio.NewReader(victim.stdout)
					for {
						line, err := lines.ReadString('\n')
						must(t, err)
						if strings.Contains(line, "log lines were dropped") {
							break
						}
					}
					go func() { _, _ = io.Copy(io.Discard, lines) }() // until the child has ended
					s.endInOrder(victim)
				case "stopped":
					s.endInOrder(victim)
				case "closed":
					must(t, victim.stdout.Close())
					if state := victim.wait(); state.Success() {
						t.Errorf("the worker ended with %v", state)
					}
					rescuer := s.worker(role{Name: "rescuer"})
					s.awaitFailed(s.enqueueFailing(10))
					s.endInOrder(rescuer)
				}
			})
		}
	})
}

// awaitFailed waits until tasks have failed once and for all.
func (s *site) awaitFailed(ids []string) {
	s.Helper()
	for _, r := range s.awaitEnd(ids...) {
		if r.State != driver.Discarded || r.Reason != driver.ReasonAttempts || r.Attempt != 1 {
			s.Errorf("%s is %s (%s) after attempt %d, want it discarded after its one", r.ID, r.State, r.Reason, r.Attempt)
		}
	}
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
