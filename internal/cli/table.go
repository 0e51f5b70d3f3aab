package cli

import (
	"bufio"
	"fmt"
	"io"
	"strings"
	"unicode"

	"github.com/charmbracelet/x/ansi"
)

// column is a column of a table.
type column struct {
	title string
	right bool // numbers
}

// left and right are columns by their alignment.
func left(title string) column  { return column{title: title} }
func right(title string) column { return column{title: title, right: true} }

// tableBlock is how many rows are aligned together, so that a list of any length is printed as it comes.
const tableBlock = 200

// table aligns rows. At a terminal it colours states and cuts the last column at the edge.
type table struct {
	w       *bufio.Writer
	term    terminal
	columns []column
	rows    [][]string
	widths  []int
	begun   bool
}

func newTable(w io.Writer, term terminal, columns []column) *table {
	t := &table{w: bufio.NewWriter(w), term: term, columns: columns, widths: make([]int, len(columns))}
	for i, c := range columns {
		t.widths[i] = ansi.StringWidth(c.title)
	}
	return t
}

func (t *table) add(row []string) error {
	for i := range row {
		row[i] = visible(row[i])
		t.widths[i] = max(t.widths[i], ansi.StringWidth(row[i]))
	}
	t.rows = append(t.rows, row)
	if len(t.rows) == tableBlock {
		return t.flush()
	}
	return nil
}

// flush prints the rows that have come together. Later rows are as wide as these at least.
func (t *table) flush() error {
	if len(t.rows) > 0 && !t.begun {
		t.begun = true
		titles := make([]string, len(t.columns))
		for i, c := range t.columns {
			titles[i] = c.title
		}
		t.line(titles, true)
	}
	for _, row := range t.rows {
		t.line(row, false)
	}
	t.rows = t.rows[:0]
	return t.w.Flush()
}

func (t *table) line(cells []string, head bool) {
	var b strings.Builder
	for i, cell := range cells {
		pad := strings.Repeat(" ", t.widths[i]-ansi.StringWidth(cell))
		last := i == len(cells)-1
		text := t.term.paint(stateColour(cell), cell)
		if head {
			text = t.term.paint(dim, cell)
		}
		switch {
		case t.columns[i].right:
			b.WriteString(pad + text)
		case last:
			b.WriteString(text)
		default:
			b.WriteString(text + pad)
		}
		if !last {
			b.WriteString("  ")
		}
	}
	line := b.String()
	if t.term.is && t.term.width > 0 {
		line = ansi.Truncate(line, t.term.width, "…")
	}
	fmt.Fprintln(t.w, line)
}

// visible returns s on one line and without control characters, so that a task's texts can't move the cursor, colour
// the screen or forge a line.
func visible(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t' || r == '\r':
			return ' '
		case unicode.IsControl(r) || unicode.Is(unicode.Cf, r) || r == '\u2028' || r == '\u2029':
			return '·'
		}
		return r
	}, strings.ToValidUTF8(s, "\uFFFD"))
}
