package runner

import (
	"log/slog"
	"sync"
	"time"

	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/internal/logkey"
)

// desk is the table between the stages: what this process has claimed, what of it waits for a slot, runs, or waits to be
// settled. One lock guards it all, taken once for a batch that comes in, once for each job that ends and the next that
// starts in its slot, and once for a batch that was settled.
type desk struct {
	log     *slog.Logger
	handler Handler
	gate    Gate // nil: all types may start
	slots   int
	lease   time.Duration

	quit chan struct{} // closed with the desk

	mu      sync.Mutex
	work    sync.Cond // signalled when a slot may find something to do
	closed  bool
	spawned int  // slot goroutines
	parked  int  // of those, without a job
	waking  bool // a slot is on its way to its first job
	running int  // handlers that have not returned, also those of lost sessions
	resting int  // slots that pause
	stuck   int
	queue   fifo
	held    map[string]*Job // by task id: waiting, running or settling
	recent  map[string]driver.Token
	solo    *Job // runs alone: see probation.go
	// fetching is set while claims may be on their way here.
	fetching bool
	lift     *time.Timer // ends the wait of a job on probation
	stale    time.Duration
	sweeper  *time.Timer // armed while jobs wait
	stalled  bool        // jobs were given back because no slot became free

	room      chan struct{} // tells the fetcher that it may have something to do
	roomAsked bool
	empty     chan struct{} // closed when nothing is held any more, if somebody waits for it
	ahead     int           // how many jobs may wait for a slot

	rules     map[string]Gather // by type: those that are run in batches
	gathering map[crowd]*batch  // batches that wait for more
	waitFor   int               // jobs in them
	batched   int               // jobs in batches that have not ended

	done    int64 // handlers that have returned
	ranFor  time.Duration
	payload int64 // bytes that came in
	taken   int64 // jobs that came in
	ends    Stats // the figures that the store's answers make
}

// Stats is what a runner holds at one moment, and what it has done since its start.
type Stats struct {
	Running  int   // handlers that have not returned
	Waiting  int   // claimed, without a slot yet
	Settling int   // ended, and not yet acknowledged by the store
	Stuck    int   // running handlers that ignored the end of their context for a while
	Done     int64 // handlers that have returned

	// What the store has made of those, as it has told.
	Completed, Discarded, Cancelled int64 // tasks that have ended so
	Failed                          int64 // attempts that failed: the task is tried again, or was discarded by the last
	Snoozed, GivenBack              int64 // tasks that wait, or are available, again with no attempt spent
	Late                            int64 // outcomes that came too late: the task had been taken from this worker
}

func newDesk(cfg *Config) *desk {
	d := &desk{
		log: cfg.Logger, handler: cfg.Handler, gate: cfg.Gate, slots: cfg.Slots, lease: cfg.Lease, rules: cfg.Gather, gathering: make(map[crowd]*batch),
		held: make(map[string]*Job), room: make(chan struct{}, 1), quit: make(chan struct{}), stale: minStale,
	}
	d.work.L = &d.mu
	return d
}

func (d *desk) stats() Stats {
	d.mu.Lock()
	defer d.mu.Unlock()
	st := d.ends
	st.Running, st.Waiting, st.Stuck, st.Done = d.running, d.queue.len(), d.stuck, d.done
	for _, j := range d.held {
		if j.state == settling {
			st.Settling++
		}
	}
	return st
}

// close lets the slots end as soon as they have no job.
func (d *desk) close() {
	d.mu.Lock()
	d.closed = true
	close(d.quit)
	for _, t := range []*time.Timer{d.lift, d.sweeper} {
		if t != nil {
			t.Stop()
		}
	}
	d.mu.Unlock()
	d.work.Broadcast()
}

// offer takes in claims of a session. One that this process knows already is not taken in twice; one whose earlier run
// in this process has not returned yet (its lease was lost, its handler goes on) is put off.
func (d *desk) offer(s *session, claims []driver.Claim) {
	if len(claims) == 0 {
		return
	}
	jobs := newJobs(s, claims, time.Now())
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := range jobs {
		d.admit(&jobs[i])
	}
	d.clearLine()
	d.wakeSlot()
	d.armSweeper()
}

// wakeSlot has one more slot look for a job, if some wait and no slot is on its way. The one that comes does the same for
// the next before it runs its job. So jobs that end at once are run by as many slots as there are processors for, and
// those that take long by all; woken all at once, most slots would come to find nothing.
func (d *desk) wakeSlot() {
	switch {
	case d.waking || d.queue.len() == 0:
	case d.parked > 0:
		d.waking = true
		d.work.Signal()
	case d.spawned < d.slots:
		d.waking = true
		d.spawned++
		go d.slot()
	}
}

func (d *desk) admit(j *Job) {
	old := d.held[j.ID]
	switch {
	case old != nil && old.s == j.s && old.Token >= j.Token, d.recent[j.ID] >= j.Token && j.Token > 0:
		return // the reply of a reconciliation that overlapped with what we knew
	case j.s.over:
		return // given back when the session is wound up
	case old != nil && old.state == running:
		d.log.Warn("a task came back while its earlier run goes on in this process: put off", jobAttrs(j)...)
		d.settle(j, driver.Settlement{Outcome: driver.Snooze, Delay: d.lease, Error: "an earlier run has not returned yet"})
		return
	}
	d.held[j.ID] = j
	d.taken++
	d.payload += int64(len(j.Payload))
	if j.CancelRequested {
		d.settle(j, driver.Settlement{Outcome: driver.CancelOutcome, Error: ErrCancelled.Error()})
		return
	}
	if j.s.hushed {
		d.settle(j, driver.Settlement{Outcome: driver.Release, Unbegun: true})
		return
	}
	if rule, ok := d.rules[j.Type]; ok {
		if j.Crashes < probationCrashes {
			d.gather(j, rule)
			return
		}
		j.batch = &batch{crowd: crowdOf(j), jobs: []*Job{j}}
	}
	d.queue.push(j)
}

