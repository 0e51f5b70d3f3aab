package redisstore

import (
	"context"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"github.com/waggleq/waggle/driver"
)

// SetOffset moves the clock that the store's scripts see.
func SetOffset(s *Store, d time.Duration) { s.offset.Store(d.Milliseconds()) }

// SetIntakeRespect sets for how long a batch of an intake list is left to the caller who has it.
func SetIntakeRespect(s *Store, d time.Duration) { s.intakeRespect = d }

// Push does what any producer does: RPUSH.
func Push(ctx context.Context, s *Store, list string, elements ...string) error {
	return s.data.Do(ctx, s.data.B().Rpush().Key(list).Element(elements...).Build()).Error()
}

// ListLen returns the length of a list.
func ListLen(ctx context.Context, s *Store, list string) (int64, error) {
	return s.data.Do(ctx, s.data.B().Llen().Key(list).Build()).AsInt64()
}

// TakenBatch is a batch of an intake list whose caller has stopped half way.
type TakenBatch struct {
	s  *Store
	in driver.Intake
	k  intakeKeys
	b  *intakeBatch
}

// TakeBatch does the first step of MoveIntake.
func TakeBatch(ctx context.Context, s *Store, in driver.Intake) (*TakenBatch, error) {
	k, err := s.intakeKeys(in.List)
	if err != nil {
		return nil, err
	}
	b, err := s.takeIntake(ctx, in.List, k, s.caps.Limit.MaxBatch)
	return &TakenBatch{s, in, k, b}, err
}

// Store does the second step; moved reports that others have done it since.
func (t *TakenBatch) Store(ctx context.Context) (moved bool, err error) {
	tasks, _ := t.s.intakeTasks(t.in, t.b)
	err = t.s.storeBatch(ctx, t.in, t.k, t.b, tasks)
	if err == errRetry {
		return true, nil
	}
	return false, err
}

// SetCheckEvery sets how often a running store looks whether its server is still safe.
func SetCheckEvery(s *Store, d time.Duration) {
	s.health.mu.Lock()
	defer s.health.mu.Unlock()
	s.health.every = d
}

// SetFormat makes a store one of another format.
func SetFormat(ctx context.Context, s *Store, version int) error {
	for _, sh := range s.shards {
		cmd := s.control.B().Hset().Key(sh.key("meta")).FieldValue().FieldValue("schema", strconv.Itoa(version)).Build()
		if err := s.control.Do(ctx, cmd).Error(); err != nil {
			return err
		}
	}
	return nil
}

// ShardOf returns the number of the shard in which a task with that id lives.
func ShardOf(s *Store, id string) int { return s.shardOf(id).number }

// InLine returns how many tasks of a store on one server are in line: due ones that nobody has moved there yet are not.
func InLine(ctx context.Context, s *Store) (n int, err error) {
	stat, err := s.stats(ctx, s.hub())
	for _, p := range s.hub().allPairs() {
		n += stat[string(letterAvailable)+p.digits]
	}
	return n, err
}

// WakeToken returns the wake token that waits for work of a type in a queue, empty if there is none.
func WakeToken(ctx context.Context, s *Store, queue, typ string) (string, error) {
	token, err := s.control.Do(ctx, s.control.B().Lindex().Key(s.hub().wakeKey(queue, typ)).Index(0).Build()).ToString()
	if rueidis.IsRedisNil(err) {
		return "", nil
	}
	return token, err
}

// ShardsOfToken returns the numbers of the shards that a wake token names.
func ShardsOfToken(s *Store, token string) (numbers []int) {
	for _, sh := range s.shardsOfToken(token) {
		numbers = append(numbers, sh.number)
	}
	return numbers
}

// ShardOfTaskKey returns the number of the shard in which tasks with that key live.
func ShardOfTaskKey(s *Store, key string) int { return s.shardOfTaskKey(key).number }

// Shards returns the number of shards.
func Shards(s *Store) int { return len(s.shards) }

// countingClient counts what is sent through a client: commands with all their arguments, and entries of replies.
type countingClient struct {
	rueidis.Client
	n *atomic.Int64
}

