package cli

import (
	"errors"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	tea "charm.land/bubbletea/v2"

	"github.com/waggleq/waggle"
	"github.com/waggleq/waggle/driver"
)

// TestFrameFits draws the live view at small sizes, with more in it than fits.
func TestFrameFits(t *testing.T) {
	t.Parallel()
	s := &snapshot{Store: "sqlite:/a/rather/long/path/to/some/queue.db", Now: time.Unix(1_900_000_000, 0)}
	for i := range 40 {
		name := strings.Repeat("q", i+1)
		s.Queues = append(s.Queues, queueRow{Name: name, Available: i, Paused: i == 0})
		w := waggle.WorkerStatus{WorkerInfo: driver.WorkerInfo{ID: name, Queues: []string{"default"}, Slots: 4}, Since: s.Now}
		s.Workers = append(s.Workers, workerRowOf(w, s.Now))
		s.Active = append(s.Active, &waggle.TaskInfo{ID: driver.NewID(), Type: name, ClaimedAt: s.Now, Progress: &waggle.Progress{Done: 1, Total: 2, Note: "\x1b[2J"}})
	}
	for _, size := range [][2]int{{80, 24}, {40, 10}, {200, 60}} {
		v := topView{s: s, before: s, term: terminal{is: true}, width: size[0], height: size[1]}
		text := v.frame()
		lines := strings.Split(text, "\n")
		if len(lines) != size[1] || strings.Contains(text, "\x1b") {
			t.Errorf("%v: %d lines, or the terminal was written to", size, len(lines))
		}
		for _, line := range lines {
			if n := utf8.RuneCountInString(line); n > size[0] {
				t.Errorf("%v: a line of %d columns: %q", size, n, line)
			}
		}
		if size[1] >= 24 && !(strings.Contains(text, "QUEUES 40") && strings.Contains(text, "WORKERS 40") && strings.Contains(text, "RUNNING 40")) {
			t.Errorf("%v: a part is missing:\n%s", size, text)
		}
	}
}

// topFixture is a live view over a snapshot in memory, which notes what it is told to change.
type topFixture struct {
	*topModel
	t       *testing.T
	changes []string
	err     error // of the next looks
}

func newTopFixture(t *testing.T) *topFixture {
	now := time.Unix(1_900_000_000, 0)
	running := &waggle.TaskInfo{ID: "task-running", Type: "mail", Queue: "b", State: driver.Active, ClaimedAt: now}
	failed := &waggle.TaskInfo{ID: "task-failed", Type: "mail", Queue: "b", State: driver.Discarded, Reason: driver.ReasonAttempts}
	s := &snapshot{Store: "sqlite:x", Now: now, Queues: []queueRow{{Name: "a"}, {Name: "b", Active: 1}}, Active: []*waggle.TaskInfo{running}}
	f := &topFixture{t: t}
	f.topModel = &topModel{
		topView: topView{s: s, term: terminal{is: true}, width: 100, height: 30},
		look: func(at place) (*snapshot, error) {
			if f.err != nil {
				return nil, f.err
			}
			c := *s
			if at.queue == "b" {
				c.queue = []*waggle.TaskInfo{running, failed}
			}
			return &c, nil
		},
		apply: func(op driver.Op, id string) error { f.changes = append(f.changes, string(op)+" "+id); return nil },
		pause: func(queue string, pause bool) error {
			f.changes = append(f.changes, map[bool]string{true: "pause ", false: "resume "}[pause]+queue)
			return nil
		},
	}
	return f
}

// press presses keys and does all that comes of them.
func (f *topFixture) press(keys ...string) {
	f.t.Helper()
	for _, k := range keys {
		msg := tea.KeyPressMsg{Text: k, Code: []rune(k)[0]}
		switch k {
		case "enter":
			msg = tea.KeyPressMsg{Code: tea.KeyEnter}
		case "esc":
			msg = tea.KeyPressMsg{Code: tea.KeyEscape}
		case "tab":
			msg = tea.KeyPressMsg{Code: tea.KeyTab}
		case "down":
			msg = tea.KeyPressMsg{Code: tea.KeyDown}
		}
		f.send(msg)
	}
}

