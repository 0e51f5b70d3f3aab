package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"
	"github.com/spf13/cobra"

	"github.com/waggleq/waggle"
	"github.com/waggleq/waggle/driver"
)

const (
	topWidth  = 80 // of a frame that is not for a terminal
	topHeight = 24
	topActive = 1000 // running tasks that are looked at
)

func (a *app) topCommand() *cobra.Command {
	every := time.Second
	cmd := &cobra.Command{
		Use: "top", Short: "Watch queues, workers and running tasks", GroupID: "watch", Args: noArgs,
		Long: "Shows queues, workers and running tasks, and goes on until q is pressed. Away from a terminal it prints one\n" +
			"frame; with -o json what is in it.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withClient(cmd.Context(), func(c *waggle.Client) error { return a.top(cmd.Context(), c, every) })
		},
	}
	cmd.Flags().Var(&span{&every, 100 * time.Millisecond}, "interval", "how often to look")
	return cmd
}

// snapshot is what top shows.
type snapshot struct {
	Store   string                `json:"store"`
	Now     time.Time             `json:"now"`
	Bytes   int64                 `json:"bytes"`
	Warn    []string              `json:"warnings"`
	Queues  []queueRow            `json:"queues"`
	Workers []waggle.WorkerStatus `json:"workers"`
	Active  []*waggle.TaskInfo    `json:"active"`

	totals  driver.Totals
	configs []driver.QueueConfig // parallel to Queues
}

func (a *app) look(ctx context.Context, c *waggle.Client) (*snapshot, error) {
	info, err := c.Info(ctx)
	if err != nil {
		return nil, err
	}
	s := &snapshot{Store: a.storeURL(), Now: info.Now, Bytes: info.Bytes, Warn: info.Warnings, Queues: []queueRow{}, Active: []*waggle.TaskInfo{}}
	queues, err := c.Queues(ctx)
	if err != nil {
		return nil, err
	}
	for i := range queues {
		s.Queues, s.configs = append(s.Queues, rowOf(&queues[i], info.Now)), append(s.configs, queues[i].Config)
		t := &queues[i].Totals
		s.totals.Enqueued += t.Enqueued
		s.totals.Completed += t.Completed
		s.totals.Failed += t.Failed
	}
	if s.Workers, err = c.Workers(ctx); err != nil {
		return nil, err
	}
	page, err := c.List(ctx, driver.Filter{States: []driver.State{driver.Active}}, driver.Page{Size: topActive})
	if err != nil {
		return nil, err
	}
	s.Active = append(s.Active, page.Tasks...)
	slices.SortStableFunc(s.Active, func(x, y *waggle.TaskInfo) int { return x.ClaimedAt.Compare(y.ClaimedAt) })
	return s, nil
}

func (a *app) top(ctx context.Context, c *waggle.Client, every time.Duration) error {
	first, err := a.look(ctx, c)
	if err != nil {
		return err
	}
	if a.format != formatTable || !a.outTerm.is || !a.inTerm.is {
		return a.printObject(first, func() error {
			_, err := fmt.Fprintln(a.out, strings.TrimRight(frame(first, nil, terminal{}, topWidth, topHeight), "\n"))
			return err
		})
	}
	m := &topModel{now: first, term: a.outTerm, every: every, width: topWidth, height: topHeight,
		look: func() (*snapshot, error) { return a.look(ctx, c) }}
	_, err = tea.NewProgram(m, tea.WithContext(ctx), tea.WithInput(a.in), tea.WithOutput(a.out), tea.WithoutSignalHandler(),
		tea.WithEnvironment(os.Environ())).Run()
	switch {
	case m.interrupted:
		return errInterruptedByKey
	case errors.Is(err, tea.ErrProgramKilled) && ctx.Err() != nil:
		return context.Cause(ctx)
	}
	return errors.Join(err, m.err)
}

// errInterruptedByKey is Ctrl-C in a terminal whose keys the program reads itself.
var errInterruptedByKey = &codedError{code: exitInterrupted}

// topModel is the state of the live view.
type topModel struct {
	now, before   *snapshot
	look          func() (*snapshot, error)
	every         time.Duration
	term          terminal
	width, height int
	interrupted   bool
	err           error
}

type (
	topTick struct{}
	topLook struct {
		s   *snapshot
		err error
	}
)

func (m *topModel) tick() tea.Cmd {
	return tea.Tick(m.every, func(time.Time) tea.Msg { return topTick{} })
}

// Init begins the ticks.
func (m *topModel) Init() tea.Cmd { return m.tick() }

// Update takes keys, sizes and what was seen in the store.
func (m *topModel) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		m.width, m.height = msg.Width, msg.Height
	case tea.KeyPressMsg:
		switch msg.String() {
		case "ctrl+c":
			m.interrupted = true
			return m, tea.Quit
		case "q", "esc":
			return m, tea.Quit
		}
	case topTick:
		return m, func() tea.Msg {
			s, err := m.look()
			return topLook{s, err}
		}
	case topLook:
		if msg.err != nil {
			m.err = msg.err
			return m, tea.Quit
		}
		m.before, m.now = m.now, msg.s
		return m, m.tick()
	}
	return m, nil
}

