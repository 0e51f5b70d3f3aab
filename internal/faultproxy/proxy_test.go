package faultproxy_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/waggleq/waggle/internal/faultproxy"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds waits for what must happen; glimpse is how long a test looks for what must not.
const (
	patience = 10 * time.Second
	glimpse  = 30 * time.Millisecond
)

// echo starts a server that sends back what it gets, and returns its address.
func echo(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				io.Copy(c, c)
			})
		}
	})
	t.Cleanup(func() {
		ln.Close()
		wg.Wait()
	})
	return ln.Addr().String()
}

func newProxy(t *testing.T, target string, o *faultproxy.Options) *faultproxy.Proxy {
	t.Helper()
	p, err := faultproxy.New(t.Context(), target, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

func dial(t *testing.T, p *faultproxy.Proxy) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", p.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return c
}

func set(t *testing.T, p *faultproxy.Proxy, d faultproxy.Direction, f faultproxy.Fault) {
	t.Helper()
	if err := p.Set(d, f); err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, c net.Conn, s string) {
	t.Helper()
	if _, err := io.WriteString(c, s); err != nil {
		t.Fatal(err)
	}
}

func expect(t *testing.T, c net.Conn, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if n, err := io.ReadFull(c, got); err != nil || string(got) != want {
		t.Fatalf("read %q, %v, want %q", got[:n], err, want)
	}
}

func await(t *testing.T, p *faultproxy.Proxy, reached func(faultproxy.Stats) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := p.Await(ctx, reached); err != nil {
		t.Fatal(err)
	}
}

func expectSilence(t *testing.T, c net.Conn) {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(glimpse))
	if n, err := c.Read(make([]byte, 1)); n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("read %d bytes, %v, want silence", n, err)
	}
	c.SetReadDeadline(time.Now().Add(patience))
}

func expectReset(t *testing.T, c net.Conn) {
	t.Helper()
	if n, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Fatalf("read %d bytes, %v, want a reset", n, err)
	}
}

func TestPassKeepsBytesAndHalfClose(t *testing.T) {
	t.Parallel()
	p := newProxy(t, echo(t), nil)
	c := dial(t, p)
	sent := bytes.Repeat([]byte("bee "), 1<<18)
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := c.Write(sent); err != nil {
			t.Error(err)
		}
		c.(*net.TCPConn).CloseWrite()
	})
	got, err := io.ReadAll(c)
	wg.Wait()
	if err != nil || !bytes.Equal(got, sent) {
		t.Fatalf("%d of %d bytes came back, %v", len(got), len(sent), err)
	}
	p.Close()
	want := faultproxy.Stats{Accepted: 1, ToServer: int64(len(sent)), ToClient: int64(len(sent))}
	got2 := p.Stats()
	got2.Cut = 0 // Close may cut what was about to close
	if got2 != want {
		t.Errorf("stats %+v, want %+v", got2, want)
	}
}

func TestDelayAndBandwidthTakeTheirTime(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		fault faultproxy.Fault
		bytes int
		least time.Duration
	}{
		"delay":     {faultproxy.Fault{Delay: 60 * time.Millisecond}, 1, 60 * time.Millisecond},
		"bandwidth": {faultproxy.Fault{BytesPerSecond: 10000}, 1000, 95 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newProxy(t, echo(t), nil)
			set(t, p, faultproxy.ServerToClient, tt.fault)
			c := dial(t, p)
			payload := string(bytes.Repeat([]byte("x"), tt.bytes))
			began := time.Now()
			write(t, c, payload)
			expect(t, c, payload)
			if took := time.Since(began); took < tt.least {
				t.Errorf("took %v, want at least %v", took, tt.least)
			}
		})
	}
}

func TestDropLosesBytesForGood(t *testing.T) {
	t.Parallel()
	for _, d := range []faultproxy.Direction{faultproxy.ClientToServer, faultproxy.ServerToClient} {
		p := newProxy(t, echo(t), nil)
		c := dial(t, p)
		write(t, c, "before")
		expect(t, c, "before")
		set(t, p, d, faultproxy.Fault{Mode: faultproxy.Drop})
		write(t, c, "lost")
		await(t, p, func(s faultproxy.Stats) bool { return s.Lost == 4 })
		expectSilence(t, c)
		if err := p.Reset(); err != nil {
			t.Fatal(err)
		}
		write(t, c, "after") // a stream with a hole must not go on
		expectReset(t, c)
		c = dial(t, p)
		write(t, c, "again")
		expect(t, c, "again")
	}
}

