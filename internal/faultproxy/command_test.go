package faultproxy_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/waggleq/waggle/internal/faultproxy"
	"github.com/waggleq/waggle/internal/redisserver"
	"github.com/waggleq/waggle/internal/redisserver/redistest"
	"github.com/waggleq/waggle/internal/resp"
)

const password = "s3cret"

// pair starts a server of each flavour with a password and a RESP proxy in front of it.
func pair(t *testing.T, test func(t *testing.T, s *redisserver.Server, p *faultproxy.Proxy)) {
	t.Helper()
	redistest.EachFlavour(t, func(t *testing.T, f redisserver.Flavour) {
		s := redistest.Start(t, &redisserver.Options{Flavour: f, Password: password})
		test(t, s, newProxy(t, s.Addr(), &faultproxy.Options{RESP: true}))
	})
}

func client(t *testing.T, p *faultproxy.Proxy) *resp.Client {
	t.Helper()
	c, err := resp.Dial(t.Context(), p.Addr(), &resp.DialOptions{Password: password})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// on treats commands of one name with an action, and all others as usual.
func on(t *testing.T, p *faultproxy.Proxy, name string, a faultproxy.Action) {
	t.Helper()
	err := p.OnCommand(func(args [][]byte) faultproxy.Action {
		if strings.EqualFold(string(args[0]), name) {
			return a
		}
		return faultproxy.Forward()
	})
	if err != nil {
		t.Fatal(err)
	}
}

// pipeline sends commands, given as lines of words, in one write.
func pipeline(t *testing.T, c *resp.Client, lines ...string) {
	t.Helper()
	var raw []byte
	for _, l := range lines {
		raw = resp.AppendCommand(raw, strings.Fields(l)...)
	}
	if err := c.Send(t.Context(), raw); err != nil {
		t.Fatal(err)
	}
}

// replies reads one frame for each wanted text; members of arrays and pushes are joined by spaces.
func replies(t *testing.T, c *resp.Client, want ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var got []string
	for range want {
		v, err := c.Receive(ctx)
		if err != nil {
			t.Fatalf("after %q: %v", got, err)
		}
		text := v.Text
		if len(v.Elems) > 0 {
			text = strings.Join(v.Strings(), " ")
		}
		got = append(got, text)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("replies (-want +got):\n%s", diff)
	}
}

func silence(t *testing.T, c *resp.Client) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), glimpse)
	defer cancel()
	if v, err := c.Receive(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("received %+v, %v, want silence", v, err)
	}
}

func gone(t *testing.T, c *resp.Client) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if v, err := c.Receive(ctx); !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, io.EOF) {
		t.Fatalf("received %+v, %v, want a cut connection", v, err)
	}
}

// value is what the server itself holds, past the proxy.
func value(t *testing.T, s *redisserver.Server, key string) string {
	t.Helper()
	v, err := s.Do(t.Context(), "GET", key)
	if err != nil {
		t.Fatal(err)
	}
	return v.Text
}

func TestActionsOnOneCommandOfAPipeline(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		action faultproxy.Action
		stored string
		check  func(*testing.T, *resp.Client)
	}{
		"Forward":      {faultproxy.Forward(), "1", func(t *testing.T, c *resp.Client) { replies(t, c, "a", "1", "b") }},
		"SwallowReply": {faultproxy.SwallowReply(), "1", func(t *testing.T, c *resp.Client) { replies(t, c, "a", "b"); silence(t, c) }},
		"GoSilent":     {faultproxy.GoSilent(), "1", func(t *testing.T, c *resp.Client) { replies(t, c, "a"); silence(t, c) }},
		"CutAfter":     {faultproxy.CutAfter(), "1", gone1},
		"CutBefore":    {faultproxy.CutBefore(), "", gone1},
		"Vanish":       {faultproxy.Vanish(), "", func(t *testing.T, c *resp.Client) { replies(t, c, "a"); silence(t, c) }},
		"Twice":        {faultproxy.Twice(), "2", func(t *testing.T, c *resp.Client) { replies(t, c, "a", "1", "b") }},
		"Answer": {faultproxy.Answer("LOADING not yet"), "", func(t *testing.T, c *resp.Client) {
			replies(t, c, "a", "LOADING not yet", "b")
		}},
	}
	pair(t, func(t *testing.T, s *redisserver.Server, _ *faultproxy.Proxy) {
		for name, tt := range tests {
			p := newProxy(t, s.Addr(), &faultproxy.Options{RESP: true})
			c := client(t, p)
			on(t, p, "INCR", tt.action)
			pipeline(t, c, "ECHO a", "INCR "+name, "ECHO b")
			tt.check(t, c)
			if got := value(t, s, name); got != tt.stored {
				t.Errorf("%s: the server holds %q, want %q", name, got, tt.stored)
			}
			if name != "Twice" {
				continue
			}
			r := p.Replays()
			if len(r) != 1 || r[0].Err != nil || r[0].First.Int != 1 || r[0].Second.Int != 2 || string(r[0].Args[0]) != "INCR" {
				t.Errorf("replays = %+v", r)
			}
		}
	})
}

