//go:build unix

package execwork

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/internal/plainjson"
)

func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == KeepCommand {
		os.Exit(Keep())
	}
	os.Exit(m.Run())
}

func command(t *testing.T, grace time.Duration, argv ...string) *Command {
	t.Helper()
	c, err := New(argv, grace)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestRun(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		argv    []string
		payload string
		raw     bool
		want    Output
	}{
		{"text", []string{"printf", `two words\n`}, "", false, Output{Result: []byte(`"two words"`), Written: 10}},
		{"json", []string{"printf", ` {"a": 1}\n`}, "", false, Output{Result: []byte(`{"a": 1}`), Written: 10}},
		{"nothing", []string{"true"}, `"ignored"`, false, Output{}},
		{"bytes", []string{"printf", `\377\376`}, "", false, Output{Result: []byte{0xff, 0xfe}, Raw: true, Written: 2}},
		{"stdin", []string{"cat"}, `{"user": 7}`, false, Output{Result: []byte(`{"user": 7}`), Written: 11}},
		{"raw stdin", []string{"cat"}, "\x00\x01", true, Output{Result: []byte(`"\u0000\u0001"`), Written: 2}},
		{"placeholder", []string{"printf", "%s|", "{}", "a{}", "{}"}, `"x y"`, false, Output{Result: []byte(`"x y|a{}|x y|"`), Written: 12}},
		{"no shell", []string{"printf", "%s", "{}"}, `"$(id) ; rm -rf / #\n"`, false, Output{Result: []byte(`"$(id) ; rm -rf / #"`), Written: 19}},
		{"environment", []string{"sh", "-c", `printf '%s ' "$WAGGLE_TASK_ID" "$WAGGLE_TASK_TYPE"`}, "", false,
			Output{Result: []byte(`"t1 kind "`), Written: 8}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			in := &Input{Vars: []string{"WAGGLE_TASK_ID=t1", "WAGGLE_TASK_TYPE=kind"}, Payload: []byte(c.payload), Raw: c.raw}
			got, err := command(t, 0, c.argv...).Run(t.Context(), in)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(&c.want, got); diff != "" {
				t.Errorf("output (-want +got):\n%s", diff)
			}
		})
	}
}

func TestFailures(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		script  string
		want    string
		discard bool
	}{
		{"echo one >&2; echo two >&2; exit 3", "exit status 3: one\ntwo", false},
		{"exit 65", "exit status 65", true},
		{"echo broken >&2; exit 65", "exit status 65: broken", true},
		{"kill -9 $$", "signal: killed", false},
	} {
		_, err := command(t, 0, "sh", "-c", c.script).Run(t.Context(), &Input{})
		if err == nil || err.Error() != c.want || errors.Is(err, ErrDiscard) != c.discard {
			t.Errorf("%s: %v (discard %v), want %q (%v)", c.script, err, errors.Is(err, ErrDiscard), c.want, c.discard)
		}
	}
}

func TestPayloadsThatAreNoArgument(t *testing.T) {
	t.Parallel()
	for payload, want := range map[string]string{
		`"a\u0000b"`:    "NUL character",
		"\"a\xffb\"":    "not valid Unicode",
		`"\ud800 lone"`: "not valid Unicode",
	} {
		_, err := command(t, 0, "echo", "{}").Run(t.Context(), &Input{Payload: []byte(payload)})
		if !errors.Is(err, ErrDiscard) || !strings.Contains(err.Error(), want) {
			t.Errorf("payload %q: %v; want a discard that says %q", payload, err, want)
		}
	}
	out, err := command(t, 0, "printf", "%s", "{}").Run(t.Context(), &Input{Payload: []byte(`"\uFFFD ` + "\uFFFD" + `"`)})
	if err != nil || string(out.Result) != "\"\uFFFD \uFFFD\"" {
		t.Errorf("a replacement character that was written stays: %v, %v", out, err)
	}
}

func TestPayloadsOfAnotherKind(t *testing.T) {
	t.Parallel()
	echo := command(t, 0, "printf", "%s", "{}")
	for payload, want := range map[string]string{"": "is empty", `{"a":1}`: "is an object", ` ["a"]`: "is a list"} {
		_, err := echo.Run(t.Context(), &Input{Payload: []byte(payload)})
		if !errors.Is(err, ErrUnfit) || errors.Is(err, ErrDiscard) || !strings.Contains(err.Error(), want) {
			t.Errorf("payload %q: %v; want an ErrUnfit that says %q", payload, err, want)
		}
	}
	if _, err := echo.Run(t.Context(), &Input{Payload: []byte("1"), Raw: true}); !errors.Is(err, ErrUnfit) {
		t.Errorf("raw bytes: %v", err)
	}
	for _, payload := range []string{"7", "-1.50e3", "true", "false", "null"} {
		out, err := echo.Run(t.Context(), &Input{Payload: []byte(payload + "\n")})
		if err != nil || string(out.Result) != payload {
			t.Errorf("payload %s: %v, %v", payload, out, err)
		}
	}
}

