package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/waggleq/waggle"
	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/examples/stage"
	"github.com/waggleq/waggle/stores"
)

const (
	cafes = 3
	// quiet is how long nothing may happen.
	quiet = 40 * time.Second
	// machineMost is what a machine takes for a cup, unless there are so many orders that its whole time would be longer than
	// machineShare of that in which they come in.
	machineMost  = 600 * time.Millisecond
	machineShare = 0.5
	// detailed is up to how many orders each step at a machine is told of, and brief from how many on single orders are not.
	detailed = 5
	brief    = 150
)

// day is one run: the stage hand of the play, no part of it. It starts the processes, has guests order, and breaks what is to
// be broken.
type day struct {
	o       *options
	story   *story
	dir     string // of services, and of the store unless the user named one
	sweeper *stage.Sweeper
	url     string
	id      string // begins the ids of the orders
	queue   string
	store   driver.Store
	client  *waggle.Client

	news                         chan heard
	all                          []*process // in all their lives
	payments, customers, counter *process
	cafes                        []*process // their present lives

	placed, served int
	clashes        []string
	repeated, old  int // requests that the payment service has refused
	faults         faults
	good           bool // all went as promised: what is in the store can go
}

// newDay starts the processes.
func newDay(ctx context.Context, o *options, s *story) (*day, error) {
	d := &day{o: o, story: s, news: make(chan heard, 256), cafes: make([]*process, cafes)}
	d.faults = faults{day: d, at: (o.orders + 2) / 3, inHand: map[string]string{}}
	d.id = "cafe-" + driver.NewID()[24:]
	d.queue = d.id
	if err := d.open(ctx); err != nil {
		return nil, errors.Join(err, d.close())
	}
	return d, nil
}

func (d *day) open(ctx context.Context) (err error) {
	if d.dir, err = os.MkdirTemp("", "waggle-cafe-"); err != nil {
		return driver.Errorf(driver.ErrUnavailable, "can't make a directory for the services: %w", err)
	}
	sweep, err := stage.Command(roleVariable, &Role{Kind: roleSweep, Dir: d.dir})
	if err == nil {
		d.sweeper, err = stage.StartSweeper(sweep)
	}
	if err != nil {
		return errors.Join(err, os.RemoveAll(d.dir))
	}
	if d.url = d.o.store; d.url == "" {
		d.url = "sqlite:" + filepath.Join(d.dir, "queue.db")
	}
	if d.store, err = stores.Open(ctx, d.url); err != nil {
		return err
	}
	if caps := d.store.Capabilities(); !caps.Shared {
		return driver.Errorf(driver.ErrUnsupported, "three cafés are three processes, and the %s store is seen by one only: use redis:, sqlite: or another", caps.Engine)
	}
	if d.client, err = waggle.NewClient(d.store, nil); err != nil {
		return err
	}
	limited, err := limitMachines(ctx, d.client, d.queue, cafes)
	if err != nil {
		return err
	}
	if err := d.startAll(); err != nil {
		return err
	}
	d.prologue(limited)
	return nil
}

func (d *day) prologue(limited bool) {
	d.story.line("%s for %d cafés with one machine of each kind. The payment service will freeze, and a café will be killed.", plural(d.o.orders, "order"), cafes)
	d.story.line("%s", d.story.paint(dim, fmt.Sprintf("store %s, lease %v: how soon a dead café's orders go to others", stores.Redact(d.url), lease)))
	text := fmt.Sprintf("limit: %s of each kind in all cafés together", plural(cafes, "machine"))
	if !limited {
		text = "this store has no limits: each café sees to its own machines alone"
	}
	d.story.line("%s\n", d.story.paint(dim, text))
}

// startAll starts the services, and then the cafés, which need their addresses.
func (d *day) startAll() error {
	for _, s := range []struct {
		kind string
		p    **process
	}{{roleCustomers, &d.customers}, {rolePayments, &d.payments}, {roleCounter, &d.counter}} {
		p, err := d.start(&Role{Kind: s.kind, Name: s.kind, Dir: d.dir})
		if err != nil {
			return err
		}
		*s.p = p
	}
	for i := range cafes {
		if err := d.openCafe(i); err != nil {
			return err
		}
	}
	return nil
}

func (d *day) start(r *Role) (*process, error) {
	p, err := start(r, d.o.log, d.news)
	if p != nil {
		d.all = append(d.all, p)
	}
	return p, err
}

func (d *day) openCafe(i int) (err error) {
	d.cafes[i], err = d.start(&Role{
		Kind: roleCafe, Name: fmt.Sprintf("café %d", i+1), Store: d.url, Queue: d.queue,
		Customers: d.customers.addr, Payments: d.payments.addr, Counter: d.counter.addr, MachineTime: d.machineTime(),
	})
	return err
}

// machineTime is what a machine takes for a cup.
func (d *day) machineTime() time.Duration {
	share := float64(d.o.over) * machineShare * cafes / float64(d.o.orders)
	return min(machineMost, max(time.Duration(share), time.Millisecond))
}

