package web

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/waggleq/waggle/examples/chat/wire"
	"github.com/waggleq/waggle/examples/stage"
)

const (
	linesKept = 100
	doMost    = 20 * time.Second // a server that starts again has to read its file
)

// Stage is the way to the program that started the nodes: what it says about them, and what it is asked to do to them. It
// is no part of the system; a chat without it has no picture and no buttons, and works.
type Stage struct {
	out *stage.Writer

	mu      sync.Mutex
	state   *wire.State
	lines   []wire.Line
	version int
	news    chan struct{} // closed when there is any
	nextID  int64
	waiting map[int64]chan wire.Answer
}

// NewStage returns the stage behind a pair of pipes. Listen has to run.
func NewStage(out io.Writer) *Stage {
	return &Stage{out: stage.NewWriter(out), news: make(chan struct{}), waiting: map[int64]chan wire.Answer{}}
}

// Listen takes in what is said, until the other end is gone.
func (st *Stage) Listen(in io.Reader) error { return stage.Read(in, st.hear) }

// Ready says that the server serves.
func (st *Stage) Ready() { _ = st.out.Write(wire.FromProcess{Ready: true}) }

func (st *Stage) hear(m wire.ToProcess) {
	st.mu.Lock()
	defer st.mu.Unlock()
	switch {
	case m.Answer != nil:
		if c := st.waiting[m.Answer.ID]; c != nil {
			delete(st.waiting, m.Answer.ID)
			c <- *m.Answer
		}
		return
	case m.Line != nil:
		st.lines = append(st.lines, *m.Line)
		st.lines = st.lines[max(0, len(st.lines)-linesKept):]
	case m.State != nil:
		st.state = m.State
		st.version++
	}
	close(st.news)
	st.news = make(chan struct{})
}

// told is what a page has been told already.
type told struct{ version, line int }

// tell sends a page what is new, and returns a channel that is closed when there is more.
func (st *Stage) tell(out *stream, t *told) <-chan struct{} {
	if st == nil {
		return nil
	}
	st.mu.Lock()
	state, version, lines, news := st.state, st.version, st.lines, st.news
	st.mu.Unlock() // a slow page keeps nobody waiting
	if version != t.version {
		out.send("system", "", state)
		t.version = version
	}
	for _, l := range lines {
		if l.Number > t.line {
			out.send("story", "", l)
			t.line = l.Number
		}
	}
	return news
}

// do has something done to a node.
func (st *Stage) do(ctx context.Context, node, action string) error {
	st.mu.Lock()
	st.nextID++
	id := st.nextID
	answer := make(chan wire.Answer, 1)
	st.waiting[id] = answer
	st.mu.Unlock()
	if err := st.out.Write(wire.FromProcess{Request: &wire.Request{ID: id, Node: node, Action: action}}); err != nil {
		return err
	}
	select {
	case a := <-answer:
		if a.Error != "" {
			return errors.New(a.Error)
		}
		return nil
	case <-ctx.Done():
		st.mu.Lock()
		delete(st.waiting, id)
		st.mu.Unlock()
		return errors.New("it takes too long")
	}
}

// tellUsers tells the stage how many users the server has.
func (s *Server) tellUsers() {
	if s.stage != nil {
		n := s.Users()
		_ = s.stage.out.Write(wire.FromProcess{Users: &n}) // for the picture
	}
}

// control kills, freezes, thaws or starts a node: only nodes that the chat itself has started, only for its own pages.
func (s *Server) control(w http.ResponseWriter, r *http.Request) {
	switch {
	case s.stage == nil:
		fail(w, http.StatusNotFound, "this chat did not start its nodes")
	case r.Header.Get(controlHeader) == "":
		fail(w, http.StatusForbidden, "the header "+controlHeader+" is missing")
	default:
		ctx, cancel := context.WithTimeout(r.Context(), doMost)
		defer cancel()
		if err := s.stage.do(ctx, r.PathValue("node"), r.PathValue("action")); err != nil {
			fail(w, http.StatusConflict, err.Error())
			return
		}
		w.WriteHeader(http.StatusNoContent)
	}
}
