package redisstore

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/rueidis"

	"github.com/waggleq/waggle/driver"
)

// An old master that comes back is a master, by its own account, until Sentinel finds it: for ten seconds or longer. The
// client library learns of a failover by a message, which may be late or lost, and until then connects to the old address
// again. What is stored or settled there is lost, and one that came back empty looks like a store that lost everything.
// So each new connection to a server asks the sentinels first whether it is the master. Connections that are open need no
// check: Sentinel ends them when it makes a server a replica.

// sentinelRefresh is how often the client library compares its master with Sentinel's, in case that message was lost.
const sentinelRefresh = 5 * time.Second

// toSentinel marks the dialer of connections to sentinels, which the library opens with the same function as the others.
var toSentinel = &net.Resolver{}

// watchers asks the sentinels of a store's URL who the master is.
type watchers struct {
	target  *target
	timeout time.Duration

	mu      sync.Mutex
	clients map[string]rueidis.Client // by address, of those that answered
	closed  bool
}

func newWatchers(t *target, timeout time.Duration) *watchers {
	return &watchers{target: t, timeout: timeout, clients: map[string]rueidis.Client{}}
}

// view is what one sentinel says of the master.
type view struct {
	address string
	epoch   int64 // of the failover that made it the master; the highest is right
	down    bool  // sentinels agree that it is, or are about to replace it
}

// option completes the client library's options for a Sentinel set.
func (w *watchers) option(o *rueidis.ClientOption) {
	o.Sentinel.TopologyRefreshInterval = sentinelRefresh
	o.Sentinel.Dialer = o.Dialer
	o.Sentinel.Dialer.KeepAlive = time.Second // how often an idle connection is asked for life
	o.Sentinel.Dialer.Resolver = toSentinel
}

// permit returns an error for a connection to a server that is not the master.
func (w *watchers) permit(ctx context.Context, address string, d *net.Dialer) error {
	if d.Resolver == toSentinel {
		return nil
	}
	return w.check(ctx, address)
}

// check returns an error if a server is not the master, or if no sentinel can tell.
func (w *watchers) check(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, w.timeout)
	defer cancel()
	views, err := w.ask(ctx)
	if err != nil {
		return err
	}
	newest := slices.MaxFunc(views, func(a, b view) int { return cmp.Compare(a.epoch, b.epoch) }).epoch
	views = slices.DeleteFunc(views, func(v view) bool { return v.epoch < newest })
	switch {
	case !slices.ContainsFunc(views, func(v view) bool { return v.address == address }):
		return driver.Errorf(driver.ErrUnavailable, "%s is no longer the master: Sentinel says that %s is", address, views[0].address)
	case slices.ContainsFunc(views, func(v view) bool { return v.down }):
		return driver.Errorf(driver.ErrUnavailable, "Sentinel considers the master %s down", address)
	}
	return nil
}

// ask returns the views of all sentinels that answer; it does not wait for the slow ones once more than half have.
func (w *watchers) ask(ctx context.Context) ([]view, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type answer struct {
		view view
		err  error
	}
	all := len(w.target.addresses)
	answers := make(chan answer, all)
	for _, a := range w.target.addresses {
		go func() {
			v, err := w.askOne(ctx, a)
			answers <- answer{v, err}
		}()
	}
	var views []view
	var err error
	for range all {
		a := <-answers
		if a.err != nil {
			err = a.err
			continue
		}
		if views = append(views, a.view); len(views) > all/2 {
			break
		}
	}
	if len(views) == 0 {
		return nil, driver.Errorf(driver.ErrUnavailable, "no sentinel knows the master: %v", err)
	}
	return views, nil
}

func (w *watchers) askOne(ctx context.Context, sentinel string) (view, error) {
	c, err := w.client(sentinel)
	if err != nil {
		return view{}, err
	}
	// The first knows the new master a little earlier, the second has the epoch.
	replies := c.DoMulti(ctx, c.B().SentinelGetMasterAddrByName().Master(w.target.master).Build(),
		c.B().Arbitrary("SENTINEL", "MASTER").Args(w.target.master).Build())
	at, err := replies[0].AsStrSlice()
	if err != nil {
		return view{}, err
	}
	facts, err := replies[1].AsStrMap()
	if err != nil {
		return view{}, err
	}
	epoch, err := strconv.ParseInt(facts["config-epoch"], 10, 64)
	if err != nil || len(at) != 2 {
		return view{}, fmt.Errorf("sentinel %s gave an unexpected reply", sentinel)
	}
	flags := strings.Split(facts["flags"], ",")
	return view{
		address: net.JoinHostPort(at[0], at[1]), epoch: epoch,
		// During a failover the address may be the new master's already, the flags are the old one's.
		down: net.JoinHostPort(facts["ip"], facts["port"]) == net.JoinHostPort(at[0], at[1]) &&
			(slices.Contains(flags, "o_down") || slices.Contains(flags, "failover_in_progress")),
	}, nil
}

// client returns a connection to a sentinel, which is kept.
func (w *watchers) client(sentinel string) (rueidis.Client, error) {
	w.mu.Lock()
	c, closed := w.clients[sentinel], w.closed
	w.mu.Unlock()
	if closed {
		return nil, driver.ErrClosed
	}
	if c != nil {
		return c, nil
	}
	o := rueidis.ClientOption{
		InitAddress: []string{sentinel}, TLSConfig: w.target.tls, ForceSingleClient: true, DisableCache: true, DisableRetry: true,
		PipelineMultiplex: -1, ClientName: "waggle", ConnWriteTimeout: w.timeout,
	}
	o.Dialer.Timeout = w.timeout
	o.DialCtxFn = func(ctx context.Context, address string, d *net.Dialer, t *tls.Config) (net.Conn, error) {
		if t == nil {
			return d.DialContext(ctx, "tcp", address)
		}
		return (&tls.Dialer{NetDialer: d, Config: w.target.freshTLS(t)}).DialContext(ctx, "tcp", address)
	}
	c, err := rueidis.NewClient(o)
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed || w.clients[sentinel] != nil { // another was faster
		defer c.Close()
		if w.closed {
			return nil, driver.ErrClosed
		}
		return w.clients[sentinel], nil
	}
	w.clients[sentinel] = c
	return c, nil
}

func (w *watchers) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	for _, c := range w.clients {
		c.Close()
	}
}
