package redisstore_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/driver/drivertest"
	"github.com/waggleq/waggle/internal/faultproxy"
	"github.com/waggleq/waggle/internal/redisserver"
	"github.com/waggleq/waggle/internal/redisserver/redistest"
	"github.com/waggleq/waggle/redisstore"
)

// open opens a store that is audited and closed at the end of the test.
func open(t *testing.T, url string, o *redisstore.Options) *redisstore.Store {
	t.Helper()
	s, err := redisstore.Open(t.Context(), url, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// add stores n tasks and returns their ids.
func add(t *testing.T, s *redisstore.Store, n int, o driver.EnqueueOptions) []string {
	t.Helper()
	tasks := benchTasks(n)
	results, err := s.Enqueue(t.Context(), tasks, o)
	if err != nil {
		t.Fatal(err)
	}
	ids := make([]string, n)
	for i, r := range results {
		if r.Err != nil {
			t.Fatal(r.Err)
		}
		ids[i] = r.ID
	}
	return ids
}

func register(t *testing.T, s *redisstore.Store, worker string) {
	t.Helper()
	if err := s.Register(t.Context(), driver.WorkerInfo{ID: worker, Slots: 10}, benchLease); err != nil {
		t.Fatal(err)
	}
}

func fetch(t *testing.T, s *redisstore.Store, worker string, n int) []driver.Claim {
	t.Helper()
	r, err := s.Fetch(t.Context(), driver.FetchRequest{Worker: worker, Lease: benchLease, Queues: []string{"default"}, Max: n})
	if err != nil {
		t.Fatal(err)
	}
	return r.Claims
}

func completions(claims []driver.Claim) []driver.Settlement {
	items := make([]driver.Settlement, len(claims))
	for i, c := range claims {
		items[i] = driver.Settlement{ID: c.ID, Token: c.Token, Outcome: driver.Complete}
	}
	return items
}

func settle(t *testing.T, s *redisstore.Store, worker string, claims []driver.Claim) {
	t.Helper()
	errs, err := driver.SettleErrors(s.Settle(t.Context(), worker, completions(claims)))
	if err := errors.Join(append(errs, err)...); err != nil {
		t.Fatal(err)
	}
}

func TestUnsafeServersAreRefused(t *testing.T) {
	t.Parallel()
	redistest.EachFlavour(t, func(t *testing.T, f redisserver.Flavour) {
		master := redistest.Start(t, &redisserver.Options{Flavour: f})
		for name, c := range map[string]struct {
			server  redisserver.Options
			options redisstore.Options
			want    error
			text    string
		}{
			"eviction": {redisserver.Options{MaxMemory: 50 << 20, MaxMemoryPolicy: "allkeys-lru"}, redisstore.Options{}, driver.ErrUnsupported, "maxmemory-policy noeviction"},
			"replica":  {redisserver.Options{ReplicaOf: master}, redisstore.Options{}, driver.ErrUnsupported, "replica"},
			"no AOF":   {redisserver.Options{}, redisstore.Options{RequireDisk: true}, driver.ErrUnsupported, "appendonly yes"},
			"fsync no": {redisserver.Options{AOF: redisserver.AOFEverySec, Config: []string{"appendfsync no"}}, redisstore.Options{RequireDisk: true}, driver.ErrUnsupported, "appendfsync"},
		} {
			c.server.Flavour = f
			server := redistest.Start(t, &c.server)
			s, err := redisstore.Open(t.Context(), server.URL(), &c.options)
			if err == nil {
				_ = s.Close()
			}
			if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) {
				t.Errorf("%s: got %v, want %v with %q", name, err, c.want, c.text)
			}
		}
	})
}

func TestUnreachableServer(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, nil)
	s := open(t, server.URL(), &redisstore.Options{Timeout: time.Second})
	server.Kill()
	if _, err := s.Enqueue(t.Context(), benchTasks(1), driver.EnqueueOptions{}); !errors.Is(err, driver.ErrUnavailable) {
		t.Errorf("got %v, want ErrUnavailable", err)
	}
	if _, err := redisstore.Open(t.Context(), server.URL(), nil); !errors.Is(err, driver.ErrUnavailable) {
		t.Errorf("got %v, want ErrUnavailable", err)
	}
}

