package redisstore

import "time"

// SetOffset moves the clock that the store's scripts see.
func SetOffset(s *Store, d time.Duration) { s.offset.Store(d.Milliseconds()) }
