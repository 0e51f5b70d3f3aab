package driver

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"hash/fnv"
	"maps"
	"slices"
	"strings"
	"time"
)

// Planner keeps plans: small versioned documents that decide about tasks, such as a schedule or a workflow. The store
// keeps a plan and knows when somebody wants to look at it; it does not understand it. What it promises is what has to be
// decided once: that a plan is changed by one step at a time, together with the tasks that the step brings about, and
// that a plan is told when a task of it ends.
//
// The life of a plan: a step that expects Version 0 makes it. A worker is offered it by Fetch when it is due, that is
// when it has news that no step has seen or when its Wake has come; reads it with GetPlans; works out the next step; and
// hands that in with Advance. However many workers do so, one step is accepted and the others get [ErrConflict]. So
// there is no leader, and a worker that dies on the way leaves the plan due.
//
// News are what a plan is told, in an inbox with numbers that grow by one. A task that names the plan (Task.Plan) adds
// news in the same atomic step in which it ends (completed, cancelled or discarded, for whatever reason) or is deleted
// before it has ended. So it lives where its plan does: its id is one that [PlanTaskID] gives. A task that is retried by a person and ends again adds news again. Tasks whose plan does not exist add none.
type Planner interface {
	// Advance does steps of plans; each is one atomic step of the store, as far as its plan is concerned.
	//
	// A step is accepted only if the plan still has the version that it expects (0: does not exist). Then State, Wake,
	// Expires and Body become those of the step, the Parts that it names are replaced (nil: removed), news up to Seen are
	// dropped, and its tasks are stored. Otherwise its error is [ErrConflict] and nothing has changed.
	//
	// The tasks first pass [Prepare], which fails the step with [ErrInvalid] or [ErrUnsupported]. They have ids that
	// [PlanTaskID] gives. A task that the store knows already is left alone; if it has ended, that is news at once. A
	// task that is refused as Enqueue would refuse it (its queue is draining, its unique key belongs to another task) is
	// news too, with [ReasonRefused]; with several shards such news and the tasks come after the step, before Advance
	// returns, or, if the worker dies then, soon after: nothing loses them.
	//
	// After an error of the call the outcome is unknown. Doing the step again is harmless: it is refused if it was
	// accepted before.
	//
	// Per step: ErrConflict, [ErrInvalid], [ErrUnsupported], [ErrStoreFull] (no place for a new plan).
	Advance(ctx context.Context, steps []PlanStep) ([]PlanResult, error)

	// Signal adds news from outside to plans. A signal whose id is among the last [MaxSignalIDs] of its plan changes
	// nothing and has no error, so that it may be repeated. Per signal: [ErrNotFound] (no such plan), [ErrState] (the plan
	// has ended: it has an Expires; or it has [MaxPlanNews] news waiting), [ErrInvalid].
	Signal(ctx context.Context, signals []Signal) ([]error, error)

	// GetPlans returns plans, parallel to refs, nil where there is none.
	GetPlans(ctx context.Context, refs []PlanRef, read PlanRead) ([]*Plan, error)

	// Plans returns one page of the plans that match, sorted by name, with their bodies, without parts and news.
	// A plan that exists throughout the iteration appears exactly once. An unknown or foreign cursor is [ErrInvalid].
	Plans(ctx context.Context, q PlanQuery, page Page) (*PlanPage, error)

	// DeletePlans removes plans with their parts and news; their tasks stay, and tell nobody when they end. Per plan:
	// [ErrNotFound].
	DeletePlans(ctx context.Context, refs []PlanRef) ([]error, error)
}

// Limits of plans.
const (
	MaxPlanName    = 128             // bytes of a plan's kind or name, of a step's label, of a part's name
	MaxPlanState   = 32              // bytes of a plan's state
	MaxPlanBody    = 1 << 20         // bytes of a plan's body
	MaxPlanParts   = 256             // parts a plan
	MaxPlanPart    = 8 << 20         // bytes of a part
	MaxPlanNews    = 10_000          // signals are refused while so many news wait
	MaxSignalIDs   = 256             // ids of signals that a plan remembers
	PlanReserve    = 2 * time.Second // for how long a plan is kept for the worker that was offered it
	maxPlanOffers  = 1000
	maxSignalBytes = MaxResultBytes
)

// PlanRef names a plan.
type PlanRef struct {
	Kind string `json:"kind"` // a name like Task.Type, such as "schedule"
	Name string `json:"name"` // a name like Task.Type
}

// String returns kind and name with a slash between them, which neither has.
func (r PlanRef) String() string { return r.Kind + "/" + r.Name }

