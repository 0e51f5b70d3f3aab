package workflow

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/waggleq/waggle/driver"
)

// maxTasks is how many tasks one step of a plan brings about; the others follow with the next one.
const (
	maxTasks     = 500
	maxTaskBytes = 2 << 20 // of their payloads
)

// Start returns the step that makes a workflow's plan, or why the graph can't be run.
func Start(g *Graph, now time.Time) (*driver.PlanStep, error) {
	if err := g.Validate(); err != nil {
		return nil, err
	}
	f := &flow{ref: Ref(g.ID), graph: g, now: now, parts: map[string]results{}, changed: map[string]bool{}, all: true,
		plan: &driver.Plan{PlanRef: Ref(g.ID)}, whole: true, links: g.link(), regraphed: true}
	f.steps = []byte(strings.Repeat(string(rune(StepPending)), len(g.Steps)))
	f.State, f.Started = Running, now
	if g.Deadline > 0 {
		f.Deadline = now.Add(time.Duration(g.Deadline))
	}
	step, _, err := f.advance()
	return step, err
}

// Move is what is to be done about a workflow.
type Move struct {
	Step   *driver.PlanStep // of its plan
	Cancel []string         // the ids of its tasks that are to be cancelled
	// Need are parts of the plan that have to be read first; then nothing else is set.
	Need []string
}

// Advance returns what is to be done about a workflow. p has its oldest news, and some of its parts; one that was read and
// does not exist is there as nil.
func Advance(c *Cache, p *driver.Plan, now time.Time) (Move, error) {
	f, err := openWith(c, p, now)
	switch {
	case err != nil:
		return Move{}, err
	case f == nil:
		return Move{Need: []string{partGraph}}, nil
	}
	if err := f.hearAll(); err != nil {
		return Move{}, err
	}
	step, cancel, err := f.advance()
	switch {
	case err != nil:
		return Move{}, err
	case len(f.missing) > 0:
		return Move{Need: slices.Sorted(maps.Keys(f.missing))}, nil
	case !f.Ended.IsZero():
		c.drop(p.Name)
	}
	return Move{Step: step, Cancel: cancel}, nil
}

// advance does all that can be done now.
func (f *flow) advance() (*driver.PlanStep, []string, error) {
	f.checkTimes()
	if f.State == Running {
		if err := f.release(); err != nil {
			return nil, nil, err
		}
	}
	if f.State == Running && f.count(StepPending)+f.count(StepRunning)+f.count(StepWaiting) == 0 {
		f.Outcome = Completed
		f.State = Finishing
	}
	if f.State == Stopping {
		f.stop()
	}
	if f.State == Compensating {
		if err := f.compensate(); err != nil {
			return nil, nil, err
		}
	}
	if f.State == Finishing {
		f.finish()
	}
	step, err := f.planStep()
	return step, f.cancel, err
}

// hearAll takes in the news that were read.
func (f *flow) hearAll() error {
	for i := range f.plan.News {
		if err := f.hear(&f.plan.News[i]); err != nil {
			return err
		}
		f.seen = f.plan.News[i].No
	}
	return nil
}

// hear takes in one piece of news.
func (f *flow) hear(n *driver.News) error {
	if n.Signal != "" {
		return f.hearSignal(n)
	}
	if s, ok := f.Extra[n.Step]; ok && s == StepRunning {
		f.Extra[n.Step] = StepCompleted
		if n.State != driver.Completed {
			f.Extra[n.Step] = StepFailed
		}
		return nil
	}
	name, _, _ := strings.Cut(n.Step, ":")
	i, ok := f.links.index[name]
	if !ok || f.stepLabel(i) != n.Step || f.status(i) != StepRunning {
		return nil // of an earlier run
	}
	if n.State == driver.Completed {
		return f.complete(i, resultJSON(n))
	}
	f.fail(i, failureText(n), n.State == driver.Cancelled)
	return nil
}

// failureText says why a task did not complete.
func failureText(n *driver.News) string {
	text := string(n.State)
	switch {
	case n.Reason == driver.ReasonRefused:
		text = "refused"
	case n.State == "":
		text = "its task was deleted"
	case n.Reason != "":
		text += " (" + string(n.Reason) + ")"
	}
	if n.Error != "" {
		text += ": " + n.Error
	}
	return driver.CutText(text, 300)
}

func (f *flow) hearSignal(n *driver.News) error {
	for i := range f.graph.Steps {
		if w := f.graph.Steps[i].Wait; f.status(i) == StepWaiting && w.Signal == n.Signal {
			return f.complete(i, n.Payload)
		}
	}
	if f.State != Running {
		return nil
	}
	early, err := f.signals()
	switch {
	case err != nil:
		return err
	case len(early) >= maxSignals:
		f.Dropped++
	default:
		f.setSignals(append(early, signal{n.Signal, n.Payload}))
	}
	return nil
}

