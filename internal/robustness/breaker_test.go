package robustness

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/waggleq/waggle"
	"github.com/waggleq/waggle/driver/drivertest/history"
)

// TestKillLoopWithBreaker has four worker processes share the breaker of a type, half of whose tasks fail at first, while one of
// them is killed every few hundred milliseconds: as it counts, as it opens the breaker, or as it tries. Whoever dies,
// the breaker does not stay as it is, and in the end all is done.
func TestKillLoopWithBreaker(t *testing.T) {
	all := func(engine) bool { return true }
	onEngines(t, all, func(t *testing.T, e engine) {
		const n = 80
		c := &chaos{site: newSite(t, e), rand: rand.New(rand.NewPCG(seed(t), 0))}
		must(t, c.client.SetBreaker(t.Context(), taskType, &waggle.Breaker{Rate: 0.3, Min: 3, Window: 2 * time.Second, CoolDown: 200 * time.Millisecond}))
		for i := range n {
			what := act{Do: doWork, For: 20 * time.Millisecond}
			if i%2 == 0 {
				what = act{Do: doFailOnce}
			}
			_, err := c.client.Enqueue(t.Context(), taskType, what, &waggle.EnqueueOptions{
				ID: fmt.Sprint("t", i), CrashLimit: 1000, MaxAttempts: 1000})
			must(t, err)
		}
		for i := range 4 {
			c.posts = append(c.posts, &post{role: role{Role: roleWorker, Name: fmt.Sprintf("worker%d", i), Lease: time.Second, Drain: waggle.NoDrain, Slots: 4}})
		}
		seen := map[waggle.BreakerState]int{}
		end, done := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(done)
			for {
				select {
				case <-end:
					return
				case <-time.After(5 * time.Millisecond): // a look now and then
				}
				types, err := c.client.Types(context.WithoutCancel(t.Context()))
				if err == nil && len(types) == 1 {
					seen[types[0].State]++
				}
			}
		}()
		c.run(6 * time.Second)
		c.settle()
		close(end)
		<-done
		if seen[waggle.BreakerOpen]+seen[waggle.BreakerHalfOpen] == 0 {
			t.Error("the breaker was never open")
		}
		q, err := c.client.Queue(context.WithoutCancel(t.Context()), waggle.DefaultQueue)
		must(t, err)
		if q.Counts[waggle.Completed] != n {
			t.Errorf("in the end %d of %d tasks are completed: %v", q.Counts[waggle.Completed], n, q.Counts)
		}
		c.check(&history.Options{AtRest: true, Recovery: patience})
		t.Logf("%d processes, %d killed, %d frozen; the breaker was seen %v", len(c.kids), c.killed, c.frozen, seen)
	})
}
