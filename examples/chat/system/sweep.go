package system

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"

	"github.com/waggleq/waggle/examples/chat/wire"
)

const sweepMost = 10 * time.Second

// sweeper is a small process that outlives this one by a moment, to remove its directory: a program that was killed can't
// do that itself.
type sweeper struct {
	cmd  *exec.Cmd
	life io.Closer // its other end notices when this process is gone
}

func startSweeper(dir string) (*sweeper, error) {
	cmd, err := command(&wire.Role{Kind: "sweep", Dir: dir})
	if err != nil {
		return nil, err
	}
	cmd.SysProcAttr = sweeperAttributes()
	life, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	return &sweeper{cmd, life}, cmd.Start()
}

// end has the directory removed and returns when it is.
func (s *sweeper) end() error { return errors.Join(s.life.Close(), s.cmd.Wait()) }

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
