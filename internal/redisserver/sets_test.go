package redisserver_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/waggleq/waggle/internal/redisserver"
	"github.com/waggleq/waggle/internal/redisserver/redistest"
	"github.com/waggleq/waggle/internal/resp"
)

func TestSentinelFailover(t *testing.T) {
	t.Parallel()
	redistest.EachFlavour(t, func(t *testing.T, f redisserver.Flavour) {
		began := time.Now()
		set := redistest.StartSentinel(t, &redisserver.SentinelOptions{Node: redisserver.Options{Flavour: f, Password: "s3cret", Users: []string{"app on >app ~* +@all"}}})
		t.Logf("started in %v", time.Since(began).Round(time.Millisecond))
		if want := "redis-sentinel://:s3cret@" + strings.Join(set.Addrs(), ",") + "/waggle"; set.URL() != want {
			t.Errorf("URL = %s, want %s", set.URL(), want)
		}
		first, err := set.Master(t.Context())
		if err != nil || first != set.Nodes[0] {
			t.Fatalf("first master = %v, %v", first, err)
		}
		setOnReplicas(t, first, 2, "k", "v")

		began = time.Now()
		if _, err := set.KillMaster(t.Context()); err != nil {
			t.Fatal(err)
		}
		second, err := set.WaitFailover(t.Context(), first)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("failed over in %v", time.Since(began).Round(time.Millisecond))
		if got := do(t, second, "GET", "k").Text; got != "v" {
			t.Errorf("after the failover k = %q", got)
		}
		if err := first.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}

func TestSentinelNoticesAPausedMaster(t *testing.T) {
	t.Parallel()
	set := redistest.StartSentinel(t, &redisserver.SentinelOptions{MasterName: "bees", Node: redisserver.Options{TLS: true}})
	old, err := set.PauseMaster(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	next, err := set.WaitFailover(t.Context(), old)
	if err != nil {
		t.Fatal(err)
	}
	if err := old.Resume(); err != nil {
		t.Fatal(err)
	}
	do(t, next, "SET", "k", "v")
}

func TestClusterKillAndFailover(t *testing.T) {
	t.Parallel()
	redistest.EachFlavour(t, func(t *testing.T, f redisserver.Flavour) {
		began := time.Now()
		c := redistest.StartCluster(t, &redisserver.ClusterOptions{Node: redisserver.Options{Flavour: f, Password: "s3cret"}})
		t.Logf("started in %v", time.Since(began).Round(time.Millisecond))
		masters, err := c.Masters(t.Context())
		if err != nil || len(masters) != 3 {
			t.Fatalf("masters = %v, %v", masters, err)
		}
		for _, m := range masters {
			if replicas, err := c.Replicas(t.Context(), m); err != nil || len(replicas) != 1 {
				t.Fatalf("replicas of %s = %v, %v", m.Addr(), replicas, err)
			}
		}
		slot, err := c.Slot(t.Context(), "k")
		if err != nil {
			t.Fatal(err)
		}
		owner, err := c.Owner(t.Context(), slot)
		if err != nil {
			t.Fatal(err)
		}
		setOnReplicas(t, owner, 1, "k", "v")
		index := func() int {
			for i, m := range masters {
				if m == owner {
					return i
				}
			}
			t.Fatalf("%s is no master", owner.Addr())
			return -1
		}()

		next, err := c.Failover(t.Context(), index)
		if err != nil {
			t.Fatal(err)
		}
		if got := do(t, next, "GET", "k").Text; got != "v" {
			t.Errorf("after the graceful failover k = %q", got)
		}
		if err := c.WaitOK(t.Context()); err != nil {
			t.Fatal(err)
		}
		began = time.Now()
		killed, err := c.KillMaster(t.Context(), index)
		if err != nil || killed != next {
			t.Fatalf("killed %v, %v, want %s", killed, err, next.Addr())
		}
		if err := c.WaitOK(t.Context()); err != nil {
			t.Fatal(err)
		}
		t.Logf("taken over in %v", time.Since(began).Round(time.Millisecond))
		if got := do(t, owner, "GET", "k").Text; got != "v" {
			t.Errorf("after the kill k = %q", got)
		}
		if err := killed.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := c.WaitOK(t.Context()); err != nil {
			t.Fatal(err)
		}
		if replicas, err := c.Replicas(t.Context(), nil); err != nil || len(replicas) != 3 {
			t.Errorf("replicas at the end = %d, %v", len(replicas), err)
		}
	})
}

func TestClusterMovesASlotWithItsKeys(t *testing.T) {
	t.Parallel()
	redistest.EachFlavour(t, func(t *testing.T, f redisserver.Flavour) {
		c := redistest.StartCluster(t, &redisserver.ClusterOptions{Node: redisserver.Options{Flavour: f, TLS: true, Password: "s3cret", Users: []string{"app on >app ~* +@all"}}})
		slot, err := c.Slot(t.Context(), "{bees}")
		if err != nil {
			t.Fatal(err)
		}
		from, err := c.Owner(t.Context(), slot)
		if err != nil {
			t.Fatal(err)
		}
		masters, err := c.Masters(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		to := masters[0]
		if to == from {
			to = masters[1]
		}
		const keys = 250
		var pipeline []byte
		for i := range keys {
			pipeline = resp.AppendCommand(pipeline, "SET", fmt.Sprintf("{bees}:%d", i), fmt.Sprint(i))
		}
		conn, err := from.Dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if err := conn.Send(t.Context(), pipeline); err != nil {
			t.Fatal(err)
		}
		for range keys {
			if v, err := conn.Receive(t.Context()); err != nil || v.Err() != nil {
				t.Fatal(err, v.Err())
			}
		}

		half, err := c.BeginMove(t.Context(), slot, from, to)
		if err != nil {
			t.Fatal(err)
		}
		if n, err := half.MoveKeys(t.Context(), 50); err != nil || n != 50 {
			t.Fatalf("moved %d, %v", n, err)
		}
		if _, err := from.Do(t.Context(), "GET", "{bees}:none"); code(err) != "ASK" {
			t.Errorf("a key that has moved: %v, want ASK", err)
		}
		if n, err := c.MoveSlot(t.Context(), slot, from, to); err != nil || n != keys-50 {
			t.Fatalf("moved %d of the other %d keys, %v", n, keys-50, err)
		}
		if err := c.WaitOK(t.Context()); err != nil {
			t.Fatal(err)
		}
		if owner, err := c.Owner(t.Context(), slot); err != nil || owner != to {
			t.Errorf("owner = %v, %v, want %s", owner, err, to.Addr())
		}
		for i := range keys {
			if got := do(t, to, "GET", fmt.Sprintf("{bees}:%d", i)).Text; got != fmt.Sprint(i) {
				t.Fatalf("key %d = %q after the move", i, got)
			}
		}
		if _, err := from.Do(t.Context(), "GET", "{bees}:1"); code(err) != "MOVED" {
			t.Errorf("the old owner answers %v, want MOVED", err)
		}
		if _, err := c.BeginMove(t.Context(), slot, to, to); err == nil {
			t.Error("a slot moved from a node to itself")
		}
	})
}
