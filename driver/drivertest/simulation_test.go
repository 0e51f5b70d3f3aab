package drivertest

import (
	"context"
	"flag"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/memstore"
)

func init() {
	// The runs that are meant to fail need no shrinking.
	if err := flag.Set("rapid.shrinktime", "1ms"); err != nil {
		panic(err)
	}
}

// verdict records whether a check failed, instead of failing the test.
type verdict struct {
	rapid.TB
	failed atomic.Bool
}

func (v *verdict) Logf(string, ...any)   {}
func (v *verdict) Log(...any)            {}
func (v *verdict) Errorf(string, ...any) { v.Fail() }
func (v *verdict) Error(...any)          { v.Fail() }
func (v *verdict) Fatalf(string, ...any) { v.FailNow() }
func (v *verdict) Fatal(...any)          { v.FailNow() }
func (v *verdict) Fail()                 { v.failed.Store(true) }
func (v *verdict) Failed() bool          { return v.failed.Load() }
func (v *verdict) FailNow() {
	v.Fail()
	runtime.Goexit()
}

// bug is a memory store with a fault put in.
type bug struct {
	driver.Store
	fetch  func(driver.Store, context.Context, driver.FetchRequest) (*driver.FetchResult, error)
	settle func(driver.Store, context.Context, string, []driver.Settlement) ([]driver.SettleResult, error)
	task   func(*driver.Task)
	apply  func(*driver.Change)
	patch  func(*driver.QueuePatch)
	beat   func(*driver.HeartbeatResult, error) (*driver.HeartbeatResult, error)
}

func (b *bug) Fetch(ctx context.Context, req driver.FetchRequest) (*driver.FetchResult, error) {
	if b.fetch != nil {
		return b.fetch(b.Store, ctx, req)
	}
	return b.Store.Fetch(ctx, req)
}

func (b *bug) Settle(ctx context.Context, worker string, items []driver.Settlement) ([]driver.SettleResult, error) {
	if b.settle != nil {
		return b.settle(b.Store, ctx, worker, items)
	}
	return b.Store.Settle(ctx, worker, items)
}

func (b *bug) Enqueue(ctx context.Context, tasks []*driver.Task, opts driver.EnqueueOptions) ([]driver.EnqueueResult, error) {
	if b.task == nil {
		return b.Store.Enqueue(ctx, tasks, opts)
	}
	spoilt := make([]*driver.Task, len(tasks))
	for i, t := range tasks {
		spoilt[i] = t.Clone()
		b.task(spoilt[i])
	}
	res, err := b.Store.Enqueue(ctx, spoilt, opts)
	for i, t := range tasks {
		t.ID = spoilt[i].ID
	}
	return res, err
}

func (b *bug) Apply(ctx context.Context, c driver.Change) (*driver.ChangeResult, error) {
	if b.apply != nil {
		b.apply(&c)
	}
	return b.Store.Apply(ctx, c)
}

func (b *bug) SetQueue(ctx context.Context, queue string, p driver.QueuePatch) (*driver.QueueConfig, error) {
	if b.patch != nil {
		b.patch(&p)
	}
	return b.Store.SetQueue(ctx, queue, p)
}

func (b *bug) Heartbeat(ctx context.Context, worker string, lease time.Duration) (*driver.HeartbeatResult, error) {
	res, err := b.Store.Heartbeat(ctx, worker, lease)
	if b.beat != nil {
		return b.beat(res, err)
	}
	return res, err
}

// unfenced settles whoever holds the task now, under whatever token.
func unfenced(s driver.Store, ctx context.Context, worker string, items []driver.Settlement) ([]driver.SettleResult, error) {
	results := make([]driver.SettleResult, len(items))
	for i, item := range items {
		records, err := s.Get(ctx, []string{item.ID})
		if err != nil {
			return nil, err
		}
		if r := records[0]; r != nil && r.State == driver.Active {
			worker, item.Token = r.Worker, r.Token
		}
		one, err := s.Settle(ctx, worker, []driver.Settlement{item})
		if err != nil {
			return nil, err
		}
		results[i] = one[0]
	}
	return results, nil
}

