//go:build !unix

package redisstore

import "syscall"

// ended can't tell on this system.
func ended(syscall.RawConn, bool) bool { return false }
