package driver

import (
	"encoding/binary"
	"maps"
	"slices"
	"strings"
	"time"
)

// The envelope is the stored form of what a task carries besides its ID, Type, Queue, Priority and Payload, which
// engines keep where they can index them. Version 1:
//
//	byte    version
//	uvarint set of fields that follow, a bit each, in the order of the constants below
//	…       the fields, the plan before all others: strings and bytes as uvarint length + bytes, numbers as uvarint, times as milliseconds
//
// Readers refuse versions and fields that they don't know, so that an older program never misreads a newer record.
const envelopeVersion = 1

const (
	envRaw uint64 = 1 << iota // Encoding is raw; no data
	envHeaders
	envTags
	envAt
	envExpiresAt
	envMaxAttempts
	envCrashLimit
	envTimeout
	envUnique
	envKey
	envWeight
	envDependsOn // of no use any more
	envHold      // no data
	envPlan
	envKnown = envPlan<<1 - 1
)

// AppendEnvelope appends the envelope of a prepared task (see [Prepare]) to dst.
func AppendEnvelope(dst []byte, t *Task) []byte {
	set := flag(envRaw, t.Encoding == EncodingRaw) | flag(envHeaders, len(t.Headers) > 0) | flag(envTags, len(t.Tags) > 0) |
		flag(envAt, !t.At.IsZero()) | flag(envExpiresAt, !t.ExpiresAt.IsZero()) |
		flag(envMaxAttempts, t.MaxAttempts != DefaultMaxAttempts) | flag(envCrashLimit, t.CrashLimit != DefaultCrashLimit) |
		flag(envTimeout, t.Timeout != 0) | flag(envUnique, t.Unique != nil) | flag(envKey, t.Key != "") |
		flag(envWeight, t.Weight != 0) | flag(envHold, t.Hold) | flag(envPlan, t.Plan != nil)
	return appendFields(binary.AppendUvarint(append(dst, envelopeVersion), set), set, t)
}

func flag(bit uint64, on bool) uint64 {
	if on {
		return bit
	}
	return 0
}

func appendFields(dst []byte, set uint64, t *Task) []byte {
	number := func(bit uint64, v int64) {
		if set&bit != 0 {
			dst = binary.AppendUvarint(dst, uint64(v))
		}
	}
	if set&envPlan != 0 {
		dst = appendString(appendString(appendString(dst, t.Plan.Kind), t.Plan.Name), t.Plan.Step)
	}
	if set&envHeaders != 0 {
		dst = binary.AppendUvarint(dst, uint64(len(t.Headers)))
		for _, k := range slices.Sorted(maps.Keys(t.Headers)) {
			dst = appendString(appendString(dst, k), t.Headers[k])
		}
	}
	if set&envTags != 0 {
		dst = appendStrings(dst, t.Tags)
	}
	number(envAt, t.At.UnixMilli())
	number(envExpiresAt, t.ExpiresAt.UnixMilli())
	number(envMaxAttempts, int64(t.MaxAttempts))
	number(envCrashLimit, int64(t.CrashLimit))
	number(envTimeout, int64(t.Timeout))
	if set&envUnique != 0 {
		dst = appendString(dst, t.Unique.Key)
		dst = appendString(dst, string(t.Unique.Until))
		dst = binary.AppendUvarint(dst, uint64(t.Unique.TTL))
		dst = appendString(dst, string(t.Unique.OnConflict))
	}
	if set&envKey != 0 {
		dst = appendString(dst, t.Key)
	}
	number(envWeight, int64(t.Weight))
	return dst
}

// DecodeEnvelope fills t's fields from an envelope. It returns an error that wraps [ErrCorrupt] for bytes that are no
// envelope of a known version; then t is partly filled.
func DecodeEnvelope(b []byte, t *Task) error {
	r := reader{b: b}
	if v := r.byte(); v != envelopeVersion {
		return Errorf(ErrCorrupt, "the record has format version %d, this program reads version %d", v, envelopeVersion)
	}
	set := r.uvarint()
	if set&^envKnown != 0 {
		return Errorf(ErrCorrupt, "the record has fields %#x that this program does not know", set&^envKnown)
	}
	t.Encoding, t.MaxAttempts, t.CrashLimit = EncodingJSON, DefaultMaxAttempts, DefaultCrashLimit
	r.fields(set, t)
	if r.bad || len(r.b) > 0 {
		return Errorf(ErrCorrupt, "the record's envelope is damaged")
	}
	return nil
}

