package redisstore

import (
	"context"
	"encoding/json"
	"slices"
	"strconv"
	"time"

	"github.com/redis/rueidis"

	"github.com/waggleq/waggle/driver"
)

// Settle implements driver.Settler. Completed attempts are settled by one script without being read first; the others,
// which need their history, are read, worked out here, and committed if nothing has changed meanwhile.
func (s *Store) Settle(ctx context.Context, worker string, items []driver.Settlement) ([]driver.SettleResult, error) {
	if s.closed() {
		return nil, driver.ErrClosed
	}
	results := make([]driver.SettleResult, len(items))
	for part := range distinct(items) {
		if err := s.settlePart(ctx, worker, items, part, results); err != nil {
			return nil, err
		}
	}
	return results, nil
}

// distinct yields the indices of items, cut where an id comes again: that settlement has to see the one before.
func distinct(items []driver.Settlement) func(yield func([]int) bool) {
	return func(yield func([]int) bool) {
		seen := make(map[string]struct{}, len(items))
		part := make([]int, 0, len(items))
		for i := range items {
			if _, again := seen[items[i].ID]; again {
				if !yield(part) {
					return
				}
				clear(seen)
				part = part[:0]
			}
			seen[items[i].ID] = struct{}{}
			part = append(part, i)
		}
		if len(part) > 0 {
			yield(part)
		}
	}
}

func (s *Store) settlePart(ctx context.Context, worker string, items []driver.Settlement, part []int, results []driver.SettleResult) error {
	quick, slow := make([][]int, len(s.shards)), make([][]int, len(s.shards))
	for _, i := range part {
		if results[i].Err = s.checkSettlement(&items[i]); results[i].Err != nil {
			continue
		}
		n := s.shardOf(items[i].ID).number
		if items[i].Outcome == driver.Complete {
			quick[n] = append(quick[n], i)
		} else {
			slow[n] = append(slow[n], i)
		}
	}
	return s.eachShard(ctx, func(ctx context.Context, sh *shard) error {
		for chunk := range slices.Chunk(quick[sh.number], 1000) {
			for few := range fewPairs(chunk, func(i int) int { _, pair := splitToken(items[i].Token); return pair }) {
				if err := s.refreshed(ctx, sh, func() error { return s.settleCompleted(ctx, sh, worker, items, few, results) }); err != nil {
					return err
				}
			}
		}
		if len(slow[sh.number]) == 0 {
			return nil
		}
		return s.settleOthers(ctx, sh, worker, items, slow[sh.number], results)
	}, func(sh *shard) bool { return len(quick[sh.number])+len(slow[sh.number]) > 0 })
}

func (s *Store) checkSettlement(item *driver.Settlement) error {
	if err := driver.CheckSettlement(item, s.caps); err != nil {
		return err
	}
	if driver.CheckName("task id", item.ID, driver.MaxIDLen) != nil || item.Token <= 0 {
		return errNotHeld
	}
	return nil
}

var errNotHeld = driver.Errorf(driver.ErrLeaseLost, "the worker does not hold the task under this token")

// alike are settlements of one call with the same pair, token and running time; most of a claim's are.
type alike struct {
	pair  string // its index
	token string // >I6, and so is ran
	ran   string
	at    []int // in the call's items
}

// settleCall is what the settle script is called with.
type settleCall struct {
	pairs  []*pair
	groups []*alike
}

// groupCompleted sorts settlements into groups. Those that name a pair that does not exist are refused.
func (s *Store) groupCompleted(ctx context.Context, sh *shard, items []driver.Settlement, part []int, results []driver.SettleResult) (*settleCall, error) {
	type key struct {
		token driver.Token
		ran   int64
	}
	c := &settleCall{}
	index := map[int]string{}
	groups := make(map[key]*alike, 4)
	var last *alike
	var lastKey key
	for _, i := range part {
		k := key{items[i].Token, ceilMillis(items[i].Ran)}
		if last == nil || k != lastKey {
			last, lastKey = groups[k], k
		}
		if last == nil {
			count, number := splitToken(k.token)
			if index[number] == "" {
				p, err := s.pairOf(ctx, sh, number)
				if err != nil {
					return nil, err
				}
				if p == nil {
					results[i].Err = errNotHeld
					continue
				}
				c.pairs = append(c.pairs, p)
				index[number] = strconv.Itoa(len(c.pairs))
			}
			six := string(appendUint48(appendUint48(nil, count), k.ran))
			last = &alike{pair: index[number], token: six[:6], ran: six[6:]}
			groups[k] = last
			c.groups = append(c.groups, last)
		}
		last.at = append(last.at, i)
	}
	return c, nil
}

