package execwork

import (
	"errors"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

// ownGroup puts a command into its own process group, out of the terminal's reach, and has the kernel kill it if its
// worker dies.
func ownGroup() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// wait waits for the leader, ends the group while the leader still holds its number, and reaps the leader.
func (g *group) wait(cmd *exec.Cmd) error {
	for errors.Is(unix.Waitid(unix.P_PID, g.pid, nil, unix.WEXITED|unix.WNOWAIT, nil), unix.EINTR) {
	}
	g.end()
	return cmd.Wait()
}
