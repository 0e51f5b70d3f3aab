package waggle

import (
	"encoding/json"
	"time"

	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/internal/plainjson"
)

// EnqueueOptions are the options of one task. The zero value of a field means its default.
//
// They survive JSON, so that they can be kept in files and sent elsewhere: durations are strings such as "1m30s".
type EnqueueOptions struct {
	// ID names the task, [A-Za-z0-9._:-]{1,128}; empty: a new UUIDv7. Enqueueing an id again returns the task that is
	// there, in whatever state; [Receipt].Differs says where it is another than the one handed in.
	ID string
	// RejectDiffering has a task that differs from the one that is there under its ID fail with [ErrDuplicate].
	RejectDiffering bool
	// Queue is where it waits; empty: "default".
	Queue string
	// Priority is -100…100; lower runs first.
	Priority int
	// Key names the tenant or the sequence that the task belongs to, [A-Za-z0-9._:-]{1,128}: the keys of a queue share it
	// fairly, limits can be set for each, and a queue can run each in order. Weight is the key's share, 1…1000; 0: 1.
	Key    string
	Weight int
	// Delay is how long it waits at least, by the store's clock; At is the same as a time. At most one is set.
	Delay time.Duration
	At    time.Time
	// ExpiresIn is after what time it is worthless and is discarded unless it runs or has ended; ExpiresAt is the same
	// as a time. At most one is set.
	ExpiresIn time.Duration
	ExpiresAt time.Time
	// Hold keeps it pending until [Client.RunNow].
	Hold bool
	// MaxAttempts is how often it may fail; 0: what its type's handler says, else the client's, else 25. CrashLimit is how many workers may die with it; 0: 5.
	MaxAttempts int
	CrashLimit  int
	// Timeout is how long one attempt may run; 0: what the handler's options say, or no limit.
	Timeout time.Duration
	// Headers are pairs for the handler, at most 16 KiB. Tags are labels to search by, at most 16.
	Headers map[string]string
	Tags    []string
	// Unique, if not nil, keeps a second task with the same key out.
	Unique *UniqueOptions
	// Durability is the level at which the task has to be stored before the call returns; empty: the client's, else the
	// store's default.
	Durability Durability
}

// UniqueOptions keep tasks with the same key from being in the store twice.
type UniqueOptions struct {
	// Key is 1…256 bytes, one namespace for the whole store. Empty: a hash of type, queue and payload, of which JSON is
	// compared by value.
	Key string
	// Until says how long the task owns the key; empty: [UntilDone]. TTL is how long, with [UntilTTL].
	Until UniqueUntil
	TTL   time.Duration
	// OnConflict says what becomes of a task whose key is taken; empty: [ConflictReturn].
	OnConflict OnConflict
}

// duration is a time.Duration that is a string in JSON.
type duration time.Duration