// run has the orders come in, and returns when all of them have ended.
func (d *day) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	d.story.start = time.Now()
	door := make(chan order)
	ended := make(chan error, 1)
	go func() { ended <- d.guests(ctx, door) }()
	patience := time.NewTimer(quiet)
	defer patience.Stop()
	for {
		select {
		case <-ctx.Done():
			return errors.New("interrupted: the cafés close")
		case <-patience.C:
			return fmt.Errorf("nothing has happened for %v: %d of %d drinks are served", quiet, d.served, d.o.orders)
		case o := <-door:
			d.placed++
			d.each("door", "%s: %s %s for customer %s", orderName(o.id), article(o.Drink), o.Drink, o.Customer)
			if err := d.faults.orderPlaced(d.placed); err != nil {
				return err
			}
		case err := <-ended:
			if err != nil {
				return err
			}
			ended = nil // and never ready again
		case h := <-d.news:
			patience.Reset(quiet)
			if err := d.hear(&h); err != nil {
				return err
			}
		case <-d.faults.timer():
			if err := d.faults.next(); err != nil {
				return err
			}
		}
		if ended == nil && d.faults.over() {
			return nil
		}
	}
}

// order is one that was placed.
type order struct {
	Order
	id string
}

// guests place the orders, one after the other, and wait until all have ended.
func (d *day) guests(ctx context.Context, door chan<- order) error {
	every := time.NewTicker(max(d.o.over/time.Duration(d.o.orders), time.Microsecond))
	defer every.Stop()
	for n := 1; n <= d.o.orders; n++ {
		o := order{orderAt(n), orderID(d.id, n)}
		if _, err := d.client.StartWorkflow(ctx, workflowOf(o.id, d.queue, o.Order)); err != nil {
			return err
		}
		select {
		case door <- o:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if n == d.o.orders {
			break
		}
		select {
		case <-every.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	for n := 1; n <= d.o.orders; n++ {
		id := orderID(d.id, n)
		info, err := d.client.WaitWorkflow(ctx, id)
		if err != nil {
			return err
		}
		if info.State != waggle.WorkflowCompleted {
			return fmt.Errorf("%s is %s: %s", orderName(id), info.State, info.Reason)
		}
	}
	return nil
}

// machineDone is what is told of the steps at machines.
var machineDone = map[string]string{"grind": "coffee is ground", "warm": "cup is warm", "steam": "milk is steamed", "brew": "coffee is brewed"}

// hear takes a piece of news into the story.
func (d *day) hear(h *heard) error {
	who := h.from.role.Name
	switch h.Kind {
	case newsGone:
		if !d.faults.expects(h.from) {
			return fmt.Errorf("%s ended by itself: %v", who, h.from.cmd.ProcessState)
		}
	case newsStart, newsDone, newsFailed:
		if text := machineDone[h.Step]; text != "" && h.Kind == newsDone && d.o.orders <= detailed {
			d.story.event(who, "%s: %s", orderName(h.Order), text)
		}
		d.faults.heard(h)
	case newsClash:
		d.clashes = append(d.clashes, who+": "+h.Text)
	case newsCharged:
		d.each(who, "%s is paid for", orderName(h.Order))
	case newsRepeatedKey:
		d.repeated++
		d.each(who, "%s %s a second time: the first receipt will do", d.story.paint(blue, "refuses"), orderName(h.Order))
	case newsOldToken:
		d.old++
		d.story.event(who, "%s %s: another café asks for it by now, with a newer token", d.story.paint(blue, "refuses"), orderName(h.Order))
	case newsServed:
		d.served++
		d.each(who, "%s %s, %s", d.story.paint(green, "serves"), orderName(h.Order), h.Text)
		if d.o.orders >= brief && d.served%(d.o.orders/10) == 0 {
			d.story.event(who, "%d of %d drinks are served", d.served, d.o.orders)
		}
	}
	return nil
}

// each tells of one order, unless there are many.
func (d *day) each(who, format string, args ...any) {
	if d.o.orders < brief {
		d.story.event(who, format, args...)
	}
}

func article(noun string) string {
	if noun[0] == 'e' {
		return "an"
	}
	return "a"
}

// close ends everything and leaves nothing behind; after a day that did not go as promised, what is in the user's store stays.
func (d *day) close() error {
	drained := make(chan struct{})
	go func() { // what the processes still tell
		for {
			select {
			case <-d.news:
			case <-drained:
				return
			}
		}
	}()
	for _, p := range slices.Backward(d.all) {
		p.stop()
	}
	close(drained)
	var errs []error
	if d.client != nil && d.good && d.o.store != "" {
		errs = append(errs, d.tidy(context.Background()))
	}
	if d.store != nil {
		errs = append(errs, d.store.Close())
	}
	if d.sweeper != nil {
		errs = append(errs, d.sweeper.End())
	}
	return errors.Join(errs...)
}

// tidy removes the orders and their queue from the user's store.
func (d *day) tidy(ctx context.Context) error {
	var refs []driver.PlanRef
	for n := range d.o.orders {
		refs = append(refs, driver.PlanRef{Kind: "workflow", Name: orderID(d.id, n+1)})
	}
	for some := range slices.Chunk(refs, 100) {
		if _, err := d.store.DeletePlans(ctx, some); err != nil {
			return err
		}
	}
	if _, err := d.client.Purge(ctx, d.queue, []waggle.State{waggle.Completed}, func(int) {}); err != nil {
		return err
	}
	return d.client.DeleteQueue(ctx, d.queue)
}
