package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"
)

// lab measures contestants.
type lab struct {
	settings settings
	specs    []*spec
	stores   *stores
	results  *results
	log      io.Writer
}

// childLimit is how long one measurement may take, whatever happens.
const childLimit = 10 * time.Minute

// run takes all samples.
func (l *lab) run(ctx context.Context) error {
	for _, s := range l.specs {
		l.results.Of[s.name] = &series{Tasks: map[measure]int{}, Samples: map[measure][]sample{}}
		if err := l.calibrate(ctx, s); err != nil {
			return fmt.Errorf("calibration: %w", err)
		}
	}
	for round := range l.settings.Rounds {
		for _, m := range allMeasures {
			if m == recovery {
				continue // all of these come last
			}
			for i := range l.specs {
				s := l.specs[(round+i)%len(l.specs)]
				if err := l.sample(ctx, round, s, m); err != nil {
					return fmt.Errorf("round %d, %s: %w", round+1, m, err)
				}
			}
		}
	}
	return l.recoveries(ctx)
}

// calibrationTasks are worked off once by each contestant to see how many it takes to fill the time.
const calibrationTasks = 5000

// calibrate chooses how many tasks are queued for each processing measurement of s, so that the timed part takes about
// RunSeconds.
func (l *lab) calibrate(ctx context.Context, s *spec) error {
	for _, m := range s.measures() {
		if m != workDefault && m != work100 {
			continue
		}
		x, err := l.work(ctx, s, m, calibrationTasks)
		if err != nil {
			return err
		}
		const timed = 0.9 // the rest warms up
		n := roundTasks(x.Value*l.settings.RunSeconds/timed, calibrationTasks, 500_000)
		l.results.Of[s.name].Tasks[m] = n
		fmt.Fprintf(l.log, "calibration   %-12s %-14s %8d tasks\n", m, s.name, n)
	}
	return nil
}

// sample takes one sample of m, if that is a figure of s, and adds it to the results.
func (l *lab) sample(ctx context.Context, round int, s *spec, m measure) error {
	if !slices.Contains(s.measures(), m) {
		return nil
	}
	var x sample
	var err error
	switch m {
	case single:
		x, err = l.enqueue(ctx, s, l.settings.Callers, 1)
	case bulk:
		x, err = l.enqueue(ctx, s, l.settings.BulkCallers, l.settings.BulkBatch)
	case workDefault, work100:
		x, err = l.work(ctx, s, m, l.results.Of[s.name].Tasks[m])
	case pickup:
		x, err = l.pickup(ctx, s)
	case bytesPerTask:
		x, err = l.bytes(ctx, s)
	default:
		err = errors.New("no such measurement")
	}
	if err != nil {
		return err
	}
	of := l.results.Of[s.name]
	of.Samples[m] = append(of.Samples[m], x)
	fmt.Fprintf(l.log, "round %d of %d  %-12s %-14s %s\n", round+1, l.settings.Rounds, m, s.name, x)
	return nil
}

func (x sample) String() string {
	if len(x.PickupMS) > 0 {
		return fmt.Sprintf("%10.2f ms p50", percentile(x.PickupMS, 50))
	}
	return fmt.Sprintf("%10.0f", x.Value)
}

// withStore calls f with a new empty store.
func (l *lab) withStore(ctx context.Context, s *spec, f func(backend) error) (err error) {
	b, err := l.stores.open(ctx, s.store)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	return f(b)
}

// timed lets a process do j and returns its rate and its costs; what the server spends meanwhile counts.
func (l *lab) timed(ctx context.Context, s *spec, b backend, j job) (sample, error) {
	before, cpuErr := b.CPU()
	e, err := runChild(ctx, s, j, childLimit)
	if err != nil {
		return sample{}, err
	}
	if e.Count <= 0 || e.All < e.Count || !(e.Seconds > 0) {
		return sample{}, fmt.Errorf("%s measured nothing: %+v", s.name, e)
	}
	x := sample{Value: float64(e.Count) / e.Seconds, ClientCPU: e.CPU * 1e6 / float64(e.All)}
	after, err := b.CPU()
	if cpuErr = errors.Join(cpuErr, err); cpuErr == nil {
		x.ServerCPU = float64((after - before).Microseconds()) / float64(e.All)
	} else if !errors.Is(cpuErr, errors.ErrUnsupported) {
		return sample{}, cpuErr
	}
	return x, nil
}

