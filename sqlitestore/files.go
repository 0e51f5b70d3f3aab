package sqlitestore

import (
	"os"

	"github.com/waggleq/waggle/driver"
	"zombiezen.com/go/sqlite"
)

// fsInfo is what has to be known of a file system.
type fsInfo struct {
	magic int64  // the type, as statfs(2) tells it
	free  uint64 // bytes that this user may still write
}

// networkFS are file systems on which the locks or the shared memory that SQLite needs do not work between machines,
// by their magic numbers.
var networkFS = map[int64]string{
	0x6969: "NFS", 0x517B: "SMB", 0xFF534D42: "CIFS", 0xFE534D42: "SMB2", 0x01021997: "9P", 0x564C: "NCP",
	0x5346414F: "AFS", 0x73757245: "Coda", 0x00C36400: "Ceph", 0x0BD00BD0: "Lustre", 0x47504653: "GPFS",
	0x7461636F: "OCFS2", 0x01161970: "GFS2", 0x65735546: "FUSE (such as sshfs)", 0x013111A8: "iBRIX", 0x19830326: "FhGFS",
}

// refuseNetwork returns an error for a directory on a network file system.
func refuseNetwork(dir string, statfs func(string) (fsInfo, error)) error {
	info, err := statfs(dir)
	if err != nil {
		return driver.Errorf(driver.ErrUnavailable, "the file system of %s can't be examined: %w", dir, err)
	}
	if name, bad := networkFS[info.magic]; bad {
		return driver.Invalidf("%s is on a network file system (%s), where SQLite can lose data: use a local disk, or the Redis store for several machines", dir, name)
	}
	return nil
}

// limitSize sets MaxBytes.
func (s *Store) limitSize(c *conn) error {
	if s.opts.MaxBytes == 0 {
		return nil
	}
	size, err := c.stmt("page_size").one()
	if err != nil {
		return err
	}
	return c.run("PRAGMA max_page_count=" + itoa(s.opts.MaxBytes/max(size, 512)))
}

// refuseGrowth returns [driver.ErrStoreFull] if a batch has enqueues and there is too little room for them and for
// working off what is stored.
func (s *Store) refuseGrowth(c *conn, batch []*op) error {
	need := int64(0)
	for _, o := range batch {
		if o.adds {
			need += int64(o.bytes)
		}
	}
	if need == 0 {
		return nil
	}
	if s.opts.MinFree > 0 {
		info, err := s.opts.statfs(s.path)
		if err == nil && int64(min(info.free, 1<<62)) < s.opts.MinFree+2*need {
			if reuse, err := freeBytes(c, 0); err != nil || reuse < s.opts.MinFree/2+2*need {
				return driver.Errorf(driver.ErrStoreFull, "the disk has %d bytes left, which are reserved for running the stored tasks: free some space", info.free)
			}
		}
	}
	if s.opts.MaxBytes > 0 {
		free, err := freeBytes(c, s.opts.MaxBytes)
		if err == nil && free < s.opts.MaxBytes/16+2*need {
			return driver.Errorf(driver.ErrStoreFull, "the database has reached its limit of %d bytes: let workers run tasks, delete some, or raise the limit", s.opts.MaxBytes)
		}
	}
	return nil
}

// freeBytes is how much can be stored in the file's free pages and by letting it grow to limit (0: not at all).
func freeBytes(c *conn, limit int64) (int64, error) {
	var v [3]int64
	for i, name := range []string{"page_size", "page_count", "freelist_count"} {
		n, err := c.stmt(name).one()
		if err != nil {
			return 0, err
		}
		v[i] = n
	}
	size, pages, unused := v[0], v[1], v[2]
	return unused*size + max(0, limit-pages*size), nil
}

// bytesOnDisk is the size of all files.
func (s *Store) bytesOnDisk() (total, wal int64) {
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if info, err := os.Stat(s.path + suffix); err == nil {
			total += info.Size()
			if suffix == "-wal" {
				wal = info.Size()
			}
		}
	}
	return total, wal
}

// notADatabase reports whether the database took the file for something else.
func notADatabase(err error) bool { return primary(err) == sqlite.ResultNotADB }

// noDatabase is what the user is told then.
func noDatabase(path string) error {
	return driver.Errorf(driver.ErrCorrupt, "%s is not a database, or its first page is damaged: check the path, or restore the file from a backup", path)
}