func (f *topFixture) send(msg tea.Msg) {
	_, cmd := f.Update(msg)
	for range 5 {
		if cmd == nil {
			return
		}
		_, cmd = f.Update(cmd())
	}
}

func (f *topFixture) shows(want string) {
	f.t.Helper()
	if text := f.View().Content; !strings.Contains(text, want) {
		f.t.Errorf("the screen does not show %q:\n%s", want, text)
	}
}

// TestTopKeys opens a queue and a task of it, and changes both.
func TestTopKeys(t *testing.T) {
	t.Parallel()
	f := newTopFixture(t)
	f.View()
	f.press("down", "p")
	f.shows("queue b is paused")
	f.press("enter")
	f.shows("TASKS OF b")
	f.shows("task-failed")
	f.press("c")
	f.shows("Cancel task-running (mail)? [y/N]")
	f.press("n")
	f.shows("nothing was changed")
	f.press("c", "y", "down", "r", "y")
	f.shows("task task-failed is made available again")
	f.press("c")
	f.shows("task task-failed is discarded: cancel is not for it")
	f.press("esc", "tab", "tab", "c", "y")
	if got, want := strings.Join(f.changes, ", "), "pause b, cancel task-running, retry task-failed, cancel task-running"; got != want {
		t.Errorf("changes: %s, want %s", got, want)
	}
	f.press("/", "x", "y", "enter")
	f.shows("only rows with xy")
	f.shows("nothing is running")
	f.press("esc", "?")
	f.shows("open a queue (its newest tasks) or a task")
}

// TestTopStays goes on after a look that failed, says so, and shows what it knew.
func TestTopStays(t *testing.T) {
	t.Parallel()
	f := newTopFixture(t)
	f.err = errors.New("no route")
	f.send(f.glance()())
	f.shows("the store does not answer, trying again: no route")
	f.shows("QUEUES 2")
	f.err = nil
	f.send(f.glance()())
	if strings.Contains(f.View().Content, "no route") {
		t.Error("the trouble is over, and still shown")
	}
}

// TestObstacles tells why available tasks wait.
func TestObstacles(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_900_000_000, 0)
	worker := func(queue string, types []string, held int, end time.Time) waggle.WorkerStatus {
		return waggle.WorkerStatus{WorkerInfo: driver.WorkerInfo{Queues: []string{queue}, Types: types, Slots: 2}, Held: held, LeaseEnd: end}
	}
	alive := now.Add(time.Second)
	for _, c := range []struct {
		name    string
		workers []waggle.WorkerStatus
		paused  bool
		want    string
	}{
		{"nobody", nil, false, "no_worker"},
		{"paused", []waggle.WorkerStatus{worker("q", nil, 0, alive)}, true, "paused"},
		{"dead", []waggle.WorkerStatus{worker("q", nil, 0, now)}, false, "no_worker"},
		{"other queue", []waggle.WorkerStatus{worker("other", nil, 0, alive)}, false, "no_worker_for_queue"},
		{"other type", []waggle.WorkerStatus{worker("q", []string{"x"}, 0, alive)}, false, "no_worker_for_type"},
		{"busy", []waggle.WorkerStatus{worker("q", []string{"t"}, 3, alive)}, false, "busy"},
		{"free", []waggle.WorkerStatus{worker("q", nil, 2, alive), worker("q", []string{"t"}, 1, alive)}, false, ""},
	} {
		got := newCrew(c.workers, now).obstacle(driver.QueueConfig{Paused: c.paused}, "q", "t")
		if kind := kindOf(got); kind != c.want {
			t.Errorf("%s: %q, want %q", c.name, kind, c.want)
		}
	}
}

func kindOf(o *obstacle) string {
	if o == nil {
		return ""
	}
	return o.Kind
}
