//go:build !unix

package sqlitestore

import "os"

const (
	sharedFirst, sharedLen = 0x40000000 + 2, 510
	memoryInUse            = 128
)

// lockedByOthers knows of no locks here.
func lockedByOthers(*os.File, int64, int64) bool { return false }

// lockWhole has every process look.
func lockWhole(*os.File) bool { return true }

func unlockWhole(*os.File) {}
