package redisstore

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/rueidis"

	"github.com/waggleq/waggle/driver"
)

// Scripts reserve plans for as long as the contract says.
var _ = [1]struct{}{}[storedReserve-int(driver.PlanReserve/time.Millisecond)]

// planChunk is for how many plans one script does something, so that none takes long.
const planChunk = 50

// shardOfPlan returns the shard in which a plan and its tasks are.
func (s *Store) shardOfPlan(ref driver.PlanRef) *shard { return s.shardOf(driver.PlanTaskID(ref, "")) }

// eachPlanShard does something with the plans of each shard, some at a time; the numbers are places in refs.
func (s *Store) eachPlanShard(ctx context.Context, n int, ref func(i int) *driver.PlanRef, do func(context.Context, *shard, []int) error) error {
	if s.closed() {
		return driver.ErrClosed
	}
	byShard := make([][]int, len(s.shards))
	for i := range n {
		if r := ref(i); r != nil {
			k := s.shardOfPlan(*r).number
			byShard[k] = append(byShard[k], i)
		}
	}
	return s.eachShard(ctx, func(ctx context.Context, sh *shard) error {
		for chunk := range slices.Chunk(byShard[sh.number], planChunk) {
			if err := do(ctx, sh, chunk); err != nil {
				return err
			}
		}
		return nil
	}, func(sh *shard) bool { return len(byShard[sh.number]) > 0 })
}

// Advance implements driver.Planner. A step and its tasks are stored by two scripts, with the tasks in an outbox between:
// see outbox.go.
func (s *Store) Advance(ctx context.Context, steps []driver.PlanStep) ([]driver.PlanResult, error) {
	if s.closed() {
		return nil, driver.ErrClosed
	}
	if err := s.health.refusal(); err != nil {
		return nil, err
	}
	now, err := s.nowForSteps(ctx, steps)
	if err != nil {
		return nil, err
	}
	results, tasks := make([]driver.PlanResult, len(steps)), make([][]*driver.Task, len(steps))
	for i := range steps {
		tasks[i], results[i].Err = driver.PreparePlanStep(&steps[i], s.caps, now)
	}
	ref := func(i int) *driver.PlanRef {
		if results[i].Err != nil {
			return nil
		}
		return &steps[i].PlanRef
	}
	err = s.eachPlanShard(ctx, len(steps), ref, func(ctx context.Context, sh *shard, part []int) error {
		return s.advance(ctx, sh, steps, tasks, part, results)
	})
	if err != nil {
		return nil, err
	}
	return results, nil
}

// nowForSteps returns the store's clock if a time of some task depends on it.
func (s *Store) nowForSteps(ctx context.Context, steps []driver.PlanStep) (time.Time, error) {
	for i := range steps {
		if slices.Contains(steps[i].Tasks, nil) {
			continue // refused later
		}
		if now, err := s.nowFor(ctx, steps[i].Tasks); err != nil || !now.IsZero() {
			return now, err
		}
	}
	return time.Time{}, nil
}

func (s *Store) advance(ctx context.Context, sh *shard, steps []driver.PlanStep, tasks [][]*driver.Task, part []int, results []driver.PlanResult) error {
	args := s.head(sh, "", "")
	for _, i := range part {
		step := &steps[i]
		args = append(args, step.PlanRef.String(), strconv.FormatInt(step.Expect, 10), step.State, planMillis(step.Wake), planMillis(step.Expires),
			strconv.FormatInt(step.Seen, 10), rueidis.BinaryString(step.Body), strconv.Itoa(len(step.Parts)))
		for name, b := range step.Parts {
			args = append(args, name, bit(b != nil), rueidis.BinaryString(b))
		}
		args = append(args, string(encodeTasks(tasks[i])))
	}
	reply, err := s.durable(ctx, sh, planAdvanceScript, sh.keysOf(planAdvanceScript, ""), args, s.caps.DefaultDurability)
	if err != nil {
		return err
	}
	values, err := reply.AsIntSlice()
	if err != nil || len(values) != 2*len(part) {
		return driver.Errorf(driver.ErrUnavailable, "%s gave an unexpected reply", s.where)
	}
	var sent []sending
	for k, i := range part {
		results[i].Version = values[2*k]
		if values[2*k+1] == 0 {
			results[i].Err = driver.PlanConflict(&steps[i], values[2*k])
		} else if len(tasks[i]) > 0 {
			sent = append(sent, sending{entry: steps[i].PlanRef.String() + "/" + strconv.FormatInt(values[2*k], 10), ref: steps[i].PlanRef, tasks: tasks[i]})
		}
	}
	s.signalPlanners(ctx, sh)
	return s.send(ctx, sh, sent)
}

func planMillis(t time.Time) string {
	if t.IsZero() {
		return "0"
	}
	return strconv.FormatInt(t.UnixMilli(), 10)
}

