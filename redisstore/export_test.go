package redisstore

import "time"

// SetOffset moves the clock that the store's scripts see.
func SetOffset(s *Store, d time.Duration) { s.offset.Store(d.Milliseconds()) }

// SetCheckEvery sets how often a running store looks whether its server is still safe.
func SetCheckEvery(s *Store, d time.Duration) {
	s.health.mu.Lock()
	defer s.health.mu.Unlock()
	s.health.every = d
}
