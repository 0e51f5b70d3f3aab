package cli

import (
	"context"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/waggleq/waggle/internal/freeport"
	"github.com/waggleq/waggle/internal/redisserver"
)

// TestRedisScripts runs the conversations in testdata/redis, which are with servers that they start themselves.
//
//	server NAME KIND       starts a server that ends with the script: its URL is in $NAME, of kind tls also its files in
//	                       $NAME_CA, $NAME_CERT and $NAME_KEY
//	push NAME LIST TEXT... RPUSHes to the server
func TestRedisScripts(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir:                filepath.Join("testdata", "redis"),
		UpdateScripts:      *update,
		RequireUniqueNames: true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("XDG_STATE_HOME", filepath.Join(env.WorkDir, "state"))
			env.Setenv("TZ", "UTC")
			env.Values[serversKey{}] = map[string]*redisserver.Server{}
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"exits": exits, "refused": refused, "json": jsonValue, "server": startServer, "push": push,
		},
	})
}

type serversKey struct{}

// serverKinds are the servers that a script can start.
var serverKinds = map[string]redisserver.Options{
	"redis":    {},
	"valkey":   {Flavour: redisserver.Valkey},
	"aof":      {AOF: redisserver.AOFAlways},
	"password": {Password: "hunter2"},
	"acl":      {Password: "hunter2", Users: []string{"bee on >nectar ~waggle:* +@all", "drone on >idle ~waggle:* +ping +info +hello"}},
	"tls":      {TLS: true},
	"evicting": {MaxMemory: 100 << 20, MaxMemoryPolicy: "allkeys-lru"},
}

func startServer(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: server NAME KIND")
	}
	name, kind := args[0], args[1]
	switch kind {
	case "sentinel":
		set, err := redisserver.StartSentinel(context.Background(), nil)
		ts.Check(err)
		ts.Defer(func() { ts.Check(set.Close()) })
		ts.Setenv(name, set.URL())
	case "replicated":
		master, err := redisserver.Start(context.Background(), nil)
		ts.Check(err)
		ts.Defer(func() { ts.Check(master.Close()) })
		replica, err := redisserver.Start(context.Background(), &redisserver.Options{ReplicaOf: master})
		ts.Check(err)
		ts.Defer(func() { ts.Check(replica.Close()) })
		ts.Setenv(name, master.URL())
	case "cluster":
		c, err := redisserver.StartCluster(context.Background(), nil)
		ts.Check(err)
		ts.Defer(func() { ts.Check(c.Close()) })
		ts.Setenv(name, c.URL())
	case "nobody":
		port, err := freeport.Take()
		ts.Check(err)
		ts.Defer(func() { freeport.Release(port) })
		ts.Setenv(name, fmt.Sprintf("redis://127.0.0.1:%d", port))
	case "http":
		ts.Setenv(name, listen(ts, "HTTP/1.1 400 Bad Request\r\n\r\n"))
	case "protected":
		ts.Setenv(name, listen(ts, "-DENIED Redis is running in protected mode because protected mode is enabled\r\n"))
	case "silent":
		ts.Setenv(name, listen(ts, ""))
	default:
		startOne(ts, name, kind)
	}
}

func startOne(ts *testscript.TestScript, name, kind string) {
	o, ok := serverKinds[kind]
	if !ok {
		ts.Fatalf("there is no kind %q of server", kind)
	}
	s, err := redisserver.Start(context.Background(), &o)
	ts.Check(err)
	ts.Defer(func() { ts.Check(s.Close()) })
	ts.Value(serversKey{}).(map[string]*redisserver.Server)[name] = s
	ts.Setenv(name, s.URL())
	ts.Setenv(name+"_ADDR", s.Addr())
	ts.Setenv(name+"_CA", s.CAFile())
	ts.Setenv(name+"_CERT", s.CertFile())
	ts.Setenv(name+"_KEY", s.KeyFile())
}

// listen answers the first that comes on each connection with a text and hangs up, or is silent. It returns the URL.
func listen(ts *testscript.TestScript, text string) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	ts.Defer(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				if text == "" {
					_, _ = io.Copy(io.Discard, conn) // until the other side has had enough
				} else if _, err := conn.Read(make([]byte, 4096)); err == nil {
					_, _ = io.WriteString(conn, text)
				}
			}()
		}
	}()
	return "redis://" + l.Addr().String()
}

func push(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 {
		ts.Fatalf("usage: push NAME LIST TEXT...")
	}
	s := ts.Value(serversKey{}).(map[string]*redisserver.Server)[args[0]]
	if s == nil {
		ts.Fatalf("%s is no server: %s", args[0], strings.Join(args, " "))
	}
	_, err := s.Do(context.Background(), append([]string{"RPUSH"}, args[1:]...)...)
	ts.Check(err)
}

func TestDemoClusterNeedsAServer(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	_, err := (&app{}).demoCluster(t.Context(), &demoFlags{cluster: true})
	if err == nil || exitCode(t.Context(), err) != exitFailed || !strings.Contains(err.Error(), "apt-get install redis-server") {
		t.Errorf("got %v, want what to install", err)
	}
}
