package redisserver

import (
	"context"
	"fmt"
	"strconv"
)

const (
	moveBatch   = 100     // keys in one MIGRATE
	moveTimeout = "10000" // ms that one MIGRATE may take
)

// SlotMove is a slot on its way from one master to another. Until Finish, both hold a part of its keys: the old owner
// answers for the keys it still has and sends clients to the new one (ASK) for the others.
type SlotMove struct {
	c        *Cluster
	slot     int
	from, to *Server
}

// MoveSlot moves a slot with all its keys while clients go on using it, and returns how many keys moved. When it returns,
// every master knows the new owner; the replicas learn it within moments, see WaitOK.
func (c *Cluster) MoveSlot(ctx context.Context, slot int, from, to *Server) (keys int, err error) {
	m, err := c.BeginMove(ctx, slot, from, to)
	if err != nil {
		return 0, err
	}
	for {
		n, err := m.MoveKeys(ctx, moveBatch)
		keys += n
		if err != nil {
			return keys, err
		}
		if n == 0 {
			return keys, m.Finish(ctx)
		}
	}
}

// BeginMove marks a slot as moving without moving a key, for tests that need a slot half way. The caller goes on with
// MoveKeys and Finish.
func (c *Cluster) BeginMove(ctx context.Context, slot int, from, to *Server) (*SlotMove, error) {
	if from == to || c.ids[from] == "" || c.ids[to] == "" {
		return nil, fmt.Errorf("redisserver: a slot moves between two different nodes of the cluster")
	}
	m := &SlotMove{c: c, slot: slot, from: from, to: to}
	if err := m.set(ctx, to, "IMPORTING", from); err != nil {
		return nil, err
	}
	return m, m.set(ctx, from, "MIGRATING", to)
}

// MoveKeys moves up to n keys and returns how many it moved; 0 means that none is left.
func (m *SlotMove) MoveKeys(ctx context.Context, n int) (int, error) {
	v, err := m.from.Do(ctx, "CLUSTER", "GETKEYSINSLOT", strconv.Itoa(m.slot), strconv.Itoa(n))
	if err != nil || len(v.Elems) == 0 {
		return 0, err
	}
	args := []string{"MIGRATE", "127.0.0.1", strconv.Itoa(m.to.port), "", "0", moveTimeout}
	if user, password := m.to.control(); user != "" {
		args = append(args, "AUTH2", user, password)
	} else if password != "" {
		args = append(args, "AUTH", password)
	}
	if _, err := m.from.Do(ctx, append(append(args, "KEYS"), v.Strings()...)...); err != nil {
		return 0, fmt.Errorf("redisserver: move keys of slot %d: %w", m.slot, err)
	}
	return len(v.Elems), nil
}

// Finish gives the slot to its new owner. All keys must have been moved.
func (m *SlotMove) Finish(ctx context.Context) error {
	// The new owner first: were the old one told first, a slot without owner would appear if the new one then died.
	if err := m.set(ctx, m.to, "NODE", m.to); err != nil {
		return err
	}
	if err := m.set(ctx, m.from, "NODE", m.to); err != nil {
		return err
	}
	masters, err := m.c.Masters(ctx)
	if err != nil {
		return err
	}
	for _, s := range masters {
		if s != m.to && s != m.from && s.responsive() {
			if err := m.set(ctx, s, "NODE", m.to); err != nil {
				return err
			}
		}
	}
	return nil
}

func (m *SlotMove) set(ctx context.Context, on *Server, state string, node *Server) error {
	_, err := on.Do(ctx, "CLUSTER", "SETSLOT", strconv.Itoa(m.slot), state, m.c.ids[node])
	if err != nil {
		return fmt.Errorf("redisserver: set slot %d to %s on %s: %w", m.slot, state, on.Addr(), err)
	}
	return nil
}
