// Package workflow works out what a workflow does next. It is pure: it reads a plan and its news and returns the next
// step of the plan. Stores keep plans (see driver.Planner), workers hand the steps in; nothing here waits or stores.
package workflow

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/waggleq/waggle/driver"
)

// Kind is the kind of the plans that are workflows.
const Kind = "workflow"

// MaxSteps is how many steps a workflow may have, those that are added while it runs included.
const MaxSteps = 20_000

// Graph is a workflow as it was started: steps, and what each waits for.
type Graph struct {
	ID    string `json:"id"`
	Steps []Step `json:"steps"`
	// Deadline is how long the whole may take; 0: as long as it takes. At the deadline what runs is cancelled, and the
	// workflow fails.
	Deadline Duration `json:"deadline,omitzero"`
	// OnFailure is the policy of steps that name none. Empty: fail.
	OnFailure Policy `json:"on_failure,omitzero"`
	// Success, Failure and Always are run when the workflow has come to its end so; Always after the others.
	Success *Step `json:"success,omitzero"`
	Failure *Step `json:"failure,omitzero"`
	Always  *Step `json:"always,omitzero"`
	// Keep is how long the workflow can be looked at after its end. 0: a day if it completed, else 30 days.
	Keep Duration `json:"keep,omitzero"`
}

// Step is one task of a workflow, or a wait.
type Step struct {
	Name string `json:"name"`
	// After are the steps that must have ended well before this one begins.
	After []string `json:"after,omitzero"`
	// Before are steps that wait for this one too: for steps that are added while the workflow runs.
	Before []string `json:"before,omitzero"`

	Type    string          `json:"type,omitzero"`
	Payload json.RawMessage `json:"payload,omitzero"`
	// Input names an earlier step whose result is this one's payload.
	Input string `json:"input,omitzero"`

	// Wait makes the step wait for a signal or a time instead of running a task.
	Wait *Wait `json:"wait,omitzero"`

	// OnFailure says what becomes of the workflow if this step fails. Empty: the workflow's policy.
	OnFailure Policy `json:"on_failure,omitzero"`
	// Compensate undoes this step, if it had completed, when the workflow fails under [Compensate]. Without a payload of
	// its own it gets the result of this step.
	Compensate *Step `json:"compensate,omitzero"`

	Queue       string            `json:"queue,omitzero"`
	Priority    int               `json:"priority,omitzero"`
	MaxAttempts int               `json:"max_attempts,omitzero"`
	CrashLimit  int               `json:"crash_limit,omitzero"`
	Timeout     Duration          `json:"timeout,omitzero"`
	Delay       Duration          `json:"delay,omitzero"` // between its release and its start
	Key         string            `json:"key,omitzero"`
	Weight      int               `json:"weight,omitzero"`
	Headers     map[string]string `json:"headers,omitzero"`
	Tags        []string          `json:"tags,omitzero"`
}

// Wait is what a waiting step waits for: a signal, a time, or whichever comes first.
type Wait struct {
	Signal string    `json:"signal,omitzero"` // its name; its payload becomes the step's result
	For    Duration  `json:"for,omitzero"`    // counted from when the step begins
	Until  time.Time `json:"until,omitzero"`
	// Fail makes the step fail when its time comes and the signal has not.
	Fail bool `json:"fail,omitzero"`
}

// Policy says what becomes of a workflow when a step fails.
type Policy string

// The policies.
const (
	// Fail cancels what runs, skips what waits, and ends the workflow as failed.
	Fail Policy = "fail"
	// Continue goes on as if the step had completed, without a result.
	Continue Policy = "continue"
	// Compensate does what Fail does, and then undoes the completed steps that say how, the last first.
	Compensate Policy = "compensate"
)

// Duration is a time.Duration that is written as a text such as "90s".
type Duration time.Duration

// MarshalText writes the duration as Go does.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText reads a duration as Go does.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	if err != nil {
		return fmt.Errorf("%q is not a duration: write 90s, 5m or 2h", b)
	}
	*d = Duration(v)
	return nil
}

// Ref returns the plan of a workflow.
func Ref(id string) driver.PlanRef { return driver.PlanRef{Kind: Kind, Name: id} }

