package redisstore

import (
	"cmp"
	"context"
	"slices"
	"strconv"
	"time"

	"github.com/redis/rueidis"

	"github.com/waggleq/waggle/driver"
)

// newTask is a task on its way into a shard.
type newTask struct {
	task *driver.Task // prepared copy
	id   string       // packed
	at   int          // its place in the call's tasks
	dry  bool         // it is only asked whether it could have its unique key
	made bool         // its id was made for this call: it can't be known

	unique   *driver.Unique // of a task that has reserved its key in another shard
	rooms    rooms          // of bounded queues, as far as they were asked for
	must     bool           // no bound refuses it
	leaves   string         // the queue in which the owner of its unique key waits that it would replace; set where dry is
	replaced []replaced     // by this task
}

func (t *newTask) pairName() [2]string { return [2]string{t.task.Queue, t.task.Type} }

// Enqueue implements driver.Enqueuer.
func (s *Store) Enqueue(ctx context.Context, tasks []*driver.Task, opts driver.EnqueueOptions) ([]driver.EnqueueResult, error) {
	if s.closed() {
		return nil, driver.ErrClosed
	}
	if err := driver.CheckBatch(tasks, s.caps.Limit); err != nil {
		return nil, err
	}
	level, err := driver.ReachableDurability(s.caps, opts.Durability)
	if err != nil {
		return nil, err
	}
	if err := s.health.refusal(); err != nil {
		return nil, err
	}
	results := make([]driver.EnqueueResult, len(tasks))
	if err := s.enqueueTasks(ctx, tasks, opts.NewIDs, level, nil, results); err != nil {
		return nil, err
	}
	if err := s.enqueueRefused(ctx, tasks, level, results); err != nil {
		return nil, err
	}
	return results, nil
}

// enqueueTasks stores tasks that may find room in bounded queues as rooms says.
func (s *Store) enqueueTasks(ctx context.Context, tasks []*driver.Task, newIDs bool, level driver.Durability, r rooms, results []driver.EnqueueResult) error {
	batches, err := s.prepareTasks(ctx, tasks, newIDs, results)
	if err != nil {
		return err
	}
	if r != nil {
		for _, t := range slices.Concat(batches...) {
			t.rooms = r
		}
	}
	remote := s.takeRemote(batches)
	all := append(slices.Clone(batches), remote)
	for _, t := range remote {
		if err := s.enqueueBefore(ctx, t, batches, level, results); err != nil {
			return err
		}
		if err := s.enqueueRemote(ctx, t, level, results); err != nil {
			return err
		}
	}
	err = s.eachShard(ctx, func(ctx context.Context, sh *shard) error {
		return s.enqueueBatch(ctx, sh, batches[sh.number], level, results)
	}, func(sh *shard) bool { return len(batches[sh.number]) > 0 })
	if err != nil {
		return err
	}
	inCallOrder(results, all)
	return nil
}

// enqueueBefore stores what comes before a remote task in its shard, if the two are in line behind each other.
func (s *Store) enqueueBefore(ctx context.Context, t *newTask, batches [][]*newTask, level driver.Durability, results []driver.EnqueueResult) error {
	sh := s.shardOf(t.task.ID)
	batch := batches[sh.number]
	n := 0
	for n < len(batch) && batch[n].at < t.at {
		n++
	}
	if !slices.ContainsFunc(batch[:n], func(before *newTask) bool { return before.task.Queue == t.task.Queue }) {
		return nil
	}
	batches[sh.number] = batch[n:]
	return s.enqueueBatch(ctx, sh, batch[:n], level, results)
}

func (s *Store) enqueueBatch(ctx context.Context, sh *shard, batch []*newTask, level driver.Durability, results []driver.EnqueueResult) error {
	for part := range segments(batch) {
		for part := range fewPairs(part, (*newTask).pairName) {
			if err := s.enqueueShard(ctx, sh, part, level, results); err != nil {
				return err
			}
		}
	}
	return nil
}

