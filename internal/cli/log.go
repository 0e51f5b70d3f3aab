package cli

import (
	"context"
	"log/slog"

	"github.com/waggleq/waggle/internal/logkey"
)

// clientLog is where clients tell what no call tells: in a sentence on standard error, as everything else.
func (a *app) clientLog() *slog.Logger {
	if a.quietClient {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(&sentences{app: a})
}

// sentences prints what is logged as words for people, without the attributes but an error.
type sentences struct {
	app *app
	err string
}

func (h *sentences) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelInfo }

func (h *sentences) Handle(_ context.Context, r slog.Record) error {
	reason := h.err
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == logkey.Error {
			reason = a.Value.String()
		}
		return true
	})
	if reason != "" {
		reason = " (" + reason + ")"
	}
	h.app.say("waggle: %s", visible(r.Message+reason))
	return nil
}

func (h *sentences) WithAttrs(attrs []slog.Attr) slog.Handler {
	own := *h
	for _, a := range attrs {
		if a.Key == logkey.Error {
			own.err = a.Value.String()
		}
	}
	return &own
}

// WithGroup returns h: groups have nothing that is printed.
func (h *sentences) WithGroup(string) slog.Handler { return h }
