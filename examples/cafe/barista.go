package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/waggleq/waggle"
)

// cafe is what the baristas of one café work with.
type cafe struct {
	role                         *Role
	tell                         func(News)
	customers, payments, counter *caller
}

func newCafe(r *Role, tell func(News)) *cafe {
	return &cafe{r, tell, newCaller("the customer database", r.Customers), newCaller("the payment service", r.Payments), newCaller("the counter", r.Counter)}
}

func (c *cafe) take(_ context.Context, t *waggle.Task, o Order) error {
	cents, ok := prices[o.Drink]
	if !ok {
		return waggle.Discard(fmt.Errorf("there is no %q on the menu", o.Drink))
	}
	return t.SetResult(Ticket{o, cents})
}

func (c *cafe) find(ctx context.Context, t *waggle.Task, ticket Ticket) error {
	var who Customer
	status, err := c.customers.call(ctx, "/find", ticket.Customer, &who)
	switch {
	case err != nil:
		return err
	case status == http.StatusNotFound:
		return waggle.Discard(fmt.Errorf("there is no customer %s", ticket.Customer))
	}
	return t.SetResult(Tab{ticket, who.Card, who.Milk})
}

var errOldToken = errors.New("another barista charges this card by now")

// charge may run twice, at the same time even: when this café was frozen or killed in the middle and another has taken over.
// The order is the key and the task's token the proof of who came last; the payment service does the rest.
func (c *cafe) charge(ctx context.Context, t *waggle.Task, tab Tab) error {
	order, _ := t.Workflow()
	var a ChargeAnswer
	status, err := c.payments.call(ctx, "/charge", Charge{Key: order, Token: t.Token(), Card: tab.Card, Cents: tab.Cents}, &a)
	switch {
	case err != nil:
		return err // unknown whether it charged: the next attempt asks with the same key
	case status == http.StatusPreconditionFailed:
		return errOldToken
	}
	return t.SetResult(a.Receipt) // of this charge, or with StatusConflict of the one before
}

// serve may run twice as well: a guest who has the drink already sends the second back.
func (c *cafe) serve(ctx context.Context, t *waggle.Task, drink string) error {
	order, _ := t.Workflow()
	if _, err := c.counter.call(ctx, "/serve", Handover{order, drink}, &struct{}{}); err != nil {
		return err
	}
	return t.SetResult("served")
}

// machine is one of a kind in a café.
type machine struct {
	kind string
	cafe *cafe
	busy atomic.Bool
}

// use runs the machine for one drink. Two at once would be a fault of the queue: it is told, and fails the run.
func (m *machine) use(ctx context.Context, t *waggle.Task, tab Tab) error {
	if !m.busy.CompareAndSwap(false, true) {
		m.cafe.tell(News{Kind: newsClash, Text: m.kind})
		return errors.New("the machine is in use")
	}
	defer m.busy.Store(false)
	end := time.NewTimer(m.cafe.role.MachineTime)
	defer end.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-end.C:
	}
	switch m.kind {
	case SteamMilk.Name():
		return t.SetResult(tab.Milk + " milk")
	case Brew.Name():
		milk, err := waggle.StepResult[string](ctx, t, "steam")
		if err != nil {
			return err
		}
		return t.SetResult(tab.Drink + " with " + milk)
	}
	return t.SetResult("done")
}
