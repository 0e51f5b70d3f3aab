package runner

import (
	"context"
	"sync"
	"time"

	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/internal/logkey"
)

// reportEvery is how long news of running tasks are collected before they are sent.
const reportEvery = 100 * time.Millisecond

// news is what a job has to report.
type news struct {
	progress *driver.Progress
	logs     []driver.LogLine
	size     int
	listed   bool // in reporter.fresh
	ever     bool
}

// reporter sends progress and log lines in batches. It never blocks a handler: what can't be sent is kept up to
// [driver.MaxLogBytes] a task, the newest.
type reporter struct {
	s    *session
	wake chan struct{}

	sending chan struct{} // full during a call, so that an outcome never overtakes the news before it

	mu    sync.Mutex
	fresh []*Job
	used  bool
}

func (r *reporter) init(s *session) {
	r.s, r.wake, r.sending = s, make(chan struct{}, 1), make(chan struct{}, 1)
}

// Progress notes how far the job has come; the newest counts.
func (j *Job) Progress(p driver.Progress) {
	r := &j.s.reporter
	r.mu.Lock()
	defer r.mu.Unlock()
	j.news.progress = &p
	r.list(j)
}

// Log adds a line to the task's log.
func (j *Job) Log(l driver.LogLine) {
	r := &j.s.reporter
	r.mu.Lock()
	defer r.mu.Unlock()
	j.news.logs = append(j.news.logs, l)
	j.news.size += lineSize(l)
	j.news.trim()
	r.list(j)
}

func lineSize(l driver.LogLine) int { return 64 + len(l.Message) + len(l.Attrs) }

func (n *news) trim() {
	for n.size > driver.MaxLogBytes && len(n.logs) > 1 {
		n.size -= lineSize(n.logs[0])
		n.logs = n.logs[1:]
	}
}

func (r *reporter) list(j *Job) {
	r.used, j.news.ever = true, true
	if j.news.listed {
		return
	}
	j.news.listed = true
	r.fresh = append(r.fresh, j)
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

func (r *reporter) run() {
	tr := trouble{log: r.s.cfg.Logger, op: "report", limit: r.s.cfg.Lease}
	for {
		select {
		case <-r.s.ctx.Done():
			return
		case <-r.wake:
		}
		sleep(r.s.ctx, reportEvery)
		if err := r.send(r.s.ctx, nil); err != nil {
			if r.s.ctx.Err() != nil || r.s.failed(err) {
				return
			}
			tr.hit(r.s.ctx, err)
			continue
		}
		tr.over()
	}
}

// flush sends the news of jobs that are about to be settled; afterwards the store would refuse them. It is tried once
// and not for long: an outcome does not wait for a log line.
func (r *reporter) flush(jobs []*Job) {
	r.mu.Lock()
	used := r.used
	r.mu.Unlock()
	if !used {
		return
	}
	ctx, cancel := context.WithTimeout(r.s.ctx, min(callTimeout(r.s.cfg.Lease), time.Second))
	defer cancel()
	if err := r.send(ctx, jobs); err != nil && r.s.ctx.Err() == nil {
		r.s.cfg.Logger.Warn("progress and log lines of ended tasks could not be stored", logkey.Error, err)
	}
}

// send sends the news of the given jobs; nil: of all that have some.
func (r *reporter) send(ctx context.Context, jobs []*Job) error {
	select {
	case r.sending <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { <-r.sending }()
	items, from := r.collect(jobs)
	for len(items) > 0 {
		n := min(len(items), maxSettle)
		call, cancel := context.WithTimeout(ctx, callTimeout(r.s.cfg.Lease))
		_, err := r.s.cfg.Store.Report(call, r.s.id, items[:n]) // refused ones were taken from this worker: no news
		cancel()
		if err != nil {
			r.putBack(items, from)
			return err
		}
		items, from = items[n:], from[n:]
	}
	return nil
}

func (r *reporter) collect(jobs []*Job) (items []driver.Report, from []*Job) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if jobs == nil {
		jobs = r.fresh
		r.fresh = nil
	}
	for _, j := range jobs {
		n := &j.news
		if n.progress == nil && len(n.logs) == 0 {
			n.listed = false
			continue
		}
		items = append(items, driver.Report{ID: j.ID, Token: j.Token, Progress: n.progress, Logs: n.logs})
		from = append(from, j)
		j.news = news{ever: true}
	}
	return items, from
}

// putBack keeps news that could not be sent before newer ones.
func (r *reporter) putBack(items []driver.Report, from []*Job) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, j := range from {
		n := &j.news
		if n.progress == nil {
			n.progress = items[i].Progress
		}
		n.logs = append(items[i].Logs, n.logs...)
		n.size = 0
		for _, l := range n.logs {
			n.size += lineSize(l)
		}
		n.trim()
		r.list(j)
	}
}
