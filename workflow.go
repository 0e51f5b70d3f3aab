package waggle

import (
	"context"
	"encoding/json"
	"errors"
	"iter"
	"slices"
	"time"

	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/internal/runner"
	"github.com/waggleq/waggle/internal/workflow"
)

// The states of a workflow: it runs; it has failed or was cancelled and waits for its running tasks (stopping); what had
// completed is undone (compensating); its callbacks run (finishing); or it has ended.
const (
	WorkflowRunning      = workflow.Running
	WorkflowStopping     = workflow.Stopping
	WorkflowCompensating = workflow.Compensating
	WorkflowFinishing    = workflow.Finishing
	WorkflowCompleted    = workflow.Completed
	WorkflowFailed       = workflow.Failed
	WorkflowCancelled    = workflow.Cancelled
)

// MaxWorkflowSteps is how many steps a workflow may have.
const MaxWorkflowSteps = workflow.MaxSteps

// FailurePolicy says what becomes of a workflow when a step of it fails, that is when the step's task is discarded,
// cancelled or deleted.
type FailurePolicy = workflow.Policy

// The policies.
const (
	// FailWorkflow cancels what runs, skips what waits, and ends the workflow as failed. The default.
	FailWorkflow = workflow.Fail
	// ContinueWorkflow goes on as if the step had completed, without a result.
	ContinueWorkflow = workflow.Continue
	// CompensateWorkflow does what FailWorkflow does and then undoes the completed steps that say how, the last first.
	CompensateWorkflow = workflow.Compensate
)

// Workflow is a graph of steps that is built and then started with [Client.StartWorkflow]:
//
//	w := waggle.NewWorkflow("order-17", nil)
//	charge := w.Task("charge", "card.charge", order, nil)
//	grind := w.Task("grind", "coffee.grind", order, nil).After(charge)
//	milk := w.Task("milk", "milk.steam", order, nil).After(charge)
//	w.Task("brew", "coffee.brew", order, nil).After(grind, milk)
//
// A step begins when all steps it comes after have ended well. Mistakes are reported by StartWorkflow, all at once.
type Workflow struct {
	graph workflow.Graph
	errs  []error
}

// WorkflowOptions configure a workflow. The zero value of a field means its default.
type WorkflowOptions struct {
	// Deadline is how long the whole may take; at its end the workflow fails. Default: as long as it takes.
	Deadline time.Duration
	// OnFailure is the policy of steps that name none. Default: [FailWorkflow].
	OnFailure FailurePolicy
	// Keep is how long the workflow can be looked at after its end. Default: a day if it completed, else 30 days.
	Keep time.Duration
}

// NewWorkflow begins a workflow. The id names it, [A-Za-z0-9._:-]{1,128}: starting an id again starts nothing.
func NewWorkflow(id string, opts *WorkflowOptions) *Workflow {
	w := &Workflow{graph: workflow.Graph{ID: id}}
	if opts != nil {
		w.graph.Deadline, w.graph.OnFailure, w.graph.Keep = workflow.Duration(opts.Deadline), opts.OnFailure, workflow.Duration(opts.Keep)
	}
	return w
}

// ParseWorkflow reads a workflow from JSON: {"id", "steps": [{"name", "type", "payload", "after": ["…"]}, …]}.
func ParseWorkflow(data []byte) (*Workflow, error) {
	w := &Workflow{}
	if err := workflow.Parse(data, &w.graph); err != nil {
		return nil, failed("workflow", err)
	}
	return w, nil
}

// ID returns the workflow's id.
func (w *Workflow) ID() string { return w.graph.ID }

// StepOptions are the options of a step's task; they are those of [EnqueueOptions]. The zero value of a field means its
// default.
type StepOptions struct {
	Queue       string
	Priority    int
	MaxAttempts int
	CrashLimit  int
	Timeout     time.Duration
	Delay       time.Duration // between the step's release and its start
	Key         string        // its tenant or sequence, where the store offers keys
	Weight      int
	Headers     map[string]string
	Tags        []string
	OnFailure   FailurePolicy
}

// WorkflowStep is a step of a workflow that is being built.
type WorkflowStep struct {
	w     *Workflow
	index int
}

