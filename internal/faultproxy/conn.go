package faultproxy

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

// conn is one client's connection and the proxy's own to the target.
type conn struct {
	p      *Proxy
	ctx    context.Context // ends when the connection does
	cancel context.CancelFunc
	links  [2]*link
	talk   talk // RESP only

	mu             sync.Mutex
	client, server net.Conn // server is nil until connected
	ended          bool
}

// serve runs a connection until both directions have ended.
func (p *Proxy) serve(client net.Conn) {
	c := &conn{p: p, client: client}
	c.ctx, c.cancel = context.WithCancel(p.ctx)
	p.mu.Lock()
	p.conns[c] = struct{}{} // from now on Cut reaches it
	p.mu.Unlock()
	defer func() {
		c.reset()
		p.mu.Lock()
		delete(p.conns, c)
		p.mu.Unlock()
	}()
	if p.ctx.Err() != nil || c.connect() != nil {
		return
	}
	c.links = [2]*link{newLink(c, ClientToServer, c.server), newLink(c, ServerToClient, client)}
	var wg sync.WaitGroup
	for _, l := range c.links {
		wg.Go(l.run)
	}
	if p.o.RESP {
		wg.Go(c.readCommands)
		wg.Go(c.readReplies)
	} else {
		wg.Go(func() { c.copy(client, c.links[ClientToServer]) })
		wg.Go(func() { c.copy(c.server, c.links[ServerToClient]) })
	}
	wg.Wait()
	c.talk.abandon(p)
	c.finish()
}

// connect dials the target. A partition holds back the connection itself, not only its bytes.
func (c *conn) connect() error {
	if err := c.p.open(c.ctx, ClientToServer); err != nil {
		return err
	}
	server, err := (&net.Dialer{Timeout: c.p.o.DialTimeout}).DialContext(c.ctx, "tcp", c.p.target)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		abort(server)
		return net.ErrClosed
	}
	c.server = server
	return nil
}

// finish closes a connection whose directions have both ended by themselves, in the ordinary way.
func (c *conn) finish() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.ended {
		c.ended = true
		c.client.Close()
		c.server.Close()
		c.cancel()
	}
}

// reset cuts both sides with RST. A connection that has ended is left alone.
func (c *conn) reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		return
	}
	c.ended = true
	c.p.cut.Add(1)
	c.cancel()
	abort(c.client)
	if c.server != nil {
		abort(c.server)
	}
}

// abort closes a connection so that the other end gets RST.
func abort(nc net.Conn) {
	if tcp, ok := nc.(*net.TCPConn); ok {
		tcp.SetLinger(0)
	}
	nc.Close()
}

// copy feeds a link with what arrives from src.
func (c *conn) copy(src net.Conn, l *link) {
	buf := make([]byte, 32<<10)
	for {
		n, err := src.Read(buf)
		if n > 0 && !l.send(bytes.Clone(buf[:n])) {
			return
		}
		if err != nil {
			l.end(err)
			return
		}
	}
}

// open waits until a direction is no longer a black hole.
func (p *Proxy) open(ctx context.Context, d Direction) error {
	for {
		f, changed := p.fault(d)
		if f.Mode != Blackhole {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// link carries one direction of one connection: a queue between the reader of one socket and the writer of the other,
// long enough that a delay does not reduce the throughput.
type link struct {
	c     *conn
	dir   Direction
	dst   net.Conn
	queue chan piece
	torn  bool // bytes were lost; used by run only
}

type piece struct {
	data []byte
	due  time.Time // zero: now
	end  error     // the stream ended so; io.EOF: in the ordinary way
}

func newLink(c *conn, d Direction, dst net.Conn) *link {
	return &link{c: c, dir: d, dst: dst, queue: make(chan piece, 1024)}
}

// send queues bytes, which the link then owns, and reports false if the connection has ended.
func (l *link) send(data []byte) bool { return len(data) == 0 || l.push(piece{data: data}) }

// end queues the end of the stream.
func (l *link) end(err error) { l.push(piece{end: err}) }

func (l *link) push(x piece) bool {
	if d := l.c.p.delay(l.dir); d > 0 {
		x.due = time.Now().Add(d)
	}
	select {
	case l.queue <- x:
		return true
	case <-l.c.ctx.Done():
		return false
	}
}

// run writes the queue to the other side until the stream or the connection ends.
func (l *link) run() {
	for {
		select {
		case x := <-l.queue:
			if !l.wait(time.Until(x.due), x.due.IsZero()) || !l.deliver(x) {
				return
			}
		case <-l.c.ctx.Done():
			return
		}
	}
}

// wait pauses for d unless now, and reports false if the connection ended.
func (l *link) wait(d time.Duration, now bool) bool {
	if now || d <= 0 {
		return true
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-l.c.ctx.Done():
		return false
	}
}

// deliver treats one piece as the fault of the moment says, and reports whether the direction goes on.
func (l *link) deliver(x piece) bool {
	for {
		f, changed := l.c.p.fault(l.dir)
		if f.Mode == Drop && x.end == nil {
			l.c.p.lost.Add(int64(len(x.data)))
			l.torn = true
			return true
		}
		if f.Mode == Pass {
			break
		}
		select {
		case <-changed:
		case <-l.c.ctx.Done():
			return false
		}
	}
	if l.torn || (x.end != nil && !errors.Is(x.end, io.EOF)) {
		l.c.reset()
		return false
	}
	if x.end != nil {
		if tcp, ok := l.dst.(*net.TCPConn); ok {
			tcp.CloseWrite()
		}
		return false
	}
	return l.write(x.data)
}

// write writes data in slices and at the rate the fault asks for, looking at it again for each slice.
func (l *link) write(data []byte) bool {
	for len(data) > 0 {
		f, _ := l.c.p.fault(l.dir)
		n := len(data)
		if f.Slice > 0 {
			n = min(n, f.Slice)
		}
		if f.BytesPerSecond > 0 {
			n = min(n, max(1, f.BytesPerSecond/100)) // a hundredth of a second's worth at a time
			if !l.wait(time.Duration(n)*time.Second/time.Duration(f.BytesPerSecond), false) {
				return false
			}
		}
		if _, err := l.dst.Write(data[:n]); err != nil {
			l.c.reset()
			return false
		}
		l.count(n)
		data = data[n:]
	}
	return true
}

func (l *link) count(n int) {
	if l.dir == ClientToServer {
		l.c.p.toServer.Add(int64(n))
	} else {
		l.c.p.toClient.Add(int64(n))
	}
}
