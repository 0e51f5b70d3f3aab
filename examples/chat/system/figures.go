package system

import "time"

// Figures say what a chat has done.
type Figures struct {
	Room      string `json:"room"`
	Seconds   int    `json:"seconds"`
	Messages  int64  `json:"messages"` // in the room's log
	Chunks    int64  `json:"chunks"`   // through the queue
	Discarded int64  `json:"discarded"`
	Faults    int    `json:"faults"` // nodes that were killed or frozen
}

// Figures returns what happened so far. What can't be asked for just now is 0.
func (s *System) Figures() Figures {
	s.watch.mu.Lock()
	f := Figures{Room: s.o.Room, Chunks: s.watch.totals.Completed, Discarded: s.watch.totals.Discarded, Faults: s.watch.faults}
	s.watch.mu.Unlock()
	f.Seconds = int(time.Since(s.since).Seconds())
	f.Messages, _ = s.place.Database.Length(s.life, s.o.Room) // see above
	return f
}

// OwnsDatabase reports whether the chat has started B1, B2 and B3 itself.
func (s *System) OwnsDatabase() bool { return s.database != nil }
