package robustness

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/internal/faultproxy"
	"github.com/waggleq/waggle/internal/redisserver/redistest"
)

// claimOp and settleOp are the operations on a task. What became of a settlement is its output.
type (
	claimOp  struct{ id string }
	settleOp struct {
		id    string
		token driver.Token
		ends  bool
	}
	reply string
)

const (
	replyOK      reply = "ok"
	replyLost    reply = "lease lost"
	replyUnknown reply = "unknown"
)

// claimState is a task as the contract sees it: the last token given, whether it is held under it, whether the task ended.
type claimState struct {
	token       driver.Token
	held, ended bool
}

// settled is the state after an accepted settlement.
func (s claimState) settled(op settleOp) claimState {
	if s.held {
		s.held, s.ended = false, op.ends
	}
	return s // a repeat changes nothing
}

// claimModel says what claims and settlements of one task may answer: a claim gives a token greater than all before, and
// only of a task that nobody holds and that has not ended; a settlement is accepted under the last token given, once with
// effect, and refused under any other; one without a reply was executed or not, at once or later.
var claimModel = (&porcupine.NondeterministicModel{
	Partition: func(ops []porcupine.Operation) [][]porcupine.Operation {
		byTask := map[string][]porcupine.Operation{}
		for _, op := range ops {
			id := ""
			switch in := op.Input.(type) {
			case claimOp:
				id = in.id
			case settleOp:
				id = in.id
			}
			byTask[id] = append(byTask[id], op)
		}
		var parts [][]porcupine.Operation
		for _, p := range byTask {
			parts = append(parts, p)
		}
		return parts
	},
	Init: func() []any { return []any{claimState{}} },
	Step: func(state, input, output any) []any {
		s := state.(claimState)
		if _, ok := input.(claimOp); ok {
			token := output.(driver.Token)
			if s.held || s.ended || token <= s.token {
				return nil
			}
			return []any{claimState{token: token, held: true}}
		}
		op := input.(settleOp)
		mine := op.token == s.token
		switch r := output.(reply); {
		case r == replyOK && mine, r == replyUnknown && mine && s.held:
			if r == replyUnknown {
				return []any{s, s.settled(op)}
			}
			return []any{s.settled(op)}
		case r == replyLost && !mine, r == replyUnknown:
			return []any{s}
		}
		return nil
	},
}).ToModel()

// contest is a few workers that claim and settle a few tasks all at once, with stale tokens too.
type contest struct {
	t   *testing.T
	mu  sync.Mutex
	ops []porcupine.Operation
}

