package cli

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/charmbracelet/x/ansi"
	"github.com/spf13/cobra"
)

// helpColumns is how wide help becomes at most, and how wide it is away from a terminal: texts keep their own lines there.
const helpColumns = 100

const helpTail = `
Every flag can be set in the environment: --store is WAGGLE_STORE, --max-attempts is WAGGLE_MAX_ATTEMPTS.
Exit codes: 0 ok, 1 failed, 2 usage, 3 not found, 4 conflict, 5 queue full, 6 store unreachable, 7 partly done, 130 interrupted.
`

// printHelp prints the help of a command. At a terminal its lines end between words.
func (a *app) printHelp(cmd *cobra.Command, _ []string) {
	about := cmd.Long
	if about == "" {
		about = cmd.Short
	}
	about, usage := strings.TrimRight(about, " \n")+"\n\n", cmd.UsageString()+helpTail
	if a.outTerm.is && a.outTerm.width > 0 {
		width := min(a.outTerm.width, helpColumns)
		about, usage = wrapLines(joinLines(about), width), wrapLines(usage, width)
	}
	fmt.Fprint(cmd.OutOrStdout(), about+usage)
}

// joinLines makes one line of each paragraph. Indented lines and lists stay as they are.
func joinLines(text string) string {
	var b strings.Builder
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		b.WriteString(line)
		if i == len(lines)-1 {
			break
		}
		if next := lines[i+1]; line != "" && next != "" && line[0] != ' ' && next[0] != ' ' {
			b.WriteByte(' ')
		} else {
			b.WriteByte('\n')
		}
	}
	return b.String()
}

// describedLine is a line of help in two columns: a flag or a command, and what it does.
var describedLine = regexp.MustCompile(`^ +\S.*? {2,}`)

// wrapLines breaks lines between words. What goes on does so below where the text began.
func wrapLines(text string, width int) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, " \n")
		if ansi.StringWidth(line) <= width {
			b.WriteString(line + "\n")
			continue
		}
		head := describedLine.FindString(line)
		if head == "" || len(head) > width/2 {
			head = line[:len(line)-len(strings.TrimLeft(line, " "))]
		}
		indent := strings.Repeat(" ", ansi.StringWidth(head))
		column := len(indent)
		b.WriteString(head)
		for i, word := range strings.Fields(line[len(head):]) {
			switch n := ansi.StringWidth(word); {
			case i == 0:
				column += n
			case column+1+n > width:
				b.WriteString("\n" + indent)
				column = len(indent) + n
			default:
				b.WriteByte(' ')
				column += 1 + n
			}
			b.WriteString(word)
		}
		b.WriteByte('\n')
	}
	return b.String()
}
