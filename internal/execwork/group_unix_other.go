//go:build unix && !linux

package execwork

import (
	"os/exec"
	"syscall"
)

// ownGroup puts a command into its own process group, out of the terminal's reach.
func ownGroup() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

// wait waits for the leader and ends the group. These systems have no common way to learn of an exit without reaping,
// so what the leader left behind is killed a moment later than on Linux.
func (g *group) wait(cmd *exec.Cmd) error {
	err := cmd.Wait()
	g.end()
	return err
}
