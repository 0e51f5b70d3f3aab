package cli

import (
	"bytes"
	"context"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/waggleq/waggle/internal/planted"
	"github.com/waggleq/waggle/internal/redisserver"
	"github.com/waggleq/waggle/internal/redisserver/redistest"
)

// loud are commands that name the store in what they say.
var loud = [][]string{
	{"work", "--until-empty", "-v", "--", "true"}, {"info"}, {"info", "-o", "json"}, {"demo", "--tasks", "1"}, {"enqueue", "t"}, {"queue", "list"},
	{"doctor"}, {"top", "-o", "json"}, {"events"}, {"task", "get", "x"}, {"bench", "--tasks", "1"},
}

// saidBy runs a command in this process and returns all that it has printed.
func saidBy(ctx context.Context, env map[string]string, args ...string) string {
	ctx, signals := watchSignals(ctx)
	defer signals.close()
	out := &locked{}
	a := &app{signals: signals, in: strings.NewReader(""), out: out, err: out, env: func(name string) string { return env[name] }}
	a.run(ctx, args)
	return out.String()
}

// locked is a buffer for several writers.
type locked struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *locked) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

var _ io.Writer = (*locked)(nil)

// TestNothingPrintedTellsASecret hands commands store URLs with a secret in each place in which somebody may write one.
func TestNothingPrintedTellsASecret(t *testing.T) {
	t.Chdir(t.TempDir())
	t.Setenv("XDG_STATE_HOME", t.TempDir())
	for i, shape := range planted.Shapes() {
		raw := planted.With(shape, "-")
		cmd := loud[i%len(loud)]
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		for how, said := range map[string]string{
			"--store":      saidBy(ctx, nil, append([]string{cmd[0], "--store", raw}, cmd[1:]...)...),
			"WAGGLE_STORE": saidBy(ctx, map[string]string{"WAGGLE_STORE": raw}, cmd...),
		} {
			if planted.Told(said) != "" {
				t.Errorf("%v with %s=%q:\n%s", cmd, how, raw, said)
			}
		}
		cancel()
	}
}

// TestNoServerTellsASecret has a server accept and refuse passwords, and be gone.
func TestNoServerTellsASecret(t *testing.T) {
	t.Parallel()
	secret := planted.With("§", "-")
	server := redistest.Start(t, &redisserver.Options{Password: secret})
	addr := server.Addr()
	say := func(what, url string) {
		t.Helper()
		for _, cmd := range loud {
			if cmd[0] == "demo" && what == "the right password" {
				continue // it would start processes
			}
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			if said := saidBy(ctx, nil, append([]string{cmd[0], "--store", url}, cmd[1:]...)...); planted.Told(said) != "" {
				t.Errorf("%s: %v:\n%s", what, cmd, said)
			}
			cancel()
		}
	}
	say("the right password", "redis://:"+secret+"@"+addr)
	say("a wrong password", "redis://:"+secret+"x@"+addr)
	say("an unknown user", "redis://bee:"+secret+"@"+addr)
	say("a password for a user", "redis://"+secret+"@"+addr)
	say("no TLS there", "rediss://:"+secret+"@"+addr+"?timeout=200ms")
	server.Kill()
	say("a server that is gone", "redis://:"+secret+"@"+addr+"?timeout=200ms")
}
