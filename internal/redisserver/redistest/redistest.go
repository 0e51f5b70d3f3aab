// Package redistest starts real Redis and Valkey servers for a test and removes them at its end. When the test failed,
// the servers' logs are in its output. A missing server program fails the test with the command that installs it; no
// test is ever skipped.
package redistest

import (
	"testing"

	"github.com/waggleq/waggle/internal/redisserver"
)

// Start starts one server. A nil o is the zero value.
func Start(t testing.TB, o *redisserver.Options) *redisserver.Server {
	t.Helper()
	s, err := redisserver.Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	cleanup(t, s.Close, s)
	return s
}

// StartSentinel starts one master, two replicas and three sentinels. A nil o is the zero value.
func StartSentinel(t testing.TB, o *redisserver.SentinelOptions) *redisserver.SentinelSet {
	t.Helper()
	set, err := redisserver.StartSentinel(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	cleanup(t, set.Close, set.Servers()...)
	return set
}

// StartCluster starts a cluster of three masters and three replicas. A nil o is the zero value.
func StartCluster(t testing.TB, o *redisserver.ClusterOptions) *redisserver.Cluster {
	t.Helper()
	c, err := redisserver.StartCluster(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	cleanup(t, c.Close, c.Nodes...)
	return c
}

// EachFlavour runs a parallel subtest for each product that Waggle supports.
func EachFlavour(t *testing.T, test func(t *testing.T, f redisserver.Flavour)) {
	t.Helper()
	for _, f := range redisserver.Flavours() {
		t.Run(string(f), func(t *testing.T) {
			t.Parallel()
			test(t, f)
		})
	}
}

func cleanup(t testing.TB, stop func() error, servers ...*redisserver.Server) {
	t.Cleanup(func() {
		t.Helper()
		if t.Failed() {
			for _, s := range servers {
				t.Logf("log of %s %s on %s (process %d):\n%s", s.Flavour(), s.Version(), s.Addr(), s.PID(), s.Log())
			}
		}
		if err := stop(); err != nil {
			t.Errorf("stopping the servers: %v", err)
		}
	})
}
