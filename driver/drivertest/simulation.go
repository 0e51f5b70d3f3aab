package drivertest

import (
	"context"
	"flag"
	"fmt"
	"math"
	"os"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/memstore"
)

// tick is the step of the simulation's clock. Every deadline falls in the middle between two ticks, so that it does not
// matter on which side of a deadline a store puts the very millisecond, nor if its clock runs a little meanwhile.
const tick = time.Minute

// maxDrift is how far a store's own running clock may get away from the model's before the simulation ends.
const maxDrift = tick / 6

// RunSimulation does random operations on an engine and on the model, package memstore, and compares all that the
// contract determines: after each operation its result, then every record, queue and worker. The engine is audited
// after each, and every change of state in its event log has to be in [driver.Moves]. A failing run is shrunk.
//
// The environment variable WAGGLE_SIM_CHECKS sets the number of runs, for longer searches.
func RunSimulation(t *testing.T, e Engine) {
	simulate(t, t, e)
}

// simulate is RunSimulation with the verdict given to another than the test that owns the stores.
func simulate(verdict rapid.TB, t *testing.T, e Engine) {
	setFlags(t)
	rapid.Check(verdict, func(rt *rapid.T) {
		withFixture(t, rt, e, func(f *Fixture) {
			s := newSimulation(rt, f)
			rt.Repeat(s.actions())
			s.checkInvariants()
		})
	})
}

// setFlags gives rapid's flags the suite's defaults, unless the command line sets them.
var setFlags = func() func(*testing.T) {
	var once sync.Once
	return func(t *testing.T) {
		once.Do(func() {
			defaults := map[string]string{"rapid.checks": "40", "rapid.steps": "50", "rapid.nofailfile": "true"}
			if n := os.Getenv("WAGGLE_SIM_CHECKS"); n != "" {
				defaults["rapid.checks"] = n
			}
			flag.Visit(func(f *flag.Flag) { delete(defaults, f.Name) })
			for name, value := range defaults {
				if err := flag.Set(name, value); err != nil {
					t.Fatalf("%s=%s: %v", name, value, err)
				}
			}
		})
	}
}()

// withFixture opens a store for the length of use. The store belongs to a subtest, so that it is closed before the next
// run, however use ends.
func withFixture(t *testing.T, rt *rapid.T, e Engine, use func(*Fixture)) {
	opened, release := make(chan *Fixture, 1), make(chan struct{})
	var subtest sync.WaitGroup
	subtest.Go(func() {
		t.Run("store", func(t *testing.T) {
			defer close(opened) // also if Open fails
			opened <- e.Open(t)
			<-release
		})
	})
	defer subtest.Wait()
	defer close(release)
	f := <-opened
	if f == nil {
		rt.Fatalf("the %s store does not open", e.Name)
	}
	use(f)
}

// side is one of the two stores.
type side struct {
	driver.Store
	start time.Time // its clock at the beginning
}

// half returns a time as the number of half ticks since the beginning, rounded, so that the times of both sides can be
// compared; -1 for the zero time.
func (s *side) half(t time.Time) int {
	if t.IsZero() {
		return -1
	}
	return int(math.Round(float64(t.Sub(s.start)) / float64(tick/2)))
}

// claimed is a claim that both sides made, with their tokens.
type claimed struct {
	worker, id    string
	engine, model driver.Token
}

// simulation is one run.
type simulation struct {
	*rapid.T
	ctx           context.Context
	engine, model *side
	caps          driver.Capabilities
	shards        int // of the engine
	shardOf       func(id string) int
	keyShard      func(key string) int // nil: there is one shard
	forward       func(time.Duration)  // moves both clocks

	lives   map[string]int // of each worker slot: how many ids it has used
	claims  []claimed      // all that were ever made
	serial  int
	drops   bool             // a queue had a bound that drops tasks
	records []*driver.Record // the model's, as of the last comparison
	queues  []driver.QueueInfo

	swept  int                     // the half tick in which all that was due and expired was last recorded on both sides
	steps  int                     // comparisons done
	cursor string                  // in the engine's event log
	last   map[string]driver.State // of each task, by the event log
}

