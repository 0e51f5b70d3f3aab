package driver

import "hash/fnv"

// Fair share between the keys of a queue is start-time fair queueing: P. Goyal, H. M. Vin, H. Cheng, "Start-time Fair
// Queuing: A Scheduling Algorithm for Integrated Services Packet Switching Networks", SIGCOMM 1996. Each queue has a
// virtual time V, the start tag of the task that was given out last, and each key a tag F: where its next task starts. A
// claim takes the key with the lowest tag, and among equal tags the task that has been in line longest; then
//
//	S = max(V, F)    V = S    F = S + TagUnit/weight
//
// While a key has tasks waiting, the tag of its first is the finish tag of the one before, so one tag a key says the same
// as the paper's one a task, and a key at its limit leaves the line with all its tasks in one step.
//
// Bounds, with work in tasks over weight: over any time in which two keys both have tasks waiting and are both served by
// who claims, their work differs by at most 1/w1 + 1/w2 (Theorem 1 of the paper, with tasks of length 1). A key that adds a task
// after a rest is served after at most one task of each other key, however many those have waiting. No slot is left free
// while a task may run. Tasks without a key are one more key, of weight 1.
//
// V is clamped into S when a task is given out, not only when it arrives: types share V, and the backlog of a type that
// nobody served for an hour must not go ahead of everybody else afterwards.

// TagUnit is what a task of weight 1 adds to its key's tag. It divides by every weight up to 10, so that those shares are
// exact. Tags stay under 2^53, which all engines can tell apart, for 10^11 tasks of a queue at least.
const TagUnit = 50400

// KeysResting is how many keys of a queue an engine remembers for nothing but their tag: they have no tasks, and are ahead
// of V. Where there are more, as with a new key for each task, for which V would stand still, the engine moves V on by TagUnit
// and forgets them. For a key that comes back at that moment the bound above grows by one task.
const KeysResting = 10_000

// TagArrived is the tag of a key that has a task waiting again, in a queue with this virtual time.
func TagArrived(tag, virtual int64) int64 { return max(tag, virtual) }

// TagReturned is the tag of a key that was given back a task: it is next again, and what comes after is not delayed.
func TagReturned(tag, virtual int64) int64 { return min(tag, virtual) }

// TagServed is the tag of a key after a task of this weight (0: 1) was given out, and the queue's virtual time.
func TagServed(tag, virtual int64, weight int) (newTag, newVirtual int64) {
	start := max(tag, virtual)
	return start + TagUnit/int64(max(weight, 1)), start
}

// KeyHome is what the ids of tasks with this key end with, see [NewIDWithKey].
func KeyHome(key string) uint16 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(key))
	sum := h.Sum32()
	return uint16(sum>>16 ^ sum)
}
