package runner

import (
	"slices"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/waggleq/waggle/driver"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func jobNamed(id string) *Job { return &Job{Claim: &driver.Claim{Task: driver.Task{ID: id}}} }

func names(jobs []*Job) (ids []string) {
	for _, j := range jobs {
		ids = append(ids, j.ID)
	}
	return ids
}

func TestFifo(t *testing.T) {
	t.Parallel()
	var q fifo
	var model []*Job
	next := 0
	push := func(n int) {
		for range n {
			j := jobNamed(string(rune('a' + next)))
			next++
			q.push(j)
			model = append(model, j)
		}
	}
	pop := func(n int) {
		for range n {
			if q.first() != model[0] {
				t.Fatalf("first is %v, want %s", q.first(), model[0].ID)
			}
			q.pop()
			model = model[1:]
		}
	}
	check := func() {
		t.Helper()
		if got := q.jobs[q.head:]; !slices.Equal(got, model) || q.len() != len(model) {
			t.Fatalf("holds %v, want %v", names(got), names(model))
		}
	}
	push(4)
	pop(2)
	push(5) // moves to the front before it grows
	check()
	gone := model[3]
	q.remove(gone)
	model = slices.DeleteFunc(slices.Clone(model), func(j *Job) bool { return j == gone })
	check()
	q.remove(gone)
	check()
	taken := q.take(func(j *Job) bool { return j.ID > "f" })
	model = slices.DeleteFunc(model, func(j *Job) bool { return slices.Contains(taken, j) })
	check()
	if len(taken) == 0 {
		t.Error("nothing was taken")
	}
	pop(len(model))
	check()
	if q.first() != nil {
		t.Error("an empty queue has a first")
	}
	push(3)
	check()
}

func TestPaceFetchesAheadOfFastHandlersOnly(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name     string
		trip     time.Duration
		mean     time.Duration
		perFetch int64
		payload  int64
		min, max int
	}{
		{"no-op handlers", 10 * time.Millisecond, time.Microsecond, 100, 100, 150, 250},
		{"very fast", 10 * time.Millisecond, time.Microsecond, 5000, 100, maxFetch, maxFetch},
		{"as slow as a round trip", 10 * time.Millisecond, 10 * time.Millisecond, 100, 100, 0, 0},
		{"slow", 10 * time.Millisecond, time.Second, 1, 100, 0, 0},
		{"large payloads", 10 * time.Millisecond, time.Microsecond, 5000, 1 << 20, 8, 8},
		{"few", 10 * time.Millisecond, time.Microsecond, 0, 100, 0, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var p pace
			var pr progress
			now := time.Now()
			got := p.ahead(pr, now, tt.trip)
			if got != 0 {
				t.Errorf("%d ahead before anything is known", got)
			}
			for range 20 {
				now = now.Add(tt.trip)
				pr.done += tt.perFetch
				pr.taken += tt.perFetch
				pr.payload += tt.perFetch * tt.payload
				pr.ranFor += time.Duration(tt.perFetch) * tt.mean
				got = p.ahead(pr, now, tt.trip)
			}
			if got < tt.min || got > tt.max {
				t.Errorf("%d ahead, want %d to %d", got, tt.min, tt.max)
			}
			pr.stalled = true
			if got := p.ahead(pr, now.Add(tt.trip), tt.trip); got != 0 {
				t.Errorf("%d ahead although jobs were given back", got)
			}
		})
	}
}

func TestNewsAreBounded(t *testing.T) {
	t.Parallel()
	var n news
	for range 1000 {
		l := driver.LogLine{Message: string(make([]byte, 1000))}
		n.logs = append(n.logs, l)
		n.size += lineSize(l)
		n.trim()
	}
	if n.size > driver.MaxLogBytes || len(n.logs) < 50 {
		t.Errorf("%d bytes in %d lines", n.size, len(n.logs))
	}
}
