package browser

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const startMost = 60 * time.Second

// program is the chat, built once for all tests.
var program string

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "waggle-chat-browser-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	program = filepath.Join(dir, "chat")
	build := exec.Command("go", "build", "-o", program, "./examples/chat")
	build.Dir = filepath.Join("..", "..", "..")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "build the chat:", err)
		return 1
	}
	return m.Run()
}

// chat is a running one.
type chat struct {
	cmd  *exec.Cmd
	at   map[string]string // the address of each web server
	out  output
	done chan error
}

// output keeps what the program complains about.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// startChat starts the program and waits until it prints its addresses.
func startChat(t *testing.T, args ...string) *chat {
	t.Helper()
	c := &chat{cmd: exec.Command(program, args...), at: map[string]string{}, done: make(chan error, 1)}
	c.cmd.Stderr = &c.out
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	stdout, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.end(t) })
	ready := make(chan struct{})
	go func() {
		lines := bufio.NewScanner(stdout)
		for lines.Scan() {
			name, at, _ := strings.Cut(strings.TrimSpace(lines.Text()), "  ")
			if strings.HasPrefix(at, "http://") {
				if c.at[name] = at; len(c.at) == 2 {
					close(ready)
				}
			}
		}
		_, _ = io.Copy(io.Discard, stdout)
		c.done <- c.cmd.Wait()
	}()
	select {
	case <-ready:
	case err := <-c.done:
		c.done <- err
		t.Fatalf("the chat ended: %v\n%s", err, &c.out)
	case <-time.After(startMost):
		t.Fatalf("the chat was not ready after %v\n%s", startMost, &c.out)
	}
	return c
}

// end stops the program as Ctrl-C does.
func (c *chat) end(t *testing.T) {
	_ = c.cmd.Process.Signal(os.Interrupt) // or it has ended
	select {
	case err := <-c.done:
		if err != nil {
			t.Errorf("the chat ended with %v\n%s", err, &c.out)
		}
	case <-time.After(startMost):
		t.Errorf("the chat did not end within %v", startMost)
		_ = c.cmd.Process.Kill()
	}
	if t.Failed() {
		t.Logf("what the chat complained about:\n%s", &c.out)
	}
}

// do has something done to a node, through a web server that answers and is not that node.
func (c *chat) do(ctx context.Context, node, action string) error {
	var errs []error
	for _, name := range []string{"A2", "A1"} {
		if name == node {
			continue
		}
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, c.at[name]+"/nodes/"+node+"/"+action, nil)
		if err != nil {
			return err
		}
		r.Header.Set("X-Chat-Control", "1")
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		defer answer.Body.Close()
		if answer.StatusCode == http.StatusNoContent {
			return nil
		}
		said, _ := io.ReadAll(answer.Body)
		return fmt.Errorf("%s %s: %s %s", action, node, answer.Status, said)
	}
	return errors.Join(errs...)
}
