package redisstore

import (
	"context"
	"strconv"
	"sync"
	"time"

	"github.com/redis/rueidis"
)

// eventWatches tell readers that wait for events of several shards when one of them has something new. Each shard's log is
// read by a command that blocks on a connection of its own. All readers at the same place share it, and it stays when a
// reader was told of another shard, so that what a wait costs depends on what happens and not on how long it takes.
type eventWatches struct {
	mu sync.Mutex
	of map[eventPlace]*eventWatch
}

// eventPlace is a shard and the number of an event in its log.
type eventPlace struct {
	shard int
	after int64
}

// eventWatch is one blocking read. Its readers are told of its end: each channel has room for that.
type eventWatch struct {
	readers map[chan error]struct{}
}

// await blocks until a shard's log has something behind the cursor, or until d has passed.
func (ws *eventWatches) await(ctx context.Context, s *Store, at eventCursor, d time.Duration) error {
	news := make(chan error, 1)
	ws.join(s, at, news)
	defer ws.leave(at, news)
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case err := <-news:
		return err
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-s.life.Done():
		return s.ended(ctx, s.life.Err())
	}
}

func (ws *eventWatches) join(s *Store, at eventCursor, news chan error) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if ws.of == nil {
		ws.of = map[eventPlace]*eventWatch{}
	}
	for i, after := range at {
		place := eventPlace{i, after}
		w := ws.of[place]
		if w == nil {
			w = &eventWatch{readers: map[chan error]struct{}{}}
			ws.of[place] = w
			go ws.run(s, place, w)
		}
		w.readers[news] = struct{}{}
	}
}

func (ws *eventWatches) leave(at eventCursor, news chan error) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	for i, after := range at {
		if w := ws.of[eventPlace{i, after}]; w != nil {
			delete(w.readers, news)
		}
	}
}

// run blocks behind a place until there is something, and for as long as somebody waits for it.
func (ws *eventWatches) run(s *Store, place eventPlace, w *eventWatch) {
	for {
		found, err := s.blockForEvents(s.life, place, maxBlock)
		ws.mu.Lock()
		if !found && err == nil && len(w.readers) > 0 {
			ws.mu.Unlock()
			continue
		}
		delete(ws.of, place)
		for news := range w.readers {
			select {
			case news <- err:
			default: // another shard has told it
			}
		}
		ws.mu.Unlock()
		return
	}
}

// blockForEvents waits until a shard's log has something behind a place, up to d.
func (s *Store) blockForEvents(ctx context.Context, place eventPlace, d time.Duration) (found bool, err error) {
	ctx, cancel := s.interruptible(ctx, d+s.timeout)
	defer cancel()
	cmd := s.waiting.B().Xread().Count(1).Block(max(d.Milliseconds(), 1)).Streams().Key(s.shards[place.shard].key("events")).
		Id(strconv.FormatInt(place.after, 10) + "-0").Build()
	err = s.waiting.Do(ctx, cmd).Error()
	if rueidis.IsRedisNil(err) {
		return false, nil
	}
	return err == nil, s.ended(ctx, err)
}