// ParsePlanRef is the reverse of String.
func ParsePlanRef(s string) (PlanRef, bool) {
	kind, name, ok := strings.Cut(s, "/")
	return PlanRef{Kind: kind, Name: name}, ok
}

// Validate returns [ErrInvalid] unless kind and name are names.
func (r PlanRef) Validate() error {
	if err := CheckName("kind of the plan", r.Kind, MaxPlanName); err != nil {
		return err
	}
	return CheckName("name of the "+brief(r.Kind), r.Name, MaxPlanName)
}

// TaskPlan says which step of which plan a task is.
type TaskPlan struct {
	PlanRef
	Step string `json:"step"` // a label for the plan, a name like Task.Type
}

// Plan is a plan as the store keeps it.
//
// What is stored of a plan may be damaged. Then it is listed with its name and the state [PlanDamaged] alone, whatever
// states were asked for; to read it otherwise, to take a step or to send it a signal gives [ErrCorrupt], and who reserves
// plans is not offered it: the others go on. It can be deleted.
type Plan struct {
	PlanRef
	// Version is greater after each step, and greater than that of every earlier plan of this name.
	Version int64 `json:"version"`
	// State is a word to list by, for people and for whoever understands the plan.
	State string `json:"state"`
	// Wake is when the plan wants to be looked at, even if there are no news; zero: not before there are.
	Wake time.Time `json:"wake,omitzero"`
	// Expires is set for a plan that has ended: when it is removed.
	Expires time.Time `json:"expires,omitzero"`
	Created time.Time `json:"created"`
	Updated time.Time `json:"updated"` // of the last step
	Body    []byte    `json:"body"`
	// Parts are larger pieces that not every step reads and writes.
	Parts map[string][]byte `json:"parts,omitzero"`
	// News are what no step has seen, the oldest first. Waiting is how many there are, also if they were not asked for.
	News    []News `json:"news,omitzero"`
	Waiting int    `json:"waiting"`
	// Busy is set where a reservation was asked for and another worker has it: then nothing but the ref is set.
	Busy bool `json:"busy,omitzero"`
}

// PlanDamaged is the state of a plan that can't be relied on; see [Plan].
const PlanDamaged = "damaged"

// News is one thing that a plan is told: the end of a task, or a signal.
type News struct {
	No   int64     `json:"no"` // grows by one
	Time time.Time `json:"time"`

	// Of a task: its id, its step, how it ended (State is empty if it was deleted or refused), the error of its last attempt
	// if that failed (cut to [MaxNewsError]), and its result.
	Task           string   `json:"task,omitzero"`
	Step           string   `json:"step,omitzero"`
	State          State    `json:"state,omitzero"`
	Reason         Reason   `json:"reason,omitzero"`
	Error          string   `json:"error,omitzero"`
	Result         []byte   `json:"result,omitzero"`
	ResultEncoding Encoding `json:"result_encoding,omitzero"`

	// Of a signal: its name, id and payload (JSON).
	Signal   string `json:"signal,omitzero"`
	SignalID string `json:"signal_id,omitzero"`
	Payload  []byte `json:"payload,omitzero"`
}

// MaxNewsError is how many bytes of an error text news carry.
const MaxNewsError = 1 << 10

// PlanStep is a change of a plan. See [Planner].Advance.
type PlanStep struct {
	PlanRef
	Expect  int64 // the version that the step was worked out from; 0: the plan is new
	State   string
	Wake    time.Time // rounded up to milliseconds
	Expires time.Time
	Body    []byte
	Parts   map[string][]byte // those that change; nil bytes remove one
	Seen    int64             // news up to this number have been dealt with
	Tasks   []*Task           // with ids, see [PlanTaskID]
}

// PlanResult is what became of a step.
type PlanResult struct {
	Version int64 // the plan's after the step
	Err     error
}

// Signal is news from outside.
type Signal struct {
	PlanRef
	ID      string // [A-Za-z0-9._:-]{1,128}, chosen by the sender
	Signal  string // its name, like Task.Type
	Payload []byte // JSON, at most [MaxResultBytes]
}

// PlanRead says what of a plan is wanted.
type PlanRead struct {
	// Parts are the names of the parts; AllParts wants all.
	Parts    []string
	AllParts bool
	// News is how many of the news are wanted, at most; there may be fewer, but one at least, where they are large.
	News int
	// Reserve keeps a plan that is due for the caller, as Fetch does; one that is reserved already is Busy.
	Reserve bool
}