func TestBadCommands(t *testing.T) {
	t.Parallel()
	plain := filepath.Join(t.TempDir(), "plain")
	if err := os.WriteFile(plain, []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	for want, argv := range map[string][]string{
		"no command is given":  nil,
		"put a program before": {"{}"},
		"no-such-command-here": {"no-such-command-here"},
		"permission denied":    {plain},
	} {
		if _, err := New(argv, 0); !errors.Is(err, driver.ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("New(%q): %v; want an ErrInvalid that says %q", argv, err, want)
		}
	}
}

func TestLogLines(t *testing.T) {
	t.Parallel()
	var got []string
	in := &Input{Log: func(line string) { got = append(got, line) }}
	if _, err := command(t, 0, "sh", "-c", `printf 'one\r\n\ntwo\nthree' >&2`).Run(t.Context(), in); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"one", "two", "three"}, got); diff != "" {
		t.Errorf("lines (-want +got):\n%s", diff)
	}
}

func TestLongStderr(t *testing.T) {
	t.Parallel()
	l := &lines{}
	for i := range 5000 {
		fmt.Fprintf(l, "line %d\n", i)
	}
	tail := l.tail()
	if !strings.HasPrefix(tail, "… line ") || !strings.HasSuffix(tail, "\nline 4999") || len(tail) > maxTail+8 {
		t.Errorf("tail of %d bytes: %.40q … %q", len(tail), tail, tail[len(tail)-20:])
	}
	var got []string
	l = &lines{log: func(line string) { got = append(got, line) }}
	_, _ = io.WriteString(l, strings.Repeat("x", 2*maxLine+1))
	l.flush()
	if len(got) != 3 || len(got[0]) != maxLine || got[2] != "x" {
		t.Errorf("a long line came in %d pieces", len(got))
	}
}

func TestLongOutputIsCut(t *testing.T) {
	t.Parallel()
	for name, unit := range map[string]string{"ascii": "x", "two bytes": "ä", "escaped": "\x01", "quotes": `"`} {
		h := &head{limit: driver.MaxResultBytes}
		_, _ = io.WriteString(h, strings.Repeat(unit, driver.MaxResultBytes))
		out := h.output()
		var text string
		if err := json.Unmarshal(out.Result, &text); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		rest := strings.ReplaceAll(strings.TrimSuffix(text, cutMark), unit, "")
		if !out.Cut || !strings.HasSuffix(text, cutMark) || len(out.Result) > driver.MaxResultBytes || rest != "" {
			t.Errorf("%s: cut %v, %d bytes, strangers %q", name, out.Cut, len(out.Result), rest)
		}
		if len(out.Result) < driver.MaxResultBytes*9/10 {
			t.Errorf("%s: only %d bytes are kept", name, len(out.Result))
		}
	}
}

// TestGroupIsStopped stops a command whose child ignores SIGTERM, and checks that both are gone.
func TestGroupIsStopped(t *testing.T) {
	t.Parallel()
	why := errors.New("asked to stop")
	ctx, cancel := context.WithCancelCause(t.Context())
	pids := make(chan int, 2)
	in := &Input{Log: func(line string) {
		if pid, err := strconv.Atoi(line); err == nil {
			pids <- pid
		}
		if len(pids) == cap(pids) {
			cancel(why)
		}
	}}
	script := `trap 'echo got TERM >&2; exit 9' TERM; sh -c 'trap "" TERM; echo $$ >&2; while :; do sleep 1; done' & echo $$ >&2; wait`
	_, err := command(t, time.Minute, "sh", "-c", script).Run(ctx, in)
	if !errors.Is(err, why) || !strings.Contains(err.Error(), "got TERM") {
		t.Errorf("error: %v", err)
	}
	for range 2 {
		awaitGone(t, <-pids)
	}
}

func TestStubbornCommandIsKilled(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	in := &Input{Log: func(string) { cancel() }}
	if _, err := command(t, time.Millisecond, "sh", "-c", `trap "" TERM; echo ready >&2; while :; do sleep 1; done`).Run(ctx, in); !errors.Is(err, context.Canceled) {
		t.Errorf("error: %v", err)
	}
}

func TestSuccessDespiteStop(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	in := &Input{Log: func(string) { cancel() }}
	out, err := command(t, time.Minute, "sh", "-c", `trap 'echo done; exit 0' TERM; echo ready >&2; while :; do sleep 0.01; done`).Run(ctx, in)
	if err != nil || string(out.Result) != `"done"` {
		t.Errorf("%v, %v", out, err)
	}
}

func TestHurry(t *testing.T) {
	t.Parallel()
	c := command(t, time.Hour, "sh", "-c", `trap 'echo TERM >&2' TERM; echo ready >&2; while :; do sleep 0.01; done`)
	ctx, cancel := context.WithCancel(t.Context())
	in := &Input{Log: func(line string) {
		switch line {
		case "ready":
			cancel()
		case "TERM":
			c.Hurry()
		}
	}}
	if _, err := c.Run(ctx, in); !errors.Is(err, context.Canceled) {
		t.Errorf("error: %v", err)
	}
}

