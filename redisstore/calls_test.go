package redisstore_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/internal/redisserver"
	"github.com/waggleq/waggle/internal/redisserver/redistest"
	"github.com/waggleq/waggle/redisstore"
)

// TestKeysCostFewCalls counts the commands that scripts call for a task, from enqueue to settlement, in batches: a key that is
// the task's own costs next to none more than no key, and one with others about one, the look at who comes next.
func TestKeysCostFewCalls(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, &redisserver.Options{Flavour: redisserver.Redis})
	const n, batch = 2000, 100
	round := func(name string, keys int) float64 {
		s := open(t, server.URL()+"?ns="+name, &redisstore.Options{MaxEvents: -1})
		if err := s.Register(t.Context(), driver.WorkerInfo{ID: "w"}, benchLease); err != nil {
			t.Fatal(err)
		}
		before := commands(t, server)
		for i := 0; i < n; i += batch {
			list := make([]*driver.Task, batch)
			for j := range list {
				list[j] = &driver.Task{Type: "t"}
				if keys > 0 {
					list[j].Key = fmt.Sprint("key-", (i+j)%keys)
				}
			}
			if _, err := s.Enqueue(t.Context(), list, driver.EnqueueOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		for done := 0; done < n; {
			claims := fetch(t, s, "w", batch)
			settle(t, s, "w", claims)
			done += len(claims)
		}
		return float64(commands(t, server)-before) / n
	}
	plain := round("plain", 0)
	for name, c := range map[string]struct {
		keys int
		more float64
	}{"a key each": {n, 0.3}, "keys with four tasks": {n / 4, 1.4}} {
		if got := round(strings.ReplaceAll(name, " ", "-"), c.keys); got > plain+c.more {
			t.Errorf("%s: %.2f commands a task, without keys %.2f: want at most %.1f more", name, got, plain, c.more)
		}
	}
}

// With a new key for each task no start moves the virtual time on, and yet what is kept of them is bounded.
func TestKeysThatNeverComeBackAreForgotten(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, &redisserver.Options{Flavour: redisserver.Redis})
	s := open(t, server.URL()+"?ns=once", &redisstore.Options{MaxEvents: -1})
	register(t, s, "w")
	const batch = 1000
	for i := 0; i < 4*driver.KeysResting; i += batch {
		list := make([]*driver.Task, batch)
		for j := range list {
			list[j] = &driver.Task{Type: "t", Key: fmt.Sprint("key-", i+j)}
		}
		if _, err := s.Enqueue(t.Context(), list, driver.EnqueueOptions{}); err != nil {
			t.Fatal(err)
		}
		for done := 0; done < batch-1; { // so that one waits at any time
			claims := fetch(t, s, "w", min(batch-1-done, 100))
			settle(t, s, "w", claims)
			done += len(claims)
		}
		keys, err := server.Do(t.Context(), "KEYS", "*:rest/default")
		if err != nil {
			t.Fatal(err)
		}
		kept := int64(0)
		for _, key := range keys.Elems {
			n, err := server.Do(t.Context(), "ZCARD", key.Text)
			if err != nil {
				t.Fatal(err)
			}
			kept += n.Int
		}
		if kept > 2*driver.KeysResting || i > 0 && kept == 0 {
			t.Fatalf("after %d keys that were used once %d are kept", i+batch, kept)
		}
	}
}

// commands is how many commands a server has called.
func commands(t *testing.T, server *redisserver.Server) int {
	t.Helper()
	v, err := server.Do(t.Context(), "INFO", "commandstats")
	if err != nil {
		t.Fatal(err)
	}
	sum := 0
	for line := range strings.Lines(v.Text) {
		_, calls, _ := strings.Cut(line, ":calls=")
		n, _, _ := strings.Cut(calls, ",")
		if count, err := strconv.Atoi(n); err == nil {
			sum += count
		}
	}
	return sum
}
