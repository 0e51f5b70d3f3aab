package driver

import (
	"errors"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"
)

func full() *Task {
	at := time.UnixMilli(1_800_000_000_123).UTC()
	return &Task{
		ID: PlanTaskID(PlanRef{"workflow", "order-7"}, "brew"), Type: "email.welcome", Queue: "mail", Encoding: EncodingRaw, Payload: []byte{0, 1},
		Headers: map[string]string{"a": "1", "b": "ü"}, Tags: []string{"x", "y"}, Priority: -7,
		At: at, ExpiresAt: at.Add(time.Hour), Hold: true, MaxAttempts: 3, CrashLimit: 2, Timeout: time.Minute,
		Unique: &Unique{Key: "k", Until: UntilTTL, TTL: time.Hour, OnConflict: ConflictReplace},
		Key:    "tenant", Weight: 4, Plan: &TaskPlan{PlanRef{"workflow", "order-7"}, "brew"},
	}
}

var allCaps = Capabilities{Engine: "test", Durability: Durabilities, DefaultDurability: DurabilityDisk,
	Keys: true, Limits: true, Plans: true, Limit: Limits{MaxPayload: 1 << 20, MaxBatch: 1000, MaxBatchBytes: 8 << 20}}

func TestEnvelopeRoundTrip(t *testing.T) {
	t.Parallel()
	for name, task := range map[string]*Task{"full": full(), "plain": {Type: "t", Encoding: EncodingJSON, MaxAttempts: 25, CrashLimit: 5}} {
		b := AppendEnvelope(nil, task)
		got := Task{ID: task.ID, Type: task.Type, Queue: task.Queue, Priority: task.Priority, Payload: task.Payload}
		if err := DecodeEnvelope(b, &got); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if !reflect.DeepEqual(&got, task) {
			t.Errorf("%s: got %+v, want %+v", name, got, *task)
		}
		for n := range b {
			if err := DecodeEnvelope(b[:n], new(Task)); !errors.Is(err, ErrCorrupt) {
				t.Errorf("%s cut to %d bytes: got %v, want ErrCorrupt", name, n, err)
			}
		}
	}
}

func TestEnvelopeRefusesTheUnknown(t *testing.T) {
	t.Parallel()
	for name, b := range map[string][]byte{"empty": nil, "newer version": {2, 0}, "unknown field": {1, 0x80, 0x80, 0x01}, "rest": {1, 0, 0}} {
		if err := DecodeEnvelope(b, new(Task)); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: got %v, want ErrCorrupt", name, err)
		}
	}
}

func TestEventsRoundTrip(t *testing.T) {
	t.Parallel()
	at := time.UnixMilli(1_800_000_000_123).UTC()
	want := []Event{
		{Time: at, Kind: "available", ID: NewID(), Queue: "q", Type: "t"},
		{Time: at, Kind: "available", ID: "own-id", Queue: "q", Type: "t"},
		{Time: at, Kind: "active", ID: NewID(), Queue: "q", Type: "t", Worker: "w"},
		{Time: at.Add(time.Second), Kind: EventQueueChanged, Queue: "q"},
	}
	b := AppendEvents(nil, want)
	got, err := DecodeEvents(nil, b)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("got %+v, %v", got, err)
	}
	if _, err := DecodeEvents(nil, b[:len(b)-1]); !errors.Is(err, ErrCorrupt) {
		t.Errorf("cut short: got %v, want ErrCorrupt", err)
	}
}

func TestNewIDGrowsAndPacks(t *testing.T) {
	t.Parallel()
	last := ""
	for range 10_000 {
		id := NewID()
		if id <= last {
			t.Fatalf("%s came after %s", id, last)
		}
		if id[14] != '7' || !strings.ContainsRune("89ab", rune(id[19])) {
			t.Fatalf("%s is no UUIDv7", id)
		}
		last = id
	}
	for _, id := range []string{last, "a", strings.ToUpper(last), "ffffffff-ffff-7fff-8fff-ffffffffffff", strings.Repeat("x", 36), strings.Repeat("y", 15)} {
		packed := PackID(nil, id)
		if got := UnpackID(packed); got != id {
			t.Errorf("%q came back as %q", id, got)
		}
	}
	if n := len(PackID(nil, last)); n != 16 {
		t.Errorf("a UUID takes %d bytes, want 16", n)
	}
}

func TestEveryStateCanBeReachedAndLeft(t *testing.T) {
	t.Parallel()
	reached := map[State]bool{}
	for todo := []State{""}; len(todo) > 0; todo = todo[1:] {
		for _, m := range Moves {
			if m.From == todo[0] && !reached[m.To] {
				reached[m.To] = true
				todo = append(todo, m.To)
			}
		}
	}
	for _, s := range States {
		if !reached[s] {
			t.Errorf("%s can't be reached", s)
		}
		leaves := false
		for _, to := range States {
			leaves = leaves || CanMove(s, to)
			if s.Ended() && CanMove(s, to) && to != Available {
				t.Errorf("ended state %s moves to %s", s, to)
			}
		}
		if !leaves {
			t.Errorf("%s can't be left", s)
		}
	}
	for _, op := range []Op{OpCancel, OpRetry, OpRun} {
		to := map[Op]State{OpCancel: Cancelled, OpRetry: Available, OpRun: Available}[op]
		for _, from := range op.From() {
			if !CanMove(from, to) {
				t.Errorf("%s is defined for %s, but the table has no move to %s", op, from, to)
			}
		}
	}
}

