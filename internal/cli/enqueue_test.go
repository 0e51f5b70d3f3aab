package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/waggleq/waggle"
	"github.com/waggleq/waggle/stores"
)

// watched is a writer that tells of each line that is written to it.
type watched struct {
	mu    sync.Mutex
	buf   bytes.Buffer
	lines chan string
}

func (w *watched) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.buf.Write(p)
	for {
		line, err := w.buf.ReadString('\n')
		if err != nil {
			w.buf.WriteString(line)
			return len(p), nil
		}
		w.lines <- line
	}
}

func watch() *watched { return &watched{lines: make(chan string, 100)} }

// await returns the next line.
func (w *watched) await(t *testing.T) string {
	t.Helper()
	select {
	case line := <-w.lines:
		return line
	case <-time.After(time.Minute):
		t.Fatal("no line came")
		return ""
	}
}

// atTerminal starts a command whose standard input is a terminal. The channel gives its exit code.
func atTerminal(t *testing.T, args ...string) (in io.Writer, out, err *watched, interrupt func(), code <-chan int) {
	t.Helper()
	ctx, cancel := context.WithCancelCause(t.Context())
	r, w := io.Pipe()
	t.Cleanup(func() { _ = w.Close() })
	out, err = watch(), watch()
	a := &app{in: r, out: out, err: err, env: func(string) string { return "" }, inTerm: terminal{is: true}}
	done := make(chan int, 1)
	go func() { done <- a.run(ctx, args) }()
	return w, out, err, func() { cancel(errInterrupted) }, done
}

func mustSay(t *testing.T, w *watched, want string) {
	t.Helper()
	if got := w.await(t); !strings.Contains(got, want) {
		t.Errorf("it says %q, want %q", got, want)
	}
}

func mustEnd(t *testing.T, code <-chan int, want int) {
	t.Helper()
	select {
	case got := <-code:
		if got != want {
			t.Errorf("exit code %d, want %d", got, want)
		}
	case <-time.After(time.Minute):
		t.Fatal("the command does not end")
	}
}

// TestLinesStream: a line is stored without waiting for the end of the stream, and who interrupts it is told what was.
func TestLinesStream(t *testing.T) {
	t.Parallel()
	in, out, words, interrupt, code := atTerminal(t, "enqueue", "t", "--lines", "--store", "sqlite:"+filepath.Join(t.TempDir(), "q.db"))
	mustSay(t, words, "until Ctrl-D")
	for range 2 {
		_, _ = io.WriteString(in, "a line\n")
		out.await(t)
	}
	interrupt()
	mustSay(t, words, "2 tasks added, up to line 2: what follows is not stored")
	mustEnd(t, code, exitInterrupted)
}

func TestPayloadFromATerminal(t *testing.T) {
	t.Parallel()
	_, _, words, interrupt, code := atTerminal(t, "enqueue", "t", "-", "--store", "sqlite:"+filepath.Join(t.TempDir(), "q.db"))
	mustSay(t, words, "reading the payload from standard input, until Ctrl-D")
	interrupt()
	mustSay(t, words, "nothing was added")
	mustEnd(t, code, exitInterrupted)
}

func TestInterruptedWaitTellsTheTask(t *testing.T) {
	t.Parallel()
	store := "sqlite:" + filepath.Join(t.TempDir(), "q.db")
	_, _, words, interrupt, code := atTerminal(t, "enqueue", "t", "1", "--wait", "--id", "mine", "--store", store)
	for c := clientOf(t, store); ; time.Sleep(time.Millisecond) {
		if _, err := c.Get(t.Context(), "mine"); err == nil {
			break
		}
	}
	interrupt()
	if said := words.await(t); !strings.Contains(said, "task mine stays where it is") && !strings.Contains(said, "task mine may have been added") {
		t.Errorf("it says %q", said) // which of the two depends on whether the answer of the store was there already
	}
	mustEnd(t, code, exitInterrupted)
}

