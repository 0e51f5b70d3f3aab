package stage

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"
)

const sweepMost = 10 * time.Second

// Sweeper is a small process that outlives this one by a moment, to remove its directory: a program that was killed can't
// do that itself.
type Sweeper struct {
	cmd  *exec.Cmd
	life io.Closer // its other end notices when this process is gone
}

// StartSweeper starts cmd, a process that calls [Sweep] with the directory to remove.
func StartSweeper(cmd *exec.Cmd) (*Sweeper, error) {
	cmd.SysProcAttr = sweeperAttributes()
	life, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	return &Sweeper{cmd, life}, cmd.Start()
}

// End has the directory removed and returns when it is.
func (s *Sweeper) End() error { return errors.Join(s.life.Close(), s.cmd.Wait()) }

// Sweep waits until its standard input ends and removes a directory then.
func Sweep(dir string) error {
	signal.Ignore(os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return err
	}
	// Servers that die at this moment may still write a file.
	for end := time.Now().Add(sweepMost); ; time.Sleep(20 * time.Millisecond) {
		err := os.RemoveAll(dir)
		if err == nil {
			time.Sleep(100 * time.Millisecond)
			err = os.RemoveAll(dir)
		}
		if err == nil || time.Now().After(end) {
			return err
		}
	}
}
