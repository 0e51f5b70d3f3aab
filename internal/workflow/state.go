package workflow

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"time"
	"unicode/utf8"

	"github.com/waggleq/waggle/driver"
)

// The states of a workflow.
const (
	Running      = "running"
	Stopping     = "stopping"     // it has failed or was cancelled, and some of its tasks have not ended yet
	Compensating = "compensating" // what had completed is being undone
	Finishing    = "finishing"    // its callbacks run
	Completed    = "completed"
	Failed       = "failed"
	Cancelled    = "cancelled"
)

// Status is where a step stands.
type Status byte

// The statuses, as they are stored.
const (
	StepPending     Status = 'P' // waits for other steps
	StepRunning     Status = 'R' // its task is in the store
	StepWaiting     Status = 'W' // waits for a signal or a time
	StepCompleted   Status = 'C'
	StepFailed      Status = 'F'
	StepCancelled   Status = 'X'
	StepSkipped     Status = 'S' // the workflow ended before it
	StepCompensated Status = 'U' // completed, and undone since
)

var statusNames = map[Status]string{StepPending: "pending", StepRunning: "running", StepWaiting: "waiting", StepCompleted: "completed",
	StepFailed: "failed", StepCancelled: "cancelled", StepSkipped: "skipped", StepCompensated: "compensated"}

// String is the status as people read it.
func (s Status) String() string { return statusNames[s] }

// state is what a workflow's plan keeps in its body.
type state struct {
	State   string    `json:"state"`
	Graph   string    `json:"graph,omitzero"`   // the sum of the graph, see Cache; empty: unknown
	Outcome string    `json:"outcome,omitzero"` // how it will end, once that is known
	Reason  string    `json:"reason,omitzero"`  // why it did not complete
	Status  string    `json:"status"`           // a letter a step, in the order of the graph
	Started time.Time `json:"started"`
	Ended   time.Time `json:"ended,omitzero"`
	// Deadline is when the whole is to have ended.
	Deadline time.Time `json:"deadline,omitzero"`

	Runs    map[int]int       `json:"runs,omitzero"`    // of steps that were retried: how often
	Errors  map[int]string    `json:"errors,omitzero"`  // of steps that failed
	Wakes   map[int]time.Time `json:"wakes,omitzero"`   // of steps that wait for a time
	Order   []int             `json:"order,omitzero"`   // completed steps that can be undone, in the order of their ends
	Extra   map[string]Status `json:"extra,omitzero"`   // compensations and callbacks, by label
	Early   int               `json:"early,omitzero"`   // signals that came before a step waited for them: see partSignals
	Dropped int               `json:"dropped,omitzero"` // of those, how many were too many to be kept
	More    bool              `json:"more,omitzero"`    // steps may be ready that did not fit into the last step of the plan
	Round   int               `json:"round,omitzero"`   // of retries by people
}

type signal struct {
	Name    string          `json:"name"`
	Payload json.RawMessage `json:"payload,omitzero"`
}

const (
	maxSignals   = 100 // signals kept for steps that do not wait yet
	maxErrors    = 1000
	partGraph    = "graph"
	partSignals  = "signals"
	resultParts  = 64
	repeatCancel = 2 * time.Second // how often running tasks are told again to stop
)

// ResultPart names the part of a plan that holds the result of a step.
func ResultPart(step string) string {
	h := fnv.New32a()
	_, _ = h.Write([]byte(step))
	return fmt.Sprintf("r%d", h.Sum32()%resultParts)
}

// results are the results of the steps in one part, by name.
type results map[string]json.RawMessage

// ResultIn returns the result of a step from its part of a plan, nil if it has none.
func ResultIn(part []byte, step string) (json.RawMessage, error) {
	if len(part) == 0 {
		return nil, nil
	}
	var r results
	if err := json.Unmarshal(part, &r); err != nil {
		return nil, driver.Errorf(driver.ErrCorrupt, "the results of the workflow can't be read: %w", err)
	}
	return r[step], nil
}

// resultJSON is the result of a task as JSON: bytes become a text, or base64 where they are none.
func resultJSON(n *driver.News) json.RawMessage {
	switch {
	case len(n.Result) == 0:
		return nil
	case n.ResultEncoding == driver.EncodingJSON && json.Valid(n.Result):
		return n.Result
	}
	var b []byte
	if utf8.Valid(n.Result) {
		b, _ = json.Marshal(string(n.Result)) // a string can be marshalled
	} else {
		b, _ = json.Marshal(n.Result)
	}
	return b
}

// label is what a step's task is called in news: the step's name and, from its second run on, the run.
func (st *state) label(name string, i int) string {
	if n := st.Runs[i]; n > 0 {
		return fmt.Sprintf("%s:%d", name, n+1)
	}
	return name
}

// The labels of compensations and callbacks. A step's name has no colon, so none is a step's.
func (st *state) undoLabel(name string) string     { return st.round(name + ":undo") }
func (st *state) callbackLabel(name string) string { return st.round(":" + name) }

func (st *state) round(label string) string {
	if st.Round > 0 {
		return fmt.Sprintf("%s:%d", label, st.Round+1)
	}
	return label
}

// StepInfo is a step of a workflow as people see it.
type StepInfo struct {
	Name   string          `json:"name"`
	State  string          `json:"state"`
	Task   string          `json:"task,omitzero"` // the id of its task, once it has one
	Type   string          `json:"type,omitzero"`
	After  []string        `json:"after,omitzero"`
	Run    int             `json:"run,omitzero"` // from the second on
	Error  string          `json:"error,omitzero"`
	Until  time.Time       `json:"until,omitzero"` // of one that waits for a time
	Signal string          `json:"signal,omitzero"`
	Result json.RawMessage `json:"result,omitzero"`
}