// A server that restarts with nothing is another store: nothing may go on as if the tasks had been done.
func TestStoreThatCameBackEmpty(t *testing.T) {
	t.Parallel()
	redistest.EachFlavour(t, func(t *testing.T, f redisserver.Flavour) {
		server := redistest.Start(t, &redisserver.Options{Flavour: f})
		s := open(t, server.URL(), nil)
		add(t, s, 3, driver.EnqueueOptions{})
		register(t, s, "w")
		if _, err := server.Do(t.Context(), "FLUSHALL"); err != nil {
			t.Fatal(err)
		}
		_, enqueue := s.Enqueue(t.Context(), benchTasks(1), driver.EnqueueOptions{})
		_, fetched := s.Fetch(t.Context(), driver.FetchRequest{Worker: "w", Lease: benchLease, Queues: []string{"default"}, Max: 1})
		_, beat := s.Heartbeat(t.Context(), "w", benchLease)
		_, got := s.Get(t.Context(), []string{"x"})
		for what, err := range map[string]error{"Enqueue": enqueue, "Fetch": fetched, "Heartbeat": beat, "Get": got} {
			if !errors.Is(err, driver.ErrCorrupt) || !strings.Contains(err.Error(), "came back empty") {
				t.Errorf("%s: got %v", what, err)
			}
		}
	})
}

func TestScriptFlushIsNotNoticed(t *testing.T) {
	t.Parallel()
	redistest.EachFlavour(t, func(t *testing.T, f redisserver.Flavour) {
		server := redistest.Start(t, &redisserver.Options{Flavour: f})
		s := open(t, server.URL(), nil)
		register(t, s, "w")
		for range 20 {
			if _, err := server.Do(t.Context(), "SCRIPT", "FLUSH"); err != nil {
				t.Fatal(err)
			}
			add(t, s, 5, driver.EnqueueOptions{})
			settle(t, s, "w", fetch(t, s, "w", 5))
		}
		drivertest.Audit(t, s)
	})
}

// With its memory full a server takes no new tasks, but what it has can be worked off.
func TestFullServerDrains(t *testing.T) {
	t.Parallel()
	redistest.EachFlavour(t, func(t *testing.T, f redisserver.Flavour) {
		server := redistest.Start(t, &redisserver.Options{Flavour: f, MaxMemory: 16 << 20})
		s := open(t, server.URL(), nil)
		register(t, s, "w")
		stored := 0
		var err error
		for err == nil {
			if _, err = s.Enqueue(t.Context(), benchTasks(500), driver.EnqueueOptions{}); err == nil {
				stored += 500
			}
		}
		if !errors.Is(err, driver.ErrStoreFull) {
			t.Fatalf("got %v, want ErrStoreFull", err)
		}
		none := driver.KeepNone
		if _, err := s.SetQueue(t.Context(), "default", driver.QueuePatch{Retention: &driver.Retention{Completed: none, Cancelled: none, Discarded: none}}); !errors.Is(err, driver.ErrStoreFull) && err != nil {
			t.Fatal(err)
		}
		for done := 0; done < stored; {
			claims := fetch(t, s, "w", 500)
			if len(claims) == 0 {
				t.Fatalf("%d of %d tasks were drained", done, stored)
			}
			settle(t, s, "w", claims)
			if _, err := s.Heartbeat(t.Context(), "w", benchLease); err != nil {
				t.Fatal(err)
			}
			done += len(claims)
		}
		drivertest.Audit(t, s)
	})
}

