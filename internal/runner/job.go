package runner

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/waggleq/waggle/driver"
)

// Job is a claim in the hands of this process.
type Job struct {
	*driver.Claim
	// Owner is for the Handler to keep what belongs to the job.
	Owner any
	// Rest is set by the Handler for a slot that is to take no other job for this time after it.
	Rest time.Duration

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
	began bool        // it had a slot
	// batch is what it is run with, if its handler takes many tasks at once; batched: it is counted in desk.batched.
	batch   *batch
	batched bool
}

type jobState int8

const (
	waiting jobState = iota
	running
	settling
)

// newJobs makes the jobs of a batch of claims, in one piece: most batches end together. The jobs go on using the slice.
func newJobs(s *session, claims []driver.Claim, now time.Time) []Job {
	jobs := make([]Job, len(claims))
	for i := range claims {
		j := &jobs[i]
		j.Claim, j.s, j.offered = &claims[i], s, now
		j.ctx, j.cancel = context.WithCancelCause(s.jobs)
		if j.CancelRequested {
			j.asked.Store(true)
		}
	}
	return jobs
}

// free frees what handlers may have hung on the contexts of a job and those that ran with it.
func (j *Job) free() {
	j.cancel(nil)
	if j.batch != nil {
		for _, mate := range j.batch.jobs {
			mate.cancel(nil)
		}
	}
}

// unload lets go of what is large, so that one job of a batch that runs for long does not keep the payloads of all.
func (j *Job) unload() { j.Payload, j.Headers, j.Tags, j.Owner = nil, nil, nil, nil }

// CancelAsked reports whether somebody asked for the task's cancellation.
func (j *Job) CancelAsked() bool { return j.asked.Load() }

// Worker returns the id of the worker that holds the job.
func (j *Job) Worker() string { return j.s.id }
