package sqlitestore

import "encoding/binary"

// storeRow is what a page of the database's file itself, without its log, says of the store.
type storeRow struct {
	incarnation string
	events      int64
}

// decodeStoreRow reads the one row of table store from the page that it is in, false if the page has none. The row is
// (NULL, incarnation, next_seq, next_token, next_event, …): see sql/schema.sql.
func decodeStoreRow(page []byte) (storeRow, bool) {
	var r storeRow
	if len(page) < 512 || page[0] != 0x0d || binary.BigEndian.Uint16(page[3:]) != 1 {
		return r, false
	}
	cell := int(binary.BigEndian.Uint16(page[8:]))
	b := page[min(cell, len(page)):]
	size, b := varint(b)
	rowid, b := varint(b)
	if size <= 0 || size > int64(len(b)) || rowid != 1 {
		return r, false
	}
	b = b[:size]
	headSize, head := varint(b)
	if headSize <= 0 || headSize > size || int(headSize) < len(b)-len(head) {
		return r, false
	}
	body := b[headSize:]
	head = b[len(b)-len(head) : headSize]
	for col := 0; col <= 4; col++ {
		if len(head) == 0 {
			return r, false
		}
		kind, rest := varint(head)
		head = rest
		n := kindSize(kind)
		if n < 0 || n > int64(len(body)) {
			return r, false
		}
		switch col {
		case 1:
			r.incarnation = string(body[:n])
		case 4:
			r.events = kindInt(kind, body[:n])
		}
		body = body[n:]
	}
	return r, r.incarnation != ""
}

// varint reads a number as SQLite stores it; -1 if there is none.
func varint(b []byte) (int64, []byte) {
	v := int64(0)
	for i, c := range b {
		if i == 8 {
			return v<<8 | int64(c), b[9:]
		}
		v = v<<7 | int64(c&0x7f)
		if c < 0x80 {
			return v, b[i+1:]
		}
	}
	return -1, nil
}

// kindSize is how many bytes a value of a serial type takes, -1 for none that is used here.
func kindSize(kind int64) int64 {
	switch {
	case kind >= 12:
		return (kind - 12) / 2
	case kind == 8 || kind == 9 || kind == 0:
		return 0
	case kind >= 1 && kind <= 4:
		return kind
	case kind == 5:
		return 6
	case kind == 6:
		return 8
	}
	return -1
}

func kindInt(kind int64, b []byte) int64 {
	if kind == 9 {
		return 1
	}
	v := int64(0)
	for i, c := range b {
		if i == 0 {
			v = int64(int8(c))
			continue
		}
		v = v<<8 | int64(c)
	}
	return v
}
