package waggle_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/waggleq/waggle"
	"github.com/waggleq/waggle/memstore"
)

// boundedClient is a client of a store whose default queue has a bound. waits gets the queues for which an enqueue waits.
func boundedClient(t *testing.T, bound waggle.Bound) (c *waggle.Client, waits <-chan string) {
	t.Helper()
	store, err := memstore.Open(nil)
	if err != nil {
		t.Fatal(err)
	}
	told := make(chan string, 100)
	c, err = waggle.NewClient(store, &waggle.ClientOptions{QueueWait: func(queue string) { told <- queue }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close(context.Background()); _ = store.Close() })
	if err := c.SetBound(t.Context(), "default", bound); err != nil {
		t.Fatal(err)
	}
	return c, told
}

func TestEnqueueToAFullQueue(t *testing.T) {
	t.Parallel()
	c, _ := boundedClient(t, waggle.Bound{Max: 1})
	if _, err := c.Enqueue(t.Context(), "t", 1, &waggle.EnqueueOptions{ID: "a"}); err != nil {
		t.Fatal(err)
	}
	r, err := c.Enqueue(t.Context(), "t", 1, nil)
	full, ok := errors.AsType[*waggle.QueueFullError](err)
	if !errors.Is(err, waggle.ErrQueueFull) || !ok || full.Queue != "default" || full.Bound.Full != waggle.FullRefuse || r.ID == "" {
		t.Errorf("receipt %+v, error %v", r, err)
	}
	results, err := c.EnqueueBatch(t.Context(), []waggle.NewTask{{Type: "t", Options: &waggle.EnqueueOptions{ID: "a"}}, {Type: "t"}, {Type: "t", Options: &waggle.EnqueueOptions{Queue: "other"}}})
	if err != nil || !results[0].Existing || !errors.Is(results[1].Err, waggle.ErrQueueFull) || results[2].Err != nil {
		t.Errorf("results %+v, error %v", results, err)
	}
}

// TestEnqueueWaitsForRoom has many calls wait, each of which goes on when a task leaves the queue; none is lost or twice there.
func TestEnqueueWaitsForRoom(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, waits := boundedClient(t, waggle.Bound{Max: 2, Full: waggle.FullWait})
		const n = 20
		done := make(chan error, 2*n)
		for range n {
			go func() {
				r, err := c.Enqueue(t.Context(), "t", nil, nil)
				if err == nil && (r.Existing || r.State != waggle.Available) {
					err = fmt.Errorf("receipt %+v", r)
				}
				done <- err
			}()
			go func() {
				results, err := c.EnqueueBatch(t.Context(), []waggle.NewTask{{Type: "t"}, {Type: "t"}, {Type: "t"}})
				for _, r := range results {
					if r.Err != nil || r.Existing {
						err = fmt.Errorf("result %+v", r)
					}
				}
				done <- err
			}()
		}
		<-waits
		left := 2 * n
		for deadline := time.Now().Add(time.Minute); left > 0; {
			q, err := c.Queue(t.Context(), "default")
			if err != nil {
				t.Fatal(err)
			}
			if q.Counts[waggle.Available] > 2 {
				t.Fatalf("%d tasks wait", q.Counts[waggle.Available])
			}
			if _, err := c.Apply(t.Context(), waggle.Change{Op: waggle.OpCancel, Filter: waggle.Filter{Queues: []string{"default"}}}); err != nil {
				t.Fatal(err)
			}
			select {
			case err := <-done:
				left--
				if err != nil {
					t.Error(err)
				}
			case <-time.After(10 * time.Millisecond): // in the bubble's time
			}
			if time.Now().After(deadline) {
				t.Fatalf("%d calls wait still", left)
			}
		}
		q, err := c.Queue(t.Context(), "default")
		if err != nil || q.Totals.Enqueued != 4*n {
			t.Errorf("queue %+v, error %v, want %d tasks enqueued", q, err, 4*n)
		}
	})
}

// TestProducersThatDieAtABound has many producers share a bounded queue and be cut off in the midst of their calls, as the loop in
// internal/robustness does with processes. The queue is never fuller than its bound, and who is not cut off comes in.
func TestProducersThatDieAtABound(t *testing.T) {
	t.Parallel()
	for _, policy := range []waggle.FullPolicy{waggle.FullRefuse, waggle.FullDropOldest, waggle.FullWait} {
		t.Run(string(policy), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				const most, producers, calls = 6, 10, 20
				c, waits := boundedClient(t, waggle.Bound{Max: most, Full: policy})
				full := func() int {
					q, err := c.Queue(t.Context(), "default")
					if err != nil {
						t.Fatal(err)
					}
					if q.Counts[waggle.Available] > most {
						t.Errorf("%d tasks wait, %d may", q.Counts[waggle.Available], most)
					}
					return q.Counts[waggle.Available]
				}
				ended, accepted, reached := make(chan int, producers), 0, false
				for p := range producers {
					go func() {
						n := 0
						for i := range calls {
							ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
							if (i+p)%3 == 0 { // cut off soon
								cancel()
								ctx, cancel = context.WithTimeout(t.Context(), time.Duration(i%7)*time.Millisecond)
							}
							results, err := c.EnqueueBatch(ctx, []waggle.NewTask{{Type: "t"}, {Type: "t"}})
							for _, r := range results {
								switch {
								case r.Err == nil && r.ID != "":
									n++
								case policy == waggle.FullDropOldest && ctx.Err() == nil, policy == waggle.FullWait && ctx.Err() == nil:
									t.Errorf("%s: result %+v, error %v", policy, r, err)
								}
							}
							cancel()
						}
						ended <- n
					}()
				}
				for left := producers; left > 0; {
					for len(waits) > 0 {
						<-waits
					}
					reached = full() == most || reached
					_, err := c.Apply(t.Context(), waggle.Change{Op: waggle.OpCancel, Max: 2, Filter: waggle.Filter{Queues: []string{"default"}, States: []waggle.State{waggle.Available}}})
					if err != nil {
						t.Fatal(err)
					}
					select {
					case n := <-ended:
						left--
						accepted += n
					case <-time.After(10 * time.Millisecond): // in the bubble's time
					}
				}
				full()
				q, err := c.Queue(t.Context(), "default")
				if err != nil || !reached || int(q.Totals.Enqueued) < accepted {
					t.Errorf("of %d accepted tasks the queue counts %d; its bound was reached: %v; %v", accepted, q.Totals.Enqueued, reached, err)
				}
			})
		})
	}
}

func TestEnqueueGivesUpWaiting(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, _ := boundedClient(t, waggle.Bound{Max: 1, Full: waggle.FullWait})
		if _, err := c.Enqueue(t.Context(), "t", 1, nil); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if r, err := c.Enqueue(ctx, "t", 1, nil); !errors.Is(err, waggle.ErrQueueFull) || !errors.Is(err, context.DeadlineExceeded) || r.ID == "" {
			t.Errorf("receipt %+v, error %v", r, err)
		}
		ctx, cancel = context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		results, err := c.EnqueueBatch(ctx, []waggle.NewTask{{Type: "t"}, {Type: "t"}})
		for _, r := range results {
			if err != nil || !errors.Is(r.Err, waggle.ErrQueueFull) || !errors.Is(r.Err, context.DeadlineExceeded) {
				t.Errorf("result %+v, error %v", r, err)
			}
		}
		q, err := c.Queue(t.Context(), "default")
		if err != nil || q.Totals.Enqueued != 1 {
			t.Errorf("queue %+v, error %v", q, err)
		}
	})
}
