package redisstore

import (
	"context"
	"sync"
)

// eachShard calls do for every shard that is wanted (nil: all), at once where there are several, and returns the first
// error by the shards' order.
func (s *Store) eachShard(ctx context.Context, do func(context.Context, *shard) error, wanted func(*shard) bool) error {
	s.checkUp(ctx)
	if len(s.shards) == 1 {
		if wanted != nil && !wanted(s.shards[0]) {
			return nil
		}
		return do(ctx, s.shards[0])
	}
	errs := make([]error, len(s.shards))
	var wg sync.WaitGroup
	for i, sh := range s.shards {
		if wanted == nil || wanted(sh) {
			wg.Go(func() { errs[i] = do(ctx, sh) })
		}
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