// gone1 accepts the reply of the command before the cut, which RST may or may not overtake.
func gone1(t *testing.T, c *resp.Client) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if v, err := c.Receive(ctx); err == nil && v.Text == "a" {
		gone(t, c)
	} else if err == nil {
		t.Fatalf("received %+v", v)
	}
}

func TestLoseRepliesExecutesAndCuts(t *testing.T) {
	t.Parallel()
	pair(t, func(t *testing.T, s *redisserver.Server, p *faultproxy.Proxy) {
		scripts := func(args [][]byte) bool { return string(args[0]) == "EVAL" }
		a, b := client(t, p), client(t, p)
		if err := p.LoseReplies(2, scripts); err != nil {
			t.Fatal(err)
		}
		eval := "EVAL return{redis.call('incr',KEYS[1])} 1 "
		pipeline(t, a, "ECHO a", eval+"k", "ECHO late")
		replies(t, a, "a")
		await(t, p, func(s faultproxy.Stats) bool { return s.RepliesLost == 2 })
		silence(t, a) // one of two: executed, silent, not cut yet
		pipeline(t, b, eval+"k")
		gone(t, a)
		gone(t, b)
		if got := value(t, s, "k"); got != "2" {
			t.Errorf("k = %q: both scripts must have been executed", got)
		}
		c := client(t, p)
		pipeline(t, c, eval+"k") // the third is none of the two
		replies(t, c, "3")
		if st := p.Stats(); st.RepliesLost != 3 || st.Cut != 2 {
			t.Errorf("stats %+v, want 3 replies lost and 2 connections cut", st)
		}
	})
}

func TestRESP3PushesStayInStep(t *testing.T) {
	t.Parallel()
	pair(t, func(t *testing.T, s *redisserver.Server, p *faultproxy.Proxy) {
		c := client(t, p)
		if _, err := c.Do(t.Context(), "HELLO", "3"); err != nil {
			t.Fatal(err)
		}
		on(t, p, "GET", faultproxy.SwallowReply())
		pipeline(t, c, "SET k v", "CLIENT TRACKING ON", "SUBSCRIBE x y", "GET k", "ECHO 1")
		replies(t, c, "OK", "OK", "subscribe x 1", "subscribe y 2", "1")
		for _, args := range [][]string{{"PUBLISH", "x", "hello"}, {"SET", "k", "new"}} {
			if _, err := s.Do(t.Context(), args...); err != nil {
				t.Fatal(err)
			}
		}
		replies(t, c, "message x hello", "invalidate ")
		pipeline(t, c, "GET k", "HGETALL none", "UNSUBSCRIBE x", "UNSUBSCRIBE", "ECHO 2")
		replies(t, c, "", "unsubscribe x 1", "unsubscribe y 0", "2")
	})
}

func TestRESP2MessagesAndMutedRepliesStayInStep(t *testing.T) {
	t.Parallel()
	pair(t, func(t *testing.T, s *redisserver.Server, p *faultproxy.Proxy) {
		on(t, p, "GET", faultproxy.SwallowReply())
		c := client(t, p)
		pipeline(t, c, "CLIENT REPLY SKIP", "SET k 1", "GET k", "ECHO 1", "CLIENT REPLY OFF", "SET k 2", "GET k", "CLIENT REPLY ON", "GET k", "ECHO 2")
		replies(t, c, "1", "OK", "2")
		if got := value(t, s, "k"); got != "2" {
			t.Errorf("k = %q", got)
		}
		on(t, p, "PING", faultproxy.SwallowReply())
		pipeline(t, c, "SUBSCRIBE x")
		replies(t, c, "subscribe x 1")
		for i := range 3 {
			if _, err := s.Do(t.Context(), "PUBLISH", "x", fmt.Sprint(i)); err != nil {
				t.Fatal(err)
			}
		}
		pipeline(t, c, "PING", "UNSUBSCRIBE x", "ECHO 3", "RPUSH l message", "LRANGE l 0 -1", "PING", "ECHO 4")
		replies(t, c, "message x 0", "message x 1", "message x 2", "unsubscribe x 0", "3", "1", "message", "4")
	})
}

