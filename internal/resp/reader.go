// Package resp reads and writes the Redis serialization protocol, versions 2 and 3, as far as tests, benchmarks and the
// cluster demo need it: whole frames with their exact bytes, and a client that sends one command at a time.
//
// Redis work of the engine itself goes through a full client library; this package exists to start, steer and disturb
// servers without one.
package resp

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// Limits on what one frame may claim, so that a broken stream is an error and not an allocation.
const (
	MaxBulk  = 512 << 20 // bytes in one string
	maxElems = 1 << 20   // elements in one aggregate
	maxDepth = 32        // aggregates inside aggregates
	maxLine  = 64 << 10  // bytes in a line that is not a bulk string
)

// ErrProtocol is wrapped by every error that means "these bytes are not RESP".
var ErrProtocol = errors.New("resp: malformed frame")

// Value is one decoded frame. Kind is its type byte; which of the other fields count depends on it.
type Value struct {
	// Kind is the frame's first byte: + - : $ * _ # , ( ! = % ~ > as in the protocol.
	Kind byte
	// Text holds strings, errors, doubles, big numbers, and the digits of integers.
	Text string
	// Int holds integers, and booleans as 0 and 1.
	Int int64
	// Elems holds the members of arrays, sets and pushes, and the keys and values of maps in turn.
	Elems []Value
	// Null is set for nulls of both protocol versions.
	Null bool
}

// Error is an error reply of a server, such as "NOSCRIPT No matching script".
type Error string

// Error returns the reply's text without the leading "-".
func (e Error) Error() string { return string(e) }

// Code returns the first word of the reply, such as "MOVED" or "ERR".
func (e Error) Code() string {
	code, _, _ := strings.Cut(string(e), " ")
	return code
}

// Err returns the Error that v holds if it is an error reply, and nil otherwise.
func (v Value) Err() error {
	if v.Kind == '-' || v.Kind == '!' {
		return Error(v.Text)
	}
	return nil
}

// Strings returns the texts of v's members.
func (v Value) Strings() []string {
	texts := make([]string, len(v.Elems))
	for i, e := range v.Elems {
		texts[i] = e.Text
	}
	return texts
}

// Reader reads frames from a stream. It is not safe for concurrent use.
type Reader struct {
	br  *bufio.Reader
	raw []byte
}

// NewReader returns a Reader on r, which must not be read by others from then on.
func NewReader(r io.Reader) *Reader {
	return &Reader{br: bufio.NewReaderSize(r, 32<<10)}
}

// Raw returns the exact bytes of the frame read last. They are overwritten by the next read.
func (r *Reader) Raw() []byte { return r.raw }

// ReadValue reads one frame. Attributes in front of a frame are part of its raw bytes and otherwise skipped. It returns
// io.EOF if the stream ends before a frame, io.ErrUnexpectedEOF if it ends inside one.
func (r *Reader) ReadValue() (Value, error) {
	r.raw = r.raw[:0]
	v, err := r.value(0)
	return v, r.atEnd(err)
}

// ReadCommand reads one client command: an array of bulk strings, or an inline command, whose words are split at spaces
// (quotes are not interpreted). Empty lines are skipped, as servers do. The arguments are copies.
func (r *Reader) ReadCommand() ([][]byte, error) {
	for {
		r.raw = r.raw[:0]
		line, err := r.line()
		if err != nil {
			return nil, r.atEnd(err)
		}
		if strings.HasPrefix(line, "*") {
			args, err := r.args(line[1:])
			return args, r.atEnd(err)
		}
		if words := strings.Fields(line); len(words) > 0 {
			args := make([][]byte, len(words))
			for i, w := range words {
				args[i] = []byte(w)
			}
			return args, nil
		}
	}
}

func (r *Reader) args(count string) ([][]byte, error) {
	n, err := length(count, maxElems)
	if err != nil {
		return nil, err
	}
	args := make([][]byte, 0, min(max(n, 0), 1024))
	for range n {
		v, err := r.value(0)
		if err != nil {
			return nil, err
		}
		if v.Kind != '$' || v.Null {
			return nil, fmt.Errorf("%w: a command holds a frame of kind %q", ErrProtocol, v.Kind)
		}
		args = append(args, []byte(v.Text))
	}
	return args, nil
}

