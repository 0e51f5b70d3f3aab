package redisstore

import (
	"encoding/binary"
	"math"
	"slices"
	"time"

	"github.com/waggleq/waggle/driver"
)

//go:generate go generate ./internal/layout

// How records are laid out, their flags and the letters of states are in internal/layout, from which layout_gen.go and the
// accessors of the scripts are made.

var letterOf = map[driver.State]byte{
	driver.Scheduled: letterScheduled, driver.Pending: letterPending, driver.Available: letterAvailable,
	driver.Active: letterActive, driver.Retryable: letterRetryable, driver.Completed: letterCompleted,
	driver.Cancelled: letterCancelled, driver.Discarded: letterDiscarded,
}

var stateOf = func() map[byte]driver.State {
	m := make(map[byte]driver.State, len(letterOf))
	for s, b := range letterOf {
		m[b] = s
	}
	return m
}()

// reasons are stored by their place in this list, which only grows.
var reasons = []driver.Reason{"", driver.ReasonAttempts, driver.ReasonCrashes, driver.ReasonHandler, driver.ReasonExpired,
	driver.ReasonRequested, driver.ReasonReplaced, driver.ReasonUndecodable, driver.ReasonDependency, driver.ReasonDropped}

const (
	flagsImmutable = flagExpires | flagUniqueDone | flagUniqueStart | flagPlan | flagKeyed
	pairBits       = 22 // of a token are the pair's number
	maxPairs       = 1<<pairBits - 1
	maxMillis      = 253402300799999 // the last of the year 9999, which JSON can tell
	maxRan         = math.MaxInt64 / int64(time.Millisecond)
)

// taskRecord is the part of a task that never changes: TASK, or LATER if it expires.
type taskRecord struct {
	enqueued int64
	seq      int64
	flags    byte
	pair     int
	priority int
	expires  int64
	envelope string
	key      string // of its queue's share; empty: none
	payload  string
}

// appendBody appends the record from its flags on; the enqueue script puts the rest before it.
func appendBody(dst []byte, t *driver.Task, pair int, envelope []byte) []byte {
	flags := byte(0)
	if !t.ExpiresAt.IsZero() {
		flags |= flagExpires
	}
	if t.Unique != nil && t.Unique.Until == driver.UntilDone {
		flags |= flagUniqueDone
	}
	if t.Unique != nil && t.Unique.Until == driver.UntilStarted {
		flags |= flagUniqueStart
	}
	if t.Plan != nil {
		flags |= flagPlan
	}
	if t.Key != "" {
		flags |= flagKeyed
		envelope = appendKey(envelope, t)
	}
	dst = append(dst, flags, byte(pair>>16), byte(pair>>8), byte(pair), byte(t.Priority+storedPlain))
	if flags&flagExpires != 0 {
		dst = appendUint48(dst, t.ExpiresAt.UnixMilli())
	}
	n := len(envelope)
	dst = append(dst, byte(n>>16), byte(n>>8), byte(n))
	return append(append(dst, envelope...), t.Payload...)
}

// appendKey puts key and weight behind the envelope, where scripts find them.
func appendKey(envelope []byte, t *driver.Task) []byte {
	envelope = append(envelope, t.Key...)
	return append(envelope, byte(t.Weight>>8), byte(t.Weight), byte(len(t.Key)))
}

// cutKey takes them off again.
func (t *taskRecord) cutKey() bool {
	const tail = 3
	n := len(t.envelope) - tail
	if n < 0 || int(t.envelope[n+2]) > n {
		return false
	}
	from := n - int(t.envelope[n+2])
	t.key, t.envelope = t.envelope[from:n], t.envelope[:from]
	return true
}

func parseTask(s string) (taskRecord, error) {
	var t taskRecord
	if len(s) < taskHead {
		return t, errDamaged
	}
	t.enqueued, t.seq, t.flags = uint48(s[taskEnqueued:]), uint48(s[taskSeq:]), s[taskFlags]
	t.pair, t.priority = uint24(s[taskPair:]), int(s[taskPriority])-storedPlain
	if !possible(t.pair, t.priority, t.enqueued) { // what is left can be written again when the task is discarded
		return taskRecord{seq: t.seq, flags: t.flags & flagsImmutable &^ (flagExpires | flagKeyed)}, errDamaged
	}
	n, at := uint24(s[taskEnvelope:]), taskHead
	if t.flags&flagExpires != 0 {
		if len(s) < laterHead {
			return t, errDamaged
		}
		t.expires = uint48(s[laterExpires:])
		n, at = uint24(s[laterEnvelope:]), laterHead
	}
	if n > len(s)-at || t.expires > maxMillis {
		t.expires = 0
		return t, errDamaged
	}
	t.envelope, t.payload = s[at:at+n], s[at+n:]
	if t.flags&flagKeyed != 0 && !t.cutKey() {
		return t, errDamaged
	}
	return t, nil
}

// runRecord is the part of a task that changes: RUN, SHORT or DONE.
type runRecord struct {
	state    byte
	flags    byte
	reason   byte
	priority int
	pair     int
	order    int64
	due      int64
	token    int64 // without the pair
	claimed  int64
	expires  int64
	attempt  int
	crashes  int
	ended    int64
	ran      int64
	size     int
	worker   string
	host     string
	build    string
}

