//go:build !linux

package stage

import "syscall"

// childAttributes returns nothing special: a child here ends when the pipe from its parent does.
func childAttributes() *syscall.SysProcAttr { return nil }
