package waggle

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"

	"github.com/waggleq/waggle/internal/logkey"
)

// taskHandler is a slog handler that writes to a task's log besides another handler.
type taskHandler struct {
	task *Task
	next slog.Handler
	json slog.Handler // renders the attributes as a JSON object
	out  *attrBuffer  // what json writes to; shared by all handlers made from one
}

// attrBuffer takes what a JSON handler writes, without the members that every line has.
type attrBuffer struct {
	mu   sync.Mutex
	buf  bytes.Buffer
	skip int // members to drop: the level and the message come first
}

func newTaskLogger(t *Task) *slog.Logger {
	out := &attrBuffer{}
	json := slog.NewJSONHandler(&out.buf, &slog.HandlerOptions{
		Level: slog.LevelDebug - 100,
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if out.skip > 0 {
				out.skip--
				return slog.Attr{}
			}
			return a
		},
	})
	next := t.w.opts.Logger.With(logkey.TaskID, t.ID, logkey.TaskType, t.Type, logkey.Queue, t.Queue, logkey.Attempt, t.Attempt)
	return slog.New(&taskHandler{t, next.Handler(), json, out})
}

// Enabled implements [slog.Handler].
func (h *taskHandler) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= slog.LevelInfo || h.next.Enabled(ctx, level)
}

// Handle implements [slog.Handler].
func (h *taskHandler) Handle(ctx context.Context, r slog.Record) error {
	if r.Level >= slog.LevelInfo && !h.task.isOver() {
		h.task.job.Log(LogLine{Time: r.Time, Level: strings.ToLower(r.Level.String()), Message: r.Message, Attrs: h.attrs(ctx, r)})
	}
	if !h.next.Enabled(ctx, r.Level) {
		return nil
	}
	return h.next.Handle(ctx, r)
}

func (h *taskHandler) attrs(ctx context.Context, r slog.Record) string {
	h.out.mu.Lock()
	defer h.out.mu.Unlock()
	bare := slog.NewRecord(r.Time, r.Level, "", 0)
	bare.Time = bare.Time.Truncate(0)
	r.Attrs(func(a slog.Attr) bool { bare.AddAttrs(a); return true })
	h.out.buf.Reset()
	h.out.skip = 3 // time, level, message
	if r.Time.IsZero() {
		h.out.skip = 2
	}
	if err := h.json.Handle(ctx, bare); err != nil {
		return ""
	}
	text := strings.TrimSpace(h.out.buf.String())
	if text == "{}" {
		return ""
	}
	return text
}

// WithAttrs implements [slog.Handler].
func (h *taskHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	h.out.mu.Lock()
	defer h.out.mu.Unlock()
	return &taskHandler{h.task, h.next.WithAttrs(attrs), h.json.WithAttrs(attrs), h.out}
}

// WithGroup implements [slog.Handler].
func (h *taskHandler) WithGroup(name string) slog.Handler {
	return &taskHandler{h.task, h.next.WithGroup(name), h.json.WithGroup(name), h.out}
}
