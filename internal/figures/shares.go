package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/waggleq/waggle"
	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/internal/redisserver"
)

// What the figures of keys and limits are measured with.
const (
	shareSlots  = 10
	shareTime   = 20 * time.Millisecond // of a handler
	shareLimit  = 50
	shareOthers = 8 // workers with a store of their own
	shareRate   = 200
)

// shareFigures are those figures, on several shards with their number behind the ids.
func shareFigures(shards string) []figure {
	if shards != "" {
		return []figure{
			{id: shareWeights + shards, what: "16 shards: shares of keys with weights 1 to 4 over 10 000 tasks, off by", unit: "%", goal: atMost(10), worst: true},
			{id: shareEfficiency + shards, what: "16 shards: limit of 50, handlers of 20 ms, 8 workers: of the ideal rate", unit: "×", goal: atLeast(0.9)},
			{id: shareAccuracy + shards, what: "16 shards: a rate of 200/s over 10 s, 8 workers, off by", unit: "%", goal: atMost(2), worst: true},
		}
	}
	return []figure{
		{id: sharePlain, what: "process without keys", unit: "tasks/s"},
		{id: shareKeys, what: "process with a key for each task, against none", unit: "tasks/s", of: sharePlain, ratio: atLeast(0.5)},
		{id: shareWeights, what: "shares of keys with weights 1 to 4 over 10 000 tasks, off by", unit: "%", goal: atMost(3), worst: true},
		{id: shareLone, what: "a lone key beside a backlog starts, p99, in handlers of 20 ms", unit: "×", goal: atMost(2), pool: 0.99},
		{id: shareAlone, what: "process beside an empty queue", unit: "tasks/s"},
		{id: shareBeside, what: "process beside 10 000 keys at their limit, against that", unit: "tasks/s", of: shareAlone, ratio: atLeast(0.95)},
		{id: shareEfficiency, what: "limit of 50, handlers of 20 ms, 8 workers: of the ideal rate", unit: "×", goal: atLeast(0.9)},
		{id: shareAccuracy, what: "a rate of 200/s over 10 s, 8 workers, off by", unit: "%", goal: atMost(2), worst: true},
	}
}

// shares measures fair share and limits. Each figure has a store of its own.
type shares struct {
	*lab
	shards string // behind the ids of figures; empty: there is one
	make   func() (path string, remove func() error, err error)
	end    func() error
}

func startShares(_ context.Context, l *lab) (probe, error) {
	return shares{lab: l, end: func() error { return nil }, make: func() (string, func() error, error) {
		dir, err := os.MkdirTemp(l.dir, "shares-")
		return filepath.Join(dir, "shares.db"), func() error { return os.RemoveAll(dir) }, err
	}}, nil
}

func startRedisShares(ctx context.Context, l *lab) (probe, error) {
	server, err := redisserver.Start(ctx, &redisserver.Options{Flavour: l.flavour()})
	if err != nil {
		return nil, err
	}
	return shares{lab: l, end: server.Close, make: namespaces(server.URL() + "?")}, nil
}

func startClusterShares(ctx context.Context, l *lab) (probe, error) {
	c, err := redisserver.StartCluster(ctx, &redisserver.ClusterOptions{Node: redisserver.Options{Flavour: l.flavour()}, NoReplicas: true})
	if err != nil {
		return nil, err
	}
	return shares{lab: l, shards: "_16", end: c.Close, make: namespaces(c.URL() + "?shards=16&")}, nil
}

// namespaces makes stores on a server, each in a namespace of its own.
func namespaces(url string) func() (string, func() error, error) {
	n := 0
	return func() (string, func() error, error) {
		n++
		return fmt.Sprint(url, "ns=shares", n, "-"), func() error { return nil }, nil
	}
}

func (s shares) close(context.Context) error { return s.end() }

func (s shares) round(ctx context.Context) error {
	measures := []func(context.Context, *site) error{s.rates, s.weights, s.lone, s.parked}
	if s.shards != "" {
		measures = measures[1:2]
	}
	for _, measure := range measures {
		if err := s.fresh(ctx, measure); err != nil {
			return err
		}
	}
	return s.freshPath(func(path string) error { return errors.Join(s.concurrency(ctx, path), s.rate(ctx, path+"2")) })
}

func (s shares) fresh(ctx context.Context, measure func(context.Context, *site) error) error {
	return s.freshPath(func(path string) error {
		site, err := openStore(ctx, path)
		if err != nil {
			return err
		}
		return errors.Join(measure(ctx, site), site.close(ctx))
	})
}

func (s shares) freshPath(measure func(path string) error) error {
	path, remove, err := s.make()
	if err != nil {
		return err
	}
	return errors.Join(measure(path), remove())
}

