package robustness

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/waggleq/waggle"
	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/driver/drivertest/history"
)

// loopBound is how many tasks may wait in the queue of the loop below.
const loopBound = 12

// TestKillLoopOfProducersOnABoundedQueue has three producers add more to a bounded queue than its worker takes out, while one
// of them is killed or frozen every few hundred milliseconds: in the midst of a call, or while it waits for room. The queue is
// full again and again and never fuller, whatever becomes of a full one's tasks is its policy alone, and a producer that lives comes in with
// all that it waits for.
func TestKillLoopOfProducersOnABoundedQueue(t *testing.T) {
	onEachEngine(t, func(t *testing.T, e engine) {
		for _, policy := range []waggle.FullPolicy{waggle.FullRefuse, waggle.FullDropOldest, waggle.FullWait} {
			t.Run(string(policy), func(t *testing.T) { boundedLoop(t, e, policy) })
		}
	})
}

func boundedLoop(t *testing.T, e engine, policy waggle.FullPolicy) {
	c := &chaos{site: newSite(t, e), rand: rand.New(rand.NewPCG(seed(t), 0))}
	must(t, c.client.SetBound(t.Context(), waggle.DefaultQueue, waggle.Bound{Max: loopBound, Full: policy}))
	for i := range 3 {
		c.posts = append(c.posts, &post{role: role{Role: roleProducer, Name: fmt.Sprintf("producer%d", i), Mix: mixSlow, Batch: 4}})
	}
	w := c.worker(role{Name: "worker", Slots: 8, Quiet: true})
	seen := c.watchBound()
	c.run(4 * time.Second)
	for late := time.Now().Add(patience); policy != waggle.FullDropOldest && time.Now().Before(late); c.run(time.Second) {
		if _, found := c.pastBound(); found > 0 {
			break // on a slow machine the producers may need longer to be faster than the worker
		}
	}
	living := c.endProducers()
	seen.stop()
	back, found := c.pastBound()
	w.stop()
	w.wait()
	c.settle()
	if seen.most > loopBound+back {
		t.Errorf("%d tasks waited at once, %d may; %d were given back by the worker", seen.most, loopBound, back)
	}
	if found == 0 && policy != waggle.FullDropOldest {
		t.Error("no call found the queue full: this test shows nothing")
	}
	c.wantDropped(policy)
	if policy == waggle.FullWait {
		c.wantAllOf(living)
	}
	c.check(&history.Options{AtRest: true, Recovery: patience})
	t.Logf("%d processes, %d killed, %d frozen; looked %d times", len(c.kids), c.killed, c.frozen, seen.looks)
}

// endProducers has the producers that live end when their calls have returned, and returns those that did.
func (c *chaos) endProducers() (living []*child) {
	for _, p := range c.posts {
		p.child.thaw()
		if !p.child.ended() {
			_, _ = fmt.Fprintln(p.child.stdin, "end") // fails if it was just killed
		}
	}
	for _, p := range c.posts {
		if p.child.wait().Success() {
			living = append(living, p.child)
		} else if !p.child.wasKilled() {
			c.Errorf("%s ended with %v", p.child.role.Name, p.child.cmd.ProcessState)
		}
	}
	return living
}

// pastBound counts the tasks that workers gave back, which may bring a queue above its bound, and those that found it full.
func (c *chaos) pastBound() (back, full int) {
	logs, err := filepath.Glob(filepath.Join(c.dir, "*.jsonl"))
	must(c, err)
	events, err := history.ReadFiles(logs...)
	must(c, err)
	for _, e := range events {
		switch {
		case e.Kind == history.SettleAccepted && e.Outcome == driver.Release:
			back++
		case strings.Contains(e.Error, "is full"):
			full++
		}
	}
	return back, full
}

// wantDropped fails the test unless tasks were dropped where the policy says so, and nowhere else.
func (c *chaos) wantDropped(policy waggle.FullPolicy) {
	dropped := 0
	for r, err := range c.client.All(context.WithoutCancel(c.Context()), waggle.Filter{States: []waggle.State{waggle.Discarded}}) {
		must(c, err)
		if dropped++; r.Reason != driver.ReasonDropped {
			c.Errorf("task %s was discarded for the reason %q", r.ID, r.Reason)
		}
	}
	if dropped > 0 != (policy == waggle.FullDropOldest) {
		c.Errorf("%d tasks were dropped with the policy %s", dropped, policy)
	}
}

// wantAllOf fails the test unless all tasks of producers that ended in order are in the store.
func (c *chaos) wantAllOf(living []*child) {
	for _, p := range living {
		made, err := strconv.Atoi(p.awaitKind(lineDone, "").Text)
		must(c, err)
		for i := range made {
			if _, err := c.client.Get(context.WithoutCancel(c.Context()), p.role.task(i+1)); err != nil {
				c.Errorf("task %d of %d of %s, which waited for room: %v", i+1, made, p.role.Name, err)
			}
		}
	}
}

// watchBound looks again and again at how many tasks wait.
func (c *chaos) watchBound() *limitWatch {
	return c.watch(func(w *limitWatch, ctx context.Context) {
		q, err := c.client.Queue(ctx, waggle.DefaultQueue)
		if err != nil {
			return // the store is closed when the test has failed
		}
		w.looks++
		w.most = max(w.most, q.Counts[waggle.Scheduled]+q.Counts[waggle.Pending]+q.Counts[waggle.Available]+q.Counts[waggle.Retryable])
	})
}
