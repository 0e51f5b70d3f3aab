package execwork

import (
	"os"
	"os/exec"
	"syscall"
)

// group is a running command. On Windows it is the process alone, and stopping it is killing it.
type group struct{ leader *os.Process }

func ownGroup() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{CreationFlags: syscall.CREATE_NEW_PROCESS_GROUP}
}

func newGroup(leader *os.Process) *group { return &group{leader: leader} }

func (g *group) terminate() { g.kill() }

func (g *group) kill() { _ = g.leader.Kill() }

func (g *group) wait(cmd *exec.Cmd) error { return cmd.Wait() }
