package redisserver_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/waggleq/waggle/internal/redisserver"
	"github.com/waggleq/waggle/internal/redisserver/redistest"
	"github.com/waggleq/waggle/internal/resp"
)

// orphanEnv makes the test binary start a server, print its address and wait to be killed.
const orphanEnv = "WAGGLE_TEST_ORPHAN_SERVER"

func TestMain(m *testing.M) {
	if os.Getenv(orphanEnv) == "" {
		goleak.VerifyTestMain(m)
	}
	s, err := redisserver.Start(context.Background(), nil)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(s.Addr(), s.Dir())
	select {}
}

// do sends a command and fails the test on any error.
func do(t *testing.T, s *redisserver.Server, args ...string) resp.Value {
	t.Helper()
	v, err := s.Do(t.Context(), args...)
	if err != nil {
		t.Fatalf("%s: %v: %v", s.Addr(), args, err)
	}
	return v
}

// setOnReplicas writes a key and waits until n replicas have it. WAIT counts only what its own connection wrote.
func setOnReplicas(t *testing.T, s *redisserver.Server, n int64, key, value string) {
	t.Helper()
	c, err := s.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Do(t.Context(), "SET", key, value); err != nil {
		t.Fatal(err)
	}
	if v, err := c.Do(t.Context(), "WAIT", fmt.Sprint(n), "5000"); err != nil || v.Int != n {
		t.Fatalf("WAIT = %d replicas, %v, want %d", v.Int, err, n)
	}
}

func code(err error) string {
	e, _ := errors.AsType[resp.Error](err)
	return e.Code()
}

func TestStartServesAndCloseLeavesNothing(t *testing.T) {
	t.Parallel()
	redistest.EachFlavour(t, func(t *testing.T, f redisserver.Flavour) {
		s := redistest.Start(t, &redisserver.Options{Flavour: f, MaxMemory: 64 << 20, MaxMemoryPolicy: "allkeys-lru", Config: []string{"hz 50"}})
		do(t, s, "SET", "k", "v")
		if got := do(t, s, "GET", "k").Text; got != "v" {
			t.Errorf("GET = %q", got)
		}
		for name, want := range map[string]string{"maxmemory": "67108864", "maxmemory-policy": "allkeys-lru", "hz": "50", "appendonly": "no", "save": ""} {
			if got := do(t, s, "CONFIG", "GET", name).Elems[1].Text; got != want {
				t.Errorf("%s = %q, want %q", name, got, want)
			}
		}
		info, err := s.Info(t.Context(), "server")
		if err != nil {
			t.Fatal(err)
		}
		if isValkey := info["server_name"] == "valkey"; isValkey != (f == redisserver.Valkey) {
			t.Errorf("asked for %s, got server_name %q", f, info["server_name"])
		}
		if want := string(f) + "://" + s.Addr() + "/0"; s.URL() != want {
			t.Errorf("URL = %s, want %s", s.URL(), want)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(s.Dir()); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the directory is still there: %v", err)
		}
		if s.Running() {
			t.Error("the process is still there")
		}
		if err := s.Pause(); !errors.Is(err, redisserver.ErrNotRunning) {
			t.Errorf("Pause after Close = %v, want ErrNotRunning", err)
		}
	})
}

func TestRestartKeepsPortAndWhatWasSynced(t *testing.T) {
	t.Parallel()
	redistest.EachFlavour(t, func(t *testing.T, f redisserver.Flavour) {
		for _, aof := range []redisserver.AOF{redisserver.AOFOff, redisserver.AOFEverySec, redisserver.AOFAlways} {
			s := redistest.Start(t, &redisserver.Options{Flavour: f, AOF: aof})
			addr, pid := s.Addr(), s.PID()
			do(t, s, "SET", "k", "v")
			if aof == redisserver.AOFEverySec { // what a graceful stop syncs, a kill may lose
				if err := s.Stop(t.Context()); err != nil {
					t.Fatal(err)
				}
			} else {
				s.Kill()
			}
			if s.Running() {
				t.Error("still running")
			}
			if err := s.Restart(t.Context()); err != nil {
				t.Fatal(err)
			}
			if s.Addr() != addr || s.PID() == pid {
				t.Errorf("restart moved from %s to %s, process %d to %d", addr, s.Addr(), pid, s.PID())
			}
			if v := do(t, s, "GET", "k"); v.Null != (aof == redisserver.AOFOff) {
				t.Errorf("AOF %q: after the restart k is %+v", aof, v)
			}
		}
	})
}

