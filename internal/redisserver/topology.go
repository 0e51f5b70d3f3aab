package redisserver

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// view is what one node believes about the cluster, in the order of Cluster.Nodes.
type view []member

type member struct {
	server *Server
	master *Server // nil for a master
	slots  [][2]int
}

func (m member) count() int {
	n := 0
	for _, r := range m.slots {
		n += r[1] - r[0] + 1
	}
	return n
}

func (m member) owns(slot int) bool {
	return slices.ContainsFunc(m.slots, func(r [2]int) bool { return r[0] <= slot && slot <= r[1] })
}

// first returns the lowest slot of a member, and for one without slots a number behind all slots.
func (m member) first() int {
	if len(m.slots) == 0 {
		return clusterSlots
	}
	return m.slots[0][0]
}

func (v view) among(servers []*Server) view {
	return slices.DeleteFunc(slices.Clone(v), func(m member) bool { return !slices.Contains(servers, m.server) })
}

// of returns what v says about a server; the zero member if it does not know it.
func (v view) of(s *Server) member {
	if i := slices.IndexFunc(v, func(m member) bool { return m.server == s }); i >= 0 {
		return v[i]
	}
	return member{}
}

// String renders a view so that equal views are equal strings.
func (v view) String() string {
	var b strings.Builder
	for _, m := range v {
		fmt.Fprintf(&b, "  %s", m.server.Addr())
		if m.master != nil {
			fmt.Fprintf(&b, " replica of %s", m.master.Addr())
		}
		fmt.Fprintf(&b, " %v\n", m.slots)
	}
	return b.String()
}

// view asks a node for the members it knows. Nodes it is still shaking hands with don't count.
func (c *Cluster) view(ctx context.Context, s *Server) (view, error) {
	reply, err := s.Do(ctx, "CLUSTER", "NODES")
	if err != nil {
		return nil, err
	}
	byID := map[string]*Server{}
	for server, id := range c.ids {
		byID[id] = server
	}
	var v view
	for line := range strings.Lines(reply.Text) {
		f := strings.Fields(line)
		if len(f) < 8 || byID[f[0]] == nil || strings.Contains(f[2], "handshake") {
			continue
		}
		m := member{server: byID[f[0]], master: byID[f[3]]}
		for _, r := range f[8:] {
			if strings.HasPrefix(r, "[") { // a slot that is moving still belongs to where it was
				continue
			}
			from, to, _ := strings.Cut(r, "-")
			low, err := strconv.Atoi(from)
			high, err2 := strconv.Atoi(cmp.Or(to, from))
			if err != nil || err2 != nil {
				return nil, fmt.Errorf("redisserver: CLUSTER NODES of %s has the slot range %q", s.Addr(), r)
			}
			m.slots = append(m.slots, [2]int{low, high})
		}
		v = append(v, m)
	}
	slices.SortFunc(v, func(a, b member) int { return slices.Index(c.Nodes, a.server) - slices.Index(c.Nodes, b.server) })
	return v, nil
}

// current returns the view of the first node that answers.
func (c *Cluster) current(ctx context.Context) (view, error) {
	err := fmt.Errorf("%w: every node of the cluster is down", ErrNotRunning)
	for _, s := range c.up() {
		var v view
		if v, err = c.view(ctx, s); err == nil {
			return v, nil
		}
	}
	return nil, err
}

// Masters returns the owners of slots, by their lowest slot, as one node sees them. Call WaitOK first after a change.
func (c *Cluster) Masters(ctx context.Context) ([]*Server, error) {
	v, err := c.current(ctx)
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(v, func(a, b member) int { return a.first() - b.first() })
	var masters []*Server
	for _, m := range v {
		if m.count() > 0 {
			masters = append(masters, m.server)
		}
	}
	return masters, nil
}

// Replicas returns the replicas of a master that run, or those of all masters if master is nil.
func (c *Cluster) Replicas(ctx context.Context, master *Server) ([]*Server, error) {
	v, err := c.current(ctx)
	if err != nil {
		return nil, err
	}
	var replicas []*Server
	for _, m := range v {
		if m.master != nil && (master == nil || m.master == master) && m.server.responsive() {
			replicas = append(replicas, m.server)
		}
	}
	return replicas, nil
}

// Slot returns the slot of a key.
func (c *Cluster) Slot(ctx context.Context, key string) (int, error) {
	up := c.up()
	if len(up) == 0 {
		return 0, fmt.Errorf("%w: every node of the cluster is down", ErrNotRunning)
	}
	v, err := up[0].Do(ctx, "CLUSTER", "KEYSLOT", key)
	return int(v.Int), err
}

// Owner returns the master that owns a slot, as one node sees it.
func (c *Cluster) Owner(ctx context.Context, slot int) (*Server, error) {
	v, err := c.current(ctx)
	if err != nil {
		return nil, err
	}
	for _, m := range v {
		if m.owns(slot) {
			return m.server, nil
		}
	}
	return nil, fmt.Errorf("redisserver: nobody owns slot %d", slot)
}

// master returns the i-th master.
func (c *Cluster) master(ctx context.Context, i int) (*Server, error) {
	masters, err := c.Masters(ctx)
	if err != nil {
		return nil, err
	}
	if i < 0 || i >= len(masters) {
		return nil, fmt.Errorf("redisserver: there is no master %d, the cluster has %d", i, len(masters))
	}
	return masters[i], nil
}

// KillMaster kills the i-th of Masters with SIGKILL and returns it. WaitOK then waits for its replica to take over.
func (c *Cluster) KillMaster(ctx context.Context, i int) (*Server, error) {
	m, err := c.master(ctx, i)
	if err == nil {
		m.Kill()
	}
	return m, err
}

// Failover hands the slots of the i-th of Masters to its replica without loss, waits until all nodes know it, and returns
// the new master.
func (c *Cluster) Failover(ctx context.Context, i int) (*Server, error) {
	old, err := c.master(ctx, i)
	if err != nil {
		return nil, err
	}
	replicas, err := c.Replicas(ctx, old)
	if err != nil {
		return nil, err
	}
	if len(replicas) == 0 {
		return nil, fmt.Errorf("redisserver: master %s has no replica to fail over to", old.Addr())
	}
	next := replicas[0]
	if _, err := next.Do(ctx, "CLUSTER", "FAILOVER"); err != nil {
		return nil, err
	}
	return next, await(ctx, "failover to "+next.Addr(), func(ctx context.Context) error {
		v, err := next.Do(ctx, "ROLE")
		if err != nil {
			return err
		}
		if v.Elems[0].Text != "master" {
			return fmt.Errorf("its role is %s", v.Elems[0].Text)
		}
		return c.check(ctx)
	})
}
