package cli

import (
	"bytes"
	"strings"
	"testing"

	"github.com/charmbracelet/x/ansi"
	"github.com/spf13/cobra"
)

// TestHelpFitsTheTerminal holds the help of every command to the width of a terminal.
func TestHelpFitsTheTerminal(t *testing.T) {
	t.Parallel()
	for _, width := range []int{60, 80, 200} {
		var out bytes.Buffer
		a := &app{out: &out, env: func(string) string { return "" }, outTerm: terminal{is: true, width: width}}
		root := a.root()
		root.SetOut(&out)
		for _, c := range append(commandsBelow(root), root) {
			out.Reset()
			if err := c.Help(); err != nil {
				t.Fatal(err)
			}
			for line := range strings.Lines(out.String()) {
				line = strings.TrimRight(line, "\n")
				example := strings.Contains(c.Example, strings.TrimSpace(line))
				if ansi.StringWidth(line) > min(width, helpColumns) && strings.Contains(strings.TrimSpace(line), " ") && !example && width >= 80 {
					t.Errorf("%s: the line %q is wider than %d columns", c.CommandPath(), line, width)
				}
			}
			if got, want := oneSpaced(out.String()), oneSpaced(plainHelp(c)); got != want {
				t.Errorf("%s at %d columns says something else:\n%s\n%s", c.CommandPath(), width, got, want)
			}
		}
	}
}

func plainHelp(c *cobra.Command) string {
	about := c.Long
	if about == "" {
		about = c.Short
	}
	return about + "\n" + c.UsageString() + helpTail
}

func oneSpaced(text string) string { return strings.Join(strings.Fields(text), " ") }

func TestWrapLines(t *testing.T) {
	t.Parallel()
	got := wrapLines("a few words here\n  -f, --flag   does what it is told\n\nx\n", 20)
	want := "a few words here\n  -f, --flag   does\n               what\n               it is\n               told\n\nx\n"
	if got == want {
		return
	}
	// A head of more than half of the width is not one to hang below.
	if want = "a few words here\n  -f, --flag does\n  what it is told\n\nx\n"; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
