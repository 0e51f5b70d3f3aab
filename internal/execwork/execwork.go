// Package execwork runs a command for a task. It knows processes and nothing of queues.
//
// The command is never given to a shell: its words are fixed when the worker starts, and a word that is just {} is
// replaced, as a whole, by the task's payload. The command is the leader of a process group of its own, which ends
// with it: what is left of the group when the command exits is killed, and on Linux the command dies with its worker.
package execwork

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"sync"
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
	path  string
	argv  []string
	grace time.Duration

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
	return &Command{path: path, argv: slices.Clone(argv), grace: grace, hurry: make(chan struct{})}, nil
}

// Input is the task that a command runs for.
type Input struct {
	ID, Type, Queue string
	Attempt         int
	Payload         []byte // written to the command's standard input
	Raw             bool   // the payload is bytes, not JSON
	Log             func(line string)
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
// if the command was stopped, and is an [*ExitError] for every other exit. A command that exits with status 0 has
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

	stdout, stderr := &head{limit: driver.MaxResultBytes}, &lines{log: in.Log}
	cmd := exec.Command(c.path, args...)
	cmd.Args[0] = c.argv[0]
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(in.Payload), stdout, stderr
	cmd.Env = append(os.Environ(), "WAGGLE_TASK_ID="+in.ID, "WAGGLE_TASK_TYPE="+in.Type,
		"WAGGLE_TASK_ATTEMPT="+strconv.Itoa(in.Attempt), "WAGGLE_TASK_QUEUE="+in.Queue)
	cmd.SysProcAttr = ownGroup()
	cmd.WaitDelay = pipeDelay
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("the command did not start: %w", err)
	}
	err = c.await(ctx, cmd)
	stderr.flush()
	return outcome(ctx, err, stdout, stderr)
}

// await waits for a started command, stops it if ctx ends, and clears up its process group.
func (c *Command) await(ctx context.Context, cmd *exec.Cmd) error {
	g := newGroup(cmd.Process)
	disarm := context.AfterFunc(ctx, func() { g.stop(c.grace, c.hurry) })
	defer disarm()
	err := g.wait(cmd)
	if errors.Is(err, exec.ErrWaitDelay) {
		return nil // it exited with status 0; some process of its own kept the pipes open
	}
	return err
}

func outcome(ctx context.Context, err error, stdout *head, stderr *lines) (*Output, error) {
	exit, failed := errors.AsType[*exec.ExitError](err)
	switch {
	case err == nil:
		return stdout.output(), nil
	case ctx.Err() != nil && stderr.tail() != "":
		return nil, fmt.Errorf("%w: %s", context.Cause(ctx), stderr.tail())
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case failed:
		return nil, &ExitError{Status: exit.ProcessState.String(), Code: exit.ExitCode(), Stderr: stderr.tail()}
	}
	return nil, err
}

// Hurry takes the grace period away: commands that are being stopped, or will be, are killed at once.
func (c *Command) Hurry() { c.hurryOnce.Do(func() { close(c.hurry) }) }
