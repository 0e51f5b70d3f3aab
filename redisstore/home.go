package redisstore

import (
	"cmp"
	"hash/fnv"
	"slices"

	"github.com/waggleq/waggle/driver"
)

// NewID implements driver.Enqueuer.
func (s *Store) NewID(t *driver.Task) string {
	if sh := s.placeOf(t); sh != nil {
		return s.idIn(sh)
	}
	return driver.NewIDWithKey(t.Key)
}

// placeOf returns the shard in which a new task should be: nil if it is all the same. It goes by the limits as they are known
// here: where that is not the latest, the task is lent what it needs.
func (s *Store) placeOf(t *driver.Task) *shard {
	switch {
	case len(s.shards) == 1:
		return nil
	case t.Key != "":
		return s.shardOfTaskKey(t.Key)
	case t.Unique != nil && t.Unique.Key != "":
		return s.shardOfKey(t.Unique.Key)
	}
	queue := cmp.Or(t.Queue, driver.DefaultQueue)
	c := s.hub().known.config(queue)
	if slices.ContainsFunc(c.Limits, func(l driver.Limit) bool { return !l.PerKey && l.Concerns(t.Type, "") }) {
		return s.homeOf(queue)
	}
	return nil
}

// idIn returns an id for a new task: a UUIDv7 whose last two bytes name the shard, if there are several.
func (s *Store) idIn(sh *shard) string {
	if len(s.shards) == 1 {
		return driver.NewID()
	}
	const hex = "0123456789abcdef"
	b := []byte(driver.NewID())
	for i, shift := range []int{12, 8, 4, 0} {
		b[32+i] = hex[sh.number>>shift&15]
	}
	return string(b)
}

// shardOf returns the shard in which a task with that id is, or would be: UUIDs carry it in their last two bytes,
// other ids in their hash.
func (s *Store) shardOf(id string) *shard {
	if len(s.shards) == 1 {
		return s.shards[0]
	}
	var packed [17]byte
	if b := driver.PackID(packed[:0], id); len(b) == 16 {
		return s.shards[(int(b[14])<<8|int(b[15]))%len(s.shards)]
	}
	return s.shardOfKey(id)
}

// shardOfTaskKey returns the shard in which the tasks with a key live, but those whose callers chose their ids.
func (s *Store) shardOfTaskKey(key string) *shard {
	return s.shards[int(driver.KeyHome(key))%len(s.shards)]
}

func (s *Store) shardOfKey(key string) *shard {
	if len(s.shards) == 1 {
		return s.shards[0]
	}
	h := fnv.New32a()
	_, _ = h.Write([]byte(key))
	return s.shards[h.Sum32()%uint32(len(s.shards))]
}
