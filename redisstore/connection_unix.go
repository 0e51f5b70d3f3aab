//go:build unix

package redisstore

import "syscall"

// ended reports whether the other side has ended a connection: there is nothing to read and there never will be. On a
// silent one it is a sign of that if there is something.
func ended(raw syscall.RawConn, silent bool) bool {
	end := false
	var b [1]byte
	err := raw.Control(func(fd uintptr) {
		n, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		end = err == nil && (n == 0 || silent) || err != nil && err != syscall.EAGAIN && err != syscall.EINTR
	})
	return end || err != nil
}
