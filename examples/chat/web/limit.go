package web

import (
	"math"
	"sync"
	"time"
)

// A flood from one client is held back, so that it is the one that waits and not the others. The limits of an address are
// wider, as several clients may share it. This is all that a web server knows of its clients; one that starts anew begins
// with full buckets.
const (
	clientRate, clientBurst   = 30, 60     // messages a second
	addressRate, addressBurst = 1000, 2000 // the same
	mostBuckets               = 10_000
)

// buckets are token buckets by key.
type buckets struct {
	rate, burst float64
	mu          sync.Mutex
	byKey       map[string]bucket
}

type bucket struct {
	tokens float64
	at     time.Time
}

// take takes a token, or says how long it will be until there is one.
func (b *buckets) take(key string, now time.Time) (wait time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.byKey == nil || len(b.byKey) >= mostBuckets {
		b.sweep(now)
	}
	k, known := b.byKey[key]
	if !known {
		k = bucket{b.burst, now}
	}
	k.tokens = math.Min(b.burst, k.tokens+now.Sub(k.at).Seconds()*b.rate)
	k.at = now
	if k.tokens < 1 {
		wait = time.Duration((1 - k.tokens) / b.rate * float64(time.Second))
	} else {
		k.tokens--
	}
	b.byKey[key] = k
	return wait
}

// sweep forgets the buckets that are full again, and if there are too many others, all of them.
func (b *buckets) sweep(now time.Time) {
	kept := map[string]bucket{}
	for key, k := range b.byKey {
		if k.tokens+now.Sub(k.at).Seconds()*b.rate < b.burst {
			kept[key] = k
		}
	}
	if len(kept) >= mostBuckets {
		clear(kept)
	}
	b.byKey = kept
}
