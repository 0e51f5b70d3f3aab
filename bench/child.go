package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

// childCommand is the first argument by which this program starts itself as a contestant's process.
const childCommand = "contestant"

// child is a running contestant's process. It is reaped as soon as it ends.
type child struct {
	what   string
	cmd    *exec.Cmd
	events chan event // closed at the end of its output
	done   chan struct{}
	err    error // how it ended; read only after done

	mu   sync.Mutex
	said bytes.Buffer // its other output
}

// startChild starts a process that does j with s.
func startChild(s *spec, j job) (*child, error) {
	j.Contestant = s.name
	arg, err := json.Marshal(j)
	if err != nil {
		return nil, err
	}
	path, args := os.Args[0], []string{childCommand, string(arg)}
	if s.open == nil {
		path, args = "node", []string{filepath.Join("bullmq", "main.js"), string(arg)}
	} else if self, err := os.Executable(); err == nil {
		path = self
	}
	c := &child{what: fmt.Sprintf("%s: %s", s.name, j.Do), cmd: exec.Command(path, args...), events: make(chan event, 16)}
	c.cmd.Stderr = c
	stdout, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	var reading sync.WaitGroup
	reading.Add(1)
	if c.done, err = startTied(c.cmd, reading.Wait, func(err error) { c.err = err }); err != nil {
		return nil, fmt.Errorf("%s: %w", c.what, err)
	}
	go func() {
		defer reading.Done()
		defer close(c.events)
		readEvents(stdout, c.events, func(line string) { fmt.Fprintln(c, line) })
	}()
	return c, nil
}

// startTied starts cmd so that it dies with this program, and reaps it: it waits for before, then calls ended with how
// the process ended and closes done. The operating system ties a child to the thread that started it, so a goroutine
// keeps that thread until the end.
func startTied(cmd *exec.Cmd, before func(), ended func(error)) (done chan struct{}, err error) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	dieWithParent(cmd.SysProcAttr)
	started := make(chan error)
	done = make(chan struct{})
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			before()
			ended(cmd.Wait())
			close(done)
		}
	}()
	return done, <-started
}

// Write keeps the last of what the process says beside its events.
func (c *child) Write(p []byte) (int, error) {
	const keep = 8 << 10
	c.mu.Lock()
	defer c.mu.Unlock()
	c.said.Write(p)
	if over := c.said.Len() - keep; over > 0 {
		c.said.Next(over)
	}
	return len(p), nil
}

// await returns the next event of this kind.
func (c *child) await(ctx context.Context, kind eventKind) (event, error) {
	for {
		select {
		case e, open := <-c.events:
			if !open {
				<-c.done
				return event{}, c.failed(errors.New("ended early"))
			}
			if e.Event == kind {
				return e, nil
			}
		case <-ctx.Done():
			return event{}, c.failed(context.Cause(ctx))
		}
	}
}

// failed adds what is known of the process to err.
func (c *child) failed(err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-c.done:
		err = errors.Join(err, c.err)
	default:
	}
	return fmt.Errorf("%s: %w\n%s", c.what, err, strings.TrimSpace(c.said.String()))
}

// kill ends the process with SIGKILL and waits until it is gone.
func (c *child) kill() {
	c.cmd.Process.Kill() // fails only if it has ended
	for range c.events {
	}
	<-c.done
}

// runChild lets a process do j and returns what it measured, or an error unless it also ended well.
func runChild(ctx context.Context, s *spec, j job, limit time.Duration) (event, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("not done within %v", limit))
	defer cancel()
	c, err := startChild(s, j)
	if err != nil {
		return event{}, err
	}
	e, err := c.await(ctx, evDone)
	if err != nil {
		c.kill()
		return event{}, err
	}
	select {
	case <-c.done:
		if c.err != nil {
			return event{}, c.failed(nil)
		}
		return e, nil
	case <-ctx.Done():
		c.kill()
		return event{}, c.failed(context.Cause(ctx))
	}
}