// Task adds a step that runs a task of a type; the payload is what [Client.Enqueue] takes. nil opts mean the defaults.
func (w *Workflow) Task(name, typ string, payload any, opts *StepOptions) *WorkflowStep {
	return w.add(w.task(name, typ, payload, opts))
}

func (w *Workflow) add(s workflow.Step) *WorkflowStep {
	w.graph.Steps = append(w.graph.Steps, s)
	return &WorkflowStep{w, len(w.graph.Steps) - 1}
}

func (w *Workflow) task(name, typ string, payload any, opts *StepOptions) workflow.Step {
	s, err := stepOf(name, typ, payload, opts)
	if err != nil {
		w.errs = append(w.errs, err)
	}
	return s
}

func stepOf(name, typ string, payload any, opts *StepOptions) (workflow.Step, error) {
	s := workflow.Step{Name: name, Type: typ}
	if o := opts; o != nil {
		s.Queue, s.Priority, s.MaxAttempts, s.CrashLimit, s.Key, s.Weight = o.Queue, o.Priority, o.MaxAttempts, o.CrashLimit, o.Key, o.Weight
		s.Timeout, s.Delay, s.Headers, s.Tags, s.OnFailure = workflow.Duration(o.Timeout), workflow.Duration(o.Delay), o.Headers, o.Tags, o.OnFailure
	}
	if payload == nil {
		return s, nil
	}
	data, err := encode("payload", payload)
	switch {
	case err != nil:
		return s, driver.Errorf(ErrInvalid, "step %s: %w", name, err)
	case data.Encoding != EncodingJSON:
		return s, driver.Invalidf("step %s: the payload of a step is JSON, not bytes", name)
	}
	s.Payload = json.RawMessage(data.Bytes)
	return s, nil
}

// Wait adds a step that waits for a signal (see [Client.SignalWorkflow]), at most for a time; 0 is for ever. When the time
// is over the step has ended well, without a result. An empty signal waits for the time alone.
func (w *Workflow) Wait(name, signal string, most time.Duration) *WorkflowStep {
	return w.add(workflow.Step{Name: name, Wait: &workflow.Wait{Signal: signal, For: workflow.Duration(most)}})
}

// WaitUntil adds a step that waits for a time, or for a signal if that comes earlier.
func (w *Workflow) WaitUntil(name, signal string, at time.Time) *WorkflowStep {
	return w.add(workflow.Step{Name: name, Wait: &workflow.Wait{Signal: signal, Until: at}})
}

func (s *WorkflowStep) step() *workflow.Step { return &s.w.graph.Steps[s.index] }

// Name returns the step's name.
func (s *WorkflowStep) Name() string { return s.step().Name }

// After makes the step begin only when others have ended well. It returns the step.
func (s *WorkflowStep) After(others ...*WorkflowStep) *WorkflowStep {
	for _, o := range others {
		if o == nil || o.w != s.w {
			s.w.errs = append(s.w.errs, driver.Invalidf("step %s comes after a step of another workflow", s.Name()))
			continue
		}
		s.step().After = append(s.step().After, o.Name())
	}
	return s
}

// Input makes the result of an earlier step this one's payload, and the step come after it.
func (s *WorkflowStep) Input(from *WorkflowStep) *WorkflowStep {
	s.After(from)
	if from != nil && from.w == s.w {
		s.step().Input = from.Name()
	}
	return s
}

// OrFail makes a step that waits fail when its time is over and the signal has not come.
func (s *WorkflowStep) OrFail() *WorkflowStep {
	if s.step().Wait == nil {
		s.w.errs = append(s.w.errs, driver.Invalidf("step %s waits for nothing", s.Name()))
	} else {
		s.step().Wait.Fail = true
	}
	return s
}

// Compensate says how the step is undone: by a task of a type. With a nil payload that gets the result of the step.
func (s *WorkflowStep) Compensate(typ string, payload any, opts *StepOptions) *WorkflowStep {
	undo := s.w.task("", typ, payload, opts)
	s.step().Compensate = &undo
	return s
}