func (f *flow) complete(i int, result json.RawMessage) error {
	f.set(i, StepCompleted)
	f.touched = append(f.touched, i)
	delete(f.Wakes, i)
	if f.graph.Steps[i].Compensate != nil {
		f.Order = append(f.Order, i)
	}
	if result == nil { // one of an earlier run was removed when the step was reset
		return nil
	}
	return f.keepResult(f.graph.Steps[i].Name, result)
}

// fail ends a step that did not complete, and with it the workflow unless the step's policy is to go on.
func (f *flow) fail(i int, why string, cancelled bool) {
	s := &f.graph.Steps[i]
	status := StepFailed
	if cancelled {
		status = StepCancelled
	}
	f.set(i, status)
	f.touched = append(f.touched, i)
	delete(f.Wakes, i)
	f.note(i, why)
	if f.policy(s) != Continue {
		f.end(Failed, "step "+s.Name+" "+why)
	}
}

func (f *flow) policy(s *Step) Policy {
	switch {
	case s.OnFailure != "":
		return s.OnFailure
	case f.graph.OnFailure != "":
		return f.graph.OnFailure
	}
	return Fail
}

// end begins the end of a running workflow.
func (f *flow) end(outcome, reason string) {
	if f.State == Running {
		f.State, f.Outcome, f.Reason = Stopping, outcome, reason
	}
}

// checkTimes acts on what has become due: waits, and the deadline.
func (f *flow) checkTimes() {
	for _, i := range slices.Sorted(maps.Keys(f.Wakes)) {
		if f.Wakes[i].After(f.now) || f.status(i) != StepWaiting {
			continue
		}
		if w := f.graph.Steps[i].Wait; w.Fail {
			f.fail(i, fmt.Sprintf("waited in vain for the signal %s", w.Signal), false)
		} else {
			_ = f.complete(i, nil) // no result is kept, so none can be too large
		}
	}
	if f.State == Running && !f.Deadline.IsZero() && !f.Deadline.After(f.now) {
		f.end(Failed, "the deadline has passed")
	}
}

// ready reports whether all that a step waits for has ended well.
func (f *flow) ready(i int) bool {
	if f.status(i) != StepPending {
		return false
	}
	for _, on := range f.links.after[i] {
		switch f.status(on) {
		case StepCompleted:
		case StepFailed, StepCancelled:
			if f.policy(&f.graph.Steps[on]) != Continue {
				return false
			}
		default:
			return false
		}
	}
	return true
}

// release begins the steps that wait for nothing any more, as many as fit into one step of the plan.
func (f *flow) release() error {
	for (f.all || len(f.touched) > 0) && !f.More {
		for i, is := range f.candidates() {
			if !is || !f.ready(i) {
				continue
			}
			if err := f.begin(i); err != nil {
				return err
			}
			if f.More {
				break
			}
		}
	}
	return nil
}

// candidates marks the steps that may be ready: all, or those that come after one that was touched.
func (f *flow) candidates() []bool {
	marks := make([]bool, len(f.steps))
	for i := range marks {
		marks[i] = f.all
	}
	for _, i := range f.touched {
		for _, then := range f.links.before[i] {
			marks[then] = true
		}
	}
	f.all, f.touched = false, nil
	return marks
}

// begin starts a step.
func (f *flow) begin(i int) error {
	s := &f.graph.Steps[i]
	if s.Wait != nil {
		return f.beginWait(i, s.Wait)
	}
	if len(f.tasks) >= maxTasks || f.bytes >= maxTaskBytes {
		f.More = true
		return nil
	}
	payload := s.Payload
	if s.Input != "" {
		var err error
		if payload, err = f.result(s.Input); err != nil {
			return err
		}
	}
	f.enqueue(s, f.stepLabel(i), payload)
	f.set(i, StepRunning)
	return nil
}

func (f *flow) enqueue(s *Step, label string, payload json.RawMessage) {
	t := s.task(f.taskID(label), payload)
	t.Plan = &driver.TaskPlan{PlanRef: f.ref, Step: label}
	f.tasks = append(f.tasks, t)
	f.bytes += len(payload)
}

func (f *flow) beginWait(i int, w *Wait) error {
	f.set(i, StepWaiting)
	if w.Signal != "" {
		early, err := f.signals()
		if err != nil {
			return err
		}
		for k, s := range early {
			if s.Name == w.Signal {
				f.setSignals(slices.Delete(early, k, k+1))
				return f.complete(i, s.Payload)
			}
		}
	}
	until := w.Until
	if w.For > 0 {
		until = f.now.Add(time.Duration(w.For))
	}
	if until.IsZero() {
		return nil
	}
	if f.Wakes == nil {
		f.Wakes = map[int]time.Time{}
	}
	f.Wakes[i] = until
	f.checkTimes()
	return nil
}

// stop ends what has not begun and tells what runs to stop. It is over when nothing runs.
func (f *flow) stop() {
	for i := range f.steps {
		switch f.status(i) {
		case StepPending, StepWaiting:
			f.set(i, StepSkipped)
			delete(f.Wakes, i)
		case StepRunning:
			f.cancel = append(f.cancel, f.taskID(f.stepLabel(i)))
		}
	}
	if len(f.cancel) > 0 {
		return
	}
	f.State = Finishing
	if len(f.Order) > 0 && f.undoes() {
		f.State = Compensating
	}
}

