package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/waggleq/waggle"
	"github.com/waggleq/waggle/internal/redisserver"
)

// The figures of many tasks that are due in the same second, in package redisstore.
const (
	dueAll  = "due_started"
	dueSlow = "due_slowest"
)

var dueFigures = []figure{
	{id: dueAll, what: "%s tasks due at once: from then until all have started", unit: "s", goal: atMost(30), worst: true},
	{id: dueSlow, what: "the longest command meanwhile, that of storing them included", unit: "ms", goal: atMost(20), worst: true},
}

// due measures tasks that are all due at the same time, once: the rounds after the first measure nothing.
type due struct {
	*lab
	server *redisserver.Server
	done   bool
}

func startDue(ctx context.Context, l *lab) (probe, error) {
	server, err := redisserver.Start(ctx, &redisserver.Options{Flavour: l.flavour(), Config: []string{"slowlog-log-slower-than 1000", "slowlog-max-len 100000"}})
	return &due{lab: l, server: server}, err
}

func (d *due) close(context.Context) error { return d.server.Close() }

// aheadOf is how long storing so many tasks takes at most.
func aheadOf(n int) time.Duration { return 5*time.Second + time.Duration(n)*60*time.Microsecond }

func (d *due) round(ctx context.Context) error {
	if d.done {
		return nil
	}
	d.done = true
	s, err := openStore(ctx, d.server.URL())
	if err != nil {
		return err
	}
	return errors.Join(d.measure(ctx, s), s.close(ctx))
}

func (d *due) measure(ctx context.Context, s *site) error {
	n := d.atOnce
	d.board.due = n
	at := time.Now().Add(aheadOf(n)).Truncate(time.Second)
	if err := s.fillAt(ctx, n, at); err != nil {
		return err
	}
	if time.Now().After(at) {
		return fmt.Errorf("storing %d tasks took longer than %v", n, aheadOf(n))
	}
	book := newLedger(n)
	early := make(chan error, 1)
	all := make(chan struct{})
	stop, err := s.background(ctx, &waggle.WorkerOptions{}, func(t *waggle.Task) {
		if wait := time.Until(at); wait > 0 {
			select {
			case early <- fmt.Errorf("a task was started %v before its time", wait):
			default:
			}
		}
		if book.run(t.Payload) == int64(n) {
			close(all)
		}
	})
	if err != nil {
		return err
	}
	select {
	case <-all:
		d.board.add(dueAll, time.Since(at).Seconds())
	case err = <-early:
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	d.board.tasks += n
	err = errors.Join(err, stop(), book.check())
	slowest, slowErr := d.slowest(ctx)
	d.board.add(dueSlow, slowest)
	return errors.Join(err, slowErr)
}

// fillAt stores n tasks for one time, by several callers with batches.
func (s *site) fillAt(ctx context.Context, n int, at time.Time) error {
	const callers = 8
	errs := make([]error, callers)
	var all sync.WaitGroup
	for i := range callers {
		all.Go(func() {
			first, end := n*i/callers, n*(i+1)/callers
			errs[i] = s.fillKeys(ctx, first, end-first, func(int) *waggle.EnqueueOptions { return &waggle.EnqueueOptions{At: at} })
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

// slowest returns how long the longest command of the server took, in milliseconds, and notes which it was.
func (d *due) slowest(ctx context.Context) (float64, error) {
	v, err := d.server.Do(ctx, "SLOWLOG", "GET", "-1")
	if err != nil {
		return 0, err
	}
	worst, name := int64(0), ""
	for _, entry := range v.Elems {
		if len(entry.Elems) > 3 && len(entry.Elems[3].Elems) > 0 && entry.Elems[2].Int > worst {
			worst, name = entry.Elems[2].Int, commandName(entry.Elems[3].Elems)
		}
	}
	if name = cmp.Or(name, "none"); worst > 0 {
		d.board.notes = append(d.board.notes, fmt.Sprintf("The longest command of the tasks that were due at once was `%s`.", name))
	}
	return float64(worst) / 1000, nil
}