// OnSuccess adds a task that runs when the workflow has completed; [Workflow.OnFailure] and [Workflow.Always] are for the
// other ends. With a nil payload it gets {"workflow", "state", "reason"}.
func (w *Workflow) OnSuccess(typ string, payload any, opts *StepOptions) {
	s := w.task("", typ, payload, opts)
	w.graph.Success = &s
}

// OnFailure adds a task that runs when the workflow has failed or was cancelled: see [Workflow.OnSuccess].
func (w *Workflow) OnFailure(typ string, payload any, opts *StepOptions) {
	s := w.task("", typ, payload, opts)
	w.graph.Failure = &s
}

// Always adds a task that runs however the workflow ends: see [Workflow.OnSuccess].
func (w *Workflow) Always(typ string, payload any, opts *StepOptions) {
	s := w.task("", typ, payload, opts)
	w.graph.Always = &s
}

// workflowKind understands workflows, and keeps the graphs of those that run.
func workflowKind() runner.PlanKind {
	graphs := workflow.NewCache()
	return runner.PlanKind{Parts: graphs.Parts, Step: func(p *driver.Plan, now time.Time) (runner.PlanMove, bool, error) {
		return stepWorkflow(graphs, p, now)
	}}
}

// stepWorkflow works out the next step of a workflow. What is to be cancelled is cancelled before: it is what will have
// failed in any case.
func stepWorkflow(graphs *workflow.Cache, p *driver.Plan, now time.Time) (m runner.PlanMove, ok bool, err error) {
	if due := p.Due(); due.IsZero() || p.Waiting == 0 && due.After(now) {
		return m, false, nil
	}
	next, err := workflow.Advance(graphs, p, now)
	if err != nil || next.Need != nil {
		return runner.PlanMove{Need: next.Need}, err == nil, err
	}
	m.Step = *next.Step
	for some := range slices.Chunk(next.Cancel, driver.MaxApply) {
		m.First = append(m.First, driver.Change{Op: driver.OpCancel, IDs: some})
	}
	return m, true, nil
}

// WaitWorkflow waits until a workflow has ended, however it did, and returns it with its steps; or until ctx ends. Errors:
// [ErrNotFound]; why ctx ended.
func (c *Client) WaitWorkflow(ctx context.Context, id string) (*WorkflowInfo, error) {
	const shortest, longest = 5 * time.Millisecond, 250 * time.Millisecond
	ref := workflow.Ref(id)
	for pause := shortest; ; pause = min(2*pause, longest) {
		plans, err := c.store.GetPlans(ctx, []driver.PlanRef{ref}, driver.PlanRead{})
		switch {
		case err != nil:
			return nil, failed("wait for workflow "+id, err)
		case plans[0] == nil:
			return nil, failed("wait for workflow "+id, driver.PlanNotFound(ref))
		case !plans[0].Expires.IsZero():
			return c.Workflow(ctx, id)
		}
		select {
		case <-ctx.Done():
			return nil, failed("wait for workflow "+id, causeOf(ctx))
		case <-time.After(pause):
		}
	}
}

// WorkflowReceipt says what became of a started workflow.
type WorkflowReceipt struct {
	ID       string `json:"id"`
	Existing bool   `json:"existing"` // a workflow with this id was there: nothing was started
	State    string `json:"state"`
}

// WorkflowInfo is a workflow as the store knows it.
type WorkflowInfo = workflow.Info

// WorkflowStepInfo is a step of a [WorkflowInfo]. State is pending, running, waiting, completed, failed, cancelled, skipped or
// compensated; Task is the id of its task.
type WorkflowStepInfo = workflow.StepInfo

// StartWorkflow stores a workflow and begins its first steps in one atomic step. Starting an id that is there already
// starts nothing, so it may be repeated. Errors: [ErrInvalid] joins all that is wrong with it, circles included.
func (c *Client) StartWorkflow(ctx context.Context, w *Workflow) (*WorkflowReceipt, error) {
	if w == nil {
		return nil, failed("start workflow", driver.Invalidf("the workflow is nil"))
	}
	op := "start workflow " + w.graph.ID
	if len(w.errs) > 0 {
		return nil, failed(op, errors.Join(w.errs...))
	}
	now, err := c.storeNow(ctx)
	if err != nil {
		return nil, failed(op, err)
	}
	step, err := workflow.Start(&w.graph, now)
	if err != nil {
		return nil, failed(op, err)
	}
	switch err := c.advance(ctx, step); {
	case errors.Is(err, ErrConflict):
		info, err := c.Workflow(ctx, w.graph.ID)
		if err != nil {
			return nil, err
		}
		return &WorkflowReceipt{ID: info.ID, Existing: true, State: info.State}, nil
	case err != nil:
		return nil, failed(op, err)
	}
	return &WorkflowReceipt{ID: w.graph.ID, State: step.State}, nil
}

