package redisstore

import (
	"strconv"
	"sync"

	"github.com/redis/rueidis"
)

// Keys of a queue that are in different shards share it by their weights as those of one shard do: by their tags, see
// docs/decisions/0008. A worker takes from the shard first in which the first task has the lowest tag, and only so far that its tags
// are mostSteps ahead of those of the next shard, and carries the tag that all have reached to every shard that it asks: no
// key that was idle begins below. So two keys that always have tasks differ by at most that, and what one claim brings, whatever
// shards they are in.

// mostSteps is by how many tasks of weight 1 a shard may be ahead of the next. Where shards have few tasks within a step, a worker
// takes several steps at once, so that it does not ask a shard for each task.
const mostSteps = 16

// leftover is what is known of the tasks that a fetch has left in a shard.
type leftover struct {
	urgency urgency
	tag     int64 // of the first of them; -1: it has none
	capped  bool  // they were left because their turn had not come
	plain   bool  // some have no key, in a queue in which others have
}

// turn is how far a shard's turn goes.
type turn struct {
	tag     int64 // of its first task, as far as is known
	urgency urgency
	end     int64 // what is as urgent, or less, and has this tag, or more, is left; 0: none
}

// add notes what a script has said of the tasks that it left.
func (l *leftover) add(u urgency, tag, capped rueidis.RedisMessage) {
	t, err := tag.AsInt64()
	if err != nil {
		t = -1
	}
	if before := l.urgency; before == 0 || u != 0 && u < before {
		l.tag = t
	}
	l.urgency = l.urgency.or(u)
	n, _ := capped.AsInt64()
	l.capped = l.capped || n&1 != 0
	l.plain = l.plain || n&2 != 0
}

// turnArgs is what the fetch script is told of a queue: the tag that all have reached, urgency and tag at which the turn ends, what a task
// without a key adds to the tag of those: they are one more key, in whatever number of shards they are.
func (f *fetchCall) turnArgs(queue string) []string {
	if len(f.s.shards) == 1 {
		return []string{"0", "0", "0", strconv.Itoa(storedTag)}
	}
	tag, plain := f.s.fair.reached(queue)
	return []string{strconv.FormatInt(tag, 10), strconv.Itoa(int(f.turn.urgency) - 1), strconv.FormatInt(f.turn.end, 10), strconv.Itoa(plain * storedTag)}
}

// fair is what a program knows of how far queues have come.
type fair struct {
	mu    sync.Mutex
	tags  map[string]int64
	plain map[string]int // in how many shards tasks without a key wait
}

// notePlain notes in how many shards tasks without a key wait.
func (f *fair) notePlain(queue string, left []leftover) {
	n := 0
	for _, l := range left {
		if l.plain {
			n++
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.plain == nil {
		f.plain = map[string]int{}
	}
	f.plain[queue] = n
}

func (f *fair) reached(queue string) (tag int64, plain int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.tags[queue], max(f.plain[queue], 1)
}

// raise notes that no shard has tasks of a queue with a lower tag.
func (f *fair) raise(queue string, tag int64) {
	if tag <= 0 {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.tags == nil {
		f.tags = map[string]int64{}
	}
	f.tags[queue] = max(f.tags[queue], tag)
}

// next takes the shard that is to be asked next, nil if none is known to have tasks.
func (r *rounds) next() (*shard, turn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.busy) == 0 {
		return nil, turn{}
	}
	sh := r.busy[0]
	r.busy = r.busy[1:]
	t := turn{tag: r.tags[sh.number], urgency: r.urgency[sh.number]}
	if len(r.busy) > 0 && t.urgency != 0 && t.tag >= 0 {
		if other := r.busy[0].number; r.urgency[other] == t.urgency && r.tags[other] >= 0 {
			r.steps = max(r.steps, 1)
			t.end = r.tags[other] + int64(r.steps)*storedTag
		}
	}
	return sh, t
}

// pace has the next turns be longer or shorter, after one that has brought n of the tasks wanted.
func (r *rounds) pace(n, want int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch even := want / (len(r.busy) + 1); {
	case n < even/2 || n == 0:
		r.steps = min(2*r.steps, mostSteps)
	case n > even:
		r.steps = max(r.steps/2, 1)
	}
}
