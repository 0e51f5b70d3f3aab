package cli

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"

	"github.com/waggleq/waggle/internal/sidelog"
)

// workLog is the log of the command's own workers: text, with the stack of a panic as it is, in lines below its own.
func (a *app) workLog(level slog.Level) *slog.Logger {
	return slog.New(&stackedText{slog.NewTextHandler(a.err, &slog.HandlerOptions{Level: level}), a.err})
}

type stackedText struct {
	slog.Handler
	out io.Writer
}

func (h *stackedText) Handle(ctx context.Context, r slog.Record) error {
	bare, stack := sidelog.Unstacked(r)
	if err := h.Handler.Handle(ctx, bare); err != nil || stack == "" {
		return err
	}
	var lines strings.Builder
	for line := range strings.Lines(stack) {
		fmt.Fprintf(&lines, "\t%s\n", visible(sidelog.Untabbed(line)))
	}
	_, err := io.WriteString(h.out, lines.String())
	return err
}

func (h *stackedText) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &stackedText{h.Handler.WithAttrs(attrs), h.out}
}

func (h *stackedText) WithGroup(name string) slog.Handler {
	return &stackedText{h.Handler.WithGroup(name), h.out}
}
