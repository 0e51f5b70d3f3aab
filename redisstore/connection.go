package redisstore

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/redis/rueidis"

	"github.com/waggleq/waggle/driver"
)

// Scripts that carry many tasks are sent on a connection that the calling goroutine has for itself: it writes the request
// and reads the reply with no other goroutine between, which is what a call costs least. Nobody reads from such a
// connection while it is idle, so nobody learns that the server has closed it. Therefore each is looked at before it is
// written to, and a call that finds its connection ended is made again on another: nothing was sent, so nothing can have
// happened.

// errNotSent is the error of a write to a connection that the server had ended before. What was to be written is at least
// not complete, so the server can't have executed it.
var errNotSent = driver.Errorf(driver.ErrUnavailable, "the server has ended the connection")

// mostTries is on how many connections a call is tried at most: all that a client may keep, and a new one.
const mostTries = poolSize + 1

// repeated makes a call again, on another connection, as long as nothing was sent.
func repeated(ctx context.Context, call func() error) error {
	err := call()
	for tries := 1; tries < mostTries && errors.Is(err, errNotSent) && ctx.Err() == nil; tries++ {
		err = call()
	}
	return err
}

// conn is a connection to a server.
type conn struct {
	net.Conn
	raw  syscall.RawConn // what is below it; nil where that can't be looked at
	left func()
	read atomic.Bool // the server has said something
}

// refusal is what a server says that ends a new connection instead of answering.
type refusal struct{ words string }

func (r *refusal) Error() string { return r.words }

const tooManyClients = "ERR max number of clients reached"

// Read implements net.Conn. It returns a refusal where the server has too many clients.
func (c *conn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 && c.read.CompareAndSwap(false, true) && strings.HasPrefix(string(b[:n]), "-"+tooManyClients) {
		return 0, &refusal{tooManyClients}
	}
	return n, err
}

// whyEnded returns why nothing can be written: what the server said, if that was the first that it ever did.
func (c *conn) whyEnded(otherwise error) error {
	if !c.read.CompareAndSwap(false, true) {
		return otherwise // others may be reading
	}
	var b [512]byte
	_ = c.SetReadDeadline(time.Now().Add(time.Second)) // it has hung up: what it said is here
	n, _ := c.Conn.Read(b[:])
	line, _, _ := strings.Cut(string(b[:n]), "\r\n")
	if words, ok := strings.CutPrefix(line, "-"); ok {
		return &refusal{words}
	}
	return otherwise
}

// Write implements net.Conn. It returns errNotSent if the server has ended the connection, and a refusal if it never took
// the client.
func (c *conn) Write(b []byte) (int, error) {
	if c.raw != nil && ended(c.raw) {
		return 0, c.whyEnded(errNotSent)
	}
	return c.Conn.Write(b)
}

// Close implements net.Conn.
func (c *conn) Close() error {
	c.left()
	return c.Conn.Close()
}

// connections are the open connections of a store's clients. Calls on them return when the store is closed.
type connections struct {
	mu     sync.Mutex
	open   map[*conn]struct{}
	closed bool
}

// keep notes a connection, which is over the socket below.
func (cs *connections) keep(nc, below net.Conn) net.Conn {
	c := &conn{Conn: nc}
	if sc, ok := below.(syscall.Conn); ok {
		c.raw, _ = sc.SyscallConn() // without it the connection is written to unseen
	}
	c.left = func() {
		cs.mu.Lock()
		delete(cs.open, c)
		cs.mu.Unlock()
	}
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if cs.closed {
		nc.Close()
		return c
	}
	if cs.open == nil {
		cs.open = map[*conn]struct{}{}
	}
	cs.open[c] = struct{}{}
	return c
}

// close ends all connections.
func (cs *connections) close() {
	cs.mu.Lock()
	cs.closed = true
	open := cs.open
	cs.open = nil
	cs.mu.Unlock()
	for c := range open {
		c.Conn.Close()
	}
}

// option has a client's connections to servers made and kept here, with what the target's files hold by then. permit, if
// there is one, is asked before each.
func (cs *connections) option(o *rueidis.ClientOption, to *target, permit func(ctx context.Context, address string, d *net.Dialer) error) {
	o.DialCtxFn = func(ctx context.Context, address string, d *net.Dialer, t *tls.Config) (net.Conn, error) {
		if permit != nil {
			if err := permit(ctx, address, d); err != nil {
				return nil, err
			}
		}
		below, err := d.DialContext(ctx, to.network(), address)
		if err != nil {
			return nil, err
		}
		if t == nil {
			return toWhom(d, cs.keep(below, below)), nil
		}
		secure, err := handshake(ctx, below, d.Timeout, to.freshTLS(t), address)
		if err != nil {
			below.Close()
			return nil, err
		}
		return toWhom(d, cs.keep(secure, below)), nil
	}
}

// handshake begins TLS on a connection, as tls.Dialer does.
func handshake(ctx context.Context, below net.Conn, timeout time.Duration, t *tls.Config, address string) (net.Conn, error) {
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	if t.ServerName == "" {
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			return nil, err
		}
		t = t.Clone()
		t.ServerName = host
	}
	secure := tls.Client(below, t)
	return secure, secure.HandshakeContext(ctx)
}
