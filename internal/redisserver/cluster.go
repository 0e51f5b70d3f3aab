package redisserver

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	clusterMasters = 3
	clusterSlots   = 16384
)

// ClusterOptions describe a cluster of three masters, with one replica each unless NoReplicas is set. The zero value is
// useful.
type ClusterOptions struct {
	// Node describes every node. ReplicaOf must be unset.
	Node Options
	// NodeTimeout is cluster-node-timeout, after which a silent node counts as failed; 0 means 2 s.
	NodeTimeout time.Duration
	// NoReplicas leaves the replicas out: three servers, for measurements in which replication would count.
	NoReplicas bool
}

func (o *ClusterOptions) withDefaults() *ClusterOptions {
	var filled ClusterOptions
	if o != nil {
		filled = *o
	}
	filled.NodeTimeout = cmp.Or(filled.NodeTimeout, 2*time.Second)
	filled.Node.secret = rand.Text()
	return &filled
}

func (o *ClusterOptions) validate() error {
	if o.Node.ReplicaOf != nil || o.NodeTimeout < time.Millisecond {
		return errors.New("redisserver: the nodes of a cluster can't be replicas of another server, and NodeTimeout must be at least 1 ms")
	}
	return nil
}

// Cluster is a running cluster. All methods may be called concurrently, but changes of the topology (Failover, MoveSlot)
// should be made one at a time.
type Cluster struct {
	// Nodes are all servers; the first three were the first masters. The slice must not be changed.
	Nodes []*Server

	o   *ClusterOptions
	ids map[*Server]string
}

// StartCluster starts the servers, joins them, spreads the slots evenly, and returns when WaitOK holds. The context
// bounds the start only.
func StartCluster(ctx context.Context, o *ClusterOptions) (*Cluster, error) {
	c := &Cluster{o: o.withDefaults(), ids: map[*Server]string{}}
	if err := c.o.validate(); err != nil {
		return nil, err
	}
	c.Nodes = make([]*Server, 2*clusterMasters)
	if c.o.NoReplicas {
		c.Nodes = c.Nodes[:clusterMasters]
	}
	err := each(c.Nodes, func(i int, _ *Server) (err error) {
		c.Nodes[i], err = c.startNode(ctx)
		return err
	})
	if err == nil {
		err = c.join(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

func (c *Cluster) startNode(ctx context.Context) (*Server, error) {
	s, err := prepare(ctx, &c.o.Node, clusterNode)
	if err != nil {
		return nil, err
	}
	s.nodeTimeout = c.o.NodeTimeout
	if err := s.launch(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

// join makes one cluster of fresh nodes.
func (c *Cluster) join(ctx context.Context) error {
	for i, s := range c.Nodes {
		id, err := s.Do(ctx, "CLUSTER", "MYID")
		if err != nil {
			return err
		}
		c.ids[s] = id.Text
		// Distinct epochs from the start spare the nodes the settling of collisions.
		if _, err := s.Do(ctx, "CLUSTER", "SET-CONFIG-EPOCH", strconv.Itoa(i+1)); err != nil {
			return err
		}
		if i < clusterMasters {
			from, to := clusterSlots*i/clusterMasters, clusterSlots*(i+1)/clusterMasters-1
			if _, err := s.Do(ctx, "CLUSTER", "ADDSLOTSRANGE", strconv.Itoa(from), strconv.Itoa(to)); err != nil {
				return err
			}
		}
		// Every pair is introduced: waiting for gossip to spread the news takes seconds.
		for _, other := range c.Nodes[:i] {
			if _, err := s.Do(ctx, "CLUSTER", "MEET", "127.0.0.1", strconv.Itoa(other.port), strconv.Itoa(other.busPort)); err != nil {
				return err
			}
		}
	}
	err := each(c.Nodes[clusterMasters:], func(i int, s *Server) error {
		return await(ctx, "replica to join its master", func(ctx context.Context) error {
			_, err := s.Do(ctx, "CLUSTER", "REPLICATE", c.ids[c.Nodes[i]])
			return err
		})
	})
	if err != nil {
		return err
	}
	return c.WaitOK(ctx)
}

// Addrs returns the addresses of all nodes.
func (c *Cluster) Addrs() []string { return addrs(c.Nodes) }

// URL returns redis+cluster://:password@node,node,…
func (c *Cluster) URL() string {
	u := url.URL{Scheme: "redis+cluster", Host: strings.Join(c.Addrs(), ",")}
	if p := c.o.Node.Password; p != "" {
		u.User = url.UserPassword("", p)
	}
	return u.String()
}

// Close kills all nodes and removes their directories.
func (c *Cluster) Close() error { return closeAll(c.Nodes) }

// WaitOK waits until every node that runs (and is not paused) reports cluster_state:ok, all of them agree which nodes own
// the slots and who replicates whom, every owner is one of them, and every replica is in sync. So after KillMaster it
// returns when the replica has taken over, not before the loss was noticed.
func (c *Cluster) WaitOK(ctx context.Context) error {
	return await(ctx, "cluster ok", c.check)
}

func (c *Cluster) check(ctx context.Context) error {
	up := c.up()
	views := make([]view, len(up))
	err := each(up, func(i int, s *Server) (err error) {
		if views[i], err = c.view(ctx, s); err != nil {
			return err
		}
		info, err := s.Do(ctx, "CLUSTER", "INFO")
		if err != nil {
			return err
		}
		if state := fields(info.Text)["cluster_state"]; state != "ok" {
			return fmt.Errorf("%s: cluster_state:%s", s.Addr(), state)
		}
		if m := views[i].of(s); m.master != nil {
			return s.inSync(ctx, m.master)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return c.agree(up, views)
}

// agree reports whether the views of the nodes are one, and cover all slots and all nodes.
func (c *Cluster) agree(up []*Server, views []view) error {
	if len(up) == 0 {
		return fmt.Errorf("%w: every node of the cluster is down", ErrNotRunning)
	}
	for i, v := range views {
		alive := v.among(up)
		if got, want := alive.String(), views[0].among(up).String(); got != want {
			return fmt.Errorf("%s sees\n%s%s sees\n%s", up[i].Addr(), got, up[0].Addr(), want)
		}
		slots := 0
		for _, m := range alive {
			slots += m.count()
			if m.master == nil && m.count() == 0 {
				return fmt.Errorf("%s sees %s as a master without slots", up[i].Addr(), m.server.Addr())
			}
		}
		if slots != clusterSlots || len(alive) != len(up) {
			return fmt.Errorf("%s sees %d of %d running nodes, which own %d slots", up[i].Addr(), len(alive), len(up), slots)
		}
	}
	return nil
}

// up returns the nodes that should answer.
func (c *Cluster) up() []*Server {
	return slices.DeleteFunc(slices.Clone(c.Nodes), func(s *Server) bool { return s == nil || !s.responsive() })
}
