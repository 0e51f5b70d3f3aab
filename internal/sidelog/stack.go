package sidelog

import (
	"log/slog"
	"reflect"
	"strings"

	"github.com/waggleq/waggle/internal/logkey"
)

// stackIndent begins each line of a stack.
const stackIndent = "    "

// plainHandler is what slog.Default has before anybody has set another.
var plainHandler = reflect.TypeOf(slog.Default().Handler())

// inLines reports whether a handler is one of slog's that write text for people. In it a stack is a line for each of its own,
// as it could not be read in one; everywhere else it is one attribute.
func inLines(h slog.Handler) bool {
	_, text := h.(*slog.TextHandler)
	return text || reflect.TypeOf(h) == plainHandler
}

// Unstacked returns a record without its stack, and the stack.
func Unstacked(r slog.Record) (slog.Record, string) {
	stack := ""
	bare := slog.NewRecord(r.Time, r.Level, r.Message, r.PC)
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == logkey.Stack && a.Value.Kind() == slog.KindString {
			stack = a.Value.String()
		} else {
			bare.AddAttrs(a)
		}
		return true
	})
	if stack == "" {
		return r, ""
	}
	return bare, stack
}

// Untabbed returns a line of a stack without its end, and with blanks for its tab.
func Untabbed(line string) string {
	return strings.ReplaceAll(strings.TrimRight(line, "\r\n"), "\t", stackIndent)
}
