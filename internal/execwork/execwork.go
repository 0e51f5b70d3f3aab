// Package execwork runs a command for a task. It knows processes and nothing of queues.
//
// The command is never given to a shell: its words are fixed when the worker starts, and a word that is just {} is
// replaced, as a whole, by the task's payload. The command is the leader of a process group of its own, which ends
// with it: what is left of the group when the command exits is killed. On Linux all that commands have started dies with
// the worker, whatever group or session it is in: see keeper_linux.go.
package execwork

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/waggleq/waggle/driver"
)

// DefaultGrace is how long a command has between SIGTERM and SIGKILL.
const DefaultGrace = 5 * time.Second

// discardStatus is the exit status that says "do not try again": EX_DATAERR of sysexits.h.
const discardStatus = 65

// pipeDelay bounds how long a process that left the group keeps a task from ending by holding its pipes open.
const pipeDelay = time.Second

// Placeholder is the argument that stands for a payload.
const Placeholder = "{}"

// ErrDiscard is wrapped by errors that no further attempt can mend.
var ErrDiscard = errors.New("discarded by the command")

// Command is a command to run for tasks. Its methods may be called concurrently.
type Command struct {
	path     string
	argv     []string
	grace    time.Duration
	launcher launcher

	hurry     chan struct{} // closed by Hurry
	hurryOnce sync.Once
}

// New finds a command in PATH. grace is how long it has between SIGTERM and SIGKILL when its task is stopped. The
// error, [driver.ErrInvalid], says what is wrong with the command.
func New(argv []string, grace time.Duration) (*Command, error) {
	if len(argv) == 0 || argv[0] == "" {
		return nil, driver.Invalidf("no command is given: write it after --, as in: waggle work -- sha256sum {}")
	}
	if argv[0] == Placeholder {
		return nil, driver.Invalidf("the command itself can't come from a payload: put a program before {}")
	}
	if grace < 0 {
		return nil, driver.Invalidf("the grace period must not be negative, got %v", grace)
	}
	path, err := exec.LookPath(argv[0])
	if err != nil {
		return nil, driver.Invalidf("can't run %q: %w", argv[0], errors.Unwrap(err))
	}
	return &Command{path: path, argv: slices.Clone(argv), grace: grace, launcher: newLauncher(), hurry: make(chan struct{})}, nil
}

// Input is the task that a command runs for.
type Input struct {
	Payload []byte // written to the command's standard input
	Raw     bool   // the payload is bytes, not JSON
	// Vars are NAME=value pairs for the command's environment, before those that this process has.
	Vars []string
	Log  func(line string)
}

// ExitError tells how a command failed.
type ExitError struct {
	Status string // "exit status 3", "signal: killed"
	Code   int    // -1 after a signal
	Stderr string // the end of what it wrote there
}

func (e *ExitError) Error() string {
	if e.Stderr == "" {
		return e.Status
	}
	return e.Status + ": " + e.Stderr
}

// Is makes exit status 65 an [ErrDiscard].
func (e *ExitError) Is(target error) bool { return target == ErrDiscard && e.Code == discardStatus }

// Run runs the command once and returns what it wrote to standard output. Lines of standard error go to in.Log as
// they come. When ctx ends, the command's process group gets SIGTERM and, after the grace period, SIGKILL.
//
// The error wraps [ErrDiscard] for exit status 65 and for a payload that the command can't be given, the cause of ctx
// if the command was stopped, [ErrNotStarted] or [ErrUnfit] if it has not run, and is an [*ExitError] for every other exit. A command that exits with status 0 has
// succeeded, even if ctx ended meanwhile.
func (c *Command) Run(ctx context.Context, in *Input) (*Output, error) {
	args, err := fillIn(c.argv[1:], in)
	if err != nil {
		return nil, err
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	// The kernel counts as parent the thread that forked, and a thread may end before its process: stay on this one.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	pipes, err := newPipes()
	if err != nil {
		return nil, notStarted(err)
	}
	s := &spec{Path: c.path, Args: append([]string{c.argv[0]}, args...), Env: c.environ(in)}
	p, err := c.launcher.start(s, pipes.theirs)
	pipes.closeTheirs()
	if err != nil {
		pipes.closeOurs()
		return nil, notStarted(err)
	}
	stdout, stderr := &head{limit: driver.MaxResultBytes}, &lines{log: in.Log}
	pipes.run(in.Payload, stdout, stderr)
	end, err := c.await(ctx, p)
	pipes.finish(pipeDelay)
	stderr.flush()
	if err != nil {
		return nil, err
	}
	return outcome(ctx, end, stdout, stderr)
}

// ErrNotStarted is wrapped by errors of commands that have not run, or were killed with what keeps them: it is not the
// task's fault.
var ErrNotStarted = errors.New("the command did not start")

// notStarted is why a command did not start. Arguments that are too long are so at every attempt.
func notStarted(err error) error {
	if errors.Is(err, syscall.E2BIG) {
		return fmt.Errorf("%w: the payload is too long for an argument: read it from standard input instead (%w)", ErrDiscard, err)
	}
	return fmt.Errorf("%w: %w", ErrNotStarted, err)
}

// await waits for the end of a command, and stops it if ctx ends.
func (c *Command) await(ctx context.Context, p process) (exit, error) {
	ended := make(chan struct{})
	defer close(ended)
	disarm := context.AfterFunc(ctx, func() {
		p.terminate()
		timer := time.NewTimer(c.grace)
		defer timer.Stop()
		select {
		case <-ended:
			return
		case <-c.hurry:
		case <-timer.C:
		}
		p.kill()
	})
	defer disarm()
	return p.wait()
}

func outcome(ctx context.Context, end exit, stdout *head, stderr *lines) (*Output, error) {
	switch {
	case end.Code == 0:
		return stdout.output(), nil
	case ctx.Err() != nil && stderr.tail() != "":
		return nil, fmt.Errorf("%w: %s", context.Cause(ctx), stderr.tail())
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	}
	return nil, &ExitError{Status: end.Status, Code: end.Code, Stderr: stderr.tail()}
}

// Hurry takes the grace period away: commands that are being stopped, or will be, are killed at once.
func (c *Command) Hurry() { c.hurryOnce.Do(func() { close(c.hurry) }) }
