package driver

import (
	"maps"
	"slices"
	"time"
)

// Task is what a client hands in. All but the payload and the headers is small. It never changes once accepted.
type Task struct {
	// ID is the task's name, [A-Za-z0-9._:-]{1,128}. Empty: the store gives it one (a UUIDv7).
	ID string
	// Type selects the handler, [A-Za-z0-9._:-]{1,128}. Required.
	Type string
	// Queue is the queue, [A-Za-z0-9._:-]{1,128}. Empty: [DefaultQueue].
	Queue string
	// Payload is the handler's input, opaque to the store. Encoding says how to read it: [EncodingJSON] or
	// [EncodingRaw].
	Payload  []byte
	Encoding Encoding

	// Headers are the caller's own pairs, at most [MaxHeaderBytes] in all. Keys are 1…256 bytes of printable ASCII,
	// values valid UTF-8 without NUL.
	Headers map[string]string
	// Tags are labels to search by, names like Type, at most [MaxTags].
	Tags []string

	// Priority is -100…100; lower runs first.
	Priority int
	// At is when the task may start, at the earliest; Delay is the same counted from the store's present. At most one
	// of them is set. Zero: now.
	At    time.Time
	Delay time.Duration
	// ExpiresAt is when the task, if it is not active or ended, becomes worthless; ExpiresIn is the same counted from
	// the store's present. At most one of them is set, and it is after the task's start. Zero: never. Only available
	// tasks expire; one that a person retries after its expiry expires again at once.
	ExpiresAt time.Time
	ExpiresIn time.Duration
	// Hold makes the task pending until OpRun lets it go.
	Hold bool

	// MaxAttempts is how many times it may fail before it is discarded. 0: [DefaultMaxAttempts].
	MaxAttempts int
	// CrashLimit is how many workers may die running it before it is discarded. 0: [DefaultCrashLimit].
	CrashLimit int
	// Timeout is how long one attempt may run; workers enforce it. 0: no limit.
	Timeout time.Duration

	// Unique, if not nil, keeps other tasks with the same key out.
	Unique *Unique

	// Key names the tenant or the sequence a task belongs to, a name like Type; Weight is its share among the keys of its
	// queue, 1…[MaxWeight] (0: 1), and needs a Key. Both need Capabilities.Keys.
	Key    string
	Weight int
	// Plan, if not nil, is told when this task ends: see [Planner]. Then ID is one that [PlanTaskID] gives.
	Plan *TaskPlan
}

// Clone returns a deep copy of t.
func (t *Task) Clone() *Task { // small enough to be inlined, so that a copy by value costs no allocation
	c := *t
	c.Detach()
	return &c
}

// Detach makes t's own what it shares with the task that it was copied from by value.
func (t *Task) Detach() {
	t.Payload = slices.Clone(t.Payload)
	t.Headers = maps.Clone(t.Headers)
	t.Tags = slices.Clone(t.Tags)
	if t.Unique != nil {
		u := *t.Unique
		t.Unique = &u
	}
	if t.Plan != nil {
		p := *t.Plan
		t.Plan = &p
	}
}

// Encoding says how a payload or result is to be read.
type Encoding string

// The encodings. The store treats both as bytes.
const (
	EncodingJSON Encoding = "json" // one JSON value
	EncodingRaw  Encoding = "raw"  // bytes
)

// Unique keeps tasks with the same key from being in the store twice.
type Unique struct {
	// Key is 1…256 bytes of any kind; one namespace for the whole store.
	Key string `json:"key"`
	// Until says how long the task owns the key.
	Until UniqueUntil `json:"until"`
	// TTL is how long, with UntilTTL; counted from the enqueue. Otherwise 0.
	TTL time.Duration `json:"ttl,omitzero"`
	// OnConflict says what becomes of a task whose key is owned by another.
	OnConflict OnConflict `json:"on_conflict"`
}

// UniqueUntil says when a unique key is free again. Deleting the owner frees it too, except under UntilTTL.
type UniqueUntil string

// The ends of uniqueness. Empty means UntilDone.
const (
	UntilDone    UniqueUntil = "done"    // until the owner is completed, cancelled or discarded
	UntilStarted UniqueUntil = "started" // until the owner is first claimed, or ends
	UntilTTL     UniqueUntil = "ttl"     // for a time, whatever becomes of the owner
)

// OnConflict says what becomes of a task whose unique key is taken.
type OnConflict string

// What to do on conflict. Empty means ConflictReturn.
const (
	// ConflictReturn accepts nothing; the result names the owner and has Existing set.
	ConflictReturn OnConflict = "return"
	// ConflictReject gives the task [ErrDuplicate], with the owner's id in the result.
	ConflictReject OnConflict = "reject"
	// ConflictReplace ends an owner that is not active as cancelled with [ReasonReplaced] (an owner that has ended
	// stays as it is) and takes the key over; with an active owner it is [ErrDuplicate].
	ConflictReplace OnConflict = "replace"
)

// Durability is where an accepted task is kept. Levels are ordered: see [Durability.Reaches].
type Durability string

// The levels, weakest first. Empty means the engine's default.
const (
	DurabilityMemory     Durability = "memory"     // the server has it in memory
	DurabilityDisk       Durability = "disk"       // on stable storage (fsync has returned)
	DurabilityReplicated Durability = "replicated" // on stable storage or held by replicas, as configured
)

// Durabilities lists all levels, weakest first.
var Durabilities = []Durability{DurabilityMemory, DurabilityDisk, DurabilityReplicated}

// Reaches reports whether level d is at least as strong as want. An empty want is reached by every level.
func (d Durability) Reaches(want Durability) bool {
	return want == "" || slices.Index(Durabilities, d) >= slices.Index(Durabilities, want)
}

// ReachableDurability returns the level that an engine with capabilities c stores at when asked for want: the weakest
// offered level that reaches it. It returns [ErrInvalid] for an unknown level and [ErrUnsupported] for one that the
// engine does not offer.
func ReachableDurability(c Capabilities, want Durability) (Durability, error) {
	if want == "" {
		want = c.DefaultDurability
	}
	if !slices.Contains(Durabilities, want) {
		return "", Invalidf("unknown durability level %q: use memory, disk or replicated", brief(want))
	}
	for _, d := range c.Durability {
		if d.Reaches(want) {
			return d, nil
		}
	}
	how := ""
	if c.Stronger != "" {
		how = ": " + c.Stronger
	}
	return "", Errorf(ErrUnsupported, "the %s store offers the durability level %q at most, %q was asked for%s", c.Engine, c.Durability[len(c.Durability)-1], want, how)
}

// EnqueueOptions are the options of one Enqueue call.
type EnqueueOptions struct {
	Durability Durability // the level asked for; empty: the engine's default
	// NewIDs says that the caller made all the ids for this call ([NewID]) and has made no other call with them, so that
	// the store need not look whether it knows them. A call that is repeated has it unset.
	NewIDs bool
}

// EnqueueResult is what became of one task.
type EnqueueResult struct {
	ID         string     // of the stored task: the task's own, or the existing one's
	State      State      // of the stored task
	Existing   bool       // nothing was stored: a task with this id, or the owner of this unique key, was there
	Durability Durability // the level reached; empty if Err is set
	Err        error      // nil, or why the task was refused
}
