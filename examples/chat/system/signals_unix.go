//go:build unix

package system

import (
	"os"
	"syscall"
)

func freeze(p *os.Process) error   { return p.Signal(syscall.SIGSTOP) }
func thaw(p *os.Process) error     { return p.Signal(syscall.SIGCONT) }
func askToEnd(p *os.Process) error { return p.Signal(syscall.SIGTERM) }
