//go:build unix

package sqlitestore

import (
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// The bytes that SQLite locks: those that every connection to a database has in the file itself while it is open, and the
// one in the shared memory that every process which uses it has.
const (
	sharedFirst, sharedLen = 0x40000000 + 2, 510
	memoryInUse            = 128
)

// lockedByOthers reports whether another process has any of n bytes of a file locked.
func lockedByOthers(f *os.File, from, n int64) bool {
	for {
		lock := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart, Start: from, Len: n}
		err := unix.FcntlFlock(f.Fd(), unix.F_GETLK, &lock)
		if err != unix.EINTR {
			return err == nil && lock.Type != unix.F_UNLCK
		}
	}
}

// lockWhole locks a file for this process, and reports whether no other has it locked.
func lockWhole(f *os.File) bool { return setLock(f, unix.F_WRLCK) }

func unlockWhole(f *os.File) { setLock(f, unix.F_UNLCK) }

func setLock(f *os.File, kind int16) bool {
	for {
		err := unix.FcntlFlock(f.Fd(), unix.F_SETLK, &unix.Flock_t{Type: kind, Whence: io.SeekStart})
		if err != unix.EINTR {
			return err == nil
		}
	}
}
