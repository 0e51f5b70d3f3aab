package main

import (
	"net/http"
	"sync"
)

// Charge is what the payment service is asked for.
type Charge struct {
	Key   string // of the order: a key is charged once
	Token int64  // of the attempt that asks
	Card  string
	Cents int
}

// ChargeAnswer is what it answers. With [http.StatusConflict] and [http.StatusPreconditionFailed] nothing was charged.
type ChargeAnswer struct{ Receipt Receipt }

// payments is the payment service: a process of its own that has never heard of Waggle. Two rules keep it from charging a card
// twice, whatever its callers go through:
//
//   - A key is charged once. Whoever repeats it gets the first receipt, and 409: a caller whose answer was lost (it was killed,
//     or this service was frozen) may ask again.
//   - For each key it remembers the greatest token that it has seen. One that is smaller gets 412: its task has been given to
//     another worker since, which knows better what is to be charged.
type payments struct {
	tell func(News)

	mu     sync.Mutex
	ledger *ledger
	tokens map[string]int64 // by key
	first  map[string]Entry // by key
}

func newPayments(path string, tell func(News)) (*payments, error) {
	l, err := openLedger(path)
	if err != nil {
		return nil, err
	}
	p := &payments{tell: tell, ledger: l, tokens: map[string]int64{}, first: map[string]Entry{}}
	for _, e := range l.entries {
		p.tokens[e.Order], p.first[e.Order] = e.Token, e
	}
	return p, nil
}

// charge answers a request with a status and a receipt.
func (p *payments) charge(c Charge) (int, ChargeAnswer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c.Token < p.tokens[c.Key] {
		p.tell(News{Kind: newsOldToken, Order: c.Key})
		return http.StatusPreconditionFailed, ChargeAnswer{}
	}
	p.tokens[c.Key] = c.Token
	e, charged := p.first[c.Key]
	if charged {
		p.tell(News{Kind: newsRepeatedKey, Order: c.Key})
		return http.StatusConflict, ChargeAnswer{receiptOf(e)}
	}
	e, err := p.ledger.add(Entry{Order: c.Key, Token: c.Token, Cents: c.Cents})
	if err != nil {
		return http.StatusInternalServerError, ChargeAnswer{}
	}
	p.first[c.Key] = e
	p.tell(News{Kind: newsCharged, Order: c.Key})
	return http.StatusOK, ChargeAnswer{receiptOf(e)}
}

func receiptOf(e Entry) Receipt { return Receipt{Number: e.Number, Cents: e.Cents} }

func (p *payments) routes(mux *http.ServeMux) { answer(mux, "POST /charge", p.charge) }
