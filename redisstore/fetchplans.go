package redisstore

import (
	"context"
	"strconv"

	"github.com/redis/rueidis"

	"github.com/waggleq/waggle/driver"
)

// lookForPlans in place of a number asks a shard for no plans, but when its next one is due.
const lookForPlans = -1

// plans says how many plans the script is to offer; nothing if the worker takes none.
func (f *fetchCall) plans() string {
	if !f.takesPlans {
		return ""
	}
	return strconv.Itoa(f.mostPlans)
}

// readPlans reads the plans that a fetch offers, and does what it found to be done: plans that have expired are removed, and
// tasks that were left in the outbox are stored.
func (f *fetchCall) readPlans(ctx context.Context, parts []rueidis.RedisMessage, result *driver.FetchResult) error {
	due, _ := parts[0].AsStrSlice()
	for _, name := range due {
		if ref, ok := driver.ParsePlanRef(name); ok {
			result.Plans = append(result.Plans, ref)
		}
	}
	f.mostPlans -= len(due) // a second script of this call offers the rest
	if over, _ := parts[1].AsStrSlice(); len(over) > 0 {
		_, _ = f.s.dropPlans(ctx, f.sh, over, true) // the next fetch tries again
	}
	if forgotten, _ := parts[2].AsStrSlice(); len(forgotten) > 0 {
		_ = f.s.sendForgotten(ctx, f.sh, forgotten) // as above
	}
	if left, _ := parts[3].AsInt64(); left == 1 {
		f.s.signalPlanners(ctx, f.sh)
	}
	return nil
}

// sharePlans returns how many plans each shard is asked for: all shards, or as many as plans are wanted, from the first on.
func (s *Store) sharePlans(wanted, first int) []int {
	shares := make([]int, len(s.shards))
	for i := range min(wanted, len(s.shards)) {
		shares[(first+i)%len(shares)] = max(wanted/len(shares), 1)
	}
	return shares
}
