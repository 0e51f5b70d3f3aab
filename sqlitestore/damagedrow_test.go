package sqlitestore

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/waggleq/waggle/driver"
)

// TestADamagedRowStopsNothingElse spoils a row of each kind in a store with two queues, two workers and two plans. What the
// row is about is refused by name, all else goes on, and a repair has all go on.
func TestADamagedRowStopsNothingElse(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		spoil string
		names string // what the refusal names; empty: nothing is refused
		do    func(t *testing.T, s *Store) error
	}{
		"a queue's settings": {"UPDATE queue SET config = '{\"paused\":tru}' WHERE name = 'bad'", `queue "bad"`, enqueueBad},
		"a queue's totals":   {"UPDATE queue SET retried = 4096 WHERE name = 'bad'", `queue "bad"`, fetchBad},
		"a lane's counts":    {"UPDATE lane SET active = 7 WHERE queue = (SELECT no FROM queue WHERE name = 'bad')", `queue "bad"`, enqueueBad},
		"a queue's rates":    {"INSERT INTO share VALUES ((SELECT no FROM queue WHERE name = 'bad'), 1, 1, '{', 5)", `queue "bad"`, fetchBad},
		"a worker": {"UPDATE worker SET lease_end = lease_end + 4096 WHERE id = 'bad'", "worker bad", func(t *testing.T, s *Store) error {
			_, err := s.Heartbeat(t.Context(), "bad", time.Minute)
			return err
		}},
		"a unique key": {"UPDATE uniq SET seq = seq + 1", `unique key "k"`, func(t *testing.T, s *Store) error {
			res, err := s.Enqueue(t.Context(), []*driver.Task{{Type: "t", Unique: &driver.Unique{Key: "k"}}}, driver.EnqueueOptions{})
			return errors.Join(err, res[0].Err)
		}},
		"a plan":        {"UPDATE plan SET version = 9 WHERE name = 'bad'", "plan k/bad", planBad},
		"a plan's body": {"UPDATE plan_part SET bytes = x'00' WHERE plan = (SELECT no FROM plan WHERE name = 'bad')", "plan k/bad", planBad},
		"events":        {"UPDATE event SET packed = x'00' WHERE no = 1", "", nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := dbPath(t)
			s, err := Open(t.Context(), path, nil)
			must(t, err)
			defer func() { must(t, s.Close()) }()
			register(t, s, "good", "bad")
			put := func(queue string) error {
				res, err := s.Enqueue(t.Context(), []*driver.Task{{Type: "t", Queue: queue}}, driver.EnqueueOptions{})
				return errors.Join(err, res[0].Err)
			}
			must(t, errors.Join(put("good"), put("bad")))
			add(t, s, 1, func(_ int, task *driver.Task) { task.Unique = &driver.Unique{Key: "k"} })
			for _, name := range []string{"bad", "good"} {
				_, err := s.Advance(t.Context(), []driver.PlanStep{{PlanRef: driver.PlanRef{Kind: "k", Name: name}, State: "on", Wake: time.Now()}})
				must(t, err)
			}
			raw := rawConn(t, path)
			must(t, raw.run(c.spoil))
			if raw.changes() == 0 {
				t.Fatal("nothing was spoilt")
			}
			must(t, raw.close())
			must(t, s.Close()) // what a process has read it knows
			s, err = Open(t.Context(), path, nil)
			must(t, err)

			if c.do != nil {
				if err := c.do(t, s); !errors.Is(err, driver.ErrCorrupt) || !strings.Contains(err.Error(), c.names) {
					t.Errorf("got %v, want ErrCorrupt that names %s", err, c.names)
				}
			}
			must(t, put("good"))
			res, err := s.Fetch(t.Context(), driver.FetchRequest{Worker: "good", Lease: time.Minute, Queues: []string{"bad", "good"}, Max: 10, Plans: 10})
			must(t, err)
			if n := len(res.Claims); n < 2 {
				t.Errorf("got %d tasks, want at least the two of the good queue", n)
			}
			if queue := strings.HasPrefix(c.names, "queue"); queue != (res.Damaged != nil) || queue && !strings.Contains(res.Damaged.Error(), c.names) {
				t.Errorf("the fetch from both queues tells of %v", res.Damaged)
			}
			for _, claim := range res.Claims {
				settle(t, s, "good", driver.Complete, claim)
			}
			if !strings.HasPrefix(name, "a plan") && len(res.Plans) != 2 || len(res.Plans) == 0 || res.Plans[len(res.Plans)-1].Name != "good" {
				t.Errorf("offered the plans %v", res.Plans)
			}
			_, err = s.GetPlans(t.Context(), []driver.PlanRef{{Kind: "k", Name: "bad"}, {Kind: "k", Name: "good"}}, driver.PlanRead{Reserve: true})
			must(t, err)
			_, err = s.Queues(t.Context())
			must(t, err)
			_, err = s.Workers(t.Context())
			must(t, err)
			_, err = s.Maintain(t.Context(), 0)
			must(t, err)

			findings, err := s.Audit(t.Context(), true)
			must(t, err)
			if len(findings) == 0 {
				t.Error("the audit finds nothing")
			}
			if strings.HasPrefix(name, "a plan") {
				_, err := s.DeletePlans(t.Context(), []driver.PlanRef{{Kind: "k", Name: "bad"}})
				must(t, err)
			}
			wantSound(t, s)
			must(t, errors.Join(put("good"), put("bad")))
			res, err = s.Fetch(t.Context(), driver.FetchRequest{Worker: "good", Lease: time.Minute, Queues: []string{"bad", "good"}, Max: 10})
			must(t, err)
			if len(res.Claims) < 2 {
				t.Errorf("repaired, it gives out %d tasks", len(res.Claims))
			}
		})
	}
}

