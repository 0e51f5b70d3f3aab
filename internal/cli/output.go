package cli

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/waggleq/waggle/internal/plainjson"
)

// The formats of data.
const (
	formatTable = "table" // for people
	formatJSON  = "json"  // one JSON value
	formatJSONL = "jsonl" // one JSON value a line

	formatIDs = "ids" // of receipts instead of a table: one id a line
)

var formats = []string{formatTable, formatJSON, formatJSONL}

// printObject prints one value as JSON, or with table for people.
func (a *app) printObject(v any, table func() error) error {
	if a.format == formatTable {
		return table()
	}
	return writeJSON(a.out, v)
}

// writeJSON writes v and a line break. Angle brackets stay readable: no browser reads this.
func writeJSON(w io.Writer, v any) error {
	b, err := plainjson.Marshal(v)
	if err != nil {
		return err
	}
	_, err = w.Write(append(b, '\n'))
	return err
}

// list prints items as they come: a table row, a line of JSON, or an element of a JSON list. Nothing is printed before
// the first item or close, so that a command that fails before has printed nothing.
type list struct {
	format string
	w      *bufio.Writer
	table  *table // nil for a format that is not a table
	count  int
}

// newList begins a list; columns are for its table.
func (a *app) newList(columns ...column) *list {
	l := &list{format: a.format, w: bufio.NewWriter(a.out)}
	if a.format == formatTable {
		l.table = newTable(a.out, a.outTerm, columns)
	}
	return l
}

// add prints one item; row gives its cells, and is called for a table only.
func (l *list) add(v any, row func() []string) error {
	l.count++
	switch l.format {
	case formatTable:
		return l.table.add(row())
	case formatIDs:
		_, err := fmt.Fprintln(l.w, v.(receipt).ID)
		return err
	case formatJSON:
		before := ",\n"
		if l.count == 1 {
			before = "[\n"
		}
		if _, err := l.w.WriteString(before); err != nil {
			return err
		}
		var b bytes.Buffer
		if err := writeJSON(&b, v); err != nil {
			return err
		}
		_, err := l.w.Write(bytes.TrimSuffix(b.Bytes(), []byte("\n")))
		return err
	}
	return writeJSON(l.w, v)
}

// flush shows what was added so far.
func (l *list) flush() error {
	if l.format == formatTable {
		return l.table.flush()
	}
	return l.w.Flush()
}

// close ends the list. After an error a list without items prints nothing; one that has begun is ended properly, so
// that what was printed can be read.
func (l *list) close(err error) error {
	switch {
	case l.format == formatTable:
		return errors.Join(err, l.table.flush())
	case l.format == formatJSON && l.count > 0:
		_, _ = l.w.WriteString("\n]\n") // an error shows at the flush
	case l.format == formatJSON && err == nil:
		_, _ = l.w.WriteString("[]\n")
	}
	return errors.Join(err, l.w.Flush())
}
