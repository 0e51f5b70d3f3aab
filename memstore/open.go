// Package memstore is Waggle's reference engine: a [driver.Store] that lives in the memory of one process.
//
// It is the model that other engines are compared with, and the store of examples and tests. It keeps every promise of
// the contract at the durability level memory: what it holds ends with the process. It starts no goroutines, and waits
// with timers and channels only, so it works in testing/synctest.
//
// One mutex guards everything. A task has one record; its state decides in which of the indexes it is (see link), and
// every change of state goes through move.
package memstore

import (
	"context"
	"sync"
	"time"

	"github.com/waggleq/waggle/driver"
)

// Options are the settings of a store; the zero value of a field means its default.
type Options struct {
	Clock     func() time.Time // the store's clock; default [time.Now]
	Limits    driver.Limits    // what is accepted
	MaxEvents int              // events kept; default 10 000
}

// Store is a store in memory. Open makes one.
type Store struct {
	clock       func() time.Time
	caps        driver.Capabilities
	incarnation string

	mu     sync.Mutex
	now    time.Time // the present of the call that holds mu
	closed bool
	done   chan struct{} // closed by Close

	tasks   map[string]*task
	journal journal // all tasks, in the order of enqueueing
	queues  map[string]*queue
	keys    map[string]*task // owner of each unique key
	keyEnds heap             // the owners that have a TTL
	plans   plans
	workers map[string]*worker
	gone    graveyard
	events  eventLog
	waiters []*waiter // idle workers, the longest waiting first

	lastSeq   int64 // of tasks and of places in line
	lastToken driver.Token
}

// Open returns a new, empty store. It returns [driver.ErrInvalid] for options out of range. opts may be nil.
func Open(opts *Options) (*Store, error) {
	o := Options{}
	if opts != nil {
		o = *opts
	}
	limits, err := o.Limits.WithDefaults()
	if err != nil {
		return nil, err
	}
	if o.MaxEvents < 0 {
		return nil, driver.Invalidf("the number of events kept must not be negative, got %d", o.MaxEvents)
	}
	if o.MaxEvents == 0 {
		o.MaxEvents = 10_000
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	memory := driver.DurabilityMemory
	return &Store{
		clock: o.Clock, incarnation: driver.NewID(), done: make(chan struct{}),
		caps: driver.Capabilities{
			Engine: "memory", Durability: []driver.Durability{memory}, DefaultDurability: memory, Ordered: true, Plans: true,
			Keys: true, Limits: true, Limit: limits,
		},
		tasks: map[string]*task{}, queues: map[string]*queue{}, workers: map[string]*worker{},
		keys: map[string]*task{}, keyEnds: heap{by: byKeyEnd}, plans: plans{byRef: map[driver.PlanRef]*plan{}}, events: eventLog{max: int64(o.MaxEvents)},
	}, nil
}

// Capabilities implements [driver.Store].
func (s *Store) Capabilities() driver.Capabilities { return s.caps }

// Close implements [driver.Store]. The tasks are gone when the last reference to s is.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.closed = true
		close(s.done)
	}
	return nil
}

// Info implements [driver.Inspector].
func (s *Store) Info(ctx context.Context) (*driver.StoreInfo, error) {
	if err := s.lock(ctx); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	return &driver.StoreInfo{
		Engine: s.caps.Engine, Version: "1", Incarnation: s.incarnation, Schema: 1, Now: s.now,
		Warnings: []string{"Tasks are kept in memory only: they are lost when this process ends."},
	}, nil
}

// lock begins a call: it takes mu, unless it returns an error, and reads the clock.
func (s *Store) lock(ctx context.Context) error {
	s.mu.Lock()
	err := ctx.Err()
	if s.closed {
		err = errClosed
	}
	if err != nil {
		s.mu.Unlock()
		return err
	}
	s.now = s.present()
	return nil
}

func (s *Store) present() time.Time { return time.UnixMilli(s.clock().UnixMilli()).UTC() }

var errClosed = driver.Errorf(driver.ErrClosed, "the memory store is closed")
