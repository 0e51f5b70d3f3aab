// Package drivertest holds the tests that every storage engine passes.
//
// [Run] checks the sentences of package driver's doc comments one by one, by topic. [RunSimulation] does random
// operations on an engine and on a model of it. [Benchmarks] measures. Every store that a test opens is audited when
// the test ends, with [Audit]: the engine's own check of its structures and the invariants that can be seen through
// the contract alone.
//
// [Faulty] wraps any store and makes its calls fail, before or after they took effect, so that what stands above a store
// can be tested against lost replies. Package history, below this one, records what clients and handlers saw and checks
// it against what the store holds at the end.
//
// An engine's test file is three lines:
//
//	func TestConformance(t *testing.T) { drivertest.Run(t, engine) }
//	func TestSimulation(t *testing.T)  { drivertest.RunSimulation(t, engine) }
//	func BenchmarkStore(b *testing.B)  { drivertest.Benchmarks(b, engine) }
package drivertest

import (
	"slices"
	"testing"
	"time"

	"github.com/waggleq/waggle/driver"
)

// Engine tells the suite how to open one kind of store.
type Engine struct {
	Name string
	// Open opens a new, empty store of its own, and has t close it in the end. The suite audits the store before.
	Open func(t testing.TB) *Fixture
}

// Fixture is an open store and the means to test it.
type Fixture struct {
	Store driver.Store
	// Advance moves the store's clock forward, in whole milliseconds. Between calls the clock stands still or runs, as
	// the engine likes: the suite copes with both. It never goes back, not even for a call that was under way when it
	// was moved: what is done after Advance has returned is done at the new time.
	Advance func(d time.Duration)
	// Reopen opens another handle on the same data, as another process would have it, and has t close it in the end.
	// It is nil unless Capabilities.Shared. Advance moves the clock of all handles.
	Reopen func(t testing.TB) driver.Store
	// Shards is the number of shards, and Shard the one that a task with this id lives in. They are unset where
	// Capabilities.Ordered is. What the contract promises within a shard is tested in one of them.
	Shards int
	Shard  func(id string) int
	// Work returns a count of what the store has done so far, in any unit that grows with what a call looks at and changes:
	// commands and their arguments, statements and rows. Benchmarks don't need it.
	Work func() int64
	// KeyShard is the shard in which all tasks with this key live; unset where Shard is, or Capabilities.Keys is not.
	KeyShard func(key string) int
}

// testCase is one sentence of the contract with its test.
type testCase struct {
	name string
	run  func(h *harness)
}

// topic is a group of sentences.
type topic struct {
	name  string
	cases []testCase
}

// Run checks an engine against the contract. All tests run in parallel, each on a store of its own.
func Run(t *testing.T, e Engine) { RunTopics(t, e) }

// RunTopics is Run for some topics, by their names; for all if none is given.
func RunTopics(t *testing.T, e Engine, names ...string) {
	for _, topic := range topics {
		if len(names) > 0 && !slices.Contains(names, topic.name) {
			continue
		}
		t.Run(topic.name, func(t *testing.T) {
			t.Parallel()
			for _, c := range topic.cases {
				t.Run(c.name, func(t *testing.T) {
					t.Parallel()
					c.run(newHarness(t, e))
				})
			}
		})
	}
}

var topics = []topic{
	{"enqueue", enqueueCases},
	{"unique", uniqueCases},
	{"fetch", fetchCases},
	{"due and expiry", dueCases},
	{"the present", presentCases},
	{"leases", leaseCases},
	{"recovery", recoveryCases},
	{"fencing", fenceCases},
	{"outcomes", outcomeCases},
	{"reports", reportCases},
	{"held", heldCases},
	{"await", awaitCases},
	{"apply", applyCases},
	{"bulk", bulkCases},
	{"queues", queueCases},
	{"fair share", fairCases},
	{"limits", limitCases},
	{"bounded queues", boundCases},
	{"ordered keys", keyOrderCases},
	{"lists", listCases},
	{"events", eventCases},
	{"retention", retentionCases},
	{"maintenance", maintainCases},
	{"plans", planCases},
	{"plans that are due", planDueCases},
	{"concurrency", concurrencyCases},
	{"chaos", chaosCases},
	{"context", contextCases},
	{"close", closeCases},
}