// Validate returns [driver.ErrInvalid], with all that is wrong, for a graph that can't be run.
func (g *Graph) Validate() error {
	v := &validation{seen: map[string]int{}}
	if g.ID == "" {
		v.add("the workflow has no id")
	} else {
		v.check(Ref(g.ID).Validate())
	}
	if len(g.Steps) == 0 {
		v.add("a workflow needs at least one step")
	}
	if len(g.Steps) > MaxSteps {
		v.add("a workflow has at most %d steps, got %d", MaxSteps, len(g.Steps))
		return v.err()
	}
	if g.Deadline < 0 || g.Keep < 0 {
		v.add("deadline and keep must not be negative")
	}
	v.policy("the workflow", g.OnFailure)
	for i := range g.Steps {
		v.step(&g.Steps[i], i)
	}
	for i := range g.Steps {
		v.links(&g.Steps[i], g.Steps)
	}
	for name, s := range map[string]*Step{"success": g.Success, "failure": g.Failure, "always": g.Always} {
		if s != nil {
			v.extra("the callback "+name, s)
		}
	}
	v.sizes(g)
	if len(v.problems) == 0 {
		if circle := g.circle(); circle != nil {
			v.add("the steps wait for each other in a circle: %s", strings.Join(circle, " → "))
		}
	}
	return v.err()
}

// maxWaits bounds the steps that wait for a signal or a time, so that the state of a workflow stays small.
const maxWaits = 2000

// sizes checks that the plan of the workflow fits into what a store keeps of one.
func (v *validation) sizes(g *Graph) {
	waits := 0
	for i := range g.Steps {
		if g.Steps[i].Wait != nil {
			waits++
		}
	}
	if waits > maxWaits {
		v.add("a workflow has at most %d steps that wait, got %d", maxWaits, waits)
	}
	const most = driver.MaxPlanPart - driver.MaxPlanBody
	if b, err := json.Marshal(g); err != nil {
		v.add("the workflow can't be stored: %v", err)
	} else if len(b) > most {
		v.add("the steps with their payloads have %d bytes, %d are allowed", len(b), most)
	}
}

// validation collects what is wrong.
type validation struct {
	seen     map[string]int // steps by name
	problems []string
}

const maxProblems = 20

func (v *validation) add(format string, args ...any) {
	if len(v.problems) < maxProblems {
		v.problems = append(v.problems, fmt.Sprintf(format, args...))
	}
}

func (v *validation) check(err error) {
	if err != nil {
		v.add("%v", err)
	}
}

func (v *validation) err() error {
	if len(v.problems) == 0 {
		return nil
	}
	return driver.Invalidf("%s", strings.Join(v.problems, "; "))
}

func (v *validation) policy(who string, p Policy) {
	switch p {
	case "", Fail, Continue, Compensate:
	default:
		v.add("%s has the policy %q: use fail, continue or compensate", who, driver.CutText(string(p), 40))
	}
}

// maxStepName leaves room for what a label adds to a step's name.
const maxStepName = 100

func (v *validation) step(s *Step, i int) {
	if err := driver.CheckName("step", s.Name, maxStepName); err != nil {
		v.add("step %d: %v", i+1, err)
		return
	}
	if strings.ContainsRune(s.Name, ':') {
		v.add("step %s: a step's name has no colon", s.Name)
	}
	if _, twice := v.seen[s.Name]; twice {
		v.add("there are two steps %s", s.Name)
	}
	v.seen[s.Name] = i
	v.policy("step "+s.Name, s.OnFailure)
	v.work("step "+s.Name, s)
	if s.Compensate != nil {
		v.extra("the compensation of step "+s.Name, s.Compensate)
	}
}

// work checks that a step is either a task or a wait.
func (v *validation) work(who string, s *Step) {
	switch {
	case s.Wait != nil && (s.Type != "" || s.Payload != nil || s.Input != ""):
		v.add("%s waits, so it has no type and no payload", who)
	case s.Wait != nil:
		v.wait(who, s.Wait)
		return
	case s.Type == "":
		v.add("%s needs a type, or something to wait for", who)
		return
	case s.Payload != nil && s.Input != "":
		v.add("%s has a payload and takes one from %s: only one of them can be", who, s.Input)
	}
	probe := s.task("probe", s.Payload)
	if err := driver.Prepare(probe, anyStore, time.Now()); err != nil {
		v.add("%s: %v", who, err)
	}
	if s.Delay < 0 || s.Timeout < 0 {
		v.add("%s: delay and timeout must not be negative", who)
	}
}

