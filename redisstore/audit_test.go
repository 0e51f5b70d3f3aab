package redisstore_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/driver/drivertest"
	"github.com/waggleq/waggle/internal/redisserver"
	"github.com/waggleq/waggle/redisstore"
)

// spoilt is a store with tasks in every state, and its keys as another program would find them.
type spoilt struct {
	*testing.T
	server *redisserver.Server
	url    string
	prefix string
	store  *redisstore.Store
}

func newSpoilt(t *testing.T) *spoilt {
	t.Helper()
	url := shared(t, redisserver.Redis)
	start, _ := sharedServers.Load(redisserver.Redis)
	server, err := start.(func() (*redisserver.Server, error))()
	if err != nil {
		t.Fatal(err)
	}
	store := open(t, url, nil)
	_, ns, _ := strings.Cut(url, "ns=")
	s := &spoilt{t, server, url, "waggle:{" + ns + ".0}:", store}
	s.fill()
	s.wantSound()
	return s
}

// fill makes tasks in every state, and one of each kind that has an index of its own.
func (s *spoilt) fill() {
	s.Helper()
	for _, w := range []string{"holder", "worker"} {
		s.must(s.store.Register(s.Context(), driver.WorkerInfo{ID: w}, time.Hour))
	}
	s.add("first", nil)
	s.add("second", nil)
	claims := fetch(s.T, s.store, "worker", 10)
	s.end(claims[0], driver.Settlement{Outcome: driver.Complete, Result: []byte(`"r"`), ResultEncoding: driver.EncodingJSON})
	s.end(claims[1], driver.Settlement{Outcome: driver.Discard, Error: "no good"})
	s.add("failed", nil)
	s.end(fetch(s.T, s.store, "worker", 10)[0], driver.Settlement{Outcome: driver.Retry, Delay: time.Hour, Error: "not yet"})
	s.add("cancelled", nil)
	s.apply(driver.OpCancel, "cancelled")
	s.add("active", nil)
	s.add("asked", nil)
	held := fetch(s.T, s.store, "holder", 10)
	_, err := s.store.Report(s.Context(), "holder", []driver.Report{{ID: held[0].ID, Token: held[0].Token, Progress: &driver.Progress{Done: 1, Total: 2}}})
	s.must(err)
	s.apply(driver.OpCancel, "asked")
	s.add("released", nil)
	s.end(fetch(s.T, s.store, "worker", 10)[0], driver.Settlement{Outcome: driver.Release})
	s.add("plain", nil)
	s.add("urgent", func(t *driver.Task) { t.Priority = -3 })
	s.add("scheduled", func(t *driver.Task) { t.Delay = time.Hour })
	s.add("held-back", func(t *driver.Task) { t.Hold = true })
	s.add("expiring", func(t *driver.Task) { t.ExpiresIn = time.Hour })
	steps := []driver.PlanStep{
		{PlanRef: driver.PlanRef{Kind: "k", Name: "p"}, State: "on", Body: []byte("b"), Wake: time.Now().Add(time.Hour), Parts: map[string][]byte{"x": []byte("y")}},
		{PlanRef: driver.PlanRef{Kind: "k", Name: "q"}, State: "on", Wake: time.Now().Add(3 * time.Hour)},
	}
	_, err = s.store.Advance(s.Context(), steps)
	s.must(err)
	_, err = s.store.Signal(s.Context(), []driver.Signal{{PlanRef: steps[0].PlanRef, ID: "1", Signal: "go"}, {PlanRef: steps[0].PlanRef, ID: "2", Signal: "go"}})
	s.must(err)
	s.add("unique", func(t *driver.Task) { t.Unique = &driver.Unique{Key: "k"} })
}

func (s *spoilt) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

func (s *spoilt) add(id string, edit func(*driver.Task)) {
	s.Helper()
	task := &driver.Task{ID: id, Type: "t"}
	if edit != nil {
		edit(task)
	}
	results, err := s.store.Enqueue(s.Context(), []*driver.Task{task}, driver.EnqueueOptions{})
	s.must(err)
	s.must(results[0].Err)
}

