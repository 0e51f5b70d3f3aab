package driver

import "slices"

// QueueConfig is what can be set of a queue.
type QueueConfig struct {
	Paused    bool      `json:"paused"`   // Fetch gives nothing
	Draining  bool      `json:"draining"` // Enqueue refuses with ErrQueueClosed
	Retention Retention `json:"retention"`
	// Order says which of the waiting tasks of a priority comes first; empty: [OrderFair]. Others need Capabilities.Keys.
	Order Order `json:"order,omitzero"`
	// Keys says whether the tasks of a key run one after the other; empty: [KeysFree]. Others need Capabilities.Keys.
	Keys KeyMode `json:"keys,omitzero"`
	// Limits need Capabilities.Limits. No two are for the same: see [Limit.Scope].
	Limits []Limit `json:"limits,omitzero"`
	// Bound says how many tasks may wait in the queue; zero: any number.
	Bound Bound `json:"bound,omitzero"`
}

// QueuePatch changes a QueueConfig; nil fields stay as they are.
type QueuePatch struct {
	Paused    *bool
	Draining  *bool
	Retention *Retention
	Order     *Order
	Keys      *KeyMode
	Limits    *[]Limit // replaces all of them
	Bound     *Bound   // the zero Bound takes it away

	// DropLimits takes away the limits that are for the same tasks as one of these, and PutLimits adds limits, each in the
	// place of the one for the same tasks; the others stay, also those that somebody else sets at the same time. They come
	// after Limits, in this order.
	DropLimits []Limit
	PutLimits  []Limit
}

// ChangesLimits reports whether the patch may change the limits.
func (p *QueuePatch) ChangesLimits() bool {
	return p.Limits != nil || len(p.DropLimits) > 0 || len(p.PutLimits) > 0
}

// limitsOver returns the limits that the patch changes now to, unchecked.
func (p *QueuePatch) limitsOver(now []Limit) []Limit {
	if p.Limits != nil {
		now = *p.Limits
	}
	limits := slices.Clone(now)
	for _, l := range p.DropLimits {
		limits = slices.DeleteFunc(limits, l.sameScope)
	}
	for _, l := range p.PutLimits {
		if i := slices.IndexFunc(limits, l.sameScope); i >= 0 {
			limits[i] = l
		} else {
			limits = append(limits, l)
		}
	}
	return limits
}

// Order says which of a queue's waiting tasks of one priority comes first.
type Order string

// The orders. Empty means OrderFair.
const (
	// OrderFair shares the queue out between keys by their weights, each key's tasks first come, first served.
	OrderFair Order = "fair"
	// OrderDeadline gives out the task first whose ExpiresAt is first; those without come last. Equal ones come in the
	// order of becoming available, and a task that was retried keeps its deadline.
	OrderDeadline Order = "deadline"
)

// KeyMode says whether the tasks of a key run one after the other.
type KeyMode string

// The modes. Empty means KeysFree. In the ordered ones at most one task of a key is active, whatever its type, and the
// tasks of a key start in the order of enqueueing; one that is not due yet, or on hold, is passed by until it is. They
// refuse tasks with a key and a priority.
const (
	KeysFree KeyMode = "free"
	// KeysHold: a task that waits for its next attempt, or was snoozed, holds its key: nothing of it starts before.
	KeysHold KeyMode = "hold"
	// KeysPass: while a task waits for its next attempt, later ones of its key may start. It takes its place again when it is due.
	KeysPass KeyMode = "pass"
)

// Ordered reports whether the tasks of a key run one after the other.
func (m KeyMode) Ordered() bool { return m == KeysHold || m == KeysPass }

// Apply returns the configuration after a patch: nil fields stay, of a retention also those that are zero, limits have their defaults. It returns [ErrInvalid] or
// [ErrUnsupported], and then the configuration as it was.
func (c QueueConfig) Apply(p QueuePatch, caps Capabilities) (QueueConfig, error) {
	n := c
	assign(&n.Paused, p.Paused)
	assign(&n.Draining, p.Draining)
	assign(&n.Order, p.Order)
	assign(&n.Keys, p.Keys)
	if p.Retention != nil {
		if err := p.Retention.Validate(); err != nil {
			return c, err
		}
		n.Retention = p.Retention.Over(c.Retention)
	}
	if err := n.checkOrder(caps); err != nil {
		return c, err
	}
	if p.Bound != nil {
		bound, err := p.Bound.WithDefaults()
		if err != nil {
			return c, err
		}
		n.Bound = bound
	}
	if !p.ChangesLimits() {
		return n, nil
	}
	wanted := p.limitsOver(c.Limits)
	if len(wanted) > 0 && !caps.Limits {
		return c, Errorf(ErrUnsupported, "the %s store does not offer limits", caps.Engine)
	}
	if _, err := CheckLimits(p.PutLimits); err != nil { // two of them may be for the same
		return c, err
	}
	limits, err := CheckLimits(wanted)
	if err != nil {
		return c, err
	}
	if n.Limits = limits; len(limits) == 0 {
		n.Limits = nil
	}
	return n, nil
}

// checkOrder checks how the queue is ordered, and makes the defaults empty.
func (c *QueueConfig) checkOrder(caps Capabilities) error {
	switch c.Order {
	case "", OrderFair:
		c.Order = ""
	case OrderDeadline:
	default:
		return Invalidf("unknown order %q: use fair or deadline", brief(c.Order))
	}
	switch c.Keys {
	case "", KeysFree:
		c.Keys = ""
	case KeysHold, KeysPass:
	default:
		return Invalidf("unknown mode of keys %q: use free, hold or pass", brief(c.Keys))
	}
	switch {
	case c.Order == "" && c.Keys == "":
		return nil
	case !caps.Keys:
		return Errorf(ErrUnsupported, "the %s store does not offer an order of tasks or keys", caps.Engine)
	case c.Order != "" && c.Keys != "":
		return Invalidf("a queue runs the tasks of a key in their order or goes by deadlines, not both")
	}
	return nil
}

// RatesKeys reports whether a limit bounds how often tasks of a key start.
func (c *QueueConfig) RatesKeys() bool {
	return slices.ContainsFunc(c.Limits, func(l Limit) bool { return l.PerKey && l.Rate > 0 })
}

// Reorders reports whether going from c to n is a change that a queue with available tasks refuses with [ErrState]: their
// places in line would have to be worked out anew.
func (c *QueueConfig) Reorders(n *QueueConfig) bool { return c.Order != n.Order }

// ReordersError is what a queue with available tasks says of it.
func ReordersError(queue string, available int64) error {
	return Errorf(ErrState, "%d tasks are available in queue %s: its order can be changed only while none is, so let workers empty it first", available, queue)
}

// Admits returns [ErrInvalid] if tasks like t can't be in a queue with this configuration.
func (c *QueueConfig) Admits(t *Task) error {
	if c.Keys.Ordered() && t.Key != "" && t.Priority != 0 {
		return Invalidf("queue %s runs the tasks of a key in their order: one with a key can't have a priority, got %d", t.Queue, t.Priority)
	}
	return nil
}

func assign[T any](field *T, value *T) {
	if value != nil {
		*field = *value
	}
}

// Clone returns a copy that shares nothing with c.
func (c *QueueConfig) Clone() *QueueConfig {
	n := *c
	n.Limits = slices.Clone(c.Limits)
	return &n
}