// fillKeys enqueues n tasks whose options are made by number.
func (s *site) fillKeys(ctx context.Context, first, n int, options func(i int) *waggle.EnqueueOptions) error {
	for end := first + n; first < end; first += batchSize {
		batch := make([]waggle.NewTask, min(end-first, batchSize))
		for i := range batch {
			batch[i] = waggle.NewTask{Type: taskType, Payload: payloadOf(first + i), Options: options(first + i)}
		}
		results, err := s.client.EnqueueBatch(ctx, batch)
		for i := range results {
			err = cmp.Or(err, results[i].Err)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func inKey(name string, weight int) *waggle.EnqueueOptions {
	return &waggle.EnqueueOptions{Key: name, Weight: weight}
}

// rates processes as many tasks without a key, and with a key each.
func (s shares) rates(ctx context.Context, site *site) error {
	n := s.sizes.rate
	if err := site.fill(ctx, 0, n); err != nil {
		return err
	}
	began := time.Now()
	if err := site.drain(ctx, newLedger(n)); err != nil {
		return err
	}
	s.board.add(sharePlain, perSecond(n, began))
	if err := site.fillKeys(ctx, 0, n, func(i int) *waggle.EnqueueOptions { return inKey(fmt.Sprint("key-", i), 0) }); err != nil {
		return err
	}
	began = time.Now()
	if err := site.drain(ctx, newLedger(n)); err != nil {
		return err
	}
	s.board.add(shareKeys, perSecond(n, began))
	s.board.tasks += 2 * n
	return nil
}

// weights runs 10 000 tasks of keys that always have more, and compares their shares with their weights.
func (s shares) weights(ctx context.Context, site *site) error {
	const n = 10_000
	weights := []int{1, 2, 3, 4}
	for i, w := range weights {
		if err := site.fillKeys(ctx, i*n, n, func(int) *waggle.EnqueueOptions { return inKey(fmt.Sprint("key-", i), w) }); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var mu sync.Mutex
	runs, total := make([]int, len(weights)), 0
	w, err := site.worker(&waggle.WorkerOptions{}, func(t *waggle.Task) {
		mu.Lock()
		defer mu.Unlock()
		if number, err := numberOf(t.Payload); err == nil && total < n {
			runs[number/n]++
			if total++; total == n {
				cancel()
			}
		}
	})
	if err != nil {
		return err
	}
	if err := w.Run(ctx); err != nil {
		return err
	}
	worst := 0.0
	for i, w := range weights {
		worst = max(worst, math.Abs(float64(runs[i])/float64(total)/(float64(w)/10)-1)*100)
	}
	s.board.add(shareWeights+s.shards, worst)
	return nil
}

// lone has a key add single tasks beside a backlog of another, and measures in handlers' times how long they wait.
func (s shares) lone(ctx context.Context, site *site) error {
	if err := site.fillKeys(ctx, 0, s.sizes.rate, func(int) *waggle.EnqueueOptions { return inKey("big", 0) }); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	started := make(chan time.Time, 1)
	w, err := site.worker(&waggle.WorkerOptions{Slots: shareSlots}, func(t *waggle.Task) {
		if t.Queue == waggle.DefaultQueue && t.Headers["lone"] != "" {
			started <- time.Now()
		}
		time.Sleep(shareTime)
	})
	if err != nil {
		cancel()
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	var waited []float64
	for range s.sizes.pickups {
		o := inKey("lone", 0)
		o.Headers = map[string]string{"lone": "yes"}
		began := time.Now()
		if _, err = site.client.Enqueue(ctx, taskType, payloadOf(0), o); err != nil {
			break
		}
		select {
		case at := <-started:
			waited = append(waited, float64(at.Sub(began))/float64(shareTime))
		case err = <-ended:
			cancel()
			return errors.Join(err, errors.New("the worker ended"))
		}
	}
	s.board.add(shareLone, waited...)
	cancel()
	return errors.Join(err, <-ended)
}

// parked processes tasks beside 10 000 keys that are at their limit, and beside a queue that is empty. The two take turns in one
// store, in an order that favours neither, after a start in which the ended tasks come to the number that is kept: from then on
// each that ends has the oldest removed.
func (s shares) parked(ctx context.Context, site *site) error {
	const keys = 10_000
	if err := site.client.SetLimits(ctx, "held", waggle.Limit{PerKey: true, Concurrency: 1}); err != nil {
		return err
	}
	if err := site.fillKeys(ctx, 0, 3*keys, func(i int) *waggle.EnqueueOptions {
		return &waggle.EnqueueOptions{Queue: "held", Key: fmt.Sprint("key-", i%keys)}
	}); err != nil {
		return err
	}
	if err := holdAll(ctx, site.store, keys); err != nil {
		return err
	}
	n, took := s.sizes.rate/2, map[string]time.Duration{}
	for _, turn := range []struct{ id, queue string }{{"", "empty"}, {shareAlone, "empty"}, {shareBeside, "held"}, {shareBeside, "held"}, {shareAlone, "empty"}} {
		if err := site.fill(ctx, 0, n); err != nil {
			return err
		}
		d, err := s.timed(ctx, site, []waggle.Queue{{Name: waggle.DefaultQueue}, {Name: turn.queue}}, n)
		if err != nil {
			return err
		}
		took[turn.id] += d
	}
	for _, id := range []string{shareAlone, shareBeside} {
		s.board.add(id, float64(2*n)/took[id].Seconds())
	}
	s.board.tasks += 5 * n
	return nil
}

// holdAll claims a task of each key, for good.
func holdAll(ctx context.Context, store driver.Store, keys int) error {
	if err := store.Register(ctx, driver.WorkerInfo{ID: "holder"}, time.Hour); err != nil {
		return err
	}
	for held := 0; held < keys; {
		res, err := store.Fetch(ctx, driver.FetchRequest{Worker: "holder", Lease: time.Hour, Queues: []string{"held"}, Max: 1000})
		if err != nil {
			return err
		}
		if held += len(res.Claims); len(res.Claims) == 0 {
			return fmt.Errorf("of %d keys %d have a task that may start", keys, held)
		}
	}
	return nil
}

// timed runs n tasks of the first queue with a worker that serves all of them, and returns how long that took.
func (s shares) timed(ctx context.Context, site *site, queues []waggle.Queue, n int) (time.Duration, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var ran atomic.Int64
	w, err := site.worker(&waggle.WorkerOptions{Queues: queues}, func(*waggle.Task) {
		if ran.Add(1) == int64(n) {
			cancel()
		}
	})
	if err != nil {
		return 0, err
	}
	began := time.Now()
	err = w.Run(ctx)
	return time.Since(began), err
}

// crew runs workers with stores of their own on one file, until as many handlers as are wanted have ended or a time is over.
func (s shares) crew(ctx context.Context, path string, each int, span time.Duration, run func(at time.Time)) error {
	ctx, cancel := context.WithTimeout(ctx, span)
	defer cancel()
	var all sync.WaitGroup
	errs := make([]error, shareOthers)
	for i := range shareOthers {
		all.Go(func() {
			site, err := openStore(ctx, path)
			if err != nil {
				errs[i] = err
				return
			}
			w, err := site.worker(&waggle.WorkerOptions{Slots: each, DrainTimeout: waggle.NoDrain}, func(*waggle.Task) { run(time.Now()) })
			if err == nil {
				err = w.Run(ctx)
			}
			errs[i] = errors.Join(err, site.close(context.WithoutCancel(ctx)))
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

// concurrency has more workers than a limit lets run, and compares what they do with what it lets them.
func (s shares) concurrency(ctx context.Context, path string) error {
	if err := s.prepare(ctx, path, waggle.Limit{Concurrency: shareLimit}, 20_000); err != nil {
		return err
	}
	var done, active, most atomic.Int64
	warm, span := time.Second, s.span()/2
	begin := time.Now().Add(warm)
	err := s.crew(ctx, path, shareLimit, warm+span, func(at time.Time) {
		now := active.Add(1)
		for old := most.Load(); now > old && !most.CompareAndSwap(old, now); old = most.Load() {
		}
		time.Sleep(shareTime)
		active.Add(-1)
		if end := time.Now(); end.After(begin) && end.Before(begin.Add(span)) {
			done.Add(1)
		}
	})
	if n := most.Load(); err == nil && n > shareLimit {
		err = fmt.Errorf("%d handlers ran at once under a limit of %d", n, shareLimit)
	}
	s.board.add(shareEfficiency+s.shards, float64(done.Load())/span.Seconds()/(shareLimit/shareTime.Seconds()))
	return err
}

// rate counts the starts that a rate lets happen over ten seconds.
func (s shares) rate(ctx context.Context, path string) error {
	if err := s.prepare(ctx, path, waggle.Limit{Rate: shareRate}, 20*shareRate); err != nil {
		return err
	}
	var mu sync.Mutex
	var starts []time.Time
	span := s.span()
	err := s.crew(ctx, path, 4, span+2*time.Second, func(at time.Time) {
		mu.Lock()
		defer mu.Unlock()
		starts = append(starts, at)
	})
	if err != nil || len(starts) == 0 {
		return errors.Join(err, context.Cause(ctx))
	}
	slices.SortFunc(starts, time.Time.Compare)
	begin := starts[0].Add(time.Second)
	n := 0
	for _, at := range starts {
		if at.After(begin) && !at.After(begin.Add(span)) {
			n++
		}
	}
	s.board.add(shareAccuracy+s.shards, math.Abs(float64(n)/(shareRate*span.Seconds())-1)*100)
	return nil
}

// span is over how long a rate is counted.
func (s shares) span() time.Duration {
	if s.quick {
		return 2 * time.Second
	}
	return 10 * time.Second
}

func (s shares) prepare(ctx context.Context, path string, l waggle.Limit, n int) error {
	site, err := openStore(ctx, path)
	if err != nil {
		return err
	}
	return errors.Join(site.client.SetLimits(ctx, waggle.DefaultQueue, l), site.fill(ctx, 0, n), site.close(ctx))
}