// args appends the script's arguments after the head, and returns the items in the order in which they are sent.
func (c *settleCall) args(sh *shard, keys, dst []string, items []driver.Settlement, n int) (allKeys, args []string, sent []int) {
	dst = append(dst, strconv.Itoa(len(c.pairs)))
	for _, p := range c.pairs {
		dst = append(dst, p.digits, p.subject, p.queue)
	}
	dst = append(dst, strconv.Itoa(len(c.groups)))
	sent = make([]int, 0, n)
	packed := make([]byte, 0, 16*n)
	for _, g := range c.groups {
		dst = append(dst, g.pair, g.token, g.ran, strconv.Itoa(len(g.at)))
		for _, i := range g.at {
			from := len(packed)
			packed = driver.PackID(packed, items[i].ID)
			dst = append(dst, rueidis.BinaryString(packed[from:len(packed):len(packed)]))
		}
		sent = append(sent, g.at...)
	}
	var shared []string
	for _, p := range c.pairs {
		if sh.known.isShared(p.queue) && !slices.Contains(shared, p.queue) {
			shared = append(shared, p.queue)
		}
	}
	dst = append(dst, strconv.Itoa(len(shared)))
	for _, queue := range shared {
		keys, dst = sh.shareArgs(keys, append(dst, queue), queue)
	}
	for k, i := range sent {
		if it := &items[i]; len(it.Result) > 0 || it.ResultEncoding != "" {
			dst = append(dst, strconv.Itoa(k+1), string(encodingByte(it.ResultEncoding))+string(it.Result))
		}
	}
	return keys, dst, sent
}

func (s *Store) settleCompleted(ctx context.Context, sh *shard, worker string, items []driver.Settlement, part []int, results []driver.SettleResult) error {
	host, build, err := s.whereOf(ctx, sh, worker)
	if err != nil {
		return err
	}
	c, err := s.groupCompleted(ctx, sh, items, part, results)
	if err != nil || len(c.groups) == 0 {
		return err
	}
	keys := sh.keysOf(settleScript, worker)
	for _, p := range c.pairs {
		keys = append(keys, p.keptOfState[letterCompleted])
	}
	args := append(make([]string, 0, 24+2*len(part)), s.head(sh, "", "")...)
	args = append(args, worker, string(appendShort(appendShort(nil, host), build)))
	keys, args, sent := c.args(sh, keys, args, items, len(part))
	reply, err := s.call(ctx, s.data, sh, settleScript, keys, args)
	if err != nil {
		return err
	}
	parts, err := reply.ToArray()
	if err != nil || len(parts) != 5 {
		return driver.Errorf(driver.ErrUnavailable, "%s gave an unexpected reply", s.where)
	}
	if woken, _ := parts[3].AsIntSlice(); len(woken) > 0 {
		s.signalNumbers(ctx, sh, woken)
	}
	for _, i := range sent {
		results[i].State = driver.Completed
	}
	refused, _ := parts[0].AsIntSlice()
	for _, k := range refused {
		results[sent[k-1]] = driver.SettleResult{Err: errNotHeld}
	}
	repeated, _ := parts[4].AsIntSlice()
	for k, n := range repeated {
		repeated[k] = int64(sent[n-1])
	}
	if told, _ := parts[2].AsInt64(); told == 1 {
		s.signalPlanners(ctx, sh)
	}
	kept, _ := parts[1].AsIntSlice()
	for k, n := range kept {
		s.noteKept(sh, c.pairs[k], n)
	}
	return s.lookUp(ctx, sh, items, repeated, results)
}

// lookUp tells of settlements that were accepted before what state their tasks have now.
func (s *Store) lookUp(ctx context.Context, sh *shard, items []driver.Settlement, repeated []int64, results []driver.SettleResult) error {
	if len(repeated) == 0 {
		return nil
	}
	ids := make([]string, len(repeated))
	for k, i := range repeated {
		ids[k] = string(driver.PackID(nil, items[i].ID))
	}
	entries, _, err := s.read(ctx, sh, ids)
	if err != nil {
		return err
	}
	for k, i := range repeated {
		if e := entries[k]; e != nil { // else it was removed meanwhile: it stays what it was settled as
			results[i] = settledAs(e)
		}
	}
	return nil
}

