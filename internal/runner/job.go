package runner

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/waggleq/waggle/driver"
)

// Job is a claim in the hands of this process.
type Job struct {
	driver.Claim
	// Owner is for the Handler to keep what belongs to the job.
	Owner any

	s       *session
	ctx     context.Context
	cancel  context.CancelCauseFunc
	offered time.Time // when it came in
	asked   atomic.Bool
	news    news // guarded by s.reporter.mu

	// Guarded by desk.mu.
	state jobState
	stuck *time.Timer // runs since the handler's context was cancelled
	mute  bool        // it was reported as stuck
}

type jobState int8

const (
	waiting jobState = iota
	running
	settling
)

func newJob(s *session, c *driver.Claim, now time.Time) *Job {
	j := &Job{Claim: *c, s: s, offered: now}
	j.ctx, j.cancel = context.WithCancelCause(s.jobs)
	if c.CancelRequested {
		j.asked.Store(true)
	}
	return j
}

// CancelAsked reports whether somebody asked for the task's cancellation.
func (j *Job) CancelAsked() bool { return j.asked.Load() }

// Worker returns the id of the worker that holds the job.
func (j *Job) Worker() string { return j.s.id }
