package system

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/waggleq/waggle/examples/chat/wire"
)

const (
	// chaosMost bounds each step, and recover is how long deliveries have to go on before the next fault.
	chaosMost = 30 * time.Second
	chaosLook = 20 * time.Millisecond
	recovered = 400 * time.Millisecond
	// downFor is how long a node stays killed or frozen that is not the master.
	downFor = 1200 * time.Millisecond
)

// Fault is one that was made.
type Fault struct {
	Node   string // master, or the name of a node
	Action string // Kill or Freeze
	Pause  time.Duration
}

// Chaos breaks the nodes of a chat that is in use, one at a time, and mends them.
type Chaos struct {
	s *System
	// seen returns when a message was last delivered, and the longest time in which none was since it was last called.
	seen func() (time.Time, time.Duration)
	say  func(string)
}

// NewChaos returns the chaos of a system.
func NewChaos(s *System, seen func() (time.Time, time.Duration), say func(string)) *Chaos {
	return &Chaos{s, seen, say}
}

// FellMaster kills or freezes the master, waits until messages are delivered again, and brings it back. It returns for how
// long none were.
func (c *Chaos) FellMaster(ctx context.Context, action string) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*chaosMost)
	defer cancel()
	old := c.s.Master()
	for at, _ := c.seen(); old == "" || at.IsZero(); at, _ = c.seen() { // the chat is not in use yet
		if err := rest(ctx, chaosLook); err != nil {
			return 0, err
		}
		old = c.s.Master()
	}
	if err := c.s.Do(ctx, old, action); err != nil {
		return 0, err
	}
	begun := time.Now()
	if _, err := c.s.AwaitMaster(ctx, old); err != nil {
		return 0, err
	}
	pause, err := c.flows(ctx, begun)
	if err != nil {
		return 0, err
	}
	c.say(fmt.Sprintf("%s, the master: %s; nothing was delivered for %.1f s.", old, action, pause.Seconds()))
	return pause, c.mend(ctx, old)
}

// flows waits until messages are delivered again, for a while, and returns the longest time in which none were.
func (c *Chaos) flows(ctx context.Context, begun time.Time) (time.Duration, error) {
	longest := time.Duration(0)
	for since := time.Now(); ; {
		at, gap := c.seen()
		longest = max(longest, gap)
		if !at.After(begun) || gap > recovered || time.Since(at) > recovered {
			since = time.Now()
		}
		if at.After(begun) && time.Since(since) > recovered {
			return longest, nil
		}
		if err := rest(ctx, chaosLook); err != nil {
			return 0, fmt.Errorf("deliveries do not go on: %w", err)
		}
	}
}

// mend brings a node back and, if it is a server of the database, waits until it is a replica in sync.
func (c *Chaos) mend(ctx context.Context, node string) error {
	action := Launch
	if c.s.stateOf(node) == wire.Frozen {
		action = Thaw
	}
	if err := c.s.Do(ctx, node, action); err != nil {
		return err
	}
	for !c.s.watch.well() {
		if err := rest(ctx, chaosLook); err != nil {
			return fmt.Errorf("%s does not come back: %w; %s", node, err, c.s.watch)
		}
	}
	return nil
}

// Break makes faults at random until the end, and tells f of each.
func (c *Chaos) Break(ctx context.Context, end time.Time, f func(Fault)) error {
	for i := 0; ctx.Err() == nil; i++ {
		master := c.s.OwnsDatabase() && i%3 == 2
		need := 5 * time.Second
		if master {
			need = 15 * time.Second
		}
		if time.Until(end) < need {
			return nil
		}
		fault, err := c.one(ctx, master)
		if err != nil {
			return err
		}
		f(fault)
	}
	return context.Cause(ctx)
}

func (c *Chaos) one(ctx context.Context, master bool) (Fault, error) {
	action := []string{Kill, Freeze}[rand.IntN(2)]
	if master {
		pause, err := c.FellMaster(ctx, action)
		return Fault{"master", action, pause}, err
	}
	ctx, cancel := context.WithTimeout(ctx, chaosMost)
	defer cancel()
	node := c.any()
	c.seen()
	begun := time.Now()
	if err := c.s.Do(ctx, node, action); err != nil {
		return Fault{}, err
	}
	if err := rest(ctx, downFor); err != nil {
		return Fault{}, err
	}
	if err := c.mend(ctx, node); err != nil {
		return Fault{}, err
	}
	pause, err := c.flows(ctx, begun)
	c.say(fmt.Sprintf("%s: %s; nothing was delivered for %.1f s.", node, action, pause.Seconds()))
	return Fault{node, action, pause}, err
}

// any is a node that is not the master.
func (c *Chaos) any() string {
	var names []string
	for _, n := range c.s.watch.current().Nodes {
		if len(n.Can) > 0 && n.Name != c.s.Master() {
			names = append(names, n.Name)
		}
	}
	return names[rand.IntN(len(names))]
}

func rest(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// String is the state of all nodes and the end of the story, for whoever has to find out what went wrong.
func (w *watch) String() string {
	var b strings.Builder
	for _, n := range w.current().Nodes {
		fmt.Fprintf(&b, "%s %s %s %d, reachable %v; ", n.Name, n.State, n.Role, n.Offset, n.Reachable)
	}
	lines := w.s.tale.all()
	for _, l := range lines[max(0, len(lines)-12):] {
		fmt.Fprintf(&b, "\n%s %s", l.At.Format(time.TimeOnly), l.Text)
	}
	return b.String()
}

// well reports whether everything runs, with one master whose replicas have nearly what it has.
func (w *watch) well() bool {
	state := w.current()
	var master int64
	for _, n := range state.Nodes {
		if n.State != wire.Running || n.Kind != wire.Web && n.Kind != wire.Worker && !n.Reachable {
			return false
		}
		if n.Role == "master" {
			master = n.Offset
		}
	}
	for _, n := range state.Nodes {
		if n.Kind == wire.Server && n.Role != "master" && (n.Role != "replica" || n.Offset < master-inSync) {
			return false
		}
	}
	return true
}

// inSync is by how many bytes a replica may seem to be behind: it is not asked at the same moment as the master.
const inSync = 4 << 20