func TestPrepareSetsDefaultsAndTimes(t *testing.T) {
	t.Parallel()
	now := time.UnixMilli(1_800_000_000_000).UTC()
	task := &Task{Type: "t", Delay: 1500 * time.Microsecond, ExpiresIn: time.Hour, Unique: &Unique{Key: "k"}}
	if err := Prepare(task, allCaps, now); err != nil {
		t.Fatal(err)
	}
	if task.Queue != DefaultQueue || task.MaxAttempts != DefaultMaxAttempts || task.CrashLimit != DefaultCrashLimit || task.ID == "" ||
		task.Encoding != EncodingJSON || task.Unique.Until != UntilDone || task.Unique.OnConflict != ConflictReturn {
		t.Errorf("defaults are missing: %+v %+v", task, task.Unique)
	}
	if want := now.Add(2 * time.Millisecond); !task.At.Equal(want) || task.Delay != 0 {
		t.Errorf("At is %v, want %v: rounded up", task.At, want)
	}
}

func TestPrepareRefuses(t *testing.T) {
	t.Parallel()
	now := time.Now()
	bad := map[string]func(*Task){
		"no type":            func(t *Task) { t.Type = "" },
		"space in type":      func(t *Task) { t.Type = "a b" },
		"braces in queue":    func(t *Task) { t.Queue = "{a}" },
		"NUL in id":          func(t *Task) { t.ID = "a\x00" },
		"long id":            func(t *Task) { t.ID = strings.Repeat("x", 129) },
		"invalid UTF-8":      func(t *Task) { t.Type = "\xff" },
		"path":               func(t *Task) { t.Queue = "../etc" },
		"broken JSON":        func(t *Task) { t.Payload = []byte(`{"a":`) },
		"two JSON values":    func(t *Task) { t.Payload = []byte(`1 2`) },
		"payload too large":  func(t *Task) { t.Payload, t.Encoding = make([]byte, 1<<20+1), EncodingRaw },
		"unknown encoding":   func(t *Task) { t.Encoding = "xml" },
		"header size":        func(t *Task) { t.Headers = map[string]string{"a": strings.Repeat("x", MaxHeaderBytes)} },
		"header name":        func(t *Task) { t.Headers = map[string]string{"a b": ""} },
		"header value":       func(t *Task) { t.Headers = map[string]string{"a": "\xff"} },
		"tag":                func(t *Task) { t.Tags = []string{"<b>"} },
		"tags":               func(t *Task) { t.Tags = make([]string, MaxTags+1) },
		"priority":           func(t *Task) { t.Priority = 101 },
		"negative attempts":  func(t *Task) { t.MaxAttempts = -1 },
		"negative crashes":   func(t *Task) { t.CrashLimit = -1 },
		"negative delay":     func(t *Task) { t.Delay = -1 },
		"negative expiry":    func(t *Task) { t.ExpiresIn = -1 },
		"negative timeout":   func(t *Task) { t.Timeout = -1 },
		"tiny timeout":       func(t *Task) { t.Timeout = 1 },
		"delay and time":     func(t *Task) { t.Delay, t.At = 1, now },
		"year 1":             func(t *Task) { t.At = time.Date(1, 2, 1, 0, 0, 0, 0, time.UTC) },
		"year 10000":         func(t *Task) { t.At = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) },
		"largest delay":      func(t *Task) { t.Delay = math.MaxInt64; t.ExpiresIn = 1 },
		"expires before":     func(t *Task) { t.Delay, t.ExpiresIn = time.Hour, time.Minute },
		"empty unique key":   func(t *Task) { t.Unique = &Unique{} },
		"unique without TTL": func(t *Task) { t.Unique = &Unique{Key: "k", Until: UntilTTL} },
		"TTL without ttl":    func(t *Task) { t.Unique = &Unique{Key: "k", TTL: 1} },
		"TTL too long":       func(t *Task) { t.Unique = &Unique{Key: "k", Until: UntilTTL, TTL: math.MaxInt64} },
		"unique until":       func(t *Task) { t.Unique = &Unique{Key: "k", Until: "x"} },
		"unique conflict":    func(t *Task) { t.Unique = &Unique{Key: "k", OnConflict: "x"} },
		"plan's id":          func(t *Task) { t.Plan = &TaskPlan{PlanRef{"schedule", "s"}, "1"} },
		"plan's name":        func(t *Task) { t.Plan = &TaskPlan{PlanRef{"schedule", ""}, "1"} },
		"weight":             func(t *Task) { t.Key, t.Weight = "k", -1 },
		"key":                func(t *Task) { t.Key = "{" },
	}
	for name, change := range bad {
		task := &Task{Type: "t", Payload: []byte(`{}`)}
		change(task)
		if err := Prepare(task, allCaps, now); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: got %v, want ErrInvalid", name, err)
		}
	}
	poor := allCaps
	poor.Keys, poor.Plans = false, false
	for name, task := range map[string]*Task{"key": {Type: "t", Key: "k"}, "weight": {Type: "t", Weight: 1}, "plan": {ID: PlanTaskID(PlanRef{"schedule", "s"}, "1"), Type: "t", Plan: &TaskPlan{PlanRef{"schedule", "s"}, "1"}}} {
		if err := Prepare(task, poor, now); !errors.Is(err, ErrUnsupported) {
			t.Errorf("%s: got %v, want ErrUnsupported", name, err)
		}
	}
}

