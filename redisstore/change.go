package redisstore

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/rueidis"

	"github.com/waggleq/waggle/driver"
)

// entry is a task as it was read, with all that belongs to it.
type entry struct {
	id     string // packed
	task   taskRecord
	run    runRecord
	rawRun string
	hasRun bool
	hist   string // JSON of []driver.Attempt, or empty
	result string // encoding byte and result, or empty
	news   string // JSON of news, or empty
	own    string // end of uniqueness and unique key, or empty
	err    error  // the record can't be read
	astray bool   // and so nobody knows in which index it is
}

// news is what running tasks reported.
type news struct {
	Progress *driver.Progress `json:"progress,omitzero"`
	Logs     []driver.LogLine `json:"logs,omitzero"`
}

// read returns the entries of packed ids, nil where there is none, and the store's clock.
func (s *Store) read(ctx context.Context, sh *shard, ids []string) ([]*entry, int64, error) {
	incarnation, _, _ := sh.known.versions()
	args := append([]string{incarnation, strconv.FormatInt(s.offset.Load(), 10)}, ids...)
	reply, err := s.call(ctx, s.control, sh, getScript, sh.keysOf(getScript, ""), args)
	if err != nil {
		return nil, 0, err
	}
	parts, err := reply.ToArray()
	if err != nil || len(parts) != 1 && len(parts) != 7 {
		return nil, 0, driver.Errorf(driver.ErrUnavailable, "%s gave an unexpected reply", s.where)
	}
	now, _ := parts[0].AsInt64()
	entries := make([]*entry, len(ids))
	if len(ids) == 0 {
		return entries, now, nil
	}
	var columns [6][]rueidis.RedisMessage
	for c := range columns {
		if columns[c], err = parts[1+c].ToArray(); err != nil || len(columns[c]) != 0 && len(columns[c]) != len(ids) {
			return nil, 0, driver.Errorf(driver.ErrUnavailable, "%s gave an unexpected reply", s.where)
		}
	}
	for i, id := range ids {
		entries[i] = parseEntry(id, &columns, i)
	}
	return entries, now, nil
}

// parseEntry reads the i-th of the ids that were asked for, nil if there is no such task.
func parseEntry(id string, columns *[6][]rueidis.RedisMessage, i int) *entry {
	var values [6]string
	var there [6]bool
	for c, column := range columns {
		if len(column) > i {
			v, err := column[i].ToString()
			values[c], there[c] = v, err == nil
		}
	}
	if !there[0] {
		return nil
	}
	e := newEntry(id, values[0], values[1], there[1])
	e.hist, e.result, e.news, e.own = values[2], values[3], values[4], values[5]
	return e
}

// newEntry reads a task's record, and that of its run if it has one.
func newEntry(id, task, run string, hasRun bool) *entry {
	e := &entry{id: id, hasRun: hasRun, rawRun: run}
	e.task, e.err = parseTask(task)
	if !hasRun {
		e.astray = e.err != nil
		e.run = freshRun(&e.task)
		return e
	}
	var err error
	if e.run, err = parseRun(run, &e.task); err != nil {
		e.err, e.astray = err, true
		e.run = freshRun(&e.task)
	}
	return e
}

// check is a value that must still be there when a change is done.
type check struct{ key, field, want string }

// item is one change: its checks and its writes, each a command with its key and arguments.
type item struct {
	checks []check
	writes [][]string
	sooner *pair // to be woken from here if nothing else of it is due as soon
}

func (it *item) expect(key, field, value string, there bool) {
	want := "-"
	if there {
		want = "=" + value
	}
	it.checks = append(it.checks, check{key, field, want})
}

func (it *item) do(command, key string, args ...string) {
	it.writes = append(it.writes, append([]string{command, key}, args...))
}

// encodeItems appends items to args in the form of lua/include/guarded.lua, and their keys to keys.
func encodeItems(items []*item, keys, args []string) ([]string, []string) {
	index := make(map[string]string, 16)
	for i, k := range keys {
		index[k] = strconv.Itoa(i + 1)
	}
	key := func(k string) string {
		n, ok := index[k]
		if !ok {
			keys = append(keys, k)
			n = strconv.Itoa(len(keys))
			index[k] = n
		}
		return n
	}
	args = append(args, strconv.Itoa(len(items)))
	for _, it := range items {
		args = append(args, strconv.Itoa(len(it.checks)))
		for _, c := range it.checks {
			args = append(args, key(c.key), c.field, c.want)
		}
		args = append(args, strconv.Itoa(len(it.writes)))
		for _, w := range it.writes {
			args = append(args, w[0], key(w[1]), strconv.Itoa(len(w)-2))
			if n := keyArgs[w[0]]; n > 0 {
				for _, k := range w[2 : 2+n] {
					args = append(args, key(k))
				}
				w = w[n:]
			}
			args = append(args, w[2:]...)
		}
	}
	return keys, args
}