// enqueue measures how fast tasks are accepted.
func (l *lab) enqueue(ctx context.Context, s *spec, callers, batch int) (x sample, err error) {
	err = l.withStore(ctx, s, func(b backend) error {
		if _, err := runChild(ctx, s, job{Do: doOpen, URL: b.URL()}, childLimit); err != nil {
			return err
		}
		x, err = l.timed(ctx, s, b, job{
			Do: doEnqueue, URL: b.URL(), Callers: callers, Batch: batch,
			WarmMS: int(l.settings.WarmSeconds * 1000), RunMS: int(l.settings.RunSeconds * 1000),
		})
		return err
	})
	return x, err
}

// fill puts n tasks into b by the quickest way the contestant has.
func (l *lab) fill(ctx context.Context, s *spec, b backend, n int) error {
	j := job{Do: doFill, URL: b.URL(), Tasks: n, Callers: l.settings.BulkCallers, Batch: l.settings.BulkBatch}
	if s.noBulk {
		j.Callers, j.Batch = l.settings.Callers, 1
	}
	e, err := runChild(ctx, s, j, childLimit)
	if err == nil && e.Count != n {
		err = fmt.Errorf("%s was filled with %d tasks, not %d", s.name, e.Count, n)
	}
	return err
}

// work measures how fast one worker handles n tasks that are waiting.
func (l *lab) work(ctx context.Context, s *spec, m measure, n int) (x sample, err error) {
	slots := 0
	if m == work100 {
		slots = manySlots
	}
	err = l.withStore(ctx, s, func(b backend) error {
		if err := l.fill(ctx, s, b, n); err != nil {
			return err
		}
		x, err = l.timed(ctx, s, b, job{Do: doWork, URL: b.URL(), Tasks: n, Slots: slots})
		return err
	})
	return x, err
}

// idleGap is the least time a worker has had nothing to do before a task comes.
const idleGap = 150 * time.Millisecond

// pollLanes is how many workers of a contestant that polls are measured side by side, as each sample takes so long.
const pollLanes = 4

// pickup measures the time from enqueue to handler. A task comes at a random moment; for a worker that polls, that is
// a moment anywhere between two looks.
func (l *lab) pickup(ctx context.Context, s *spec) (x sample, err error) {
	lanes := 1
	j := job{Do: doPickup, Samples: l.settings.PickupSamples, GapMS: int(idleGap.Milliseconds()), SpreadMS: 100}
	if s.idlePoll > 0 {
		lanes = pollLanes
		j.Samples = (j.Samples + lanes - 1) / lanes
		j.SpreadMS = int(s.idlePoll.Milliseconds())
	}
	taken := make(chan []float64, lanes)
	err = inParallel(lanes, func() error {
		return l.withStore(ctx, s, func(b backend) error {
			j := j
			j.URL = b.URL()
			e, err := runChild(ctx, s, j, childLimit)
			if err == nil && len(e.SamplesMS) != j.Samples {
				err = fmt.Errorf("%s: %d pick-ups of %d", s.name, len(e.SamplesMS), j.Samples)
			}
			taken <- e.SamplesMS
			return err
		})
	})
	close(taken)
	for samples := range taken {
		x.PickupMS = append(x.PickupMS, samples...)
	}
	return x, err
}

// bytes measures what the store grows by while tasks are enqueued, with nobody connected before and after.
func (l *lab) bytes(ctx context.Context, s *spec) (x sample, err error) {
	err = l.withStore(ctx, s, func(b backend) error {
		if _, err := runChild(ctx, s, job{Do: doOpen, URL: b.URL()}, childLimit); err != nil {
			return err
		}
		before, err := b.Size(ctx)
		if err != nil {
			return err
		}
		if err := l.fill(ctx, s, b, l.settings.ByteTasks); err != nil {
			return err
		}
		after, err := b.Size(ctx)
		x.Value = float64(after-before) / float64(l.settings.ByteTasks)
		return err
	})
	return x, err
}