// settledAs is what an entry says has become of its task.
func settledAs(e *entry) driver.SettleResult {
	return driver.SettleResult{State: stateOf[e.run.state], Reason: reasons[e.run.reason]}
}

// noteKept has a queue pruned that keeps n completed tasks, if those are more than it should.
func (s *Store) noteKept(sh *shard, p *pair, n int64) {
	keep := sh.known.config(p.queue).Retention.Completed
	if most := int(s.share(int64(keep.Count))); most >= 0 && int(n) > most+most/100 || keep.Age == 0 || keep.Bytes >= 0 {
		sh.tended.setOver(p.queue)
	}
}

// whereOf returns host and build of a worker, for the history.
func (s *Store) whereOf(ctx context.Context, sh *shard, worker string) (host, build string, err error) {
	if w, ok := s.workers.Load(worker); ok {
		w := w.(driver.WorkerInfo)
		return w.Host, w.Build, nil
	}
	if worker == "" {
		return "", "", nil
	}
	values, err := s.hashFields(ctx, sh, "winfo", []string{worker})
	if err != nil || len(values[0]) < joinedHead {
		return "", "", err
	}
	var w driver.WorkerInfo
	if json.Unmarshal([]byte(values[0][joinedHead:]), &w) == nil {
		s.workers.Store(worker, w)
	}
	return w.Host, w.Build, nil
}

// changeTries is how often changes are worked out anew when records change meanwhile.
const changeTries = 20

func (s *Store) settleOthers(ctx context.Context, sh *shard, worker string, items []driver.Settlement, part []int, results []driver.SettleResult) error {
	host, build, err := s.whereOf(ctx, sh, worker)
	if err != nil {
		return err
	}
	for range changeTries {
		if len(part) == 0 {
			return nil
		}
		if part, err = s.settleOnce(ctx, sh, worker, items, part, results, host, build); err != nil {
			return err
		}
	}
	return driver.Errorf(driver.ErrUnavailable, "%s: tasks changed too often while they were settled", s.where)
}

// settleOnce returns the items whose records changed between reading and writing.
func (s *Store) settleOnce(ctx context.Context, sh *shard, worker string, items []driver.Settlement, part []int, results []driver.SettleResult,
	host, build string) ([]int, error) {
	ids := make([]string, len(part))
	for k, i := range part {
		ids[k] = string(driver.PackID(nil, items[i].ID))
	}
	entries, now, err := s.read(ctx, sh, ids)
	if err != nil {
		return nil, err
	}
	m := &mover{s: s, sh: sh, now: now}
	var changes []*item
	var of []int
	for k, i := range part {
		e := entries[k]
		done, ok := heldUnder(e, worker, items[i].Token)
		switch {
		case !ok:
			results[i] = driver.SettleResult{Err: errNotHeld}
			continue
		case done:
			results[i] = settledAs(e)
			continue
		}
		p, err := s.pairOf(ctx, sh, e.run.pair)
		if err != nil {
			return nil, err
		}
		changes = append(changes, m.settle(e, p, worker, host, build, &items[i]))
		of, results[i] = append(of, i), settledAs(e)
	}
	done, err := s.commit(ctx, sh, changes)
	if err != nil {
		return nil, err
	}
	m.wakeElsewhere(ctx)
	var again []int
	for k, ok := range done {
		if !ok {
			again = append(again, of[k])
		}
	}
	return again, nil
}

// heldUnder reports whether the worker may settle an entry with that token, or has done so already.
func heldUnder(e *entry, worker string, token driver.Token) (done, ok bool) {
	if e == nil || !e.hasRun || e.run.worker != worker || makeToken(e.run.token, e.run.pair) != token {
		return false, false
	}
	if e.run.state == letterActive {
		return false, true
	}
	return true, e.run.flags&flagSettled != 0
}

