package sqlitestore

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"os"
)

// mark is a small file beside the database, path-mark, that says how much the database and its log have to hold: it is
// written after each commit that waited for the disk, before the commit is answered, and not synced itself. So it never
// promises what a power loss may have taken, and after a mere crash it promises all that was accepted. A store that was
// closed in order has none.
//
// Whoever writes to it also rings: the processes that follow the events watch it, and not the log, which every heartbeat is
// written to. For idle workers there is a bell of their own: see bellFile.
type mark struct {
	incarnation string // of the store that it is about
	root        uint32 // the page that the row of table store is in
	pageSize    uint32
	events      int64 // the number of the next event
}

const (
	markSize  = 128
	markMagic = "Waggle mark 1\n"
)

func (m *mark) encode(b []byte) []byte {
	b = append(b[:0], markMagic...)
	b = binary.BigEndian.AppendUint32(b, m.root)
	b = binary.BigEndian.AppendUint32(b, m.pageSize)
	b = binary.BigEndian.AppendUint64(b, uint64(m.events))
	b = append(b, byte(len(m.incarnation)))
	b = append(b, m.incarnation...)
	b = append(b, make([]byte, max(0, markSize-4-len(b)))...)
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

// readMark returns the mark of a database, nil if there is none that can be read.
func readMark(path string) *mark {
	for range 3 { // it may be written at this moment
		b, err := readBeside(path + "-mark")
		if err != nil {
			return nil
		}
		if m := decodeMark(b); m != nil {
			return m
		}
	}
	return nil
}

func decodeMark(b []byte) *mark {
	rest, ok := bytes.CutPrefix(b, []byte(markMagic))
	if !ok || len(b) != markSize || crc32.Checksum(b[:markSize-4], castagnoli) != binary.BigEndian.Uint32(b[markSize-4:]) {
		return nil
	}
	m := &mark{root: binary.BigEndian.Uint32(rest), pageSize: binary.BigEndian.Uint32(rest[4:]), events: int64(binary.BigEndian.Uint64(rest[8:]))}
	n := int(rest[16])
	if n > len(rest)-21 || m.pageSize < 512 || m.pageSize > 65536 || m.root == 0 {
		return nil
	}
	m.incarnation = string(rest[17 : 17+n])
	return m
}

// markFile is the mark of an open store. It belongs to the writer's goroutine. A store that can't have one goes without.
type markFile struct {
	mark
	path string
	db   os.FileInfo // of the database
	f    *os.File
	buf  []byte
}

// write notes that all events before next are stored for good, and reports whether it wrote, which others hear.
func (m *markFile) write(next int64) (rung bool) {
	if next <= m.events && m.f != nil {
		return false
	}
	m.events = max(m.events, next)
	if !m.open() {
		return false
	}
	m.buf = m.encode(m.buf)
	_, _ = m.f.WriteAt(m.buf, 0) // without it a loss may go unnoticed, but nothing is lost by that
	return true
}

// open opens the file, made if needed, and reports whether there is one. An empty one promises nothing.
func (m *markFile) open() bool {
	if m.f != nil {
		return true
	}
	m.f = openBeside(m.path, m.db)
	return m.f != nil
}

// ring tells other processes to look, and changes nothing of what is promised: the first byte is always the same.
func (m *markFile) ring() {
	if m.open() {
		_, _ = m.f.WriteAt([]byte(markMagic[:1]), 0) // without it others look later
	}
}

// again makes a mark that somebody has deleted anew.
func (m *markFile) again() {
	if m.f == nil {
		return
	}
	ours, err := m.f.Stat()
	if err != nil {
		return
	}
	if now, err := os.Stat(m.path); err == nil && os.SameFile(now, ours) {
		return
	}
	_ = m.f.Close() // nobody will find it
	m.f = nil
	if m.events > 0 {
		m.write(m.events)
	}
}

// close closes the mark. It is removed if the log is: then all is in the database, and nobody has it open.
func (m *markFile) close(log string) {
	if m.f != nil {
		_ = m.f.Close() // see write
	}
	if _, err := os.Stat(log); os.IsNotExist(err) {
		_ = os.Remove(m.path) // one that stays says less than the database holds
	}
}