func (c *countingClient) Do(ctx context.Context, cmd rueidis.Completed) rueidis.RedisResult {
	c.n.Add(int64(len(cmd.Commands())))
	reply := c.Client.Do(ctx, cmd)
	if list, err := reply.ToArray(); err == nil {
		c.n.Add(int64(len(list)))
	}
	return reply
}

func (c *countingClient) DoMulti(ctx context.Context, cmds ...rueidis.Completed) []rueidis.RedisResult {
	for _, cmd := range cmds {
		c.n.Add(int64(len(cmd.Commands())))
	}
	return c.Client.DoMulti(ctx, cmds...)
}

// CountWork has a store count what it sends, from now on. The store must not be in use yet.
func CountWork(s *Store) (work func() int64) {
	n := new(atomic.Int64)
	for _, c := range []*rueidis.Client{&s.control, &s.data, &s.direct} {
		*c = &countingClient{*c, n}
	}
	return n.Load
}

// CountScripts has a store count the commands that it sends, but for those that block. The store must not be in use yet.
func CountScripts(s *Store) (calls func() int64) {
	n := new(atomic.Int64)
	for _, c := range []*rueidis.Client{&s.control, &s.data, &s.direct} {
		*c = &tallyingClient{*c, n}
	}
	return n.Load
}

type tallyingClient struct {
	rueidis.Client
	n *atomic.Int64
}

func (c *tallyingClient) Do(ctx context.Context, cmd rueidis.Completed) rueidis.RedisResult {
	c.n.Add(1)
	return c.Client.Do(ctx, cmd)
}

// LastingKeys returns the keys of a store on one server that do not go by themselves.
func LastingKeys(ctx context.Context, s *Store) ([]string, error) {
	keys, err := s.control.Do(ctx, s.control.B().Keys().Pattern(s.hub().prefix+"*").Build()).AsStrSlice()
	if err != nil {
		return nil, err
	}
	var lasting []string
	for _, k := range keys {
		ms, err := s.control.Do(ctx, s.control.B().Pttl().Key(k).Build()).AsInt64()
		if err != nil {
			return nil, err
		}
		if ms == -1 {
			lasting = append(lasting, k)
		}
	}
	return lasting, nil
}

// Infos returns a section of INFO from each server that the store talks to.
func Infos(ctx context.Context, s *Store, section string) ([]string, error) {
	var infos []string
	for _, node := range s.control.Nodes() {
		info, err := node.Do(ctx, node.B().Info().Section(section).Build()).ToString()
		if err != nil {
			return nil, err
		}
		infos = append(infos, info)
	}
	return infos, nil
}

// SetQueueInHub is SetQueue by a program that stops when the hub has the new configuration. goOn does the rest.
func SetQueueInHub(ctx context.Context, s *Store, queue string, patch driver.QueuePatch) (goOn func() error, err error) {
	made, _, err := s.setQueueShard(ctx, s.hub(), queue, s.patched(patch))
	return func() error { return s.spread(ctx, queue, made) }, err
}

// SetQueueUnlooked is SetQueue without the look for tasks before.
func SetQueueUnlooked(ctx context.Context, s *Store, queue string, patch driver.QueuePatch) error {
	_, err := s.setQueue(ctx, queue, patch)
	return err
}

// DeleteQueueInHub is DeleteQueue by a program that dies when the hub has done it.
func DeleteQueueInHub(ctx context.Context, s *Store, queue string) error {
	return s.deleteQueueShard(ctx, s.hub(), queue)
}

// ConfigsOf returns the configurations that the shards have of a queue, of those that have one.
func ConfigsOf(ctx context.Context, s *Store, queue string) ([]driver.QueueConfig, error) {
	var list []driver.QueueConfig
	for _, sh := range s.shards {
		if err := s.refresh(ctx, sh); err != nil {
			return nil, err
		}
		if c, there := sh.known.setting(queue); there {
			list = append(list, c.QueueConfig)
		}
	}
	return list, nil
}

// ForgetShards has a store look as one that was made by a version that did not note its number of shards.
func ForgetShards(ctx context.Context, s *Store) error {
	return s.control.Do(ctx, s.control.B().Hdel().Key(s.hub().key("meta")).Field("shards").Build()).Error()
}
