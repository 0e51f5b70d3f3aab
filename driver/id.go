package driver

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"sync/atomic"
	"time"
)

// lastID is the newest time stamp handed out: milliseconds << 12 | fraction of the millisecond.
var lastID atomic.Uint64

// NewID returns a UUIDv7 (RFC 9562) whose first 60 bits grow with every call in this process: milliseconds, then the
// fraction of the millisecond (the RFC's method 3), moved on where the clock gives the same or an earlier value.
// The worker's clock is used for nothing but this order.
//
// The last two bytes are the same for ids that a process makes within about two milliseconds, and any at other times:
// stores that are spread over shards put a task where these bytes say, and so most of a batch goes to one shard.
func NewID() string {
	now := time.Now()
	stamp := uint64(now.UnixMilli())<<12 | uint64(now.Nanosecond()%1_000_000)*4096/1_000_000
	for {
		last := lastID.Load()
		stamp = max(stamp, last+1)
		if lastID.CompareAndSwap(last, stamp) {
			break
		}
	}
	var b [16]byte
	_, _ = rand.Read(b[8:14]) // never fails: it crashes the program instead
	binary.BigEndian.PutUint16(b[14:], home(stamp))
	binary.BigEndian.PutUint64(b[:8], stamp>>12<<16|stamp&0xfff)
	b[6] |= 0x70
	b[8] = b[8]&0x3f | 0x80
	return formatUUID(b)
}

// NewIDWithKey is NewID for a task with a key; an empty one means none. Its last two bytes are those of all ids for that
// key, so that stores that are spread over shards keep its tasks in one.
func NewIDWithKey(key string) string {
	id := NewID()
	if key == "" {
		return id
	}
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], KeyHome(key))
	return id[:len(id)-4] + hex.EncodeToString(b[:])
}

// homeShift makes a span of time of a stamp: two milliseconds.
const homeShift = 13

// homeSalt keeps the processes that make ids at the same time apart.
var homeSalt = func() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // as above
	return binary.BigEndian.Uint64(b[:])
}()

// home returns what ids of about this time end with. Spans that follow each other have nothing in common, so that no
// rhythm of a producer prefers a shard.
func home(stamp uint64) uint16 {
	x := stamp>>homeShift + homeSalt // the finalizer of MurmurHash3
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	x *= 0xc4ceb9fe1a85ec53
	return uint16(x >> 48)
}

func formatUUID(b [16]byte) string {
	var s [36]byte
	hex.Encode(s[0:8], b[0:4])
	hex.Encode(s[9:13], b[4:6])
	hex.Encode(s[14:18], b[6:8])
	hex.Encode(s[19:23], b[8:10])
	hex.Encode(s[24:36], b[10:16])
	s[8], s[13], s[18], s[23] = '-', '-', '-', '-'
	return string(s[:])
}

// PackID returns the shortest form of an id for storage: 16 bytes for a UUID in lower-case hex, else the id's own
// bytes after a 0xff byte, so that the two can't be confused.
func PackID(dst []byte, id string) []byte {
	if len(id) == 36 && id[8] == '-' && id[13] == '-' && id[18] == '-' && id[23] == '-' {
		var b [16]byte
		if parseUUID(&b, id) && b[0] != 0xff {
			return append(dst, b[:]...)
		}
	}
	return append(append(dst, 0xff), id...)
}

// UnpackID is the reverse of PackID. It returns "" for bytes that PackID did not make.
func UnpackID(b []byte) string {
	switch {
	case len(b) > 1 && b[0] == 0xff:
		return string(b[1:])
	case len(b) == 16:
		return formatUUID([16]byte(b))
	}
	return ""
}

func parseUUID(b *[16]byte, id string) bool {
	n := 0
	for i := 0; i < 36; {
		if i == 8 || i == 13 || i == 18 || i == 23 {
			i++
			continue
		}
		hi, lo := hexDigit(id[i]), hexDigit(id[i+1])
		if hi == 0xff || lo == 0xff {
			return false
		}
		b[n] = hi<<4 | lo
		n, i = n+1, i+2
	}
	return true
}

func hexDigit(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10
	}
	return 0xff
}
