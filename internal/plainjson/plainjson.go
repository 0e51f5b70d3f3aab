// Package plainjson is the one encoder of JSON that Waggle stores and prints: text stays as it was written. What
// encoding/json does for browsers, six bytes for each & < and >, would make payloads larger than they are, and give the
// same text a different form from each side.
package plainjson

import (
	"encoding/json"
)

// Marshal is [json.Marshal] without escapes for HTML.
func Marshal(v any) ([]byte, error) {
	var b line
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return b, nil
}

// String returns a text as a JSON string. What is not valid UTF-8 is replaced by U+FFFD.
func String[T ~string | ~[]byte](text T) []byte {
	b, _ := Marshal(string(text)) // a string always encodes
	return b
}

// line takes the one line that an encoder writes, without its end, in memory of its own.
type line []byte

func (l *line) Write(b []byte) (int, error) {
	n := len(b)
	if n > 0 && b[n-1] == '\n' {
		b = b[:n-1]
	}
	*l = append(*l, b...)
	return n, nil
}