// awaitGone waits until a process is gone: killed ones take a moment, and are zombies until they are reaped.
func awaitGone(t *testing.T, pid int) {
	t.Helper()
	for tick := time.NewTicker(time.Millisecond); ; <-tick.C {
		if err := syscall.Kill(pid, 0); errors.Is(err, syscall.ESRCH) || zombie(pid) {
			return
		}
		if t.Context().Err() != nil {
			t.Fatalf("process %d is still there", pid)
		}
	}
}

func zombie(pid int) bool {
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return false
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if state, ok := strings.CutPrefix(s.Text(), "State:"); ok {
			return strings.Contains(state, "Z")
		}
	}
	return false
}

func FuzzArgument(f *testing.F) {
	for _, s := range []string{`"plain"`, `"\u0000"`, "\"\xff\"", `"\ud83d\ude00"`, "{}", `"\ud800"`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		got, err := argument(&Input{Payload: payload})
		if err != nil {
			if !errors.Is(err, ErrDiscard) && !errors.Is(err, ErrUnfit) {
				t.Errorf("%q: %v is neither a discard nor of another kind", payload, err)
			}
			return
		}
		var back string
		if err := json.Unmarshal(plainjson.String(got), &back); err != nil || back != got {
			t.Errorf("%q became %q, which does not survive encoding: %q, %v", payload, got, back, err)
		}
		if strings.ContainsRune(got, 0) {
			t.Errorf("%q became an argument with NUL", payload)
		}
	})
}

func FuzzOutput(f *testing.F) {
	f.Add([]byte("text\n"), 64)
	f.Add([]byte(`{"a":1}`), 64)
	f.Add([]byte("\xff"), 1)
	f.Add([]byte("äöü"), 3)
	f.Fuzz(func(t *testing.T, written []byte, limit int) {
		h := &head{limit: max(limit, 0)}
		_, _ = h.Write(written)
		out := h.output()
		if out.Written != int64(len(written)) || len(out.Result) > driver.MaxResultBytes {
			t.Errorf("written %d, result of %d bytes", out.Written, len(out.Result))
		}
		if !out.Raw && len(out.Result) > 0 && !json.Valid(out.Result) {
			t.Errorf("%q became %q, which is not JSON", written, out.Result)
		}
	})
}

// FuzzLines writes any bytes to standard error, in two pieces: each log line is text of a bounded length, and so is
// what is kept for the error.
func FuzzLines(f *testing.F) {
	f.Add([]byte("one\r\n\ntwo\nthree"), 5)
	f.Add(bytes.Repeat([]byte("x"), 3*maxLine), maxLine)
	f.Add([]byte("\xff\xfe\n\x00\r\r\n"), 1)
	f.Add([]byte("a\xc3\n"), 2)
	f.Fuzz(func(t *testing.T, written []byte, cut int) {
		cut = min(max(cut, 0), len(written))
		var got []string
		l := &lines{log: func(line string) { got = append(got, line) }}
		for _, piece := range [][]byte{written[:cut], written[cut:]} {
			if n, err := l.Write(piece); n != len(piece) || err != nil {
				t.Fatalf("%d bytes of %d were taken, %v", n, len(piece), err)
			}
		}
		l.flush()
		const grown = len("\uFFFD") // what one byte that is no text becomes
		for _, line := range got {
			if line == "" || len(line) > grown*maxLine || strings.Contains(line, "\n") || !utf8.ValidString(line) {
				t.Errorf("%q is a log line", line)
			}
		}
		if tail := l.tail(); len(tail) > grown*maxTail+len("… ") || !utf8.ValidString(tail) {
			t.Errorf("the error's text has %d bytes: %q", len(tail), tail)
		}
		if utf8.Valid(written) && len(written) < maxLine { // nothing is lost
			want := strings.FieldsFunc(string(written), func(r rune) bool { return r == '\n' || r == '\r' })
			if diff := cmp.Diff(strings.Join(want, ""), strings.ReplaceAll(strings.Join(got, ""), "\r", "")); diff != "" {
				t.Errorf("of %q (-want +got):\n%s", written, diff)
			}
		}
	})
}

// TestNotStarted tells what is not the task's fault from what no attempt can mend.
func TestNotStarted(t *testing.T) {
	t.Parallel()
	program := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(program, []byte("#!/bin/sh\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	c := command(t, 0, program, "{}")
	long := strconv.Quote(strings.Repeat("x", 1<<20))
	if _, err := c.Run(t.Context(), &Input{Payload: []byte(long)}); !errors.Is(err, ErrDiscard) || errors.Is(err, ErrNotStarted) {
		t.Errorf("a payload that is too long: %v", err)
	}
	if err := os.Remove(program); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Run(t.Context(), &Input{Payload: []byte(`"x"`)}); !errors.Is(err, ErrNotStarted) {
		t.Errorf("a program that is gone: %v", err)
	}
}
