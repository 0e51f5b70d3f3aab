package redisserver

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
)

// process is one running server program. It is reaped as soon as it ends.
type process struct {
	os   *os.Process
	done chan struct{} // closed when the process was reaped
	err  error         // how it ended; read only after done
}

// spawn starts a program with its output appended to the file log.
//
// The operating system ties "die with the parent" to the thread that started the child, so one goroutine keeps that
// thread for itself until the child has been reaped.
func spawn(path, dir, log string, args ...string) (*process, error) {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd := exec.Command(path, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr, cmd.Env = dir, out, out, []string{"LC_ALL=C"}
	cmd.SysProcAttr = childAttributes()

	started := make(chan error)
	p := &process{done: make(chan struct{})}
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		p.os = cmd.Process
		started <- err
		if err == nil {
			p.err = cmd.Wait()
			close(p.done)
		}
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return p, nil
}

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// kill ends the process at once and waits until it is gone.
func (p *process) kill() {
	p.os.Kill() // fails only if the process has ended
	<-p.done
}

// terminate asks the process to shut down and kills it if it has not when ctx ends.
func (p *process) terminate(ctx context.Context) error {
	if p.ended() {
		return nil
	}
	resume(p.os) // a paused process would never see the request
	if err := askToEnd(p.os); err != nil && !p.ended() {
		p.kill()
		return fmt.Errorf("asked to shut down: %w", err)
	}
	select {
	case <-p.done:
		return nil
	case <-ctx.Done():
		p.kill()
		return fmt.Errorf("did not shut down in time and was killed: %w", context.Cause(ctx))
	}
}
