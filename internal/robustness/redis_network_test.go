package robustness

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/waggleq/waggle/driver/drivertest/history"
	"github.com/waggleq/waggle/internal/faultproxy"
	"github.com/waggleq/waggle/internal/redisserver/redistest"
)

// outages are the ways in which the network between a crew and its server can fail.
var outages = map[string]func(p *faultproxy.Proxy) error{
	"all lost":       set(faultproxy.Both, faultproxy.Fault{Mode: faultproxy.Drop}),
	"replies lost":   set(faultproxy.ServerToClient, faultproxy.Fault{Mode: faultproxy.Drop}),
	"requests lost":  set(faultproxy.ClientToServer, faultproxy.Fault{Mode: faultproxy.Drop}),
	"half open":      set(faultproxy.Both, faultproxy.Fault{Mode: faultproxy.Blackhole}),
	"half a second":  set(faultproxy.Both, faultproxy.Fault{Delay: 500 * time.Millisecond}),
	"five seconds":   set(faultproxy.Both, faultproxy.Fault{Delay: 4500 * time.Millisecond, Jitter: time.Second}),
	"a thin line":    set(faultproxy.Both, faultproxy.Fault{BytesPerSecond: 8 << 10}),
	"byte by byte":   set(faultproxy.Both, faultproxy.Fault{Slice: 1}),
	"slow and jumpy": set(faultproxy.Both, faultproxy.Fault{Delay: 50 * time.Millisecond, Jitter: 100 * time.Millisecond}),
	"refused": func(p *faultproxy.Proxy) error {
		err := p.Refuse(true)
		p.Cut()
		return err
	},
}

func set(d faultproxy.Direction, f faultproxy.Fault) func(*faultproxy.Proxy) error {
	return func(p *faultproxy.Proxy) error { return p.Set(d, f) }
}

// newProxiedCrew starts a crew whose connections lead through a proxy.
func newProxiedCrew(t *testing.T) (*crew, *faultproxy.Proxy) {
	t.Helper()
	takeTurn(t)
	server := redistest.Start(t, nil)
	proxy, err := faultproxy.New(t.Context(), server.Addr(), &faultproxy.Options{RESP: true})
	must(t, err)
	t.Cleanup(func() { _ = proxy.Close() })
	through := "redis://" + proxy.Addr() + "?timeout=3s"
	return newRedisCrew(t, server.URL(), through), proxy
}

// TestNetworkOutages cuts the crew off from its server for a tenth of a lease, one lease and three. It goes on afterwards
// without help, and nobody does anything twice that may not be.
func TestNetworkOutages(t *testing.T) {
	t.Parallel()
	for name, begin := range outages {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, proxy := newProxiedCrew(t)
			for _, d := range []time.Duration{lease / 10, lease, 3 * lease} {
				c.runs(20)
				must(t, begin(proxy))
				must(t, wait(t.Context(), d))
				must(t, proxy.Reset())
				c.probe(fmt.Sprintf("probe-%v", d), recovered)
			}
			proxy.Cut() // what is still on its way would come after the end
			c.end(&history.Options{Recovery: 15 * time.Second})
		})
	}
}

// TestCommandsGoWrong has one script call in eight executed without its reply, or not at all, or twice.
func TestCommandsGoWrong(t *testing.T) {
	t.Parallel()
	for name, action := range map[string]func() faultproxy.Action{
		"cut after":  faultproxy.CutAfter,
		"cut before": faultproxy.CutBefore,
		"silence":    faultproxy.GoSilent,
		"loading":    func() faultproxy.Action { return faultproxy.Answer("LOADING the dataset") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, proxy := newProxiedCrew(t)
			c.runs(20)
			struck := 0
			random := rand.New(rand.NewPCG(seed(t), 0))
			choice := make(chan struct{}, 1) // guards random: commands of several connections come at once
			must(t, proxy.OnCommand(func(args [][]byte) faultproxy.Action {
				choice <- struct{}{}
				defer func() { <-choice }()
				if string(args[0]) != "EVALSHA" || random.IntN(8) > 0 {
					return faultproxy.Forward()
				}
				struck++
				return action()
			}))
			c.runs(120)
			must(t, proxy.Reset())
			c.probe("probe", recovered)
			c.end(&history.Options{Recovery: 15 * time.Second})
			if struck == 0 {
				t.Error("no command went wrong")
			}
		})
	}
}

// TestCommandsReplayed has one script call in eight executed twice, as if a middlebox had sent it again: all but claims. A
// claim that is executed twice gives the worker tasks that it is not told of, and keeps them from the others for as long
// as the worker lives.
func TestCommandsReplayed(t *testing.T) {
	t.Parallel()
	c, proxy := newProxiedCrew(t)
	c.runs(20)
	calls := make(chan int, 1)
	calls <- 0
	must(t, proxy.OnCommand(func(args [][]byte) faultproxy.Action {
		if string(args[0]) != "EVALSHA" || isFetch(args) {
			return faultproxy.Forward()
		}
		n := <-calls
		calls <- n + 1
		if n%8 == 0 {
			return faultproxy.Twice()
		}
		return faultproxy.Forward()
	}))
	c.runs(100)
	must(t, proxy.Reset())
	c.probe("probe", recovered)
	c.end(&history.Options{Recovery: 15 * time.Second})
	if n := len(proxy.Replays()); n < 5 {
		t.Errorf("only %d commands were executed twice", n)
	}
}

// isFetch reports whether a script call claims tasks: it names the worker's cancellations and the lines of pairs.
func isFetch(args [][]byte) bool {
	names := func(part string) bool {
		return slices.ContainsFunc(args, func(a []byte) bool { return strings.Contains(string(a), part) })
	}
	return names(":cancel/") && names(":line/")
}
