package sqlitestore

import (
	"os"

	"golang.org/x/sys/unix"
)

// syncData takes what was written to a file to the disk.
func syncData(f *os.File) error {
	for {
		if err := unix.Fdatasync(int(f.Fd())); err != unix.EINTR {
			return err
		}
	}
}
