package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/waggleq/waggle"
	"github.com/waggleq/waggle/internal/redisserver"
)

// The figures of workflows, of both engines.
const (
	flowPlain  = "flow_plain"
	flowFan    = "flow_fan"
	flowPickup = "flow_pickup"
	flowHop    = "flow_hop"
)

var flowFigures = []figure{
	{id: flowPlain, what: "plain tasks, enqueued and processed", unit: "tasks/s"},
	{id: flowFan, what: "workflow that fans out and in, against that", unit: "steps/s", of: flowPlain, ratio: atLeast(0.3)},
	{id: flowPickup, what: "idle pick-up beside the chain, p50", unit: "ms", pool: 0.5},
	{id: flowHop, what: "workflow that is a chain, from one step to the next, p50, against that", unit: "ms", pool: 0.5, of: flowPickup, ratio: atMost(3)},
}

// flowMethod says how workflows and schedules are measured; it wants the numbers of steps, hops, schedules and seconds.
const flowMethod = `- **Workflows**: %s steps of which all but two come after the first and before the last, from the call that starts the workflow
  to the last step, beside as many plain tasks in batches of 500 while the worker runs; and a chain of %s steps, from the start
  of one handler to the start of the next, beside the pick-up of single tasks in the same store.
- **Schedules**: %s in a store, of which 100 fire each second for %d s; from the tick to the first line of the handler.
  Every tick ran once. The worker that has nothing to do is watched for up to 4 s before the first schedule is stored and
  when none of them fires.`

// flows measures workflows beside plain tasks. Each round has a store of its own.
type flows struct {
	*lab
	open func(ctx context.Context) (*site, func() error, error)
	stop func() error
}

func startFlows(_ context.Context, l *lab) (probe, error) {
	return &flows{l, l.freshFile, func() error { return nil }}, nil
}

func startRedisFlows(ctx context.Context, l *lab) (probe, error) {
	server, open, err := l.freshNamespaces(ctx, "flow")
	if err != nil {
		return nil, err
	}
	return &flows{l, open, server.Close}, nil
}

// freshFile opens a SQLite file of its own.
func (l *lab) freshFile(ctx context.Context) (*site, func() error, error) {
	dir, err := os.MkdirTemp(l.dir, "site-")
	if err != nil {
		return nil, nil, err
	}
	s, err := openStore(ctx, filepath.Join(dir, "queue.db"))
	if err != nil {
		return nil, nil, errors.Join(err, os.RemoveAll(dir))
	}
	return s, func() error { return errors.Join(s.close(context.WithoutCancel(ctx)), os.RemoveAll(dir)) }, nil
}

// freshNamespaces starts a server; open opens a namespace of its own there.
func (l *lab) freshNamespaces(ctx context.Context, name string) (server *redisserver.Server, open func(context.Context) (*site, func() error, error), err error) {
	if server, err = redisserver.Start(ctx, &redisserver.Options{Flavour: l.flavour(), Config: slowConfig}); err != nil {
		return nil, nil, err
	}
	n := 0
	return server, func(ctx context.Context) (*site, func() error, error) {
		n++
		s, err := openStore(ctx, fmt.Sprintf("%s?ns=%s-%d", server.URL(), name, n))
		if err != nil {
			return nil, nil, err
		}
		return s, func() error { return s.close(context.WithoutCancel(ctx)) }, nil
	}, nil
}

func (f *flows) close(context.Context) error { return f.stop() }

func (f *flows) round(ctx context.Context) error {
	for _, measure := range []func(context.Context, *site) error{f.plain, f.fan, f.chain} {
		s, done, err := f.open(ctx)
		if err != nil {
			return err
		}
		if err := errors.Join(measure(ctx, s), done()); err != nil {
			return err
		}
	}
	return nil
}

// plain enqueues and processes as many tasks as the fan has steps.
func (f *flows) plain(ctx context.Context, s *site) (err error) {
	book := newLedger(f.steps)
	all := make(chan struct{}, f.steps)
	stop, err := s.background(ctx, &waggle.WorkerOptions{}, func(t *waggle.Task) {
		book.run(t.Payload)
		all <- struct{}{}
	})
	if err != nil {
		return err
	}
	began := time.Now()
	err = s.fill(ctx, 0, f.steps)
	for i := 0; err == nil && i < f.steps; i++ {
		select {
		case <-all:
		case <-time.After(pickupLimit):
			err = fmt.Errorf("%d of %d tasks ran", i, f.steps)
		}
	}
	f.board.add(flowPlain, perSecond(f.steps, began))
	f.board.tasks += f.steps
	return errors.Join(err, stop(), book.check())
}

