package system

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/waggleq/waggle"
	"github.com/waggleq/waggle/examples/chat/room"
	"github.com/waggleq/waggle/examples/chat/wire"
	"github.com/waggleq/waggle/internal/redisserver"
)

const (
	lookEvery  = 250 * time.Millisecond
	lookMost   = time.Second
	reachedFor = 1200 * time.Millisecond // a node that answered within this time is reachable
)

// watch looks at all nodes, all the time, each by itself, so that a frozen one keeps nobody from seeing the others.
type watch struct {
	s  *System
	wg sync.WaitGroup

	mu      sync.Mutex
	servers map[string]seen // by name
	frozen  map[string]bool
	held    map[string]int // chunks by worker
	queue   wire.Queue
	totals  waggle.Totals
	store   seen // one that was there before
	state   *wire.State
	master  string // the name of the last one
	fall    fall
	faults  int
}

// seen is what was last seen of a server.
type seen struct {
	role   string
	offset int64
	at     time.Time
}

func newWatch(s *System) *watch {
	return &watch{s: s, servers: map[string]seen{}, frozen: map[string]bool{}, held: map[string]int{}}
}

func (w *watch) start(ctx context.Context) {
	for _, m := range w.s.database.members() {
		w.every(ctx, func(ctx context.Context) { w.lookAt(ctx, m) })
	}
	if w.s.database != nil {
		w.every(ctx, w.lookForMaster)
	}
	w.every(ctx, w.lookAtQueue)
	w.every(ctx, func(context.Context) { w.show() })
}

func (w *watch) every(ctx context.Context, look func(context.Context)) {
	w.wg.Go(func() {
		tick := time.NewTicker(lookEvery)
		defer tick.Stop()
		for ctx.Err() == nil {
			one, cancel := context.WithTimeout(ctx, lookMost)
			look(one)
			cancel()
			select {
			case <-tick.C:
			case <-ctx.Done():
			}
		}
	})
}

func (w *watch) wait() { w.wg.Wait() }

// lookAt asks a server for its role and its replication offset.
func (w *watch) lookAt(ctx context.Context, m member) {
	v := seen{}
	if m.kind == wire.Sentinel {
		if _, err := m.server.Do(ctx, "PING"); err != nil {
			return
		}
	} else {
		info, err := m.server.Info(ctx, "replication")
		if err != nil {
			return
		}
		v = replication(info)
	}
	v.at = time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.servers[m.name] = v
}

func replication(info map[string]string) seen {
	role, offset := "master", info["master_repl_offset"]
	if info["role"] == "slave" {
		role, offset = "replica", info["slave_repl_offset"]
	}
	n, _ := strconv.ParseInt(offset, 10, 64) // only shown
	return seen{role: role, offset: n}
}

// lookForMaster notices when there is another master.
func (w *watch) lookForMaster(ctx context.Context) {
	server, err := w.s.database.set.Master(ctx)
	if err != nil {
		return
	}
	name := w.s.database.nameOf(server)
	w.mu.Lock()
	old := w.master
	w.master = name
	w.mu.Unlock()
	if old != "" && old != name {
		w.took(name)
	}
}

// lookAtQueue asks the queue what it holds and who holds it.
func (w *watch) lookAtQueue(ctx context.Context) {
	queues, err := w.s.place.Client.Queues(ctx)
	workers, err2 := w.s.place.Client.Workers(ctx)
	w.mu.Lock()
	if err != nil || err2 != nil {
		w.queue.Known = false
		w.mu.Unlock()
		return
	}
	w.store.at = time.Now()
	w.queue = wire.Queue{Known: true}
	for _, q := range queues {
		if q.Name == room.Queue {
			w.queue, w.totals = queueOf(&q), q.Totals
		}
	}
	clear(w.held)
	for _, status := range workers {
		name, _, _ := strings.Cut(status.ID, ":")
		w.held[name] += status.Held
	}
	queue, totals := w.queue, w.totals
	w.mu.Unlock()
	w.settle(queue, totals)
}

func queueOf(q *waggle.QueueInfo) wire.Queue {
	c := q.Counts
	return wire.Queue{
		Known: true, Running: c[waggle.Active], Waiting: c[waggle.Available] + c[waggle.Scheduled] + c[waggle.Retryable] + c[waggle.Pending],
		Done: q.Totals.Completed, Discarded: q.Totals.Discarded,
	}
}

// show puts the state together and sends it to the web servers.
func (w *watch) show() {
	state := &wire.State{}
	for _, c := range w.s.children {
		n := c.node()
		n.Can = can(n.State)
		state.Nodes = append(state.Nodes, n)
	}
	w.mu.Lock()
	for i, n := range state.Nodes {
		if n.Kind == wire.Worker && n.State != wire.Dead {
			state.Nodes[i].Holds = w.held[n.Name]
		}
	}
	for _, m := range w.s.database.members() {
		state.Nodes = append(state.Nodes, w.memberNode(m))
	}
	if w.s.database == nil {
		state.Nodes = append(state.Nodes, wire.Node{Name: "B", Kind: wire.Store, State: wire.Running, Addr: w.s.StoreName(), Reachable: fresh(w.store)})
	}
	state.Queue = w.queue
	w.state = state
	w.mu.Unlock()
	w.s.sayAll(wire.ToProcess{State: state})
}

func fresh(v seen) bool { return time.Since(v.at) < reachedFor }

func (w *watch) memberNode(m member) wire.Node {
	v := w.servers[m.name]
	n := wire.Node{Name: m.name, Kind: m.kind, State: w.memberState(m), Addr: m.server.Addr(), Role: v.role, Offset: v.offset}
	n.PID, n.Can = m.server.PID(), can(n.State)
	n.Reachable = n.State == wire.Running && fresh(v)
	if n.Kind == wire.Server && n.Role == "master" && w.master != "" && n.Name != w.master {
		n.Role = "old master" // until the sentinels find it
	}
	if n.State == wire.Dead {
		n.PID, n.Role = 0, ""
	}
	return n
}

func (w *watch) memberState(m member) string {
	switch {
	case !m.server.Running():
		return wire.Dead
	case w.frozen[m.name]:
		return wire.Frozen
	}
	return wire.Running
}

func (w *watch) stateOf(m member) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.memberState(m)
}

func (w *watch) setFrozen(m member, frozen bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.frozen[m.name] = frozen
}

// roleOf is what a member does, for a sentence.
func (w *watch) roleOf(m member) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case m.kind == wire.Sentinel:
		return ", a sentinel,"
	case m.name == w.master:
		return ", the master,"
	}
	return ", a replica,"
}

// current is the state that was sent last.
func (w *watch) current() *wire.State {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.state
}

// lastOf is what was last sent about the users of a web server and the chunks of a worker.
func (w *watch) lastOf(node string) (users, holds int) {
	state := w.current()
	if state == nil {
		return 0, 0
	}
	for _, n := range state.Nodes {
		if n.Name == node {
			return n.Users, n.Holds
		}
	}
	return 0, 0
}

// Master returns the name of the database's master.
func (s *System) Master() string {
	s.watch.mu.Lock()
	defer s.watch.mu.Unlock()
	return s.watch.master
}

// AwaitMaster waits until the sentinels agree on a master other than old, and returns its name.
func (s *System) AwaitMaster(ctx context.Context, old string) (string, error) {
	var server *redisserver.Server
	for _, m := range s.database.members() {
		if m.name == old {
			server = m.server
		}
	}
	if server == nil {
		return "", fmt.Errorf("there is no server %q", old)
	}
	master, err := s.database.set.WaitFailover(ctx, server)
	return s.database.nameOf(master), err
}
