package robustness

import (
	"cmp"
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/sqlitestore"
)

// engine is a storage engine that several processes can share.
type engine struct {
	name string
	// create returns the URL of a new, empty store that is gone after the test.
	create func(t testing.TB) string
	// open opens the store of a URL. clock, if not nil, is the store's clock as far as this handle can set it.
	open func(ctx context.Context, url string, clock func() time.Time) (driver.Store, error)
	// loop is how long TestKillLoop goes on; 0: the engine has no loop of its own.
	loop time.Duration
	// clocked says that open heeds a clock.
	clocked bool
}

// engines are those the tests run on, by the scheme of their URLs.
var engines = map[string]engine{
	"redis":  {name: "redis", create: createRedis, open: openRedis, loop: 20 * time.Second},
	"sqlite": {name: "sqlite", create: createSQLite, open: openSQLite, loop: 45 * time.Second, clocked: true},
}

// sameEngine are further schemes of an engine.
var sameEngine = map[string]string{"valkey": "redis", "redis-sentinel": "redis", "redis+cluster": "redis"}

func createSQLite(t testing.TB) string { return "sqlite:" + filepath.Join(t.TempDir(), "waggle.db") }

func openSQLite(ctx context.Context, url string, clock func() time.Time) (driver.Store, error) {
	return sqlitestore.Open(ctx, strings.TrimPrefix(url, "sqlite:"), &sqlitestore.Options{Clock: clock})
}

// openStore opens the store of a URL with its engine, and with a clock that is off by shift.
func openStore(ctx context.Context, url string, shift time.Duration) (driver.Store, error) {
	scheme, _, _ := strings.Cut(url, ":")
	e, ok := engines[cmp.Or(sameEngine[scheme], scheme)]
	if !ok {
		return nil, fmt.Errorf("no engine has the URL scheme %q", scheme)
	}
	if shift == 0 {
		return e.open(ctx, url, nil)
	}
	return e.open(ctx, url, func() time.Time { return time.Now().Add(shift) })
}

// onEachEngine runs a test on every engine, in parallel.
func onEachEngine(t *testing.T, run func(t *testing.T, e engine)) {
	t.Helper()
	onEngines(t, func(engine) bool { return true }, run)
}

// onEachClock runs a test on every engine whose clock can be set, in parallel.
func onEachClock(t *testing.T, run func(t *testing.T, e engine)) {
	t.Helper()
	onEngines(t, func(e engine) bool { return e.clocked }, run)
}

func onEngines(t *testing.T, fits func(engine) bool, run func(t *testing.T, e engine)) {
	t.Helper()
	t.Parallel()
	for name, e := range engines {
		if !fits(e) {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			run(t, e)
		})
	}
}
