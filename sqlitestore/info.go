package sqlitestore

import (
	"context"
	"fmt"

	"github.com/waggleq/waggle/driver"
	"zombiezen.com/go/sqlite"
)

// largeWAL is from what size on a log that is not written back is worth a warning.
const largeWAL = 64 << 20

// Info implements [driver.Inspector].
func (s *Store) Info(ctx context.Context) (*driver.StoreInfo, error) {
	info := &driver.StoreInfo{Engine: s.caps.Engine, Version: sqlite.Version, Incarnation: s.incarn, Now: timeOf(s.now()), Warnings: []string{}}
	err := s.read(ctx, func(c *conn) error {
		version, err := c.stmt("user_version").one()
		info.Schema = int(version)
		return err
	})
	if err != nil {
		return nil, err
	}
	var wal int64
	if info.Bytes, wal = s.bytesOnDisk(); wal > largeWAL {
		info.Warnings = append(info.Warnings, fmt.Sprintf("The write-ahead log has grown to %d MiB: "+
			"a process reads the database in one long transaction, or is stopped in the middle of one; the log shrinks when it ends.", wal>>20))
	}
	if free, err := s.opts.statfs(s.path); err == nil && s.opts.MinFree > 0 && free.free < uint64(2*s.opts.MinFree) {
		info.Warnings = append(info.Warnings, fmt.Sprintf("The disk is nearly full: %d MiB are left; no tasks are accepted below %d MiB.", free.free>>20, s.opts.MinFree>>20))
	}
	return info, nil
}
