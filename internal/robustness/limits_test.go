package robustness

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/waggleq/waggle"
	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/driver/drivertest/history"
)

// The limits of the loop below: of the queue, and of each key.
const (
	loopLimit    = 3
	loopKeyLimit = 2
	loopKeys     = 4
)

// TestKillLoopUnderLimits has four worker processes of four slots each share a queue that lets three tasks be active at
// once, and two of a key, while one of them is killed every few hundred milliseconds: with tasks in its hands, in the midst of
// a claim, or while it gives back. The limits are reached and never passed, and in the end nothing is parked and all is done.
func TestKillLoopUnderLimits(t *testing.T) {
	onEngines(t, offersLimits, func(t *testing.T, e engine) {
		const n = 150
		c := &chaos{site: newSite(t, e), rand: rand.New(rand.NewPCG(seed(t), 0))}
		limits := []driver.Limit{{Concurrency: loopLimit}, {PerKey: true, Concurrency: loopKeyLimit}}
		must(t, c.client.SetLimits(t.Context(), waggle.DefaultQueue, limits...))
		for i := range n {
			_, err := c.client.Enqueue(t.Context(), taskType, act{Do: doWork, For: 20 * time.Millisecond}, &waggle.EnqueueOptions{
				ID: fmt.Sprint("t", i), Key: fmt.Sprint("k", i%loopKeys), CrashLimit: 1000, MaxAttempts: 1000})
			must(t, err)
		}
		for i := range 4 {
			c.posts = append(c.posts, &post{role: role{Role: roleWorker, Name: fmt.Sprintf("worker%d", i), Lease: time.Second, Drain: waggle.NoDrain, Slots: 4}})
		}
		seen := c.watchLimits()
		c.run(6 * time.Second)
		c.settle()
		seen.stop()
		if seen.most != loopLimit {
			t.Errorf("at most %d tasks were active at once, want %d", seen.most, loopLimit)
		}
		if seen.mostOfKey > loopKeyLimit {
			t.Errorf("%d tasks of a key were active at once, %d are allowed", seen.mostOfKey, loopKeyLimit)
		}
		q, err := c.client.Queue(context.WithoutCancel(t.Context()), waggle.DefaultQueue)
		must(t, err)
		if q.Parked != 0 || q.Counts[waggle.Completed] != n {
			t.Errorf("in the end %d tasks are parked, and of %d %d are completed", q.Parked, n, q.Counts[waggle.Completed])
		}
		c.check(&history.Options{AtRest: true, Recovery: patience})
		t.Logf("%d processes, %d killed, %d frozen; looked %d times", len(c.kids), c.killed, c.frozen, seen.looks)
	})
}

// offersLimits reports whether an engine's stores offer keys and limits.
func offersLimits(e engine) bool { return e.name == "sqlite" || e.name == "redis" }

// limitWatch is what was seen of active or waiting tasks at once.
type limitWatch struct {
	most, mostOfKey, looks int
	end                    chan struct{}
	done                   chan struct{}
}

// watchLimits looks at what is active again and again, each time in one snapshot of the store.
func (c *chaos) watchLimits() *limitWatch {
	return c.watch(func(w *limitWatch, ctx context.Context) { w.look(c, ctx) })
}

// watch looks again and again until it is stopped.
func (c *chaos) watch(look func(w *limitWatch, ctx context.Context)) *limitWatch {
	w := &limitWatch{end: make(chan struct{}), done: make(chan struct{})}
	ctx := context.WithoutCancel(c.Context())
	go func() {
		defer close(w.done)
		for {
			select {
			case <-w.end:
				return
			default:
			}
			look(w, ctx)
		}
	}()
	return w
}

func (w *limitWatch) look(c *chaos, ctx context.Context) {
	w.looks++
	if q, err := c.client.Queue(ctx, waggle.DefaultQueue); err == nil {
		w.most = max(w.most, q.Counts[waggle.Active])
	}
	page, err := c.client.List(ctx, waggle.Filter{States: []waggle.State{waggle.Active}}, waggle.Page{Size: driver.MaxPage})
	if err != nil {
		return // the store is closed when the test has failed
	}
	byKey := map[string]int{}
	for _, t := range page.Tasks {
		byKey[t.Key]++
		w.mostOfKey = max(w.mostOfKey, byKey[t.Key])
	}
}

func (w *limitWatch) stop() {
	close(w.end)
	<-w.done
}