// View draws the frame.
func (m *topModel) View() tea.View {
	v := tea.NewView(frame(m.now, m.before, m.term, m.width, m.height))
	v.AltScreen = true
	return v
}

// frame draws a snapshot into width × height characters. before, if there is one, gives the rates.
func frame(s, before *snapshot, term terminal, width, height int) string {
	rows := max(height-8, 3) // without headings, the lines between and the footer
	queues := min(len(s.Queues), max(rows/3, rows-len(s.Workers)-len(s.Active)))
	workers := min(len(s.Workers), max(rows/4, rows-queues-len(s.Active)))
	active := min(len(s.Active), max(rows-queues-workers, 1))

	var b strings.Builder
	fmt.Fprintln(&b, term.paint(bold, "waggle top")+"  "+s.Now.Local().Format(time.TimeOnly)+"  "+size(s.Bytes)+ratesText(s, before)+"  "+visible(s.Store))
	for _, w := range s.Warn {
		fmt.Fprintln(&b, term.paint(yellow, visible(w)))
	}
	b.WriteByte('\n')
	queueTable(&b, s, term, queues)
	b.WriteByte('\n')
	workerTable(&b, s, term, workers)
	b.WriteByte('\n')
	activeTable(&b, s, term, active)
	return fit(b.String(), term, width, height)
}

func ratesText(s, before *snapshot) string {
	if before == nil {
		return ""
	}
	secs := s.Now.Sub(before.Now).Seconds()
	if secs <= 0 {
		return ""
	}
	rate := func(now, then int64) string { return grouped(int64(float64(now-then)/secs+0.5)) + "/s" }
	return fmt.Sprintf("  in %s  done %s  failed %s", rate(s.totals.Enqueued, before.totals.Enqueued),
		rate(s.totals.Completed, before.totals.Completed), rate(s.totals.Failed, before.totals.Failed))
}

func queueTable(b *strings.Builder, s *snapshot, term terminal, n int) {
	term.is = false // the frame is cut to its width as a whole
	t := newTable(b, term, []column{left(fmt.Sprintf("QUEUES %d", len(s.Queues))), right("AVAIL"), right("ACTIVE"), right("SCHED"),
		right("RETRY"), right("DONE"), right("DISC"), right("OLDEST"), left("NOTE")})
	for i, q := range s.Queues[:n] {
		cells := queueCells(q, s.configs[i])
		_ = t.add([]string{ansi.Truncate(cells[0], 24, "…"), cells[1], cells[2], cells[3], cells[4], cells[6], cells[7], cells[9], cells[10]})
	}
	orNone(b, t, len(s.Queues), "no queues")
}

func workerTable(b *strings.Builder, s *snapshot, term terminal, n int) {
	term.is = false
	t := newTable(b, term, []column{left(fmt.Sprintf("WORKERS %d", len(s.Workers))), left("HOST"), right("PID"), right("BUSY"), right("UP"), left("QUEUES")})
	for _, w := range s.Workers[:n] {
		_ = t.add([]string{ansi.Truncate(w.ID, 32, "…"), ansi.Truncate(w.Host, 16, "…"), fmt.Sprint(w.PID), fmt.Sprintf("%d/%d", w.Held, w.Slots),
			roughly(s.Now.Sub(w.Since)), strings.Join(w.Queues, ",")})
	}
	orNone(b, t, len(s.Workers), "no workers")
}

func activeTable(b *strings.Builder, s *snapshot, term terminal, n int) {
	term.is = false
	t := newTable(b, term, []column{left(fmt.Sprintf("RUNNING %d", len(s.Active))), left("TYPE"), right("FOR"), right("TRY"), left("PROGRESS"), left("WORKER")})
	for _, x := range s.Active[:n] {
		progress := ""
		if x.Progress != nil {
			progress = progressText(x.Progress)
		}
		_ = t.add([]string{ansi.Truncate(x.ID, 36, "…"), ansi.Truncate(x.Type, 20, "…"), roughly(s.Now.Sub(x.ClaimedAt)), fmt.Sprint(x.Attempt),
			progress, ansi.Truncate(x.Worker, 20, "…")})
	}
	orNone(b, t, len(s.Active), "nothing is running")
}

// orNone prints a table, or says that it is empty.
func orNone(b *strings.Builder, t *table, n int, none string) {
	if n == 0 {
		fmt.Fprintln(b, t.term.paint(dim, none))
	}
	_ = t.flush() // a string takes everything
}

// fit cuts a text to the screen, and puts the footer on its last line.
func fit(text string, term terminal, width, height int) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	if len(lines) > height-1 {
		lines = lines[:max(height-1, 0)]
	}
	for i := range lines {
		lines[i] = ansi.Truncate(lines[i], width, "…")
	}
	if term.is {
		for len(lines) < height-1 {
			lines = append(lines, "")
		}
		lines = append(lines, ansi.Truncate(term.paint(dim, "q quits"), width, ""))
	}
	return strings.Join(lines, "\n")
}