// prepareTasks gives every task an id, prepares a copy, and sorts the copies by shard.
func (s *Store) prepareTasks(ctx context.Context, tasks []*driver.Task, newIDs bool, results []driver.EnqueueResult) ([][]*newTask, error) {
	now, err := s.nowFor(ctx, tasks)
	if err != nil {
		return nil, err
	}
	batches := make([][]*newTask, len(s.shards))
	copies := make([]driver.Task, len(tasks))
	list := make([]newTask, len(tasks))
	home := s.shards[s.next.Add(1)%uint32(len(s.shards))]
	for i, t := range tasks {
		made := newIDs
		if t.ID == "" {
			made, t.ID = true, s.idIn(cmp.Or(s.placeOf(t), home))
		}
		copies[i] = *t
		if err := driver.Prepare(&copies[i], s.caps, now); err != nil {
			results[i] = driver.EnqueueResult{ID: t.ID, Err: err}
			continue
		}
		list[i] = newTask{task: &copies[i], id: string(driver.PackID(nil, t.ID)), at: i, made: made, must: !t.Bounded()}
		sh := s.shardOf(t.ID)
		batches[sh.number] = append(batches[sh.number], &list[i])
	}
	return batches, nil
}

// nowFor returns the store's clock if a task's times depend on it.
func (s *Store) nowFor(ctx context.Context, tasks []*driver.Task) (time.Time, error) {
	if !slices.ContainsFunc(tasks, func(t *driver.Task) bool { return t.Delay > 0 || t.ExpiresIn > 0 }) {
		return time.Time{}, nil
	}
	return s.now(ctx)
}

// now asks the store for its clock.
func (s *Store) now(ctx context.Context) (time.Time, error) {
	_, ms, err := s.read(ctx, s.hub(), nil)
	return millis(ms), err
}

// segments cuts a batch before a task that is to replace another, if the batch holds a task with the same unique key or id
// before it: whether it replaces anything, and what, is known only when that one is stored.
func segments(batch []*newTask) func(yield func([]*newTask) bool) {
	return func(yield func([]*newTask) bool) {
		if len(batch) > 0 && !slices.ContainsFunc(batch, replaces) {
			yield(batch)
			return
		}
		keys, ids := map[string]bool{}, map[string]bool{}
		from := 0
		for i, t := range batch {
			u := t.task.Unique
			if replaces(t) && (keys[u.Key] || ids[t.id]) {
				if !yield(batch[from:i]) {
					return
				}
				from = i
				clear(keys)
				clear(ids)
			}
			ids[t.id] = true
			if u != nil {
				keys[u.Key] = true
			}
		}
		if from < len(batch) {
			yield(batch[from:])
		}
	}
}

// replaces reports whether a task takes its unique key from the task that owns it.
func replaces(t *newTask) bool {
	return t.task.Unique != nil && t.task.Unique.OnConflict == driver.ConflictReplace
}

func (s *Store) enqueueShard(ctx context.Context, sh *shard, batch []*newTask, level driver.Durability, results []driver.EnqueueResult) error {
	return s.refreshed(ctx, sh, func() error {
		if err := s.intern(ctx, sh, batch); err != nil {
			return err
		}
		var err error
		if batch, err = s.admitted(ctx, sh, batch, results); err != nil || len(batch) == 0 {
			return err
		}
		if err := s.shareOut(ctx, sh, batch); err != nil {
			return err
		}
		ev, err := s.evictions(ctx, sh, batch)
		if err != nil {
			return err
		}
		call := s.enqueueCall(sh, batch, ev)
		reply, err := s.durable(ctx, sh, enqueueScript, call.keys, call.args, level)
		if err == errRemote {
			for _, t := range batch {
				if t.task.Unique == nil {
					err = s.enqueueShard(ctx, sh, []*newTask{t}, level, results)
				} else {
					err = s.enqueueRemote(ctx, t, level, results)
				}
				if err != nil {
					return err
				}
			}
			return nil
		}
		if err != nil {
			return err
		}
		if lapsed := lapsedOwners(reply); len(lapsed) > 0 {
			if _, err := s.expire(ctx, sh, lapsed); err != nil {
				return err
			}
			return errRetry
		}
		ev.note(batch, reply)
		if ev.told {
			s.signalPlanners(ctx, sh)
		}
		return s.enqueueResults(ctx, sh, batch, call.pairs, reply, level, results)
	})
}

// lapsedOwners returns the owners of unique keys that have to be recorded as expired before the batch can be stored.
func lapsedOwners(reply rueidis.RedisMessage) []string {
	parts, err := reply.ToArray()
	if err != nil || len(parts) == 0 {
		return nil // the one who reads the results tells
	}
	if word, _ := parts[0].ToString(); word != "lapsed" {
		return nil
	}
	ids, _ := parts[1].AsStrSlice()
	return ids
}

