package robustness

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/waggleq/waggle/driver/drivertest/history"
	"github.com/waggleq/waggle/internal/faultproxy"
	"github.com/waggleq/waggle/internal/redisserver/redistest"
)

// nameMove is how a server's name moves to another address.
type nameMove struct {
	silent  bool          // connections to the old address stay open and nothing answers; else they are cut
	trouble nameTrouble   // of the name, before it has its new address
	outage  time.Duration // for how long
}

// TestNameMoves has the name of a server lead to another address after the old one went away, with or without a word,
// and after the name could not be resolved for a while. The crew goes on by itself.
func TestNameMoves(t *testing.T) {
	t.Parallel()
	for name, m := range map[string]nameMove{
		"silently":     {silent: true},
		"failure":      {trouble: nameFails, outage: lease * 3 / 2},
		"no-such-name": {trouble: nameGone, outage: lease / 2},
		"silence":      {silent: true, trouble: nameSilent, outage: lease * 3 / 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m.run(t, name+".store.test")
		})
	}
}

func (m nameMove) run(t *testing.T, host string) {
	takeTurn(t)
	server := redistest.Start(t, nil)
	_, port, err := net.SplitHostPort(server.Addr())
	must(t, err)
	serve := func(ip string) *faultproxy.Proxy {
		t.Helper()
		p, err := faultproxy.New(t.Context(), server.Addr(), &faultproxy.Options{Addr: net.JoinHostPort(ip, port)})
		must(t, err)
		t.Cleanup(func() { _ = p.Close() })
		names.set(host, ip, noTrouble)
		return p
	}
	old := serve("127.0.0.2")
	c := newRedisCrew(t, server.URL(), "redis://"+net.JoinHostPort(host, port)+"?timeout=2s")
	c.runs(20)
	names.set(host, "127.0.0.2", m.trouble)
	if m.silent {
		must(t, old.Set(faultproxy.Both, faultproxy.Fault{Mode: faultproxy.Blackhole}))
	} else {
		must(t, old.Close())
	}
	must(t, wait(t.Context(), m.outage))
	serve("127.0.0.3")
	awaitName(t, net.JoinHostPort(host, port))
	c.probe("probe", recovered)
	c.end(&history.Options{Recovery: 15 * time.Second})
}

// awaitName connects to a name until that succeeds. Lookups of one name that are made at the same time share one answer, so
// that who asks after the name has come back may still be told what was right before. After a success none of those is left.
func awaitName(t *testing.T, address string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		c, err := new(net.Dialer).DialContext(ctx, "tcp", address)
		if err == nil {
			_ = c.Close()
			return
		}
		must(t, wait(ctx, time.Millisecond))
	}
}
