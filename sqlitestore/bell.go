package sqlitestore

import "os"

// bellFile is an empty file beside the database, path-bell, that is written to whenever a commit may give an idle worker
// something to do. Idle workers watch it, and not the mark: most commits are claims and ends of tasks, which concern only
// those who follow the events. It belongs to the writer's goroutine. A store that can't have one goes without.
type bellFile struct {
	path string
	db   os.FileInfo // of the database
	f    *os.File
	mine bool // this process is the one that looks first
}

// open opens the file, made if needed, and reports whether there is one.
func (b *bellFile) open() bool {
	if b.f != nil {
		return true
	}
	b.f = openBeside(b.path, b.db)
	return b.f != nil
}

// ring tells the idle workers of other processes to look.
func (b *bellFile) ring() {
	if b.open() {
		_, _ = b.f.WriteAt([]byte{'\n'}, 0) // without it others look later
	}
}

// take reports whether this process is the first to hear of a ring, and so the one that looks at once. It is until it leaves.
func (b *bellFile) take() bool {
	if !b.mine && b.f != nil {
		b.mine = lockWhole(b.f)
	}
	return b.mine
}

// leave lets another process be the first next time.
func (b *bellFile) leave() {
	if b.mine {
		unlockWhole(b.f)
		b.mine = false
	}
}

// again makes a bell that somebody has deleted anew.
func (b *bellFile) again() {
	if b.f == nil {
		return
	}
	ours, err := b.f.Stat()
	if err != nil {
		return
	}
	if now, err := os.Stat(b.path); err == nil && os.SameFile(now, ours) {
		return
	}
	_ = b.f.Close() // nobody will find it
	b.f, b.mine = nil, false
	b.open()
}

// close closes the bell. It is removed if the log is: then nobody has the database open.
func (b *bellFile) close(log string) {
	if b.f != nil {
		_ = b.f.Close() // nothing is in it
	}
	if _, err := os.Stat(log); os.IsNotExist(err) {
		_ = os.Remove(b.path) // one that stays is used by the next
	}
}
