package cli

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/waggleq/waggle"
	"github.com/waggleq/waggle/internal/plainjson"
)

// lineReader reads the lines of a stream of any size in bounded memory.
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

// lineParser makes a task of a line. What is wrong with the line is a reason that goes on from "line 7 ".
type lineParser func(text []byte) (task waggle.NewTask, wrong string)

// task returns the task of the next line. Its error is a [*badLine] for a line that is not a task, io.EOF at the end, or what
// the stream returned.
func (l *lineReader) task(parse lineParser) line {
	text, number, err := l.next()
	if err != nil {
		return line{number: number, err: err}
	}
	task, wrong := parse(text)
	if wrong != "" {
		return line{number: number, err: &badLine{number, wrong}}
	}
	return line{number: number, task: task, size: len(text)}
}

// stringTask makes the text of a line the payload, as a JSON string.
func stringTask(typ string, opts *waggle.EnqueueOptions) lineParser {
	return func(text []byte) (waggle.NewTask, string) {
		return waggle.NewTask{Type: typ, Payload: json.RawMessage(plainjson.String(text)), Options: opts}, ""
	}
}

// maxLineOptions is what a line of JSON may have beside its payload.
const maxLineOptions = 64 << 10

// jsonProblem tells what is wrong with a line, without the names of Go's types.
func jsonProblem(err error) string {
	var wrong *json.UnmarshalTypeError
	switch {
	case errors.As(err, &wrong) && wrong.Field == "":
		return "it is a JSON " + wrong.Value + ", not an object"
	case errors.As(err, &wrong):
		return fmt.Sprintf("%q can't be a %s", wrong.Field, wrong.Value)
	}
	return strings.TrimPrefix(err.Error(), "json: ")
}

// wholeTask reads a task in JSON: its type, its payload, and options either beside them or in an object of their own. What
// they leave out is as in usual.
func wholeTask(usual *waggle.EnqueueOptions) lineParser {
	defaults, err := optionFields(usual)
	return func(text []byte) (waggle.NewTask, string) {
		var fields map[string]json.RawMessage
		d := json.NewDecoder(bytes.NewReader(text))
		if e := cmp.Or(err, d.Decode(&fields)); e != nil {
			return waggle.NewTask{}, "is not a task: " + jsonProblem(e)
		}
		if _, e := d.Token(); !errors.Is(e, io.EOF) {
			return waggle.NewTask{}, "is more than one JSON value"
		}
		task, e := taskOf(defaults, fields)
		if e != nil {
			return waggle.NewTask{}, "is not a task: " + jsonProblem(e)
		}
		return task, ""
	}
}

// taskOf returns the task that the fields of a line describe.
func taskOf(usual, fields map[string]json.RawMessage) (t waggle.NewTask, err error) {
	own := map[string]json.RawMessage{}
	for name, value := range fields {
		switch name {
		case "type":
			err = json.Unmarshal(value, &t.Type)
		case "payload":
			t.Payload = value
		case "options":
			err = json.Unmarshal(value, &own)
		}
		if err != nil {
			return t, fmt.Errorf("%q: %s", name, strings.TrimPrefix(err.Error(), "json: "))
		}
	}
	if own == nil { // null
		own = map[string]json.RawMessage{}
	}
	for name, value := range fields {
		if name == "type" || name == "payload" || name == "options" {
			continue
		}
		if _, ok := own[name]; ok {
			return t, fmt.Errorf("the option %q is there twice", name)
		}
		own[name] = value
	}
	t.Options, err = optionsOf(usual, own)
	return t, err
}

func optionFields(o *waggle.EnqueueOptions) (map[string]json.RawMessage, error) {
	text, err := json.Marshal(o)
	if err != nil {
		return nil, err
	}
	var fields map[string]json.RawMessage
	return fields, json.Unmarshal(text, &fields)
}

// optionsOf returns the options that own names, with the others from usual.
func optionsOf(usual, own map[string]json.RawMessage) (*waggle.EnqueueOptions, error) {
	fields := maps.Clone(usual)
	if fields == nil {
		fields = make(map[string]json.RawMessage, len(own))
	}
	maps.Copy(fields, own)
	text, err := json.Marshal(fields)
	if err != nil {
		return nil, err
	}
	var opts waggle.EnqueueOptions
	if err := json.Unmarshal(text, &opts); err != nil {
		return nil, err
	}
	known, err := optionFields(&opts)
	if err != nil {
		return nil, err
	}
	for name, value := range own {
		if _, ok := known[name]; !ok && !isZeroJSON(value) {
			return nil, fmt.Errorf("there is no option %q", name)
		}
	}
	return &opts, nil
}

// isZeroJSON reports whether a value is one that an option is left out for.
func isZeroJSON(v json.RawMessage) bool {
	return slices.Contains([]string{`null`, `false`, `0`, `""`, `[]`, `{}`, `"0s"`}, string(bytes.TrimSpace(v)))
}

// next returns the next line, without its end (LF or CRLF), and its number from 1. It is good until the call after. It
// returns a [*badLine] for a line that is not text or too long, io.EOF at the end, or what the stream returned.
func (l *lineReader) next() (text []byte, number int, err error) {
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
	return l.line, l.n, nil
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
