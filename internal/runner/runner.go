// Package runner moves tasks through a worker process: it fetches claims, runs them in slots, and settles them.
//
// The three stages overlap and are each their own: while one batch of claims is being fetched, slots run the one before,
// and finished ones are settled in the batches that fill while the previous settle is in flight. One file holds one
// stage: fetch.go, slot.go, settle.go; lease.go keeps the lease all of it rests on; drain.go ends it; desk.go is the
// table between the stages.
//
// A runner lives through one or more sessions. A session is one registration with the store: one worker id, one lease.
// When the lease can't be trusted any more the session is over, its handlers are cancelled with [driver.ErrLeaseLost],
// and the runner registers under a new id and goes on.
package runner

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/internal/logkey"
)

// Why a handler's context was cancelled: see context.Cause. A lost lease is [driver.ErrLeaseLost].
var (
	ErrShutdown  = errors.New("the worker is shutting down")
	ErrCancelled = errors.New("the task was cancelled")
	ErrTimeout   = errors.New("the task ran longer than its timeout")
)

// Handler runs jobs. Its methods may be called concurrently.
type Handler interface {
	// Run runs one job and says how it ended; ID, Token and Ran are filled in by the runner. It does not panic.
	Run(ctx context.Context, j *Job) driver.Settlement
	// Exited says how a job ended whose handler ended its goroutine (runtime.Goexit).
	Exited(j *Job) driver.Settlement
	// RunBatch runs jobs of one type that Config.Gather names, and says how each ended. It neither panics nor ends its goroutine.
	RunBatch(ctx context.Context, jobs []*Job) []driver.Settlement
	// Ended tells what became of a job's attempt: st is how the handler left it, res what the store has answered. With
	// [driver.ErrLeaseLost] it came too late, and somebody else has the task. It is called once for each job that has run,
	// possibly under a lock: it does not block.
	Ended(j *Job, st *driver.Settlement, res driver.SettleResult)
	// Timeout is how long the job may run; 0: no limit.
	Timeout(j *Job) time.Duration
}

// Queue is a queue to serve. A weight of at least 1 is its share when queues are served by weight.
type Queue struct {
	Name   string
	Weight int
}

// Config configures a runner. All fields but Abort are required and checked by the caller.
type Config struct {
	Store   driver.Store
	Handler Handler
	Logger  *slog.Logger

	NewWorkerID func() string // a new one for each session
	Host, Build string
	PID         int

	Queues     []Queue
	Strict     bool              // serve queues in the given order instead of by weight
	Types      []string          // nil: all
	Gather     map[string]Gather // types that are run in batches
	Gate       Gate              // what keeps types from starting; nil: nothing
	Slots      int
	Lease      time.Duration
	Drain      time.Duration // 0: don't wait for handlers before cancelling them
	Poll       time.Duration // how long an idle worker goes without looking, at the longest
	UntilEmpty bool
	Plans      map[string]PlanKind // by kind: who understands the plans that this worker looks at
	Intake     []driver.Intake     // lists to make tasks of; the store is a driver.Intaker if there are any
	Abort      <-chan struct{}     // when closed, a drain under way is cut short
}

// Runner runs tasks until it is told to stop. It is used for one Run.
type Runner struct {
	cfg    Config
	desk   *desk
	worker atomic.Pointer[string]
	past   []*session // lost ones that have not been wound up
	stop   func()     // set by Run: ends it in order
}

// New returns a runner.
func New(cfg Config) *Runner {
	return &Runner{cfg: cfg, desk: newDesk(&cfg)}
}

// WorkerID returns the id of the present or last session; "" before the first.
func (r *Runner) WorkerID() string {
	if id := r.worker.Load(); id != nil {
		return *id
	}
	return ""
}

// Stats returns what the runner holds now.
func (r *Runner) Stats() Stats { return r.desk.stats() }

// Run serves until ctx ends, or the worker is told to stop, or the queues are empty (with UntilEmpty), or the store fails
// for good; then it drains and hands back what is left. It returns nil in all cases but the last.
func (r *Runner) Run(ctx context.Context) error {
	ctx, r.stop = context.WithCancel(ctx)
	defer r.stop()
	m := startMovers(ctx, &r.cfg)
	err := r.serve(m.ctx)
	if merr := m.end(); merr != nil {
		return merr
	}
	return err
}

