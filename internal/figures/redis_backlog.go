package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/waggleq/waggle/internal/redisserver"
	"github.com/waggleq/waggle/internal/resp"
	"github.com/waggleq/waggle/redisstore"
)

// startRedisBacklog compares two million tasks queued with ten thousand.
func startRedisBacklog(ctx context.Context, l *lab) (probe, error) {
	b := &backlog{lab: l, easy: &queued{id: shallow, depth: shallowDepth}, hard: &queued{id: deep, depth: l.sizes.backlog}}
	l.board.backlog = b.hard.depth
	hard, err := b.startServers(ctx, backlogSlow)
	if err != nil {
		return nil, err
	}
	before, err := memoryOf(ctx, hard)
	if err == nil {
		err = b.fill(ctx)
	}
	after, err2 := memoryOf(ctx, hard)
	if err = errors.Join(err, err2); err != nil {
		return nil, errors.Join(err, b.stop(ctx))
	}
	l.board.add(taskMemory, float64(after-before)/float64(b.hard.depth))
	return b, nil
}

// startQueues compares one worker that serves ten thousand queues with one that serves one.
func startQueues(ctx context.Context, l *lab) (probe, error) {
	b := &backlog{lab: l, easy: &queued{id: oneQueue, depth: l.sizes.spread}, hard: &queued{id: manyQueues, depth: l.sizes.spread, queues: l.sizes.queues}}
	if _, err := b.startServers(ctx, queuesSlow); err != nil {
		return nil, err
	}
	if err := b.fill(ctx); err != nil {
		return nil, errors.Join(err, b.stop(ctx))
	}
	return b, nil
}

// startServers starts a server for each side, which stop reads the slow log of, and returns that of the harder one.
func (b *backlog) startServers(ctx context.Context, slow string) (*redisserver.Server, error) {
	var servers []*measured
	b.stop = func(ctx context.Context) (err error) {
		entries := 0
		for _, s := range servers {
			n, readErr := b.readSlow(ctx, s.Server, s.id)
			entries += n
			err = errors.Join(err, readErr, s.Close())
		}
		b.board.add(slow, float64(entries))
		return err
	}
	for _, q := range []*queued{b.easy, b.hard} {
		s, err := redisserver.Start(ctx, &redisserver.Options{Flavour: b.flavour(), Config: slowConfig})
		if err != nil {
			return nil, errors.Join(err, b.stop(ctx))
		}
		servers = append(servers, &measured{s, q.id})
		q.store = s.URL()
	}
	return servers[1].Server, nil
}

// readSlow returns how many commands were slow, and notes which.
func (b *backlog) readSlow(ctx context.Context, s *redisserver.Server, id string) (int, error) {
	v, err := s.Do(ctx, "SLOWLOG", "GET", "-1")
	if err != nil {
		return 0, err
	}
	type kind struct {
		count int
		worst int64
	}
	kinds := map[string]kind{}
	for _, entry := range v.Elems {
		if len(entry.Elems) < 4 || len(entry.Elems[3].Elems) == 0 {
			return 0, fmt.Errorf("an entry of SLOWLOG has %d parts", len(entry.Elems))
		}
		name := commandName(entry.Elems[3].Elems)
		k := kinds[name]
		kinds[name] = kind{k.count + 1, max(k.worst, entry.Elems[2].Int)}
	}
	var list []string
	names := slices.SortedFunc(maps.Keys(kinds), func(a, b string) int {
		return cmp.Or(cmp.Compare(kinds[b].count, kinds[a].count), strings.Compare(a, b))
	})
	for _, name := range names[:min(len(names), 5)] {
		list = append(list, fmt.Sprintf("%s %d times, up to %.1f ms", name, kinds[name].count, float64(kinds[name].worst)/1000))
	}
	if len(list) > 0 {
		b.board.notes = append(b.board.notes, fmt.Sprintf("In SLOWLOG for `%s`, the most frequent: %s.", id, strings.Join(list, "; ")))
	}
	return len(v.Elems), nil
}

// commandName is the command of an entry, or the script that it calls.
func commandName(words []resp.Value) string {
	name := strings.ToUpper(words[0].Text)
	if name == "EVALSHA" && len(words) > 1 {
		return redisstore.ScriptName(words[1].Text) + ".lua"
	}
	return name
}

// memoryOf returns how much memory a server's data takes.
func memoryOf(ctx context.Context, s *redisserver.Server) (int64, error) {
	info, err := s.Info(ctx, "memory")
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(info["used_memory"], 10, 64)
}
