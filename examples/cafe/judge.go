package main

import (
	"fmt"
	"strings"
)

// Figures is what -o json prints.
type Figures struct {
	Orders       int   `json:"orders"`
	Served       int   `json:"served"`
	Charged      int   `json:"charged"`
	ServedTwice  int   `json:"served_twice"`
	ChargedTwice int   `json:"charged_twice"`
	Killed       int   `json:"killed"`
	RecoveryMS   int64 `json:"recovery_ms"`
}

// judge counts in the ledgers of the payment service and the counter: what Waggle believes is not asked.
func (d *day) judge() (*Figures, error) {
	f := &Figures{Orders: d.o.orders, Killed: d.faults.killed, RecoveryMS: d.faults.recovery.Milliseconds()}
	var err error
	if f.Charged, f.ChargedTwice, err = d.count(paymentLedger(d.dir)); err != nil {
		return nil, err
	}
	f.Served, f.ServedTwice, err = d.count(counterLedger(d.dir))
	return f, err
}

// count returns how many of the day's orders are in a ledger, and how many are more than once. Whatever else is in it counts
// as one too many.
func (d *day) count(path string) (once, twice int, err error) {
	entries, err := readLedger(path)
	if err != nil {
		return 0, 0, err
	}
	times := map[string]int{}
	for _, e := range entries {
		times[e.Order]++
	}
	for n := range d.o.orders {
		id := orderID(d.id, n+1)
		if times[id] > 0 {
			once++
		}
		if times[id] > 1 {
			twice++
		}
		delete(times, id)
	}
	return once, twice + len(times), nil
}

// verdict is an error unless every drink was served once and every card charged once.
func (d *day) verdict(f *Figures) error {
	var wrong []string
	add := func(is bool, format string, args ...any) {
		if is {
			wrong = append(wrong, fmt.Sprintf(format, args...))
		}
	}
	add(f.Served != f.Orders, "%s got no drink", plural(f.Orders-f.Served, "guest"))
	add(f.Charged != f.Orders, "%s not paid for", plural(f.Orders-f.Charged, "drink"))
	add(f.ServedTwice > 0, "%s served twice", plural(f.ServedTwice, "drink"))
	add(f.ChargedTwice > 0, "%s charged twice", plural(f.ChargedTwice, "card"))
	add(f.Killed == 0, "no café was killed")
	add(len(d.clashes) > 0, "a machine was used twice at once: %s", strings.Join(d.clashes, ", "))
	if len(wrong) > 0 {
		return fmt.Errorf("not as promised: %s", strings.Join(wrong, "; "))
	}
	d.good = true
	return nil
}

func (d *day) conclude(f *Figures) {
	verdict := d.story.paint(green, "none twice")
	if f.ServedTwice+f.ChargedTwice > 0 {
		verdict = d.story.paint(red, fmt.Sprintf("%d served and %d charged twice", f.ServedTwice, f.ChargedTwice))
	}
	d.story.line("\n%s, %d served, %d charged, %s. The café that was killed: taken over after %s.", plural(f.Orders, "order"), f.Served, f.Charged, verdict, seconds(d.faults.recovery))
	d.story.line("The payment service has refused %s and %s.", plural(d.repeated, "repeated charge"), plural(d.old, "old token"))
}