// PlanQuery says which plans are listed.
type PlanQuery struct {
	Kind   string   // required
	Prefix string   // of the name
	States []string // empty: all
}

// PlanPage is a page of plans.
type PlanPage struct {
	Plans []*Plan
	Next  string // the cursor of the next page; empty: there is none
}

// PlanTaskID returns the id of the task that is a step of a plan: the same for the same step, and one that places the
// task in the shard of the plan.
func PlanTaskID(ref PlanRef, step string) string {
	sum := sha256.Sum256([]byte(ref.Kind + "\x00" + ref.Name + "\x00" + step))
	b := [16]byte(sum[:16])
	b[0] &= 0x7f
	b[6] = b[6]&0x0f | 0x80 // version 8: made by a rule of our own
	b[8] = b[8]&0x3f | 0x80
	binary.BigEndian.PutUint16(b[14:], ref.home())
	return formatUUID(b)
}

// home returns what the ids of a plan's tasks end with.
func (r PlanRef) home() uint16 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(r.Kind + "\x00" + r.Name))
	sum := h.Sum32()
	return uint16(sum>>16 ^ sum)
}

// Due returns when a plan is to be looked at: at once (its last step's time) if news wait, else at its Wake; zero: never.
func (p *Plan) Due() time.Time {
	if p.Waiting > 0 {
		return p.Updated
	}
	return p.Wake
}

// owns reports whether a task with this id is in the plan's shard whatever the number of shards, so that its end and the
// plan's news are one step.
func (r PlanRef) owns(id string) bool {
	var packed [MaxIDLen + 1]byte
	b := PackID(packed[:0], id)
	return len(b) == 16 && binary.BigEndian.Uint16(b[14:]) == r.home()
}

// Place returns when an engine has to think of a plan next: when it is due or, if it is reserved, when the reservation
// ends; or when it expires. Zero: never.
func (p *Plan) Place(reserved, now time.Time) time.Time {
	at := p.Due()
	if !at.IsZero() && reserved.After(now) && reserved.After(at) {
		at = reserved
	}
	if !p.Expires.IsZero() && (at.IsZero() || p.Expires.Before(at)) {
		at = p.Expires
	}
	return at
}

// FirstPlanVersion returns the version of a plan that is made now. Later ones of the same name are greater, as the clock
// goes faster than a plan's steps; it is exact in a float64.
func FirstPlanVersion(now time.Time) int64 { return now.UnixMilli() << 10 }

// PreparePlanStep sets the defaults of a step's tasks, makes times absolute, and checks every field. It returns the
// tasks as they are to be stored; those of the step are only read.
func PreparePlanStep(s *PlanStep, c Capabilities, now time.Time) ([]*Task, error) {
	if err := checkPlanStep(s); err != nil {
		return nil, err
	}
	if err := CheckBatch(s.Tasks, c.Limit); err != nil {
		return nil, err
	}
	s.Wake, s.Expires = ceilMilli(s.Wake), ceilMilli(s.Expires)
	tasks := make([]*Task, len(s.Tasks))
	for i, in := range s.Tasks {
		if in.ID == "" {
			return nil, Invalidf("task %d of a step of %s has no id", i, s.PlanRef)
		}
		tasks[i] = in.Clone()
		if err := Prepare(tasks[i], c, now); err != nil {
			return nil, err
		}
	}
	return tasks, nil
}

func checkPlanStep(s *PlanStep) error {
	if err := s.PlanRef.Validate(); err != nil {
		return err
	}
	if err := CheckName("state of the plan", s.State, MaxPlanState); err != nil {
		return err
	}
	switch {
	case s.Expect < 0 || s.Seen < 0:
		return Invalidf("a step of %s expects version %d and has seen %d news", s.PlanRef, s.Expect, s.Seen)
	case len(s.Body) > MaxPlanBody:
		return Invalidf("the body of %s has %d bytes, %d are allowed", s.PlanRef, len(s.Body), MaxPlanBody)
	case len(s.Parts) > MaxPlanParts:
		return Invalidf("a step of %s has %d parts, %d are allowed", s.PlanRef, len(s.Parts), MaxPlanParts)
	}
	for name, b := range s.Parts {
		if err := CheckName("name of a plan's part", name, MaxPlanName); err != nil {
			return err
		}
		if len(b) > MaxPlanPart {
			return Invalidf("part %s of %s has %d bytes, %d are allowed", name, s.PlanRef, len(b), MaxPlanPart)
		}
	}
	if err := checkTime("the next look at a plan", s.Wake); err != nil {
		return err
	}
	return checkTime("the plan's expiry", s.Expires)
}