func TestLevels(t *testing.T) {
	t.Parallel()
	redistest.EachFlavour(t, func(t *testing.T, f redisserver.Flavour) {
		off := open(t, redistest.Start(t, &redisserver.Options{Flavour: f}).URL(), nil)
		if _, err := off.Enqueue(t.Context(), benchTasks(1), driver.EnqueueOptions{Durability: driver.DurabilityDisk}); !errors.Is(err, driver.ErrUnsupported) || !strings.Contains(err.Error(), "appendonly yes") {
			t.Errorf("without AOF: got %v, want an ErrUnsupported that names appendonly", err)
		}
		always := redistest.Start(t, &redisserver.Options{Flavour: f, AOF: redisserver.AOFAlways})
		s := open(t, always.URL(), &redisstore.Options{Replicas: 1, Timeout: time.Second})
		r, err := s.Enqueue(t.Context(), benchTasks(1), driver.EnqueueOptions{Durability: driver.DurabilityDisk})
		if err != nil || r[0].Durability != driver.DurabilityDisk {
			t.Errorf("with AOF: got %+v, %v", r, err)
		}
		task := benchTasks(1)
		if _, err := s.Enqueue(t.Context(), task, driver.EnqueueOptions{Durability: driver.DurabilityReplicated}); !errors.Is(err, driver.ErrNotDurable) {
			t.Errorf("without replica: got %v, want ErrNotDurable", err)
		}
		redistest.Start(t, &redisserver.Options{Flavour: f, ReplicaOf: always})
		r, err = s.Enqueue(t.Context(), task, driver.EnqueueOptions{Durability: driver.DurabilityReplicated})
		if err != nil || !r[0].Existing || r[0].Durability != driver.DurabilityReplicated {
			t.Errorf("the same task with a replica: got %+v, %v", r, err)
		}
	})
}

