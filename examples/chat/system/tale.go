package system

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/waggleq/waggle/examples/chat/wire"
)

// The tones of a line.
const (
	bad  = "bad"
	good = "good"
)

const linesKept = 100

// tale is what happened, in short sentences.
type tale struct {
	say func(wire.ToProcess)

	mu    sync.Mutex
	lines []wire.Line
	count int
	over  bool
}

func newTale(say func(wire.ToProcess)) *tale { return &tale{say: say} }

func (t *tale) tell(tone, format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.over {
		return
	}
	t.count++
	l := wire.Line{Number: t.count, At: time.Now().UTC(), Text: fmt.Sprintf(format, args...), Tone: tone}
	t.lines = append(t.lines, l)
	t.lines = t.lines[max(0, len(t.lines)-linesKept):]
	t.say(wire.ToProcess{Line: &l})
}

func (t *tale) all() []wire.Line {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.lines)
}

func (t *tale) closed() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.over
}

// close ends the tale: that processes end from now on is nothing to tell.
func (t *tale) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.over = true
}