// settle works out what becomes of an active task that its worker settles with anything but Complete.
func (m *mover) settle(e *entry, p *pair, worker, host, build string, st *driver.Settlement) *item {
	it := m.begin(e)
	r := &e.run
	now := millis(m.now)
	spent := st.Outcome == driver.Retry && st.Spends(r.attempt, m.maxAttempts(e))
	if a, told := st.Attempt(spent, r.flags&flagCancel != 0); told {
		a.Number, a.Worker, a.Host, a.Build = r.attempt, worker, host, build
		a.Started, a.Ended = now.Add(-st.Ran).Truncate(time.Millisecond), now
		m.addAttempt(it, e, a)
	}
	if st.Outcome == driver.Retry {
		m.count(it, countEverFailed+p.digits, 1)
	}
	to, reason := m.outcome(e, st)
	if r.flags&flagCancel != 0 && st.Outcome != driver.Discard {
		to, reason = letterCancelled, driver.ReasonRequested
	}
	r.flags |= flagSettled
	if to == letterRetryable || to == letterScheduled {
		r.due, r.order = m.now+ceilMillis(st.Delay), e.task.seq // among tasks that are due at once the oldest comes first
	}
	m.move(it, e, p, to, reason)
	return it
}

// outcome returns the state that an outcome leads to, and takes back the attempt of one that spends none.
func (m *mover) outcome(e *entry, st *driver.Settlement) (to byte, reason driver.Reason) {
	switch st.Outcome {
	case driver.Retry:
		if st.Spends(e.run.attempt, m.maxAttempts(e)) {
			return letterDiscarded, driver.ReasonAttempts
		}
		return letterRetryable, ""
	case driver.Snooze:
		e.run.attempt--
		return letterScheduled, ""
	case driver.Release:
		e.run.attempt--
		return letterAvailable, ""
	case driver.Discard:
		return letterDiscarded, driver.ReasonHandler
	default:
		return letterCancelled, driver.ReasonHandler
	}
}

func (m *mover) maxAttempts(e *entry) int {
	t := driver.Task{MaxAttempts: driver.DefaultMaxAttempts}
	_ = driver.DecodeEnvelope([]byte(e.task.envelope), &t)
	return t.MaxAttempts
}

func (m *mover) crashLimit(e *entry) int {
	t := driver.Task{CrashLimit: driver.DefaultCrashLimit}
	_ = driver.DecodeEnvelope([]byte(e.task.envelope), &t)
	return t.CrashLimit
}

// Report implements driver.Settler.
func (s *Store) Report(ctx context.Context, worker string, items []driver.Report) ([]error, error) {
	if s.closed() {
		return nil, driver.ErrClosed
	}
	errs := make([]error, len(items))
	for i := range items {
		for try := 0; ; try++ {
			done, err := s.reportOne(ctx, worker, &items[i], &errs[i])
			if err != nil {
				return nil, err
			}
			if done {
				break
			}
			if try == changeTries {
				return nil, driver.Errorf(driver.ErrUnavailable, "%s: task %s changed too often while it reported", s.where, items[i].ID)
			}
		}
	}
	return errs, nil
}

// reportOne reports whether the item is dealt with; false: the task changed meanwhile.
func (s *Store) reportOne(ctx context.Context, worker string, r *driver.Report, itemErr *error) (bool, error) {
	if driver.CheckName("task id", r.ID, driver.MaxIDLen) != nil {
		*itemErr = errNotHeld
		return true, nil
	}
	sh := s.shardOf(r.ID)
	entries, now, err := s.read(ctx, sh, []string{string(driver.PackID(nil, r.ID))})
	if err != nil {
		return false, err
	}
	e := entries[0]
	if done, ok := heldUnder(e, worker, r.Token); !ok || done {
		*itemErr = errNotHeld
		return true, nil
	}
	p, err := s.pairOf(ctx, sh, e.run.pair)
	if err != nil {
		return false, err
	}
	var n news
	if e.news != "" {
		_ = json.Unmarshal([]byte(e.news), &n) // damaged news are replaced by the next
	}
	progress, err := driver.CheckReport(r)
	if err != nil {
		*itemErr = err
		return true, nil
	}
	if progress != nil {
		n.Progress = progress
	}
	n.Logs = driver.AppendLogs(n.Logs, r.Logs)
	b, err := json.Marshal(n)
	if err != nil {
		*itemErr = driver.Invalidf("the progress of task %s can't be stored: %v", r.ID, err)
		return true, nil
	}
	m := &mover{s: s, sh: sh, now: now}
	it := m.begin(e)
	it.expect(sh.key("news"), e.id, e.news, e.news != "")
	it.do("HSET", sh.key("news"), e.id, string(b))
	it.do("EVENT", sh.key("meta"), string(driver.EventProgress), p.subject, worker, e.id)
	done, err := s.commit(ctx, sh, []*item{it})
	if err != nil {
		return false, err
	}
	return done[0], nil
}
