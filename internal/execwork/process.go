package execwork

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"sync"
	"time"
)

// spec is a command to be started.
type spec struct {
	Path      string
	Args, Env []string
}

// exit is how a process ended.
type exit struct {
	Code   int // -1 after a signal
	Status string
}

// process is a command that runs, with all that it started.
type process interface {
	terminate() // asks it to end
	kill()
	// wait waits for the end of the command and of its process group. It is called once.
	wait() (exit, error)
}

// launcher starts a command with the given files as its standard input, output and error. It closes none of them.
type launcher interface {
	start(s *spec, files [3]*os.File) (process, error)
}

// direct starts commands as children of this process.
type direct struct{}

func (direct) start(s *spec, files [3]*os.File) (process, error) {
	cmd := &exec.Cmd{Path: s.Path, Args: s.Args, Env: s.Env, SysProcAttr: ownGroup()}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = files[0], files[1], files[2]
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return &child{cmd, newGroup(cmd.Process)}, nil
}

// child is a process that direct has started.
type child struct {
	cmd *exec.Cmd
	*group
}

func (c *child) wait() (exit, error) {
	err := c.group.wait(c.cmd)
	if _, failed := errors.AsType[*exec.ExitError](err); err != nil && !failed {
		return exit{}, err
	}
	return exit{c.cmd.ProcessState.ExitCode(), c.cmd.ProcessState.String()}, nil
}

// pipes are the three pipes between this process and a command.
type pipes struct {
	theirs, ours [3]*os.File
	wg           sync.WaitGroup
}

func newPipes() (*pipes, error) {
	p := &pipes{}
	for i := range p.ours {
		r, w, err := os.Pipe()
		if err != nil {
			p.closeTheirs()
			p.closeOurs()
			return nil, err
		}
		if i == 0 {
			p.theirs[i], p.ours[i] = r, w
		} else {
			p.theirs[i], p.ours[i] = w, r
		}
	}
	return p, nil
}

func closeFiles(files []*os.File) {
	for _, f := range files {
		if f != nil {
			_ = f.Close() // a pipe has nothing to lose
		}
	}
}

func (p *pipes) closeTheirs() { closeFiles(p.theirs[:]) }
func (p *pipes) closeOurs()   { closeFiles(p.ours[:]) }

// run has what goes in and out copied.
func (p *pipes) run(in []byte, out, err io.Writer) {
	p.wg.Go(func() {
		_, _ = io.Copy(p.ours[0], bytes.NewReader(in)) // a command need not read it
		_ = p.ours[0].Close()
	})
	for i, w := range []io.Writer{out, err} {
		p.wg.Go(func() { _, _ = io.Copy(w, p.ours[i+1]) }) // ends with the pipe, in one way or another
	}
}

// finish waits until what the command wrote has come, for a limited time: a process that has left the group may hold the
// pipes open.
func (p *pipes) finish(limit time.Duration) {
	timer := time.AfterFunc(limit, p.closeOurs)
	p.wg.Wait()
	timer.Stop()
	p.closeOurs()
}
