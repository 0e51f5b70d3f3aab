package main

import (
	"net/http"
	"sync"
)

// Handover is a drink that comes to the counter.
type Handover struct{ Order, Drink string }

// counter is where the guests stand: a process of its own, with its own list of who got what. A guest who has a drink already
// sends a second one back.
type counter struct {
	tell func(News)

	mu     sync.Mutex
	ledger *ledger
	served map[string]bool // by order
}

func newCounter(path string, tell func(News)) (*counter, error) {
	l, err := openLedger(path)
	if err != nil {
		return nil, err
	}
	c := &counter{tell: tell, ledger: l, served: map[string]bool{}}
	for _, e := range l.entries {
		c.served[e.Order] = true
	}
	return c, nil
}

func (c *counter) serve(h Handover) (int, struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.served[h.Order] {
		return http.StatusConflict, struct{}{}
	}
	if _, err := c.ledger.add(Entry{Order: h.Order}); err != nil {
		return http.StatusInternalServerError, struct{}{}
	}
	c.served[h.Order] = true
	c.tell(News{Kind: newsServed, Order: h.Order, Text: h.Drink})
	return http.StatusOK, struct{}{}
}

func (c *counter) routes(mux *http.ServeMux) { answer(mux, "POST /serve", c.serve) }
