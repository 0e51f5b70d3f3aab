package execwork

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/waggleq/waggle/driver"
)

// fillIn returns the arguments with {} replaced: by the text of a JSON string, and by numbers, booleans and null as they are
// written. Other payloads are [ErrUnfit]. A string that no argument can hold is an [ErrDiscard]: the next attempt would
// have the same.
func fillIn(args []string, in *Input) ([]string, error) {
	if !slices.Contains(args, Placeholder) {
		return args, nil
	}
	value, err := argument(in)
	if err != nil {
		return nil, err
	}
	filled := slices.Clone(args)
	for i, a := range filled {
		if a == Placeholder {
			filled[i] = value
		}
	}
	return filled, nil
}

// argument returns the payload as one argument.
func argument(in *Input) (string, error) {
	payload := bytes.TrimSpace(in.Payload)
	switch {
	case in.Raw:
		return "", unfit("raw bytes")
	case len(payload) == 0:
		return "", unfit("empty")
	case payload[0] == '{':
		return "", unfit("an object")
	case payload[0] == '[':
		return "", unfit("a list")
	case payload[0] != '"' && json.Valid(payload):
		return string(payload), nil
	}
	var value string
	if err := json.Unmarshal(payload, &value); err != nil {
		return "", fmt.Errorf("%w: the payload is not valid JSON: %w", ErrDiscard, err)
	}
	switch {
	case strings.ContainsRune(value, 0):
		return "", fmt.Errorf("%w: the payload has a NUL character, which no argument can hold: read it from standard input instead", ErrDiscard)
	case replaced(payload, value):
		return "", fmt.Errorf("%w: the payload is not valid Unicode, so {} would stand for another text: read it from standard input instead", ErrDiscard)
	}
	return value, nil
}

// replaced reports whether decoding put a replacement character where the payload had bytes that are no text.
func replaced(payload []byte, value string) bool {
	written := bytes.Count(payload, []byte("\uFFFD")) + bytes.Count(bytes.ToLower(payload), []byte(`\ufffd`))
	return !utf8.Valid(payload) || strings.Count(value, "\uFFFD") > written
}

// ErrUnfit is wrapped by errors of payloads of a kind that {} can't stand for: who runs such a command on them has made a
// mistake, and the tasks are sound.
var ErrUnfit = errors.New("not for {}")

func unfit(kind string) error {
	return driver.Errorf(ErrUnfit, "{} stands for a string, a number, a boolean or null, and the payload is %s: leave {} out and read it from standard input", kind)
}
