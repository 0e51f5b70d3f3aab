package redisstore

import (
	"strconv"
	"strings"
)

// shard is one hash slot with a complete queue in it. All its keys share a prefix with the slot's tag.
type shard struct {
	number int
	prefix string
	known  registry
	fixed  map[*script][]string // keys of the scripts that need no worker
	tended tended
}

func newShard(namespace string, number int) *shard {
	return &shard{number: number, prefix: "waggle:{" + namespace + "." + strconv.Itoa(number) + "}:", fixed: map[*script][]string{}}
}

// key returns the full name of a key.
func (sh *shard) key(name string) string { return sh.prefix + name }

// keysOf returns the fixed keys of a script. worker stands for WORKER in their names.
func (sh *shard) keysOf(sc *script, worker string) []string {
	keys := make([]string, len(sc.keys), len(sc.keys)+16)
	for i, name := range sc.keys {
		if before, ok := strings.CutSuffix(name, "WORKER"); ok {
			name = before + worker
		}
		keys[i] = sh.prefix + name
	}
	return keys
}

// The keys of a pair, of a queue, of a pair that may not have a number yet, and of a worker.
func (sh *shard) lineKey(pair int) string { return sh.prefix + "line/" + strconv.Itoa(pair) }
func (sh *shard) backKey(pair int) string { return sh.prefix + "back/" + strconv.Itoa(pair) }
func (sh *shard) dueKey(pair int) string  { return sh.prefix + "due/" + strconv.Itoa(pair) }
func (sh *shard) expKey(pair int) string  { return sh.prefix + "exp/" + strconv.Itoa(pair) }

func (sh *shard) keptKey(state byte, queue string) string {
	return sh.prefix + "kept/" + string(state) + "/" + queue
}

// wakeKey names the list of wake tokens of a pair; with an empty type that of the workers of all types.
func (sh *shard) wakeKey(queue, typ string) string { return sh.prefix + "wake/" + queue + "/" + typ }

func (sh *shard) heldKey(worker string) string   { return sh.prefix + "held/" + worker }
func (sh *shard) cancelKey(worker string) string { return sh.prefix + "cancel/" + worker }
func (sh *shard) ctlKey(worker string) string    { return sh.prefix + "ctl/" + worker }
func (sh *shard) tickKey(worker string) string   { return sh.prefix + "tick/" + worker }

// pairKeys appends the keys that enqueue, fetch and promote want for each pair, in their order.
func (sh *shard) pairKeys(keys []string, p *pair) []string {
	return append(keys, p.line, p.back, p.due, p.exp, p.wake, p.wakeAll)
}
