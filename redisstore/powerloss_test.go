package redisstore_test

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/driver/drivertest"
	"github.com/waggleq/waggle/internal/redisserver"
	"github.com/waggleq/waggle/internal/redisserver/redistest"
	"github.com/waggleq/waggle/redisstore"
)

// A power loss takes what the server has written since its last fsync, in whole or in part: of its log is left anything
// between what it was when the last task at level disk was accepted and what it was in the end. Nothing of that level is
// lost, and no task of the others is there in part.
func TestPowerLossTakesNothingFromTheDisk(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]redisserver.Options{
		"redis, always":               {AOF: redisserver.AOFAlways},
		"valkey, always":              {AOF: redisserver.AOFAlways, Flavour: redisserver.Valkey},
		"valkey, everysec and a wait": {AOF: redisserver.AOFEverySec, Flavour: redisserver.Valkey},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for range 8 {
				losePower(t, o)
			}
		})
	}
}

// losePower does it once, with a server of its own: of one that has lost power before, the log may end in a transaction
// without its end, which the server takes up again at the start after the next. docs/robustness.md tells of that.
func losePower(t *testing.T, o redisserver.Options) {
	t.Helper()
	server := redistest.Start(t, &o)
	s := open(t, server.URL(), nil)
	work(t, s)
	ids := add(t, s, 50, driver.EnqueueOptions{Durability: driver.DurabilityDisk})
	safe := logSize(t, server)
	work(t, s)
	server.Kill()
	cutLog(t, server, safe)
	if err := server.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	s = open(t, server.URL(), nil)
	records, err := s.Get(t.Context(), ids)
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range records {
		if r == nil {
			t.Errorf("task %s is lost", ids[i])
		}
	}
	drivertest.Audit(t, s)
	if err := server.Close(); err != nil {
		t.Error(err)
	}
}

// work does things of which nothing is sure to reach the disk.
func work(t *testing.T, s *redisstore.Store) {
	t.Helper()
	worker := driver.NewID()
	register(t, s, worker)
	for range 5 {
		add(t, s, 100, driver.EnqueueOptions{Durability: driver.DurabilityMemory})
		claims := fetch(t, s, worker, 40)
		settle(t, s, worker, claims[:20])
	}
}

// logOf returns the part of a server's append-only file that it is writing to.
func logOf(t *testing.T, server *redisserver.Server) string {
	t.Helper()
	parts, err := filepath.Glob(filepath.Join(server.Dir(), "appendonlydir", "*.incr.aof"))
	if err != nil || len(parts) != 1 {
		t.Fatalf("the server's log is %v (%v), want one file", parts, err)
	}
	return parts[0]
}

func logSize(t *testing.T, server *redisserver.Server) int64 {
	t.Helper()
	info, err := os.Stat(logOf(t, server))
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}

// cutLog leaves a part of a dead server's log that has at least safe bytes.
func cutLog(t *testing.T, server *redisserver.Server, safe int64) {
	t.Helper()
	end := logSize(t, server)
	if end <= safe {
		t.Fatalf("the log has %d bytes, as many as before: nothing can be lost", end)
	}
	left := safe + rand.Int64N(end-safe)
	t.Logf("%d of %d bytes are left of the log, %d were sure", left, end, safe)
	if err := os.Truncate(logOf(t, server), left); err != nil {
		t.Fatal(err)
	}
}