// At level disk nothing that was accepted is lost when the server is killed.
func TestKilledServerLosesNothingOnDisk(t *testing.T) {
	t.Parallel()
	redistest.EachFlavour(t, func(t *testing.T, f redisserver.Flavour) {
		server := redistest.Start(t, &redisserver.Options{Flavour: f, AOF: redisserver.AOFAlways})
		var ids []string
		for range 5 {
			s := open(t, server.URL(), &redisstore.Options{DefaultDurability: driver.DurabilityDisk})
			ids = append(ids, add(t, s, 100, driver.EnqueueOptions{})...)
			ids = append(ids, add(t, s, 1, driver.EnqueueOptions{})...)
			server.Kill()
			if err := server.Restart(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		s := open(t, server.URL(), nil)
		records, err := s.Get(t.Context(), ids)
		if err != nil {
			t.Fatal(err)
		}
		for i, r := range records {
			if r == nil || r.State != driver.Available {
				t.Errorf("task %s is lost", ids[i])
			}
		}
		drivertest.Audit(t, s)
	})
}

// behindProxy opens a store whose connections go through a proxy.
func behindProxy(t *testing.T, f redisserver.Flavour, timeout time.Duration) (*redisstore.Store, *redisstore.Store, *faultproxy.Proxy) {
	t.Helper()
	server := redistest.Start(t, &redisserver.Options{Flavour: f})
	proxy, err := faultproxy.New(t.Context(), server.Addr(), &faultproxy.Options{RESP: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = proxy.Close() })
	direct := open(t, server.URL(), nil)
	return open(t, fmt.Sprintf("redis://%s", proxy.Addr()), &redisstore.Options{Timeout: timeout}), direct, proxy
}

// What was executed but whose reply was lost is repeated or reconciled without doing anything twice.
func TestLostReplies(t *testing.T) {
	t.Parallel()
	redistest.EachFlavour(t, func(t *testing.T, f redisserver.Flavour) {
		s, direct, proxy := behindProxy(t, f, 500*time.Millisecond)
		register(t, s, "w")
		add(t, s, 1, driver.EnqueueOptions{}) // the server knows the scripts now
		settle(t, s, "w", fetch(t, s, "w", 1))
		lost := int64(0)
		lose := func(key string, call func() error) {
			t.Helper()
			err := proxy.LoseReplies(1, func(args [][]byte) bool {
				return string(args[0]) == "EVALSHA" && slices.ContainsFunc(args, func(a []byte) bool { return strings.HasSuffix(string(a), key) })
			})
			if err != nil {
				t.Fatal(err)
			}
			if err := call(); !errors.Is(err, driver.ErrUnavailable) {
				t.Errorf("got %v, want ErrUnavailable", err)
			}
			if n := proxy.Stats().RepliesLost; n != lost+1 {
				t.Fatalf("%d replies were lost, want %d", n, lost+1)
			}
			lost++
			if err := proxy.Reset(); err != nil {
				t.Fatal(err)
			}
		}
		tasks := benchTasks(10)
		lose(":hold", func() error { _, err := s.Enqueue(t.Context(), tasks, driver.EnqueueOptions{}); return err })
		results, err := direct.Enqueue(t.Context(), tasks, driver.EnqueueOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range results {
			if !r.Existing {
				t.Errorf("task %s was not stored by the call whose reply was lost", r.ID)
			}
		}
		lose(":line/1", func() error {
			_, err := s.Fetch(t.Context(), driver.FetchRequest{Worker: "w", Lease: benchLease, Queues: []string{"default"}, Max: 10})
			return err
		})
		claims, err := direct.Held(t.Context(), "w")
		if err != nil || len(claims) != 10 {
			t.Fatalf("held %d, %v, want the 10 of the fetch whose reply was lost", len(claims), err)
		}
		lose(":kept/C/default", func() error { _, err := s.Settle(t.Context(), "w", completions(claims)); return err })
		settle(t, direct, "w", claims)
		queues, err := direct.Queues(t.Context())
		if err != nil || queues[0].Totals.Completed != 11 || queues[0].Totals.Enqueued != 11 {
			t.Errorf("got %+v, %v", queues, err)
		}
		drivertest.Audit(t, direct)
	})
}

// A connection that is open but dead does not hold up a waiting worker for longer than it asked plus the timeout.
func TestHalfOpenConnectionWhileWaiting(t *testing.T) {
	t.Parallel()
	redistest.EachFlavour(t, func(t *testing.T, f redisserver.Flavour) {
		s, direct, proxy := behindProxy(t, f, 300*time.Millisecond)
		register(t, s, "w")
		if err := proxy.Set(faultproxy.Both, faultproxy.Fault{Mode: faultproxy.Blackhole}); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		err := s.Await(t.Context(), driver.AwaitRequest{Worker: "w", Queues: []string{"default"}, Max: 200 * time.Millisecond})
		if !errors.Is(err, driver.ErrUnavailable) || time.Since(began) > 20*time.Second {
			t.Errorf("got %v after %v, want ErrUnavailable soon", err, time.Since(began))
		}
		if err := proxy.Reset(); err != nil {
			t.Fatal(err)
		}
		add(t, direct, 1, driver.EnqueueOptions{})
		if err := s.Await(t.Context(), driver.AwaitRequest{Worker: "w", Queues: []string{"default"}, Max: time.Minute}); err != nil {
			t.Error(err)
		}
	})
}

func TestTLSAndPasswords(t *testing.T) {
	t.Parallel()
	redistest.EachFlavour(t, func(t *testing.T, f redisserver.Flavour) {
		server := redistest.Start(t, &redisserver.Options{Flavour: f, TLS: true, Password: "correct-horse"})
		url := strings.Split(server.URL(), "?")[0] + "?ca_file=" + server.CAFile()
		s := open(t, url, nil)
		add(t, s, 3, driver.EnqueueOptions{})
		drivertest.Audit(t, s)
		wrong := strings.Replace(url, "correct-horse", "wrong-battery", 1)
		_, err := redisstore.Open(t.Context(), wrong, nil)
		if err == nil || strings.Contains(err.Error(), "wrong-battery") {
			t.Errorf("a wrong password: got %v", err)
		}
	})
}