// signalPlanners wakes a worker that waits for plans, if the tokens live in another shard than the one in which plans were
// changed. It is a hint, see signal.
func (s *Store) signalPlanners(ctx context.Context, sh *shard) {
	hub := s.hub()
	if sh == hub {
		return
	}
	keys := append(hub.keysOf(signalScript, ""), hub.key("planwake"), hub.key("planwake"))
	_, _ = s.script(ctx, s.data, hub, signalScript, keys, s.head(hub, "", ""), []string{tokenAny})
}

// zeroTime is the time of news whose time the script sets.
var zeroTime = time.UnixMilli(0)

// Signal implements driver.Planner.
func (s *Store) Signal(ctx context.Context, signals []driver.Signal) ([]error, error) {
	errs := make([]error, len(signals))
	for i := range signals {
		errs[i] = driver.CheckSignal(&signals[i])
	}
	ref := func(i int) *driver.PlanRef {
		if errs[i] != nil {
			return nil
		}
		return &signals[i].PlanRef
	}
	err := s.eachPlanShard(ctx, len(signals), ref, func(ctx context.Context, sh *shard, part []int) error {
		args := append(s.head(sh, "", ""), strconv.Itoa(driver.MaxPlanNews), strconv.Itoa(driver.MaxSignalIDs))
		for _, i := range part {
			sig := &signals[i]
			n := driver.News{Time: zeroTime, Signal: sig.Signal, SignalID: sig.ID, Payload: sig.Payload}
			args = append(args, sig.PlanRef.String(), sig.ID, string(driver.AppendNews(nil, &n)))
		}
		reply, err := s.durable(ctx, sh, planSignalScript, sh.keysOf(planSignalScript, ""), args, s.caps.DefaultDurability)
		if err != nil {
			return err
		}
		letters, err := reply.ToString()
		if err != nil || len(letters) != len(part) {
			return driver.Errorf(driver.ErrUnavailable, "%s gave an unexpected reply", s.where)
		}
		for k, i := range part {
			switch letters[k] {
			case 'N':
				errs[i] = driver.PlanNotFound(signals[i].PlanRef)
			case 'E':
				errs[i] = driver.PlanEnded(signals[i].PlanRef)
			case 'F':
				errs[i] = driver.PlanFull(signals[i].PlanRef)
			}
		}
		s.signalPlanners(ctx, sh)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return errs, nil
}

// GetPlans implements driver.Planner.
func (s *Store) GetPlans(ctx context.Context, refs []driver.PlanRef, read driver.PlanRead) ([]*driver.Plan, error) {
	list := make([]*driver.Plan, len(refs))
	wants := []string{bit(read.Reserve), strconv.FormatInt(driver.PlanReserve.Milliseconds(), 10), strconv.Itoa(min(read.News, 1000)),
		strconv.Itoa(driver.NewsBytes), bit(read.AllParts), strconv.Itoa(len(read.Parts))}
	wants = append(wants, read.Parts...)
	err := s.eachPlanShard(ctx, len(refs), func(i int) *driver.PlanRef { return &refs[i] }, func(ctx context.Context, sh *shard, part []int) error {
		args := append(s.head(sh, "", ""), wants...)
		for _, i := range part {
			args = append(args, refs[i].String())
		}
		reply, err := s.call(ctx, s.data, sh, planGetScript, sh.keysOf(planGetScript, ""), args)
		if err != nil {
			return err
		}
		values, err := reply.ToArray()
		if err != nil || len(values) != len(part) {
			return driver.Errorf(driver.ErrUnavailable, "%s gave an unexpected reply", s.where)
		}
		for k, i := range part {
			if list[i], err = s.parsePlan(refs[i], values[k]); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return list, nil
}

// parsePlan reads what the script says of one plan.
func (s *Store) parsePlan(ref driver.PlanRef, v rueidis.RedisMessage) (*driver.Plan, error) {
	if v.IsNil() {
		return nil, nil
	}
	if v.IsInt64() {
		return &driver.Plan{PlanRef: ref, Busy: true}, nil
	}
	fields, err := v.ToArray()
	if err != nil || len(fields) != 4 {
		return nil, driver.Errorf(driver.ErrUnavailable, "%s gave an unexpected reply", s.where)
	}
	raw, _ := fields[0].ToString()
	h, err := parsePlanRecord(ref, raw)
	if err != nil {
		return nil, err
	}
	p := &h.Plan
	p.Body, _ = fields[1].AsBytes()
	parts, _ := fields[2].ToArray()
	for i := 0; i+1 < len(parts); i += 2 {
		if p.Parts == nil {
			p.Parts = map[string][]byte{}
		}
		name, _ := parts[i].ToString()
		p.Parts[name], _ = parts[i+1].AsBytes()
	}
	news, _ := fields[3].AsStrSlice()
	for i, text := range news {
		n, err := driver.DecodeNews(h.seen+1+int64(i), []byte(text))
		if err != nil {
			return nil, driver.Errorf(driver.ErrCorrupt, "%s: %v", ref, err)
		}
		p.News = append(p.News, n)
	}
	return p, nil
}

// planRecord is the head of a plan, PLAN.
type planRecord struct {
	driver.Plan
	seen, news, signals int64
	reserved            int64
	parts               []string
}

func parsePlanRecord(ref driver.PlanRef, s string) (*planRecord, error) {
	if len(s) <= planHead {
		return nil, driver.Errorf(driver.ErrCorrupt, "the record of %s is damaged", ref)
	}
	h := &planRecord{seen: uint48(s[planSeen:]), news: uint48(s[planNews:]), signals: uint48(s[planSignals:]), reserved: uint48(s[planReserved:])}
	words := strings.Split(s[planHead:], " ")
	h.Plan = driver.Plan{PlanRef: ref, Version: int64(s[planVersion])<<48 | uint48(s[planVersion+1:]), State: words[0], Wake: millis(uint48(s[planWake:])),
		Expires: millis(uint48(s[planExpires:])), Created: millis(uint48(s[planCreated:])), Updated: millis(uint48(s[planUpdated:])), Waiting: int(h.news - h.seen)}
	h.parts = words[1:]
	return h, nil
}

// place returns when a plan is to be thought of, see driver.Plan.Place.
func (h *planRecord) place(now int64) int64 {
	at := h.Place(millis(h.reserved), millis(now))
	if at.IsZero() {
		return 0
	}
	return at.UnixMilli()
}

// DeletePlans implements driver.Planner.
func (s *Store) DeletePlans(ctx context.Context, refs []driver.PlanRef) ([]error, error) {
	errs := make([]error, len(refs))
	err := s.eachPlanShard(ctx, len(refs), func(i int) *driver.PlanRef { return &refs[i] }, func(ctx context.Context, sh *shard, part []int) error {
		names := make([]string, len(part))
		for k, i := range part {
			names[k] = refs[i].String()
		}
		letters, err := s.dropPlans(ctx, sh, names, false)
		for k, i := range part {
			if err == nil && letters[k] == '0' {
				errs[i] = driver.PlanNotFound(refs[i])
			}
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return errs, nil
}

// dropPlans removes plans of one shard, or those of them that have expired.
func (s *Store) dropPlans(ctx context.Context, sh *shard, names []string, expired bool) (letters string, err error) {
	args := append(s.head(sh, "", ""), bit(expired), strconv.Itoa(driver.MaxSignalIDs))
	reply, err := s.call(ctx, s.data, sh, planDropScript, sh.keysOf(planDropScript, ""), append(args, names...))
	if err != nil {
		return "", err
	}
	letters, err = reply.ToString()
	if err != nil || len(letters) != len(names) {
		return "", driver.Errorf(driver.ErrUnavailable, "%s gave an unexpected reply", s.where)
	}
	return letters, nil
}

// expirePlans removes at most limit plans of a shard that have expired, and sees to what is left in its outbox.
func (s *Store) expirePlans(ctx context.Context, sh *shard, limit int) (n int, more bool, err error) {
	now, err := s.shardNow(ctx, sh)
	if err != nil {
		return 0, false, err
	}
	due, err := s.dueBefore(ctx, sh, "plandue", now, limit+1)
	if err != nil {
		return 0, false, err
	}
	for chunk := range slices.Chunk(due[:min(len(due), limit)], planChunk) {
		letters, err := s.dropPlans(ctx, sh, chunk, true)
		if err != nil {
			return n, false, err
		}
		n += strings.Count(letters, "1")
	}
	forgotten, err := s.dueBefore(ctx, sh, "planoutdue", now, limit)
	if err == nil {
		err = s.sendForgotten(ctx, sh, forgotten)
	}
	return n, n > 0 && len(due) > limit, err
}

func (s *Store) shardNow(ctx context.Context, sh *shard) (int64, error) {
	_, now, err := s.read(ctx, sh, nil)
	return now, err
}

// dueBefore returns the first members of a sorted set of times.
func (s *Store) dueBefore(ctx context.Context, sh *shard, name string, now int64, limit int) ([]string, error) {
	ctx, cancel := s.bounded(ctx, s.timeout)
	defer cancel()
	cmd := s.control.B().Zrangebyscore().Key(sh.key(name)).Min("-inf").Max(strconv.FormatInt(now, 10)).Limit(0, int64(limit)).Build()
	list, err := s.control.Do(ctx, cmd).AsStrSlice()
	return list, s.ended(ctx, err)
}