func (s *spoilt) apply(op driver.Op, id string) {
	s.Helper()
	res, err := s.store.Apply(s.Context(), driver.Change{Op: op, IDs: []string{id}})
	s.must(err)
	s.must(res.Errors[0])
}

func (s *spoilt) end(c driver.Claim, with driver.Settlement) {
	s.Helper()
	s.endAs("worker", c, with)
}

func (s *spoilt) endAs(worker string, c driver.Claim, with driver.Settlement) {
	s.Helper()
	with.ID, with.Token = c.ID, c.Token
	errs, err := driver.SettleErrors(s.store.Settle(s.Context(), worker, []driver.Settlement{with}))
	s.must(err)
	s.must(errs[0])
}

func (s *spoilt) do(args ...string) string {
	s.Helper()
	v, err := s.server.Do(s.Context(), args...)
	s.must(err)
	s.must(v.Err())
	return v.Text
}

// script runs a line of Lua with the store's prefix in ARGV[1].
func (s *spoilt) script(text string, args ...string) string {
	s.Helper()
	return s.do(append([]string{"EVAL", text, "0", s.prefix}, args...)...)
}

func (s *spoilt) wantSound() {
	s.Helper()
	findings, err := s.store.Audit(s.Context(), false)
	s.must(err)
	for _, f := range findings {
		s.Errorf("audit: %+v", f)
	}
}

// repair audits the store until it is sound, and works off all that is left in it.
func (s *spoilt) repair() {
	s.Helper()
	for range 3 { // a repair may lay open what it hid
		_, err := s.store.Audit(s.Context(), true)
		s.must(err)
	}
	s.wantSound()
	s.workOff()
	page, err := s.store.List(s.Context(), driver.Filter{}, driver.Page{})
	s.must(err)
	for _, r := range page.Records {
		if !r.State.Ended() {
			s.Errorf("%s is still %s", r.ID, r.State)
		}
	}
	s.wantSound()
}

// workOff does all that is left, two hours later, when all is due and every lease is over. At its end a fetch finds
// nothing and says so.
func (s *spoilt) workOff() {
	s.Helper()
	redisstore.SetOffset(s.store, 2*time.Hour)
	s.must(s.store.Register(s.Context(), driver.WorkerInfo{ID: "heir"}, time.Hour))
	_, err := s.store.Apply(s.Context(), driver.Change{Op: driver.OpRun, Filter: driver.Filter{All: true}})
	s.must(err)
	for range 10 {
		res, err := s.store.Fetch(s.Context(), driver.FetchRequest{Worker: "heir", Lease: time.Hour, Queues: []string{"default"}, Max: 100})
		s.must(err)
		if len(res.Claims) > 0 {
			settle(s.T, s.store, "heir", res.Claims)
		}
		_, err = s.store.Maintain(s.Context(), 0)
		s.must(err)
	}
	res, err := s.store.Fetch(s.Context(), driver.FetchRequest{Worker: "heir", Lease: time.Hour, Queues: []string{"default"}, Max: 100})
	s.must(err)
	if len(res.Claims) > 0 || res.More || !res.NextDue.IsZero() && res.NextDue.Before(res.Now) {
		s.Errorf("a fetch gives %d tasks, more: %v, and wants to look again at %v, now is %v", len(res.Claims), res.More, res.NextDue, res.Now)
	}
}

// spoilFirst takes one entry out of a key of each kind.
var spoilFirst = map[string]string{
	"list":   "redis.call('LPOP', KEY)",
	"set":    "redis.call('SPOP', KEY)",
	"zset":   "redis.call('ZPOPMIN', KEY)",
	"hash":   "redis.call('HDEL', KEY, redis.call('HRANDFIELD', KEY))",
	"string": "redis.call('DEL', KEY)",
}

