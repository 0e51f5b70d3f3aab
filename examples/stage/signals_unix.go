//go:build unix

package stage

import (
	"os"
	"syscall"
)

// Freeze stops a process with SIGSTOP.
func Freeze(p *os.Process) error { return p.Signal(syscall.SIGSTOP) }

// Thaw lets a stopped process go on, with SIGCONT.
func Thaw(p *os.Process) error { return p.Signal(syscall.SIGCONT) }

// AskToEnd sends SIGTERM.
func AskToEnd(p *os.Process) error { return p.Signal(syscall.SIGTERM) }
