package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/waggleq/waggle"
	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/internal/redisserver"
	"github.com/waggleq/waggle/internal/schedule"
)

// The figures of schedules, of both engines.
const (
	tickLate  = "ticks_p99"
	tickAlone = "ticks_idle_none"
	tickIdle  = "ticks_idle"
)

var tickFigures = []figure{
	{id: tickLate, what: "schedules, of which 100 fire each second: lateness, p99", unit: "ms", goal: atMost(50), pool: 0.99},
	{id: tickAlone, what: "idle worker and its store without a schedule, share of a core", unit: "%"},
	{id: tickIdle, what: "the same beside these schedules when none fires, against that", unit: "%", goal: atMost(1), of: tickAlone},
}

// watchIdle is for how long an idle worker is watched at most.
const watchIdle = 4 * time.Second

// firing is how many schedules fire each second.
const firing = 100

// ticks measures schedules. Each round has a store of its own.
type ticks struct {
	*lab
	open   func(ctx context.Context) (*site, func() error, error)
	server *redisserver.Server // nil: the store is in this process
}

func startTicks(_ context.Context, l *lab) (probe, error) {
	return &ticks{lab: l, open: l.freshFile}, nil
}

func startRedisTicks(ctx context.Context, l *lab) (probe, error) {
	server, open, err := l.freshNamespaces(ctx, "ticks")
	if err != nil {
		return nil, err
	}
	return &ticks{l, open, server}, nil
}

func (t *ticks) close(context.Context) error {
	if t.server == nil {
		return nil
	}
	return t.server.Close()
}

func (t *ticks) round(ctx context.Context) error {
	s, done, err := t.open(ctx)
	if err != nil {
		return err
	}
	return errors.Join(t.measure(ctx, s), done())
}

func (t *ticks) measure(ctx context.Context, s *site) error {
	if err := t.idle(ctx, s, tickAlone); err != nil {
		return err
	}
	if err := t.put(ctx, s, firing, t.schedules, "0 0 1 1 *"); err != nil {
		return err
	}
	if err := t.idle(ctx, s, tickIdle); err != nil {
		return err
	}
	return t.fire(ctx, s)
}

// put stores schedules with the numbers from first on, by as many callers as enqueue elsewhere.
func (t *ticks) put(ctx context.Context, s *site, first, end int, line string) error {
	numbers := make(chan int)
	errs := make([]error, callers)
	var all sync.WaitGroup
	for i := range callers {
		all.Go(func() {
			for n := range numbers {
				_, err := s.client.PutSchedule(ctx, waggle.Schedule{Name: fmt.Sprintf("schedule-%05d", n), Line: line, Type: taskType, Payload: payloadOf(n)})
				errs[i] = errors.Join(errs[i], err)
			}
		})
	}
	for n := first; n < end; n++ {
		numbers <- n
	}
	close(numbers)
	all.Wait()
	return errors.Join(errs...)
}

// idle watches a worker with nothing to do, and its server.
func (t *ticks) idle(ctx context.Context, s *site, id string) (err error) {
	stop, err := s.background(ctx, &waggle.WorkerOptions{}, func(*waggle.Task) {})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	pause(ctx, settleTime)
	before, err := t.used()
	if err != nil {
		return err
	}
	began := time.Now()
	pause(ctx, min(t.sizes.idle, watchIdle))
	after, err := t.used()
	t.board.add(id, 100*(after-before).Seconds()/time.Since(began).Seconds())
	return err
}

// used is the processor time of this process and of the server.
func (t *ticks) used() (time.Duration, error) {
	all, err := cpuTime(os.Getpid())
	if t.server != nil && err == nil {
		var theirs time.Duration
		theirs, err = cpuTime(t.server.PID())
		all += theirs
	}
	return all, err
}

// fire has some schedules fire each second for a while, and finds out how late. Each tick has to run once.
func (t *ticks) fire(ctx context.Context, s *site) (err error) {
	type tick struct{ name, at string }
	var mu sync.Mutex
	runs := map[tick]int{}
	var ms []float64
	var bad error
	handler := func(task *waggle.Task) {
		now := time.Now()
		mu.Lock()
		defer mu.Unlock()
		name, at := task.Headers[schedule.HeaderName], task.Headers[schedule.HeaderTick]
		due, err := time.Parse(time.RFC3339Nano, at)
		bad = errors.Join(bad, err)
		runs[tick{name, at}]++
		ms = append(ms, milliseconds(now.Sub(due)))
	}
	stop, err := s.background(ctx, &waggle.WorkerOptions{}, handler)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	if err := t.put(ctx, s, 0, firing, "* * * * * *"); err != nil {
		return err
	}
	pause(ctx, time.Duration(t.seconds)*time.Second)
	for n := range firing {
		if _, err := s.client.PauseSchedule(ctx, fmt.Sprintf("schedule-%05d", n)); err != nil {
			return err
		}
	}
	if err := s.quiet(ctx); err != nil {
		return err
	}
	mu.Lock()
	defer mu.Unlock()
	fired := 0
	for info, err := range s.client.Schedules(ctx) {
		if err != nil {
			return err
		}
		fired += int(info.Fired)
	}
	for k, n := range runs {
		if n > 1 {
			bad = errors.Join(bad, fmt.Errorf("the tick of %s at %s ran %d times", k.name, k.at, n))
		}
	}
	if fired != len(runs) || fired == 0 {
		bad = errors.Join(bad, fmt.Errorf("%d ticks have fired, %d ran", fired, len(runs)))
	}
	t.board.add(tickLate, ms...)
	t.board.tasks += len(runs)
	return bad
}

// quiet waits until nothing is left to run.
func (s *site) quiet(ctx context.Context) error {
	for limit := time.Now().Add(pickupLimit); time.Now().Before(limit); pause(ctx, 10*time.Millisecond) {
		q, err := s.client.Queue(ctx, waggle.DefaultQueue)
		if err != nil {
			return err
		}
		if q.Counts[driver.Available]+q.Counts[driver.Active]+q.Counts[driver.Scheduled]+q.Counts[driver.Retryable] == 0 {
			return nil
		}
	}
	return fmt.Errorf("tasks are left after %v", pickupLimit)
}
