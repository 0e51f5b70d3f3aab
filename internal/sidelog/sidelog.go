// Package sidelog hands log lines to a slog handler that may be slow, block, panic or end its goroutine, without ever
// waiting for it. What decides (leases, outcomes, timeouts, signals) logs through it.
package sidelog

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/waggleq/waggle/internal/guard"
	"github.com/waggleq/waggle/internal/logkey"
)

// room is how many lines wait for a handler that is slower than they come. What does not fit is dropped and counted.
const room = 512

// Handler is a slog handler in front of another one. Lines keep their order. The other handler's methods, Enabled among
// them, are called on a goroutine that lives while there are lines; their values must not change after the call that
// logs them.
type Handler struct {
	queue *queue
	next  slog.Handler
	ops   []func(slog.Handler) slog.Handler // WithAttrs and WithGroup, to be called when a line is handed over
}

// New returns a handler in front of next.
func New(next slog.Handler) *Handler { return &Handler{queue: new(queue), next: next} }

// Enabled implements [slog.Handler]. It does not ask the other handler, which might block.
func (h *Handler) Enabled(context.Context, slog.Level) bool { return true }

// Handle implements [slog.Handler]. It returns at once.
func (h *Handler) Handle(_ context.Context, r slog.Record) error {
	h.queue.put(line{h, r})
	return nil
}

// WithAttrs implements [slog.Handler].
func (h *Handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return h.with(func(next slog.Handler) slog.Handler { return next.WithAttrs(attrs) })
}

// WithGroup implements [slog.Handler].
func (h *Handler) WithGroup(name string) slog.Handler {
	return h.with(func(next slog.Handler) slog.Handler { return next.WithGroup(name) })
}

func (h *Handler) with(op func(slog.Handler) slog.Handler) *Handler {
	return &Handler{h.queue, h.next, append(slices.Clip(h.ops), op)}
}

// Flush waits until all lines were handed over, or for a limited time.
func (h *Handler) Flush(limit time.Duration) {
	idle := h.queue.idle()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-idle:
	case <-timer.C:
	}
}

func (h *Handler) emit(r slog.Record) {
	next := h.next
	for _, op := range h.ops {
		next = op(next)
	}
	ctx := context.Background()
	if !next.Enabled(ctx, r.Level) {
		return
	}
	bare, stack := r, ""
	if inLines(h.next) {
		bare, stack = Unstacked(r)
	}
	_ = next.Handle(ctx, bare) // a log that fails has nobody to tell
	for line := range strings.Lines(stack) {
		_ = next.Handle(ctx, slog.NewRecord(r.Time, r.Level, stackIndent+Untabbed(line), r.PC))
	}
}

type line struct {
	h      *Handler
	record slog.Record
}

// queue holds the lines that wait. One goroutine hands them over while there are any.
type queue struct {
	mu      sync.Mutex
	lines   []line
	busy    bool // the goroutine runs
	dropped int  // lines since the last that was told
	source  *Handler
	waiting []chan struct{} // closed when there is nothing left
}

func (q *queue) put(l line) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.lines) >= room {
		q.dropped++
		q.source = l.h
		return
	}
	q.lines = append(q.lines, l)
	if !q.busy {
		q.busy = true
		go q.run()
	}
}

func (q *queue) idle() <-chan struct{} {
	q.mu.Lock()
	defer q.mu.Unlock()
	done := make(chan struct{})
	if q.busy {
		q.waiting = append(q.waiting, done)
	} else {
		close(done)
	}
	return done
}

// run hands over lines until there are none. If a handler ends the goroutine, another goes on.
func (q *queue) run() {
	for {
		l, notice, ok := q.next()
		if !ok {
			return
		}
		q.hand(l, notice)
	}
}

// hand hands over one line and counts it as dropped if the handler did not return. It does not return itself if the
// handler ends the goroutine.
func (q *queue) hand(l line, notice bool) {
	returned, exits := false, true
	defer func() {
		if !returned && !notice {
			q.lost(l.h)
		}
		if exits {
			go q.run()
		}
	}()
	returned = guard.Call(func() { l.h.emit(l.record) }) == nil
	exits = false
}

func (q *queue) lost(h *Handler) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.dropped++
	q.source = h
}

// next takes a line off the queue, or makes one that tells how many were dropped once there is room again. It reports
// false when there is none, and that the goroutine ends.
func (q *queue) next() (l line, notice, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.dropped > 0 && len(q.lines) <= room/2 {
		r := slog.NewRecord(time.Now(), slog.LevelWarn, "log lines were dropped: the log did not take them in time", 0)
		r.AddAttrs(slog.Int(logkey.Count, q.dropped))
		l = line{q.source, r}
		q.dropped, q.source = 0, nil
		return l, true, true
	}
	if len(q.lines) > 0 {
		l = q.lines[0]
		q.lines = slices.Delete(q.lines, 0, 1)
		return l, false, true
	}
	q.lines, q.busy = nil, false
	for _, w := range q.waiting {
		close(w)
	}
	q.waiting = nil
	return line{}, false, false
}
