package driver

import (
	"math"
	"math/rand/v2"
	"time"
)

// Backoff is how long a failed task waits for its next attempt: exponential with full jitter, as in "Exponential
// Backoff And Jitter" (AWS Architecture Blog, 2015): a random time between 0 and min(Cap, Base·Factor^(n-1)) after the
// n-th failure. Jitter spreads the retries of tasks that failed together.
type Backoff struct {
	Base   time.Duration `json:"base,omitzero"`   // 0: 1s
	Cap    time.Duration `json:"cap,omitzero"`    // 0: a week
	Factor float64       `json:"factor,omitzero"` // 0: 2
	// Fixed turns the jitter off: the delay is the upper bound itself.
	Fixed bool `json:"fixed,omitzero"`
}

// Max returns the longest delay after the n-th failure, n ≥ 1.
func (b Backoff) Max(n int) time.Duration {
	base, limit, factor := b.Base, b.Cap, b.Factor
	if base == 0 {
		base = time.Second
	}
	if limit == 0 {
		limit = 7 * 24 * time.Hour
	}
	if factor == 0 {
		factor = 2
	}
	d := float64(base) * math.Pow(factor, float64(max(n, 1)-1))
	if d >= float64(limit) { // also +Inf
		return limit
	}
	return time.Duration(d)
}

// Delay returns the delay after the n-th failure, n ≥ 1.
func (b Backoff) Delay(n int) time.Duration {
	d := b.Max(n)
	if b.Fixed || d <= 0 {
		return d
	}
	return rand.N(min(d, math.MaxInt64-1) + 1)
}

// Validate returns [ErrInvalid] if a field is out of range.
func (b Backoff) Validate() error {
	switch {
	case b.Base < 0 || b.Cap < 0:
		return Invalidf("a backoff's base and cap must not be negative, got %v and %v", b.Base, b.Cap)
	case b.Factor != 0 && (b.Factor < 1 || b.Factor > 100 || math.IsNaN(b.Factor)):
		return Invalidf("a backoff's factor must be between 1 and 100, got %v", b.Factor)
	}
	return nil
}