func (c *Client) advance(ctx context.Context, step *driver.PlanStep) error {
	res, err := c.store.Advance(ctx, []driver.PlanStep{*step})
	if err != nil {
		return err
	}
	return res[0].Err
}

// Workflow returns a workflow with its steps, or [ErrNotFound].
func (c *Client) Workflow(ctx context.Context, id string) (*WorkflowInfo, error) {
	p, err := c.workflowPlan(ctx, id)
	if err != nil {
		return nil, failed("get workflow "+id, err)
	}
	info, err := workflow.Describe(p)
	return info, failed("get workflow "+id, err)
}

func (c *Client) workflowPlan(ctx context.Context, id string) (*driver.Plan, error) {
	ref := workflow.Ref(id)
	if err := ref.Validate(); err != nil {
		return nil, err
	}
	plans, err := c.store.GetPlans(ctx, []driver.PlanRef{ref}, driver.PlanRead{AllParts: true, News: workflow.NewsAtOnce})
	if err != nil {
		return nil, err
	}
	if plans[0] == nil {
		return nil, driver.PlanNotFound(ref)
	}
	return plans[0], nil
}

// Workflows walks the workflows in some states (none: all), sorted by id, without their steps. An error is the last pair. One
// that can't be read is listed as "damaged", with the reason, whatever states were asked for.
func (c *Client) Workflows(ctx context.Context, states ...string) iter.Seq2[*WorkflowInfo, error] {
	return pages(func(cursor string) ([]*WorkflowInfo, string, error) {
		page, err := c.store.Plans(ctx, driver.PlanQuery{Kind: workflow.Kind, States: states}, driver.Page{Cursor: cursor, Size: 500})
		if err != nil {
			return nil, "", failed("list workflows", err)
		}
		infos := make([]*WorkflowInfo, len(page.Plans))
		for i, p := range page.Plans {
			infos[i] = describeListed(p)
		}
		return infos, page.Next, nil
	})
}

func describeListed(p *driver.Plan) *WorkflowInfo {
	info, err := workflow.Describe(p)
	switch {
	case err != nil:
		return &WorkflowInfo{ID: p.Name, State: driver.PlanDamaged, Reason: err.Error(), Started: p.Created}
	case p.State == driver.PlanDamaged:
		info.State, info.Reason = p.State, "what is stored of it is damaged"
	}
	return info
}

// SignalWorkflow sends a signal to a workflow: the first step that waits for it has ended, with the payload as its result.
// A signal that arrives before a step waits for it is kept. The signal's id makes it harmless to send it again; empty: a
// new one. Errors: [ErrNotFound], [ErrState] (the workflow has ended), [ErrInvalid].
func (c *Client) SignalWorkflow(ctx context.Context, id, signal, signalID string, payload any) error {
	op := "signal workflow " + id
	data, err := encode("payload", payload)
	if err != nil {
		return failed(op, err)
	}
	if signalID == "" {
		signalID = driver.NewID()
	}
	errs, err := c.store.Signal(ctx, []driver.Signal{{PlanRef: workflow.Ref(id), ID: signalID, Signal: signal, Payload: data.Bytes}})
	if err != nil {
		return failed(op, err)
	}
	return failed(op, errs[0])
}

// CancelWorkflow cancels a workflow: what waits is skipped, what runs is told to stop, and what is to be compensated is.
// [ErrState] if it has ended.
func (c *Client) CancelWorkflow(ctx context.Context, id string) error {
	var cancel []string
	err := c.changeWorkflow(ctx, id, func(p *driver.Plan, now time.Time) (step *driver.PlanStep, err error) {
		step, cancel, err = workflow.Cancel(p, now)
		return step, err
	})
	if err != nil || len(cancel) == 0 {
		return failed("cancel workflow "+id, err)
	}
	return failed("cancel workflow "+id, workflow.CancelTasks(ctx, c.store, cancel))
}

