package faultproxy

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/waggleq/waggle/internal/resp"
)

// talk knows which reply on a connection belongs to which command.
type talk struct {
	mu         sync.Mutex
	pending    []*exchange // asked and not fully answered, in order
	greeting   [][]byte    // commands that introduced the client
	silent     bool        // nothing more goes to the client
	subscribed bool        // arrays may be messages (RESP2)
	mute, skip bool        // CLIENT REPLY OFF; SKIP
}

// exchange is one command and what is to come back for it.
type exchange struct {
	action Action
	loss   *loss
	args   [][]byte
	raw    []byte
	left   int // frames still to come
}

// confirms are the commands that are answered with one frame for each channel, in RESP3 a push.
var confirms = []string{"subscribe", "psubscribe", "ssubscribe", "unsubscribe", "punsubscribe", "sunsubscribe"}

// messages are what an array begins with that answers no command.
var messages = []string{"message", "pmessage", "smessage"}

func (x *exchange) name() string { return strings.ToLower(string(x.args[0])) }

// ask notes a command and reports whether it goes to the server.
func (t *talk) ask(c *conn, x *exchange) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(x.args) == 0 { // servers ignore an empty array
		return true
	}
	switch x.left = 1; x.name() {
	case "auth", "hello", "select", "readonly":
		t.greeting = append(t.greeting, x.raw)
		c.p.introduced(t.greeting)
	case "sync", "psync":
		x.action = Answer("ERR faultproxy: a replication stream is not RESP: use a proxy without Options.RESP")
	case "client":
		t.clientReply(x)
	}
	if slices.Contains(confirms, x.name()) {
		x.left = max(1, len(x.args)-1)
		t.subscribed = true
	}
	if t.mute || t.skip && x.left > 0 {
		x.left = 0
		t.skip = false
	}
	if x.action.verb == answer {
		x.left = 1
	}
	if x.left > 0 {
		t.pending = append(t.pending, x)
	}
	t.flush(c)
	return x.action.verb != answer
}

// clientReply follows CLIENT REPLY ON, OFF and SKIP, which change what is answered at all.
func (t *talk) clientReply(x *exchange) {
	if len(x.args) != 3 || !strings.EqualFold(string(x.args[1]), "reply") {
		return
	}
	switch strings.ToLower(string(x.args[2])) {
	case "on":
		t.mute = false
	case "off":
		t.mute = true
	case "skip":
		t.skip, x.left = true, 0
	}
}

// reply deals with one frame from the server.
func (t *talk) reply(c *conn, v resp.Value, raw []byte) {
	t.mu.Lock()
	x, greeting := t.match(v), slices.Clone(t.greeting)
	t.mu.Unlock()
	if x == nil {
		t.emit(c, raw)
		return
	}
	if x.action.verb == twice {
		second, err := c.p.replay(c.ctx, greeting, x.raw)
		c.p.replayedOnce(Replayed{Args: x.args, First: v, Second: second, Err: err})
	}
	t.settle(c, x, v, raw)
}

// settle does with a reply what the command's action says.
func (t *talk) settle(c *conn, x *exchange, v resp.Value, raw []byte) {
	t.mu.Lock()
	if x.left--; x.left <= 0 || v.Err() != nil {
		t.pending = t.pending[1:]
		x.left = 0
	}
	switch x.action.verb {
	case goSilent, lose, cutAfter:
		t.silent = true
	}
	withheld := t.silent || x.action.verb == swallowReply
	if withheld {
		c.p.repliesLost.Add(1)
		c.p.lost.Add(int64(len(raw)))
	} else {
		c.links[ServerToClient].send(raw)
	}
	t.flush(c)
	t.mu.Unlock()
	if x.left > 0 {
		return
	}
	if x.action.verb == cutAfter {
		c.reset()
	}
	if x.loss != nil {
		c.p.executed(x.loss)
	}
}

// match returns the command that a frame answers, or nil for a push or message that answers none.
func (t *talk) match(v resp.Value) *exchange {
	if len(t.pending) == 0 {
		return nil
	}
	head, first := t.pending[0], ""
	if len(v.Elems) > 0 && (v.Kind == '>' || v.Kind == '*' && (t.subscribed || slices.Contains(confirms, head.name()))) {
		first = strings.ToLower(v.Elems[0].Text)
	}
	switch {
	case slices.Contains(confirms, first) && head.name() == first:
		t.subscribed = v.Elems[len(v.Elems)-1].Int > 0 // the channels left
		return head
	case v.Kind == '>', slices.Contains(messages, first):
		return nil
	}
	return head
}

// emit hands a frame that answers no command to the client.
func (t *talk) emit(c *conn, raw []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.silent {
		c.p.lost.Add(int64(len(raw)))
		return
	}
	c.links[ServerToClient].send(raw)
}

// flush sends the answers of the proxy's own whose turn has come.
func (t *talk) flush(c *conn) {
	for len(t.pending) > 0 && t.pending[0].action.verb == answer {
		x := t.pending[0]
		t.pending = t.pending[1:]
		if !t.silent {
			c.links[ServerToClient].send([]byte("-" + x.action.reply + "\r\n"))
		}
	}
}

// abandon settles what a connection that ended leaves open, so that LoseReplies does not wait for it.
func (t *talk) abandon(p *Proxy) {
	t.mu.Lock()
	pending := t.pending
	t.pending = nil
	t.mu.Unlock()
	for _, x := range pending {
		if x.loss != nil {
			p.executed(x.loss)
		}
	}
}

// introduced keeps the commands by which a client introduced itself, for Replay.
func (p *Proxy) introduced(greeting [][]byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.greeting = slices.Clone(greeting)
}

func (p *Proxy) replayedOnce(r Replayed) {
	for i := range r.Args {
		r.Args[i] = bytes.Clone(r.Args[i])
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.replays = append(p.replays, r)
}

// streamEnd maps the end of a parsed stream to that of the bytes. Half frames and bytes that are no RESP were handed on for
// the other side to judge, and nothing can be told apart behind them, so there the stream ends in the ordinary way.
func streamEnd(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, resp.ErrProtocol) {
		return io.EOF
	}
	return err
}
