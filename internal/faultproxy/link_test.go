package faultproxy

import (
	"context"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// recordingConn notes the size of every write.
type recordingConn struct {
	net.Conn
	sizes []int
}

func (r *recordingConn) Write(b []byte) (int, error) {
	r.sizes = append(r.sizes, len(b))
	return len(b), nil
}

func TestSliceWritesSmallPackets(t *testing.T) {
	t.Parallel()
	p := &Proxy{changed: make(chan struct{})}
	dst := &recordingConn{}
	l := newLink(&conn{p: p, ctx: t.Context()}, ClientToServer, dst)
	for _, tt := range []struct {
		slice int
		want  []int
	}{{0, []int{5}}, {1, []int{1, 1, 1, 1, 1}}, {2, []int{2, 2, 1}}, {9, []int{5}}} {
		dst.sizes = nil
		if err := p.Set(ClientToServer, Fault{Slice: tt.slice}); err != nil {
			t.Fatal(err)
		}
		if !l.write([]byte("hello")) {
			t.Fatal("the link ended")
		}
		if diff := cmp.Diff(tt.want, dst.sizes); diff != "" {
			t.Errorf("slice %d (-want +got):\n%s", tt.slice, diff)
		}
	}
	if got := p.Stats().ToServer; got != 20 {
		t.Errorf("counted %d bytes, want 20", got)
	}
}

func TestJitterRepeatsWithItsSeed(t *testing.T) {
	t.Parallel()
	delays := func(seed uint64) []time.Duration {
		p, err := New(context.Background(), "127.0.0.1:1", &Options{Seed: seed})
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		if err := p.Set(Both, Fault{Delay: time.Second, Jitter: time.Second}); err != nil {
			t.Fatal(err)
		}
		var list []time.Duration
		for range 20 {
			d := p.delay(ServerToClient)
			if d < time.Second || d >= 2*time.Second {
				t.Errorf("delay %v is outside 1s to 2s", d)
			}
			list = append(list, d)
		}
		return list
	}
	if a, b := delays(7), delays(7); !slices.Equal(a, b) {
		t.Errorf("seed 7 gave %v, then %v", a, b)
	}
	if a, b := delays(7), delays(8); slices.Equal(a, b) {
		t.Error("seeds 7 and 8 gave the same delays")
	}
}