// forgetful does not know a settlement again that it has accepted before.
func forgetful() func(driver.Store, context.Context, string, []driver.Settlement) ([]driver.SettleResult, error) {
	var mu sync.Mutex
	accepted := map[driver.Ref]bool{}
	return func(s driver.Store, ctx context.Context, worker string, items []driver.Settlement) ([]driver.SettleResult, error) {
		mu.Lock()
		defer mu.Unlock()
		results, err := s.Settle(ctx, worker, items)
		for i, item := range items {
			ref := driver.Ref{ID: item.ID, Token: item.Token}
			if accepted[ref] && results[i].Err == nil {
				results[i] = driver.SettleResult{Err: driver.ErrLeaseLost}
			}
			accepted[ref] = accepted[ref] || results[i].Err == nil
		}
		return results, err
	}
}

func reversed(s driver.Store, ctx context.Context, req driver.FetchRequest) (*driver.FetchResult, error) {
	res, err := s.Fetch(ctx, req)
	if err == nil {
		slices.Reverse(res.Claims)
	}
	return res, err
}

func anyType(s driver.Store, ctx context.Context, req driver.FetchRequest) (*driver.FetchResult, error) {
	req.Types = nil
	return s.Fetch(ctx, req)
}

func edit(change func(*driver.Settlement)) func(driver.Store, context.Context, string, []driver.Settlement) ([]driver.SettleResult, error) {
	return func(s driver.Store, ctx context.Context, worker string, items []driver.Settlement) ([]driver.SettleResult, error) {
		items = slices.Clone(items)
		for i := range items {
			change(&items[i])
		}
		return s.Settle(ctx, worker, items)
	}
}

func TestSimulationCatchesBugs(t *testing.T) {
	t.Parallel()
	for name, plant := range map[string]func(*bug){
		"unfenced settle":            func(b *bug) { b.settle = unfenced },
		"a repeat is refused":        func(b *bug) { b.settle = forgetful() },
		"a snooze that is forgotten": func(b *bug) { b.settle = edit(func(s *driver.Settlement) { s.Delay = 0 }) },
		"a lost result":              func(b *bug) { b.settle = edit(func(s *driver.Settlement) { s.Result = nil }) },
		"claims in wrong order":      func(b *bug) { b.fetch = reversed },
		"types not declared":         func(b *bug) { b.fetch = anyType },
		"unique keys ignored":        func(b *bug) { b.task = func(t *driver.Task) { t.Unique = nil } },
		"tasks that start early":     func(b *bug) { b.task = func(t *driver.Task) { t.At, t.Delay = time.Time{}, 0 } },
		"the conflict policy lost": func(b *bug) {
			b.task = func(t *driver.Task) {
				if t.Unique != nil && t.Unique.OnConflict == driver.ConflictReplace {
					t.Unique.OnConflict = driver.ConflictReject
				}
			}
		},
		"a dry run that is none": func(b *bug) { b.apply = func(c *driver.Change) { c.DryRun = false } },
		"a pause that is none":   func(b *bug) { b.patch = func(p *driver.QueuePatch) { p.Paused = nil } },
		"a heartbeat of the dead": func(b *bug) {
			b.beat = func(r *driver.HeartbeatResult, err error) (*driver.HeartbeatResult, error) {
				if err != nil {
					return &driver.HeartbeatResult{}, nil
				}
				return r, nil
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			engine := Engine{Name: name, Open: func(t testing.TB) *Fixture {
				f := openMemory(t)
				b := &bug{Store: f.Store}
				plant(b)
				f.Store = b
				return f
			}}
			v := &verdict{TB: t}
			for range 100 { // of a rare bug one run of so few checks may see nothing, and -short makes a fifth of them
				var check sync.WaitGroup
				check.Go(func() { simulate(v, t, engine) })
				check.Wait()
				if v.Failed() {
					return
				}
			}
			t.Error("the simulation did not notice")
		})
	}
}

func openMemory(t testing.TB) *Fixture {
	var offset atomic.Int64
	start := time.Date(2027, 1, 2, 3, 4, 5, 0, time.UTC)
	s, err := memstore.Open(&memstore.Options{Clock: func() time.Time { return start.Add(time.Duration(offset.Load())) }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return &Fixture{Store: s, Advance: func(d time.Duration) { offset.Add(int64(d)) }}
}

// A store's clock may run between calls; the simulation copes with it.
func TestSimulationOnARunningClock(t *testing.T) {
	t.Parallel()
	RunSimulation(t, Engine{Name: "memory", Open: func(t testing.TB) *Fixture {
		var offset atomic.Int64
		s, err := memstore.Open(&memstore.Options{Clock: func() time.Time { return time.Now().Add(time.Duration(offset.Load())) }})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
		return &Fixture{Store: s, Advance: func(d time.Duration) { offset.Add(int64(d)) }}
	}})
}
