//go:build unix

package stage

import "syscall"

// sweeperAttributes keep the sweeper out of the terminal's process group: Ctrl-C is not for it.
func sweeperAttributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
