package waggle

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/internal/breaker"
	"github.com/waggleq/waggle/internal/logkey"
)

// Breaker is the circuit breaker of a task type: it opens when too large a share of the attempts fails. While it is open no
// task of the type starts in any worker, and none spends an attempt. After a cool-down a few tasks are tried, by one worker; if
// they succeed it closes, if one fails it opens again. The zero value of a field means its default.
//
// A failed attempt is one whose handler returned an error that is no [Snooze], [Cancel] or [GiveBack], or panicked. All
// workers of the store count together.
type Breaker struct {
	Rate     float64       // share of failed attempts at which it opens, above 0 and up to 1. Default: 0.5
	Window   time.Duration // the attempts of this time count, 1s…24h. Default: 1m
	Min      int           // attempts in the window before it may open. Default: 20
	CoolDown time.Duration // how long it stays open before tasks are tried, 100ms…24h. Default: 30s
	Probes   int           // tasks that are tried, all of which have to succeed. Default: 1
}

// BreakerState is what a breaker lets start.
type BreakerState = breaker.State

// The states of breakers.
const (
	BreakerClosed   = breaker.Closed   // all tasks of the type
	BreakerOpen     = breaker.Open     // none
	BreakerHalfOpen = breaker.HalfOpen // a few on trial
)

// TypeStatus is the breaker of a type as it stands.
type TypeStatus struct {
	Type   string
	State  BreakerState
	Since  time.Time // when it came to be open or closed
	Until  time.Time // open: when tasks are tried; zero: not before somebody closes it
	ByHand bool      // a person has opened or closed it last
	// Attempts and Failed count those of the window; of one that has opened by itself those for which it did.
	Attempts, Failed int
	// Breaker is its rule, nil if it has none: then it opens by hand alone. RuleByHand: a person has set it.
	Breaker    *Breaker
	RuleByHand bool
	Worker     string // half-open: who tries
}

// Types returns the breakers of all types that have a rule or were opened by hand, sorted by type. It returns
// [ErrUnsupported] if the store keeps no plans, as do the other methods for breakers.
func (c *Client) Types(ctx context.Context) ([]TypeStatus, error) {
	list, err := c.types(ctx)
	return list, failed("types", err)
}

func (c *Client) types(ctx context.Context) ([]TypeStatus, error) {
	doc, _, err := c.breakers(ctx)
	if err != nil || len(doc.Types) == 0 {
		return nil, err
	}
	info, err := c.store.Info(ctx)
	if err != nil {
		return nil, err
	}
	var list []TypeStatus
	for _, typ := range slices.Sorted(maps.Keys(doc.Types)) {
		list = append(list, typeStatus(typ, doc.Types[typ], info.Now))
	}
	return list, nil
}

func typeStatus(typ string, b *breaker.Breaker, now time.Time) TypeStatus {
	count := b.Why
	if b.State == breaker.Closed {
		count = b.Total(now)
	}
	t := TypeStatus{Type: typ, State: b.State, Since: b.Since, Until: b.Until, ByHand: b.Manual, Attempts: count.OK + count.Failed,
		Failed: count.Failed, RuleByHand: b.ByHand, Worker: b.Worker}
	if b.Rule.Rate > 0 {
		t.Breaker = new(Breaker(b.Rule))
	}
	return t
}

// OpenType opens the breaker of a type: nothing of it starts, in any worker. After d tasks are tried as after a
// cool-down; d 0 keeps it open until [Client.CloseType]. A worker keeps to it within a third of its lease; what runs goes on.
func (c *Client) OpenType(ctx context.Context, typ string, d time.Duration) error {
	if d < 0 || d > maxDelay {
		return failed("open type "+typ, driver.Invalidf("a type can't be open for %v", d))
	}
	return failed("open type "+typ, c.changeType(ctx, typ, func(b *breaker.Breaker, now time.Time) { b.OpenByHand(now, d) }))
}

// CloseType closes the breaker of a type, however it was opened; what was counted is forgotten.
func (c *Client) CloseType(ctx context.Context, typ string) error {
	return failed("close type "+typ, c.changeType(ctx, typ, func(b *breaker.Breaker, now time.Time) { b.Close(now, true) }))
}

