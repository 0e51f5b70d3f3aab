//go:build !unix

package stage

import "syscall"

func sweeperAttributes() *syscall.SysProcAttr { return nil }
