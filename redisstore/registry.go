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
type registry struct {
	mu          sync.RWMutex
	incarnation string
	pairs       []*pair // by number - 1
	byName      map[[2]string]*pair
	byQueue     map[string][]*pair
	configs     map[string]driver.QueueConfig
	shared      map[string]bool // queues that are shared out, see share.go
	pairVersion string
	confVersion string
}

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

func (r *registry) pair(queue, typ string) *pair {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.byName[[2]string{queue, typ}]
}

func (r *registry) byNumber(n int) *pair {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if n < 1 || n > len(r.pairs) {
		return nil
	}
	return r.pairs[n-1]
}

// ofQueue returns the pairs of a queue with one of the types, or all of them, in the order of their numbers.
func (r *registry) ofQueue(queue string, types []string) []*pair {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if len(types) == 0 {
		return r.byQueue[queue] // only ever appended to
	}
	var list []*pair
	for i, t := range types {
		if p := r.byName[[2]string{queue, t}]; p != nil && !slices.Contains(types[:i], t) {
			list = append(list, p)
		}
	}
	return list
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
		w.seen = make([]bool, len(sh.known.all())+1)
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
			w.rest = w.sh.known.ofQueue(w.queues[w.at], w.types)
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

func (r *registry) all() []*pair {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.pairs
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
	names := make([]string, 0, len(r.byQueue)+len(r.configs))
	for q := range r.byQueue {
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
func (r *registry) everUsed(queue string, stat map[string]int) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	_, configured := r.configs[queue]
	return configured || slices.ContainsFunc(r.byQueue[queue], func(p *pair) bool { return stat[countEverEnqueued+p.digits] > 0 })
}

// refresh reads what has changed in a shard since the last time.
func (s *Store) refresh(ctx context.Context, sh *shard) error {
	r := &sh.known
	r.mu.RLock()
	have := len(r.pairs)
	r.mu.RUnlock()
	reply, err := s.call(ctx, s.control, sh, registryScript, sh.keysOf(registryScript, ""), []string{strconv.Itoa(have)})
	if err != nil {
		return err
	}
	parts, err := reply.ToArray()
	if err != nil || len(parts) != 5 {
		return driver.Errorf(driver.ErrUnavailable, "%s gave an unexpected reply", s.where)
	}
	incarnation, _ := parts[0].ToString()
	pairVersion, _ := parts[1].ToString()
	confVersion, _ := parts[2].ToString()
	names, _ := parts[3].AsStrSlice()
	confs, _ := parts[4].AsStrSlice()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.incarnation != incarnation {
		return scriptErrors["WAGGLELOST"]
	}
	if since := len(r.pairs) - have; since < len(names) || since == 0 { // another call may have added some of them, or more
		sh.addPairs(names[since:])
		r.pairVersion = pairVersion
	}
	r.confVersion = confVersion
	r.configs = make(map[string]driver.QueueConfig, len(confs)/2) // those of deleted queues are gone
	r.shared = map[string]bool{}
	for i := 0; i+1 < len(confs); i += 2 {
		if queue, ok := strings.CutSuffix(confs[i], sharedMark); ok {
			r.shared[queue] = true
			continue
		}
		var c driver.QueueConfig
		if err := json.Unmarshal([]byte(confs[i+1]), &c); err != nil {
			return driver.Errorf(driver.ErrCorrupt, "the configuration of queue %s is damaged: set it again", confs[i])
		}
		r.configs[confs[i]] = c
	}
	return nil
}

func (sh *shard) addPairs(names []string) {
	r := &sh.known
	for _, name := range names {
		queue, typ, _ := strings.Cut(name, "\x00")
		p := sh.newPair(len(r.pairs)+1, queue, typ)
		r.pairs = append(r.pairs, p)
		r.byName[[2]string{queue, typ}] = p
		r.byQueue[queue] = append(r.byQueue[queue], p)
	}
}

// intern gives numbers to the pairs of tasks that have none yet.
func (s *Store) intern(ctx context.Context, sh *shard, tasks []*newTask) error {
	var missing []string
	for _, t := range tasks {
		if sh.known.pair(t.task.Queue, t.task.Type) == nil {
			if name := t.task.Queue + "\x00" + t.task.Type; !slices.Contains(missing, name) {
				missing = append(missing, name)
			}
		}
	}
	if len(missing) == 0 {
		return nil
	}
	if n := len(sh.known.all()) + len(missing); n > maxPairs {
		return driver.Errorf(driver.ErrStoreFull, "the store knows %d pairs of queue and type, more are not possible", maxPairs)
	}
	if _, err := s.script(ctx, s.control, sh, internScript, sh.keysOf(internScript, ""), s.head(sh, "", ""), missing); err != nil {
		return err
	}
	return s.refresh(ctx, sh)
}

// pairOf returns the pair with that number, which a record or token carries, or nil if there is none.
func (s *Store) pairOf(ctx context.Context, sh *shard, number int) (*pair, error) {
	if p := sh.known.byNumber(number); p != nil || number < 1 {
		return p, nil
	}
	if err := s.refresh(ctx, sh); err != nil {
		return nil, err
	}
	return sh.known.byNumber(number), nil
}
