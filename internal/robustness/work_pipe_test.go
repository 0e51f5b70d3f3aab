package robustness

import (
	"context"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/waggleq/waggle"
	"github.com/waggleq/waggle/driver"
)

// workProcess is a `waggle work` that runs shell scripts: the payload of its tasks.
type workProcess struct {
	t    testing.TB
	cmd  *exec.Cmd
	done chan struct{} // closed when it has been reaped
}

// startWork starts a worker process whose standard output and error are out; nil: nowhere.
func (s *site) startWork(path string, out *os.File, flags ...string) *workProcess {
	s.Helper()
	args := slices.Concat([]string{"work", "--store", s.url, "--lease", lease.String()}, flags, []string{"--", "sh", "-c", `eval "$1"`, "sh", "{}"})
	w := &workProcess{t: s, cmd: exec.Command(path, args...), done: make(chan struct{})}
	if out != nil {
		w.cmd.Stdout, w.cmd.Stderr = out, out
	}
	must(s, w.cmd.Start())
	go func() {
		_ = w.cmd.Wait() // how it ended is in ProcessState
		close(w.done)
	}()
	s.Cleanup(func() {
		_ = w.cmd.Process.Kill() // it has ended if all went well
		<-w.done
	})
	return w
}

func (w *workProcess) signal(s syscall.Signal) {
	w.t.Helper()
	must(w.t, w.cmd.Process.Signal(s))
}

// end waits for the end of the process.
func (w *workProcess) end() {
	w.t.Helper()
	select {
	case <-w.done:
	case <-time.After(patience):
		w.t.Fatal("the worker does not end")
	}
}

// signalUntilEnd signals the process again and again: two signals of a kind that wait together are one.
func (w *workProcess) signalUntilEnd(s syscall.Signal) {
	w.t.Helper()
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for deadline := time.After(patience); ; {
		_ = w.cmd.Process.Signal(s) // it may have ended
		select {
		case <-w.done:
			return
		case <-ticker.C:
		case <-deadline:
			w.t.Fatal("the worker does not end")
		}
	}
}

// script enqueues a shell script.
func (s *site) script(text string, opts *waggle.EnqueueOptions) string {
	s.Helper()
	r, err := s.client.Enqueue(s.Context(), "script", text, opts)
	must(s, err)
	return r.ID
}

func (s *site) awaitState(id string, want driver.State) {
	s.Helper()
	s.eventually(id+" to be "+string(want), func(ctx context.Context) bool {
		info, err := s.client.Get(ctx, id)
		must(s, err)
		return info.State == want
	})
}

// brokenPipe returns the writing end of a pipe that takes no more lines.
func brokenPipe(t testing.TB, how string) *os.File {
	t.Helper()
	from, to, err := os.Pipe()
	must(t, err)
	t.Cleanup(func() { _ = to.Close() })
	switch how {
	case "closed":
		must(t, from.Close())
		return to
	case "full":
		fillPipe(t, from, to)
		must(t, to.SetWriteDeadline(time.Now().Add(50*time.Millisecond)))
		for filler := make([]byte, 512); err == nil; {
			_, err = to.Write(filler)
		}
	case "fills up":
		fillPipe(t, from, to)
	}
	t.Cleanup(func() { _ = from.Close() })
	return to
}

// TestWorkNobodyReads has nobody read what `waggle work` prints: a pipe that is full from the start, that fills up, and
// one whose reader is gone. Timeouts, cancellations, settlements, the drain and both signals work as ever.
func TestWorkNobodyReads(t *testing.T) {
	t.Parallel()
	path := buildVersion(t, "this", moduleRoot, nil).path
	for _, how := range []string{"full", "fills up", "closed"} {
		for _, flags := range [][]string{nil, {"-q"}, {"-v"}} {
			t.Run(how+" "+slices.Concat(flags, []string{""})[0], func(t *testing.T) {
				t.Parallel()
				s := newSite(t, engines["sqlite"])
				w := s.startWork(path, brokenPipe(t, how), append(flags, "--drain", "1s", "--grace", "1s", "--concurrency", "3")...)
				talks := s.script("i=0; while [ $i -lt 2000 ]; do i=$((i+1)); echo line $i of many >&2; done; exit 1", &waggle.EnqueueOptions{MaxAttempts: 1})
				late := s.script("exec sleep 600", &waggle.EnqueueOptions{MaxAttempts: 1, Timeout: time.Second})
				off := s.script("exec sleep 600", nil)
				s.awaitState(talks, driver.Discarded)
				s.awaitState(late, driver.Discarded)
				s.awaitState(off, driver.Active)
				must(t, s.client.Cancel(t.Context(), off))
				s.awaitState(off, driver.Cancelled)
				held := s.script("exec sleep 600", nil)
				s.awaitState(held, driver.Active)
				w.signal(syscall.SIGTERM)
				w.end()
				if info, err := s.client.Get(t.Context(), held); err != nil || info.State != driver.Available || info.Attempt != 0 || info.Crashes != 0 {
					t.Errorf("what was stopped is %s, attempt %d, %d crashes (%v)", info.State, info.Attempt, info.Crashes, err)
				}
			})
		}
		t.Run(how+", idle", func(t *testing.T) {
			t.Parallel()
			s := newSite(t, engines["sqlite"])
			w := s.startWork(path, brokenPipe(t, how), "-q")
			s.awaitState(s.script("true", nil), driver.Completed)
			w.signal(syscall.SIGTERM)
			w.end()
		})
		t.Run(how+", signalled twice", func(t *testing.T) {
			t.Parallel()
			s := newSite(t, engines["sqlite"])
			w := s.startWork(path, brokenPipe(t, how), "--drain", "1h", "--grace", "1h")
			held := s.script("trap '' TERM; while :; do sleep 1; done", nil)
			s.awaitState(held, driver.Active)
			w.signalUntilEnd(syscall.SIGTERM)
		})
	}
}