// undoes reports whether the failure that ended the workflow is to be compensated.
func (f *flow) undoes() bool {
	if f.graph.OnFailure == Compensate {
		return true
	}
	for i := range f.Errors {
		if f.graph.Steps[i].OnFailure == Compensate {
			return true
		}
	}
	return false
}

// compensate undoes the completed steps one after the other, the last first.
func (f *flow) compensate() error {
	for len(f.Order) > 0 {
		i := f.Order[len(f.Order)-1]
		s := &f.graph.Steps[i]
		label := f.undoLabel(s.Name)
		switch f.Extra[label] {
		case StepRunning:
			return nil
		case StepCompleted:
			f.set(i, StepCompensated)
		case StepFailed:
			f.Reason = driver.CutText(f.Reason+"; step "+s.Name+" could not be undone", 2000)
		default:
			payload := s.Compensate.Payload
			if payload == nil {
				var err error
				if payload, err = f.result(s.Name); err != nil {
					return err
				}
			}
			f.enqueueExtra(s.Compensate, label, payload)
			return nil
		}
		delete(f.Extra, label)
		f.Order = f.Order[:len(f.Order)-1]
	}
	f.State = Finishing
	return nil
}

func (f *flow) enqueueExtra(s *Step, label string, payload json.RawMessage) {
	if f.Extra == nil {
		f.Extra = map[string]Status{}
	}
	f.Extra[label] = StepRunning
	f.enqueue(s, label, payload)
}

// finish runs the callbacks, and then ends the workflow.
func (f *flow) finish() {
	first, name := f.graph.Success, "success"
	if f.Outcome != Completed {
		first, name = f.graph.Failure, "failure"
	}
	for _, cb := range []struct {
		step *Step
		name string
	}{{first, name}, {f.graph.Always, "always"}} {
		if cb.step == nil {
			continue
		}
		label := f.callbackLabel(cb.name)
		switch f.Extra[label] {
		case StepRunning:
			return
		case 0:
			payload := cb.step.Payload
			if payload == nil {
				payload = f.summary()
			}
			f.enqueueExtra(cb.step, label, payload)
			return
		}
	}
	f.State, f.Ended = f.Outcome, f.now
	if f.Early > 0 {
		f.setSignals(nil)
	}
}

// summary is the payload of a callback that has none of its own.
func (f *flow) summary() json.RawMessage {
	b, _ := json.Marshal(struct { // texts can be marshalled
		Workflow string `json:"workflow"`
		State    string `json:"state"`
		Reason   string `json:"reason,omitzero"`
	}{f.ref.Name, f.Outcome, f.Reason})
	return b
}

// The times for which ended workflows are kept by default.
const (
	keepCompleted = 24 * time.Hour
	keepFailed    = 30 * 24 * time.Hour
)

// planStep writes what has changed as a step of the plan.
func (f *flow) planStep() (*driver.PlanStep, error) {
	f.Status = string(f.steps)
	step := &driver.PlanStep{PlanRef: f.ref, Expect: f.plan.Version, State: f.State, Tasks: f.tasks, Wake: f.wake(), Seen: f.seen}
	if !f.Ended.IsZero() {
		keep := time.Duration(f.graph.Keep)
		if keep == 0 {
			keep = keepFailed
			if f.State == Completed {
				keep = keepCompleted
			}
		}
		step.Expires, step.Wake = f.Ended.Add(keep), time.Time{}
	}
	var err error
	step.Parts = map[string][]byte{}
	if f.regraphed {
		if step.Parts[partGraph], err = json.Marshal(f.graph); err != nil {
			return nil, fmt.Errorf("workflow %s: %w", f.ref.Name, err)
		}
		f.Graph = sumOf(step.Parts[partGraph])
	}
	if step.Body, err = json.Marshal(&f.state); err != nil {
		return nil, fmt.Errorf("workflow %s: %w", f.ref.Name, err)
	}
	if f.changed[partSignals] {
		delete(f.changed, partSignals)
		if step.Parts[partSignals], err = json.Marshal(f.early); err != nil {
			return nil, fmt.Errorf("workflow %s: %w", f.ref.Name, err)
		}
	}
	for name := range f.changed {
		if step.Parts[name], err = json.Marshal(f.parts[name]); err != nil {
			return nil, fmt.Errorf("workflow %s: %w", f.ref.Name, err)
		}
	}
	return step, nil
}

// wake is when the plan is to be looked at even without news.
func (f *flow) wake() time.Time {
	var at time.Time
	sooner := func(t time.Time) {
		if !t.IsZero() && (at.IsZero() || t.Before(at)) {
			at = t
		}
	}
	if f.State == Running {
		sooner(f.Deadline)
		if f.More {
			sooner(f.now)
		}
	}
	if f.State == Stopping {
		sooner(f.now.Add(repeatCancel))
	}
	for _, t := range f.Wakes {
		sooner(t)
	}
	return at
}
