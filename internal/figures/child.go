package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/waggleq/waggle/internal/cli"
)

// By these variables this program, started by itself, knows what to do.
const (
	roleVariable = "FIGURES_ROLE"
	jobVariable  = "FIGURES_JOB"
)

// The roles of child processes.
const (
	roleWindow = "window" // runs some of a store's tasks against the clock
	roleWorker = "worker" // tells of every task it starts
	roleWaggle = "waggle" // is the waggle command
)

// job is what a child is to do.
type job struct {
	Store  string        `json:"store"`  // a URL, or the path of a file
	Warm   int           `json:"warm"`   // window: tasks before the clock starts
	Count  int           `json:"count"`  // window: tasks on the clock; 0: all there are
	Queues int           `json:"queues"` // window: how many to serve; fewer than two: the default queue
	Lease  time.Duration `json:"lease"`  // worker; 0: the default
	Hang   bool          `json:"hang"`   // worker: its handlers never return
}

// event is a line of a child's output.
type event struct {
	At      time.Time `json:"at"` // when the handler started
	Number  int       `json:"number"`
	Crashes int       `json:"crashes"`
	PerS    float64   `json:"per_s"`
	Handled int       `json:"handled"`
	PeakMiB float64   `json:"peak_mib"`
}

// runRole is main of a child process. It ends with its parent at the latest, whose end of the pipe is closed then.
func runRole(role string) int {
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // ends however the pipe does
		os.Exit(1)
	}()
	if role == roleWaggle {
		return cli.Main(os.Args[1:])
	}
	var j job
	err := json.Unmarshal([]byte(os.Getenv(jobVariable)), &j)
	switch {
	case err != nil:
	case role == roleWindow:
		err = runWindow(context.Background(), &j)
	case role == roleWorker:
		err = runWorker(context.Background(), &j)
	default:
		err = fmt.Errorf("there is no role %q", role)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "figures: %s: %v\n", role, err)
		return 1
	}
	return 0
}

// tell writes an event to the parent.
func tell(e event) error { return json.NewEncoder(os.Stdout).Encode(e) }

// child is a child process.
type child struct {
	cmd    *exec.Cmd
	stdin  io.Closer
	events chan event // closed at the end of its output
	errors bytes.Buffer
}

// startChild starts a process in a role; args are for the waggle command.
func startChild(role string, j job, args ...string) (*child, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(j)
	if err != nil {
		return nil, err
	}
	c := &child{cmd: exec.Command(self, args...), events: make(chan event, 16)}
	c.cmd.Env = append(os.Environ(), roleVariable+"="+role, jobVariable+"="+string(text))
	c.cmd.Stderr = &c.errors
	if c.stdin, err = c.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := c.cmd.Start(); err != nil {
		return nil, err
	}
	go c.read(out)
	return c, nil
}

func (c *child) read(out io.Reader) {
	defer close(c.events)
	for lines := bufio.NewScanner(out); lines.Scan(); {
		var e event
		if json.Unmarshal(lines.Bytes(), &e) == nil { // what else it says is not for us
			c.events <- e
		}
	}
}

// next returns the child's next event.
func (c *child) next(ctx context.Context, limit time.Duration) (event, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("a child process said nothing for %v", limit))
	defer cancel()
	select {
	case e, open := <-c.events:
		if !open {
			return e, errors.New("a child process ended early")
		}
		return e, nil
	case <-ctx.Done():
		return event{}, context.Cause(ctx)
	}
}

// wait waits until the child has ended by itself.
func (c *child) wait() error {
	for range c.events {
	}
	if err := c.cmd.Wait(); err != nil {
		return fmt.Errorf("a child process: %w: %s", err, strings.TrimSpace(c.errors.String()))
	}
	return nil
}

// kill ends the child with SIGKILL, if it has not ended, and waits until it is gone.
func (c *child) kill() {
	_ = c.cmd.Process.Kill() // fails only if it has ended
	for range c.events {
	}
	_ = c.cmd.Wait() // it was killed
}
