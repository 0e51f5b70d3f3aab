//go:build unix

package sqlitestore

import (
	"os"
	"syscall"
)

// links is how many names a file has.
func links(info os.FileInfo) uint64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return uint64(st.Nlink)
	}
	return 1
}

// shareLike gives a file that this process has made the owner and the mode of the database, as SQLite does with its own:
// whoever may use the one has to be able to use the other.
func shareLike(f *os.File, db os.FileInfo) {
	if st, ok := db.Sys().(*syscall.Stat_t); ok && os.Geteuid() == 0 {
		_ = f.Chown(int(st.Uid), int(st.Gid)) // as far as the file system knows owners
	}
	_ = f.Chmod(db.Mode().Perm()) // fails if it is another user's: then it has it already
}