// SetBreaker says when the breaker of a type opens by itself, in place of what programs say ([HandleOptions]); nil: never.
func (c *Client) SetBreaker(ctx context.Context, typ string, rule *Breaker) error {
	var r breaker.Rule
	if rule != nil {
		var err error
		if r, err = breaker.Rule(*rule).WithDefaults(); err != nil {
			return failed("set breaker of type "+typ, err)
		}
	}
	return failed("set breaker of type "+typ, c.changeType(ctx, typ, func(b *breaker.Breaker, now time.Time) {
		b.Rule, b.ByHand, b.Window = r, true, nil
	}))
}

func (c *Client) breakers(ctx context.Context) (*breaker.Document, int64, error) {
	plans, err := c.store.GetPlans(ctx, []driver.PlanRef{breaker.Ref}, driver.PlanRead{})
	switch {
	case err != nil:
		return nil, 0, err
	case plans[0] == nil:
		doc, err := breaker.Parse(nil)
		return doc, 0, err
	}
	doc, err := breaker.Parse(plans[0].Body)
	return doc, plans[0].Version, err
}

// changeType changes the breaker of a type in one step; other workers and people may do so at the same time.
func (c *Client) changeType(ctx context.Context, typ string, change func(*breaker.Breaker, time.Time)) error {
	if err := driver.CheckName("task type", typ, driver.MaxNameLen); err != nil {
		return err
	}
	info, err := c.store.Info(ctx)
	if err != nil {
		return err
	}
	for {
		doc, version, err := c.breakers(ctx)
		if err != nil {
			return err
		}
		change(doc.Of(typ, info.Now), info.Now)
		if err = breaker.Write(ctx, c.store, version, doc); !errors.Is(err, driver.ErrConflict) {
			return err
		}
		timer := time.NewTimer(rand.N(20 * time.Millisecond))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return causeOf(ctx)
		}
	}
}

// gate returns the worker's view of the breakers, nil if the store can't keep any.
func (w *Worker) gate() (*breaker.Keeper, error) {
	rules := map[string]breaker.Rule{}
	add := func(o *HandleOptions) (*breaker.Rule, error) {
		if o.Breaker == nil {
			return nil, nil
		}
		r, err := breaker.Rule(*o.Breaker).WithDefaults()
		return &r, err
	}
	var types []string
	for typ, e := range w.entries {
		types = append(types, typ)
		if r, err := add(&e.opts); err != nil {
			return nil, err
		} else if r != nil {
			rules[typ] = *r
		}
	}
	var other *breaker.Rule
	if w.anyType != nil {
		var err error
		if other, err = add(&w.anyType.opts); err != nil {
			return nil, err
		}
		types = nil
	}
	if !w.store.Capabilities().Plans {
		if len(rules) > 0 || other != nil {
			return nil, driver.Errorf(ErrUnsupported, "the %s store can't keep breakers: leave out HandleOptions.Breaker", w.store.Capabilities().Engine)
		}
		return nil, nil
	}
	queues := make([]string, len(w.opts.Queues))
	for i, q := range w.opts.Queues {
		queues[i] = q.Name
	}
	return breaker.NewKeeper(w.store, queues, types, rules, other, w.breakerMoved), nil
}

// breakerMoved logs that a type is stopped, or starts again.
func (w *Worker) breakerMoved(typ string, b *breaker.Breaker) {
	switch {
	case b.State == breaker.Closed:
		w.logger.Info("tasks of a type start again: its breaker is closed", logkey.TaskType, typ)
	case b.State == breaker.HalfOpen:
		w.logger.Info("a few tasks of a type are tried: its breaker is half open", logkey.TaskType, typ)
	case b.Manual:
		w.logger.Warn("no task of a type starts: its breaker was opened by hand", logkey.TaskType, typ)
	default:
		w.logger.Warn("no task of a type starts: its breaker has opened", logkey.TaskType, typ,
			logkey.Cause, fmt.Sprintf("%d of %d attempts failed", b.Why.Failed, b.Why.OK+b.Why.Failed))
	}
}
