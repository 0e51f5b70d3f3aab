package redisstore

import (
	"cmp"
	"context"
	"encoding/binary"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/redis/rueidis"

	"github.com/waggleq/waggle/driver"
	"github.com/waggleq/waggle/internal/plainjson"
)

// Elements of an intake list go three steps, each atomic: a batch of them is taken out of the list into a second one
// beside it, in the list's slot; the batch's tasks are stored in a shard, together with the batch's id as the last that
// this shard has stored of the list; the batch is dropped. Whoever dies in between, the next caller goes on with the
// batch that is there. At most one batch is under way for a list, so a batch that is still there after a shard was asked
// for its last one has not been followed by another: if that last one is another batch, this one is not stored, and it
// is stored only if the last one is the same still. So no batch is stored twice, however late a caller comes.
//
// A caller that waits for a list to fill takes the first element into a third list, the stage, since a blocking command
// can't do more. The next batch begins with what is there.

const (
	// intakeBytes bounds the elements of a batch, so that it is no burden for a server that does one thing at a time.
	intakeBytes = 4 << 20
	// intakeRespect is for how long a batch is left to the caller who took it.
	intakeRespect = time.Second
	// intakeTries bounds how often a batch is looked at again because others have moved on meanwhile.
	intakeTries = 20
)

var _ driver.Intaker = (*Store)(nil)

// intakeKeys are the lists that belong to an intake list, all in its slot.
type intakeKeys struct{ list, stage, taken, refused string }

func (s *Store) intakeKeys(list string) (intakeKeys, error) {
	if strings.HasPrefix(list, "waggle:") {
		return intakeKeys{}, driver.Invalidf("the intake list %q has the name of a key of Waggle itself", list)
	}
	tag := hashTag(list)
	if s.target.mode == cluster && strings.ContainsRune(tag, '}') {
		return intakeKeys{}, driver.Invalidf("the intake list %q has a closing brace: in a cluster no other key can be beside it", list)
	}
	name := func(kind string) string {
		return "waggle:{" + tag + "}:" + s.target.namespace + "/" + kind + "/" + list
	}
	return intakeKeys{list: list, stage: name("intake-stage"), taken: name("intake-taken"), refused: name("intake-refused")}, nil
}

// hashTag returns the part of a key that decides its slot.
func hashTag(key string) string {
	if _, after, ok := strings.Cut(key, "{"); ok {
		if tag, _, ok := strings.Cut(after, "}"); ok && tag != "" {
			return tag
		}
	}
	return key
}

// intakeBatch is a batch of elements under way.
type intakeBatch struct {
	id       string // packed
	elements []string
}

// MoveIntake implements driver.Intaker.
func (s *Store) MoveIntake(ctx context.Context, in driver.Intake, most int) (*driver.IntakeResult, error) {
	if s.closed() {
		return nil, driver.ErrClosed
	}
	if err := in.Validate(); err != nil {
		return nil, err
	}
	keys, err := s.intakeKeys(in.List)
	if err != nil {
		return nil, err
	}
	if err := s.health.refusal(); err != nil {
		return nil, err
	}
	if most <= 0 || most > s.caps.Limit.MaxBatch {
		most = s.caps.Limit.MaxBatch
	}
	if most, err = s.intakeRoom(ctx, keys.list, cmp.Or(in.Queue, driver.DefaultQueue), most); err != nil {
		return nil, err
	}
	for range intakeTries {
		b, err := s.takeIntake(ctx, in.List, keys, most)
		if err != nil {
			return nil, err
		}
		if b == nil {
			return &driver.IntakeResult{Busy: true}, nil
		}
		if len(b.elements) == 0 {
			return &driver.IntakeResult{}, nil
		}
		r, err := s.moveBatch(ctx, in, keys, b)
		if err != errRetry {
			return r, err
		}
	}
	return nil, driver.Errorf(driver.ErrUnavailable, "%s: the intake list %q is constantly moved by other programs: gave up after %d tries", s.where, in.List, intakeTries)
}

