package system

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/examples/chat/room"
	"github.com/waggleq/waggle/examples/chat/wire"
	"github.com/waggleq/waggle/examples/stage"
	"github.com/waggleq/waggle/internal/freeport"
)

// Options say what to start. The zero value of a field means its default.
type Options struct {
	// Store is the URL of a deployment that exists. Empty: servers of its own.
	Store string
	// Workers is how many worker processes there are. Default: 3.
	Workers int
	// Port is that of A1; A2 has the next one. 0: free ports.
	Port int
	// Room is the room that the page opens. Default: lobby.
	Room string
	// Log gets what the processes complain about. Default: nobody.
	Log io.Writer
}

func (o *Options) withDefaults() Options {
	var v Options
	if o != nil {
		v = *o
	}
	if v.Workers == 0 {
		v.Workers = 3
	}
	if v.Room == "" {
		v.Room = "lobby"
	}
	if v.Log == nil {
		v.Log = io.Discard
	}
	return v
}

func (o *Options) validate() error {
	var errs []error
	if o.Workers < 1 || o.Workers > 32 {
		errs = append(errs, driver.Invalidf("the number of workers must be between 1 and 32, got %d", o.Workers))
	}
	if o.Port < 0 || o.Port > 65534 {
		errs = append(errs, driver.Invalidf("the port of A1 must be between 1 and 65534, got %d", o.Port))
	}
	if err := room.CheckName(o.Room); err != nil {
		errs = append(errs, driver.Invalidf("%v", err))
	}
	return errors.Join(errs...)
}

// System is a running chat.
type System struct {
	o        Options
	store    string // its URL
	database *database
	children []*child // web servers, then workers
	place    *room.Place
	sweeper  *stage.Sweeper
	tale     *tale
	watch    *watch

	since time.Time
	life  context.Context // ends with Close
	end   context.CancelFunc
	busy  sync.Map // node → in the middle of an action
}

// The names of the web servers.
const (
	A1 = "A1"
	A2 = "A2"
)

// Start starts a chat. The context bounds the start only; Close ends what was started.
func Start(ctx context.Context, o *Options) (*System, error) {
	s := &System{o: o.withDefaults()}
	s.tale = newTale(s.sayAll)
	if err := s.o.validate(); err != nil {
		return nil, err
	}
	if err := s.start(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *System) start(ctx context.Context) (err error) {
	if s.store = s.o.Store; s.store == "" {
		if err := s.startDatabase(ctx); err != nil {
			return err
		}
		s.store = s.database.url()
	}
	if s.place, err = room.Open(ctx, s.store, nil); err != nil {
		return err
	}
	if err := s.startChildren(); err != nil {
		return err
	}
	s.life, s.end = context.WithCancel(context.WithoutCancel(ctx))
	s.since = time.Now()
	s.watch = newWatch(s)
	s.watch.start(s.life)
	s.tale.tell("", "The chat is ready: %d web servers, %d workers, %s.", 2, s.o.Workers, s.whatStore())
	return nil
}

// startDatabase starts B1, B2 and B3, in a directory that goes with this process.
func (s *System) startDatabase(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "waggle-chat-")
	if err != nil {
		return driver.Errorf(driver.ErrUnavailable, "can't make a directory for the servers: %w", err)
	}
	sweep, err := command(&wire.Role{Kind: "sweep", Dir: dir})
	if err != nil {
		return errors.Join(err, os.RemoveAll(dir))
	}
	if s.sweeper, err = stage.StartSweeper(sweep); err != nil {
		return errors.Join(err, os.RemoveAll(dir))
	}
	s.database, err = startDatabase(ctx, dir)
	return err
}

func (s *System) whatStore() string {
	if s.database == nil {
		return "on a store that was there before"
	}
	return "a database of three " + s.database.product() + " servers under three sentinels"
}

func (s *System) startChildren() error {
	ports, err := s.ports()
	if err != nil {
		return err
	}
	peers := map[string]int{A1: ports[0], A2: ports[1]}
	for _, name := range []string{A1, A2} {
		s.add(wire.Role{Kind: wire.Web, Name: name, Store: s.store, Port: peers[name], Peers: peers, Room: s.o.Room})
	}
	for i := range s.o.Workers {
		s.add(wire.Role{Kind: wire.Worker, Name: "W" + strconv.Itoa(i+1), Store: s.store})
	}
	errs := make([]error, len(s.children))
	var wg sync.WaitGroup
	for i, c := range s.children {
		wg.Go(func() { errs[i] = c.start() })
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (s *System) ports() (ports [2]int, err error) {
	if s.o.Port > 0 {
		return [2]int{s.o.Port, s.o.Port + 1}, nil
	}
	for i := range ports {
		if ports[i], err = freeport.Take(); err != nil {
			return ports, err
		}
	}
	return ports, nil
}

func (s *System) add(role wire.Role) {
	s.children = append(s.children, &child{role: role, log: s.o.Log, hear: s.hear, gone: s.gone})
}

// hear does what a page asks for.
func (s *System) hear(c *child, m wire.FromProcess) {
	if m.Request == nil {
		return
	}
	go func() {
		a := wire.Answer{ID: m.Request.ID}
		if err := s.Do(context.Background(), m.Request.Node, m.Request.Action); err != nil {
			a.Error = err.Error()
		}
		c.say(wire.ToProcess{Answer: &a})
	}()
}

// sayAll tells the web servers.
func (s *System) sayAll(m wire.ToProcess) {
	for _, c := range s.children {
		if c.role.Kind == wire.Web {
			c.say(m)
		}
	}
}

// Addresses returns the addresses of A1 and A2, as URLs.
func (s *System) Addresses() []string {
	var all []string
	for _, c := range s.children {
		if c.role.Kind == wire.Web {
			all = append(all, "http://"+c.node().Addr)
		}
	}
	return all
}

// Place is the chat's store.
func (s *System) Place() *room.Place { return s.place }

// Room is the room that the page opens.
func (s *System) Room() string { return s.o.Room }

// Level is the durability level of messages.
func (s *System) Level() string { return string(s.place.Level) }

// StoreName names the store, without secrets.
func (s *System) StoreName() string { return fmt.Sprint(s.place.Store) }

// Close ends everything that was started, and leaves nothing behind.
func (s *System) Close() error {
	var errs []error
	if s.end != nil {
		s.end()
		s.watch.wait()
	}
	s.tale.close()
	var wg sync.WaitGroup
	for _, c := range s.children {
		wg.Go(c.stop)
		freeport.Release(c.role.Port)
	}
	wg.Wait()
	if s.place != nil {
		errs = append(errs, s.place.Close())
	}
	if s.database != nil {
		errs = append(errs, s.database.close())
	}
	if s.sweeper != nil {
		errs = append(errs, s.sweeper.End())
	}
	return errors.Join(errs...)
}

func (s *System) child(name string) *child {
	i := slices.IndexFunc(s.children, func(c *child) bool { return c.role.Name == name })
	if i < 0 {
		return nil
	}
	return s.children[i]
}

// Dir is where the servers keep their files, empty if there are none.
func (s *System) Dir() string {
	if s.database == nil {
		return ""
	}
	return filepath.Clean(s.database.dir)
}
