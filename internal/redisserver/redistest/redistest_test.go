package redistest_test

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/waggleq/waggle/internal/redisserver"
	"github.com/waggleq/waggle/internal/redisserver/redistest"
)

// recorder is a test whose outcome the real test looks at.
type recorder struct {
	testing.TB
	ctx      context.Context
	fatal    string
	failed   bool
	log      strings.Builder
	cleanups []func()
}

func (r *recorder) Helper()                         {}
func (r *recorder) Context() context.Context        { return r.ctx }
func (r *recorder) Failed() bool                    { return r.failed }
func (r *recorder) Cleanup(f func())                { r.cleanups = append(r.cleanups, f) }
func (r *recorder) Logf(format string, args ...any) { fmt.Fprintf(&r.log, format, args...) }
func (r *recorder) Fatal(args ...any) {
	r.fatal = fmt.Sprint(args...)
	runtime.Goexit()
}

// run runs f as the body of a test, with its cleanups.
func (r *recorder) run(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	<-done
	for _, c := range r.cleanups {
		c()
	}
}

// Not parallel: it changes the environment.
func TestMissingServerIsFatalWithInstallHint(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	starts := map[string]func(testing.TB, redisserver.Flavour){
		"one": func(tb testing.TB, f redisserver.Flavour) {
			redistest.Start(tb, &redisserver.Options{Flavour: f})
		},
		"sentinel": func(tb testing.TB, f redisserver.Flavour) {
			redistest.StartSentinel(tb, &redisserver.SentinelOptions{Node: redisserver.Options{Flavour: f}})
		},
		"cluster": func(tb testing.TB, f redisserver.Flavour) {
			redistest.StartCluster(tb, &redisserver.ClusterOptions{Node: redisserver.Options{Flavour: f}})
		},
	}
	for name, start := range starts {
		for _, f := range redisserver.Flavours() {
			r := &recorder{ctx: t.Context()}
			r.run(func() { start(r, f) })
			if want := "apt-get install " + string(f) + "-server"; !strings.Contains(r.fatal, want) {
				t.Errorf("%s %s: fatal message %q does not say %q", name, f, r.fatal, want)
			}
		}
	}
}

func TestFailedTestShowsTheLog(t *testing.T) {
	t.Parallel()
	for _, failed := range []bool{false, true} {
		r := &recorder{ctx: t.Context(), failed: failed}
		var s *redisserver.Server
		r.run(func() { s = redistest.Start(r, nil) })
		if s == nil {
			t.Fatal(r.fatal)
		}
		if got := strings.Contains(r.log.String(), "Ready to accept connections"); got != failed {
			t.Errorf("failed %v: log shown %v:\n%s", failed, got, r.log.String())
		}
		if s.Running() {
			t.Errorf("failed %v: the server still runs after the test", failed)
		}
	}
}