// TestAuditRepairsWhatWasDeleted deletes single entries, and whole keys, of everything that tells of tasks. Whatever is
// gone, an audit that repairs leaves a sound store in which every task that is left ends.
func TestAuditRepairsWhatWasDeleted(t *testing.T) {
	t.Parallel()
	names := strings.Fields(newSpoilt(t).script("local n = {} for _, k in ipairs(redis.call('KEYS', ARGV[1] .. '*')) do n[#n+1] = k:sub(#ARGV[1]+1) end return table.concat(n, ' ')"))
	slices.Sort(names)
	if len(names) < 15 {
		t.Fatalf("the store has the keys %v, more were expected", names)
	}
	for _, name := range names {
		if name == "meta" || name == "events" || strings.HasPrefix(name, "wake/") || strings.HasPrefix(name, "ctl/") {
			continue // what makes it a store; a log and hints that may be lost
		}
		t.Run("an entry of "+name, func(t *testing.T) {
			t.Parallel()
			s := newSpoilt(t)
			kind := s.do("TYPE", s.prefix+name)
			s.script(strings.ReplaceAll(spoilFirst[kind], "KEY", "ARGV[1]..ARGV[2]"), name)
			s.repair()
		})
		t.Run("all of "+name, func(t *testing.T) {
			t.Parallel()
			s := newSpoilt(t)
			s.do("DEL", s.prefix+name)
			s.repair()
		})
	}
}

// addKeys adds tasks with keys: alone, with others, active, and waiting for another attempt; then to a queue that limits keys.
func (s *spoilt) addKeys() {
	s.Helper()
	in := func(key string) func(*driver.Task) { return func(t *driver.Task) { t.Key = key } }
	s.must(s.store.Register(s.Context(), driver.WorkerInfo{ID: "keeper"}, time.Minute))
	s.add("busy", in("busy"))
	s.add("failing", in("failing"))
	for _, c := range fetch(s.T, s.store, "keeper", 100) {
		if c.ID == "failing" {
			s.endAs("keeper", c, driver.Settlement{Outcome: driver.Retry, Delay: time.Hour, Error: "not yet"})
		}
	}
	for _, id := range []string{"lone", "only", "single"} {
		s.add(id, in(id))
	}
	s.add("twin", in("twins"))
	s.add("other", in("twins"))
	s.add("busy-too", in("busy"))
	s.wantSound()
}

// TestAuditRepairsKeys spoils what is kept of keys.
func TestAuditRepairsKeys(t *testing.T) {
	t.Parallel()
	for _, limited := range []bool{false, true} {
		for what, script := range map[string]string{
			"a key lost":            "redis.call('HDEL', P .. 'keyed/default', redis.call('HRANDFIELD', P .. 'keyed/default'))",
			"a lone key lost":       "redis.call('HDEL', P .. 'keyed/default', 'lone')",
			"all keys lost":         "redis.call('DEL', P .. 'keyed/default')",
			"a head lost":           "redis.call('ZPOPMIN', P .. 'heads/default')",
			"all heads lost":        "redis.call('DEL', P .. 'heads/default')",
			"all flows lost":        "redis.call('DEL', P .. 'flow/default')",
			"a key is unreadable":   "redis.call('HSET', P .. 'keyed/default', 'lone', 'L')",
			"a lone key is strange": "redis.call('HSET', P .. 'keyed/default', 'lone', 'L' .. string.rep('x', 40))",
			"keys exchanged":        "redis.call('HSET', P .. 'keyed/default', 'lone', redis.call('HGET', P .. 'keyed/default', 'only'))",
			"a lone key is twins":   "redis.call('HSET', P .. 'keyed/default', 'lone', redis.call('HGET', P .. 'keyed/default', 'twins'))",
			"a key of nothing":      "redis.call('HSET', P .. 'keyed/default', 'new', redis.call('HGET', P .. 'keyed/default', 'twins'))",
		} {
			t.Run(fmt.Sprintf("%s, limited: %v", what, limited), func(t *testing.T) {
				t.Parallel()
				s := newSpoilt(t)
				s.addKeys()
				if limited {
					_, err := s.store.SetQueue(t.Context(), driver.DefaultQueue, driver.QueuePatch{Limits: &[]driver.Limit{{PerKey: true, Concurrency: 1}}})
					s.must(err)
					s.wantSound()
				}
				s.script("local P = ARGV[1] " + script)
				if findings, err := s.store.Audit(t.Context(), false); err != nil || len(findings) == 0 {
					t.Errorf("an audit found nothing: %v", err)
				}
				s.repair()
			})
		}
	}
}