// CheckSignal returns [ErrInvalid] unless s is well formed.
func CheckSignal(s *Signal) error {
	if err := s.PlanRef.Validate(); err != nil {
		return err
	}
	if err := CheckName("signal id", s.ID, MaxIDLen); err != nil {
		return err
	}
	if err := CheckName("signal", s.Signal, MaxNameLen); err != nil {
		return err
	}
	if len(s.Payload) > maxSignalBytes {
		return Invalidf("the payload of signal %s has %d bytes, %d are allowed", s.Signal, len(s.Payload), maxSignalBytes)
	}
	return CheckEncoding("payload of the signal", EncodingJSON, s.Payload)
}

// CheckPlanQuery returns [ErrInvalid] unless q is well formed.
func CheckPlanQuery(q *PlanQuery) error {
	if err := CheckName("kind of the plans", q.Kind, MaxPlanName); err != nil {
		return err
	}
	if q.Prefix == "" {
		return nil
	}
	return CheckName("prefix of the plans' names", q.Prefix, MaxPlanName)
}

// Match reports whether a plan is one that was asked for.
func (q *PlanQuery) Match(p *Plan) bool {
	return p.Kind == q.Kind && strings.HasPrefix(p.Name, q.Prefix) && (len(q.States) == 0 || slices.Contains(q.States, p.State))
}

// PlanOffers returns how many plans a Fetch offers at most.
func PlanOffers(r *FetchRequest) int { return min(r.Plans, maxPlanOffers) }

// PlanConflict returns [ErrConflict] for a step that came too late.
func PlanConflict(s *PlanStep, found int64) error {
	switch {
	case found == 0:
		return Errorf(ErrConflict, "%s does not exist", s.PlanRef)
	case s.Expect == 0:
		return Errorf(ErrConflict, "%s exists already", s.PlanRef)
	}
	return Errorf(ErrConflict, "%s has changed meanwhile: it has version %d, the step expects %d", s.PlanRef, found, s.Expect)
}

// PlanNotFound returns [ErrNotFound] for a plan.
func PlanNotFound(ref PlanRef) error {
	return Errorf(ErrNotFound, "there is no %s %s", ref.Kind, ref.Name)
}

// PlanEnded returns [ErrState] for a signal to a plan that has ended.
func PlanEnded(ref PlanRef) error {
	return Errorf(ErrState, "%s %s has ended: it takes no signals any more", ref.Kind, ref.Name)
}

// PlanFull returns [ErrState] for a signal to a plan with [MaxPlanNews] news.
func PlanFull(ref PlanRef) error {
	return Errorf(ErrState, "%s %s has %d news that nobody has looked at: is a worker running?", ref.Kind, ref.Name, MaxPlanNews)
}

// PlanTaskTaken returns why a task that is not stored because its unique key has another owner is refused.
func PlanTaskTaken(t *Task, owner string) error {
	key := ""
	if t.Unique != nil {
		key = t.Unique.Key
	}
	return Errorf(ErrDuplicate, "the unique key %q is taken by task %s", key, owner)
}

// EndNews returns the news of a task that has come to an end, or was deleted (state ""). last is its last attempt, nil if
// there is none.
func EndNews(now time.Time, id, step string, state State, reason Reason, last *Attempt) News {
	n := News{Time: now, Task: id, Step: step, State: state, Reason: reason}
	if last != nil && (state == Cancelled || state == Discarded) {
		n.Error = CutText(last.Error, MaxNewsError)
	}
	return n
}

// RefusedNews returns the news of a task that a step could not store.
func RefusedNews(now time.Time, t *Task, err error) News {
	return News{Time: now, Task: t.ID, Step: t.planStep(), Reason: ReasonRefused, Error: CutText(err.Error(), MaxNewsError)}
}

// Size returns about how many bytes news have.
func (n *News) Size() int { return len(n.Result) + len(n.Payload) + len(n.Error) + 200 }

// NewsBytes is where the news of one GetPlans end, so that no reply grows without bound.
const NewsBytes = 4 << 20

func (t *Task) planStep() string {
	if t.Plan == nil {
		return ""
	}
	return t.Plan.Step
}

// Clone returns a copy that shares nothing with p.
func (p *Plan) Clone() *Plan {
	c := *p
	c.Body = slices.Clone(p.Body)
	c.Parts = maps.Clone(p.Parts)
	for name, b := range c.Parts {
		c.Parts[name] = slices.Clone(b)
	}
	c.News = slices.Clone(p.News)
	return &c
}
