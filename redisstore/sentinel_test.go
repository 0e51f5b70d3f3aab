package redisstore_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/internal/faultproxy"
	"github.com/waggleq/waggle/internal/redisserver"
	"github.com/waggleq/waggle/internal/redisserver/redistest"
	"github.com/waggleq/waggle/redisstore"
)

// muffled returns a set's URL in which the sentinel that the store listens to is behind a proxy.
func muffled(t *testing.T, set *redisserver.SentinelSet) (string, *faultproxy.Proxy) {
	t.Helper()
	first := set.Addrs()[0]
	p, err := faultproxy.New(t.Context(), first, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return strings.Replace(set.URL(), first, p.Addr(), 1), p
}

// A store that did not hear of a failover, because the sentinel that it listens to fell silent, does not use the old
// master when that comes back, empty and a master by its own account.
func TestAnOldMasterThatComesBackIsNotUsed(t *testing.T) {
	t.Parallel()
	redistest.EachFlavour(t, func(t *testing.T, f redisserver.Flavour) {
		set := redistest.StartSentinel(t, &redisserver.SentinelOptions{Node: redisserver.Options{Flavour: f}})
		url, sentinel := muffled(t, set)
		s := open(t, url, &redisstore.Options{Replicas: 2, Timeout: 2 * time.Second})
		ids := add(t, s, 10, driver.EnqueueOptions{Durability: driver.DurabilityReplicated})
		if err := sentinel.Set(faultproxy.Both, faultproxy.Fault{Mode: faultproxy.Blackhole}); err != nil {
			t.Fatal(err)
		}
		old, err := set.KillMaster(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := set.WaitFailover(t.Context(), old); err != nil {
			t.Fatal(err)
		}
		if err := old.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		unavailable(t, "Get", func() error {
			records, err := s.Get(t.Context(), ids)
			if err == nil && slices.Contains(records, nil) {
				t.Error("a task is lost")
			}
			return err
		})
		unavailable(t, "Enqueue", func() error {
			_, err := s.Enqueue(t.Context(), benchTasks(1), driver.EnqueueOptions{})
			return err
		})
	})
}

// unavailable is eventually for what may fail with [driver.ErrUnavailable] until then, and with nothing else.
func unavailable(t *testing.T, what string, try func() error) {
	t.Helper()
	eventually(t, what, func() error {
		err := try()
		if err != nil && !errors.Is(err, driver.ErrUnavailable) {
			t.Errorf("%s: %v, want ErrUnavailable until the new master is found", what, err)
		}
		return err
	})
}

// A store needs one sentinel that answers, and tells when there is none.
func TestSentinelsThatDoNotAnswer(t *testing.T) {
	t.Parallel()
	set := redistest.StartSentinel(t, nil)
	s := open(t, set.URL(), &redisstore.Options{Timeout: 2 * time.Second})
	for _, sentinel := range set.Sentinels[1:] {
		sentinel.Kill()
	}
	master := set.Nodes[0]
	disconnect := func() {
		if _, err := master.Do(t.Context(), "CLIENT", "KILL", "TYPE", "normal"); err != nil {
			t.Fatal(err)
		}
	}
	disconnect()
	eventually(t, "Enqueue with one sentinel", func() error {
		_, err := s.Enqueue(t.Context(), benchTasks(1), driver.EnqueueOptions{})
		return err
	})
	set.Sentinels[0].Kill()
	disconnect()
	eventually(t, "the error that no sentinel answers", func() error {
		_, err := s.Enqueue(t.Context(), benchTasks(1), driver.EnqueueOptions{})
		if !errors.Is(err, driver.ErrUnavailable) || !strings.Contains(err.Error(), "no sentinel") {
			return errors.Join(errors.New("not refused yet"), err)
		}
		return nil
	})
}