func TestPauseKeepsConnectionsAndResumeAnswers(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t, nil)
	c, err := s.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := s.Pause(); err != nil {
		t.Fatal(err)
	}
	if err := c.Send(t.Context(), resp.AppendCommand(nil, "PING")); err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := s.Do(short, "PING"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("PING while paused = %v, want the deadline", err)
	}
	if err := s.Resume(); err != nil {
		t.Fatal(err)
	}
	if v, err := c.Receive(t.Context()); err != nil || v.Text != "PONG" {
		t.Errorf("the reply sent for while paused = %+v, %v", v, err)
	}
	if err := s.Pause(); err != nil {
		t.Fatal(err)
	}
	if err := s.Stop(t.Context()); err != nil {
		t.Errorf("Stop of a paused server = %v", err)
	}
}

func TestPasswordAndUsers(t *testing.T) {
	t.Parallel()
	redistest.EachFlavour(t, func(t *testing.T, f redisserver.Flavour) {
		for name, o := range map[string]*redisserver.Options{
			"requirepass": {Flavour: f, Password: "s3cret"},
			"acl file":    {Flavour: f, Password: "s3cret", Users: []string{"alice on >wonder ~app:* +@all"}},
		} {
			s := redistest.Start(t, o)
			if want := string(f) + "://:s3cret@" + s.Addr() + "/0"; s.URL() != want {
				t.Errorf("%s: URL = %s, want %s", name, s.URL(), want)
			}
			dial := func(user, password string) (*resp.Client, error) {
				return resp.Dial(t.Context(), s.Addr(), &resp.DialOptions{Username: user, Password: password})
			}
			if _, err := dial("", "wrong"); code(err) != "WRONGPASS" {
				t.Errorf("%s: wrong password: %v", name, err)
			}
			c, err := dial("", "s3cret")
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			defer c.Close()
			if o.Users == nil {
				continue
			}
			alice, err := dial("alice", "wonder")
			if err != nil {
				t.Fatal(err)
			}
			defer alice.Close()
			if _, err := alice.Do(t.Context(), "SET", "app:k", "v"); err != nil {
				t.Errorf("alice may write her keys: %v", err)
			}
			if _, err := alice.Do(t.Context(), "SET", "other", "v"); code(err) != "NOPERM" {
				t.Errorf("alice must not write others' keys: %v", err)
			}
			do(t, s, "ACL", "SETUSER", "default", "off")
			do(t, s, "ACL", "SAVE")
			if err := s.Restart(t.Context()); err != nil {
				t.Errorf("restart with the default user off: %v", err)
			}
		}
	})
}