// keyArgs is how many of the arguments of a write are keys.
var keyArgs = map[string]int{"NEWS": planKeys, "FLOW": 5}

// commitChunk bounds the changes of one script, so that none takes long.
const commitChunk = 100

// commit does changes, each only if nothing has touched its records since they were read, and tells which were done.
func (s *Store) commit(ctx context.Context, sh *shard, items []*item) ([]bool, error) {
	done := make([]bool, 0, len(items))
	var sooner []*pair
	defer func() { s.signal(ctx, sh, sooner) }()
	for chunk := range slices.Chunk(items, commitChunk) {
		keys, args := encodeItems(chunk, sh.keysOf(commitScript, ""), s.head(sh, "", ""))
		reply, err := s.call(ctx, s.data, sh, commitScript, keys, args)
		if err != nil {
			return done, err
		}
		letters, err := reply.ToString()
		letters, rest, _ := strings.Cut(letters, " ")
		var woken []int64
		for number := range strings.FieldsSeq(rest) {
			n, _ := strconv.ParseInt(number, 10, 64)
			woken = append(woken, n)
		}
		s.signalNumbers(ctx, sh, woken)
		if err != nil || len(letters) != len(chunk) {
			return done, driver.Errorf(driver.ErrUnavailable, "%s gave an unexpected reply", s.where)
		}
		for i, l := range []byte(letters) {
			done = append(done, l != '0')
			if p := chunk[i].sooner; l == '2' && p != nil && !slices.Contains(sooner, p) {
				sooner = append(sooner, p)
			}
		}
	}
	return done, nil
}

// reserve returns the first of n places at the end of the line.
func (s *Store) reserve(ctx context.Context, sh *shard, n int) (int64, error) {
	if s.closed() {
		return 0, driver.ErrClosed
	}
	ctx, cancel := s.bounded(ctx, s.timeout)
	defer cancel()
	cmd := s.control.B().Hincrby().Key(sh.key("meta")).Field("seq").Increment(int64(n)).Build()
	last, err := s.control.Do(ctx, cmd).AsInt64()
	return last - int64(n) + 1, s.ended(ctx, err)
}

// mover works out the changes of one shard's tasks. It notes the pairs to be woken where the tokens live elsewhere.
type mover struct {
	s     *Store
	sh    *shard
	now   int64
	dry   bool // the changes are only counted
	woken []*pair
	told  bool     // a plan has got news
	rung  []string // workers for which news lies in this shard, which does not hold the tokens
}

// begin returns an item that is done only if the entry's run is as it was read.
func (m *mover) begin(e *entry) *item {
	it := &item{}
	it.expect(m.sh.key("run"), e.id, e.rawRun, e.hasRun)
	if !e.hasRun {
		it.checks = append(it.checks, check{m.sh.key("task"), e.id, "+"})
	}
	return it
}

func (m *mover) count(it *item, field string, n int) {
	if n != 0 {
		it.do("COUNT", m.sh.key("stat"), field, strconv.Itoa(n))
	}
}

// leave takes an entry out of the index of its state.
func (m *mover) leave(it *item, e *entry, p *pair) {
	if e.astray { // out of all; an audit puts the counters right
		for _, key := range []string{p.back, p.due, p.exp} {
			it.do("ZREM", key, e.id)
		}
		it.do("SREM", m.sh.key("hold"), e.id)
		return
	}
	m.hold(it, e, p, -1)
	switch r := &e.run; r.state {
	case letterAvailable:
		if m.flows(e, p) {
			m.flow(it, p.queue, flowArgs("-", e, p)...)
		} else if e.hasRun || e.err != nil || r.priority != 0 || r.flags&flagExpires != 0 { // else it was never anywhere but in the line
			it.do("ZREM", p.back, e.id)
		}
		it.do("VACATE", p.line, string(letterAvailable)+p.digits)
		if r.flags&flagExpires != 0 {
			it.do("ZREM", p.exp, e.id)
			m.count(it, countExpiring+p.digits, -1)
		}
	case letterScheduled, letterRetryable:
		it.do("ZREM", p.due, e.id)
	case letterPending:
		it.do("SREM", m.sh.key("hold"), e.id)
	case letterActive:
		it.do("SREM", m.sh.heldKey(r.worker), e.id)
		if r.flags&flagCancel != 0 {
			it.do("HDEL", m.sh.cancelKey(r.worker), e.id)
		}
	default:
		m.count(it, countKept+string(r.state)+p.queue, -1)
		m.count(it, countKeptBytes+string(r.state)+p.queue, -r.size)
		it.do("VACATE", p.keptOfState[r.state], countKept+string(r.state)+p.queue)
	}
	m.count(it, string(e.run.state)+p.digits, -1)
}

