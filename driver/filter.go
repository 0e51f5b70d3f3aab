package driver

import (
	"slices"
	"strings"
)

// Match reports whether a record is selected. Engines use it where an index does not decide.
func (f *Filter) Match(r *Record) bool {
	return oneOf(f.IDs, r.ID) && oneOf(f.States, r.State) && oneOf(f.Queues, r.Queue) && oneOf(f.Types, r.Type) &&
		f.matchTags(r) && f.matchError(r) &&
		(f.After.IsZero() || !r.EnqueuedAt.Before(f.After)) && (f.Before.IsZero() || r.EnqueuedAt.Before(f.Before))
}

func oneOf[T comparable](set []T, v T) bool { return len(set) == 0 || slices.Contains(set, v) }

func (f *Filter) matchTags(r *Record) bool {
	for _, tag := range f.Tags {
		if !slices.Contains(r.Tags, tag) {
			return false
		}
	}
	return true
}

func (f *Filter) matchError(r *Record) bool {
	if f.Error == "" {
		return true
	}
	if r.State == Completed && !f.AnyError {
		return false
	}
	part := strings.ToLower(f.Error)
	for _, a := range slices.Backward(r.Attempts) {
		if a.Error != "" && strings.Contains(strings.ToLower(a.Error), part) {
			return true
		}
		if a.Error != "" && !f.AnyError {
			return false
		}
	}
	return false
}

// Validate returns [ErrInvalid] for states, names or ids that can't exist.
func (f *Filter) Validate() error {
	for _, s := range f.States {
		if !s.Valid() {
			return Invalidf("unknown state %q: use %s", brief(s), joinStates(States))
		}
	}
	if f.AnyError && f.Error == "" {
		return Invalidf("AnyError needs a text in Error")
	}
	for what, names := range map[string][]string{"task id": f.IDs, "queue": f.Queues, "task type": f.Types, "tag": f.Tags} {
		for _, n := range names {
			if err := CheckName(what, n, MaxNameLen); err != nil {
				return err
			}
		}
	}
	return nil
}

// Selects reports whether the filter leaves out any task.
func (f *Filter) Selects() bool {
	return len(f.IDs)+len(f.States)+len(f.Queues)+len(f.Types)+len(f.Tags) > 0 || f.Error != "" || !f.After.IsZero() || !f.Before.IsZero()
}

// checkSelection returns [ErrInvalid] for what an operation must not take for everything: no selection, and lists of ids, states,
// queues, types or tags that are there and empty, as a program's own lists may be.
func (f *Filter) checkSelection() error {
	for what, empty := range map[string]bool{
		"ids": f.IDs != nil && len(f.IDs) == 0, "states": f.States != nil && len(f.States) == 0, "queues": f.Queues != nil && len(f.Queues) == 0,
		"types": f.Types != nil && len(f.Types) == 0, "tags": f.Tags != nil && len(f.Tags) == 0,
	} {
		if empty {
			return Invalidf("the list of %s is empty: leave it out to select whatever it may be", what)
		}
	}
	switch {
	case f.All && f.Selects():
		return Invalidf("All selects every task: leave out the rest of the filter")
	case !f.All && !f.Selects():
		return Invalidf("the operation names no tasks and selects none: to take every task, set All")
	}
	return nil
}

func joinStates(states []State) string {
	names := make([]string, len(states))
	for i, s := range states {
		names[i] = string(s)
	}
	return strings.Join(names, ", ")
}

// CheckPage returns the page's size with its default, or [ErrInvalid].
func CheckPage(p Page) (int, error) {
	switch {
	case p.Size == 0:
		return 100, nil
	case p.Size < 0 || p.Size > MaxPage:
		return 0, Invalidf("a page has 1 to %d records, got %d", MaxPage, p.Size)
	}
	return p.Size, nil
}

// CheckChange returns [ErrInvalid] unless c is well formed, and its Max with the default. It sets the states that OpRetry
// takes where a filter names none.
func CheckChange(c *Change) (int, error) {
	if c.Op.From() == nil {
		return 0, Invalidf("unknown operation %q: use cancel, retry, run or delete", brief(c.Op))
	}
	if c.Max < 0 || c.Max > MaxApply || len(c.IDs) > MaxApply {
		return 0, Invalidf("an operation takes 1 to %d tasks at a time", MaxApply)
	}
	if c.Cursor != "" && len(c.IDs) > 0 {
		return 0, Invalidf("an operation by id has no cursor")
	}
	if len(c.IDs) == 0 {
		if c.IDs != nil {
			return 0, Invalidf("the list of ids is empty")
		}
		if err := c.Filter.checkSelection(); err != nil {
			return 0, err
		}
	}
	if err := c.Filter.Validate(); err != nil {
		return 0, err
	}
	if c.Op == OpRetry && len(c.Filter.States) == 0 {
		c.Filter.States, c.Filter.All = []State{Cancelled, Discarded}, false
	}
	if c.Max == 0 {
		return MaxApply, nil
	}
	return c.Max, nil
}
