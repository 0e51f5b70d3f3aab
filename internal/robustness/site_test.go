package robustness

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/waggleq/waggle"
	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/driver/drivertest"
	"github.com/waggleq/waggle/driver/drivertest/history"
)

// lease is what workers have unless a test says otherwise: long enough not to be lost on a machine that is busy with
// other tests. Recovery is promised within the lease and one second.
const lease = 2 * time.Second

// site is a store and the processes on it.
type site struct {
	testing.TB
	dir    string
	url    string
	shift  time.Duration
	store  driver.Store // the test's own handle: never one with faults
	client *waggle.Client
	kids   []*child
	prunes bool // retention removes tasks during the test
}

// newSite makes a store. At the end of the test it is audited, when all children are gone.
func newSite(t testing.TB, e engine) *site {
	t.Helper()
	return newSiteShifted(t, e, 0)
}

// newSiteShifted makes a store whose clock is off by shift for all who use it.
func newSiteShifted(t testing.TB, e engine, shift time.Duration) *site {
	t.Helper()
	s := &site{TB: t, dir: t.TempDir(), url: e.create(t), shift: shift}
	s.attach(t)
	return s
}

// attach opens the site's store for the test itself.
func (s *site) attach(t testing.TB) {
	t.Helper()
	store, err := openStore(t.Context(), s.url, s.shift)
	must(t, err)
	s.store = store
	own, err := openLog(filepath.Join(s.dir, "test.jsonl"), "test")
	must(t, err)
	s.client, err = waggle.NewClient(own.wrap(store), nil)
	must(t, err)
	t.Cleanup(func() {
		_ = s.client.Close(context.Background()) // nothing is under way
		if !t.Failed() {
			drivertest.Audit(t, store)
			s.check(&history.Options{Prunes: s.prunes})
		}
		_ = store.Close()
	})
}

// start starts a child on the site's store.
func (s *site) start(r role) *child {
	s.Helper()
	r.Store, r.Shift = s.url, s.shift
	if r.Name == "" {
		r.Name = fmt.Sprintf("%s-%d", r.Role, len(s.kids)+1)
	}
	r.History = filepath.Join(s.dir, r.Name+".jsonl")
	c := start(s, s.dir, r)
	s.kids = append(s.kids, c)
	return c
}

// worker starts a worker with the default lease.
func (s *site) worker(r role) *child {
	s.Helper()
	r.Role = roleWorker
	if r.Lease == 0 {
		r.Lease = lease
	}
	if r.Slots == 0 {
		r.Slots = 4
	}
	if r.Drain == 0 {
		r.Drain = waggle.NoDrain
	}
	return s.start(r)
}

// enqueue stores a task that has its id chosen.
func (s *site) enqueue(id string, a act, opts ...func(*waggle.EnqueueOptions)) {
	s.Helper()
	o := &waggle.EnqueueOptions{ID: id}
	for _, set := range opts {
		set(o)
	}
	_, err := s.client.Enqueue(s.Context(), taskType, a, o)
	must(s, err)
}

// enqueueN stores n tasks that do the same, and returns their ids.
func (s *site) enqueueN(prefix string, n int, a act) []string {
	s.Helper()
	ids := make([]string, n)
	for i := range ids {
		ids[i] = fmt.Sprintf("%s-%d", prefix, i)
		s.enqueue(ids[i], a)
	}
	return ids
}

// get returns a record that must be there.
func (s *site) get(id string) *driver.Record {
	s.Helper()
	records, err := s.store.Get(s.Context(), []string{id})
	must(s, err)
	if records[0] == nil {
		s.Fatalf("task %s is not in the store", id)
	}
	return records[0]
}

// awaitEnd waits for the end of tasks and returns their records.
func (s *site) awaitEnd(ids ...string) []*driver.Record {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.Context(), patience)
	defer cancel()
	records := make([]*driver.Record, len(ids))
	for i, id := range ids {
		if _, err := s.client.Wait(ctx, id); err != nil {
			s.Fatalf("waiting for the end of %s: %v; it is %+v", id, err, s.get(id))
		}
		records[i] = s.get(id)
	}
	return records
}

// drain runs one more worker, without faults, until nothing is left to run.
func (s *site) drain() {
	s.Helper()
	w := s.worker(role{UntilEmpty: true, Slots: 16})
	w.waitOK()
}

// recoveryBound is how long after its death a worker's tasks run elsewhere at the latest.
func recoveryBound(lease time.Duration) time.Duration { return lease + time.Second }
