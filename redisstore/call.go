package redisstore

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/redis/rueidis"

	"github.com/waggleq/waggle/driver"
)

// head returns the arguments that every writing script begins with: see lua/include/head.lua. pairs and conf are the
// versions that the call depends on, empty if it does not.
func (s *Store) head(sh *shard, pairs, conf string) []string {
	incarnation, _, _ := sh.known.versions()
	return []string{incarnation, strconv.FormatInt(s.offset.Load(), 10), s.maxEvents, pairs, conf}
}

// script runs a script with a head and further arguments.
func (s *Store) script(ctx context.Context, c rueidis.CoreClient, sh *shard, sc *script, keys []string, argLists ...[]string) (rueidis.RedisMessage, error) {
	n := 0
	for _, l := range argLists {
		n += len(l)
	}
	args := make([]string, 0, n)
	for _, l := range argLists {
		args = append(args, l...)
	}
	return s.call(ctx, c, sh, sc, keys, args)
}

// call runs a script. It is sent once; only a server that does not know the script yet is asked a second time, and so is
// one whose connection has turned out to be dead, if nothing was sent on it or the script only reads: a server that was
// restarted while a program had nothing to ask is found out by the first call.
func (s *Store) call(ctx context.Context, c rueidis.CoreClient, sh *shard, sc *script, keys, args []string) (rueidis.RedisMessage, error) {
	if s.closed() {
		return rueidis.RedisMessage{}, driver.ErrClosed
	}
	if _, limited := ctx.Deadline(); limited && c == s.data && len(s.shards) == 1 {
		c = s.direct // such a call ends at its deadline, not earlier; several at once share a connection at less cost
	}
	ctx, cancel := s.bounded(ctx, s.timeout)
	defer cancel()
	var m rueidis.RedisMessage
	ask := func() (err error) {
		m, err = c.Do(ctx, evalsha(c, sc, keys, args)).ToMessage()
		return err
	}
	var err error
	if _, others := c.(rueidis.Client); others {
		err = repeated(ctx, ask)
	} else {
		err = ask() // there is only the one connection
	}
	if sc.reads && connectionLost(ctx, err) {
		err = ask()
	}
	if re, ok := rueidis.IsRedisErr(err); ok && re.IsNoScript() {
		m, err = c.Do(ctx, eval(c, sc, keys, args)).ToMessage()
	}
	if err != nil && rueidis.IsRedisNil(err) {
		return m, nil
	}
	return m, s.ended(ctx, err)
}

// connectionLost reports whether a call has failed for its connection, and there is time for another.
func connectionLost(ctx context.Context, err error) bool {
	_, answered := rueidis.IsRedisErr(err)
	return err != nil && !answered && ctx.Err() == nil && !errors.Is(err, context.DeadlineExceeded)
}

// evalsha calls a script by its digest. One that only reads is sent as such, so that the client library may ask another
// node when a cluster has changed.
func evalsha(c rueidis.CoreClient, sc *script, keys, args []string) rueidis.Completed {
	if sc.reads {
		return c.B().EvalshaRo().Sha1(sc.sha).Numkeys(int64(len(keys))).Key(keys...).Arg(args...).Build()
	}
	return c.B().Evalsha().Sha1(sc.sha).Numkeys(int64(len(keys))).Key(keys...).Arg(args...).Build()
}

// eval sends the script itself, to a server that does not know it yet.
func eval(c rueidis.CoreClient, sc *script, keys, args []string) rueidis.Completed {
	if sc.reads {
		return c.B().EvalRo().Script(sc.text).Numkeys(int64(len(keys))).Key(keys...).Arg(args...).Build()
	}
	return c.B().Eval().Script(sc.text).Numkeys(int64(len(keys))).Key(keys...).Arg(args...).Build()
}

// bounded returns a context that ends with ctx, with the store, or after d.
func (s *Store) bounded(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeoutCause(ctx, d, errTimeout)
	stop := context.AfterFunc(s.life, cancel)
	return ctx, func() { stop(); cancel() }
}

// interruptible is bounded for calls that block: the client library gives up on those at once when a context without a
// deadline ends, and closes their connection, so that no wake token goes to nobody.
func (s *Store) interruptible(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	free, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	stops := []func() bool{
		context.AfterFunc(ctx, func() { cancel(context.Cause(ctx)) }),
		context.AfterFunc(s.life, func() { cancel(driver.ErrClosed) }),
		time.AfterFunc(d, func() { cancel(errTimeout) }).Stop,
	}
	return free, func() {
		for _, stop := range stops {
			stop()
		}
		cancel(nil)
	}
}

var errTimeout = driver.Errorf(driver.ErrUnavailable, "the server did not answer in time")

// ended turns err into the contract's errors; where the context that ended it is this store's own doing, it says so.
func (s *Store) ended(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if _, ok := rueidis.IsRedisErr(err); !ok {
		if s.closed() {
			return driver.ErrClosed
		}
		if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
			<-ctx.Done() // the connection's deadline is the context's, and comes a moment before it
		}
		if cause := context.Cause(ctx); cause == errTimeout {
			return driver.Errorf(driver.ErrUnavailable, "%s did not answer within %v", s.where, s.timeout)
		}
	}
	return s.asError(err)
}

// refreshed repeats do as long as what this program knows of the shard turns out to be old.
func (s *Store) refreshed(ctx context.Context, sh *shard, do func() error) error {
	const tries = 50
	for range tries {
		err := do()
		if err != errStale && err != errRetry {
			return err
		}
		if err == errStale {
			if err := s.refresh(ctx, sh); err != nil {
				return err
			}
		}
	}
	return driver.Errorf(driver.ErrUnavailable, "%s changes too fast: gave up after %d tries", s.where, tries)
}