func (c *contest) add(client int, called time.Time, in, out any) {
	end := time.Now().UnixNano()
	if out == replyUnknown {
		end = math.MaxInt64 // it may be executed later
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ops = append(c.ops, porcupine.Operation{ClientId: client, Input: in, Call: called.UnixNano(), Output: out, Return: end})
}

// compete is one worker.
func (c *contest) compete(client int, s driver.Store, rounds int) {
	ctx, id := c.t.Context(), fmt.Sprintf("worker:%d", client)
	random := rand.New(rand.NewPCG(uint64(client), 3))
	known := map[driver.Ref]bool{}
	var stale []driver.Ref
	for range rounds {
		called := time.Now()
		var claims []driver.Claim
		res, err := s.Fetch(ctx, driver.FetchRequest{Worker: id, Lease: time.Hour, Queues: []string{"default"}, Max: 2})
		for ; err != nil && ctx.Err() == nil; _ = wait(ctx, time.Millisecond) {
			if claims, err = s.Held(ctx, id); err == nil {
				break
			}
		}
		if res != nil {
			claims = res.Claims
		}
		var mine []driver.Ref
		for _, claim := range claims {
			ref := driver.Ref{ID: claim.ID, Token: claim.Token}
			if !known[ref] {
				known[ref] = true
				c.add(client, called, claimOp{claim.ID}, claim.Token)
			}
			mine = append(mine, ref)
		}
		if len(stale) > 0 {
			c.settle(client, s, id, stale[random.IntN(len(stale))], driver.Complete)
		}
		for _, ref := range mine {
			outcome := driver.Release
			if random.IntN(12) == 0 {
				outcome = driver.Complete
			}
			c.settle(client, s, id, ref, outcome)
		}
		stale = append(stale, mine...)
	}
}

func (c *contest) settle(client int, s driver.Store, worker string, ref driver.Ref, o driver.Outcome) {
	called := time.Now()
	errs, err := driver.SettleErrors(s.Settle(c.t.Context(), worker, []driver.Settlement{{ID: ref.ID, Token: ref.Token, Outcome: o}}))
	out := replyOK
	switch {
	case err != nil:
		out = replyUnknown
	case errors.Is(errs[0], driver.ErrLeaseLost):
		out = replyLost
	case errs[0] != nil:
		c.t.Errorf("settle %v: %v", ref, errs[0])
	}
	c.add(client, called, settleOp{ref.ID, ref.Token, o == driver.Complete}, out)
}

// run has four workers compete for six tasks on a server behind a proxy that cuts connections, before or after a call was
// executed. wrap may put a bug between the workers and the store.
func (c *contest) run(wrap func(driver.Store) driver.Store) porcupine.CheckResult {
	t := c.t
	takeTurn(t)
	server := redistest.Start(t, nil)
	proxy, err := faultproxy.New(t.Context(), server.Addr(), &faultproxy.Options{RESP: true})
	must(t, err)
	t.Cleanup(func() { _ = proxy.Close() })
	direct, err := openStore(t.Context(), server.URL(), 0)
	must(t, err)
	t.Cleanup(func() { _ = direct.Close() })
	for i := range 6 {
		_, err := direct.Enqueue(t.Context(), []*driver.Task{{ID: fmt.Sprintf("t-%d", i), Type: taskType, Queue: "default"}}, driver.EnqueueOptions{})
		must(t, err)
	}
	var stores []driver.Store
	for i := range 4 {
		s, err := openStore(t.Context(), "redis://"+proxy.Addr()+"?timeout=3s", 0)
		must(t, err)
		t.Cleanup(func() { _ = s.Close() })
		must(t, s.Register(t.Context(), driver.WorkerInfo{ID: fmt.Sprintf("worker:%d", i)}, time.Hour))
		stores = append(stores, wrap(s))
	}
	var mu sync.Mutex
	random := rand.New(rand.NewPCG(seed(t), 4))
	must(t, proxy.OnCommand(func(args [][]byte) faultproxy.Action {
		mu.Lock()
		defer mu.Unlock()
		if string(args[0]) == "EVALSHA" && random.IntN(12) == 0 {
			return []faultproxy.Action{faultproxy.CutBefore(), faultproxy.CutAfter()}[random.IntN(2)]
		}
		return faultproxy.Forward()
	}))
	var wg sync.WaitGroup
	for i, s := range stores {
		wg.Go(func() { c.compete(i, s, 40) })
	}
	wg.Wait()
	if len(c.ops) < 100 {
		t.Errorf("only %d operations", len(c.ops))
	}
	t.Logf("%d operations", len(c.ops))
	return porcupine.CheckOperationsTimeout(claimModel, c.ops, patience)
}

// TestClaimsLinearize checks that claims and settlements of each task, some of them without a reply, could have happened
// one after the other at some moment of each call.
func TestClaimsLinearize(t *testing.T) {
	t.Parallel()
	c := &contest{t: t}
	if got := c.run(func(s driver.Store) driver.Store { return s }); got != porcupine.Ok {
		t.Errorf("got %v, want the history to be linearizable", got)
	}
}

// TestUnfencedSettleDoesNotLinearize does the same with a store that settles whatever claim there is: it must be noticed.
func TestUnfencedSettleDoesNotLinearize(t *testing.T) {
	t.Parallel()
	c, holders := &contest{t: t}, &holders{byTask: map[string]holder{}}
	if got := c.run(func(s driver.Store) driver.Store { return &unfenced{s, holders} }); got != porcupine.Illegal {
		t.Errorf("got %v, want the history to be refused", got)
	}
}

// holders are who has which task.
type holders struct {
	mu     sync.Mutex
	byTask map[string]holder
}

type holder struct {
	worker string
	token  driver.Token
}

// unfenced is a store with a known bug: it ignores the token and the worker of a settlement.
type unfenced struct {
	driver.Store
	holders *holders
}

func (u *unfenced) Fetch(ctx context.Context, req driver.FetchRequest) (*driver.FetchResult, error) {
	res, err := u.Store.Fetch(ctx, req)
	if err == nil {
		u.holders.mu.Lock()
		defer u.holders.mu.Unlock()
		for _, c := range res.Claims {
			u.holders.byTask[c.ID] = holder{req.Worker, c.Token}
		}
	}
	return res, err
}

func (u *unfenced) Settle(ctx context.Context, worker string, items []driver.Settlement) ([]driver.SettleResult, error) {
	u.holders.mu.Lock()
	if h, ok := u.holders.byTask[items[0].ID]; ok {
		worker, items[0].Token = h.worker, h.token
	}
	u.holders.mu.Unlock()
	return u.Store.Settle(ctx, worker, items)
}
