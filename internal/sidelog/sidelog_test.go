package sidelog

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// gate is a handler that lets a line through when it is told to, and does with it what do says.
type gate struct {
	slog.Handler
	open chan struct{}
	do   func(message string)
}

func (g *gate) Handle(ctx context.Context, r slog.Record) error {
	<-g.open
	if g.do != nil {
		g.do(r.Message)
	}
	return g.Handler.Handle(ctx, r)
}

func newGate(out *bytes.Buffer, do func(string)) *gate {
	text := slog.NewTextHandler(out, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey || a.Key == slog.LevelKey {
			return slog.Attr{}
		}
		return a
	}})
	return &gate{text, make(chan struct{}), do}
}

func TestLinesThatDoNotFitAreCounted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		g := newGate(&out, nil)
		h := New(g)
		log := slog.New(h)
		for i := range room + 218 { // one is in the handler's hands
			log.Info(fmt.Sprint("line ", i))
			synctest.Wait()
		}
		began := time.Now()
		h.Flush(time.Second)
		if waited := time.Since(began); waited != time.Second {
			t.Errorf("Flush took %v", waited)
		}
		close(g.open)
		h.Flush(time.Second)
		lines := strings.Split(strings.TrimSpace(out.String()), "\n")
		if len(lines) != room+2 || lines[0] != `msg="line 0"` {
			t.Errorf("%d lines, the first is %q", len(lines), lines[0])
		}
		if n := strings.Count(out.String(), "log lines were dropped"); n != 1 || !strings.Contains(out.String(), "count=217") {
			t.Errorf("%d lines tell of what was dropped", n)
		}
	})
}

func TestAHandlerThatPanicsOrExits(t *testing.T) {
	t.Parallel()
	for name, do := range map[string]func(){"panics": func() { panic("boom") }, "exits": runtime.Goexit} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var out bytes.Buffer
				g := newGate(&out, func(message string) {
					if message == "bad" {
						do()
					}
				})
				close(g.open)
				h := New(g)
				log := slog.New(h)
				for _, m := range []string{"first", "bad", "last"} {
					log.Info(m)
				}
				synctest.Wait()
				if got := out.String(); !strings.Contains(got, "count=1") || !strings.Contains(got, "msg=first\n") || !strings.Contains(got, "msg=last\n") {
					t.Errorf("got %q", got)
				}
			})
		})
	}
}

func TestAttributesAndGroups(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	g := newGate(&out, nil)
	close(g.open)
	h := New(g)
	slog.New(h).With("a", 1).WithGroup("g").With("b", 2).Info("x", "c", 3)
	h.Flush(time.Minute)
	if got := out.String(); got != "msg=x a=1 g.b=2 g.c=3\n" {
		t.Errorf("got %q", got)
	}
}

// A stack can be read where the log is text, and is one attribute elsewhere.
func TestStack(t *testing.T) {
	t.Parallel()
	const stack = "goroutine 1 [running]:\nmain.f()\n\t/main.go:12 +0x1d\n"
	bare := &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}
	for name, tt := range map[string]struct {
		handler func(*bytes.Buffer) slog.Handler
		want    string
	}{
		"text": {func(b *bytes.Buffer) slog.Handler { return slog.NewTextHandler(b, bare) }, "level=WARN msg=failed worker=w task=a\n" +
			"level=WARN msg=\"    goroutine 1 [running]:\" worker=w\nlevel=WARN msg=\"    main.f()\" worker=w\nlevel=WARN msg=\"        /main.go:12 +0x1d\" worker=w\n"},
		"JSON": {func(b *bytes.Buffer) slog.Handler { return slog.NewJSONHandler(b, bare) },
			`{"level":"WARN","msg":"failed","worker":"w","task":"a","stack":"goroutine 1 [running]:\nmain.f()\n\t/main.go:12 +0x1d\n"}` + "\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out bytes.Buffer
			h := New(tt.handler(&out))
			slog.New(h).With("worker", "w").Warn("failed", "task", "a", "stack", stack)
			h.Flush(time.Minute)
			if got := out.String(); got != tt.want {
				t.Errorf("got:\n%s\nwant:\n%s", got, tt.want)
			}
		})
	}
}
