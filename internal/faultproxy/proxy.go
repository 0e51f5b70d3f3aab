// Package faultproxy is a TCP proxy that misbehaves on command, for tests of what happens between a client and its
// server: delays, slow links, tiny packets, lost bytes, partitions, resets, and for servers that speak RESP (Redis,
// Valkey) faults of single commands, above all "executed, but the reply was lost".
//
// Guarantees:
//   - Faults can be changed at any time and hold for open connections too.
//   - Close ends every goroutine and connection of the proxy before it returns.
//   - With the same Options.Seed and the same order of bytes the random delays are the same.
//
// A worker whose claim was executed and never answered:
//
//	p, err := faultproxy.New(ctx, server.Addr(), &faultproxy.Options{RESP: true})
//	…
//	defer p.Close()
//	err = p.LoseReplies(1, func(args [][]byte) bool { return string(args[0]) == "EVALSHA" })
package faultproxy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/waggleq/waggle/internal/freeport"
)

// ErrNotRESP is returned by calls that need Options.RESP.
var ErrNotRESP = errors.New("faultproxy: the proxy does not parse commands: set Options.RESP")

// errClosed is the cause of the proxy's context after Close.
var errClosed = errors.New("faultproxy: closed")

// Options configure a proxy. The zero value is useful.
type Options struct {
	// RESP makes the proxy parse commands and replies. The connections must then be plain RESP, without TLS.
	RESP bool
	// Addr is the address to listen on, "127.0.0.2:port"; empty means a free port of 127.0.0.1.
	Addr string
	// Seed is that of the random delays.
	Seed uint64
	// DialTimeout bounds connecting to the target; 0 means 5 s.
	DialTimeout time.Duration
}

// Proxy forwards connections made to Addr to a target. All methods may be called concurrently.
type Proxy struct {
	target string
	o      Options
	port   int
	ctx    context.Context // ends at Close; background work of the proxy hangs on it
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup

	mu       sync.Mutex
	ln       net.Listener // nil while refusing
	faults   [2]Fault
	changed  chan struct{} // closed and replaced when faults change
	hook     func(args [][]byte) Action
	loss     *loss
	replays  []Replayed
	conns    map[*conn]struct{}
	random   *rand.Rand
	greeting [][]byte // commands by which a connection introduced itself last

	accepted, cut, toServer, toClient, lost, commands, repliesLost atomic.Int64
}

// New starts a proxy on a free loopback port in front of target ("host:port"), which need not answer yet. It runs until
// Close, or until ctx ends. A nil o is the zero value.
func New(ctx context.Context, target string, o *Options) (*Proxy, error) {
	if o == nil {
		o = &Options{}
	}
	if _, _, err := net.SplitHostPort(target); err != nil || o.DialTimeout < 0 {
		return nil, errors.Join(fmt.Errorf("faultproxy: target %q must be host:port, and DialTimeout %v not negative", target, o.DialTimeout), err)
	}
	p := &Proxy{target: target, o: *o, changed: make(chan struct{}), conns: map[*conn]struct{}{}}
	p.o.DialTimeout = cmp.Or(p.o.DialTimeout, 5*time.Second)
	p.random = rand.New(rand.NewPCG(o.Seed, 0))
	if err := p.listen(); err != nil {
		return nil, fmt.Errorf("faultproxy: %w", err)
	}
	p.ctx, p.cancel = context.WithCancelCause(ctx)
	ln := p.ln
	p.wg.Go(func() { p.accept(ln) })
	// When the caller's context ends, so do the listener and the connections, also without Close.
	p.wg.Go(func() {
		<-p.ctx.Done()
		p.shut()
	})
	return p, nil
}

// listen opens the address of the options, or a free port.
func (p *Proxy) listen() (err error) {
	if p.o.Addr != "" {
		p.ln, err = net.Listen("tcp", p.o.Addr)
		return err
	}
	for tries := 0; ; tries++ {
		port, err := freeport.Take()
		if err != nil {
			return err
		}
		p.port = port
		if p.ln, err = net.Listen("tcp", p.Addr()); err == nil {
			return nil
		}
		freeport.Release(port)
		if tries == 20 {
			return err
		}
	}
}

