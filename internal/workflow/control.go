package workflow

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/waggleq/waggle/driver"
)

// Cancel returns the step that cancels a workflow, and the ids of its tasks that are to be cancelled after it. One that
// has ended is [driver.ErrState].
func Cancel(p *driver.Plan, now time.Time) (*driver.PlanStep, []string, error) {
	f, err := openNow(p, now)
	if err != nil {
		return nil, nil, err
	}
	switch {
	case !f.Ended.IsZero():
		return nil, nil, driver.Errorf(driver.ErrState, "workflow %s has ended: it is %s", p.Name, f.State)
	case f.State == Running:
		f.end(Cancelled, "cancelled")
	default:
		return nil, nil, nil // it is on its way to its end
	}
	return f.advance()
}

// Retry returns the step that runs an ended workflow again: the steps that did not complete or, if from names one, that
// step and all that come after it. What else has completed keeps its results. A workflow that has not ended is
// [driver.ErrState], an unknown step [driver.ErrNotFound].
func Retry(p *driver.Plan, from string, now time.Time) (*driver.PlanStep, error) {
	f, err := openNow(p, now)
	if err != nil {
		return nil, err
	}
	if f.Ended.IsZero() {
		return nil, driver.Errorf(driver.ErrState, "workflow %s has not ended: it is %s", p.Name, f.State)
	}
	again, err := f.again(from)
	if err != nil {
		return nil, err
	}
	if len(again) == 0 {
		return nil, driver.Errorf(driver.ErrState, "every step of workflow %s has completed: name the step to run it from", p.Name)
	}
	for i := range again {
		if err := f.reset(i); err != nil {
			return nil, err
		}
	}
	f.State, f.Outcome, f.Reason, f.Ended, f.Extra = Running, "", "", time.Time{}, nil
	f.Round++
	f.Deadline = time.Time{}
	if f.graph.Deadline > 0 {
		f.Deadline = now.Add(time.Duration(f.graph.Deadline))
	}
	f.all = true
	step, _, err := f.advance()
	return step, err
}

// again returns the steps that a retry runs.
func (f *flow) again(from string) (map[int]bool, error) {
	again := map[int]bool{}
	if from == "" {
		for i := range f.steps {
			if f.status(i) != StepCompleted {
				again[i] = true
			}
		}
		return again, nil
	}
	i, ok := f.links.index[from]
	if !ok {
		return nil, driver.Errorf(driver.ErrNotFound, "workflow %s has no step %q", f.ref.Name, driver.CutText(from, 64))
	}
	for todo := []int{i}; len(todo) > 0; todo = todo[1:] {
		if !again[todo[0]] {
			again[todo[0]] = true
			todo = append(todo, f.links.before[todo[0]]...)
		}
	}
	for i := range f.steps { // what did not complete elsewhere would hold up the end
		if s := f.status(i); s != StepCompleted && (s != StepFailed || f.policy(&f.graph.Steps[i]) != Continue) {
			again[i] = true
		}
	}
	return again, nil
}

// reset makes a step pending again, under a new label if it ever had a task.
func (f *flow) reset(i int) error {
	if s := f.status(i); s != StepSkipped && s != StepPending && f.graph.Steps[i].Wait == nil {
		if f.Runs == nil {
			f.Runs = map[int]int{}
		}
		f.Runs[i]++
	}
	f.set(i, StepPending)
	delete(f.Errors, i)
	delete(f.Wakes, i)
	f.Order = slices.DeleteFunc(f.Order, func(k int) bool { return k == i })
	return f.keepResult(f.graph.Steps[i].Name, nil)
}

// Add returns the step that adds steps to a running workflow; nil if all of them are there already, so that it may be
// repeated. A name that is taken by another step is [driver.ErrConflict], a workflow that does not run
// [driver.ErrState], steps that can't be run or that come before one that has begun [driver.ErrInvalid].
func Add(p *driver.Plan, steps []Step, now time.Time) (*driver.PlanStep, error) {
	f, err := openNow(p, now)
	if err != nil {
		return nil, err
	}
	var fresh []Step
	for _, s := range steps {
		i, there := f.links.index[s.Name]
		switch {
		case !there:
			fresh = append(fresh, s)
		case !sameStep(&f.graph.Steps[i], &s):
			return nil, driver.Errorf(driver.ErrConflict, "workflow %s has another step %s already", p.Name, s.Name)
		}
	}
	if len(fresh) == 0 {
		return nil, nil
	}
	if f.State != Running {
		return nil, driver.Errorf(driver.ErrState, "workflow %s no longer takes steps: it is %s", p.Name, f.State)
	}
	for i := range fresh {
		for _, name := range fresh[i].Before {
			if k, ok := f.links.index[name]; ok && f.status(k) != StepPending {
				return nil, driver.Invalidf("step %s can't come before %s, which has begun", fresh[i].Name, name)
			}
		}
	}
	f.graph.Steps = append(f.graph.Steps, fresh...)
	if err := f.graph.Validate(); err != nil {
		return nil, err
	}
	f.links, f.regraphed = f.graph.link(), true
	f.steps = append(f.steps, strings.Repeat(string(rune(StepPending)), len(fresh))...)
	f.all = true
	step, _, err := f.advance()
	return step, err
}

// sameStep reports whether two steps say the same.
func sameStep(a, b *Step) bool {
	x, err1 := json.Marshal(a)
	y, err2 := json.Marshal(b)
	return err1 == nil && err2 == nil && bytes.Equal(x, y)
}

// Describe returns a workflow as people see it, with its steps if its plan was read with all parts.
func Describe(p *driver.Plan) (*Info, error) {
	if p.Parts[partGraph] == nil {
		var st state
		if err := json.Unmarshal(p.Body, &st); err != nil {
			return nil, driver.Errorf(driver.ErrCorrupt, "workflow %s can't be read: %w", p.Name, err)
		}
		return st.info(p.Name), nil
	}
	f, err := open(p, time.Time{})
	if err != nil {
		return nil, err
	}
	info := f.info(p.Name)
	info.Steps = make([]StepInfo, len(f.steps))
	for i := range f.steps {
		if info.Steps[i], err = f.stepInfo(i); err != nil {
			return nil, err
		}
	}
	for _, label := range sortedLabels(f.Extra) {
		info.Extra = append(info.Extra, StepInfo{Name: label, State: f.Extra[label].String(), Task: f.taskID(label)})
	}
	return info, nil
}

func sortedLabels(m map[string]Status) []string {
	var labels []string
	for l := range m {
		labels = append(labels, l)
	}
	slices.Sort(labels)
	return labels
}

func (st *state) info(id string) *Info {
	return &Info{ID: id, State: st.State, Reason: st.Reason, Started: st.Started, Ended: st.Ended, Deadline: st.Deadline}
}

func (f *flow) stepInfo(i int) (StepInfo, error) {
	s := &f.graph.Steps[i]
	info := StepInfo{Name: s.Name, State: f.status(i).String(), Type: s.Type, Error: f.Errors[i], Until: f.Wakes[i]}
	for _, on := range f.links.after[i] {
		info.After = append(info.After, f.graph.Steps[on].Name)
	}
	if n := f.Runs[i]; n > 0 {
		info.Run = n + 1
	}
	if s.Wait != nil {
		info.Signal = s.Wait.Signal
	} else if st := f.status(i); st != StepPending && st != StepSkipped {
		info.Task = f.taskID(f.stepLabel(i))
	}
	var err error
	info.Result, err = f.result(s.Name)
	return info, err
}
