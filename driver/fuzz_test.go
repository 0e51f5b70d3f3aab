package driver

import (
	"encoding/json"
	"errors"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func FuzzDecodeEnvelope(f *testing.F) {
	f.Add(AppendEnvelope(nil, full()))
	f.Fuzz(func(t *testing.T, b []byte) {
		var task Task
		if err := DecodeEnvelope(b, &task); err != nil {
			if !errors.Is(err, ErrCorrupt) {
				t.Errorf("%q is refused with %v", b, err)
			}
			return
		}
		if _, err := json.Marshal(&task); err != nil {
			t.Errorf("what was read can't be told: %v", err)
		}
		for what, at := range map[string]time.Time{"start": task.At, "expiry": task.ExpiresAt} {
			if err := checkTime(what, at); err != nil {
				t.Errorf("what no task can have was read: %v", err)
			}
		}
		var again Task
		written := AppendEnvelope(nil, &task)
		if err := DecodeEnvelope(written, &again); err != nil {
			t.Fatalf("what was read can't be written and read again: %v", err)
		}
		if twice := AppendEnvelope(nil, &again); !slices.Equal(written, twice) {
			t.Errorf("%+v came back as %+v", task, again)
		}
	})
}

func FuzzDecodeEvents(f *testing.F) {
	f.Add(AppendEvents(nil, []Event{{Kind: "available", ID: NewID()}, {Kind: "active", ID: "x", Worker: "w"}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		events, err := DecodeEvents(nil, b)
		if len(events) > len(b) {
			t.Fatalf("%d bytes gave %d events", len(b), len(events))
		}
		if err != nil {
			if !errors.Is(err, ErrCorrupt) {
				t.Errorf("%q is refused with %v", b, err)
			}
			return
		}
		if _, err := json.Marshal(events); err != nil {
			t.Errorf("what was read can't be told: %v", err)
		}
		again, err := DecodeEvents(nil, AppendEvents(nil, events))
		if err != nil || !slices.Equal(again, events) {
			t.Errorf("%+v came back as %+v, %v", events, again, err)
		}
	})
}

func FuzzUnpackID(f *testing.F) {
	f.Add("own-id")
	f.Add(NewID())
	f.Fuzz(func(t *testing.T, id string) {
		if got := UnpackID(PackID(nil, id)); id != "" && got != id {
			t.Fatalf("%q came back as %q", id, got)
		}
		if plain := UnpackID([]byte(id)); plain != "" && UnpackID(PackID(nil, plain)) != plain {
			t.Fatalf("the bytes %q are the id %q, which does not come back", id, plain)
		}
	})
}

func FuzzCheckName(f *testing.F) {
	f.Add("email.welcome")
	f.Fuzz(func(t *testing.T, name string) {
		allowed := len(name) >= 1 && len(name) <= 128
		for _, b := range []byte(name) {
			allowed = allowed && ('a' <= b && b <= 'z' || 'A' <= b && b <= 'Z' || '0' <= b && b <= '9' || strings.IndexByte("._:-", b) >= 0)
		}
		err := CheckName("name", name, 128)
		if (err == nil) != allowed || err != nil && (!errors.Is(err, ErrInvalid) || len(err.Error()) > 1024) {
			t.Errorf("%.2000q: %.2000v", name, err)
		}
	})
}

// FuzzPrepare hands in any task that JSON can tell. One that is accepted keeps to the limits, is accepted again as it
// is, and comes back from its stored form.
func FuzzPrepare(f *testing.F) {
	for _, task := range []*Task{full(), {Type: "t", Delay: time.Hour, ExpiresIn: 2 * time.Hour}, {Type: "t", Delay: math.MaxInt64}, {Type: "t", At: time.Date(9999, 12, 31, 23, 59, 59, 1, time.UTC)}} {
		b, err := json.Marshal(task)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	now := time.UnixMilli(1_800_000_000_000).UTC()
	f.Fuzz(func(t *testing.T, b []byte) {
		var task Task
		if json.Unmarshal(b, &task) != nil || Prepare(&task, allCaps, now) != nil {
			return
		}
		if len(task.Tags) > MaxTags || len(task.Payload) > allCaps.Limit.MaxPayload || task.Delay != 0 || task.ExpiresIn != 0 {
			t.Errorf("%+v was accepted", task)
		}
		again := task.Clone()
		if err := Prepare(again, allCaps, now); err != nil || !reflect.DeepEqual(again, &task) {
			t.Errorf("%+v became %+v, %v when it was prepared again", task, again, err)
		}
		var stored Task
		envelope := AppendEnvelope(nil, &task)
		if err := DecodeEnvelope(envelope, &stored); err != nil || !slices.Equal(envelope, AppendEnvelope(nil, &stored)) {
			t.Errorf("%+v came back from the store as %+v, %v", task, stored, err)
		}
	})
}

// FuzzFilter hands in any filter and operation that JSON can tell.
func FuzzFilter(f *testing.F) {
	f.Add([]byte(`{"Op":"cancel","Filter":{"states":["available"],"types":["t"],"tags":["x"],"error":"e","after":"2030-01-01T00:00:00Z"},"Max":3}`))
	f.Add([]byte(`{"Op":"drop","Filter":{"states":["lost"],"queues":["a b"]},"Max":-1}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var c Change
		if json.Unmarshal(b, &c) != nil {
			return
		}
		if n, err := CheckChange(&c); err == nil && (n < 1 || n > MaxApply) {
			t.Errorf("%+v takes %d tasks", c, n)
		}
		r := Record{Task: *full(), State: Available, Attempts: []Attempt{{Error: "e"}}}
		if c.Filter.Match(&r) && len(c.Filter.IDs)+len(c.Filter.States) > 0 && !slices.Contains(c.Filter.IDs, r.ID) && !slices.Contains(c.Filter.States, r.State) {
			t.Errorf("%+v selects %+v", c.Filter, r)
		}
	})
}

// FuzzHistory appends to any history and any log that JSON can tell, as engines store them.
func FuzzHistory(f *testing.F) {
	f.Add([]byte(`[{"attempt":1,"outcome":"retry","worker":"w","started":"2030-01-01T00:00:00Z","error":"e"}]`), []byte(`[{"message":"m"}]`), "error\xff\x00", 200)
	f.Fuzz(func(t *testing.T, history, logs []byte, text string, n int) {
		var attempts []Attempt
		var lines []LogLine
		_ = json.Unmarshal(history, &attempts) // what can be read of it, as engines do
		_ = json.Unmarshal(logs, &lines)
		for range min(max(n, 0), 2*MaxHistory) {
			attempts = AppendAttempt(attempts, Attempt{Error: text, Stack: text})
		}
		lines = AppendLogs(lines, []LogLine{{Message: text, Attrs: text}})
		size := 0
		for i := range lines {
			size += logBytes(&lines[i])
		}
		if n > 0 && len(attempts) > MaxHistory || size > MaxLogBytes {
			t.Errorf("%d attempts and %d bytes of log are kept", len(attempts), size)
		}
		if _, err := json.Marshal(attempts); err != nil {
			t.Errorf("the history can't be stored: %v", err)
		}
		if _, err := json.Marshal(lines); err != nil {
			t.Errorf("the log can't be stored: %v", err)
		}
	})
}

// FuzzIntake hands in any intake list.
func FuzzIntake(f *testing.F) {
	f.Add("tasks", "note", "default")
	f.Add("{tasks}:\u00e9", "a b", "")
	f.Add("\x00", "", "q")
	f.Fuzz(func(t *testing.T, list, typ, queue string) {
		if (Intake{list, typ, queue}).Validate() != nil {
			return
		}
		if len(list) > MaxListLen || strings.ContainsAny(list, "\x00\n\r\x7f") || CheckName("type", typ, MaxNameLen) != nil {
			t.Errorf("the list %q for the type %q passed", list, typ)
		}
	})
}

// FuzzSettle hands in any settlement, report, retention and backoff that JSON can tell.
func FuzzSettle(f *testing.F) {
	f.Add([]byte(`{"Outcome":"complete","Result":"e30=","ResultEncoding":"json","Ran":5}`), []byte(`{"Progress":{"done":1,"total":2,"note":"n"},"Logs":[{"time":"2030-01-01T00:00:00Z","message":"m"}]}`),
		[]byte(`{"Completed":{"Age":3600000000000,"Count":-1}}`), []byte(`{"Base":1000000000,"Cap":60000000000,"Factor":2}`), 7)
	f.Add([]byte(`{"Outcome":"retry","Delay":-1}`), []byte(`{"Logs":[{"time":"0000-01-01T00:00:00Z"}]}`), []byte(`{"Discarded":{"Age":-1}}`), []byte(`{"Factor":0.5}`), -1)
	f.Add([]byte(`{"Outcome":"snooze","Delay":9223372036854775807}`), []byte(`{"Progress":{"note":"\ud800"}}`), []byte(`{"Cancelled":{"Bytes":-2}}`),
		[]byte(`{"Base":9223372036854775807,"Factor":100}`), math.MaxInt)
	f.Fuzz(func(t *testing.T, settlement, report, retention, backoff []byte, n int) {
		var s Settlement
		if json.Unmarshal(settlement, &s) == nil && invalid(t, CheckSettlement(&s, allCaps)) == nil {
			if s.Delay < 0 || s.Ran < 0 || len(s.Result) > MaxResultBytes || s.ResultEncoding == EncodingJSON && len(s.Result) > 0 && !json.Valid(s.Result) {
				t.Errorf("%+v was accepted", s)
			}
		}
		var r Report
		if json.Unmarshal(report, &r) == nil {
			p, err := CheckReport(&r)
			if invalid(t, err) == nil && p != nil {
				if _, err := json.Marshal(p); err != nil || len(p.Note) > MaxErrorBytes {
					t.Errorf("the progress %+v was accepted: %v", p, err)
				}
			}
		}
		var keep Retention
		if json.Unmarshal(retention, &keep) == nil && invalid(t, keep.Validate()) == nil && (keep.Completed.Age < 0 || keep.Discarded.Count < -1) {
			t.Errorf("%+v was accepted", keep)
		}
		var b Backoff
		if json.Unmarshal(backoff, &b) == nil && invalid(t, b.Validate()) == nil {
			n = max(n, 1)
			if d := b.Delay(n); d < 0 || d > b.Max(n) || b.Max(n) < b.Max(n-1) && n > 1 {
				t.Errorf("after failure %d %+v waits %v, at most %v", n, b, d, b.Max(n))
			}
		}
	})
}

// invalid returns err, which must be one that says that the input is wrong.
func invalid(t *testing.T, err error) error {
	if err != nil && !errors.Is(err, ErrInvalid) && !errors.Is(err, ErrUnsupported) {
		t.Errorf("refused with %v", err)
	}
	return err
}