func (r *runRecord) append(dst []byte) []byte {
	dst = append(dst, r.state, r.flags, byte(r.pair>>16), byte(r.pair>>8), byte(r.pair), byte(r.priority+storedPlain), r.reason)
	for _, v := range []int64{r.due, r.order, r.token, r.claimed, r.expires} {
		dst = appendUint48(dst, v)
	}
	dst = binary.BigEndian.AppendUint32(dst, uint32(r.attempt))
	dst = binary.BigEndian.AppendUint32(dst, uint32(r.crashes))
	dst = appendUint48(appendUint48(dst, r.ended), r.ran)
	dst = binary.BigEndian.AppendUint32(dst, uint32(min(r.size, math.MaxUint32)))
	dst = appendShort(dst, r.worker)
	if r.host != "" || r.build != "" || r.state == letterCompleted {
		dst = appendShort(appendShort(dst, r.host), r.build)
	}
	return dst
}

// parseRun reads the run of a task whose record is t.
func parseRun(s string, t *taskRecord) (runRecord, error) {
	if len(s) > runFlags && s[runFlags]&flagShort != 0 {
		return parseShortRun(s, t)
	}
	if len(s) <= runHead {
		return runRecord{}, errDamaged
	}
	r := runRecord{
		state: s[runState], flags: s[runFlags], pair: uint24(s[runPair:]), priority: int(s[runPriority]) - storedPlain, reason: s[runReason],
		due: uint48(s[runDue:]), order: uint48(s[runOrder:]), token: uint48(s[runToken:]), claimed: uint48(s[runClaimed:]),
		expires: uint48(s[runExpires:]), attempt: uint32s(s[runAttempt:]), crashes: uint32s(s[runCrashes:]), ended: uint48(s[runEnded:]),
		ran: uint48(s[runRan:]), size: uint32s(s[runSize:]),
	}
	if !r.readTail(s[runHead:]) || stateOf[r.state] == "" || int(r.reason) >= len(reasons) || !r.possible() {
		return r, errDamaged
	}
	return r, nil
}

// parseShortRun reads SHORT, or DONE, which begins like it.
func parseShortRun(s string, t *taskRecord) (runRecord, error) {
	state, head := s[shortState], shortHead
	if state == letterCompleted {
		head = doneHead
	}
	if len(s) <= head || state != letterActive && state != letterCompleted {
		return runRecord{}, errDamaged
	}
	r := runRecord{
		state: state, flags: s[shortFlags] &^ flagShort, pair: uint24(s[shortPair:]), priority: t.priority, order: t.seq, due: t.enqueued,
		token: uint48(s[shortToken:]), claimed: uint48(s[shortClaimed:]), expires: t.expires, attempt: 1, size: uint32s(s[shortSize:]),
	}
	if state == letterCompleted {
		r.ended, r.ran = uint48(s[doneEnded:]), uint48(s[doneRan:])
	}
	if !r.readTail(s[head:]) || !r.possible() {
		return r, errDamaged
	}
	return r, nil
}

// possible reports whether a store gives out such numbers.
func (r *runRecord) possible() bool {
	return r.ran <= maxRan && possible(r.pair, r.priority, r.due, r.claimed, r.expires, r.ended)
}

func possible(pair, priority int, times ...int64) bool {
	return pair <= maxPairs && priority <= driver.MaxPriority && slices.Max(times) <= maxMillis
}

// readTail reads worker, host and build as far as they are there; false if that is not all there is.
func (r *runRecord) readTail(rest string) bool {
	ok := true
	for _, field := range []*string{&r.worker, &r.host, &r.build} {
		if rest == "" {
			break
		}
		if *field, rest, ok = cutShort(rest); !ok {
			return false
		}
	}
	return rest == ""
}

// firstClaim is the run of a task that is claimed for the first time.
func firstClaim(t *taskRecord, token, claimed int64) runRecord {
	r := freshRun(t)
	r.state, r.token, r.claimed, r.attempt = letterActive, token, claimed, 1
	return r
}

// freshRun is the run of a task that has none.
func freshRun(t *taskRecord) runRecord {
	return runRecord{state: letterAvailable, flags: t.flags & flagsImmutable, priority: t.priority, pair: t.pair, order: t.seq,
		due: t.enqueued, expires: t.expires, size: len(t.payload)}
}

var errDamaged = driver.Errorf(driver.ErrCorrupt, "the task's stored record is damaged")

func appendUint48(dst []byte, v int64) []byte {
	return append(dst, byte(v>>40), byte(v>>32), byte(v>>24), byte(v>>16), byte(v>>8), byte(v))
}

func uint48(s string) int64 {
	return int64(s[0])<<40 | int64(s[1])<<32 | int64(s[2])<<24 | int64(s[3])<<16 | int64(s[4])<<8 | int64(s[5])
}

func uint24(s string) int { return int(s[0])<<16 | int(s[1])<<8 | int(s[2]) }

func uint32s(s string) int { return int(s[0])<<24 | int(s[1])<<16 | int(s[2])<<8 | int(s[3]) }

// appendShort appends a string of at most 255 bytes with its length; longer ones are cut.
func appendShort(dst []byte, s string) []byte {
	s = s[:min(len(s), 255)]
	return append(append(dst, byte(len(s))), s...)
}

func cutShort(s string) (field, rest string, ok bool) {
	n := int(s[0])
	if n > len(s)-1 {
		return "", "", false
	}
	return s[1 : 1+n], s[1+n:], true
}

// makeToken puts the pair's number behind the count of a claim, so that a settlement names the keys it needs.
func makeToken(count int64, pair int) driver.Token {
	return driver.Token(count<<pairBits | int64(pair))
}

func splitToken(t driver.Token) (count int64, pair int) {
	return int64(t) >> pairBits, int(t & maxPairs)
}

func millis(v int64) time.Time {
	if v == 0 {
		return time.Time{}
	}
	return time.UnixMilli(v).UTC()
}

// ceilMillis is d in milliseconds, rounded up, so that nothing starts early.
func ceilMillis(d time.Duration) int64 {
	return int64((d + time.Millisecond - 1) / time.Millisecond)
}
