// Package schedule understands plans of the kind "schedule": what their bodies say, and which tasks their ticks bring about.
//
// It is pure: [Step] looks at no clock and no store. That each tick fires once is the store's doing: a step is accepted
// only from the version that it was worked out from, and the task of a tick has the id that follows from the schedule's
// name and the tick.
package schedule

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"sync"
	"time"
	_ "time/tzdata" // zones are known wherever the program runs

	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/internal/cron"
)

// Kind is the kind of plan that a schedule is.
const Kind = "schedule"

// Ref names the plan of a schedule.
func Ref(name string) driver.PlanRef { return driver.PlanRef{Kind: Kind, Name: name} }

// The states of a schedule.
const (
	Active = "active"
	Paused = "paused"
	Ended  = "ended" // it has no more ticks
)

// What becomes of ticks that came due while no worker ran.
const (
	MissedSkip    = "skip"     // they are left out
	MissedOnce    = "once"     // the last of them fires, for all
	MissedCatchUp = "catch-up" // each fires, the newest CatchUp of them
)

// What becomes of a tick while a task of an earlier one has not ended.
const (
	OverlapAllow   = "allow"   // it fires
	OverlapSkip    = "skip"    // it is left out
	OverlapReplace = "replace" // that task is cancelled, and it fires
	OverlapWait    = "wait"    // it fires when that task has ended
)

const (
	// DefaultCatchUp is how many missed ticks fire at most, MaxCatchUp the most that can be asked for.
	DefaultCatchUp, MaxCatchUp = 10, 1000
	// Grace is how late a tick may be before it counts as missed, even if no other has come due since.
	Grace = time.Minute
	// maxWaiting is how many ticks wait at most for the end of a task.
	maxWaiting = 100
	// MaxJitter bounds the jitter.
	MaxJitter = 24 * time.Hour
)

// Spec is what somebody has asked for.
type Spec struct {
	Line    string `json:"line"`
	Zone    string `json:"tz"` // empty: UTC
	Type    string `json:"type"`
	Queue   string `json:"queue,omitzero"`
	Payload []byte `json:"payload,omitzero"` // JSON, kept as it was written

	Priority    int               `json:"priority,omitzero"`
	MaxAttempts int               `json:"max_attempts,omitzero"`
	Timeout     time.Duration     `json:"timeout,omitzero"`
	ExpiresIn   time.Duration     `json:"expires_in,omitzero"`
	Headers     map[string]string `json:"headers,omitzero"`
	Tags        []string          `json:"tags,omitzero"`

	Missed  string        `json:"missed"`
	CatchUp int           `json:"catch_up,omitzero"`
	Overlap string        `json:"overlap"`
	Jitter  time.Duration `json:"jitter,omitzero"`
}

// Body is what is stored of a schedule.
type Body struct {
	Spec
	ByCode bool      `json:"by_code,omitzero"` // declared in a program, and not edited since
	Anchor time.Time `json:"anchor"`           // what the ticks of an @every line are counted from
	Last   time.Time `json:"last"`             // ticks up to this one have been dealt with
	Paused bool      `json:"paused,omitzero"`

	Running []Run       `json:"running,omitzero"`
	Waiting []time.Time `json:"waiting,omitzero"` // ticks that fire when what runs has ended
	LastRun *Run        `json:"last_run,omitzero"`
	Skipped *Skip       `json:"skipped,omitzero"` // the newest tick that was left out
	Fired   int64       `json:"fired"`            // ticks, ever
	Left    int64       `json:"left"`             // ticks left out, ever, as far as they were counted
}

// Run is the firing of a tick.
type Run struct {
	Tick   time.Time     `json:"tick"`
	Task   string        `json:"task"`
	Step   string        `json:"-"`
	Manual bool          `json:"manual,omitzero"`
	State  driver.State  `json:"state,omitzero"` // how the task ended; empty: it has not, or was deleted or refused
	Reason driver.Reason `json:"reason,omitzero"`
	Error  string        `json:"error,omitzero"`
	Ended  time.Time     `json:"ended,omitzero"`
}

// Skip says why a tick did not fire.
type Skip struct {
	Tick time.Time `json:"tick"`
	Why  string    `json:"why"`
}

// WithDefaults returns s with its empty fields set.
func (s Spec) WithDefaults() Spec {
	if s.Zone == "" {
		s.Zone = "UTC"
	}
	if s.Missed == "" {
		s.Missed = MissedCatchUp
	}
	if s.CatchUp == 0 && s.Missed == MissedCatchUp {
		s.CatchUp = DefaultCatchUp
	}
	if s.Overlap == "" {
		s.Overlap = OverlapAllow
	}
	return s
}

// timing is a line with its zone.
type timing struct {
	line *cron.Line
	zone *time.Location
}

