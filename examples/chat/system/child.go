package system

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"time"

	"github.com/waggleq/waggle/examples/chat/wire"
	"github.com/waggleq/waggle/examples/stage"
)

const (
	readyMost = 20 * time.Second
	endMost   = 4 * time.Second
)

// child is one of the program's own processes: a web server or a worker. It may be started again after it has ended.
type child struct {
	role wire.Role
	log  io.Writer
	hear func(*child, wire.FromProcess) // called for each line it says but for the first
	gone func(*child)                   // called when it has ended

	mu     sync.Mutex
	run    *run // nil before the first start
	frozen bool
	users  int
}

// run is one life of a child.
type run struct {
	cmd   *exec.Cmd
	out   *mailbox
	ready chan struct{} // closed when it serves, or works
	ended chan struct{} // closed when it was reaped
}

// start starts the process and waits until it says that it is ready.
func (c *child) start() error {
	c.mu.Lock()
	if c.run != nil && !c.run.isOver() {
		c.mu.Unlock()
		return fmt.Errorf("%s runs", c.role.Name)
	}
	r, err := c.launch()
	if err == nil {
		c.run, c.frozen, c.users = r, false, 0
	}
	c.mu.Unlock()
	if err != nil {
		return fmt.Errorf("start %s: %w", c.role.Name, err)
	}
	select {
	case <-r.ready:
		return nil
	case <-r.ended:
		return fmt.Errorf("%s ended as soon as it was started: %v", c.role.Name, r.cmd.ProcessState)
	case <-time.After(readyMost):
		return fmt.Errorf("%s was not ready after %v", c.role.Name, readyMost)
	}
}

func (c *child) launch() (*run, error) {
	cmd, err := command(&c.role)
	if err != nil {
		return nil, err
	}
	cmd.Stderr = c.log
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	r := &run{cmd: cmd, ready: make(chan struct{}), ended: make(chan struct{})}
	if err := stage.Spawn(cmd, r.ended, func() { r.listen(c, out) }); err != nil {
		return nil, err
	}
	r.out = newMailbox(in)
	go func() {
		<-r.ended
		r.out.close()
		c.gone(c)
	}()
	return r, nil
}

// command is this program again, as one of its processes.
func command(role *wire.Role) (*exec.Cmd, error) { return stage.Command(wire.RoleVariable, role) }

// listen takes in what the process says.
func (r *run) listen(c *child, out io.Reader) {
	_ = stage.Read(out, func(m wire.FromProcess) { // ends with the process
		switch {
		case m.Ready:
			close(r.ready)
		case m.Users != nil:
			c.mu.Lock()
			c.users = *m.Users
			c.mu.Unlock()
		default:
			c.hear(c, m)
		}
	})
}

func (r *run) isOver() bool {
	select {
	case <-r.ended:
		return true
	default:
		return false
	}
}

// say sends the process a line; of the states of the system only the newest, if it does not keep up.
func (c *child) say(m wire.ToProcess) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.run != nil {
		c.run.out.put(m)
	}
}

var errNotRunning = errors.New("it does not run")

// signal does something to the running process.
func (c *child) signal(frozen bool, send func(*os.Process) error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.run == nil || c.run.isOver() {
		return errNotRunning
	}
	c.frozen = frozen
	return send(c.run.cmd.Process)
}

// kill ends the process with SIGKILL and waits until it is gone.
func (c *child) kill() error {
	err := c.signal(false, (*os.Process).Kill)
	if err == nil {
		<-c.run.ended
	}
	return err
}

// stop asks the process to end, and kills it if it does not.
func (c *child) stop() {
	_ = c.signal(false, stage.Thaw) // it has ended already, or gets the next one
	if c.signal(false, stage.AskToEnd) != nil {
		return
	}
	select {
	case <-c.run.ended:
	case <-time.After(endMost):
		_ = c.kill() // it has ended by now
	}
}

// node describes the child.
func (c *child) node() wire.Node {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := wire.Node{Name: c.role.Name, Kind: c.role.Kind, State: wire.Running, Users: c.users}
	if c.role.Port > 0 {
		n.Addr = fmt.Sprintf("127.0.0.1:%d", c.role.Port)
	}
	switch {
	case c.run == nil || c.run.isOver():
		n.State, n.Users = wire.Dead, 0
		return n
	case c.frozen:
		n.State = wire.Frozen
	default:
		select {
		case <-c.run.ready:
		default:
			n.State = wire.Starting
		}
	}
	n.PID = c.run.cmd.Process.Pid
	return n
}
