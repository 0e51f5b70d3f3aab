package redisstore

import (
	"context"
	"errors"
	"strconv"
	"strings"

	"github.com/redis/rueidis"

	"github.com/waggleq/waggle/driver"
)

// durable runs a script and then waits until what it wrote is as safe as level says. Both go over one connection that
// nobody else uses meanwhile, because WAIT and WAITAOF speak of their own connection's writes.
func (s *Store) durable(ctx context.Context, sh *shard, sc *script, keys, args []string, level driver.Durability) (rueidis.RedisMessage, error) {
	if level == driver.DurabilityMemory || level == driver.DurabilityDisk && s.server.fsync == "always" && !s.server.waitAOF() {
		// With appendfsync always, and on a server without WAITAOF, the reply itself comes after the fsync.
		return s.call(ctx, s.data, sh, sc, keys, args)
	}
	for tries := 1; ; tries++ {
		reply, sent, err := s.runAndWait(ctx, sh, sc, keys, args, level)
		if !sent && tries < mostTries && errors.Is(err, errNotSent) && ctx.Err() == nil {
			continue // on another connection
		}
		if err != nil {
			return reply, s.asContractError(err)
		}
		return reply, nil
	}
}

// runAndWait is durable on one connection. sent is false if the script has not been executed.
func (s *Store) runAndWait(ctx context.Context, sh *shard, sc *script, keys, args []string, level driver.Durability) (reply rueidis.RedisMessage, sent bool, err error) {
	err = s.direct.Dedicated(func(c rueidis.DedicatedClient) error {
		var err error
		if reply, err = s.call(ctx, c, sh, sc, keys, args); err != nil {
			return err
		}
		sent = true
		if sc == enqueueScript && onlyFound(reply) {
			if err := s.mark(ctx, c, sh); err != nil {
				return err
			}
		}
		return s.waitFor(ctx, c, sh, level)
	})
	return reply, sent, err
}

// onlyFound reports whether a call of the enqueue script stored nothing and found tasks that were there before.
func onlyFound(reply rueidis.RedisMessage) bool {
	parts, err := reply.ToArray()
	if err != nil || len(parts) == 0 {
		return false
	}
	letters, _ := parts[0].ToString()
	return strings.ContainsAny(letters, "EU") && !strings.ContainsAny(letters, "ASP")
}

// mark writes something that nobody reads. A server waits for its replicas and its disk only where the connection has
// written; one that found its tasks stored would be told that they are safe though an earlier call gave up on just that.
func (s *Store) mark(ctx context.Context, c rueidis.CoreClient, sh *shard) error {
	keys, args := s.markCall(sh)
	_, err := s.call(ctx, c, sh, commitScript, keys, args)
	return err
}

func (s *Store) markCall(sh *shard) (keys, args []string) {
	it := &item{}
	it.do("HSET", sh.key("meta"), "waited", "1")
	return encodeItems([]*item{it}, sh.keysOf(commitScript, ""), s.head(sh, "", ""))
}

// confirm waits until what was stored in a shard before, perhaps by others, is as safe as level says.
func (s *Store) confirm(ctx context.Context, sh *shard, level driver.Durability) error {
	keys, args := s.markCall(sh)
	_, err := s.durable(ctx, sh, commitScript, keys, args, level)
	return err
}

// asContractError leaves errors alone that are the contract's already.
func (s *Store) asContractError(err error) error {
	if err == errStale || err == errRetry || err == errRemote || driver.ClassOf(err).Code != "internal" {
		return err
	}
	return s.asError(err)
}

// waitFor waits for a level and checks the numbers that the server returns.
func (s *Store) waitFor(ctx context.Context, c rueidis.DedicatedClient, sh *shard, level driver.Durability) error {
	wait, cancel := s.bounded(ctx, 2*s.timeout)
	defer cancel()
	ms := s.timeout.Milliseconds()
	local, replicas := int64(1), int64(0)
	if level == driver.DurabilityReplicated {
		replicas = int64(s.options.Replicas)
		if s.server.offersDisk() != nil {
			local = 0
		}
	}
	// A cluster connection needs a key to know its node.
	if s.server.waitAOF() && s.server.aof {
		got, err := c.Do(wait, c.B().Arbitrary("WAITAOF").Keys().Args(strconv.FormatInt(local, 10), "0", strconv.FormatInt(ms, 10)).Build()).AsIntSlice()
		if err != nil {
			return unknownLevel(level, s.ended(wait, err))
		}
		if len(got) != 2 || got[0] < local {
			return driver.Errorf(driver.ErrNotDurable, "%s did not write to disk within %v: enqueue the same ids again, since it is unknown whether the tasks are stored", s.where, s.timeout)
		}
	}
	if replicas == 0 {
		return nil
	}
	got, err := c.Do(wait, c.B().Wait().Numreplicas(replicas).Timeout(ms).Build()).AsInt64()
	if err != nil {
		return unknownLevel(level, s.ended(wait, err))
	}
	if got < replicas {
		return driver.Errorf(driver.ErrNotDurable, "%s: %d of %d replicas have the tasks after %v: enqueue the same ids again, since it is unknown whether they are safe",
			s.where, got, replicas, s.timeout)
	}
	return nil
}

// unknownLevel says that tasks were stored but the level was not confirmed.
func unknownLevel(level driver.Durability, err error) error {
	return driver.Errorf(driver.ErrNotDurable, "level %q was not confirmed: %v", level, err)
}
