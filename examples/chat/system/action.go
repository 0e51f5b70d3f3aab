package system

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/waggleq/waggle/examples/chat/wire"
	"github.com/waggleq/waggle/examples/stage"
)

// What can be done to a node.
const (
	Kill   = "kill"   // SIGKILL
	Freeze = "freeze" // SIGSTOP: it keeps its connections and answers nobody
	Thaw   = "thaw"   // SIGCONT
	Launch = "start"  // start it again, with what it has on disk
)

// startMost is how long a server may take to read its file.
const startMost = 15 * time.Second

// can are the actions that make sense in a state.
func can(state string) []string {
	switch state {
	case wire.Running, wire.Starting:
		return []string{Kill, Freeze}
	case wire.Frozen:
		return []string{Kill, Thaw}
	case wire.Dead:
		return []string{Launch}
	}
	return nil
}

// Do kills, freezes, thaws or starts a node. It returns when that is done, and an error if it can't be done now.
func (s *System) Do(ctx context.Context, node, action string) error {
	if _, taken := s.busy.LoadOrStore(node, true); taken {
		return fmt.Errorf("something is being done to %s already", node)
	}
	defer s.busy.Delete(node)
	state := s.stateOf(node)
	switch {
	case state == "":
		return fmt.Errorf("there is no node %q that the chat started", node)
	case !slices.Contains([]string{Kill, Freeze, Thaw, Launch}, action):
		return fmt.Errorf("%q can't be done to a node: kill, freeze, thaw and start can", action)
	case !slices.Contains(can(state), action):
		return fmt.Errorf("%s is %s: that can't be done now", node, state)
	}
	s.watch.before(node, action)
	if c := s.child(node); c != nil {
		return s.doToChild(c, action)
	}
	return s.doToMember(ctx, node, action)
}

func (s *System) stateOf(node string) string {
	if c := s.child(node); c != nil {
		return c.node().State
	}
	for _, m := range s.database.members() {
		if m.name == node {
			return s.watch.stateOf(m)
		}
	}
	return ""
}

func (s *System) doToChild(c *child, action string) error {
	node := c.node()
	switch action {
	case Kill:
		return c.kill() // what there is to tell, its end tells
	case Freeze:
		s.tale.tell(bad, "%s was frozen%s.", node.Name, s.effect(node))
		return c.signal(true, stage.Freeze)
	case Thaw:
		s.tale.tell("", "%s goes on.", node.Name)
		return c.signal(false, stage.Thaw)
	}
	if err := c.start(); err != nil {
		return err
	}
	s.tale.tell(good, "%s is back.", node.Name)
	c.say(wire.ToProcess{State: s.watch.current()})
	for _, l := range s.tale.all() {
		c.say(wire.ToProcess{Line: &l})
	}
	return nil
}

// gone is called when a child has ended.
func (s *System) gone(c *child) {
	if s.tale.closed() {
		return
	}
	node := c.node()
	node.Users, node.Holds = s.watch.lastOf(node.Name)
	s.tale.tell(bad, "%s was killed%s.", node.Name, s.effect(node))
}

// effect says what it means that a web server or a worker is gone.
func (s *System) effect(n wire.Node) string {
	switch {
	case n.Kind == wire.Web && n.Users == 0:
		return ""
	case n.Kind == wire.Web:
		return fmt.Sprintf(": its %s at the other server", plural(n.Users, "user goes on", "users go on"))
	case n.Holds > 0:
		return fmt.Sprintf(" with %s in hand: others get them when its lease is over", plural(n.Holds, "chunk", "chunks"))
	}
	return ", with nothing in hand"
}

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

func (s *System) doToMember(ctx context.Context, node, action string) error {
	var m member
	for _, m = range s.database.members() {
		if m.name == node {
			break
		}
	}
	role := s.watch.roleOf(m)
	switch action {
	case Kill:
		m.server.Kill()
		s.watch.setFrozen(m, false)
		s.tale.tell(bad, "%s%s was killed.", m.name, role)
	case Freeze:
		if err := m.server.Pause(); err != nil {
			return err
		}
		s.watch.setFrozen(m, true)
		s.tale.tell(bad, "%s%s was frozen: it keeps its connections and answers nobody.", m.name, role)
	case Thaw:
		if err := m.server.Resume(); err != nil {
			return err
		}
		s.watch.setFrozen(m, false)
		s.tale.tell("", "%s goes on.", m.name)
	case Launch:
		ctx, cancel := context.WithTimeout(ctx, startMost)
		defer cancel()
		if err := s.database.start(ctx, m); err != nil {
			return err
		}
		s.tale.tell(good, "%s is back, with what it had on disk.", m.name)
	}
	return nil
}