func TestBlackholeLosesNothing(t *testing.T) {
	t.Parallel()
	for _, d := range []faultproxy.Direction{faultproxy.ClientToServer, faultproxy.ServerToClient, faultproxy.Both} {
		p := newProxy(t, echo(t), nil)
		open := dial(t, p)
		write(t, open, "before")
		expect(t, open, "before")
		set(t, p, d, faultproxy.Fault{Mode: faultproxy.Blackhole})
		fresh := dial(t, p) // accepted, and no reset
		for _, c := range []net.Conn{open, fresh} {
			write(t, c, "held")
			expectSilence(t, c)
		}
		set(t, p, d, faultproxy.Fault{})
		for _, c := range []net.Conn{open, fresh} {
			expect(t, c, "held")
		}
	}
}

func TestCutResetsBothSides(t *testing.T) {
	t.Parallel()
	p := newProxy(t, echo(t), nil)
	c := dial(t, p)
	write(t, c, "x")
	expect(t, c, "x")
	p.Cut()
	expectReset(t, c)
	if got := p.Stats().Cut; got != 1 {
		t.Errorf("cut %d, want 1", got)
	}
	c = dial(t, p)
	write(t, c, "y")
	expect(t, c, "y")
}

func TestRefuseKeepsOpenConnections(t *testing.T) {
	t.Parallel()
	p := newProxy(t, echo(t), nil)
	c := dial(t, p)
	write(t, c, "x")
	expect(t, c, "x")
	for range 2 { // asking twice changes nothing
		if err := p.Refuse(true); err != nil {
			t.Fatal(err)
		}
	}
	if other, err := net.Dial("tcp", p.Addr()); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("dial = %v, %v, want refused", other, err)
	}
	write(t, c, "y")
	expect(t, c, "y")
	if err := p.Reset(); err != nil {
		t.Fatal(err)
	}
	c = dial(t, p)
	write(t, c, "z")
	expect(t, c, "z")
}

func TestProxyEndsWithItsContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	p, err := faultproxy.New(ctx, echo(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	c := dial(t, p)
	write(t, c, "x")
	expect(t, c, "x")
	cancel()
	expectReset(t, c)
	for range 2 {
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Refuse(false); err == nil {
		t.Error("a closed proxy listens again")
	}
}

func TestCloseEndsConnectionsInEveryFault(t *testing.T) {
	t.Parallel() // what is left running, goleak finds
	for _, f := range []faultproxy.Fault{{Mode: faultproxy.Drop}, {Mode: faultproxy.Blackhole}, {Delay: time.Hour}, {BytesPerSecond: 1}} {
		p := newProxy(t, echo(t), nil)
		set(t, p, faultproxy.Both, f)
		c := dial(t, p)
		write(t, c, "stuck")
		expectSilence(t, c)
		p.Close()
		expectReset(t, c)
	}
}

func TestBadCallsAreRefused(t *testing.T) {
	t.Parallel()
	if _, err := faultproxy.New(t.Context(), "no port", nil); err == nil {
		t.Error("a target without port was accepted")
	}
	p := newProxy(t, "127.0.0.1:1", nil)
	for _, f := range []faultproxy.Fault{{Mode: 9}, {Delay: -1}, {Jitter: -1}, {BytesPerSecond: -1}, {Slice: -1}} {
		if err := p.Set(faultproxy.Both, f); err == nil {
			t.Errorf("%+v was accepted", f)
		}
	}
	if err := p.Set(7, faultproxy.Fault{}); err == nil {
		t.Error("direction 7 was accepted")
	}
	if err := p.OnCommand(nil); !errors.Is(err, faultproxy.ErrNotRESP) {
		t.Errorf("OnCommand = %v", err)
	}
	if err := p.LoseReplies(1, nil); !errors.Is(err, faultproxy.ErrNotRESP) {
		t.Errorf("LoseReplies = %v", err)
	}
	if _, err := p.Replay(t.Context(), nil); !errors.Is(err, faultproxy.ErrNotRESP) {
		t.Errorf("Replay = %v", err)
	}
	if err := newProxy(t, "127.0.0.1:1", &faultproxy.Options{RESP: true}).LoseReplies(0, nil); err == nil {
		t.Error("LoseReplies(0) was accepted")
	}
	// The target refuses; the proxy has accepted by then and resets, which may reach the client while it connects.
	c, err := net.Dial("tcp", p.Addr())
	if err == nil {
		defer c.Close()
		expectReset(t, c)
	} else if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("dial = %v", err)
	}
}
