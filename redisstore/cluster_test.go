package redisstore_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/waggleq/waggle/driver/drivertest"
	"github.com/waggleq/waggle/internal/redisserver"
	"github.com/waggleq/waggle/internal/redisserver/redistest"
)

// clusterEngine is the store on a cluster of one flavour, started for t, with several shards.
func clusterEngine(t *testing.T, f redisserver.Flavour) drivertest.Engine {
	t.Helper()
	c := redistest.StartCluster(t, &redisserver.ClusterOptions{Node: redisserver.Options{Flavour: f}})
	url := c.URL()
	if !strings.Contains(url, "?") {
		url += "?"
	} else {
		url += "&"
	}
	var mu sync.Mutex
	return drivertest.Engine{Name: "redis", Open: func(t testing.TB) *drivertest.Fixture {
		mu.Lock()
		defer mu.Unlock()
		return fixture(t, fmt.Sprintf("%sshards=4&ns=t%d", url, namespaces.Add(1)))
	}}
}

func TestClusterConformance(t *testing.T) {
	t.Parallel()
	redistest.EachFlavour(t, func(t *testing.T, f redisserver.Flavour) { drivertest.Run(t, clusterEngine(t, f)) })
}

func TestClusterSimulation(t *testing.T) {
	t.Parallel()
	redistest.EachFlavour(t, func(t *testing.T, f redisserver.Flavour) { drivertest.RunSimulation(t, clusterEngine(t, f)) })
}
