package room

import (
	"encoding/json"
	"fmt"
	"strings"
)

// An entry is kept as a line that says who wrote it, and then the text as it is.

func encodeEntry(m *Message) string {
	head := *m
	head.Text = ""
	return encoded(head) + "\n" + m.Text
}

func decodeEntry(number int64, kept string) (Entry, error) {
	head, text, found := strings.Cut(kept, "\n")
	e := Entry{Number: number}
	if err := json.Unmarshal([]byte(head), &e.Message); err != nil || !found {
		return e, fmt.Errorf("entry %d of the room's log can't be read: %w", number, err)
	}
	e.Text = text
	return e, nil
}

// encoded is a value as JSON, for values that always have one.
func encoded(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// cmpError returns the first error that is one.
func cmpError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