// fan runs a workflow of a first step, many that come after it, and one that comes after all of them.
func (f *flows) fan(ctx context.Context, s *site) error {
	w := waggle.NewWorkflow("fan", nil)
	first := w.Task("first", taskType, payloadOf(0), nil)
	var all []*waggle.WorkflowStep
	for i := 1; i < f.steps-1; i++ {
		all = append(all, w.Task("step-"+strconv.Itoa(i), taskType, payloadOf(i), nil).After(first))
	}
	w.Task("last", taskType, payloadOf(f.steps-1), nil).After(all...)
	book := newLedger(f.steps)
	var last time.Time // of all handlers, the only one that runs then
	began, err := f.run(ctx, s, w, func(t *waggle.Task) {
		book.run(t.Payload)
		if _, step := t.Workflow(); step == "last" {
			last = time.Now()
		}
	})
	f.board.add(flowFan, float64(f.steps)/last.Sub(began).Seconds())
	f.board.tasks += f.steps
	return errors.Join(err, book.check())
}

// run runs a workflow to its end.
func (f *flows) run(ctx context.Context, s *site, w *waggle.Workflow, handler func(*waggle.Task)) (began time.Time, err error) {
	stop, err := s.background(ctx, &waggle.WorkerOptions{}, handler)
	if err != nil {
		return began, err
	}
	if err := s.awaitWorkers(ctx, 1); err != nil {
		return began, errors.Join(err, stop())
	}
	began = time.Now()
	_, err = s.client.StartWorkflow(ctx, w)
	var info *waggle.WorkflowInfo
	if err == nil {
		info, err = s.client.WaitWorkflow(ctx, w.ID())
	}
	if err == nil && info.State != waggle.WorkflowCompleted {
		err = fmt.Errorf("workflow %s is %s: %s", w.ID(), info.State, info.Reason)
	}
	return began, errors.Join(err, stop())
}

// chain runs a workflow whose steps come one after the other: a hop is from the start of one to the start of the next. The
// pick-ups before it are of plain tasks in the same store.
func (f *flows) chain(ctx context.Context, s *site) error {
	if err := f.idle(ctx, s); err != nil {
		return err
	}
	w := waggle.NewWorkflow("chain", nil)
	var before *waggle.WorkflowStep
	for i := range f.hops {
		step := w.Task("step-"+strconv.Itoa(i), taskType, payloadOf(i), nil)
		if before != nil {
			step.After(before)
		}
		before = step
	}
	book := newLedger(f.hops)
	var at []time.Time // one handler at a time
	_, err := f.run(ctx, s, w, func(t *waggle.Task) {
		at = append(at, time.Now())
		book.run(t.Payload)
	})
	if err := errors.Join(err, book.check()); err != nil {
		return err
	}
	var ms []float64
	for i := 1; i < len(at); i++ {
		ms = append(ms, milliseconds(at[i].Sub(at[i-1])))
	}
	f.board.add(flowHop, ms...)
	f.board.tasks += f.hops
	return nil
}

func (f *flows) idle(ctx context.Context, s *site) (err error) {
	starts := make(chan event, 1)
	stop, err := s.background(ctx, &waggle.WorkerOptions{}, func(t *waggle.Task) {
		n, _ := numberOf(t.Payload) // a payload that is not ours has a number that nobody waits for
		starts <- event{At: time.Now(), Number: n}
	})
	if err != nil {
		return err
	}
	p := &pickup{lab: f.lab}
	ms, err := p.sample(ctx, s.client, func() (event, error) {
		select {
		case e := <-starts:
			return e, nil
		case <-time.After(pickupLimit):
			return event{}, fmt.Errorf("a task was not started within %v", pickupLimit)
		}
	})
	f.board.add(flowPickup, ms...)
	return errors.Join(err, stop())
}