func TestBackoff(t *testing.T) {
	t.Parallel()
	var b Backoff
	for n, want := range map[int]time.Duration{-1: time.Second, 1: time.Second, 2: 2 * time.Second, 5: 16 * time.Second, 13: 4096 * time.Second, 100_000: 7 * 24 * time.Hour} {
		if got := b.Max(n); got != want {
			t.Errorf("Max(%d) = %v, want %v", n, got, want)
		}
	}
	low, high := time.Hour, time.Duration(0)
	for range 2000 {
		d := b.Delay(5)
		low, high = min(low, d), max(high, d)
		if d < 0 || d > 16*time.Second {
			t.Fatalf("Delay(5) = %v is out of range", d)
		}
	}
	if low > 2*time.Second || high < 14*time.Second {
		t.Errorf("2000 delays lie between %v and %v: that is no full jitter over 16s", low, high)
	}
}

func TestHistoryKeepsFirstAndNewest(t *testing.T) {
	t.Parallel()
	var h []Attempt
	for n := 1; n <= 250; n++ {
		h = AppendAttempt(h, Attempt{Number: n, Error: strings.Repeat("é", MaxErrorBytes)})
	}
	if len(h) != MaxHistory || h[0].Number != 1 || h[49].Number != 50 || h[50].Number != 201 || h[99].Number != 250 {
		t.Errorf("kept %d attempts: %d … %d, %d … %d", len(h), h[0].Number, h[49].Number, h[50].Number, h[99].Number)
	}
	if e := h[99].Error; len(e) > MaxErrorBytes || !strings.HasSuffix(e, "[cut]") {
		t.Errorf("the error kept has %d bytes", len(e))
	}
}

func TestLogsAreBounded(t *testing.T) {
	t.Parallel()
	var logs []LogLine
	for range 100 {
		logs = AppendLogs(logs, []LogLine{{Message: strings.Repeat("x", 1000)}})
	}
	logs = AppendLogs(logs, []LogLine{{Message: "last"}})
	size := 0
	for i := range logs {
		size += logBytes(&logs[i])
	}
	if size > MaxLogBytes || size < MaxLogBytes-2000 || logs[len(logs)-1].Message != "last" {
		t.Errorf("kept %d lines with %d bytes", len(logs), size)
	}
}

func TestErrorClassesAreDistinct(t *testing.T) {
	t.Parallel()
	codes := map[string]bool{}
	for _, c := range ErrorClasses {
		if codes[c.Code] {
			t.Errorf("code %s is used twice", c.Code)
		}
		codes[c.Code] = true
		if got := ClassOf(Errorf(c.Err, "text")); got.Code != c.Code {
			t.Errorf("ClassOf gave %s, want %s", got.Code, c.Code)
		}
	}
	if got := ClassOf(errors.New("x")); got.Code != "internal" || got.Exit != 1 {
		t.Errorf("an unknown error is %+v", got)
	}
}

// The last two bytes of an id place it in a sharded store: a batch should be in one or two shards, all ids over time in
// all of them alike.
func TestNewIDsOfOneMomentShareTheirEnd(t *testing.T) {
	t.Parallel()
	const shards, spans = 16, 16_000
	var count [shards]int
	for i := range uint64(spans) {
		count[home(i<<homeShift)%shards]++
		if a, b := home(i<<homeShift), home(i<<homeShift+1<<homeShift-1); a != b {
			t.Fatalf("span %d has the ends %d and %d", i, a, b)
		}
	}
	for i, n := range count {
		if n < spans/shards*8/10 || n > spans/shards*12/10 {
			t.Errorf("shard %d gets %d of %d spans", i, n, spans)
		}
	}
	// 32 at a time, as a producer with a regular rhythm would: these too go everywhere.
	seen := map[uint16]bool{}
	for i := range uint64(1000) {
		seen[home(i*32<<homeShift)%shards] = true
	}
	if len(seen) != shards {
		t.Errorf("a producer with a regular rhythm reaches %d of %d shards", len(seen), shards)
	}
	ends := map[string]bool{}
	for range 500 {
		id := NewID()
		ends[id[32:]] = true
	}
	if len(ends) > 100 { // a machine under load may take its time
		t.Errorf("500 ids have %d ends", len(ends))
	}
}