// enqueueCall is what the enqueue script is called with.
type enqueueCall struct {
	keys, args []string
	pairs      []*pair
}

func (s *Store) enqueueCall(sh *shard, batch []*newTask, ev evictions) enqueueCall {
	_, _, conf := sh.known.versions()
	c := enqueueCall{keys: sh.keysOf(enqueueScript, "")}
	index := make(map[*pair]string, 4)
	of := make([]*pair, len(batch))
	for i, t := range batch {
		p := sh.pair(t.task.Queue, t.task.Type)
		of[i] = p
		if index[p] == "" {
			c.pairs = append(c.pairs, p)
			index[p] = strconv.Itoa(len(c.pairs))
			c.keys = sh.pairKeys(c.keys, p)
		}
	}
	kind := anyTasks
	bounds := s.boundsOf(sh, c.pairs, batch, ev)
	if len(c.pairs) == 1 && len(ev.items) == 0 && bounds == nil {
		kind = s.kindOf(sh, batch)
	}
	c.args = make([]string, 0, 16+4*len(batch))
	shared := c.addShares(sh, batch)
	if shared != nil {
		kind = sharedTasks
	}
	c.args = append(append(c.args, s.head(sh, "", conf)...), s.isHub(sh), strconv.Itoa(len(ev.owners)))
	c.args = append(c.args, ev.owners...)
	c.keys, c.args = encodeItems(ev.items, c.keys, c.args)
	c.args = append(c.args, strconv.Itoa(len(c.pairs)))
	for _, p := range c.pairs {
		c.args = append(c.args, p.digits, p.subject)
	}
	c.args = append(append(append(c.args, bounds...), kind), shared...)
	size := 0
	for _, t := range batch {
		size += len(t.task.Payload) + 48
	}
	buf := make([]byte, 0, size)
	var envelope []byte
	for i, t := range batch {
		envelope = appendEnvelope(envelope[:0], t)
		from := len(buf)
		buf = appendBody(buf, t.task, of[i].number, envelope)
		body := rueidis.BinaryString(buf[from:len(buf):len(buf)])
		if kind == anyTasks || kind == sharedTasks {
			c.args = append(c.args, index[of[i]], t.id, s.enqueueOptions(sh, t), body)
		} else {
			c.args = append(c.args, t.id, body)
		}
	}
	return c
}

// addShares adds the keys of the shared queues that tasks with a key, or of a queue that goes by deadlines, are for. It
// returns for each pair how many keys there are before those of its queue; nil if there is none.
func (c *enqueueCall) addShares(sh *shard, batch []*newTask) []string {
	var before []string
	of, keyed := map[string]string{}, map[string]bool{}
	for _, t := range batch {
		if t.task.Key != "" {
			keyed[t.task.Queue] = true
		}
	}
	for i, p := range c.pairs {
		if !keyed[p.queue] && sh.known.config(p.queue).Order != driver.OrderDeadline {
			continue
		}
		if before == nil {
			before = make([]string, len(c.pairs))
		}
		if of[p.queue] == "" {
			of[p.queue] = strconv.Itoa(len(c.keys))
			c.keys = append(c.keys, sh.shareKeys(p.queue)...)
		}
		before[i] = of[p.queue]
	}
	return before
}

// appendEnvelope is driver.AppendEnvelope with the unique key of a task that has reserved it in another shard.
func appendEnvelope(dst []byte, t *newTask) []byte {
	if t.unique == nil {
		return driver.AppendEnvelope(dst, t.task)
	}
	whole := *t.task
	whole.Unique = t.unique
	return driver.AppendEnvelope(dst, &whole)
}

// takeRemote takes out of the batches, in the order of the call, the tasks whose unique key is another shard's business,
// and those of the same call that share a key or an id with one of them.
func (s *Store) takeRemote(batches [][]*newTask) []*newTask {
	if len(s.shards) == 1 {
		return nil
	}
	keys, ids := map[string]bool{}, map[string]bool{}
	involved := func(t *newTask) bool {
		return ids[t.id] || t.task.Unique != nil && keys[t.task.Unique.Key] || s.remote(t)
	}
	for known := -1; known != len(keys)+len(ids); { // until nothing is added
		known = len(keys) + len(ids)
		for _, t := range slices.Concat(batches...) {
			if involved(t) {
				ids[t.id] = true
				if t.task.Unique != nil {
					keys[t.task.Unique.Key] = true
				}
			}
		}
	}
	if len(ids) == 0 {
		return nil
	}
	var remote []*newTask
	for i, batch := range batches {
		batches[i] = slices.DeleteFunc(batch, func(t *newTask) bool {
			if ids[t.id] {
				remote = append(remote, t)
			}
			return ids[t.id]
		})
	}
	slices.SortFunc(remote, func(a, b *newTask) int { return a.at - b.at })
	return remote
}