// Info is a workflow as people see it.
type Info struct {
	ID       string     `json:"id"`
	State    string     `json:"state"`
	Reason   string     `json:"reason,omitzero"`
	Started  time.Time  `json:"started"`
	Ended    time.Time  `json:"ended,omitzero"`
	Deadline time.Time  `json:"deadline,omitzero"`
	Steps    []StepInfo `json:"steps,omitzero"`
	// Extra are the compensations and callbacks that have begun.
	Extra []StepInfo `json:"extra,omitzero"`
}

// flow is a workflow that was read from its plan.
type flow struct {
	state
	ref     driver.PlanRef
	graph   *Graph // of the cache, if not regraphed: never changed
	links   *links
	steps   []byte // of state.Status
	now     time.Time
	parts   map[string]results // that were read or changed
	changed map[string]bool    // parts
	plan    *driver.Plan
	whole   bool            // all parts of the plan were read
	missing map[string]bool // parts that have to be read first

	seen      int64 // the last of the news that were taken in
	regraphed bool
	early     []signal // nil: not read yet
	bytes     int      // of the payloads of tasks
	tasks     []*driver.Task
	cancel    []string
	touched   []int // steps whose dependents are to be looked at
	all       bool  // every step is
}

// open reads a plan. All its parts must be there.
func open(p *driver.Plan, now time.Time) (*flow, error) {
	f, err := openWith(nil, p, now)
	if err == nil && f == nil {
		err = driver.Errorf(driver.ErrCorrupt, "workflow %s has no steps", p.Name)
	}
	if err == nil {
		f.whole = true
	}
	return f, err
}

// openNow reads a plan as open does, and takes in its news.
func openNow(p *driver.Plan, now time.Time) (*flow, error) {
	f, err := open(p, now)
	if err == nil {
		err = f.hearAll()
	}
	return f, err
}

// openWith reads a plan of which only some parts may be there. nil: its graph has to be read first.
func openWith(c *Cache, p *driver.Plan, now time.Time) (*flow, error) {
	f := &flow{ref: p.PlanRef, plan: p, now: now, parts: map[string]results{}, changed: map[string]bool{}, missing: map[string]bool{}}
	if err := json.Unmarshal(p.Body, &f.state); err != nil {
		return nil, driver.Errorf(driver.ErrCorrupt, "workflow %s can't be read: %w", p.Name, err)
	}
	g, err := c.graphOf(p, f.Graph)
	if g == nil {
		return nil, err
	}
	f.graph, f.links = g.graph, g.links
	if len(f.graph.Steps) != len(f.Status) {
		return nil, driver.Errorf(driver.ErrCorrupt, "workflow %s has %d steps and %d states", p.Name, len(f.graph.Steps), len(f.Status))
	}
	f.steps = []byte(f.Status)
	if f.More {
		f.More, f.all = false, true
	}
	return f, nil
}

func (f *flow) status(i int) Status        { return Status(f.steps[i]) }
func (f *flow) set(i int, s Status)        { f.steps[i] = byte(s) }
func (f *flow) taskID(label string) string { return driver.PlanTaskID(f.ref, label) }
func (f *flow) stepLabel(i int) string     { return f.label(f.graph.Steps[i].Name, i) }

// count counts the steps in a status.
func (f *flow) count(s Status) (n int) {
	for _, b := range f.steps {
		if Status(b) == s {
			n++
		}
	}
	return n
}

// has reports whether a part was read. If not, that is noted: the flow is good for nothing then.
func (f *flow) has(name string) bool {
	if _, read := f.plan.Parts[name]; !read && !f.whole {
		f.missing[name] = true
		return false
	}
	return true
}

func (f *flow) part(name string) (results, error) {
	if r, ok := f.parts[name]; ok {
		return r, nil
	}
	if !f.has(name) {
		return results{}, nil
	}
	r := results{}
	if b := f.plan.Parts[name]; len(b) > 0 {
		if err := json.Unmarshal(b, &r); err != nil {
			return nil, driver.Errorf(driver.ErrCorrupt, "the results of workflow %s can't be read: %w", f.plan.Name, err)
		}
	}
	f.parts[name] = r
	return r, nil
}

func (f *flow) keepResult(step string, value json.RawMessage) error {
	name := ResultPart(step)
	r, err := f.part(name)
	if err != nil {
		return err
	}
	if value == nil {
		if _, had := r[step]; !had {
			return nil
		}
		delete(r, step)
	} else {
		if len(f.plan.Parts[name])+len(value) > driver.MaxPlanPart-driver.MaxPlanBody {
			f.note(f.links.index[step], "its result was not kept: the results of the workflow are too large")
			return nil
		}
		r[step] = value
	}
	f.changed[name] = true
	return nil
}

// note keeps what went wrong in a step.
func (f *flow) note(i int, text string) {
	if f.Errors == nil {
		f.Errors = map[int]string{}
	}
	if len(f.Errors) < maxErrors {
		f.Errors[i] = text
	}
}

// signals returns the signals that came before a step waited for them.
func (f *flow) signals() ([]signal, error) {
	if f.early == nil && f.Early > 0 && f.has(partSignals) {
		if err := json.Unmarshal(f.plan.Parts[partSignals], &f.early); err != nil {
			return nil, driver.Errorf(driver.ErrCorrupt, "the signals of workflow %s can't be read: %w", f.plan.Name, err)
		}
	}
	return f.early, nil
}

func (f *flow) setSignals(list []signal) {
	f.early, f.Early = list, len(list)
	f.changed[partSignals] = true
}

func (f *flow) result(step string) (json.RawMessage, error) {
	r, err := f.part(ResultPart(step))
	return r[step], err
}