// takeIntake returns the list's batch, a new one if there is none; one without elements if there is nothing to take, and
// nil if another caller has it.
func (s *Store) takeIntake(ctx context.Context, list string, k intakeKeys, most int) (*intakeBatch, error) {
	args := []string{string(s.newBatchID()), s.intakeCaller, strconv.Itoa(most), strconv.Itoa(min(intakeBytes, s.caps.Limit.MaxBatchBytes)),
		strconv.FormatInt(s.intakeRespect.Milliseconds(), 10)}
	reply, err := s.call(ctx, s.data, s.hub(), takeScript, []string{k.list, k.stage, k.taken}, args)
	if err != nil {
		return nil, err
	}
	if word, err := reply.ToString(); err == nil {
		if word == "TYPE" {
			return nil, notAList(list)
		}
		return nil, nil
	}
	v, err := reply.AsStrSlice()
	if err != nil || len(v) > 0 && len(v[0]) < 16 {
		return nil, driver.Errorf(driver.ErrUnavailable, "%s gave an unexpected reply", s.where)
	}
	if len(v) == 0 {
		return &intakeBatch{}, nil
	}
	return &intakeBatch{id: v[0][:16], elements: v[1:]}, nil
}

func notAList(list string) error {
	return driver.Invalidf("the key %q is not a list: an intake list is what RPUSH makes", list)
}

// newBatchID returns a batch's id: that of its first task, a UUIDv7 whose last two bytes name the shard.
func (s *Store) newBatchID() []byte {
	b := driver.PackID(nil, driver.NewID())
	binary.BigEndian.PutUint16(b[12:], 0)
	if len(s.shards) > 1 {
		binary.BigEndian.PutUint16(b[14:], uint16(s.next.Add(1)%uint32(len(s.shards))))
	}
	return b
}

// intakeTasks returns what a batch's elements become, and the places of those that can't be tasks.
func (s *Store) intakeTasks(in driver.Intake, b *intakeBatch) (tasks []*newTask, refused []string) {
	for i, element := range b.elements {
		id := []byte(b.id)
		binary.BigEndian.PutUint16(id[12:], uint16(i))
		t := &driver.Task{ID: driver.UnpackID(id), Type: in.Type, Queue: in.Queue}
		t.Payload, t.Encoding = intakePayload(element)
		if driver.Prepare(t, s.caps, time.Time{}) != nil {
			refused = append(refused, strconv.Itoa(i+1))
			continue
		}
		tasks = append(tasks, &newTask{task: t, id: string(id), at: len(tasks), must: true})
	}
	return tasks, refused
}

// intakePayload is an element as a JSON string, or as it is.
func intakePayload(element string) ([]byte, driver.Encoding) {
	if !utf8.ValidString(element) {
		return []byte(element), driver.EncodingRaw
	}
	return plainjson.String(element), driver.EncodingJSON
}

// moveBatch stores a batch's tasks unless they are, and drops the batch. It returns errRetry if the batch is not the
// list's any more.
func (s *Store) moveBatch(ctx context.Context, in driver.Intake, k intakeKeys, b *intakeBatch) (*driver.IntakeResult, error) {
	tasks, refused := s.intakeTasks(in, b)
	if len(tasks) > 0 {
		if err := s.storeBatch(ctx, in, k, b, tasks); err != nil {
			return nil, err
		}
	}
	_, err := s.call(ctx, s.data, s.hub(), dropScript, []string{k.taken, k.refused}, append([]string{b.id}, refused...))
	if err != nil {
		return nil, err
	}
	r := &driver.IntakeResult{Moved: len(tasks), Refused: len(refused), More: true}
	if len(refused) > 0 {
		r.RefusedList = k.refused
	}
	return r, nil
}

func (s *Store) storeBatch(ctx context.Context, in driver.Intake, k intakeKeys, b *intakeBatch, tasks []*newTask) error {
	level, err := driver.ReachableDurability(s.caps, "")
	if err != nil {
		return err
	}
	sh := s.shardOf(driver.UnpackID([]byte(b.id)))
	last, err := s.hashFields(ctx, sh, "intake", []string{in.List})
	if err != nil {
		return err
	}
	mark := &item{}
	mark.expect(sh.key("intake"), in.List, last[0], last[0] != "")
	mark.do("HSET", sh.key("intake"), in.List, b.id)
	if last[0] == b.id { // stored, but perhaps not safely yet
		keys, args := encodeItems([]*item{mark}, sh.keysOf(commitScript, ""), s.head(sh, "", ""))
		_, err := s.durable(ctx, sh, commitScript, keys, args, level)
		return err
	}
	still, err := s.intakeHead(ctx, k)
	switch {
	case err != nil:
		return err
	case still != b.id:
		return errRetry
	}
	moved := false
	err = s.refreshed(ctx, sh, func() error {
		err := s.enqueueIntake(ctx, sh, tasks, mark, level)
		if moved = err == errRetry; moved {
			return nil
		}
		return err
	})
	if moved {
		return errRetry
	}
	return err
}

