package redisstore

import (
	"hash/fnv"

	"github.com/waggleq/waggle/driver"
)

// newID returns an id for a new task: a UUIDv7 whose last two bytes name the shard, that of its unique key if it has one.
func (s *Store) newID(t *driver.Task, home int) string {
	id := driver.NewID()
	if len(s.shards) == 1 {
		return id
	}
	switch {
	case t.Key != "":
		home = s.shardOfTaskKey(t.Key).number
	case t.Unique != nil && t.Unique.Key != "":
		home = s.shardOfKey(t.Unique.Key).number
	}
	const hex = "0123456789abcdef"
	b := []byte(id)
	for i, shift := range []int{12, 8, 4, 0} {
		b[32+i] = hex[home>>shift&15]
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
