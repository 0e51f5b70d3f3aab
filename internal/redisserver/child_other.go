//go:build !linux

package redisserver

import "syscall"

// childAttributes returns nothing special: only Linux can tie a child's life to its parent's.
func childAttributes() *syscall.SysProcAttr { return nil }