func (d duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

func (d *duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	if err != nil {
		return driver.Invalidf("%q is not a duration: write it like 1m30s", driver.CutText(string(b), 64))
	}
	*d = duration(v)
	return nil
}

type enqueueOptionsJSON struct {
	ID          string            `json:"id,omitzero"`
	Reject      bool              `json:"reject_differing,omitzero"`
	Queue       string            `json:"queue,omitzero"`
	Priority    int               `json:"priority,omitzero"`
	Key         string            `json:"key,omitzero"`
	Weight      int               `json:"weight,omitzero"`
	Delay       duration          `json:"delay,omitzero"`
	At          time.Time         `json:"at,omitzero"`
	ExpiresIn   duration          `json:"expires_in,omitzero"`
	ExpiresAt   time.Time         `json:"expires_at,omitzero"`
	Hold        bool              `json:"hold,omitzero"`
	MaxAttempts int               `json:"max_attempts,omitzero"`
	CrashLimit  int               `json:"crash_limit,omitzero"`
	Timeout     duration          `json:"timeout,omitzero"`
	Headers     map[string]string `json:"headers,omitzero"`
	Tags        []string          `json:"tags,omitzero"`
	Unique      *UniqueOptions    `json:"unique,omitzero"`
	Durability  Durability        `json:"durability,omitzero"`
}

// MarshalJSON implements [json.Marshaler].
func (o EnqueueOptions) MarshalJSON() ([]byte, error) {
	return plainjson.Marshal(enqueueOptionsJSON{
		o.ID, o.RejectDiffering, o.Queue, o.Priority, o.Key, o.Weight, duration(o.Delay), o.At, duration(o.ExpiresIn), o.ExpiresAt, o.Hold,
		o.MaxAttempts, o.CrashLimit, duration(o.Timeout), o.Headers, o.Tags, o.Unique, o.Durability,
	})
}

// UnmarshalJSON implements [json.Unmarshaler].
func (o *EnqueueOptions) UnmarshalJSON(b []byte) error {
	var j enqueueOptionsJSON
	if err := json.Unmarshal(b, &j); err != nil {
		return err
	}
	if err := noneEmpty(b, "id", "queue", "key"); err != nil {
		return err
	}
	*o = EnqueueOptions{
		j.ID, j.Reject, j.Queue, j.Priority, j.Key, j.Weight, time.Duration(j.Delay), j.At, time.Duration(j.ExpiresIn), j.ExpiresAt, j.Hold,
		j.MaxAttempts, j.CrashLimit, time.Duration(j.Timeout), j.Headers, j.Tags, j.Unique, j.Durability,
	}
	return nil
}

type uniqueOptionsJSON struct {
	Key        string      `json:"key,omitzero"`
	Until      UniqueUntil `json:"until,omitzero"`
	TTL        duration    `json:"ttl,omitzero"`
	OnConflict OnConflict  `json:"on_conflict,omitzero"`
}

// MarshalJSON implements [json.Marshaler].
func (o UniqueOptions) MarshalJSON() ([]byte, error) {
	return plainjson.Marshal(uniqueOptionsJSON{o.Key, o.Until, duration(o.TTL), o.OnConflict})
}

// UnmarshalJSON implements [json.Unmarshaler].
func (o *UniqueOptions) UnmarshalJSON(b []byte) error {
	var j uniqueOptionsJSON
	if err := json.Unmarshal(b, &j); err != nil {
		return err
	}
	if err := noneEmpty(b, "key"); err != nil {
		return err
	}
	*o = UniqueOptions{j.Key, j.Until, time.Duration(j.TTL), j.OnConflict}
	return nil
}

// noneEmpty returns an error if an object has one of these names with an empty string. Who writes that has lost a value on the
// way: without it the task would be another one.
func noneEmpty(object []byte, names ...string) error {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(object, &members); err != nil {
		return err
	}
	for _, name := range names {
		if string(members[name]) == `""` {
			return driver.Invalidf("%q is empty: give it a value or leave it out", name)
		}
	}
	return nil
}

// fill makes t the task to be stored, but for an id that is not the caller's. t may share the payload's bytes,
// and the options' map and slices.
func (o *EnqueueOptions) fill(t *driver.Task, typ string, payload any) error {
	t.Type = typ
	if o != nil {
		t.ID, t.Queue, t.Priority, t.Hold = o.ID, o.Queue, o.Priority, o.Hold
		t.Key, t.Weight = o.Key, o.Weight
		t.At, t.Delay, t.ExpiresAt, t.ExpiresIn = o.At, o.Delay, o.ExpiresAt, o.ExpiresIn
		t.MaxAttempts, t.CrashLimit, t.Timeout = o.MaxAttempts, o.CrashLimit, o.Timeout
		t.Headers, t.Tags = o.Headers, o.Tags
	}
	data, err := encode("payload", payload)
	t.Payload, t.Encoding = data.Bytes, data.Encoding
	if o != nil {
		t.Unique = o.Unique.unique(t)
	}
	return err
}

func (o *UniqueOptions) unique(t *driver.Task) *driver.Unique {
	if o == nil {
		return nil
	}
	u := &driver.Unique{Key: o.Key, Until: o.Until, TTL: o.TTL, OnConflict: o.OnConflict}
	if u.Key == "" {
		u.Key = contentKey(t)
	}
	return u
}
