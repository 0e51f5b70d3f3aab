package cli

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"

	"github.com/waggleq/waggle/internal/plainjson"
)

// lineReader reads the lines of a stream of any size, one JSON string each, in bounded memory.
type lineReader struct {
	r     *bufio.Reader
	limit int // bytes of a line
	line  []byte
	n     int
}

func newLineReader(r io.Reader, limit int) *lineReader {
	return &lineReader{r: bufio.NewReaderSize(r, 64<<10), limit: limit}
}

// badLine is a line that can't be a task; the lines after it can.
type badLine struct {
	number int
	reason string
}

func (e *badLine) Error() string { return fmt.Sprintf("line %d %s", e.number, e.reason) }

// next returns the next line, without its end (LF or CRLF), as a JSON string, and its number from 1. It returns a
// [*badLine] for a line that is not text or too long, io.EOF at the end, or what the stream returned.
func (l *lineReader) next() (payload []byte, number int, err error) {
	tooLong, err := l.read()
	if err != nil {
		return nil, l.n, err
	}
	switch {
	case tooLong:
		return nil, l.n, &badLine{l.n, fmt.Sprintf("is longer than %d bytes", l.limit)}
	case !utf8.Valid(l.line):
		return nil, l.n, &badLine{l.n, "is not valid UTF-8"}
	}
	return plainjson.String(l.line), l.n, nil
}

// read fills l.line with the next line. The rest of a line that is too long is skipped.
func (l *lineReader) read() (tooLong bool, err error) {
	l.line = l.line[:0]
	for begun := false; ; begun = true {
		piece, err := l.r.ReadSlice('\n')
		if errors.Is(err, io.EOF) && len(piece) == 0 && !begun {
			return false, io.EOF
		}
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, bufio.ErrBufferFull) {
			return false, fmt.Errorf("reading line %d: %w", l.n+1, err)
		}
		if !tooLong {
			l.line = append(l.line, piece...)
			tooLong = len(l.line) > l.limit+len("\r\n")
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			break
		}
	}
	l.n++
	if l.n == 1 {
		l.line = bytes.TrimPrefix(l.line, []byte("\uFEFF")) // a byte order mark is no part of the text
	}
	if line, ended := bytes.CutSuffix(l.line, []byte("\n")); ended {
		l.line = bytes.TrimSuffix(line, []byte("\r"))
	}
	return tooLong || len(l.line) > l.limit, nil
}
