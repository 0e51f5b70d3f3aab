//go:build !unix

package system

import "syscall"

func sweeperAttributes() *syscall.SysProcAttr { return nil }
