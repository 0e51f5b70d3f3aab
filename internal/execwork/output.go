package execwork

import (
	"bytes"
	"encoding/json"
	"strings"
	"unicode/utf8"

	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/internal/plainjson"
)

// Output is what a command wrote to standard output.
type Output struct {
	// Result is one JSON value: the output itself if it is JSON, else a JSON string of the text without its last line
	// break. If the output is not valid UTF-8, Raw is set and Result is its bytes. It is empty for an empty output, and
	// [driver.MaxResultBytes] long at most.
	Result []byte
	Raw    bool
	// Cut is set if the output was longer than a result may be: Result has its beginning, and a text ends in a mark.
	Cut bool
	// Written is how many bytes the command wrote.
	Written int64
}

// cutMark ends a text that was cut.
const cutMark = " …[cut]"

// head keeps the first limit bytes written to it, and counts the rest.
type head struct {
	limit   int
	buf     []byte
	written int64
}

// Write keeps what fits. It never fails, so that a command is not stopped for talking too much.
func (h *head) Write(p []byte) (int, error) {
	h.written += int64(len(p))
	h.buf = append(h.buf, p[:min(len(p), h.limit-len(h.buf))]...)
	return len(p), nil
}

func (h *head) output() *Output {
	out := &Output{Written: h.written, Cut: h.written > int64(len(h.buf))}
	text := h.buf
	if out.Cut {
		text = wholeRunes(text)
	}
	switch value := bytes.TrimSpace(text); {
	case !utf8.Valid(text):
		out.Result, out.Raw = h.buf, true
	case len(text) == 0:
	case !out.Cut && json.Valid(value):
		out.Result = value
	default:
		var shortened bool
		out.Result, shortened = jsonText(trimLineBreak(string(text), out.Cut), out.Cut)
		out.Cut = out.Cut || shortened
	}
	return out
}

func trimLineBreak(text string, cut bool) string {
	if cut {
		return text
	}
	text = strings.TrimSuffix(text, "\n")
	return strings.TrimSuffix(text, "\r")
}

// wholeRunes drops a character that was cut in its middle.
func wholeRunes(b []byte) []byte {
	for back := 1; back < utf8.UTFMax && back <= len(b); back++ {
		if c := b[len(b)-back]; utf8.RuneStart(c) {
			if !utf8.FullRune(b[len(b)-back:]) {
				return b[:len(b)-back]
			}
			break
		}
	}
	return b
}

// jsonText encodes a text as a JSON string of at most [driver.MaxResultBytes]. Escapes may make it longer than the
// text, so it may have to be cut even if the text alone would fit.
func jsonText(text string, cut bool) (encoded []byte, shortened bool) {
	for {
		mark := ""
		if cut {
			mark = cutMark
		}
		encoded = plainjson.String(text + mark)
		over := len(encoded) - driver.MaxResultBytes
		if over <= 0 {
			return encoded, shortened
		}
		cut, shortened = true, true
		// One byte of text becomes six of JSON at most, so this never takes off too much, and comes to an end.
		text = string(wholeRunes([]byte(text[:len(text)-(over+5)/6])))
	}
}