func TestFramesSurviveOneBytePackets(t *testing.T) {
	t.Parallel()
	pair(t, func(t *testing.T, s *redisserver.Server, p *faultproxy.Proxy) {
		set(t, p, faultproxy.Both, faultproxy.Fault{Slice: 1, Delay: time.Millisecond, Jitter: time.Millisecond})
		on(t, p, "INCR", faultproxy.SwallowReply())
		c := client(t, p)
		var lines, want []string
		for i := range 200 {
			lines = append(lines, "INCR k", fmt.Sprintf("ECHO %d", i))
			want = append(want, fmt.Sprint(i))
		}
		pipeline(t, c, lines...)
		replies(t, c, want...)
		if got := value(t, s, "k"); got != "200" {
			t.Errorf("k = %q", got)
		}
	})
}

func TestReplayOfARecordedCommand(t *testing.T) {
	t.Parallel()
	pair(t, func(t *testing.T, s *redisserver.Server, p *faultproxy.Proxy) {
		var recorded atomic.Pointer[[][]byte]
		err := p.OnCommand(func(args [][]byte) faultproxy.Action {
			if string(args[0]) == "SETNX" {
				recorded.Store(&args)
			}
			return faultproxy.Forward()
		})
		if err != nil {
			t.Fatal(err)
		}
		c := client(t, p)
		pipeline(t, c, "SELECT 3", "SETNX k v")
		replies(t, c, "OK", "1")
		set(t, p, faultproxy.Both, faultproxy.Fault{Mode: faultproxy.Blackhole})
		// The same database, with the password, past the partition: the key is there, so nothing is set again.
		if v, err := p.Replay(t.Context(), *recorded.Load()); err != nil || v.Int != 0 || v.Kind != ':' {
			t.Errorf("replay = %+v, %v, want 0", v, err)
		}
		if err := p.Reset(); err != nil {
			t.Fatal(err)
		}
		pipeline(t, c, "GET k")
		replies(t, c, "v")
	})
}

func TestServerGoneBreaksTheConnection(t *testing.T) {
	t.Parallel()
	pair(t, func(t *testing.T, s *redisserver.Server, p *faultproxy.Proxy) {
		c := client(t, p)
		if err := p.LoseReplies(1, nil); err != nil {
			t.Fatal(err)
		}
		pipeline(t, c, "BLPOP none 0") // never answered: the loss stays open
		s.Kill()
		gone(t, c)
		if err := s.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		c = client(t, p)
		pipeline(t, c, "ECHO back")
		replies(t, c, "back")
	})
}

func TestWhatIsNotRESPIsHandedOn(t *testing.T) {
	t.Parallel()
	pair(t, func(t *testing.T, _ *redisserver.Server, p *faultproxy.Proxy) {
		var seen atomic.Int64
		err := p.OnCommand(func(args [][]byte) faultproxy.Action {
			if slices.ContainsFunc(args, func(a []byte) bool { return string(a) == "inline" }) {
				seen.Add(1)
			}
			return faultproxy.Forward()
		})
		if err != nil {
			t.Fatal(err)
		}
		c := client(t, p)
		if err := c.Send(t.Context(), []byte("ECHO inline\r\n*0\r\nPSYNC ? -1\r\n")); err != nil {
			t.Fatal(err)
		}
		replies(t, c, "inline", "ERR faultproxy: a replication stream is not RESP: use a proxy without Options.RESP")
		if seen.Load() != 1 {
			t.Errorf("the function saw %d inline commands, want 1", seen.Load())
		}
		if err := c.Send(t.Context(), []byte("*1\r\n:5\r\n")); err != nil {
			t.Fatal(err)
		}
		replies(t, c, "ERR Protocol error: expected '$', got ':'") // the server's own judgement
		gone(t, c)
	})
}