// serve lives through the sessions.
func (r *Runner) serve(ctx context.Context) error {
	defer r.desk.close()
	for {
		s, err := r.register(ctx)
		if s == nil {
			return err
		}
		r.windUp(ctx)
		err = r.live(ctx, s)
		switch {
		case s.lost():
			r.past = append(r.past, s)
			if ctx.Err() != nil {
				return nil
			}
			r.cfg.Logger.Error("the lease was lost: registering again", logkey.Worker, s.id, logkey.Cause, s.why())
		case err != nil:
			return err
		default:
			return nil
		}
	}
}

// register starts a session. It returns nil without an error when ctx ends first.
func (r *Runner) register(ctx context.Context) (*session, error) {
	t := trouble{log: r.cfg.Logger, op: "register", limit: r.cfg.Lease}
	info := r.info()
	for ctx.Err() == nil {
		sent := time.Now()
		call, cancel := context.WithTimeout(ctx, r.callTimeout())
		err := r.cfg.Store.Register(call, info, r.cfg.Lease)
		cancel()
		if err == nil {
			t.over()
			r.worker.Store(&info.ID)
			s := newSession(ctx, &r.cfg, r.desk, info.ID, r.stop)
			s.renew(sent)
			return s, nil
		}
		if ctx.Err() != nil {
			return nil, nil
		}
		if fatal(err) {
			return nil, err
		}
		if errors.Is(err, driver.ErrLeaseLost) {
			info = r.info() // an earlier try got through, and the lease it started is over
		}
		t.hit(ctx, err)
	}
	return nil, nil
}

func (r *Runner) info() driver.WorkerInfo {
	queues := make([]string, len(r.cfg.Queues))
	for i, q := range r.cfg.Queues {
		queues[i] = q.Name
	}
	return driver.WorkerInfo{
		ID: r.cfg.NewWorkerID(), Host: r.cfg.Host, PID: r.cfg.PID, Build: r.cfg.Build,
		Queues: queues, Types: r.cfg.Types, Slots: r.cfg.Slots,
	}
}

// live runs one session to its end.
func (r *Runner) live(ctx context.Context, s *session) error {
	s.start()
	if r.cfg.Gate != nil {
		_ = s.lookAtGate() // before the first fetch; a failure is told by the next look
		s.wg.Go(s.watchGate)
	}
	f := newFetcher(s)
	err := f.run(ctx)
	if s.ctx.Err() == nil {
		r.drain(s)
	}
	// From here the session is over, if it was not before: nothing is settled or reported under its id.
	s.end(ErrShutdown)
	r.desk.abandon(s)
	if cause := s.why(); fatal(cause) {
		r.desk.awaitQuiet(s, stopGrace)
		return cause
	}
	return err
}

// windUp tells the store how sessions ended that lost their lease while the store was out of reach: what had finished by
// then is settled, the rest is given back with no crash counted. All of it is fenced: whatever the store has recovered
// in the meantime stays as it is. It is done when the store can be reached again, before the first fetch of the next
// session, which would count the old one's tasks as crashed.
func (r *Runner) windUp(ctx context.Context) {
	for _, s := range r.past {
		if errors.Is(s.told, driver.ErrLeaseLost) {
			continue // the store has done it all
		}
		call, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.callTimeout())
		items, jobs := r.desk.unsettled(s)
		if len(items) > 0 {
			results, err := r.cfg.Store.Settle(call, s.id, items)
			if err != nil { // the tasks run again
				results = slices.Repeat([]driver.SettleResult{{Err: driver.ErrLeaseLost}}, len(items))
			}
			r.desk.tell(items, jobs, results)
		}
		_ = r.cfg.Store.Unregister(call, s.id) // likewise: the lease runs out
		cancel()
	}
	r.past = nil
}

// callTimeout bounds a store call, so that no connection that hangs stops a stage for good.
func (r *Runner) callTimeout() time.Duration { return callTimeout(r.cfg.Lease) }

func callTimeout(lease time.Duration) time.Duration { return max(lease/2, time.Second) }

// fatal reports whether a store call is of no use any more, however often it is repeated.
func fatal(err error) bool {
	for _, e := range []error{driver.ErrClosed, driver.ErrInvalid, driver.ErrUnsupported, driver.ErrCorrupt} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
