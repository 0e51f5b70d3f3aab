package drivertest

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/waggleq/waggle/driver"
)

// Fault is what [Faulty] does to a call.
type Fault string

// The faults. The error of FailBefore and FailAfter wraps [driver.ErrUnavailable]: a caller can't tell them apart, which is
// the point.
const (
	NoFault    Fault = ""
	FailBefore Fault = "fail-before" // the call never reaches the store
	FailAfter  Fault = "fail-after"  // the store has done it, the reply is lost
	Delay      Fault = "delay"       // Rule.Delay passes before the call, or its context ends
	Twice      Fault = "twice"       // the store does it twice, as on a request that was sent again; the second reply is returned
)

// Rule makes calls of a method fail.
type Rule struct {
	Method string        // name of the method, such as "Settle"; empty: every method that a rule can be made for
	Fault  Fault         // what happens
	Skip   int           // so many calls of the method pass first
	Count  int           // so many calls are hit after them; 0: all
	Chance float64       // hit each call with this probability, from the plan's seed; 0: certainly
	Delay  time.Duration // for Fault Delay
	Err    error         // instead of the error that wraps ErrUnavailable
}

// FaultPlan says which calls fail. The first rule that hits decides. The same plan does the same to the same sequence
// of calls.
type FaultPlan struct {
	Seed  uint64
	Rules []Rule
}

// Faulty is a [driver.Store] that does to the calls of another what a plan says. Capabilities and Close pass untouched.
// All methods may be called concurrently; the order in which calls begin decides which are hit.
type Faulty struct {
	driver.Store

	mu    sync.Mutex
	rand  *rand.Rand
	rules []Rule
	seen  []int // calls that each rule could have hit
	hits  map[string]int
}

var _ driver.Store = (*Faulty)(nil)

// NewFaulty returns a store that passes every call to s unless the plan says otherwise. plan may be nil: then calls pass
// until [Faulty.Script] adds rules.
func NewFaulty(s driver.Store, plan *FaultPlan) *Faulty {
	f := &Faulty{Store: s, hits: map[string]int{}}
	if plan == nil {
		plan = &FaultPlan{}
	}
	f.rand = rand.New(rand.NewPCG(plan.Seed, 0))
	f.Script(plan.Rules...)
	return f
}

// Script replaces the rules; none lets every call pass.
func (f *Faulty) Script(rules ...Rule) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rules, f.seen = append([]Rule(nil), rules...), make([]int, len(rules))
}

// Hits returns how many calls of a method were hit so far.
func (f *Faulty) Hits(method string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.hits[method]
}

// decide returns the rule that hits this call, or one without a fault.
func (f *Faulty) decide(method string) Rule {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, r := range f.rules {
		if r.Method != "" && r.Method != method {
			continue
		}
		n := f.seen[i]
		f.seen[i]++
		if n < r.Skip || r.Count > 0 && n >= r.Skip+r.Count || r.Chance > 0 && f.rand.Float64() >= r.Chance {
			continue
		}
		f.hits[method]++
		return r
	}
	return Rule{}
}

func (r Rule) err(method string) error {
	if r.Err != nil {
		return r.Err
	}
	return driver.Errorf(driver.ErrUnavailable, "%s: no reply from the store", method)
}

// through makes one call under a plan.
func through[T any](ctx context.Context, f *Faulty, method string, call func() (T, error)) (T, error) {
	var none T
	r := f.decide(method)
	switch r.Fault {
	case FailBefore:
		return none, r.err(method)
	case FailAfter:
		_, err := call()
		if errors.Is(err, driver.ErrClosed) {
			return none, err
		}
		return none, r.err(method)
	case Delay:
		timer := time.NewTimer(r.Delay)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return none, context.Cause(ctx)
		}
	case Twice:
		if _, err := call(); err != nil {
			return none, err
		}
	}
	return call()
}

// throughErr is through for calls that return just an error.
func throughErr(ctx context.Context, f *Faulty, method string, call func() error) error {
	_, err := through(ctx, f, method, func() (struct{}, error) { return struct{}{}, call() })
	return err
}

// The methods of driver.Store: see there.

// Enqueue implements [driver.Store].
func (f *Faulty) Enqueue(ctx context.Context, tasks []*driver.Task, opts driver.EnqueueOptions) ([]driver.EnqueueResult, error) {
	return through(ctx, f, "Enqueue", func() ([]driver.EnqueueResult, error) { return f.Store.Enqueue(ctx, tasks, opts) })
}

// Register implements [driver.Store].
func (f *Faulty) Register(ctx context.Context, w driver.WorkerInfo, lease time.Duration) error {
	return throughErr(ctx, f, "Register", func() error { return f.Store.Register(ctx, w, lease) })
}

// Fetch implements [driver.Store].
func (f *Faulty) Fetch(ctx context.Context, req driver.FetchRequest) (*driver.FetchResult, error) {
	return through(ctx, f, "Fetch", func() (*driver.FetchResult, error) { return f.Store.Fetch(ctx, req) })
}

// Heartbeat implements [driver.Store].
func (f *Faulty) Heartbeat(ctx context.Context, worker string, lease time.Duration) (*driver.HeartbeatResult, error) {
	return through(ctx, f, "Heartbeat", func() (*driver.HeartbeatResult, error) { return f.Store.Heartbeat(ctx, worker, lease) })
}

// Held implements [driver.Store].
func (f *Faulty) Held(ctx context.Context, worker string) ([]driver.Claim, error) {
	return through(ctx, f, "Held", func() ([]driver.Claim, error) { return f.Store.Held(ctx, worker) })
}

