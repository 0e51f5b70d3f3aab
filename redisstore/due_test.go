package redisstore_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/internal/redisserver"
	"github.com/waggleq/waggle/internal/redisserver/redistest"
	"github.com/waggleq/waggle/redisstore"
)

// waitForClaims fetches as a worker does, waiting until the next task is due, until there are claims.
func waitForClaims(t *testing.T, s driver.Store, worker string) []driver.Claim {
	t.Helper()
	req := driver.FetchRequest{Worker: worker, Lease: time.Minute, Queues: []string{driver.DefaultQueue}, Max: 10}
	for limit := time.Now().Add(30 * time.Second); time.Now().Before(limit); {
		res, err := s.Fetch(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		if len(res.Claims) > 0 {
			return res.Claims
		}
		req.Wait = time.Second
		if !res.NextDue.IsZero() {
			req.Wait = max(0, min(req.Wait, res.NextDue.Sub(res.Now)))
		}
	}
	t.Fatal("nothing was claimed for half a minute")
	return nil
}

// TestDelaysEndOnTime has an idle worker wait for one delayed task after the other, on servers that look once a second for
// waits that are over. Were it left to that, as many would be more than half a second late as less. The middle one is
// looked at, and more allowed than is promised: others may need this machine too.
func TestDelaysEndOnTime(t *testing.T) {
	t.Parallel()
	const bound = 250 * time.Millisecond
	check := func(t *testing.T, url string) {
		s := open(t, url, nil)
		register(t, s, "w")
		var late []time.Duration
		for i := range 15 {
			id := fmt.Sprint("a-", i)
			task := &driver.Task{ID: id, Type: "t", Delay: time.Duration(40+7*i) * time.Millisecond}
			if _, err := s.Enqueue(t.Context(), []*driver.Task{task}, driver.EnqueueOptions{}); err != nil {
				t.Fatal(err)
			}
			records, err := s.Get(t.Context(), []string{id})
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range waitForClaims(t, s, "w") {
				d := c.ClaimedAt.Sub(records[0].DueAt)
				if d < 0 {
					t.Errorf("%s was claimed %v before it was due", c.ID, -d)
				}
				late = append(late, d)
				if _, err := s.Settle(t.Context(), "w", []driver.Settlement{{ID: c.ID, Token: c.Token, Outcome: driver.Complete}}); err != nil {
					t.Fatal(err)
				}
			}
		}
		slices.Sort(late)
		t.Logf("late by %v", late)
		if middle := late[len(late)/2]; middle > bound {
			t.Errorf("the middle one of %d delays ended %v late, want up to %v", len(late), middle, bound)
		}
	}
	redistest.EachFlavour(t, func(t *testing.T, f redisserver.Flavour) {
		slow := redisserver.Options{Flavour: f, Config: []string{"hz 1", "dynamic-hz no"}}
		t.Run("one server", func(t *testing.T) { t.Parallel(); check(t, redistest.Start(t, &slow).URL()) })
		t.Run("sixteen shards", func(t *testing.T) {
			t.Parallel()
			check(t, redistest.StartCluster(t, &redisserver.ClusterOptions{Node: slow}).URL())
		})
	})
}

// TestRetriesOfAnIdleWorkerStartOnTime settles a task for a retry while its worker waits for work for much longer, and wants
// the same worker to have it again when it is due.
func TestRetriesOfAnIdleWorkerStartOnTime(t *testing.T) {
	t.Parallel()
	s := open(t, shared(t, redisserver.Redis), nil)
	register(t, s, "w")
	if _, err := s.Enqueue(t.Context(), []*driver.Task{{ID: "a", Type: "t"}}, driver.EnqueueOptions{}); err != nil {
		t.Fatal(err)
	}
	claim := waitForClaims(t, s, "w")[0]
	var gaps []time.Duration
	for range 11 {
		next := make(chan []driver.Claim, 1)
		go func() {
			req := driver.FetchRequest{Worker: "w", Lease: time.Minute, Queues: []string{driver.DefaultQueue}, Max: 10, Wait: 10 * time.Second}
			for {
				res, err := s.Fetch(t.Context(), req)
				if err != nil || len(res.Claims) > 0 {
					if err == nil {
						next <- res.Claims
					}
					close(next)
					return
				}
				if req.Wait = 10 * time.Second; !res.NextDue.IsZero() {
					req.Wait = max(0, min(req.Wait, res.NextDue.Sub(res.Now)))
				}
			}
		}()
		item := driver.Settlement{ID: "a", Token: claim.Token, Outcome: driver.Retry, Delay: 50 * time.Millisecond}
		if errs, err := driver.SettleErrors(s.Settle(t.Context(), "w", []driver.Settlement{item})); err != nil || errs[0] != nil {
			t.Fatal(errs, err)
		}
		claims := <-next
		if len(claims) != 1 {
			t.Fatal("the retry was not claimed")
		}
		gaps, claim = append(gaps, claims[0].ClaimedAt.Sub(claim.ClaimedAt)), claims[0]
	}
	slices.Sort(gaps)
	t.Logf("claimed after %v", gaps)
	if middle := gaps[len(gaps)/2]; middle > time.Second {
		t.Errorf("the middle one of %d retries after 50ms came after %v, want it long before the wait of 10s is over", len(gaps), middle)
	}
}

// TestPromotingIsBounded has thousands of tasks be due in several queues and types at once. No script moves more than a page of
// them, and in a queue they run in the order in which they were due, whatever their types.
func TestPromotingIsBounded(t *testing.T) {
	t.Parallel()
	redistest.EachFlavour(t, func(t *testing.T, f redisserver.Flavour) {
		const page, queues, types, each = 500, 4, 3, 400
		s := open(t, redistest.Start(t, &redisserver.Options{Flavour: f}).URL(), nil)
		register(t, s, "w")
		var names []string
		at := time.Now().Add(time.Hour).Truncate(time.Millisecond)
		for q := range queues {
			names = append(names, fmt.Sprint("q", q))
			var tasks []*driver.Task
			for i := range types * each {
				// All of the last type are due between two of the others.
				due := at.Add(time.Duration(i) * time.Millisecond)
				if i%types == types-1 {
					due = at.Add(time.Second / 2)
				}
				tasks = append(tasks, &driver.Task{ID: fmt.Sprint(names[q], "-", i), Queue: names[q], Type: fmt.Sprint("t", i%types), At: due})
			}
			for some := range slices.Chunk(tasks, 1000) {
				if _, err := s.Enqueue(t.Context(), some, driver.EnqueueOptions{}); err != nil {
					t.Fatal(err)
				}
			}
		}
		redisstore.SetOffset(s, 2*time.Hour)
		register(t, s, "w")
		fetch := func(most int, queues ...string) []driver.Claim {
			res, err := s.Fetch(t.Context(), driver.FetchRequest{Worker: "w", Lease: time.Hour, Queues: queues, Max: most})
			if err != nil {
				t.Fatal(err)
			}
			return res.Claims
		}
		for n := 0; n < queues*types*each; {
			fetch(0, names...)
			after, err := redisstore.InLine(t.Context(), s)
			if err != nil {
				t.Fatal(err)
			}
			if after-n > page || after == n {
				t.Fatalf("one fetch moved %d of %d tasks that were due, after %d", after-n, queues*types*each, n)
			}
			n = after
		}
		for _, q := range names {
			last := time.Time{}
			for n := 0; n < types*each; {
				claims := fetch(1000, q)
				if len(claims) == 0 {
					t.Fatalf("%d tasks of %s were given out", n, q)
				}
				n += len(claims)
				for _, c := range claims {
					if c.At.Before(last) {
						t.Fatalf("%s was due %v before the task that came before it", c.ID, last.Sub(c.At))
					}
					last = c.At
				}
			}
		}
	})
}
