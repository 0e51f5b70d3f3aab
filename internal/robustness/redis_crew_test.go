package robustness

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/waggleq/waggle"
	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/driver/drivertest"
	"github.com/waggleq/waggle/driver/drivertest/history"
)

// crew is producers and workers in this process, under load on a store to which a test does harm.
type crew struct {
	*site
	through string // the URL by which producers and workers reach the store
	log     *slog.Logger
	said    *sharedBuffer

	producing, working context.CancelFunc
	produce, work      context.Context
	producers, workers sync.WaitGroup
	procs              []*proc

	mu      sync.Mutex
	started map[string]time.Time // the first start of each task's handler, by this machine's clock
	causes  map[string]string    // why each task's context ended early, last time
	news    chan struct{}        // closed and replaced with each start
}

// sharedBuffer is a buffer that many write to.
type sharedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *sharedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *sharedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// crews bounds how many crews are at work at once: each is a load, and a machine that is too busy looks like a fault.
var crews = make(chan struct{}, 3)

// takeTurn waits until the test may put load on the machine. It is given back when the test ends.
func takeTurn(t *testing.T) {
	t.Helper()
	crews <- struct{}{}
	t.Cleanup(func() { <-crews })
}

// newCrew opens the store for the test itself at one URL and for its crew at another, which may lead through a proxy.
func newCrew(t *testing.T, url, through string) *crew {
	t.Helper()
	c := &crew{
		site: &site{TB: t, dir: t.TempDir(), url: url}, through: through, said: &sharedBuffer{},
		started: map[string]time.Time{}, causes: map[string]string{}, news: make(chan struct{}),
	}
	c.log = slog.New(slog.NewTextHandler(c.said, nil))
	c.produce, c.producing = context.WithCancel(t.Context())
	c.work, c.working = context.WithCancel(t.Context())
	c.store = c.open(url)
	own, err := openLog(filepath.Join(c.dir, "test.jsonl"), "test")
	must(t, err)
	c.client, err = waggle.NewClient(own.wrap(c.store), &waggle.ClientOptions{Logger: c.log})
	must(t, err)
	all := driver.Keep{Age: 24 * time.Hour, Count: -1, Bytes: -1}
	must(t, c.client.SetRetention(t.Context(), waggle.DefaultQueue, driver.Retention{Completed: all, Cancelled: all, Discarded: all}))
	t.Cleanup(func() {
		c.producing()
		c.working()
		c.producers.Wait()
		c.workers.Wait()
		_ = c.client.Close(context.Background()) // nothing is under way
		if t.Failed() {
			t.Logf("the crew said:\n%s", tail(c.said.String(), 6000))
		}
	})
	return c
}

// open opens the store once more, as another process.
func (c *crew) open(url string) driver.Store {
	c.Helper()
	deadline := time.Now().Add(patience)
	for {
		store, err := openStore(c.Context(), url, 0)
		if err == nil {
			c.Cleanup(func() { _ = store.Close() })
			return store
		}
		if !errors.Is(err, waggle.ErrUnavailable) || time.Now().After(deadline) {
			c.Fatal(err)
		}
		_ = wait(c.Context(), 20*time.Millisecond) // on a busy machine a server may take longer than the URL's timeout
	}
}

// withLog opens the store for a member of the crew, whose calls are written down under its name.
func (c *crew) withLog(name string) (driver.Store, *log) {
	c.Helper()
	hist, err := openLog(filepath.Join(c.dir, name+".jsonl"), name)
	must(c, err)
	return hist.wrap(c.open(c.through)), hist
}