// anyStore offers all that a step can ask for: the store it is put into may offer less.
var anyStore = func() driver.Capabilities {
	limits, err := driver.Limits{}.WithDefaults()
	if err != nil {
		panic(err) // the defaults are in order
	}
	return driver.Capabilities{Keys: true, Limits: true, Plans: true, Limit: limits}
}()

func (v *validation) wait(who string, w *Wait) {
	if w.Signal == "" && w.For == 0 && w.Until.IsZero() {
		v.add("%s waits for nothing: name a signal, a time, or both", who)
	}
	if w.Signal != "" {
		if err := driver.CheckName("signal", w.Signal, driver.MaxNameLen); err != nil {
			v.add("%s: %v", who, err)
		}
	}
	if w.For < 0 || w.For != 0 && !w.Until.IsZero() {
		v.add("%s: a wait has a length that is not negative, or a time, not both", who)
	}
	if y := w.Until.Year(); !w.Until.IsZero() && (y < 1970 || y > 9999) {
		v.add("%s waits until the year %d: use one between 1970 and 9999", who, y)
	}
}

// extra checks a step that is outside the graph: a compensation or a callback.
func (v *validation) extra(who string, s *Step) {
	if len(s.After)+len(s.Before) > 0 || s.Wait != nil || s.Compensate != nil || s.Input != "" {
		v.add("%s is a task with a type and a payload, nothing else", who)
	}
	v.work(who, s)
}

// links checks what a step says of others.
func (v *validation) links(s *Step, steps []Step) {
	for what, list := range map[string][]string{"waits for": s.After, "comes before": s.Before} {
		for _, name := range list {
			if _, ok := v.seen[name]; !ok {
				v.add("step %s %s %q, which is not a step of this workflow", s.Name, what, driver.CutText(name, 64))
			}
		}
	}
	if s.Input != "" && !slices.Contains(s.After, s.Input) {
		v.add("step %s takes the result of %q, so it has to come after it", s.Name, driver.CutText(s.Input, 64))
	}
}

// circle returns steps that wait for each other, nil if there are none.
func (g *Graph) circle() []string {
	links := g.link()
	const unseen, open, done = 0, 1, 2
	mark := make([]byte, len(g.Steps))
	type visit struct{ step, next int }
	for root := range g.Steps {
		if mark[root] != unseen {
			continue
		}
		mark[root] = open
		path := []visit{{root, 0}}
		for len(path) > 0 {
			v := &path[len(path)-1]
			if v.next == len(links.after[v.step]) {
				mark[v.step] = done
				path = path[:len(path)-1]
				continue
			}
			on := links.after[v.step][v.next]
			v.next++
			switch mark[on] {
			case open:
				names := []string{g.Steps[on].Name}
				for i := len(path) - 1; i >= 0; i-- {
					names = append(names, g.Steps[path[i].step].Name)
					if path[i].step == on {
						break
					}
				}
				return names
			case unseen:
				mark[on] = open
				path = append(path, visit{on, 0})
			}
		}
	}
	return nil
}

// links are the edges of a graph, by the indices of steps.
type links struct {
	index  map[string]int
	after  [][]int // what a step waits for
	before [][]int // what waits for a step
}

func (g *Graph) link() *links {
	l := &links{index: make(map[string]int, len(g.Steps)), after: make([][]int, len(g.Steps)), before: make([][]int, len(g.Steps))}
	for i := range g.Steps {
		l.index[g.Steps[i].Name] = i
	}
	add := func(first, then int) {
		known, v := l.after[then], first
		if before := l.before[first]; len(before) < len(known) {
			known, v = before, then
		}
		if !slices.Contains(known, v) {
			l.after[then] = append(l.after[then], first)
			l.before[first] = append(l.before[first], then)
		}
	}
	for i := range g.Steps {
		for _, name := range g.Steps[i].After {
			add(l.index[name], i)
		}
		for _, name := range g.Steps[i].Before {
			add(i, l.index[name])
		}
	}
	return l
}

// task is the task of a step, with the payload given.
func (s *Step) task(id string, payload []byte) *driver.Task {
	if payload == nil {
		payload = []byte("null")
	}
	return &driver.Task{ID: id, Type: s.Type, Queue: s.Queue, Payload: payload, Encoding: driver.EncodingJSON, Headers: s.Headers,
		Tags: s.Tags, Priority: s.Priority, MaxAttempts: s.MaxAttempts, CrashLimit: s.CrashLimit, Timeout: time.Duration(s.Timeout),
		Delay: time.Duration(s.Delay), Key: s.Key, Weight: s.Weight}
}
