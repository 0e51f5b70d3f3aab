package robustness

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience is how long a test waits for what is to happen. Nothing takes that long unless something is wrong.
const patience = 60 * time.Second

// child is the parent's side of a process.
type child struct {
	t      testing.TB
	role   role
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	stdout *os.File      // the reading end; nil unless the role logs to standard output
	stderr string        // file
	grace  time.Duration // what it gets to end by itself when the test is over

	mu     sync.Mutex
	lines  []line
	news   chan struct{} // closed and replaced with each line
	closed bool          // no more lines will come
	done   chan struct{} // closed when the process has been reaped
}

// start starts a child. It is killed and reaped at the end of the test if it has not ended.
func start(t testing.TB, dir string, r role) *child {
	t.Helper()
	c := &child{t: t, role: r, news: make(chan struct{}), done: make(chan struct{})}
	c.stderr = filepath.Join(dir, r.Name+".stderr")
	text, err := json.Marshal(r)
	must(t, err)
	lines, childLines, err := os.Pipe()
	must(t, err)
	errFile, err := os.OpenFile(c.stderr, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	must(t, err)
	c.cmd = exec.Command(os.Args[0])
	c.cmd.Env = append(os.Environ(), childEnv+"="+string(text), "GOTRACEBACK=all")
	c.cmd.Stderr, c.cmd.ExtraFiles = errFile, []*os.File{childLines}
	c.stdin, err = c.cmd.StdinPipe()
	must(t, err)
	var childOut *os.File
	if r.LogStdout {
		c.stdout, childOut, err = os.Pipe()
		must(t, err)
		fillPipe(t, c.stdout, childOut)
		c.cmd.Stdout = childOut
	}
	must(t, c.cmd.Start())
	for _, f := range []*os.File{childLines, errFile, childOut} {
		if f != nil {
			_ = f.Close() // the child has its own
		}
	}
	go c.follow(lines)
	t.Cleanup(c.clean)
	return c
}

// fillPipe leaves room for a few lines in a pipe.
func fillPipe(t testing.TB, from, to *os.File) {
	t.Helper()
	must(t, to.SetWriteDeadline(time.Now().Add(50*time.Millisecond)))
	for filler := make([]byte, 512); ; {
		if _, err := to.Write(filler); err != nil {
			break // it is full
		}
	}
	_, err := io.ReadFull(from, make([]byte, 4096))
	must(t, err)
}

// follow takes in the child's lines, then reaps it.
func (c *child) follow(lines *os.File) {
	in := json.NewDecoder(bufio.NewReader(lines))
	for {
		var l line
		if in.Decode(&l) != nil {
			break // the process has ended, perhaps in the middle of a line
		}
		c.mu.Lock()
		c.lines = append(c.lines, l)
		close(c.news)
		c.news = make(chan struct{})
		c.mu.Unlock()
	}
	_ = lines.Close()
	_ = c.cmd.Wait() // how it ended is in ProcessState
	c.mu.Lock()
	c.closed = true
	close(c.news)
	c.news = make(chan struct{})
	c.mu.Unlock()
	close(c.done)
}

// clean ends what is left of the child, and shows what it said if the test has failed.
func (c *child) clean() {
	select {
	case <-c.done:
	case <-time.After(c.grace):
		c.kill()
		<-c.done
	}
	if c.stdout != nil {
		_ = c.stdout.Close()
	}
	text, _ := os.ReadFile(c.stderr) // no file: nothing to show
	if strings.Contains(string(text), "WARNING: DATA RACE") && c.role.Name != mapRacer {
		c.t.Errorf("%s has a data race:\n%s", c.role.Name, text)
	} else if c.t.Failed() && !(c.role.Quiet && (c.wasKilled() || c.cmd.ProcessState.Success())) {
		c.t.Logf("%s (pid %d, %v) said:\n%s", c.role.Name, c.cmd.Process.Pid, c.cmd.ProcessState, tail(string(text), 3000))
	}
}

// mapRacer is the name of a child that races on purpose.
const mapRacer = "map-racer"

func tail(s string, n int) string { return s[max(0, len(s)-n):] }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// await returns the first line that fits, and fails the test if none comes.
func (c *child) await(what string, fits func(line) bool) line {
	c.t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	for seen := 0; ; {
		c.mu.Lock()
		lines, news, closed := c.lines[seen:], c.news, c.closed
		c.mu.Unlock()
		for _, l := range lines {
			if fits(l) {
				return l
			}
		}
		seen += len(lines)
		if closed {
			c.t.Fatalf("%s has ended (%v), waited for %s", c.role.Name, c.cmd.ProcessState, what)
		}
		select {
		case <-news:
		case <-deadline.C:
			c.t.Fatalf("%s: waited in vain for %s", c.role.Name, what)
		}
	}
}

// awaitKind waits for a line of a kind about a task; "" is any.
func (c *child) awaitKind(kind, task string) line {
	c.t.Helper()
	return c.await(kind+" "+task, func(l line) bool { return l.Kind == kind && (task == "" || l.Task == task) })
}

// count returns how many lines fit so far.
func (c *child) count(fits func(line) bool) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := 0
	for _, l := range c.lines {
		if fits(l) {
			n++
		}
	}
	return n
}

// isReady reports whether the child has opened its store.
func (c *child) isReady() bool { return c.count(func(l line) bool { return l.Kind == lineReady }) > 0 }

// tell opens a gate in the child.
func (c *child) tell(gate string) {
	c.t.Helper()
	if _, err := fmt.Fprintln(c.stdin, gate); err != nil {
		c.t.Errorf("%s: tell %q: %v", c.role.Name, gate, err)
	}
}

// signal sends a signal to this process and no other.
func (c *child) signal(s syscall.Signal) {
	select {
	case <-c.done:
	default:
		_ = c.cmd.Process.Signal(s) // fails only if it has just ended
	}
}

func (c *child) kill()   { c.signal(syscall.SIGKILL) }
func (c *child) freeze() { c.signal(syscall.SIGSTOP) }
func (c *child) thaw()   { c.signal(syscall.SIGCONT) }
func (c *child) stop()   { c.signal(syscall.SIGTERM) }

// ended reports whether the process is gone.
func (c *child) ended() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// wait waits for the end of the process.
func (c *child) wait() *os.ProcessState {
	c.t.Helper()
	select {
	case <-c.done:
	case <-time.After(patience):
		c.showGoroutines()
		c.t.Fatalf("%s does not end", c.role.Name)
	}
	return c.cmd.ProcessState
}

// showGoroutines has the process say what it is at, and end.
func (c *child) showGoroutines() {
	c.grace = 5 * time.Second
	c.signal(syscall.SIGQUIT)
}

// waitKilled waits for the death of a process that is to be killed.
func (c *child) waitKilled() {
	c.t.Helper()
	c.wait()
	if !c.wasKilled() {
		c.t.Errorf("%s ended with %v, want it killed", c.role.Name, c.cmd.ProcessState)
	}
}

// wasKilled reports whether the process, which has ended, was killed.
func (c *child) wasKilled() bool {
	ws, ok := c.cmd.ProcessState.Sys().(syscall.WaitStatus)
	return ok && ws.Signaled() && ws.Signal() == syscall.SIGKILL
}

// waitOK waits for the end of a process that is to end in order.
func (c *child) waitOK() {
	c.t.Helper()
	if s := c.wait(); !s.Success() {
		c.t.Errorf("%s ended with %v, want success", c.role.Name, s)
	}
}