// RetryWorkflow runs an ended workflow again: the steps that did not complete or, if from names one, that step and all that
// come after it. [ErrState] if it has not ended, [ErrNotFound] for a step that it does not have.
func (c *Client) RetryWorkflow(ctx context.Context, id, from string) error {
	return failed("retry workflow "+id, c.changeWorkflow(ctx, id, func(p *driver.Plan, now time.Time) (*driver.PlanStep, error) {
		return workflow.Retry(p, from, now)
	}))
}

// AddSteps adds the steps of more to a running workflow, all at once; those that are there already are left alone, so it
// may be repeated. before names steps of the running workflow that are to wait for all the new ones, and that must not have
// begun. more's own id and options count for nothing.
func (c *Client) AddSteps(ctx context.Context, id string, more *Workflow, before ...string) error {
	op := "add steps to workflow " + id
	if more == nil {
		return failed(op, driver.Invalidf("the workflow with the steps is nil"))
	}
	if len(more.errs) > 0 {
		return failed(op, errors.Join(more.errs...))
	}
	steps := more.graph.Clone().Steps
	for i := range steps {
		steps[i].Before = append(steps[i].Before, before...)
	}
	return failed(op, c.changeWorkflow(ctx, id, func(p *driver.Plan, now time.Time) (*driver.PlanStep, error) {
		return workflow.Add(p, steps, now)
	}))
}

// changeWorkflow does a step that is worked out from the plan, again if the plan has changed meanwhile. A nil step is none.
func (c *Client) changeWorkflow(ctx context.Context, id string, change func(p *driver.Plan, now time.Time) (*driver.PlanStep, error)) error {
	for {
		p, err := c.workflowPlan(ctx, id)
		if err != nil {
			return err
		}
		now, err := c.storeNow(ctx)
		if err != nil {
			return err
		}
		step, err := change(p, now)
		if err != nil || step == nil {
			return err
		}
		if err := c.advance(ctx, step); !errors.Is(err, ErrConflict) {
			return err
		}
		if ctx.Err() != nil {
			return causeOf(ctx)
		}
	}
}

// Workflow returns the id of the workflow that the task is a step of, and the step's name; "" if it is none.
func (t *Task) Workflow() (id, step string) {
	p := t.job.Plan
	if p == nil || p.Kind != workflow.Kind {
		return "", ""
	}
	return p.Name, workflow.StepName(p.Step)
}

// StepResult returns the result of an earlier step of the task's workflow, read as a T; the zero T if it has none.
func StepResult[T any](ctx context.Context, t *Task, step string) (T, error) {
	var v T
	raw, err := t.stepResult(ctx, step)
	if err != nil || raw == nil {
		return v, failed("result of step "+step, err)
	}
	return v, failed("result of step "+step, Data{raw, EncodingJSON}.Decode(&v))
}

func (t *Task) stepResult(ctx context.Context, step string) (json.RawMessage, error) {
	id, _ := t.Workflow()
	if id == "" {
		return nil, driver.Errorf(ErrState, "task %s is not a step of a workflow", t.ID)
	}
	part := workflow.ResultPart(step)
	plans, err := t.w.client.store.GetPlans(ctx, []driver.PlanRef{workflow.Ref(id)}, driver.PlanRead{Parts: []string{part}})
	if err != nil {
		return nil, err
	}
	if plans[0] == nil {
		return nil, driver.PlanNotFound(workflow.Ref(id))
	}
	return workflow.ResultIn(plans[0].Parts[part], step)
}

// AddSteps adds steps to the workflow that the task is a step of: see [Client.AddSteps]. A handler that runs again adds
// nothing twice, as long as it names the same steps.
func (t *Task) AddSteps(ctx context.Context, more *Workflow, before ...string) error {
	id, _ := t.Workflow()
	if id == "" {
		return failed("add steps", driver.Errorf(ErrState, "task %s is not a step of a workflow", t.ID))
	}
	return t.w.client.AddSteps(ctx, id, more, before...)
}