// Write takes in one line that a worker's proc tells.
func (c *crew) Write(text []byte) (int, error) {
	var l line
	if err := json.Unmarshal(text, &l); err != nil {
		return 0, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch l.Kind {
	case lineCause:
		c.causes[l.Task] = l.Text
	case lineStarted:
		if c.started[l.Task].IsZero() {
			c.started[l.Task] = l.At
		}
		close(c.news)
		c.news = make(chan struct{})
	}
	return len(text), nil
}

// worker starts a worker that works until the crew ends. What its Run returns goes to the channel.
func (c *crew) worker(name string) <-chan error {
	c.Helper()
	p := c.proc(name, role{})
	ended := make(chan error, 1)
	c.workers.Go(func() {
		err := p.work(c.work)
		if err != nil {
			c.log.Error("the worker's Run has returned", "worker", name, "error", err)
		}
		ended <- err
	})
	return ended
}

func (c *crew) proc(name string, r role) *proc {
	c.Helper()
	r.Role, r.Name, r.Lease, r.Slots, r.Drain = roleWorker, name, lease, 8, waggle.NoDrain
	p := &proc{role: r, out: json.NewEncoder(c), gates: map[string]chan struct{}{}, log: c.log}
	p.store, p.hist = c.withLog(name)
	c.procs = append(c.procs, p)
	return p
}

// producer starts a producer that enqueues batches, at least a few milliseconds apart, until the crew's work is over.
func (c *crew) producer(name string) {
	c.Helper()
	store, _ := c.withLog(name)
	client, err := waggle.NewClient(store, &waggle.ClientOptions{Logger: c.log})
	must(c, err)
	c.producers.Go(func() {
		for n := 0; c.produce.Err() == nil; n++ {
			if err := enqueueUntilStored(c.produce, client, batchOf(fmt.Sprintf("%s-%d", name, n))); err != nil {
				c.log.Error("a producer's batch was refused", "producer", name, "error", err)
			}
			_ = wait(c.produce, 15*time.Millisecond)
		}
		_ = client.Close(context.Background()) // nothing is under way
	})
}

// batchOf returns a batch of tasks of several kinds.
func batchOf(prefix string) []waggle.NewTask {
	acts := []act{{}, {Do: doWork, For: 3 * time.Millisecond}, {Do: doFailOnce}, {}, {Result: 200}, {}}
	tasks := make([]waggle.NewTask, len(acts))
	for i, a := range acts {
		// What the faults cost must not end a task: its limits are out of reach.
		o := &waggle.EnqueueOptions{ID: fmt.Sprintf("%s-%d", prefix, i), MaxAttempts: 1000, CrashLimit: 1000}
		if i == len(acts)-1 {
			o.Delay = 300 * time.Millisecond
		}
		tasks[i] = waggle.NewTask{Type: taskType, Payload: a, Options: o}
	}
	return tasks
}

// enqueueUntilStored repeats a call whose outcome is unknown, or that was refused for a reason that passes, with the same
// ids, as a caller should. It returns the error of one that was refused for good.
func enqueueUntilStored(ctx context.Context, client *waggle.Client, tasks []waggle.NewTask) error {
	for ctx.Err() == nil {
		_, err := client.EnqueueBatch(ctx, tasks)
		passes := false
		for _, e := range []error{waggle.ErrUnavailable, waggle.ErrNotDurable, waggle.ErrStoreFull} {
			passes = passes || errors.Is(err, e)
		}
		if !passes && ctx.Err() == nil {
			return err
		}
		_ = wait(ctx, 20*time.Millisecond)
	}
	return nil
}

// probe enqueues one task the way producers do, until it is stored, and waits until a handler runs it. It fails the
// test if that took longer than most and than twenty times what the next task takes: a machine that is busy is no fault.
func (c *crew) probe(id string, most time.Duration) {
	c.Helper()
	took := c.timeOne(id)
	c.Logf("%s: a new task ran after %v", id, took.Round(time.Millisecond))
	if took <= most {
		return
	}
	if next := c.timeOne(id + "-next"); took > 20*next {
		c.Errorf("%s: a new task ran after %v, want at most %v; the next one ran after %v", id, took, most, next)
	}
}

// timeOne returns how long it took from the first try to enqueue a task until a handler ran it.
func (c *crew) timeOne(id string) time.Duration {
	c.Helper()
	began := time.Now()
	ctx, cancel := context.WithTimeout(c.Context(), patience)
	defer cancel()
	store, _ := c.withLog(id)
	client, err := waggle.NewClient(store, &waggle.ClientOptions{Logger: c.log})
	must(c, err)
	defer client.Close(context.Background())
	must(c, enqueueUntilStored(ctx, client, []waggle.NewTask{{Type: taskType, Payload: act{}, Options: &waggle.EnqueueOptions{ID: id, Priority: -100}}}))
	return c.awaitStart(id).Sub(began)
}

// awaitStart waits until a handler runs a task, and returns since when.
func (c *crew) awaitStart(id string) time.Time {
	c.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	for {
		c.mu.Lock()
		at, news := c.started[id], c.news
		c.mu.Unlock()
		if !at.IsZero() {
			return at
		}
		select {
		case <-news:
		case <-deadline.C:
			c.Fatalf("no worker runs %s", id)
		}
	}
}

// runs waits until n more tasks have been started than were before.
func (c *crew) runs(n int) {
	c.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	c.mu.Lock()
	want := len(c.started) + n
	c.mu.Unlock()
	for {
		c.mu.Lock()
		have, news := len(c.started), c.news
		c.mu.Unlock()
		if have >= want {
			return
		}
		select {
		case <-news:
		case <-deadline.C:
			c.Fatalf("%d tasks were started, waited for %d", have, want)
		}
	}
}

// rest ends the load, lets the workers do what is left, and ends them.
func (c *crew) rest() {
	c.Helper()
	c.producing()
	c.producers.Wait()
	ctx, cancel := context.WithTimeout(c.Context(), patience)
	defer cancel()
	if err := c.proc("last", role{UntilEmpty: true}).work(ctx); err != nil || ctx.Err() != nil {
		c.Fatalf("the store does not come to rest: %v", errors.Join(err, ctx.Err()))
	}
	c.working()
	c.workers.Wait()
}

// end brings the store to rest and checks everything.
func (c *crew) end(opts *history.Options) {
	c.Helper()
	c.rest()
	drivertest.Audit(c, c.store)
	opts.AtRest = true
	c.check(opts)
}

// histories returns what the whole crew wrote down.
func (c *crew) histories() []history.Event {
	c.Helper()
	logs, err := filepath.Glob(filepath.Join(c.dir, "*.jsonl"))
	must(c, err)
	events, err := history.ReadFiles(logs...)
	must(c, err)
	return events
}

// lost returns the tasks that were accepted and are not in the store, with the time of the reply.
func (c *crew) lost() map[string]time.Time {
	c.Helper()
	there := map[string]bool{}
	for info, err := range c.client.All(c.Context(), waggle.Filter{}) {
		must(c, err)
		there[info.ID] = true
	}
	lost := map[string]time.Time{}
	for _, e := range c.histories() {
		if e.Kind == history.EnqueueOK && !there[e.ID] && (lost[e.ID].IsZero() || e.At.Before(lost[e.ID])) {
			lost[e.ID] = e.At
		}
	}
	return lost
}

// with adds options to a store's URL.
func with(url string, options ...string) string {
	sep := "?"
	if strings.Contains(url, "?") {
		sep = "&"
	}
	return url + sep + strings.Join(options, "&")
}
