package cli

import (
	"context"
	"time"

	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/internal/redisserver"
)

const (
	demoClusterTasks = 60 // so that every shard holds some
	// demoClusterLease is longer than a Cluster is without a master.
	demoClusterLease = 8 * time.Second
)

// demoCluster starts the servers of demo --cluster and makes them the store; nil without --cluster.
func (a *app) demoCluster(ctx context.Context, f *demoFlags) (*redisserver.Cluster, error) {
	if !f.cluster {
		return nil, nil
	}
	if a.store != "" {
		return nil, driver.Invalidf("--cluster starts servers of its own: leave out --store")
	}
	for _, flavour := range redisserver.Flavours() {
		if _, err := redisserver.Find(ctx, flavour); err != nil {
			continue
		}
		c, err := redisserver.StartCluster(ctx, &redisserver.ClusterOptions{Node: redisserver.Options{Flavour: flavour}})
		if err != nil {
			return nil, driver.Errorf(driver.ErrUnavailable, "can't start a cluster: %w", err)
		}
		a.store = c.URL()
		return c, nil
	}
	return nil, failf("--cluster needs redis-server (7.0 or newer) or valkey-server (8.0 or newer): apt-get install redis-server")
}

// killMaster kills a master of the cluster, if the demo has one.
func (d *demo) killMaster() error {
	if d.cluster == nil {
		return nil
	}
	m, err := d.cluster.KillMaster(context.Background(), 0)
	if err != nil {
		return failf("can't kill a master: %w", err)
	}
	d.story.event("cluster", "%s (pid %d), the master of a third of the slots", d.story.paint(red, m.Addr()+" is killed with SIGKILL"), m.PID())
	return nil
}
