package cli

import (
	"bytes"
	"fmt"
	"io"
	"sync"
	"time"
)

const (
	sideRoom     = 1 << 20                // bytes of lines that wait for a reader that is slower than they come
	sidePatience = 500 * time.Millisecond // how long the end of a command waits for its last lines to be read
)

// sideWriter is a writer that nobody ever waits for: what is written, whole lines each time, goes out on a goroutine of
// its own. Lines that the reader does not take in time, or never will, are dropped, and their number is told when there
// is room again.
type sideWriter struct {
	w io.Writer

	mu      sync.Mutex
	lines   [][]byte
	size    int
	busy    bool // the goroutine runs
	dropped int  // lines since the last that was told
	waiting []chan struct{}
}

func newSideWriter(w io.Writer) *sideWriter { return &sideWriter{w: w} }

// Write takes whole lines. It never fails and never blocks.
func (s *sideWriter) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.size+len(p) > sideRoom {
		s.dropped += bytes.Count(p, []byte("\n"))
		return len(p), nil
	}
	s.lines, s.size = append(s.lines, bytes.Clone(p)), s.size+len(p)
	if !s.busy {
		s.busy = true
		go s.run()
	}
	return len(p), nil
}

func (s *sideWriter) run() {
	for {
		p, notice, ok := s.next()
		if !ok {
			return
		}
		if _, err := s.w.Write(p); err != nil && !notice {
			s.mu.Lock()
			s.dropped += bytes.Count(p, []byte("\n")) // nobody reads, now or ever
			s.mu.Unlock()
		}
	}
}

// next takes what is to be written next. It reports false when there is nothing, and that the goroutine ends.
func (s *sideWriter) next() (p []byte, notice, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dropped > 0 && s.size <= sideRoom/2 {
		p = fmt.Appendf(nil, "waggle: %s dropped: nobody read them in time\n", wasOrWere(s.dropped, "log line"))
		s.dropped = 0
		return p, true, true
	}
	if len(s.lines) > 0 {
		p, s.lines = s.lines[0], s.lines[1:]
		s.size -= len(p)
		return p, false, true
	}
	s.lines, s.busy = nil, false
	for _, w := range s.waiting {
		close(w)
	}
	s.waiting = nil
	return nil, false, false
}

// wasOrWere is "1 log line was", "2 log lines were".
func wasOrWere(n int, what string) string {
	verb := " were"
	if n == 1 {
		verb = " was"
	}
	return plural(n, what) + verb
}

// flush waits until all was written, for a limited time.
func (s *sideWriter) flush(limit time.Duration) {
	s.mu.Lock()
	if !s.busy {
		s.mu.Unlock()
		return
	}
	done := make(chan struct{})
	s.waiting = append(s.waiting, done)
	s.mu.Unlock()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
	}
}
