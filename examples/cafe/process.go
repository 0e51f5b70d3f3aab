package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"

	"github.com/waggleq/waggle/examples/stage"
)

const (
	readyMost = 20 * time.Second
	endMost   = 4 * time.Second
)

// process is one process of the play, in one of its lives.
type process struct {
	role  *Role
	addr  string // of a service
	cmd   *exec.Cmd
	in    io.Closer     // closing it ends the process
	ready chan struct{} // closed when it serves, or works
	ended chan struct{} // closed when it was reaped
}

// heard is a piece of news and whose it is.
type heard struct {
	News
	from *process
	at   time.Time
}

// start starts a process, whose news go to hear, and waits until it is ready.
func start(role *Role, log io.Writer, hear chan<- heard) (*process, error) {
	cmd, err := stage.Command(roleVariable, role)
	if err != nil {
		return nil, err
	}
	p := &process{role: role, cmd: cmd, ready: make(chan struct{}), ended: make(chan struct{})}
	cmd.Stderr = log
	if p.in, err = cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	listen := func() {
		_ = stage.Read(out, func(n News) { // ends with the process
			if n.Kind == newsReady {
				p.addr = n.Addr
				close(p.ready)
				return
			}
			hear <- heard{n, p, time.Now()}
		})
	}
	if err := stage.Spawn(cmd, p.ended, listen); err != nil {
		return nil, fmt.Errorf("start %s: %w", role.Name, err)
	}
	go func() {
		<-p.ended
		hear <- heard{News{Kind: newsGone}, p, time.Now()}
	}()
	select {
	case <-p.ready:
		return p, nil
	case <-p.ended:
		return p, fmt.Errorf("%s ended as soon as it was started: %v", role.Name, cmd.ProcessState)
	case <-time.After(readyMost):
		return p, fmt.Errorf("%s was not ready after %v", role.Name, readyMost)
	}
}

func (p *process) signal(send func(*os.Process) error) error {
	if err := send(p.cmd.Process); err != nil {
		return fmt.Errorf("signal %s: %w", p.role.Name, err)
	}
	return nil
}

// stop ends the process, with SIGKILL if it takes too long.
func (p *process) stop() {
	_ = stage.Thaw(p.cmd.Process) // it may have ended
	_ = p.in.Close()
	select {
	case <-p.ended:
	case <-time.After(endMost):
		_ = p.cmd.Process.Kill() // it may have ended by now
		<-p.ended
	}
}
