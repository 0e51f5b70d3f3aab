package redisstore

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"reflect"
	"slices"
	"strconv"

	"github.com/waggleq/waggle/driver"
)

// Each shard has the configuration of all queues, so that a script finds it where it runs. What holds is what the hub has: it is
// set there first, where a change comes before or after every other, and gets a revision. The other shards take what is newer
// than what they have, in whatever order it comes. What a program that died did not get to, Maintain does.

// setting is the configuration of a queue as a shard stores it.
type setting struct {
	driver.QueueConfig
	// Revision is the hub's version of the configurations that this one came with; 0 on one shard.
	Revision int64 `json:"rev,omitzero"`
}

func (r *registry) setting(queue string) (c setting, there bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	c.QueueConfig, there = r.configs[queue]
	c.Revision = r.revisions[queue]
	if !there {
		c.Retention = driver.DefaultRetention()
	}
	return c, there
}

// confOf returns the version of the configurations that is known.
func (r *registry) confOf() string {
	_, _, conf := r.versions()
	return conf
}

// configured returns the queues that have a configuration here or there.
func (r *registry) configured(other *registry) []string {
	seen := map[string]bool{}
	for _, r := range []*registry{r, other} {
		r.mu.RLock()
		for queue := range r.configs {
			seen[queue] = true
		}
		r.mu.RUnlock()
	}
	return slices.Sorted(maps.Keys(seen))
}

// agreesWith reports whether the configurations were found to be those of the hub when it had that version.
func (r *registry) agreesWith(hub string) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.agreement == [2]string{hub, r.confVersion}
}

func (r *registry) agreed(hub string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.agreement = [2]string{hub, r.confVersion}
}

// patched is for setQueueShard: what a patch makes of the hub's configuration.
func (s *Store) patched(patch driver.QueuePatch) func(old setting) (setting, error) {
	return func(old setting) (setting, error) {
		c, err := old.Apply(patch, s.Capabilities())
		if err != nil || len(s.shards) == 1 {
			return setting{QueueConfig: c}, err
		}
		version := s.hub().known.confOf() // the script sees to it that it is the latest
		n, err := strconv.ParseInt(version, 10, 64)
		if err != nil {
			return setting{}, driver.Errorf(driver.ErrCorrupt, "%s has no version of its queues' configurations: run an audit with repair", s.where)
		}
		return setting{c, max(n, old.Revision) + 1}, nil
	}
}

// spread gives the hub's configuration of a queue to all shards that have none as new.
func (s *Store) spread(ctx context.Context, queue string, made setting) error {
	for _, sh := range s.shards[1:] {
		if _, _, err := s.setQueueShard(ctx, sh, queue, func(setting) (setting, error) { return made, nil }); err != nil {
			return err
		}
	}
	return nil
}

// undoOrder takes back a new order in the shards that have taken it, as far as it can be.
func (s *Store) undoOrder(ctx context.Context, queue string, order driver.Order) {
	if order == "" {
		order = driver.OrderFair
	}
	if made, _, err := s.setQueueShard(ctx, s.hub(), queue, s.patched(driver.QueuePatch{Order: &order})); err == nil {
		_ = s.spread(ctx, queue, made) // the caller is told why the order stays as it was
	}
}

// agree brings the configurations that a shard has to what the hub has, where somebody died on the way or two have crossed.
// What is known of the shard is fresh.
func (s *Store) agree(ctx context.Context, sh *shard) error {
	hub := s.hub()
	if sh == hub || sh.known.agreesWith(hub.known.confOf()) {
		return nil
	}
	conf := sh.known.confOf()
	if err := s.refresh(ctx, hub); err != nil { // after the shard: what a shard is told, the hub was told before
		return err
	}
	hubConf := hub.known.confOf()
	for _, queue := range sh.known.configured(&hub.known) {
		if err := s.agreeOn(ctx, sh, queue); errors.Is(err, driver.ErrState) {
			hubConf = "" // another order, while tasks are available: later
		} else if err != nil {
			return err
		}
	}
	if sh.known.confOf() == conf { // else it looks once more
		sh.known.agreed(hubConf)
	}
	return nil
}