func (r *reader) fields(set uint64, t *Task) {
	if set&envRaw != 0 {
		t.Encoding = EncodingRaw
	}
	t.Hold = set&envHold != 0
	if set&envPlan != 0 {
		t.Plan = &TaskPlan{PlanRef: PlanRef{Kind: r.string(), Name: r.string()}, Step: r.string()}
	}
	if set&envHeaders != 0 {
		n := r.count()
		t.Headers = make(map[string]string, min(n, foreseen))
		for i := 0; i < n && !r.bad; i++ {
			k := r.string()
			t.Headers[k] = r.string()
		}
	}
	if set&envTags != 0 {
		t.Tags = r.strings()
	}
	r.number(set&envAt, func(v uint64) { t.At = r.time(v) })
	r.number(set&envExpiresAt, func(v uint64) { t.ExpiresAt = r.time(v) })
	r.number(set&envMaxAttempts, func(v uint64) { t.MaxAttempts = int(v) })
	r.number(set&envCrashLimit, func(v uint64) { t.CrashLimit = int(v) })
	r.number(set&envTimeout, func(v uint64) { t.Timeout = time.Duration(v) })
	if set&envUnique != 0 {
		t.Unique = &Unique{Key: r.string(), Until: UniqueUntil(r.string()), TTL: time.Duration(r.uvarint()), OnConflict: OnConflict(r.string())}
	}
	if set&envKey != 0 {
		t.Key = r.string()
	}
	r.number(set&envWeight, func(v uint64) { t.Weight = int(v) })
	if set&envDependsOn != 0 {
		r.strings()
	}
}

// AppendEvents appends the packed form of events to dst: one call's events share their time, and runs of the same
// kind, queue, type and worker share those, so that a batch of a thousand costs little more than its ids.
func AppendEvents(dst []byte, events []Event) []byte {
	for i := 0; i < len(events); {
		head, n := events[i], 1
		for i+n < len(events) && sameHead(&events[i+n], &head) {
			n++
		}
		dst = binary.AppendUvarint(dst, uint64(head.Time.UnixMilli()))
		for _, s := range []string{string(head.Kind), head.Queue, head.Type, head.actor()} {
			dst = appendString(dst, s)
		}
		dst = binary.AppendUvarint(dst, uint64(n))
		for _, e := range events[i : i+n] {
			if e.ID == "" {
				dst = append(dst, 0)
				continue
			}
			at := len(dst)
			dst = PackID(append(dst, 0), e.ID)
			dst[at] = byte(len(dst) - at - 1)
		}
		i += n
	}
	return dst
}

// reasonMark begins a reason where the packed form has the worker: an event that has a reason is no worker's. No worker's id
// begins with it.
const reasonMark = "!"

// EventActor is what stands for worker and reason in the packed form of an event.
func EventActor(worker string, reason Reason) string {
	if reason != "" {
		return reasonMark + string(reason)
	}
	return worker
}

func (e *Event) actor() string { return EventActor(e.Worker, e.Reason) }

func (e *Event) setActor(s string) {
	if reason, ok := strings.CutPrefix(s, reasonMark); ok {
		e.Reason = Reason(reason)
	} else {
		e.Worker = s
	}
}

func sameHead(a, b *Event) bool {
	return a.Kind == b.Kind && a.Queue == b.Queue && a.Type == b.Type && a.Worker == b.Worker && a.Reason == b.Reason && a.Time.Equal(b.Time)
}

// DecodeEvents appends the events packed in b to dst. It returns [ErrCorrupt] for bytes that AppendEvents did not make.
func DecodeEvents(dst []Event, b []byte) ([]Event, error) {
	r := reader{b: b}
	for len(r.b) > 0 && !r.bad {
		head := Event{Time: r.time(r.uvarint()), Kind: EventKind(r.string())}
		head.Queue, head.Type = r.string(), r.string()
		head.setActor(r.string())
		for n := r.count(); n > 0 && !r.bad; n-- {
			e := head
			if id := r.take(int(r.byte())); len(id) > 0 {
				e.ID = UnpackID(id)
			}
			dst = append(dst, e)
		}
	}
	if r.bad {
		return dst, Errorf(ErrCorrupt, "an entry of the event log is damaged")
	}
	return dst, nil
}

func appendString(dst []byte, s string) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

func appendStrings(dst []byte, list []string) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(list)))
	for _, s := range list {
		dst = appendString(dst, s)
	}
	return dst
}

// reader takes fields off b; after the first that does not fit, bad is set and everything reads as zero.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) take(n int) []byte {
	if n < 0 || n > len(r.b) {
		r.bad, r.b = true, nil
		return nil
	}
	v := r.b[:n]
	r.b = r.b[n:]
	return v
}

// time is a time in milliseconds, one that a task can have.
func (r *reader) time(ms uint64) time.Time {
	if ms > uint64(maxTime.UnixMilli()) {
		r.bad = true
		return time.Time{}
	}
	return time.UnixMilli(int64(ms)).UTC()
}

func (r *reader) byte() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.bad, r.b = true, nil
		return 0
	}
	r.b = r.b[n:]
	return v
}

// foreseen is for how many items at most memory is reserved before they are read: what damaged bytes say of their number
// is not to be trusted.
const foreseen = 64

// count reads a number of items, each of at least one byte, so that damaged bytes can't ask for much memory.
func (r *reader) count() int {
	n := r.uvarint()
	if n > uint64(len(r.b)) {
		r.bad, r.b = true, nil
		return 0
	}
	return int(n)
}

func (r *reader) string() string { return string(r.take(r.count())) }

func (r *reader) strings() []string {
	n := r.count()
	list := make([]string, 0, min(n, foreseen))
	for i := 0; i < n && !r.bad; i++ {
		list = append(list, r.string())
	}
	return list
}

func (r *reader) number(set uint64, assign func(uint64)) {
	if set != 0 {
		assign(r.uvarint())
	}
}