// move puts an entry into another state, in all indexes, counters and the event log. The caller has set the other
// fields of e.run; reason is kept only by ended states.
func (m *mover) move(it *item, e *entry, p *pair, to byte, reason driver.Reason) {
	m.leave(it, e, p)
	m.enter(it, e, p, to, reason)
}

// enter is the second half of move.
func (m *mover) enter(it *item, e *entry, p *pair, to byte, reason driver.Reason) {
	r := &e.run
	returned := r.state == letterActive
	r.state, r.reason = to, 0
	r.flags &^= flagCancel
	m.hold(it, e, p, 1)
	switch to {
	case letterAvailable:
		m.enterLine(it, e, p, returned)
	case letterScheduled, letterRetryable:
		m.enterDue(it, e, p)
	case letterPending:
		it.do("SADD", m.sh.key("hold"), e.id)
	default:
		r.reason = byte(max(slices.Index(reasons, reason), 0))
		m.end(it, e, p)
	}
	m.count(it, string(to)+p.digits, 1)
	it.do("HSET", m.sh.key("run"), e.id, string(r.append(nil)))
	it.do("EVENT", m.sh.key("meta"), string(stateOf[to]), p.subject, driver.EventActor("", reasons[r.reason]), e.id)
}

func (m *mover) enterLine(it *item, e *entry, p *pair, returned bool) {
	r := &e.run
	flows := m.flows(e, p)
	if flows {
		m.enterFlow(it, e, p, returned)
	} else {
		score := int64(r.priority+storedPlain)*storedBand + r.order
		it.do("ZADD", p.back, strconv.FormatInt(score, 10), e.id)
	}
	if r.flags&flagExpires != 0 {
		it.do("ZADD", p.exp, strconv.FormatInt(r.expires, 10), e.id)
		m.count(it, countExpiring+p.digits, 1)
	}
	if flows {
		return // commit wakes who may start something
	}
	if m.sh.number != 0 {
		if !slices.Contains(m.woken, p) {
			m.woken = append(m.woken, p)
		}
		return
	}
	it.do("WAKE", p.wake)
	it.do("WAKEALL", p.wakeAll)
}

// enterDue has somebody know of a task that is due sooner than all others of its pair, so that it is looked at in time.
func (m *mover) enterDue(it *item, e *entry, p *pair) {
	it.do("DUE", p.due, strconv.FormatInt(e.run.due, 10), e.id)
	if m.sh.number != 0 {
		it.sooner = p
		return
	}
	it.do("WAKESOONER", p.wake)
	it.do("WAKEALLSOONER", p.wakeAll)
}

func (m *mover) end(it *item, e *entry, p *pair) {
	r := &e.run
	r.ended = m.now
	it.do("RPUSH", p.keptOfState[r.state], string(appendUint48(nil, m.now))+e.id)
	m.count(it, countKept+string(r.state)+p.queue, 1)
	m.count(it, countKeptBytes+string(r.state)+p.queue, r.size)
	m.count(it, map[byte]string{letterCompleted: countEverCompleted, letterCancelled: countEverCancelled, letterDiscarded: countEverDiscarded}[r.state]+p.digits, 1)
	m.free(it, e, false)
	m.tell(it, e, stateOf[r.state])
	if keep := m.sh.known.config(p.queue).Retention.Of(stateOf[r.state]); keep.Count >= 0 || keep.Bytes >= 0 || keep.Age == 0 {
		m.sh.tended.setOver(p.queue)
	}
}

// free gives a unique key back; one that is owned for a time only if the owner is forgotten after that.
func (m *mover) free(it *item, e *entry, forget bool) {
	if e.own == "" {
		return
	}
	if e.own[0] == uniqueTTL {
		if forget {
			it.do("HDEL", m.sh.key("own"), e.id)
		}
		return
	}
	it.expect(m.sh.key("own"), e.id, e.own, true)
	it.do("HDEL", m.sh.key("uniq"), e.own[1:])
	it.do("HDEL", m.sh.key("own"), e.id)
}

