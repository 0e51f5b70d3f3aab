package waggle

import (
	"context"
	"errors"
	"log/slog"
	"reflect"
	"sync"
	"sync/atomic"
	"time"

	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/internal/sidelog"
)

// Client puts tasks into a store and asks about them. All its methods may be called concurrently; one client serves a
// whole program, and concurrent calls of Enqueue on one client share round trips to the store.
type Client struct {
	store   driver.Store
	opts    ClientOptions
	side    *sidelog.Handler
	logger  *slog.Logger // to side
	limits  driver.Limits
	enqueue EnqueueFunc // the middleware round store
	lanes   lanes
	waits   waits
	rooms   roomWaits
	told    atomic.Bool // that tasks are in memory only
}

// ClientOptions configure a client. The zero value of a field means its default.
type ClientOptions struct {
	// Logger gets what no caller is told otherwise. Default: slog.Default().
	Logger *slog.Logger
	// Middleware wraps every enqueue, the first outermost.
	Middleware []EnqueueMiddleware
	// DefaultDurability is the level of tasks whose options name none. Empty: the store's default.
	DefaultDurability Durability
	// MaxAttempts is how often tasks may fail whose options don't say. Default: 25. Backoff and BackoffFunc are how long
	// failed tasks wait in workers that have this client, where neither the options of a type nor the worker's have one of
	// them. [HandleOptions] says what comes before what.
	MaxAttempts int
	Backoff     *Backoff
	BackoffFunc func(attempt int, err error) time.Duration
	// QueueWait, if not nil, is called when an enqueue begins to wait for room in a queue: see [FullWait]. It may be called
	// concurrently and must not block.
	QueueWait func(queue string)
	// Timeout bounds one call to the store on behalf of several callers of Enqueue, each of whom may give up earlier.
	// Default: 30s.
	Timeout time.Duration
}

func (o *ClientOptions) withDefaults() ClientOptions {
	var v ClientOptions
	if o != nil {
		v = *o
	}
	if v.Logger == nil {
		v.Logger = slog.Default()
	}
	if v.Timeout == 0 {
		v.Timeout = 30 * time.Second
	}
	return v
}

func (o *ClientOptions) validate(c Capabilities) error {
	var errs []error
	if o.Timeout < 0 {
		errs = append(errs, driver.Invalidf("the client's timeout must not be negative, got %v", o.Timeout))
	}
	if _, err := driver.ReachableDurability(c, o.DefaultDurability); err != nil {
		errs = append(errs, err)
	}
	if o.MaxAttempts < 0 || o.MaxAttempts > driver.MaxAttemptsCap {
		errs = append(errs, driver.Invalidf("the client's max attempts must be between 1 and %d, got %d", driver.MaxAttemptsCap, o.MaxAttempts))
	}
	if o.Backoff != nil {
		if err := o.Backoff.Validate(); err != nil {
			errs = append(errs, err)
		}
	}
	for _, m := range o.Middleware {
		if m == nil {
			errs = append(errs, driver.Invalidf("an enqueue middleware is nil"))
		}
	}
	return errors.Join(errs...)
}

// NewClient returns a client of a store. A nil opts means the defaults. The error joins all that is wrong with opts.
func NewClient(store driver.Store, opts *ClientOptions) (*Client, error) {
	if noStore(store) {
		return nil, failed("new client", driver.Invalidf("the store is nil"))
	}
	o, caps := opts.withDefaults(), store.Capabilities()
	if err := o.validate(caps); err != nil {
		return nil, failed("new client", err)
	}
	limits, err := caps.Limit.WithDefaults()
	if err != nil {
		return nil, failed("new client", err)
	}
	side := sidelog.New(o.Logger.Handler())
	c := &Client{store: store, opts: o, limits: limits, side: side, logger: slog.New(side)}
	c.lanes.init(c)
	c.waits.init(c)
	c.rooms.init(c)
	if len(o.Middleware) > 0 {
		c.enqueue = c.enqueueTasks
		for i := len(o.Middleware) - 1; i >= 0; i-- {
			if c.enqueue, err = wrapEnqueue(o.Middleware[i], c.enqueue); err != nil {
				return nil, failed("new client", err)
			}
		}
		c.enqueue = c.guarded(c.enqueue)
	}
	return c, nil
}

// noStore reports whether there is none; a nil pointer, which an opening that failed has left, is none either.
func noStore(store driver.Store) bool {
	v := reflect.ValueOf(store)
	return store == nil || v.Kind() == reflect.Pointer && v.IsNil()
}

// Store returns the store the client works on.
func (c *Client) Store() driver.Store { return c.store }

// Close waits until calls of Enqueue that are under way have their answer, or until ctx ends. Later calls of Enqueue and
// Wait return [ErrClosed], and so do waits under way. It does not close the store. A second Close does the same again.
func (c *Client) Close(ctx context.Context) error {
	c.waits.close()
	defer c.side.Flush(logPatience)
	return failed("close client", c.lanes.close(ctx))
}

// tellLevel says once if tasks are in a server's memory only, and how to have more.
func (c *Client) tellLevel(level Durability) {
	if c.told.Load() {
		return
	}
	caps := c.store.Capabilities()
	got, err := driver.ReachableDurability(caps, level)
	if err == nil && got == DurabilityMemory && caps.Shared && !c.told.Swap(true) {
		c.opts.Logger.Info("tasks are stored at level memory, and a server that crashes loses what it had not written: " + caps.Stronger)
	}
}

// level returns the durability level that a task asks for; "" is the store's default.
func (c *Client) level(o *EnqueueOptions) Durability {
	if o != nil && o.Durability != "" {
		return o.Durability
	}
	return c.opts.DefaultDurability
}

// lanes are the ways to the store, one for each durability level, so that no task waits for a level it did not ask for.
type lanes struct {
	mu     sync.Mutex
	c      *Client
	byName map[Durability]*lane
	closed bool
}

func (l *lanes) init(c *Client) { l.c, l.byName = c, make(map[Durability]*lane) }

func (l *lanes) of(d Durability) (*lane, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, driver.Errorf(ErrClosed, "the client is closed")
	}
	lane := l.byName[d]
	if lane == nil {
		if _, err := driver.ReachableDurability(l.c.store.Capabilities(), d); err != nil {
			return nil, err
		}
		lane = newLane(l.c, d)
		l.byName[d] = lane
	}
	return lane, nil
}

func (l *lanes) close(ctx context.Context) error {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	for _, lane := range l.byName { // no lane is added any more
		if err := lane.flush(ctx); err != nil {
			return err
		}
	}
	return nil
}