// atEnd tells a stream that ends between frames from one that ends inside a frame.
func (r *Reader) atEnd(err error) error {
	if errors.Is(err, io.EOF) && len(r.raw) > 0 {
		return io.ErrUnexpectedEOF
	}
	return err
}

func (r *Reader) value(depth int) (Value, error) {
	if depth > maxDepth {
		return Value{}, fmt.Errorf("%w: nested deeper than %d", ErrProtocol, maxDepth)
	}
	line, err := r.line()
	if err != nil {
		return Value{}, err
	}
	if line == "" {
		return Value{}, fmt.Errorf("%w: empty line", ErrProtocol)
	}
	v, rest := Value{Kind: line[0]}, line[1:]
	switch v.Kind {
	case '+', '-', ',', '(':
		v.Text = rest
	case ':':
		v.Text = rest
		if v.Int, err = strconv.ParseInt(rest, 10, 64); err != nil {
			return v, fmt.Errorf("%w: integer %q", ErrProtocol, rest)
		}
	case '_':
		v.Null = true
	case '#':
		if rest == "t" {
			v.Int = 1
		} else if rest != "f" {
			return v, fmt.Errorf("%w: boolean %q", ErrProtocol, rest)
		}
	case '$', '!', '=':
		err = r.bulk(&v, rest)
	case '*', '~', '>':
		err = r.elems(&v, rest, 1, depth)
	case '%':
		err = r.elems(&v, rest, 2, depth)
	case '|':
		if err = r.elems(&v, rest, 2, depth); err == nil {
			return r.value(depth + 1)
		}
	default:
		err = fmt.Errorf("%w: unknown kind %q", ErrProtocol, v.Kind)
	}
	return v, err
}

func (r *Reader) bulk(v *Value, size string) error {
	n, err := length(size, MaxBulk)
	if err != nil {
		return err
	}
	if n < 0 {
		v.Null = true
		return nil
	}
	start := len(r.raw)
	// Grow with what arrives, not with what is announced: a lying length then costs nothing.
	for left := n + 2; left > 0; {
		chunk := min(left, 64<<10)
		at := len(r.raw)
		r.raw = append(r.raw, make([]byte, chunk)...)
		got, err := io.ReadFull(r.br, r.raw[at:])
		if err != nil {
			r.raw = r.raw[:at+got]
			return err
		}
		left -= chunk
	}
	if end := r.raw[len(r.raw)-2:]; end[0] != '\r' || end[1] != '\n' {
		return fmt.Errorf("%w: a string of %d bytes does not end there", ErrProtocol, n)
	}
	v.Text = string(r.raw[start : start+n])
	return nil
}

func (r *Reader) elems(v *Value, count string, each, depth int) error {
	n, err := length(count, maxElems)
	if err != nil {
		return err
	}
	if n < 0 {
		v.Null = true
		return nil
	}
	v.Elems = make([]Value, 0, min(n*each, 1024))
	for range n * each {
		e, err := r.value(depth + 1)
		if err != nil {
			return err
		}
		v.Elems = append(v.Elems, e)
	}
	return nil
}

// line reads up to CRLF, or up to LF alone, which servers accept in inline commands.
func (r *Reader) line() (string, error) {
	start := len(r.raw)
	for {
		part, err := r.br.ReadSlice('\n')
		r.raw = append(r.raw, part...)
		if len(r.raw)-start > maxLine {
			return "", fmt.Errorf("%w: a line is longer than %d bytes", ErrProtocol, maxLine)
		}
		if err == nil {
			return strings.TrimSuffix(string(r.raw[start:len(r.raw)-1]), "\r"), nil
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return "", err
		}
	}
}

func length(digits string, most int) (int, error) {
	n, err := strconv.Atoi(digits)
	if err != nil || n < -1 || n > most {
		return 0, fmt.Errorf("%w: length %q", ErrProtocol, digits)
	}
	return n, nil
}
