package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/waggleq/waggle"
)

// Order is what a guest says at the door.
type Order struct {
	Number   int
	Customer string // C07
	Drink    string
}

// Ticket is an order that was taken.
type Ticket struct {
	Order
	Cents int
}

// Tab is a ticket and whose it is.
type Tab struct {
	Ticket
	Card, Milk string
}

// Receipt is what the payment service says of a charge.
type Receipt struct {
	Number int // in the service's ledger
	Cents  int
}

// The steps of an order, by what they take. A machine is named as the step that it does.
var (
	TakeOrder    = waggle.NewType[Order]("order.take")
	FindCustomer = waggle.NewType[Ticket]("customer.find")
	ChargeCard   = waggle.NewType[Tab]("card.charge")
	Grind        = waggle.NewType[Tab]("coffee.grind")
	WarmCup      = waggle.NewType[Tab]("cup.warm")
	SteamMilk    = waggle.NewType[Tab]("milk.steam")
	Brew         = waggle.NewType[Tab]("coffee.brew")
	Serve        = waggle.NewType[string]("drink.serve")
)

// machines are the types of which a café has one machine each.
var machines = []waggle.Type[Tab]{Grind, WarmCup, SteamMilk, Brew}

// prices in cents, and with them the menu.
var prices = map[string]int{"espresso": 220, "cappuccino": 320, "flat white": 350, "cortado": 300}

// workflowOf is an order as the graph that it is:
//
//	take → customer → charge → grind ─┐
//	                         → warm  ─┼→ brew → serve
//	                         → steam ─┘
func workflowOf(id, queue string, o Order) *waggle.Workflow {
	w := waggle.NewWorkflow(id, &waggle.WorkflowOptions{Deadline: 10 * time.Minute})
	at := &waggle.StepOptions{Queue: queue}
	ticket := waggle.AddStep[Ticket](w, "take", TakeOrder, o, at)
	tab := waggle.Then[Tab](w, "customer", FindCustomer, ticket, at)
	paid := waggle.Then[Receipt](w, "charge", ChargeCard, tab, at)

	grind := waggle.Then[string](w, "grind", Grind, tab, at).After(paid.WorkflowStep)
	warm := waggle.Then[string](w, "warm", WarmCup, tab, at).After(paid.WorkflowStep)
	steam := waggle.Then[string](w, "steam", SteamMilk, tab, at).After(paid.WorkflowStep)

	brew := waggle.Then[string](w, "brew", Brew, tab, at)
	brew.After(grind, warm, steam)
	waggle.Then[string](w, "serve", Serve, brew, at)
	return w
}

// limitMachines tells the store how many machines of each kind there are: one in each café. A worker of a machine has one
// slot, so a café never uses one twice at a time. The limit holds over all cafés: one that was killed and is open again finds
// its grinder full until the order in it has been taken over, and one too many that somebody opens gets no machine.
//
// It reports false for a store that has no limits; then only the slots count.
func limitMachines(ctx context.Context, c *waggle.Client, queue string, cafes int) (bool, error) {
	var limits []waggle.Limit
	for _, m := range machines {
		limits = append(limits, waggle.Limit{Type: m.Name(), Concurrency: cafes})
	}
	err := c.SetLimits(ctx, queue, limits...)
	if errors.Is(err, waggle.ErrUnsupported) {
		return false, nil
	}
	return err == nil, err
}

// orderID is the id of an order's workflow, and the key under which its card is charged and its drink is served.
func orderID(run string, number int) string { return fmt.Sprintf("%s-order-%d", run, number) }

// orderName is the order of an id as people call it.
func orderName(id string) string { return "order " + id[strings.LastIndexByte(id, '-')+1:] }

// orderAt is the number-th order of the day.
func orderAt(number int) Order {
	menu := []string{"flat white", "espresso", "cappuccino", "cortado"}
	return Order{Number: number, Customer: customerID(number % customers), Drink: menu[number%len(menu)]}
}

func customerID(n int) string { return "C" + fmt.Sprintf("%02s", strconv.Itoa(n)) }
