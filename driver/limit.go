package driver

import (
	"fmt"
	"math"
	"time"
)

// Limit bounds how many tasks are active at once, or how many start per time, over all workers: of a queue, of one type
// in it, of each key in it, or of each key of one type. A task to which several limits apply starts when all of them let it.
// What counts against Concurrency is what is active, so a slot is free as soon as a task is settled, given back or recovered from a
// worker that died. A start counts against Rate for good, also if the task was given back afterwards.
//
// A task that a limit holds back stays available. It spends no attempt, keeps its place, and is not looked at again until
// something has changed for it; tasks that the limit does not concern go past it.
type Limit struct {
	Type        string        `json:"type,omitzero"`        // the type it is for; empty: all types of the queue together
	PerKey      bool          `json:"per_key,omitzero"`     // for each key by itself; tasks without a key are not concerned
	Concurrency int           `json:"concurrency,omitzero"` // active at once, 1…[MaxConcurrency]; 0: no bound
	Rate        int           `json:"rate,omitzero"`        // starts per Per, one a microsecond at most; 0: no bound
	Per         time.Duration `json:"per,omitzero"`         // 1ms…[MaxRatePer]; with a Rate, 0 means a second
	// Burst is how many tasks may start at once after a rest, 1…[MaxConcurrency]; with a Rate, 0 means what a tenth of a
	// second allows, at least 1: so much lateness of workers costs no starts.
	Burst int `json:"burst,omitzero"`
}

// Bounds of limits.
const (
	MaxConcurrency = 1_000_000
	MaxRatePer     = 31 * 24 * time.Hour
	MaxLimits      = 64 // of a queue
)

// Scope names what a limit is for: two limits of a queue never have the same.
func (l Limit) Scope() string {
	switch {
	case l.Type != "" && l.PerKey:
		return "each key of type " + l.Type
	case l.Type != "":
		return "type " + l.Type
	case l.PerKey:
		return "each key"
	}
	return "the queue"
}

func (l Limit) sameScope(other Limit) bool { return l.Type == other.Type && l.PerKey == other.PerKey }

// Concerns reports whether the limit holds for tasks of a type, with or without a key.
func (l Limit) Concerns(typ, key string) bool {
	return (l.Type == "" || l.Type == typ) && (!l.PerKey || key != "")
}

// WithDefaults returns the limit with what its zero fields mean, or [ErrInvalid].
func (l Limit) WithDefaults() (Limit, error) {
	if l.Type != "" {
		if err := CheckName("limit's task type", l.Type, MaxNameLen); err != nil {
			return l, err
		}
	}
	switch {
	case l.Concurrency == 0 && l.Rate == 0:
		return l, Invalidf("the limit of %s bounds nothing: give it a concurrency or a rate of 1 or more", l.Scope())
	case l.Concurrency < 0 || l.Concurrency > MaxConcurrency:
		return l, Invalidf("the concurrency of a limit must be between 1 and %d, got %d", MaxConcurrency, l.Concurrency)
	case l.Rate < 0:
		return l, Invalidf("the rate of a limit must be 1 or more, got %d", l.Rate)
	case l.Rate == 0 && (l.Per != 0 || l.Burst != 0):
		return l, Invalidf("a limit has a time or a burst only with a rate")
	case l.Rate == 0:
		return l, nil
	case l.Per < 0 || l.Per > 0 && l.Per < time.Millisecond || l.Per > MaxRatePer:
		return l, Invalidf("the time of a rate must be between 1ms and %v, got %v", MaxRatePer, l.Per)
	case l.Burst < 0 || l.Burst > MaxConcurrency:
		return l, Invalidf("the burst of a limit must be between 1 and %d, got %d", MaxConcurrency, l.Burst)
	}
	if l.Per == 0 {
		l.Per = time.Second
	}
	if int64(l.Rate) > l.Per.Microseconds() {
		return l, Invalidf("the rate of a limit can be one start a microsecond at most, got %d per %v", l.Rate, l.Per)
	}
	if l.Burst == 0 {
		l.Burst = max(1, int(float64(l.Rate)*float64(time.Second/10)/float64(l.Per)))
	}
	return l, nil
}

// Arrival is the state of one rate limit, by the generic cell rate algorithm in its form as virtual scheduling (ITU-T
// Recommendation I.371, annex A): the theoretical arrival time of the next start, in milliseconds from [ArrivalEpoch]. A start conforms
// if it does not come before that time less the tolerance, (Burst-1)·Per/Rate. So in any time t there are at most
// Burst + t·Rate/Per starts, and exactly that many if there is always a task and a worker.
type Arrival float64

// ArrivalEpoch is the time from which arrivals count, 2025-01-01 in milliseconds: so that a float64 tells nanoseconds.
const ArrivalEpoch = 1_735_689_600_000

// RateKey names the state of the limit's rate among those of a queue or a key. A rate that was changed begins anew.
func (l *Limit) RateKey() string {
	return fmt.Sprintf("%d/%d+%d:%s", l.Rate, l.Per.Nanoseconds(), l.Burst, l.Type)
}

// interval is the time between two starts, in milliseconds.
func (l *Limit) interval() float64 {
	return float64(l.Per) / float64(time.Millisecond) / float64(l.Rate)
}

// Opens is when the next start conforms to the limit's rate, in milliseconds since 1970, rounded up. A past time means now.
func (l *Limit) Opens(a Arrival) int64 {
	return ArrivalEpoch + int64(math.Ceil(float64(a)-float64(l.Burst-1)*l.interval()))
}

// Started is the state after a start at a time in milliseconds since 1970.
func (l *Limit) Started(a Arrival, now int64) Arrival {
	return Arrival(math.Max(float64(a), float64(now-ArrivalEpoch)) + l.interval())
}

// CheckLimits returns the limits of a queue with their defaults, or [ErrInvalid].
func CheckLimits(limits []Limit) ([]Limit, error) {
	if len(limits) > MaxLimits {
		return nil, Invalidf("a queue can have %d limits at most, got %d", MaxLimits, len(limits))
	}
	checked := make([]Limit, len(limits))
	scopes := map[string]bool{}
	for i, l := range limits {
		l, err := l.WithDefaults()
		if err != nil {
			return nil, err
		}
		if scopes[l.Scope()] {
			return nil, Invalidf("there are two limits for %s: give one both a concurrency and a rate", l.Scope())
		}
		checked[i], scopes[l.Scope()] = l, true
	}
	return checked, nil
}
