package web

import (
	"sync"

	"github.com/waggleq/waggle/examples/chat/room"
)

// board passes hints on to the pages that draw them. A page that does not keep up misses some: they are for the eye.
type board struct {
	mu   sync.Mutex
	subs map[*subscriber]struct{}
}

type subscriber struct {
	room  string
	hints chan room.Hint
}

func newBoard() *board { return &board{subs: map[*subscriber]struct{}{}} }

func (b *board) join(name string) *subscriber {
	s := &subscriber{name, make(chan room.Hint, 64)}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.subs[s] = struct{}{}
	return s
}

func (b *board) leave(s *subscriber) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.subs, s)
}

func (b *board) put(name string, h room.Hint) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for s := range b.subs {
		if s.room != name {
			continue
		}
		select {
		case s.hints <- h:
		default:
		}
	}
}
