package robustness

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/driver/drivertest/history"
	"github.com/waggleq/waggle/internal/redisserver"
	"github.com/waggleq/waggle/internal/redisserver/redistest"
)

// TestSentinelFailover kills or stops the master of a Sentinel set under load. Workers claim again within seconds of the
// failover. At level replicated, with both replicas waited for, no task is lost; at level memory it may be what was
// accepted just before, or by a master that did not know yet that it is none.
func TestSentinelFailover(t *testing.T) {
	t.Parallel()
	for name, f := range map[string]struct {
		flavour redisserver.Flavour
		level   driver.Durability
		fail    func(*redisserver.SentinelSet, context.Context) (*redisserver.Server, error)
	}{
		"kill, replicated": {redisserver.Redis, driver.DurabilityReplicated, (*redisserver.SentinelSet).KillMaster},
		"stop, memory":     {redisserver.Valkey, driver.DurabilityMemory, (*redisserver.SentinelSet).PauseMaster},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			takeTurn(t)
			set := redistest.StartSentinel(t, &redisserver.SentinelOptions{Node: redisserver.Options{Flavour: f.flavour}})
			// Both replicas hold what was accepted before; afterwards the old master is missing, so the second wait is for one.
			url := with(set.URL(), "timeout=3s", "durability="+string(f.level))
			if f.level == driver.DurabilityReplicated {
				url = with(url, "replicas=2")
			}
			c := newRedisCrew(t, url, url)
			c.runs(100)
			at := time.Now()
			old, err := f.fail(set, t.Context())
			must(t, err)
			_, err = set.WaitFailover(t.Context(), old)
			must(t, err)
			t.Logf("the failover took %v", time.Since(at).Round(time.Millisecond))
			bringBack(t, old, f.level)
			c.probe("probe", 2*recovered)
			c.rest()
			c.checkLossy(f.level, at)
		})
	}
}

// bringBack has an old master go on; it finds that it is one no more.
func bringBack(t *testing.T, s *redisserver.Server, level driver.Durability) {
	t.Helper()
	if level == driver.DurabilityMemory {
		must(t, s.Resume())
		return
	}
	must(t, s.Restart(t.Context()))
}

// checkLossy checks a run in which a failover may have lost what only the old master had. Settlements and claims are among
// that at every level: a task whose settlement was lost runs once more, and the checker would take this for a second end.
// So all that is asked at level replicated is that no task is lost and that the store is whole.
func (c *crew) checkLossy(level driver.Durability, failed time.Time) {
	c.Helper()
	opts := &history.Options{AtRest: true, MayLose: []driver.Durability{driver.DurabilityMemory, driver.DurabilityReplicated, ""}}
	c.check(opts)
	lost := c.lost()
	early := 0
	for id, at := range lost {
		switch {
		case level == driver.DurabilityReplicated:
			c.Errorf("%s was accepted at level %s and is lost", id, level)
		case failed.Sub(at) > 2*time.Second:
			c.Errorf("%s was accepted %v before the failure and is lost", id, failed.Sub(at))
		case at.Before(failed):
			early++
		}
	}
	c.Logf("%d accepted tasks lost: %d of them accepted before the failure, the others by the old master after it", len(lost), early)
}

// newClusterCrew starts a cluster and a crew on four shards of it.
func newClusterCrew(t *testing.T, f redisserver.Flavour) (*crew, *redisserver.Cluster) {
	t.Helper()
	takeTurn(t)
	cluster := redistest.StartCluster(t, &redisserver.ClusterOptions{Node: redisserver.Options{Flavour: f}})
	url := with(cluster.URL(), "shards=4", "timeout=3s")
	c := newRedisCrew(t, url, url)
	c.runs(100)
	return c, cluster
}

// TestClusterReshapes hands every master's slots to its replica in turn, and then moves the slot of a shard from one node
// to another, half of its keys here and half there for a while, all under load. Nothing is lost or done twice.
func TestClusterReshapes(t *testing.T) {
	t.Parallel()
	c, cluster := newClusterCrew(t, redisserver.Redis)
	for i := range 3 {
		_, err := cluster.Failover(t.Context(), i)
		must(t, err)
		c.probe(fmt.Sprintf("failover-%d", i), 2*recovered)
	}
	slot, err := cluster.Slot(t.Context(), "{default.1}")
	must(t, err)
	from, err := cluster.Owner(t.Context(), slot)
	must(t, err)
	masters, err := cluster.Masters(t.Context())
	must(t, err)
	to := masters[0]
	if to == from {
		to = masters[1]
	}
	move, err := cluster.BeginMove(t.Context(), slot, from, to)
	must(t, err)
	moved := 0
	for {
		n, err := move.MoveKeys(t.Context(), 3)
		must(t, err)
		if n == 0 {
			break
		}
		moved += n
		must(t, wait(t.Context(), 50*time.Millisecond)) // scripts meet a slot whose keys are in two places
	}
	must(t, move.Finish(t.Context()))
	t.Logf("%d keys of slot %d moved", moved, slot)
	must(t, cluster.WaitOK(t.Context()))
	c.probe("moved", 2*recovered)
	c.end(&history.Options{Recovery: 30 * time.Second})
}

// TestClusterMasterKilled kills a master under load. Claims go on soon after its replica has taken over.
func TestClusterMasterKilled(t *testing.T) {
	t.Parallel()
	c, cluster := newClusterCrew(t, redisserver.Valkey)
	at := time.Now()
	killed, err := cluster.KillMaster(t.Context(), 1)
	must(t, err)
	must(t, cluster.WaitOK(t.Context()))
	t.Logf("the cluster was whole again after %v", time.Since(at).Round(time.Millisecond))
	c.probe("probe", 2*recovered)
	must(t, killed.Restart(t.Context()))
	c.rest()
	c.checkLossy(driver.DurabilityMemory, at)
}