// agreeOn is agree for one queue.
func (s *Store) agreeOn(ctx context.Context, sh *shard, queue string) error {
	theirs, there := s.hub().known.setting(queue)
	ours, _ := sh.known.setting(queue)
	switch {
	case there && theirs.Revision > ours.Revision:
	case !there && ours.Revision > 0: // it was deleted
		if err := s.deleteQueueShard(ctx, sh, queue); err != nil {
			return err
		}
		now, stays := sh.known.setting(queue)
		if !stays || reflect.DeepEqual(now.QueueConfig, theirs.QueueConfig) {
			return nil
		}
		theirs.Revision = now.Revision + 1 // a task has come: the queue is a new one. The hub's next version is greater
	default:
		return nil
	}
	_, _, err := s.setQueueShard(ctx, sh, queue, func(setting) (setting, error) { return theirs, nil })
	return err
}

// setQueueShard stores what change makes of a shard's configuration of a queue, unless the shard has a newer one. It returns
// what the shard has then and had before.
func (s *Store) setQueueShard(ctx context.Context, sh *shard, queue string, change func(old setting) (setting, error)) (c, old setting, err error) {
	err = s.refreshed(ctx, sh, func() (err error) {
		_, pairs, conf := sh.known.versions()
		old, _ = sh.known.setting(queue)
		if c, err = change(old); err != nil {
			return err
		}
		if c.Revision > 0 && c.Revision <= old.Revision {
			c = old
			return nil
		}
		interned, err := s.internLimits(ctx, sh, queue, c.Limits)
		if err != nil {
			return err
		}
		if interned {
			return errStale // with what is known now
		}
		b, err := json.Marshal(c)
		if err != nil {
			return driver.Invalidf("the configuration of queue %s can't be stored: %v", queue, err)
		}
		var workers []string
		counts := countsHeld(&c.QueueConfig) && !countsHeld(&old.QueueConfig) && sh.known.isShared(queue)
		if counts {
			if workers, err = s.workersOf(ctx, sh); err != nil {
				return err
			}
		}
		keys := append(sh.keysOf(setQueueScript, ""), sh.shareKeys(queue)...)
		for _, w := range workers {
			keys = append(keys, sh.heldKey(w))
		}
		if old.Paused && !c.Paused && sh == s.hub() {
			for _, p := range sh.ofQueue(queue, nil) {
				keys = append(keys, p.wake)
			}
			keys = append(keys, sh.wakeKey(queue, ""))
		}
		args := []string{queue, string(b), subject(queue, ""), s.isHub(sh), "", ""}
		shared := c.Order != "" || c.Keys != "" || len(c.Limits) > 0 || sh.known.isShared(queue)
		if shared {
			args[4], args[5] = sharedMark, s.shareConf(sh, queue, &c.QueueConfig)
		}
		if counts {
			numbers := sh.numbersOf(queue)
			args = append(append(args, strconv.Itoa(len(numbers))), numbers...)
		} else {
			args = append(args, "")
		}
		args = append(append(args, strconv.Itoa(len(workers))), workers...)
		if old.Reorders(&c.QueueConfig) {
			args = append(args, sh.numbersOf(queue)...)
		}
		reply, err := s.script(ctx, s.control, sh, setQueueScript, keys, s.head(sh, pairs, conf), args)
		if err != nil {
			return err
		}
		v, err := reply.AsIntSlice()
		if err != nil || len(v) != 2 {
			return driver.Errorf(driver.ErrUnavailable, "%s gave an unexpected reply", s.where)
		}
		if v[1] > 0 {
			return driver.ReordersError(queue, v[1])
		}
		sh.tended.setOver(queue)
		if err := s.refresh(ctx, sh); err != nil || !shared {
			return err
		}
		return s.sweep(ctx, sh, queue)
	})
	return c, old, err
}

// workersOf returns the workers of a shard, those that have left or are lost included as long as they hold tasks.
func (s *Store) workersOf(ctx context.Context, sh *shard) ([]string, error) {
	ctx, cancel := s.bounded(ctx, s.timeout)
	defer cancel()
	list, err := s.control.Do(ctx, s.control.B().Zrange().Key(sh.key("workers")).Min("0").Max("-1").Build()).AsStrSlice()
	return list, s.ended(ctx, err)
}

// internLimits gives numbers to the pairs that limits of types name. It reports whether some had none.
func (s *Store) internLimits(ctx context.Context, sh *shard, queue string, limits []driver.Limit) (bool, error) {
	var named []*newTask
	for _, l := range limits {
		if l.Type != "" && sh.pair(queue, l.Type) == nil {
			named = append(named, &newTask{task: &driver.Task{Queue: queue, Type: l.Type}})
		}
	}
	return len(named) > 0, s.intern(ctx, sh, named)
}