// settle hands a job's outcome to the settler of its session, or drops it with a session that is over.
func (d *desk) settle(j *Job, st driver.Settlement) {
	if d.gate != nil {
		d.gate.Ended(j.Type, j.ID, st.Outcome)
	}
	j.unload()
	d.unbatch(j)
	if j.s.over {
		d.remove(j)
		d.told(j, &st, driver.SettleResult{Err: driver.ErrLeaseLost})
		return
	}
	j.state = settling
	st.ID, st.Token = j.ID, j.Token
	j.s.settler.put(j, st)
}

// giveBack hands back jobs that have not started.
func (d *desk) giveBack(jobs []*Job) {
	for _, j := range jobs {
		d.settle(j, driver.Settlement{Outcome: driver.Release, Unbegun: true})
	}
}

func (d *desk) unbatch(j *Job) {
	if j.batched {
		j.batched = false
		d.batched--
	}
}

func (d *desk) remove(j *Job) {
	d.unbatch(j)
	if d.held[j.ID] == j {
		delete(d.held, j.ID)
	}
}

// settled forgets jobs whose outcome the store has acknowledged or refused.
func (d *desk) settled(jobs []*Job) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, j := range jobs {
		d.remove(j)
		if d.recent != nil {
			d.recent[j.ID] = j.Token
		}
	}
	if d.empty != nil && len(d.held) == 0 {
		close(d.empty)
		d.empty = nil
	}
	d.tryProbation()
	d.wantRoom()
}

// remember keeps the tokens of jobs that are settled from now on, until forget. A reconciliation needs them: what the
// store says is held may have been settled before its answer arrives.
func (d *desk) remember() {
	d.mu.Lock()
	d.recent = make(map[string]driver.Token)
	d.mu.Unlock()
}

func (d *desk) forget() {
	d.mu.Lock()
	d.recent = nil
	d.mu.Unlock()
}

// cancel cancels the jobs that the store names.
func (d *desk) cancel(s *session, refs []driver.Ref) {
	if len(refs) == 0 {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, ref := range refs {
		j := d.held[ref.ID]
		if j == nil || j.s != s || j.Token != ref.Token || j.asked.Swap(true) {
			continue
		}
		switch j.state {
		case waiting:
			d.leave(j)
			d.settle(j, driver.Settlement{Outcome: driver.CancelOutcome, Error: ErrCancelled.Error()})
		case running:
			d.interrupt(j, ErrCancelled)
		}
	}
	d.wantRoom()
}

// interrupt cancels a running job's context and has it watched.
func (d *desk) interrupt(j *Job, cause error) {
	j.cancel(cause)
	if b := j.batch; b != nil {
		if b.goesOn(cause) {
			return
		}
		if b.cancel != nil {
			b.cancel(cause)
		}
		j = b.jobs[0] // the slot is its
	}
	d.watch(j)
}

// stuckAfter is how long a handler may go on after its context was cancelled before it is reported.
const stuckAfter = 10 * time.Second

func (d *desk) watch(j *Job) {
	if j.stuck == nil {
		j.stuck = time.AfterFunc(stuckAfter, func() { d.reportStuck(j) })
	}
}

// overdue has a job watched whose timeout has passed.
func (d *desk) overdue(j *Job) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if j.state == running {
		d.watch(j)
	}
}

func (d *desk) reportStuck(j *Job) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if j.state != running || j.mute {
		return
	}
	j.mute = true
	d.stuck++
	d.log.Warn("a handler ignores that its context was cancelled: it keeps its slot until it returns", jobAttrs(j)...)
}

func jobAttrs(j *Job) []any {
	return []any{logkey.TaskID, j.ID, logkey.TaskType, j.Type, logkey.Queue, j.Queue, logkey.Attempt, j.Attempt, logkey.Token, int64(j.Token)}
}

// interruptAll cancels all running jobs of a session.
func (d *desk) interruptAll(s *session, cause error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, j := range d.held {
		if j.s == s && j.state == running {
			d.interrupt(j, cause)
		}
	}
}

// abandonBecause ends a session whose lease is lost or whose store is gone.
func (d *desk) abandonBecause(s *session, err error) {
	d.mu.Lock()
	if s.told == nil && err != errNotRenewed {
		s.told = err
	}
	d.mu.Unlock()
	d.abandon(s)
	s.halt(err)
}

// abandon drops what a session has waiting, cancels what it has running and takes no more outcomes for it.
func (d *desk) abandon(s *session) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if s.over {
		return
	}
	s.over = true
	for _, j := range d.takeWaiting(s) {
		d.remove(j)
	}
	for _, j := range d.held {
		if j.s == s && j.state == running {
			d.interrupt(j, driver.ErrLeaseLost)
		}
	}
	d.work.Broadcast()
}

// unsettled returns the outcomes that a session could not deliver, and forgets their jobs.
func (d *desk) unsettled(s *session) ([]driver.Settlement, []*Job) {
	d.mu.Lock()
	defer d.mu.Unlock()
	items, jobs := s.settler.swap()
	for _, j := range jobs {
		d.remove(j)
	}
	return items, jobs
}