// Check returns [driver.ErrInvalid] for a schedule that can't be, or that has no tick after now.
func (s *Spec) Check(name string, now time.Time) error {
	if err := Ref(name).Validate(); err != nil {
		return err
	}
	t, err := s.timing()
	if err != nil {
		return err
	}
	if t.line.Next(now, t.zone, now).IsZero() {
		return driver.Invalidf("the line %q has no time after now: it would never fire", s.Line)
	}
	switch {
	case s.Missed != MissedSkip && s.Missed != MissedOnce && s.Missed != MissedCatchUp:
		return driver.Invalidf("unknown policy %q for missed ticks: use skip, once or catch-up", driver.CutText(s.Missed, 64))
	case s.CatchUp < 0 || s.CatchUp > MaxCatchUp:
		return driver.Invalidf("the number of missed ticks to catch up with must be between 1 and %d, got %d", MaxCatchUp, s.CatchUp)
	case s.Overlap != OverlapAllow && s.Overlap != OverlapSkip && s.Overlap != OverlapReplace && s.Overlap != OverlapWait:
		return driver.Invalidf("unknown overlap policy %q: use allow, skip, replace or wait", driver.CutText(s.Overlap, 64))
	case s.Jitter < 0 || s.Jitter > MaxJitter:
		return driver.Invalidf("the jitter must be between 0 and %v, got %v", MaxJitter, s.Jitter)
	case s.ExpiresIn < 0 || s.ExpiresIn > 0 && s.ExpiresIn < time.Millisecond:
		return driver.Invalidf("the time to expiry must be at least 1ms, got %v", s.ExpiresIn)
	}
	task := s.task(name, "check", now, now)
	return driver.Prepare(task, driver.Capabilities{Plans: true, Limit: driver.Limits{MaxPayload: 16 << 20}}, now)
}

var zones sync.Map // name → *time.Location

func (s *Spec) timing() (timing, error) {
	line, err := cron.Parse(s.Line)
	if err != nil {
		return timing{}, driver.Errorf(driver.ErrInvalid, "%w", err)
	}
	zone, err := Zone(s.Zone)
	return timing{line, zone}, err
}

// Zone returns the zone with a name.
func Zone(name string) (*time.Location, error) {
	if zone, ok := zones.Load(name); ok {
		return zone.(*time.Location), nil
	}
	zone, err := time.LoadLocation(name)
	if err != nil || name == "Local" {
		return nil, driver.Invalidf("there is no time zone %q: use a name like Europe/Berlin or UTC", driver.CutText(name, 64))
	}
	zones.Store(name, zone)
	return zone, nil
}

// Tick is a time at which a schedule fires.
type Tick struct {
	At   time.Time // in the schedule's zone
	Note string    // what a change of the clock does to it
}

// Next returns the next n ticks after a time.
func (s *Spec) Next(after, anchor time.Time, n int) ([]Tick, error) {
	t, err := s.timing()
	if err != nil {
		return nil, err
	}
	var list []Tick
	for at := t.line.Next(after, t.zone, anchor); len(list) < n && !at.IsZero(); at = t.line.Next(at, t.zone, anchor) {
		list = append(list, Tick{at, t.line.Note(at, t.zone)})
	}
	return list, nil
}

// Headers that the tasks of a schedule have.
const (
	HeaderName = "waggle-schedule"
	HeaderTick = "waggle-tick" // RFC 3339
)

// task returns the task of a tick.
func (s *Spec) task(name, step string, tick, now time.Time) *driver.Task {
	ref := Ref(name)
	t := &driver.Task{
		ID: driver.PlanTaskID(ref, step), Type: s.Type, Queue: s.Queue, Payload: s.Payload, Encoding: driver.EncodingJSON,
		Priority: s.Priority, MaxAttempts: s.MaxAttempts, Timeout: s.Timeout, Tags: s.Tags,
		Plan:    &driver.TaskPlan{PlanRef: ref, Step: step},
		Headers: map[string]string{HeaderName: name, HeaderTick: tick.Format(time.RFC3339Nano)},
	}
	for k, v := range s.Headers {
		t.Headers[k] = v
	}
	if s.Jitter > 0 {
		t.At = tick.Add(jitter(name, step, s.Jitter))
	}
	if s.ExpiresIn > 0 {
		from := now
		if t.At.After(now) {
			from = t.At
		}
		t.ExpiresAt = from.Add(s.ExpiresIn)
	}
	return t
}

// jitter returns the same part of a span for the same tick.
func jitter(name, step string, span time.Duration) time.Duration {
	h := fnv.New64a()
	_, _ = h.Write([]byte(name + "\x00" + step))
	x := h.Sum64()
	x ^= x >> 33 // the finalizer of MurmurHash3: similar names are to have nothing in common
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	return time.Duration(x % uint64(span/time.Millisecond+1) * uint64(time.Millisecond))
}

// stepOf labels a tick.
func stepOf(tick time.Time) string { return tick.UTC().Format("2006-01-02T15:04:05.000Z") }

// Encode returns the stored form of a body.
func (b *Body) Encode() []byte {
	text, err := json.Marshal(b)
	if err != nil {
		panic(fmt.Sprintf("schedule: %v", err)) // the payload was checked, and the rest can't fail
	}
	return text
}

// Decode reads a body.
func Decode(text []byte) (*Body, error) {
	b := &Body{}
	if err := json.Unmarshal(text, b); err != nil {
		return nil, driver.Errorf(driver.ErrCorrupt, "the schedule can't be read: %w", err)
	}
	return b, nil
}