func newSimulation(rt *rapid.T, f *Fixture) *simulation {
	var offset time.Duration
	start := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	model, err := memstore.Open(&memstore.Options{
		Clock: func() time.Time { return start.Add(offset) }, Limits: f.Store.Capabilities().Limit,
	})
	if err != nil {
		rt.Fatal(err)
	}
	rt.Cleanup(func() { _ = model.Close() })
	s := &simulation{
		T: rt, ctx: context.Background(), engine: &side{Store: f.Store}, model: &side{Store: model},
		caps: f.Store.Capabilities(), shards: 1, shardOf: oneShard, lives: map[string]int{}, last: map[string]driver.State{},
		forward: func(d time.Duration) { offset += d; f.Advance(d) },
	}
	if !s.caps.Ordered {
		s.shards, s.shardOf, s.keyShard = f.Shards, f.Shard, f.KeyShard
	}
	s.engine.start, s.model.start = s.now(s.engine), s.now(s.model)
	s.compare()
	return s
}

func (s *simulation) now(of *side) time.Time {
	info, err := of.Info(s.ctx)
	s.must(err)
	return info.Now
}

func (s *simulation) must(err error) {
	if err != nil {
		s.Fatalf("unexpected error: %v", err)
	}
}

// actions returns the operations by name. Those that matter most are there twice.
func (s *simulation) actions() map[string]func(*rapid.T) {
	actions := map[string]func(*rapid.T){}
	for name, op := range map[string]func(){
		"enqueue": s.enqueue, "enqueue again": s.enqueue, "register": s.register, "register again": s.register,
		"fetch": s.fetch, "fetch again": s.fetch, "fetch once more": s.fetch, "settle": s.settle, "settle again": s.settle,
		"report": s.report, "heartbeat": s.heartbeat, "direct": s.direct, "held": s.held, "unregister": s.unregister, "wait": s.wait,
		"wait again": s.wait, "set queue": s.setQueue, "apply to ids": s.applyIDs, "apply to filter": s.applyFilter,
		"maintain": s.maintain, "list": s.list, "advance": s.advance, "advance again": s.advance, "signal": s.signalPlans,
		"delete plans": s.deletePlans, "list plans": s.listPlans,
	} {
		if strings.Contains(name, "plan") || strings.HasPrefix(name, "advance") || name == "signal" {
			if !s.caps.Plans {
				continue
			}
		}
		actions[name] = func(rt *rapid.T) {
			s.T = rt
			if drift := s.now(s.engine).Sub(s.engine.start) - s.now(s.model).Sub(s.model.start); drift > maxDrift {
				return // the rest of this run would say nothing
			}
			op()
			s.tidy()
			s.compare()
		}
	}
	return actions
}

func (s *simulation) load() {
	var err error
	s.records, err = dump(s.ctx, s.model)
	s.must(err)
	s.queues, err = s.model.Queues(s.ctx)
	s.must(err)
}

// lapsed reports whether a task has expired and perhaps only one of the sides has recorded it, or none.
func (s *simulation) lapsed(r *driver.Record) bool {
	return r.Reason == driver.ReasonExpired && s.model.half(r.EndedAt) >= s.swept
}

// waits reports whether a task waits for its time, or may have to be promoted still.
func (s *simulation) waits(r *driver.Record) bool {
	late := r.State == driver.Available && r.DueAt.After(r.EnqueuedAt) && s.model.half(r.DueAt) >= s.swept
	return late || r.State == driver.Scheduled || r.State == driver.Retryable
}

// same fails the run unless the engine's answer is the model's.
func (s *simulation) same(what string, model, engine any) {
	if reflect.DeepEqual(model, engine) {
		return // by far the quicker way, and nearly always
	}
	if diff := gocmp.Diff(model, engine, equateEmpty); diff != "" {
		s.Fatalf("%s (-model +%s):\n%s", what, s.caps.Engine, diff)
	}
}

// class returns the name of an error's class, empty for nil.
func class(err error) string {
	if err == nil {
		return ""
	}
	return driver.ClassOf(err).Code
}

func classes(errs []error) []string {
	names := make([]string, len(errs))
	for i, err := range errs {
		names[i] = class(err)
	}
	return names
}

// number returns the next of the run's own names with a prefix.
func (s *simulation) number(prefix string) string {
	s.serial++
	return fmt.Sprintf("%s%d", prefix, s.serial)
}

// draw returns one of the values.
func draw[T any](s *simulation, label string, values ...T) T {
	return rapid.SampledFrom(values).Draw(s.T, label)
}

// chance is true once in n times; shrinking makes it false.
func (s *simulation) chance(label string, n int) bool {
	return rapid.IntRange(0, n-1).Draw(s.T, label) == n-1
}

// some returns a part of the values, in random order, at least one.
func some[T comparable](s *simulation, label string, values ...T) []T {
	return rapid.SliceOfNDistinct(rapid.SampledFrom(values), 1, len(values), rapid.ID[T]).Draw(s.T, label)
}
