package runner

import "slices"

// fifo is a queue of jobs that wait for a slot.
type fifo struct {
	jobs []*Job
	head int
}

func (q *fifo) len() int { return len(q.jobs) - q.head }

func (q *fifo) push(j *Job) {
	if q.head > 0 && len(q.jobs) == cap(q.jobs) { // make room at the front before growing
		n := copy(q.jobs, q.jobs[q.head:])
		clear(q.jobs[n:])
		q.jobs, q.head = q.jobs[:n], 0
	}
	q.jobs = append(q.jobs, j)
}

// first returns the job that waits longest, nil if none does.
func (q *fifo) first() *Job {
	if q.len() == 0 {
		return nil
	}
	return q.jobs[q.head]
}

func (q *fifo) pop() {
	q.jobs[q.head] = nil
	q.head++
	if q.head == len(q.jobs) {
		q.jobs, q.head = q.jobs[:0], 0
	}
}

func (q *fifo) remove(j *Job) {
	if i := slices.Index(q.jobs, j); i >= q.head {
		q.jobs = slices.Delete(q.jobs, i, i+1)
	}
}

// replace puts a job in the place of another.
func (q *fifo) replace(old, j *Job) {
	if i := slices.Index(q.jobs, old); i >= q.head {
		q.jobs[i] = j
	}
}

// take removes and returns the jobs for which fn is true.
func (q *fifo) take(fn func(*Job) bool) []*Job {
	var out []*Job
	kept := q.jobs[:0]
	for _, j := range q.jobs[q.head:] {
		if fn(j) {
			out = append(out, j)
		} else {
			kept = append(kept, j)
		}
	}
	clear(q.jobs[len(kept):])
	q.jobs, q.head = kept, 0
	return out
}
