package room

import (
	"context"
	"sync"
)

// gather makes batches of single calls, the way databases commit in groups: while one batch is under way the next one
// fills, so a lone call waits for nobody and a hundred share one round trip. There is a queue for each room.
type gather[In, Out any] struct {
	most  int // items a batch
	batch func(ctx context.Context, room string, items []In) ([]Out, error)

	mu    sync.Mutex
	rooms map[string]*gathered[In, Out]
}

// gathered is what waits for a room's next batch. It exists while a batch is under way.
type gathered[In, Out any] struct{ waiting []*call[In, Out] }

type call[In, Out any] struct {
	ctx  context.Context
	in   In
	out  Out
	err  error
	done chan struct{}
}

// do has the item done with the room's next batch. It returns when that has ended, or ctx has.
func (g *gather[In, Out]) do(ctx context.Context, room string, in In) (Out, error) {
	c := &call[In, Out]{ctx: ctx, in: in, done: make(chan struct{})}
	g.mu.Lock()
	if r := g.rooms[room]; r != nil {
		r.waiting = append(r.waiting, c)
	} else {
		if g.rooms == nil {
			g.rooms = map[string]*gathered[In, Out]{}
		}
		r = &gathered[In, Out]{waiting: []*call[In, Out]{c}}
		g.rooms[room] = r
		go g.run(room, r)
	}
	g.mu.Unlock()
	select {
	case <-c.done:
		return c.out, c.err
	case <-ctx.Done():
		var none Out
		return none, context.Cause(ctx)
	}
}

func (g *gather[In, Out]) run(room string, r *gathered[In, Out]) {
	for {
		g.mu.Lock()
		n := min(len(r.waiting), g.most)
		calls := r.waiting[:n:n]
		r.waiting = r.waiting[n:]
		if n == 0 {
			delete(g.rooms, room)
		}
		g.mu.Unlock()
		if n == 0 {
			return
		}
		g.send(room, calls)
	}
}

// send does one batch. One caller that gives up does not take it from the others.
func (g *gather[In, Out]) send(room string, calls []*call[In, Out]) {
	items := make([]In, len(calls))
	for i, c := range calls {
		items[i] = c.in
	}
	outs, err := g.batch(context.WithoutCancel(calls[0].ctx), room, items)
	for i, c := range calls {
		if c.err = err; err == nil {
			c.out = outs[i]
		}
		close(c.done)
	}
}
