package redisstore

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// ended reports whether the other side has ended a connection, also where something it said before was not read yet: with
// TLS that is its farewell.
func ended(raw syscall.RawConn) bool {
	end := false
	err := raw.Control(func(fd uintptr) {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
		_, err := unix.Poll(fds, 0)
		end = err == nil && fds[0].Revents != 0 // POLLERR and POLLHUP come unasked
	})
	return end || err != nil
}
