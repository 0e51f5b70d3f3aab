//go:build !unix

package sqlitestore

import "os"

// links knows of no second names here.
func links(os.FileInfo) uint64 { return 1 }

// shareLike does nothing: files get what their directory says.
func shareLike(*os.File, os.FileInfo) {}
