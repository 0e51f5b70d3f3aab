package redisstore

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"iter"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/waggleq/waggle/driver"
)

// pair is a queue and a type. Its number never changes and stands for it in records and keys.
type pair struct {
	number      int
	digits      string
	queue, typ  string
	subject     string // both, as they stand in the event log
	line, back  string // keys
	due, exp    string
	wake        string
	wakeAll     string
	keptOfState map[byte]string
}

// registry is what a program keeps in memory of a shard: the numbers of pairs and the configurations of queues. Scripts
// compare its versions with the store's and refuse to run if it is out of date, so it is never wrong where it matters.
//
// Pairs are read as names and made out when they are asked for: a command that wants one queue of ten thousand pays for one.
type registry struct {
	mu          sync.RWMutex
	incarnation string
	names       []string // queue, NUL, type, by number - 1
	pairs       []*pair  // likewise, nil where nobody has asked yet
	searched    int      // how often names were gone through for want of an index
	indexed     int      // how many of the names are in the maps
	byName      map[string]*pair
	byQueue     map[string][]*pair
	configs     map[string]driver.QueueConfig
	revisions   map[string]int64 // of configs, see settings.go
	shared      map[string]bool  // queues that are shared out, see share.go
	pairVersion string
	confVersion string
	agreement   [2]string // versions of the hub's configurations and of these that were found to be the same
}

// fewSearches is how often names are gone through before they get an index.
const fewSearches = 3

func (sh *shard) newPair(number int, queue, typ string) *pair {
	p := &pair{
		number: number, digits: strconv.Itoa(number), queue: queue, typ: typ, subject: subject(queue, typ),
		line: sh.lineKey(number), back: sh.backKey(number), due: sh.dueKey(number), exp: sh.expKey(number),
		wake: sh.wakeKey(queue, typ), wakeAll: sh.wakeKey(queue, ""), keptOfState: map[byte]string{},
	}
	for _, state := range []byte{letterCompleted, letterCancelled, letterDiscarded} {
		p.keptOfState[state] = sh.keptKey(state, queue)
	}
	return p
}

// subject is a queue and a type as they stand in the event log: see driver.AppendEvents.
func subject(queue, typ string) string {
	b := binary.AppendUvarint(nil, uint64(len(queue)))
	b = append(b, queue...)
	b = binary.AppendUvarint(b, uint64(len(typ)))
	return string(append(b, typ...))
}

// versions returns the incarnation and the versions that are known.
func (r *registry) versions() (incarnation, pairs, conf string) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.incarnation, r.pairVersion, r.confVersion
}