func clientOf(t *testing.T, url string) *waggle.Client {
	t.Helper()
	store, err := stores.Open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	c, err := waggle.NewClient(store, nil)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestLinesWithEmptyValues(t *testing.T) {
	t.Parallel()
	lines := `{"type":"f","key":""}
{"type":"f","options":{"id":""}}
{"type":"f","queue":""}
{"type":"f","unique":{"key":""}}
`
	var out, words bytes.Buffer
	a := &app{in: strings.NewReader(lines), out: &out, err: &words, env: func(string) string { return "" }}
	if code := a.run(t.Context(), []string{"enqueue", "--jsonl", "--store", "sqlite:" + filepath.Join(t.TempDir(), "q.db")}); code != 2 || out.Len() > 0 {
		t.Errorf("exit code %d, it prints %q", code, out.String())
	}
	for _, want := range []string{`line 1 is not a task: "key" is empty`, `line 2 is not a task: "id" is empty`, `line 3 is not a task: "queue" is empty`,
		`line 4 is not a task: "key" is empty`} {
		if !strings.Contains(words.String(), want) {
			t.Errorf("it does not say %q:\n%s", want, words.String())
		}
	}
}

func TestLinesOfWholeTasks(t *testing.T) {
	t.Parallel()
	store := "sqlite:" + filepath.Join(t.TempDir(), "q.db")
	lines := []string{
		`{"type":"a","payload":{"n":1},"options":{"id":"one","queue":"mail","priority":5,"max_attempts":3,"crash_limit":2,"tags":["x"]}}`,
		`{"type":"b","payload":"text"}`,
		`{"type":"c","options":{"quue":"mail"}}`,
		`{"type":"c","payloads":1}`,
		`{"payload":1}`,
		`["no", "task"]`,
		`{"type":"d","options":{"id":"two","priority":0}}`,
		`{"type":"e","id":"three","queue":"mail","payload":null,"options":{"priority":2}}`,
		`{"type":"e","queue":"mail","options":{"queue":"other"}}`,
		`{"type":"e","queue":3}`,
		`null`,
	}
	var out, words bytes.Buffer
	a := &app{in: strings.NewReader(strings.Join(lines, "\n")), out: &out, err: &words, env: func(string) string { return "" }}
	code := a.run(t.Context(), []string{"enqueue", "--jsonl", "--priority", "7", "--store", store, "-o", "json"})
	if code != exitPartly {
		t.Errorf("exit code %d: %s", code, words.String())
	}
	for _, want := range []string{`line 3 is not a task: there is no option "quue"`, `line 4 is not a task: there is no option "payloads"`, "line 5 is refused", "line 6 is not a task",
		`line 9 is not a task: the option "queue" is there twice`, `line 10 is not a task: "queue" can't be a number`, "line 11 is "} {
		if !strings.Contains(words.String(), want) {
			t.Errorf("it does not say %q:\n%s", want, words.String())
		}
	}
	var receipts []waggle.Receipt
	if err := json.Unmarshal(out.Bytes(), &receipts); err != nil || len(receipts) != 4 {
		t.Fatalf("%d receipts, %v: %s", len(receipts), err, out.String())
	}
	type task struct {
		Type, Queue, Payload              string
		Priority, MaxAttempts, CrashLimit int
	}
	var got []task
	for _, id := range []string{"one", receipts[1].ID, "two", "three"} {
		info, err := clientOf(t, store).Get(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, task{info.Type, info.Queue, string(info.Payload.Bytes), info.Priority, info.MaxAttempts, info.CrashLimit})
	}
	want := []task{{"a", "mail", `{"n":1}`, 5, 3, 2}, {"b", "default", `"text"`, 7, 25, 5}, {"d", "default", "", 0, 25, 5}, {"e", "mail", "null", 2, 25, 5}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("tasks (-want +got):\n%s", diff)
	}
}

// TestInterruptedEnqueueTellsTheTask: who gives up before the store has answered can ask for the task, and add it again.
func TestInterruptedEnqueueTellsTheTask(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errInterrupted)
	words := watch()
	a := &app{in: strings.NewReader(""), out: io.Discard, err: words, env: func(string) string { return "" }}
	store, err := stores.Open(t.Context(), "memory:")
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	client, err := waggle.NewClient(store, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close(t.Context())
	f := &enqueueFlags{}
	f.options.ID = "mine"
	if err := a.enqueueOne(ctx, client, "t", nil, f); err == nil {
		t.Error("it returns no error")
	}
	mustSay(t, words, "task mine may have been added: `waggle task get mine` tells")
}

func TestDrainSaysWhyItWaits(t *testing.T) {
	t.Parallel()
	store := "sqlite:" + filepath.Join(t.TempDir(), "q.db")
	if _, err := clientOf(t, store).Enqueue(t.Context(), "t", nil, nil); err != nil {
		t.Fatal(err)
	}
	_, _, words, interrupt, code := atTerminal(t, "queue", "drain", "default", "--store", store)
	mustSay(t, words, "takes no new tasks; 1 task left")
	mustSay(t, words, "does not empty now: no worker")
	interrupt()
	mustEnd(t, code, exitInterrupted)
}
