package sqlitestore

import "golang.org/x/sys/unix"

func statfs(path string) (fsInfo, error) {
	var st unix.Statfs_t
	for {
		err := unix.Statfs(path, &st)
		if err == unix.EINTR {
			continue
		}
		// The magic numbers have 32 bits, in a field that is signed on some machines.
		return fsInfo{magic: int64(uint32(st.Type)), free: st.Bavail * uint64(st.Bsize)}, err
	}
}