func (sh *shard) pair(queue, typ string) *pair {
	r, name := &sh.known, queue+"\x00"+typ
	r.mu.RLock()
	p, there := r.byName[name]
	r.mu.RUnlock()
	if there {
		return p
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if sh.index() {
		return r.byName[name]
	}
	if i := slices.Index(r.names, name); i >= 0 {
		return sh.at(i)
	}
	return nil
}

func (sh *shard) byNumber(n int) *pair {
	r := &sh.known
	r.mu.RLock()
	if n < 1 || n > len(r.pairs) {
		r.mu.RUnlock()
		return nil
	}
	p := r.pairs[n-1]
	r.mu.RUnlock()
	if p != nil {
		return p
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return sh.at(n - 1)
}

// ofQueue returns the pairs of a queue with one of the types, or all of them, in the order of their numbers.
func (sh *shard) ofQueue(queue string, types []string) []*pair {
	if len(types) == 0 {
		return sh.allOfQueue(queue)
	}
	var list []*pair
	for i, t := range types {
		if p := sh.pair(queue, t); p != nil && !slices.Contains(types[:i], t) {
			list = append(list, p)
		}
	}
	return list
}

func (sh *shard) allOfQueue(queue string) []*pair {
	r := &sh.known
	r.mu.RLock()
	list, indexed := r.byQueue[queue], r.indexed == len(r.names)
	r.mu.RUnlock()
	if indexed {
		return list // only ever appended to
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if sh.index() {
		return r.byQueue[queue]
	}
	list = nil
	for i, name := range r.names {
		if strings.HasPrefix(name, queue) && strings.HasPrefix(name[len(queue):], "\x00") {
			list = append(list, sh.at(i))
		}
	}
	return list
}

// at returns the pair at an index, which must be there. mu is held for writing.
func (sh *shard) at(i int) *pair {
	r := &sh.known
	if r.pairs[i] == nil {
		queue, typ, _ := strings.Cut(r.names[i], "\x00")
		r.pairs[i] = sh.newPair(i+1, queue, typ)
	}
	return r.pairs[i]
}

// index brings the maps up to the names, unless there was little cause for it yet. It reports whether they are. mu is held for
// writing.
func (sh *shard) index() bool {
	r := &sh.known
	if r.searched++; r.searched <= fewSearches && r.indexed == 0 && len(r.names) > directPairs {
		return len(r.names) == 0
	}
	for ; r.indexed < len(r.names); r.indexed++ {
		p := sh.at(r.indexed)
		r.byName[r.names[r.indexed]] = p
		r.byQueue[p.queue] = append(r.byQueue[p.queue], p)
	}
	return true
}

// served walks through the pairs that a worker serves, in the order of its queues, each once.
type served struct {
	sh            *shard
	queues, types []string
	at            int     // the next queue
	rest          []*pair // of the queue before it
	seen          []bool  // by number; nil if there is one queue
}

func (sh *shard) serve(queues, types []string) *served {
	w := &served{sh: sh, queues: queues, types: types}
	if len(queues) > 1 {
		w.seen = make([]bool, sh.known.size()+1)
	}
	w.step()
	return w
}

// step goes to the next pair if there is one.
func (w *served) step() {
	for {
		for len(w.rest) == 0 {
			if w.at == len(w.queues) {
				return
			}
			w.rest = w.sh.ofQueue(w.queues[w.at], w.types)
			w.at++
		}
		n := w.rest[0].number
		if w.seen == nil || n < len(w.seen) && !w.seen[n] { // one that came meanwhile is for the next time
			return
		}
		w.rest = w.rest[1:]
	}
}

func (w *served) done() bool { return len(w.rest) == 0 }

// next returns the next pair and the index of its queue. There must be one.
func (w *served) next() (p *pair, queue int) {
	p, queue = w.rest[0], w.at-1
	if w.seen != nil {
		w.seen[p.number] = true
	}
	w.rest = w.rest[1:]
	w.step()
	return p, queue
}

// fewPairs cuts a list where it gets to more than mostPairs different pairs, so that no script takes long.
func fewPairs[T any, P comparable](list []T, pairOf func(T) P) iter.Seq[[]T] {
	return func(yield func([]T) bool) {
		from, seen := 0, make(map[P]struct{}, 4)
		for i, t := range list {
			p := pairOf(t)
			if _, again := seen[p]; again {
				continue
			}
			if len(seen) == mostPairs {
				if !yield(list[from:i]) {
					return
				}
				from = i
				clear(seen)
			}
			seen[p] = struct{}{}
		}
		if from < len(list) {
			yield(list[from:])
		}
	}
}

func (sh *shard) allPairs() []*pair {
	r := &sh.known
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.pairs {
		sh.at(i)
	}
	return r.pairs[:len(r.pairs):len(r.pairs)]
}

func (r *registry) size() int {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return len(r.names)
}

func (r *registry) config(queue string) driver.QueueConfig {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if c, ok := r.configs[queue]; ok {
		return c
	}
	return driver.QueueConfig{Retention: driver.DefaultRetention()}
}

// queues returns the names of all queues that have a pair or a configuration, sorted.
func (r *registry) queues() []string {
	r.mu.RLock()
	defer r.mu.RUnlock()
	names := make([]string, 0, len(r.names)+len(r.configs))
	for _, name := range r.names {
		q, _, _ := strings.Cut(name, "\x00")
		names = append(names, q)
	}
	for q := range r.configs {
		names = append(names, q)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// everUsed reports whether a queue has a configuration or ever held a task: pairs get their numbers before their first
// task is accepted, which then may be refused.
func (sh *shard) everUsed(queue string, stat map[string]int) bool {
	sh.known.mu.RLock()
	_, configured := sh.known.configs[queue]
	sh.known.mu.RUnlock()
	return configured || slices.ContainsFunc(sh.allOfQueue(queue), func(p *pair) bool { return stat[countEverEnqueued+p.digits] > 0 })
}

// refresh reads what has changed in a shard since the last time. Versions are read before what they are of: what comes
// between them is read once more, and nothing is missed.
func (s *Store) refresh(ctx context.Context, sh *shard) error {
	r := &sh.known
	r.mu.RLock()
	have, conf := len(r.names), r.confVersion
	r.mu.RUnlock()
	if s.closed() {
		return driver.ErrClosed
	}
	bounded, cancel := s.bounded(ctx, s.timeout)
	defer cancel()
	b := s.control.B
	var versions, names []string
	var confs map[string]string
	read := func() (err error) {
		replies := s.control.DoMulti(bounded, b().Hmget().Key(sh.key("meta")).Field("inc", "pairs", "conf").Build(),
			b().Lrange().Key(sh.key("pairs")).Start(int64(have)).Stop(-1).Build())
		if versions, err = replies[0].AsStrSlice(); err == nil {
			names, err = replies[1].AsStrSlice()
		}
		if err == nil && len(versions) == 3 && versions[2] != conf && versions[2] != "0" {
			confs, err = s.control.Do(bounded, b().Hgetall().Key(sh.key("conf")).Build()).AsStrMap()
		}
		return err
	}
	err := repeated(bounded, read)
	if connectionLost(bounded, err) {
		err = read()
	}
	if err != nil {
		return s.ended(bounded, err)
	}
	if len(versions) != 3 {
		return driver.Errorf(driver.ErrUnavailable, "%s gave an unexpected reply", s.where)
	}
	return sh.learn(have, conf, versions, names, confs)
}

// learn takes what was read when have names and a version of the configurations were known.
func (sh *shard) learn(have int, conf string, versions, names []string, confs map[string]string) error {
	r := &sh.known
	incarnation, pairVersion, confVersion := versions[0], versions[1], versions[2]
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.incarnation != incarnation {
		return scriptErrors["WAGGLELOST"]
	}
	if since := len(r.names) - have; since < len(names) || since == 0 { // another call may have added some of them, or more
		r.names = append(r.names, names[since:]...)
		r.pairs = append(r.pairs, make([]*pair, len(names)-since)...)
		r.pairVersion = pairVersion
	}
	if confVersion == conf || confVersion == r.confVersion {
		return nil
	}
	configs, revisions, shared := make(map[string]driver.QueueConfig, len(confs)), map[string]int64{}, map[string]bool{} // those of deleted queues are gone
	for queue, text := range confs {
		if queue, ok := strings.CutSuffix(queue, sharedMark); ok {
			shared[queue] = true
			continue
		}
		var c setting
		if err := json.Unmarshal([]byte(text), &c); err != nil {
			return driver.Errorf(driver.ErrCorrupt, "the configuration of queue %s is damaged: set it again", queue)
		}
		configs[queue] = c.QueueConfig
		if c.Revision > 0 {
			revisions[queue] = c.Revision
		}
	}
	r.configs, r.revisions, r.shared, r.confVersion = configs, revisions, shared, confVersion
	return nil
}

// intern gives numbers to the pairs of tasks that have none yet.
func (s *Store) intern(ctx context.Context, sh *shard, tasks []*newTask) error {
	var missing []string
	for _, t := range tasks {
		if sh.pair(t.task.Queue, t.task.Type) == nil {
			if name := t.task.Queue + "\x00" + t.task.Type; !slices.Contains(missing, name) {
				missing = append(missing, name)
			}
		}
	}
	if len(missing) == 0 {
		return nil
	}
	if n := sh.known.size() + len(missing); n > maxPairs {
		return driver.Errorf(driver.ErrStoreFull, "the store knows %d pairs of queue and type, which is the most possible", maxPairs)
	}
	if _, err := s.script(ctx, s.control, sh, internScript, sh.keysOf(internScript, ""), s.head(sh, "", ""), missing); err != nil {
		return err
	}
	return s.refresh(ctx, sh)
}

// pairOf returns the pair with that number, which a record or token carries, or nil if there is none.
func (s *Store) pairOf(ctx context.Context, sh *shard, number int) (*pair, error) {
	if p := sh.byNumber(number); p != nil || number < 1 {
		return p, nil
	}
	if err := s.refresh(ctx, sh); err != nil {
		return nil, err
	}
	return sh.byNumber(number), nil
}
