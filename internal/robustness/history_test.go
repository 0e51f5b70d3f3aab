package robustness

import (
	"encoding/json"
	"os"
	"sync"
	"time"

	"github.com/waggleq/waggle"
	"github.com/waggleq/waggle/driver"
)

// history is the file to which a process appends what it does, one JSON object a line, each with one write, so that what
// a killed process wrote is there.
type history struct {
	mu   sync.Mutex
	file *os.File
	who  string
}

func openHistory(path, who string) (*history, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	return &history{file: f, who: who}, nil
}

// handled is a handler's run.
type handled struct {
	Kind   string    `json:"kind"`
	At     time.Time `json:"at"`
	Task   string    `json:"task"`
	Token  int64     `json:"token"`
	Worker string    `json:"worker"`
	Err    string    `json:"err,omitzero"`
}

func (h *history) write(v any) {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // only plain data is written
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	_, _ = h.file.Write(append(b, '\n'))
}

func (h *history) record(s driver.Store) driver.Store { return s }

type run struct {
	h *history
	l handled
}

func (h *history) begin(t *waggle.Task) *run {
	r := &run{h, handled{"start", time.Now(), t.ID, t.Token(), t.Worker(), ""}}
	h.write(r.l)
	return r
}

func (r *run) end(err error) {
	r.l.Kind, r.l.At = "end", time.Now()
	if err != nil {
		r.l.Err = err.Error()
	}
	r.h.write(r.l)
}
