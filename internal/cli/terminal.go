package cli

import (
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"

	"github.com/waggleq/waggle/driver"
)

// terminal tells whether a file is a terminal, and how to write to it.
type terminal struct {
	is     bool
	colour bool
	width  int // columns; 0: unknown
}

// small reports whether a table has to make do with fewer columns.
func (t terminal) small() bool { return t.is && t.width > 0 && t.width < narrow }

func describeTerminal(f *os.File) terminal {
	fd := int(f.Fd())
	if !term.IsTerminal(fd) {
		return terminal{}
	}
	width, _, err := term.GetSize(fd)
	if err != nil {
		width = 0
	}
	return terminal{is: true, colour: os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb", width: width}
}

// colour is an SGR code; "" is none.
type colour string

const (
	dim     colour = "2"
	bold    colour = "1"
	red     colour = "31"
	green   colour = "32"
	yellow  colour = "33"
	blue    colour = "34"
	magenta colour = "35"
	cyan    colour = "36"
)

func (t terminal) paint(c colour, s string) string {
	if !t.colour || c == "" || s == "" {
		return s
	}
	return "\x1b[" + string(c) + "m" + s + "\x1b[0m"
}

// stateColour is the colour of a cell that is a state, and none for other cells.
func stateColour(s string) colour {
	switch driver.State(s) {
	case driver.Completed:
		return green
	case driver.Active:
		return cyan
	case driver.Retryable:
		return yellow
	case driver.Discarded:
		return red
	case driver.Scheduled, driver.Pending:
		return blue
	case driver.Cancelled:
		return magenta
	}
	return ""
}

// progressPause is how long a bar stays as it is at least.
const progressPause = 100 * time.Millisecond

// progress is a bar for long work. Away from a terminal it shows nothing.
type progress struct{ bar *progressbar.ProgressBar }

// newProgress begins a bar; total -1 is unknown.
func (a *app) newProgress(total int, what string) *progress {
	if !a.errTerm.is {
		return &progress{}
	}
	return &progress{progressbar.NewOptions(total,
		progressbar.OptionSetWriter(a.err),
		progressbar.OptionSetDescription(what),
		progressbar.OptionShowCount(),
		progressbar.OptionShowIts(),
		progressbar.OptionSetItsString("tasks"),
		progressbar.OptionThrottle(progressPause),
		progressbar.OptionSetWidth(24),
		progressbar.OptionClearOnFinish(),
		progressbar.OptionEnableColorCodes(false),
	)}
}

func (p *progress) add(n int) {
	if p.bar != nil {
		_ = p.bar.Add(n) // it is decoration
	}
}

func (p *progress) set(n int) {
	if p.bar != nil {
		_ = p.bar.Set(n)
	}
}

// close clears the bar.
func (p *progress) close() {
	if p.bar != nil {
		_ = p.bar.Finish()
	}
}
