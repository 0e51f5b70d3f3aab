package redisstore

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/waggleq/waggle/driver"
)

// tickSlack is how much longer the server is told to block where this program ends the wait itself. The server looks for
// waits that are over ten times a second, or as often as its setting hz says, and so ends them late by up to that.
const tickSlack = 500 * time.Millisecond

// noteDue remembers when the next task of what a worker serves is due, by this program's clock: a wait until then is to
// end in time, others may be late.
func (s *Store) noteDue(worker string, result *driver.FetchResult) {
	if result.NextDue.IsZero() || result.Now.IsZero() {
		s.dues.Delete(worker)
		return
	}
	s.dues.Store(worker, time.Now().Add(result.NextDue.Sub(result.Now)))
}

// endsDue reports whether a wait of d from now on lasts until the next task is due.
func (s *Store) endsDue(worker string, d time.Duration) bool {
	due, ok := s.dues.Load(worker)
	return ok && !due.(time.Time).After(time.Now().Add(d+time.Millisecond))
}

// ticker ends a wait of one worker by an entry in a list of its own, which its wait names beside the wake tokens.
type ticker struct {
	s     *Store
	key   string
	timer *time.Timer
	sent  atomic.Bool
	over  chan struct{} // closed when the entry is there, or could not be put there
}

// tickAfter has the worker's wait end after d.
func (s *Store) tickAfter(worker string, d time.Duration) *ticker {
	t := &ticker{s: s, key: s.hub().tickKey(worker), over: make(chan struct{})}
	t.timer = time.AfterFunc(d, func() {
		defer close(t.over)
		t.sent.Store(true)
		_ = t.do(func(ctx context.Context) error { // the server's own timer makes up for its failure
			return s.control.Do(ctx, s.control.B().Rpush().Key(t.key).Element("1").Build()).Error()
		})
	})
	return t
}

// stop ends it. ticked is whether it was its entry that ended the wait; else one that came too late is taken away.
func (t *ticker) stop(ticked bool) {
	if t.timer.Stop() || ticked || !t.sent.Load() {
		return
	}
	<-t.over
	_ = t.do(func(ctx context.Context) error { // an entry that stays ends one wait early
		return t.s.control.Do(ctx, t.s.control.B().Del().Key(t.key).Build()).Error()
	})
}

func (t *ticker) do(call func(context.Context) error) error {
	ctx, cancel := t.s.bounded(context.Background(), t.s.timeout)
	defer cancel()
	return call(ctx)
}
