package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"

	"github.com/waggleq/waggle"
	"github.com/waggleq/waggle/driver"
)

// The tables of the overview, in the order in which Tab goes through them.
const (
	tableQueues = iota
	tableWorkers
	tableRunning
	topTables
)

// topModel is the state of the live view.
type topModel struct {
	topView
	look  func(at place) (*snapshot, error)
	apply func(op driver.Op, id string) error
	pause func(queue string, pause bool) error
	every time.Duration

	typing      bool // the keys go into the filter
	ask         *topQuestion
	interrupted bool
	looking     bool // a look is under way
}

// topQuestion is a change that waits for a yes.
type topQuestion struct {
	text string
	do   func() error
	done string
}

func newTopModel(ctx context.Context, a *app, c *waggle.Client, first *snapshot, every time.Duration) *topModel {
	return &topModel{
		topView: topView{s: first, term: a.outTerm, width: topWidth, height: topHeight},
		every:   every,
		look:    func(at place) (*snapshot, error) { return a.look(ctx, c, at) },
		apply: func(op driver.Op, id string) error {
			r, err := c.Apply(ctx, driver.Change{Op: op, IDs: []string{id}})
			if err == nil && len(r.Errors) > 0 {
				err = r.Errors[0]
			}
			return err
		},
		pause: func(queue string, pause bool) error {
			_, err := c.Store().SetQueue(ctx, queue, driver.QueuePatch{Paused: &pause})
			return err
		},
	}
}

type (
	topTick struct{}
	topLook struct {
		s   *snapshot
		at  place
		err error
	}
	topDone struct {
		text string
		err  error
	}
)

func (m *topModel) tick() tea.Cmd {
	return tea.Tick(m.every, func(time.Time) tea.Msg { return topTick{} })
}

// glance looks at the store at once, unless a look is under way.
func (m *topModel) glance() tea.Cmd {
	if m.looking {
		return nil
	}
	m.looking = true
	at := m.at
	return func() tea.Msg {
		s, err := m.look(at)
		return topLook{s, at, err}
	}
}

// Init begins the ticks.
func (m *topModel) Init() tea.Cmd { return m.tick() }

// Update takes keys, sizes and what was seen in the store.
func (m *topModel) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		m.width, m.height = msg.Width, msg.Height
	case tea.KeyPressMsg:
		return m, m.key(msg)
	case topTick:
		return m, tea.Batch(m.glance(), m.tick())
	case topLook:
		m.looking = false
		m.trouble = msg.err
		if msg.err == nil {
			m.before, m.s = m.s, msg.s
		}
		if msg.at != m.at {
			return m, m.glance()
		}
	case topDone:
		m.said = msg.text
		if msg.err != nil {
			m.said = oneLine(msg.err)
		}
		return m, m.glance()
	}
	return m, nil
}

// View draws the frame.
func (m *topModel) View() tea.View {
	m.prompt = ""
	switch {
	case m.ask != nil:
		m.prompt = m.ask.text + " [y/N]"
	case m.typing:
		m.prompt = "filter: " + m.filter + "▏"
	}
	v := tea.NewView(m.frame())
	v.AltScreen = true
	return v
}

// key acts on a key.
func (m *topModel) key(k tea.KeyPressMsg) tea.Cmd {
	name := k.String()
	if name == "ctrl+c" {
		m.interrupted = true
		return tea.Quit
	}
	switch {
	case m.ask != nil:
		return m.answer(name)
	case m.typing:
		m.typeFilter(name, k.Text)
		return nil
	}
	m.said = ""
	switch name {
	case "q":
		return tea.Quit
	case "esc", "backspace", "left", "h":
		return m.back()
	case "?":
		m.help = !m.help
	case "tab":
		m.focus = (m.focus + 1) % topTables
		m.row = 0
	case "shift+tab":
		m.focus = (m.focus + topTables - 1) % topTables
		m.row = 0
	case "up", "k":
		m.row--
	case "down", "j":
		m.row++
	case "pgup":
		m.row -= 10
	case "pgdown":
		m.row += 10
	case "home", "g":
		m.row = 0
	case "end", "G":
		m.row = topTasks
	case "/":
		m.typing = true
	case "enter", "right", "l":
		return m.enter()
	case "p":
		return m.pauseQueue()
	case "r":
		return m.askFor(driver.OpRetry, "Retry", "made available again")
	case "c":
		return m.askFor(driver.OpCancel, "Cancel", "cancelled, or told to stop")
	}
	return nil
}

func (m *topModel) typeFilter(name, text string) {
	switch name {
	case "enter":
		m.typing = false
	case "esc":
		m.typing, m.filter = false, ""
	case "backspace":
		if r := []rune(m.filter); len(r) > 0 {
			m.filter = string(r[:len(r)-1])
		}
	default:
		m.filter += visible(text)
	}
	m.row = 0
}

// back closes what was opened last, then the filter; with nothing to close it ends.
func (m *topModel) back() tea.Cmd {
	switch {
	case m.help:
		m.help = false
	case m.at.task != "":
		m.at.task = ""
	case m.at.queue != "":
		m.at.queue, m.row = "", 0
	case m.filter != "":
		m.filter = ""
	}
	return m.glance()
}

// enter opens the queue or task under the bar.
func (m *topModel) enter() tea.Cmd {
	switch {
	case m.at.task != "":
		return nil
	case m.at.queue == "" && m.focus == tableQueues:
		if q := m.selectedQueue(); q != nil {
			m.at.queue, m.row, m.s.queue = q.Name, 0, nil
		}
	default:
		if t := m.selectedTask(); t != nil {
			m.at.task, m.s.open = t.ID, &taskDetail{TaskInfo: t}
		}
	}
	return m.glance()
}

func (m *topModel) pauseQueue() tea.Cmd {
	q := m.selectedQueue()
	if q == nil {
		m.said = "choose a queue first: Tab and the arrow keys"
		return nil
	}
	name, pause := q.Name, !q.Paused
	return func() tea.Msg {
		text := "queue " + name + " is resumed"
		if pause {
			text = "queue " + name + " is paused"
		}
		return topDone{text, m.pause(name, pause)}
	}
}

// askFor asks before a change to the task under the bar.
func (m *topModel) askFor(op driver.Op, verb, done string) tea.Cmd {
	t := m.selectedTask()
	if t == nil {
		m.said = "choose a task first: Tab and the arrow keys, Enter opens a queue"
		return nil
	}
	if !slices.Contains(op.From(), t.State) {
		m.said = fmt.Sprintf("task %s is %s: %s is not for it", t.ID, t.State, strings.ToLower(verb))
		return nil
	}
	id := t.ID
	m.ask = &topQuestion{text: fmt.Sprintf("%s %s (%s)?", verb, id, t.Type), do: func() error { return m.apply(op, id) }, done: "task " + id + " is " + done}
	return nil
}

func (m *topModel) answer(name string) tea.Cmd {
	q := m.ask
	m.ask = nil
	if name != "y" && name != "Y" {
		m.said = "nothing was changed"
		return nil
	}
	return func() tea.Msg { return topDone{q.done, q.do()} }
}