// intakeHead returns the id of the list's batch, empty if there is none.
func (s *Store) intakeHead(ctx context.Context, k intakeKeys) (string, error) {
	ctx, cancel := s.bounded(ctx, s.timeout)
	defer cancel()
	head, err := s.data.Do(ctx, s.data.B().Lindex().Key(k.taken).Index(0).Build()).ToString()
	if rueidis.IsRedisNil(err) {
		return "", nil
	}
	return head[:min(len(head), 16)], s.ended(ctx, err)
}

// enqueueIntake stores tasks if mark's check holds; else it returns errRetry.
func (s *Store) enqueueIntake(ctx context.Context, sh *shard, tasks []*newTask, mark *item, level driver.Durability) error {
	if err := s.intern(ctx, sh, tasks); err != nil {
		return err
	}
	call := s.enqueueCall(sh, tasks, evictions{items: []*item{mark}})
	for i := len(call.args) - 4*len(tasks); i < len(call.args); i += 4 {
		if options := call.args[i+2]; options != "" && options[0]&4 != 0 { // its queue takes none
			return s.intakeClosed(ctx, sh, tasks[0].task.Queue)
		}
	}
	reply, err := s.durable(ctx, sh, enqueueScript, call.keys, call.args, level)
	if err != nil {
		return err
	}
	results := make([]driver.EnqueueResult, len(tasks))
	if err := s.enqueueResults(ctx, sh, tasks, call.pairs, reply, level, results); err != nil {
		return err
	}
	if i := slices.IndexFunc(results, func(r driver.EnqueueResult) bool { return r.Err != nil }); i >= 0 {
		return results[i].Err
	}
	return nil
}

// intakeClosed returns ErrQueueClosed if a queue is draining still, and errStale if it is not.
func (s *Store) intakeClosed(ctx context.Context, sh *shard, queue string) error {
	if err := s.refresh(ctx, sh); err != nil {
		return err
	}
	if sh.known.config(queue).Draining {
		return driver.Errorf(driver.ErrQueueClosed, "queue %s is draining and takes no tasks", queue)
	}
	return errStale
}

// AwaitIntake implements driver.Intaker.
func (s *Store) AwaitIntake(ctx context.Context, in driver.Intake, most time.Duration) error {
	if s.closed() {
		return driver.ErrClosed
	}
	if err := in.Validate(); err != nil {
		return err
	}
	k, err := s.intakeKeys(in.List)
	if err != nil {
		return err
	}
	for deadline := time.Now().Add(most); ; {
		left := min(time.Until(deadline), maxBlock)
		if left <= 0 || ctx.Err() != nil {
			return ctx.Err()
		}
		found, err := s.awaitElement(ctx, k, left)
		if err != nil || found {
			return hint(ctx, err)
		}
	}
}

// awaitElement waits for one element and moves it to the stage.
func (s *Store) awaitElement(ctx context.Context, k intakeKeys, d time.Duration) (bool, error) {
	ctx, cancel := s.interruptible(ctx, d+s.timeout)
	defer cancel()
	cmd := s.waiting.B().Blmove().Source(k.list).Destination(k.stage).Left().Right().Timeout(max(d.Seconds(), 0.001)).Build()
	err := s.waiting.Do(ctx, cmd).Error()
	switch re, ok := rueidis.IsRedisErr(err); {
	case err == nil:
		return true, nil
	case rueidis.IsRedisNil(err):
		return false, nil
	case ok && strings.HasPrefix(re.Error(), "WRONGTYPE"):
		return false, notAList(k.list)
	}
	return false, s.ended(ctx, err)
}