// forget removes an entry altogether.
func (m *mover) forget(it *item, e *entry, p *pair) {
	m.leave(it, e, p)
	m.free(it, e, true)
	it.do("FORGET", m.sh.key("task"), e.id)
}

// addAttempt adds an attempt to an entry's history, as of before the change.
func (m *mover) addAttempt(it *item, e *entry, a driver.Attempt) {
	var list []driver.Attempt
	if e.hist != "" {
		_ = json.Unmarshal([]byte(e.hist), &list) // a damaged history must not keep a task from ending
	}
	b, err := json.Marshal(driver.AppendAttempt(list, a))
	if err != nil {
		return
	}
	e.hist = string(b)
	it.do("HSET", m.sh.key("hist"), e.id, e.hist)
}

// wakeElsewhere signals the pairs in which tasks became available, and the workers that there is news for, to the shard that
// holds the tokens. It is a hint, so
// its failure is none of the caller's.
func (m *mover) wakeElsewhere(ctx context.Context) {
	if m.told {
		m.s.signalPlanners(ctx, m.sh)
	}
	m.s.signal(ctx, m.sh, m.woken)
	m.s.ring(ctx, m.rung)
	m.woken, m.rung = nil, nil
}

// completion is the attempt of a completed task, which is not in the history but in the run.
func completion(r *runRecord) driver.Attempt {
	ended := millis(r.ended)
	return driver.Attempt{Number: r.attempt, Outcome: driver.Complete, Worker: r.worker, Host: r.host, Build: r.build,
		Started: ended.Add(-time.Duration(r.ran) * time.Millisecond), Ended: ended}
}

// The ends of uniqueness as they are stored.
const (
	uniqueDone    = 1
	uniqueStarted = 2
	uniqueTTL     = 3
)

// record returns an entry as the contract has it.
func (s *Store) record(ctx context.Context, sh *shard, e *entry) (*driver.Record, error) {
	r := &driver.Record{}
	p, err := s.pairOf(ctx, sh, e.run.pair)
	if err != nil {
		return nil, err
	}
	if p != nil {
		r.Queue, r.Type = p.queue, p.typ
	}
	e.fill(r)
	return r, nil
}

// fill has all of a record but its queue and type, which the run only has the number of.
func (e *entry) fill(r *driver.Record) {
	run := &e.run
	r.ID = driver.UnpackID([]byte(e.id))
	r.Priority = run.priority
	r.State, r.EnqueuedAt = stateOf[run.state], millis(e.task.enqueued)
	r.Encoding = driver.EncodingRaw
	if e.err == nil {
		if err := driver.DecodeEnvelope([]byte(e.task.envelope), &r.Task); err == nil {
			r.Payload = []byte(e.task.payload)
		}
	}
	r.Reason, r.Attempt, r.Crashes = reasons[run.reason], run.attempt, run.crashes
	r.CancelRequested = run.flags&flagCancel != 0
	r.DueAt, r.ClaimedAt, r.EndedAt = millis(run.due), millis(run.claimed), millis(run.ended)
	r.Worker = run.worker
	if run.token != 0 {
		r.Token = makeToken(run.token, run.pair)
	}
	e.addDetails(r)
}

func appendUint64(dst []byte, v uint64) []byte { return binary.BigEndian.AppendUint64(dst, v) }

// addDetails has what can be read of history and reports: damage there must not hide the task, nor the tasks beside it.
func (e *entry) addDetails(r *driver.Record) {
	if e.hist != "" {
		_ = json.Unmarshal([]byte(e.hist), &r.Attempts)
	}
	if e.run.state == letterCompleted {
		r.Attempts = driver.AppendAttempt(r.Attempts, completion(&e.run))
	}
	if e.news != "" {
		var n news
		_ = json.Unmarshal([]byte(e.news), &n)
		r.Progress, r.Logs = n.Progress, n.Logs
	}
	if e.result != "" {
		r.ResultEncoding = encodingOf(e.result[0])
		if len(e.result) > 1 {
			r.Result = []byte(e.result[1:])
		}
	}
}

func encodingOf(b byte) driver.Encoding {
	switch b {
	case 'j':
		return driver.EncodingJSON
	case 'r':
		return driver.EncodingRaw
	}
	return ""
}

func encodingByte(e driver.Encoding) byte {
	switch e {
	case driver.EncodingJSON:
		return 'j'
	case driver.EncodingRaw:
		return 'r'
	}
	return '-'
}
