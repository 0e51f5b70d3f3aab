package faultproxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"

	"github.com/waggleq/waggle/internal/resp"
)

type verb int

const (
	forward verb = iota
	swallowReply
	goSilent
	cutAfter
	cutBefore
	vanish
	twice
	answer
	lose // by LoseReplies
)

// Action is what happens to one command. The zero value forwards it.
type Action struct {
	verb  verb
	reply string
}

// Forward hands the command on, and its reply back.
func Forward() Action { return Action{} }

// SwallowReply lets the command be executed and withholds its reply, alone: those of later commands are handed on. A
// client that does not give the connection up would take the next reply for this one, so GoSilent is closer to a network.
func SwallowReply() Action { return Action{verb: swallowReply} }

// GoSilent lets the command be executed and withholds its reply and everything the server sends on this connection later.
func GoSilent() Action { return Action{verb: goSilent} }

// CutAfter cuts the connection (RST) once the command was executed, instead of its reply.
func CutAfter() Action { return Action{verb: cutAfter} }

// CutBefore cuts the connection (RST) instead of handing the command on. Commands before it in a pipeline may have been
// executed without a reply.
func CutBefore() Action { return Action{verb: cutBefore} }

// Vanish swallows the command and everything the client sends on this connection later. The client is told nothing.
func Vanish() Action { return Action{verb: vanish} }

// Twice lets the command be executed and then a second time, on a connection of its own that introduces itself with the
// same AUTH, HELLO and SELECT commands; then the first reply is handed back. See Replays.
func Twice() Action { return Action{verb: twice} }

// Answer gives the client this reply in the command's place in the pipeline, without asking the server: an error with its
// code, such as "LOADING Redis is loading the dataset in memory".
func Answer(reply string) Action { return Action{verb: answer, reply: reply} }

// Replayed is a command that was executed twice.
type Replayed struct {
	Args          [][]byte
	First, Second resp.Value
	// Err is why the second execution failed, if it did. An error reply is not a failure.
	Err error
}

// loss is a pending LoseReplies.
type loss struct {
	match       func([][]byte) bool
	left        int // commands still to be chosen
	outstanding int // chosen, not executed yet
	conns       []*conn
}

// OnCommand sets the function that decides about each command from now on; nil forwards all. It is called for one
// command of a connection after the other, but for several connections at once. It may keep args and must not change them.
func (p *Proxy) OnCommand(decide func(args [][]byte) Action) error {
	if !p.o.RESP {
		return ErrNotRESP
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hook = decide
	return nil
}

// LoseReplies lets the next n commands for which match returns true be executed in full, withholds their replies and all
// later ones on their connections, and cuts these connections once the last of the n was executed. A nil match takes
// every command, also those of a client's handshake. It replaces an earlier LoseReplies that is still pending.
func (p *Proxy) LoseReplies(n int, match func(args [][]byte) bool) error {
	if !p.o.RESP {
		return ErrNotRESP
	}
	if n < 1 {
		return fmt.Errorf("faultproxy: LoseReplies needs at least one command, not %d", n)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.loss = &loss{match: match, left: n}
	return nil
}

// Replays returns the commands executed twice so far. A command is in it before its client has the reply.
func (p *Proxy) Replays() []Replayed {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.replays)
}

// Replay executes a command, such as one recorded by an OnCommand function, on a fresh connection past all faults. The
// connection introduces itself as the last client did. An error reply is a value, see resp.Value.Err.
func (p *Proxy) Replay(ctx context.Context, args [][]byte) (resp.Value, error) {
	if !p.o.RESP {
		return resp.Value{}, ErrNotRESP
	}
	p.mu.Lock()
	greeting := slices.Clone(p.greeting)
	p.mu.Unlock()
	return p.replay(ctx, greeting, resp.AppendCommand(nil, args...))
}

func (p *Proxy) replay(ctx context.Context, greeting [][]byte, raw []byte) (resp.Value, error) {
	fail := func(err error) (resp.Value, error) { return resp.Value{}, fmt.Errorf("faultproxy: replay: %w", err) }
	c, err := resp.Dial(ctx, p.target, nil)
	if err != nil {
		return fail(err)
	}
	defer c.Close()
	var last resp.Value
	for _, command := range append(greeting, raw) {
		if err := c.Send(ctx, command); err != nil {
			return fail(err)
		}
		for last = (resp.Value{Kind: '>'}); last.Kind == '>'; {
			if last, err = c.Receive(ctx); err != nil {
				return fail(err)
			}
		}
	}
	return last, nil
}

// decide asks the hook, then a pending LoseReplies.
func (p *Proxy) decide(c *conn, args [][]byte) (Action, *loss) {
	p.mu.Lock()
	hook := p.hook
	p.mu.Unlock()
	var a Action
	if hook != nil {
		a = hook(args)
	}
	p.mu.Lock()
	l := p.loss
	p.mu.Unlock()
	if a.verb != forward || l == nil || (l.match != nil && !l.match(args)) {
		return a, nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if l.left == 0 || p.loss != l { // another connection took the last one
		return a, nil
	}
	l.left--
	l.outstanding++
	l.conns = append(l.conns, c)
	return Action{verb: lose}, l
}

// executed notes that a command of a LoseReplies was executed, and cuts the connections after the last one.
func (p *Proxy) executed(l *loss) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if l.outstanding--; l.outstanding > 0 || l.left > 0 {
		return
	}
	for _, c := range l.conns {
		c.reset()
	}
}

// readCommands feeds the server with what the client sends, command by command.
func (c *conn) readCommands() {
	r, out := resp.NewReader(c.client), c.links[ClientToServer]
	vanished := false
	for {
		args, err := r.ReadCommand()
		raw := bytes.Clone(r.Raw())
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil: // hand on what there is: the server judges half commands
			out.send(raw)
			out.end(streamEnd(err))
			return
		case vanished:
			c.p.lost.Add(int64(len(raw)))
			continue
		}
		c.p.commands.Add(1)
		action, l := c.p.decide(c, args)
		switch action.verb {
		case cutBefore:
			c.reset()
			return
		case vanish:
			vanished = true
			c.p.lost.Add(int64(len(raw)))
			continue
		}
		if !c.talk.ask(c, &exchange{action: action, loss: l, args: args, raw: raw}) {
			continue
		}
		if !out.send(raw) {
			return
		}
	}
}

// readReplies feeds the client with what the server sends, frame by frame.
func (c *conn) readReplies() {
	r, out := resp.NewReader(c.server), c.links[ServerToClient]
	for {
		v, err := r.ReadValue()
		raw := bytes.Clone(r.Raw())
		if err != nil {
			if !errors.Is(err, net.ErrClosed) {
				out.send(raw)
				out.end(streamEnd(err))
			}
			return
		}
		c.talk.reply(c, v, raw)
	}
}
