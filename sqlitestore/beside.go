package sqlitestore

import (
	"errors"
	"io"
	"os"
)

// The mark and the bell are small files of this package beside the database. Where one of them is something else, such as a pipe
// or a link, the store goes without: reading a pipe takes for ever, and writing through a link could spoil the database.

// openBeside opens such a file, made if needed; nil if it can't be had. db is the database, which it takes its owner from.
func openBeside(path string, db os.FileInfo) *os.File {
	if info, err := os.Lstat(path); err == nil && !info.Mode().IsRegular() {
		return nil
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, fileMode)
	if err != nil {
		return nil
	}
	if db != nil {
		shareLike(f, db)
	}
	return f
}

// readBeside reads the beginning of such a file: a byte more than a mark at most.
func readBeside(path string) ([]byte, error) {
	if info, err := os.Lstat(path); err != nil {
		return nil, err
	} else if !info.Mode().IsRegular() {
		return nil, errors.New("no file of its own")
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() // it was only read
	return io.ReadAll(io.LimitReader(f, markSize+1))
}