// TestUndecodableRecords puts bytes that are no record where a task in each state has one. It is set aside with that
// reason when its turn comes, or by an audit where it has none, and the others go on.
func TestUndecodableRecords(t *testing.T) {
	t.Parallel()
	states := []string{"failed", "active", "asked", "released", "plain", "scheduled", "held-back", "expiring", "unique"}
	for what, bytes := range map[string]string{"nothing": "", "garbage": strings.Repeat("\xff", 80), "a letter": "A", "a short one": "S" + strings.Repeat("\x00", 30)} {
		for _, hash := range []string{"task", "run"} {
			for _, id := range states {
				t.Run(fmt.Sprintf("%s of %s is %s", hash, id, what), func(t *testing.T) {
					t.Parallel()
					newSpoilt(t).undecodable(hash, id, bytes)
				})
			}
		}
	}
}

func (s *spoilt) undecodable(hash, id, bytes string) {
	field := string(driver.PackID(nil, id))
	if v, err := s.server.Do(s.Context(), "HEXISTS", s.prefix+hash, field); err != nil || v.Int == 0 {
		s.must(err)
		return // a task that was never moved has no run
	}
	s.do("HSET", s.prefix+hash, field, bytes)
	s.workOff()
	s.repair()
	r, err := s.store.Get(s.Context(), []string{id})
	s.must(err)
	if id == "asked" && hash == "task" { // its run can be read, and says what is to become of it
		if r[0] == nil || r[0].State != driver.Cancelled {
			s.Errorf("got %+v", r[0])
		}
		return
	}
	if r[0] == nil || r[0].State != driver.Discarded || r[0].Reason != driver.ReasonUndecodable {
		s.Errorf("got %+v", r[0])
	}
	page, err := s.store.List(s.Context(), driver.Filter{States: []driver.State{driver.Discarded}}, driver.Page{})
	s.must(err)
	if !slices.ContainsFunc(page.Records, func(r *driver.Record) bool { return r.ID == id }) {
		s.Errorf("the list of discarded tasks does not have it: %d others", len(page.Records))
	}
}

// TestEndsWithinAMillisecond ends and retries a task again and again, much faster than the store's clock ticks, and then
// removes it: it is counted and removed once.
func TestEndsWithinAMillisecond(t *testing.T) {
	t.Parallel()
	s := open(t, shared(t, redisserver.Redis), nil)
	if _, err := s.Enqueue(t.Context(), []*driver.Task{{ID: "a", Type: "t"}}, driver.EnqueueOptions{}); err != nil {
		t.Fatal(err)
	}
	change := func(op driver.Op) {
		t.Helper()
		r, err := s.Apply(t.Context(), driver.Change{Op: op, IDs: []string{"a"}})
		if err != nil || r.Changed != 1 {
			t.Fatalf("%s: %+v, %v", op, r, err)
		}
	}
	for range 100 {
		change(driver.OpCancel)
		change(driver.OpRetry)
	}
	change(driver.OpCancel)
	drivertest.Audit(t, s)
	hour := driver.Keep{Age: time.Hour, Count: -1, Bytes: -1}
	if _, err := s.SetQueue(t.Context(), driver.DefaultQueue, driver.QueuePatch{Retention: &driver.Retention{Completed: hour, Cancelled: hour, Discarded: hour}}); err != nil {
		t.Fatal(err)
	}
	redisstore.SetOffset(s, 2*time.Hour)
	for {
		r, err := s.Maintain(t.Context(), 0)
		if err != nil {
			t.Fatal(err)
		}
		if !r.More {
			break
		}
	}
	q, err := s.Queues(t.Context())
	if err != nil || len(q) != 1 || q[0].Counts[driver.Cancelled] != 0 {
		t.Errorf("got %+v, %v; want one queue with nothing in it", q, err)
	}
	drivertest.Audit(t, s)
}