// Await implements [driver.Store].
func (f *Faulty) Await(ctx context.Context, req driver.AwaitRequest) error {
	return throughErr(ctx, f, "Await", func() error { return f.Store.Await(ctx, req) })
}

// Unregister implements [driver.Store].
func (f *Faulty) Unregister(ctx context.Context, worker string) error {
	return throughErr(ctx, f, "Unregister", func() error { return f.Store.Unregister(ctx, worker) })
}

// Settle implements [driver.Store].
func (f *Faulty) Settle(ctx context.Context, worker string, items []driver.Settlement) ([]driver.SettleResult, error) {
	return through(ctx, f, "Settle", func() ([]driver.SettleResult, error) { return f.Store.Settle(ctx, worker, items) })
}

// Report implements [driver.Store].
func (f *Faulty) Report(ctx context.Context, worker string, items []driver.Report) ([]error, error) {
	return through(ctx, f, "Report", func() ([]error, error) { return f.Store.Report(ctx, worker, items) })
}

// Get implements [driver.Store].
func (f *Faulty) Get(ctx context.Context, ids []string) ([]*driver.Record, error) {
	return through(ctx, f, "Get", func() ([]*driver.Record, error) { return f.Store.Get(ctx, ids) })
}

// List implements [driver.Store].
func (f *Faulty) List(ctx context.Context, filter driver.Filter, page driver.Page) (*driver.RecordPage, error) {
	return through(ctx, f, "List", func() (*driver.RecordPage, error) { return f.Store.List(ctx, filter, page) })
}

// Queues implements [driver.Store].
func (f *Faulty) Queues(ctx context.Context, names ...string) ([]driver.QueueInfo, error) {
	return through(ctx, f, "Queues", func() ([]driver.QueueInfo, error) { return f.Store.Queues(ctx, names...) })
}

// Workers implements [driver.Store].
func (f *Faulty) Workers(ctx context.Context) ([]driver.WorkerStatus, error) {
	return through(ctx, f, "Workers", func() ([]driver.WorkerStatus, error) { return f.Store.Workers(ctx) })
}

// Events implements [driver.Store].
func (f *Faulty) Events(ctx context.Context, q driver.EventQuery) (*driver.EventPage, error) {
	return through(ctx, f, "Events", func() (*driver.EventPage, error) { return f.Store.Events(ctx, q) })
}

// Info implements [driver.Store].
func (f *Faulty) Info(ctx context.Context) (*driver.StoreInfo, error) {
	return through(ctx, f, "Info", func() (*driver.StoreInfo, error) { return f.Store.Info(ctx) })
}

// Apply implements [driver.Store].
func (f *Faulty) Apply(ctx context.Context, c driver.Change) (*driver.ChangeResult, error) {
	return through(ctx, f, "Apply", func() (*driver.ChangeResult, error) { return f.Store.Apply(ctx, c) })
}

// Direct implements [driver.Store].
func (f *Faulty) Direct(ctx context.Context, worker string, d driver.Directive) error {
	return throughErr(ctx, f, "Direct", func() error { return f.Store.Direct(ctx, worker, d) })
}

// DeleteQueue implements [driver.Store].
func (f *Faulty) DeleteQueue(ctx context.Context, queue string) error {
	_, err := through(ctx, f, "DeleteQueue", func() (struct{}, error) { return struct{}{}, f.Store.DeleteQueue(ctx, queue) })
	return err
}

// SetQueue implements [driver.Store].
func (f *Faulty) SetQueue(ctx context.Context, queue string, patch driver.QueuePatch) (*driver.QueueConfig, error) {
	return through(ctx, f, "SetQueue", func() (*driver.QueueConfig, error) { return f.Store.SetQueue(ctx, queue, patch) })
}

// Maintain implements [driver.Store].
func (f *Faulty) Maintain(ctx context.Context, max int) (*driver.MaintainResult, error) {
	return through(ctx, f, "Maintain", func() (*driver.MaintainResult, error) { return f.Store.Maintain(ctx, max) })
}

// Audit implements [driver.Store].
func (f *Faulty) Audit(ctx context.Context, repair bool) ([]driver.Finding, error) {
	return through(ctx, f, "Audit", func() ([]driver.Finding, error) { return f.Store.Audit(ctx, repair) })
}

// Advance implements [driver.Store].
func (f *Faulty) Advance(ctx context.Context, steps []driver.PlanStep) ([]driver.PlanResult, error) {
	return through(ctx, f, "Advance", func() ([]driver.PlanResult, error) { return f.Store.Advance(ctx, steps) })
}

// Signal implements [driver.Store].
func (f *Faulty) Signal(ctx context.Context, signals []driver.Signal) ([]error, error) {
	return through(ctx, f, "Signal", func() ([]error, error) { return f.Store.Signal(ctx, signals) })
}

// GetPlans implements [driver.Store].
func (f *Faulty) GetPlans(ctx context.Context, refs []driver.PlanRef, read driver.PlanRead) ([]*driver.Plan, error) {
	return through(ctx, f, "GetPlans", func() ([]*driver.Plan, error) { return f.Store.GetPlans(ctx, refs, read) })
}

// Plans implements [driver.Store].
func (f *Faulty) Plans(ctx context.Context, q driver.PlanQuery, page driver.Page) (*driver.PlanPage, error) {
	return through(ctx, f, "Plans", func() (*driver.PlanPage, error) { return f.Store.Plans(ctx, q, page) })
}

// DeletePlans implements [driver.Store].
func (f *Faulty) DeletePlans(ctx context.Context, refs []driver.PlanRef) ([]error, error) {
	return through(ctx, f, "DeletePlans", func() ([]error, error) { return f.Store.DeletePlans(ctx, refs) })
}
