package system

import (
	"io"
	"sync"

	"github.com/waggleq/waggle/examples/chat/wire"
	"github.com/waggleq/waggle/examples/stage"
)

// mailbox holds what a process is to be told. A process that reads nothing, as it is frozen, keeps nobody waiting: of the
// states of the system it gets the last one.
type mailbox struct {
	mu     sync.Mutex
	some   *sync.Cond
	lines  []wire.ToProcess
	state  *wire.State
	closed bool
}

func newMailbox(to io.WriteCloser) *mailbox {
	b := &mailbox{}
	b.some = sync.NewCond(&b.mu)
	go func() {
		defer to.Close()
		w := stage.NewWriter(to)
		for {
			m, ok := b.next()
			if !ok || w.Write(m) != nil {
				return
			}
		}
	}()
	return b
}

func (b *mailbox) put(m wire.ToProcess) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if m.State != nil {
		b.state = m.State
	} else {
		b.lines = append(b.lines, m)
	}
	b.some.Signal()
}

// next waits for the next line; it returns false when the mailbox is closed.
func (b *mailbox) next() (wire.ToProcess, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for !b.closed && len(b.lines) == 0 && b.state == nil {
		b.some.Wait()
	}
	if b.closed {
		return wire.ToProcess{}, false
	}
	if len(b.lines) > 0 {
		m := b.lines[0]
		b.lines = b.lines[1:]
		return m, true
	}
	m := wire.ToProcess{State: b.state}
	b.state = nil
	return m, true
}

func (b *mailbox) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	b.some.Signal()
}