// The kinds of batches, as lua/enqueue.lua knows them.
const (
	anyTasks    = "any"
	plainTasks  = "plain" // to be put in line, and no more
	sharedTasks = "share" // some are of a queue that is shared out
	freshTasks  = "fresh" // plain, and their ids were made for this call: they can't be known
	// boundedTasks comes before any or share where a queue of the batch has a bound.
	boundedTasks = "bounded"
)

// kindOf returns the kind of a batch of tasks of one pair.
func (s *Store) kindOf(sh *shard, batch []*newTask) string {
	made := true
	for _, t := range batch {
		if t.task.Priority != 0 || t.task.Key != "" || !t.task.ExpiresAt.IsZero() || s.enqueueOptions(sh, t) != "" {
			return anyTasks
		}
		made = made && t.made
	}
	if made {
		return freshTasks
	}
	seen := make(map[string]struct{}, len(batch))
	for _, t := range batch {
		seen[t.id] = struct{}{}
	}
	if len(seen) < len(batch) {
		return anyTasks
	}
	return plainTasks
}

// enqueueOptions packs what the script must know of a task that is not simply to be put in line.
func (s *Store) enqueueOptions(sh *shard, n *newTask) string {
	t, flags := n.task, byte(0)
	if t.Hold {
		flags |= 1
	}
	if !t.At.IsZero() {
		flags |= 2
	}
	config := sh.known.config(t.Queue)
	if config.Draining {
		flags |= 4
	}
	u := t.Unique
	if u != nil {
		flags |= 8
	}
	if n.must && config.Bound.Max > 0 {
		flags |= 16
	}
	if flags == 0 {
		return ""
	}
	at := int64(0)
	if !t.At.IsZero() {
		at = t.At.UnixMilli()
	}
	b := appendUint48([]byte{flags}, at)
	if u == nil {
		return string(appendUint48(append(b, 0, 0), 0))
	}
	conflict := map[driver.OnConflict]byte{driver.ConflictReturn: 1, driver.ConflictReject: 2, driver.ConflictReplace: 3}[u.OnConflict]
	until := map[driver.UniqueUntil]byte{driver.UntilDone: uniqueDone, driver.UntilStarted: uniqueStarted, driver.UntilTTL: uniqueTTL}[u.Until]
	b = appendUint48(append(b, conflict, until), ceilMillis(u.TTL))
	return string(append(b, u.Key...))
}

func (s *Store) enqueueResults(ctx context.Context, sh *shard, batch []*newTask, pairs []*pair, reply rueidis.RedisMessage, level driver.Durability, results []driver.EnqueueResult) error {
	parts, err := reply.ToArray()
	if err != nil || len(parts) != 3 {
		return driver.Errorf(driver.ErrUnavailable, "%s gave an unexpected reply", s.where)
	}
	letters, _ := parts[0].ToString()
	if len(letters) != len(batch) {
		return driver.Errorf(driver.ErrUnavailable, "%s gave an unexpected reply", s.where)
	}
	there, _ := parts[1].ToArray()
	for i, t := range batch {
		r := driver.EnqueueResult{ID: t.task.ID, State: stateOf[letters[i]], Durability: level}
		if letters[i] == 'Q' {
			r = driver.EnqueueResult{ID: t.task.ID, Err: driver.Errorf(driver.ErrQueueClosed, "queue %s is draining and takes no tasks", t.task.Queue)}
		}
		if letters[i] == 'F' {
			r = driver.EnqueueResult{ID: t.task.ID, Err: &driver.QueueFullError{Queue: t.task.Queue, Bound: sh.known.config(t.task.Queue).Bound}}
		}
		results[t.at] = r
	}
	for i := 0; i+2 < len(there); i += 3 {
		at, _ := there[i].AsInt64()
		id, _ := there[i+1].ToString()
		state, _ := there[i+2].ToString()
		t := batch[at-1]
		r := driver.EnqueueResult{ID: driver.UnpackID([]byte(id)), State: stateOf[state[0]], Existing: true, Durability: level}
		if letters[at-1] == 'D' {
			r.Existing, r.Durability = false, ""
			r.Err = driver.Errorf(driver.ErrDuplicate, "the unique key of task %s is owned by task %s", t.task.ID, r.ID)
		}
		results[t.at] = r
	}
	if woken, _ := parts[2].AsIntSlice(); len(woken) > 0 {
		list := make([]*pair, len(woken))
		for i, n := range woken {
			list[i] = pairs[n-1]
		}
		s.signal(ctx, sh, list)
	}
	return nil
}

