//go:build unix

package execwork

import (
	"os"
	"sync"
	"syscall"
	"time"
)

// group is the process group of a running command.
type group struct {
	pid    int
	mu     sync.Mutex
	over   bool
	exited chan struct{} // closed with over
}

func newGroup(leader *os.Process) *group { return &group{pid: leader.Pid, exited: make(chan struct{})} }

func (g *group) signal(s syscall.Signal) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.over {
		_ = syscall.Kill(-g.pid, s) // it may have ended by itself
	}
}

// stop asks the group to end, and kills it if it has not after the grace period or when there is a hurry.
func (g *group) stop(grace time.Duration, hurry <-chan struct{}) {
	g.signal(syscall.SIGTERM)
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-g.exited:
	case <-hurry:
		g.kill()
	case <-timer.C:
		g.kill()
	}
}

func (g *group) kill() { g.signal(syscall.SIGKILL) }

// end kills what the leader left behind. The group's number is not used after it.
func (g *group) end() {
	g.kill()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.over = true
	close(g.exited)
}
