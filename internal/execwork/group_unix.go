//go:build unix

package execwork

import (
	"os"
	"sync"
	"syscall"
)

// group is the process group of a running command.
type group struct {
	pid  int
	mu   sync.Mutex
	over bool
}

func newGroup(leader *os.Process) *group { return &group{pid: leader.Pid} }

func (g *group) signal(s syscall.Signal) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.over {
		_ = syscall.Kill(-g.pid, s) // it may have ended by itself
	}
}

func (g *group) terminate() { g.signal(syscall.SIGTERM) }
func (g *group) kill()      { g.signal(syscall.SIGKILL) }

// end kills what the leader left behind. The group's number is not used after it.
func (g *group) end() {
	g.kill()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.over = true
}
