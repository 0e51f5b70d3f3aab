package web

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/waggleq/waggle/examples/chat/room"
)

const (
	// beat is how often a page is told that its web server lives, and stallMost how long one may be slow to read before it
	// is cut off; it comes back by itself and goes on after the last number it had.
	beat      = time.Second
	stallMost = 5 * time.Second
	usersMost = 2000
)

// events is the stream of a room, as Server-Sent Events: what was said after the number that the client has last, and with
// ?system what happens in the system.
func (s *Server) events(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("room")
	after, err := lastNumber(r)
	if err := cmp(room.CheckName(name), err); err != nil {
		fail(w, http.StatusBadRequest, err.Error())
		return
	}
	if r.Form.Has("tail") {
		after = s.tail(r.Context(), name, after, r.Form.Get("tail"))
	}
	if n := s.users.Add(1); n > usersMost {
		s.users.Add(-1)
		fail(w, http.StatusServiceUnavailable, "this server has as many users as it can take: use the other")
		return
	}
	s.tellUsers()
	defer func() { s.users.Add(-1); s.tellUsers() }()
	w.Header().Set("Content-Type", "text/event-stream")
	reader := s.follower.Open(name, after)
	defer reader.Close()
	stream := &stream{w: w, c: http.NewResponseController(w)}
	s.stream(r.Context(), stream, reader, name, r.Form.Has("system"))
}

// tail is where a page begins that wants the last messages and has seen none yet.
func (s *Server) tail(ctx context.Context, name string, after int64, most string) int64 {
	n, err := strconv.ParseInt(most, 10, 64)
	length, err2 := s.sender.Database.Length(ctx, name)
	if err != nil || err2 != nil || after > 0 {
		return after // from the beginning, then
	}
	return max(0, length-max(0, n))
}

// lastNumber is what the client has seen: EventSource says so itself when it comes back to the same address.
func lastNumber(r *http.Request) (int64, error) {
	if err := r.ParseForm(); err != nil {
		return 0, err
	}
	text := r.Header.Get("Last-Event-ID")
	if text == "" {
		text = r.Form.Get("after")
	}
	if text == "" {
		return 0, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("%.40q is no number of a message", text)
	}
	return n, nil
}

// stream writes until the client is gone, or too slow.
func (s *Server) stream(ctx context.Context, out *stream, reader *room.Reader, name string, system bool) {
	var moves <-chan room.Hint
	var news <-chan struct{}
	if system {
		sub := s.moves.join(name)
		defer s.moves.leave(sub)
		moves = sub.hints
	}
	told := &told{}
	tick := time.NewTicker(beat)
	defer tick.Stop()
	out.send("beat", "", s.role.Name)
	for out.err == nil {
		if system {
			news = s.stage.tell(out, told)
		}
		entries, grown, err := reader.Next(ctx)
		for _, e := range entries {
			out.send("message", strconv.FormatInt(e.Number, 10), e)
		}
		out.flush()
		if len(entries) > 0 && err == nil {
			continue
		}
		select {
		case <-grown:
		case <-news:
		case h := <-moves:
			out.send("move", "", h)
		case <-tick.C:
			out.send("beat", "", s.role.Name)
		case <-ctx.Done():
			return
		}
	}
}

// stream is a connection that events are written to. After the first failure it does nothing.
type stream struct {
	w   http.ResponseWriter
	c   *http.ResponseController
	err error
}

func (s *stream) send(event, id string, v any) {
	b, err := json.Marshal(v) // has no line breaks in it
	if s.err != nil || err != nil {
		return
	}
	_ = s.c.SetWriteDeadline(time.Now().Add(stallMost)) // every connection has one
	if id != "" {
		_, s.err = fmt.Fprintf(s.w, "id: %s\n", id)
	}
	if s.err == nil {
		_, s.err = fmt.Fprintf(s.w, "event: %s\ndata: %s\n\n", event, b)
	}
}

func (s *stream) flush() {
	if s.err == nil {
		s.err = s.c.Flush()
	}
}

func cmp(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
