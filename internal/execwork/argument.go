package execwork

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// fillIn returns the arguments with {} replaced. A payload that can't stand there is an [ErrDiscard]: the next attempt
// would have the same.
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
		return "", fmt.Errorf("%w: {} stands for a payload that is a JSON string, this one is raw bytes: read it from standard input instead", ErrDiscard)
	case len(payload) == 0 || payload[0] != '"':
		return "", fmt.Errorf("%w: {} stands for a payload that is a JSON string, this one is %s: read it from standard input instead", ErrDiscard, jsonKind(payload))
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

func jsonKind(payload []byte) string {
	if len(payload) == 0 {
		return "empty"
	}
	switch payload[0] {
	case '{':
		return "an object"
	case '[':
		return "a list"
	case 't', 'f':
		return "a boolean"
	case 'n':
		return "null"
	}
	return "a number"
}