func TestTLSAndUnixSocket(t *testing.T) {
	t.Parallel()
	redistest.EachFlavour(t, func(t *testing.T, f redisserver.Flavour) {
		s := redistest.Start(t, &redisserver.Options{Flavour: f, TLSClientCert: true, UnixSocket: true})
		want := map[redisserver.Flavour]string{redisserver.Redis: "rediss://", redisserver.Valkey: "valkeys://"}[f]
		if !strings.HasPrefix(s.URL(), want) {
			t.Errorf("URL = %s", s.URL())
		}
		do(t, s, "SET", "k", "v")
		local, err := resp.Dial(t.Context(), s.UnixSocket(), &resp.DialOptions{Network: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		defer local.Close()
		if v, err := local.Do(t.Context(), "GET", "k"); err != nil || v.Text != "v" {
			t.Errorf("over the Unix socket: %+v, %v", v, err)
		}
		refused := map[string]*tls.Config{"plain TCP": nil, "unknown authority": {ServerName: "localhost"}, "no client certificate": s.TLSConfig()}
		refused["no client certificate"].Certificates = nil
		for name, config := range refused {
			c, err := resp.Dial(t.Context(), s.Addr(), &resp.DialOptions{TLS: config})
			if err == nil { // TLS 1.3 reports a missing client certificate on the first read
				_, err = c.Do(t.Context(), "PING")
				c.Close()
			}
			if err == nil {
				t.Errorf("%s: the server answered", name)
			}
		}
		if _, err := tls.LoadX509KeyPair(s.CertFile(), s.KeyFile()); err != nil {
			t.Error(err)
		}
		replica := redistest.Start(t, &redisserver.Options{Flavour: f, TLSClientCert: true, ReplicaOf: s})
		if got := do(t, replica, "GET", "k").Text; got != "v" {
			t.Errorf("replicated over TLS: %q", got)
		}
	})
}

func TestReplicaIsInSyncWhenStarted(t *testing.T) {
	t.Parallel()
	redistest.EachFlavour(t, func(t *testing.T, f redisserver.Flavour) {
		master := redistest.Start(t, &redisserver.Options{Flavour: f, Password: "s3cret", Users: []string{"default off"}})
		do(t, master, "SET", "k", "v")
		replica := redistest.Start(t, &redisserver.Options{Flavour: f, ReplicaOf: master})
		if got := do(t, replica, "GET", "k").Text; got != "v" {
			t.Errorf("GET on the replica = %q", got)
		}
		setOnReplicas(t, master, 1, "k", "later")
		if got := do(t, replica, "GET", "k").Text; got != "later" {
			t.Errorf("GET on the replica = %q after a WAIT", got)
		}
	})
}

func TestStartRefusesBadOptions(t *testing.T) {
	t.Parallel()
	master := redistest.Start(t, nil)
	for _, o := range []*redisserver.Options{
		{Flavour: "memcached"}, {AOF: "sometimes"}, {MaxMemory: -1}, {Password: "a b"}, {Config: []string{"hz 10\nport 1"}},
		{ReplicaOf: master, TLS: true}, {Config: []string{"no-such-setting yes"}},
	} {
		if s, err := redisserver.Start(t.Context(), o); err == nil {
			s.Close()
			t.Errorf("Start(%+v) succeeded", o)
		}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := redisserver.Start(ended, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("Start with an ended context = %v", err)
	}
}

func TestServerDiesWithItsParent(t *testing.T) {
	t.Parallel()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	parent := exec.CommandContext(t.Context(), exe)
	parent.Env = append(os.Environ(), orphanEnv+"=1")
	parent.Stderr = os.Stderr
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	addr, dir, _ := strings.Cut(strings.TrimSpace(line), " ")
	defer os.RemoveAll(dir) // a killed parent can't remove it
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	parent.Process.Kill()
	parent.Wait()
	// The connection ends when the server does.
	conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the server outlived its parent: %v", err)
	}
}

// Not parallel: it changes the environment.
func TestFindRefusesOtherProductsAndOldVersions(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PATH", dir)
	t.Setenv("XDG_CACHE_HOME", filepath.Join(dir, "cache"))
	program := func(path, prints string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("#!/bin/sh\necho '"+prints+"'\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, prints := range []string{"Redis server v=6.2.14 sha=0", "Valkey server v=8.0.1 sha=0", "nonsense"} {
		program(filepath.Join(dir, "redis-server"), prints)
		if b, err := redisserver.Find(t.Context(), redisserver.Redis); !errors.Is(err, redisserver.ErrNotFound) {
			t.Errorf("with %q: %+v, %v", prints, b, err)
		}
	}
	program(filepath.Join(dir, "valkey-server"), "Valkey server v=7.2.5 sha=0")
	unpacked := filepath.Join(dir, "cache/waggle/valkey/usr/bin/valkey-server")
	program(unpacked, "Valkey server v=8.0.1 sha=0")
	want := redisserver.Binary{Flavour: redisserver.Valkey, Path: unpacked, Version: "8.0.1"}
	if got, err := redisserver.Find(t.Context(), redisserver.Valkey); err != nil || got != want {
		t.Errorf("Find = %+v, %v, want %+v", got, err, want)
	}
}
