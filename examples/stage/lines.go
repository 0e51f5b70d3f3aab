package stage

import (
	"bufio"
	"encoding/json"
	"io"
	"sync"
)

// Writer writes values as lines of JSON. It may be used concurrently.
type Writer struct {
	mu sync.Mutex
	w  io.Writer
}

// NewWriter returns a writer of lines.
func NewWriter(w io.Writer) *Writer { return &Writer{w: w} }

// Write writes a value as a line.
func (w *Writer) Write(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	_, err = w.w.Write(append(b, '\n'))
	return err
}

// Read calls f with each line that is a T, until the other end is gone.
func Read[T any](r io.Reader, f func(T)) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var v T
		if err := json.Unmarshal(lines.Bytes(), &v); err != nil {
			return err
		}
		f(v)
	}
	return lines.Err()
}
