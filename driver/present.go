package driver

import "time"

// StateAt returns the state that a task is in at the store's present, by the state that was recorded last, when it is or
// was due and when it expires (zero: never). A scheduled or retryable task is available from its time on, and an available
// one is discarded from its expiry on, whether or not anybody has come by to record it.
func StateAt(recorded State, due, expires, now time.Time) State {
	if (recorded == Scheduled || recorded == Retryable) && !due.After(now) {
		recorded = Available
	}
	if recorded == Available && !expires.IsZero() && !expires.After(now) {
		recorded = Discarded
	}
	return recorded
}

// Present makes r, as it was recorded, what it is at the store's present: see [StateAt]. What has expired since ended when
// it did, or when it became due or was given back after its expiry.
func (r *Record) Present(now time.Time) {
	state := StateAt(r.State, r.DueAt, r.ExpiresAt, now)
	if state == Discarded && r.State != Discarded {
		r.Reason, r.EndedAt = ReasonExpired, r.ExpiresAt
		for _, t := range []time.Time{r.DueAt, r.ClaimedAt} {
			if t.After(r.EndedAt) {
				r.EndedAt = t
			}
		}
	}
	r.State = state
}