// evictions are the owners of unique keys that new tasks are to replace, and the guarded changes that end them.
type evictions struct {
	owners []string // packed ids
	items  []*item
	by     []*newTask
	states []driver.State // that the owners have until then
	queues []string       // of the owners
	told   bool           // plans of owners hear of it
}

// note notes what was done with the tasks that did it, those of the batch that were accepted.
func (ev *evictions) note(batch []*newTask, reply rueidis.RedisMessage) {
	letters := ""
	if parts, err := reply.ToArray(); err == nil && len(parts) > 0 {
		letters, _ = parts[0].ToString()
	}
	for i, t := range ev.by {
		if k := slices.Index(batch, t); k < len(letters) && letters[k] == 'F' {
			continue
		}
		t.replaced = append(t.replaced, replaced{id: driver.UnpackID([]byte(ev.owners[i])), state: ev.states[i]})
	}
}

// evictions works out which owners a batch replaces. Tasks that are known already, or whose queue is closed, replace none.
func (s *Store) evictions(ctx context.Context, sh *shard, batch []*newTask) (evictions, error) {
	var ev evictions
	var replacing []*newTask
	var fields, ids []string
	for _, t := range batch {
		if u := t.task.Unique; replaces(t) && !sh.known.config(t.task.Queue).Draining {
			replacing = append(replacing, t)
			fields = append(fields, u.Key)
			ids = append(ids, t.id)
		}
	}
	if len(replacing) == 0 {
		return ev, nil
	}
	owners, err := s.hashFields(ctx, sh, "uniq", fields)
	if err != nil {
		return ev, err
	}
	for _, o := range owners {
		id := ""
		if len(o) > ownerHead {
			id = o[ownerHead:]
		}
		ids = append(ids, id)
	}
	entries, now, err := s.read(ctx, sh, ids)
	if err != nil {
		return ev, err
	}
	m := &mover{s: s, sh: sh, now: now}
	for i, t := range replacing {
		known, owner := entries[i], entries[len(replacing)+i]
		if known != nil || owner == nil || owners[i][0]&uniqueRemote != 0 || owners[i][0] == uniqueTTL && uint48(owners[i][ownerUntil:]) <= now {
			continue
		}
		p, err := s.pairOf(ctx, sh, owner.run.pair)
		if err != nil {
			return ev, err
		}
		if owner.run.lapsed(now) {
			continue // the script tells
		}
		switch owner.run.state {
		case letterAvailable, letterScheduled, letterRetryable, letterPending:
			ev.by, ev.states = append(ev.by, t), append(ev.states, owner.run.stateAt(now))
			it := m.begin(owner)
			it.expect(sh.key("task"), t.id, "", false)
			it.expect(sh.key("uniq"), t.task.Unique.Key, owners[i], true)
			m.move(it, owner, p, letterCancelled, driver.ReasonReplaced)
			ev.told = m.told
			ev.items, ev.owners, ev.queues = append(ev.items, it), append(ev.owners, owner.id), append(ev.queues, p.queue)
		}
	}
	return ev, nil
}

// hashFields reads fields of one of a shard's hashes; "" where there is none.
func (s *Store) hashFields(ctx context.Context, sh *shard, hash string, fields []string) ([]string, error) {
	c := s.control
	if _, limited := ctx.Deadline(); limited && len(s.shards) == 1 {
		c = s.direct // see call
	}
	ctx, cancel := s.bounded(ctx, s.timeout)
	defer cancel()
	var list []rueidis.RedisMessage
	err := repeated(ctx, func() (err error) {
		list, err = c.Do(ctx, c.B().Hmget().Key(sh.key(hash)).Field(fields...).Build()).ToArray()
		return err
	})
	if err != nil {
		return nil, s.ended(ctx, err)
	}
	values := make([]string, len(list))
	for i := range list {
		values[i], _ = list[i].ToString()
	}
	return values, nil
}
