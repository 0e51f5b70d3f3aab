package main

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"
)

// ledger counts which of the tasks 0 to n-1 were handled and how often. It may be used concurrently.
type ledger struct {
	warm    int // tasks that warm up
	times   []atomic.Int32
	handled atomic.Int64 // calls
	strange atomic.Pointer[error]
	warmAt  atomic.Pointer[time.Time]
	endAt   atomic.Pointer[time.Time]
	all     chan struct{}
}

func newLedger(n, warm int) *ledger {
	return &ledger{warm: max(warm, 1), times: make([]atomic.Int32, n), all: make(chan struct{})}
}

// handle is the handler under measurement: it does nothing but book the task.
func (l *ledger) handle(m message) {
	number, err := m.number()
	if err == nil && number >= len(l.times) {
		err = fmt.Errorf("the handler got task %d of %d", number, len(l.times))
	}
	if err != nil {
		l.strange.Store(&err)
		return
	}
	l.times[number].Add(1)
	switch int(l.handled.Add(1)) {
	case l.warm:
		l.warmAt.Store(new(time.Now()))
	case len(l.times):
		l.endAt.Store(new(time.Now()))
		close(l.all)
	}
}

// wait returns when there have been as many calls as there are tasks, or with an error when nothing moves for
// stallLimit.
func (l *ledger) wait(ctx context.Context) error {
	tick := time.NewTicker(stallLimit)
	defer tick.Stop()
	before := int64(-1)
	for {
		select {
		case <-l.all:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
			now := l.handled.Load()
			if now == before {
				return errors.Join(fmt.Errorf("%d of %d tasks were handled, and then none for %v", now, len(l.times), stallLimit), l.check())
			}
			before = now
		}
	}
}

// check returns an error unless every task was handled exactly once.
func (l *ledger) check() error {
	if err := l.strange.Load(); err != nil {
		return *err
	}
	var never, often int
	for i := range l.times {
		switch n := l.times[i].Load(); {
		case n == 0:
			never++
		case n > 1:
			often++
		}
	}
	if never+often > 0 {
		return fmt.Errorf("of %d tasks %d were never handled and %d more than once", len(l.times), never, often)
	}
	return nil
}

// warmed and ended return when the warm-up and when all was over; the zero time if it was not.
func (l *ledger) warmed() time.Time { return timeOf(&l.warmAt) }
func (l *ledger) ended() time.Time  { return timeOf(&l.endAt) }

func timeOf(p *atomic.Pointer[time.Time]) time.Time {
	if t := p.Load(); t != nil {
		return *t
	}
	return time.Time{}
}