func enqueueBad(t *testing.T, s *Store) error {
	res, err := s.Enqueue(t.Context(), []*driver.Task{{Type: "t", Queue: "bad"}, {Type: "t", Queue: "good"}}, driver.EnqueueOptions{})
	must(t, err)
	must(t, res[1].Err)
	return res[0].Err
}

func fetchBad(t *testing.T, s *Store) error {
	_, err := s.Fetch(t.Context(), driver.FetchRequest{Worker: "good", Lease: time.Minute, Queues: []string{"bad"}, Max: 1})
	return err
}

func planBad(t *testing.T, s *Store) error {
	_, err := s.GetPlans(t.Context(), []driver.PlanRef{{Kind: "k", Name: "bad"}}, driver.PlanRead{})
	return err
}

// TestADamagedKeyIsParked spoils what is kept of one key: its tasks wait, those of another go on, and a repair gives it back.
func TestADamagedKeyIsParked(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]string{
		"its counts": "UPDATE keyed SET waiting = 9 WHERE key = 'a'",
		"its JSON":   "UPDATE keyed SET held = '{' WHERE key = 'a'",
		"its flow":   "UPDATE flow SET n = n + 2 WHERE key = (SELECT no FROM keyed WHERE key = 'a')",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := dbPath(t)
			s, err := Open(t.Context(), path, nil)
			must(t, err)
			register(t, s, "w")
			add(t, s, 6, func(i int, task *driver.Task) { task.Key = string(rune('a' + i/3)) })
			must(t, s.Close()) // what a process has read it knows
			raw := rawConn(t, path)
			must(t, raw.run(spoil))
			must(t, raw.close())
			s = open(t, path, nil)
			got := 0
			for range 6 {
				for _, c := range fetch(t, s, "w", 1) {
					if got++; c.Key != "b" {
						t.Errorf("got a task of the key %q", c.Key)
					}
					settle(t, s, "w", driver.Complete, c)
				}
			}
			if got != 3 {
				t.Errorf("got %d tasks of the sound key, want 3", got)
			}
			_, err = s.Audit(t.Context(), true)
			must(t, err)
			wantSound(t, s)
			if n := len(fetch(t, s, "w", 6)); n != 3 {
				t.Errorf("repaired, it gives out %d tasks, want 3", n)
			}
		})
	}
}

// TestAnEntryThatIsDamagedDecidesNothing spoils the tables that say where tasks stand: a task is neither given out early, nor
// discarded before it expires, nor lost because its place was.
func TestAnEntryThatIsDamagedDecidesNothing(t *testing.T) {
	t.Parallel()
	path := dbPath(t)
	s := open(t, path, nil)
	register(t, s, "w")
	add(t, s, 1, func(_ int, task *driver.Task) { task.Delay = time.Hour })
	add(t, s, 1, func(_ int, task *driver.Task) { task.ExpiresIn = time.Hour })
	add(t, s, 1, func(_ int, task *driver.Task) { task.Type = "other" })
	add(t, s, 1, nil)
	raw := rawConn(t, path)
	must(t, raw.run("UPDATE due SET at = 1"))
	must(t, raw.run("UPDATE expiry SET at = 1"))
	must(t, raw.run("UPDATE ready SET lane = (SELECT lane FROM task WHERE seq = 4), ord = 3 WHERE seq = 3"))
	must(t, raw.close())
	claims := fetch(t, s, "w", 10)
	claims = append(claims, fetch(t, s, "w", 10)...)
	if len(claims) != 3 {
		t.Errorf("got %d claims, want the three tasks that may start", len(claims))
	}
	for _, c := range claims {
		settle(t, s, "w", driver.Complete, c)
	}
	if got := counts(t, s); got[driver.Scheduled] != 1 || got[driver.Discarded] != 0 {
		t.Errorf("the tasks are %v, want one that is scheduled and none that is discarded", got)
	}
	_, err := s.Audit(t.Context(), true)
	must(t, err)
}