// Addr returns the address clients connect to: that of the options, or "127.0.0.1:port".
func (p *Proxy) Addr() string {
	return cmp.Or(p.o.Addr, net.JoinHostPort("127.0.0.1", strconv.Itoa(p.port)))
}

// Close cuts all connections and returns when every goroutine has ended. It may be called more than once.
func (p *Proxy) Close() error {
	p.cancel(errClosed)
	p.wg.Wait()
	freeport.Release(p.port)
	return nil
}

func (p *Proxy) shut() {
	p.mu.Lock()
	if p.ln != nil {
		p.ln.Close()
		p.ln = nil
	}
	p.mu.Unlock()
	p.Cut()
}

// Set changes how a direction, or Both, is treated from now on.
func (p *Proxy) Set(d Direction, f Fault) error {
	if err := f.validate(); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch d {
	case ClientToServer, ServerToClient:
		p.faults[d] = f
	case Both:
		p.faults = [2]Fault{f, f}
	default:
		return fmt.Errorf("faultproxy: unknown direction %d", d)
	}
	close(p.changed)
	p.changed = make(chan struct{})
	return nil
}

// Cut ends all open connections with RST on both sides. New ones are accepted.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		c.reset()
	}
}

// Refuse makes new connections fail with "connection refused" while it is on; open ones stay. Switched off, the proxy
// listens again on the same port.
func (p *Proxy) Refuse(on bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.ctx.Err() != nil:
		return context.Cause(p.ctx)
	case on && p.ln != nil:
		p.ln.Close()
		p.ln = nil
	case !on && p.ln == nil:
		ln, err := net.Listen("tcp", p.Addr())
		if err != nil {
			return fmt.Errorf("faultproxy: listen again: %w", err)
		}
		p.ln = ln
		p.wg.Go(func() { p.accept(ln) })
	}
	return nil
}

// Reset takes back every fault, the hook and pending LoseReplies, and accepts connections again. Open connections stay,
// but those that lost bytes are cut as soon as more bytes come.
func (p *Proxy) Reset() error {
	p.mu.Lock()
	p.hook, p.loss = nil, nil
	p.mu.Unlock()
	return errors.Join(p.Set(Both, Fault{}), p.Refuse(false))
}

// Stats returns the counters.
func (p *Proxy) Stats() Stats {
	p.mu.Lock()
	active := len(p.conns)
	p.mu.Unlock()
	return Stats{
		Accepted: p.accepted.Load(), Active: int64(active), Cut: p.cut.Load(), ToServer: p.toServer.Load(), ToClient: p.toClient.Load(),
		Lost: p.lost.Load(), Commands: p.commands.Load(), RepliesLost: p.repliesLost.Load(),
	}
}

// Await returns once reached says yes to the counters, so that a test can wait until a fault has struck. It returns the
// cause of ctx if that ends first.
func (p *Proxy) Await(ctx context.Context, reached func(Stats) bool) error {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		s := p.Stats()
		if reached(s) {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("faultproxy: counters at %+v: %w", s, context.Cause(ctx))
		}
	}
}

func (p *Proxy) accept(ln net.Listener) {
	for {
		client, err := ln.Accept()
		if err != nil {
			return // closed by Refuse or Close
		}
		p.accepted.Add(1)
		p.wg.Go(func() { p.serve(client) })
	}
}

// fault returns the fault of a direction and a channel that is closed when it changes.
func (p *Proxy) fault(d Direction) (Fault, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.faults[d], p.changed
}

// delay returns how long the next piece of a direction is held back.
func (p *Proxy) delay(d Direction) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	f := p.faults[d]
	if f.Jitter > 0 {
		return f.Delay + time.Duration(p.random.Int64N(int64(f.Jitter)))
	}
	return f.Delay
}
