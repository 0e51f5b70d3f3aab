package redisstore

import (
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/waggleq/waggle/driver"
)

func FuzzParseTask(f *testing.F) {
	task := &driver.Task{Priority: -7, ExpiresAt: time.UnixMilli(1_800_000_000_000), Payload: []byte("payload"), Encoding: driver.EncodingRaw,
		Unique: &driver.Unique{Key: "k", Until: driver.UntilDone}}
	head := string(appendUint48(appendUint48(nil, 1_700_000_000_000), 12))
	f.Add(head + string(appendBody(nil, task, 3, driver.AppendEnvelope(nil, task))))
	f.Add(head + string(appendBody(nil, &driver.Task{}, 0, nil)))
	f.Add("")
	f.Fuzz(func(t *testing.T, s string) {
		r, err := parseTask(s)
		if err != nil {
			if !errors.Is(err, driver.ErrCorrupt) {
				t.Errorf("%q is refused with %v", s, err)
			}
			return
		}
		if len(r.envelope)+len(r.payload) > len(s) || r.pair > maxPairs {
			t.Errorf("%q was read as %+v", s, r)
		}
		if run := freshRun(&r); run.state != letterAvailable {
			t.Errorf("the run of %+v is %+v", r, run)
		}
	})
}

func FuzzParseRun(f *testing.F) {
	full := runRecord{state: letterCompleted, flags: flagExpires | flagSettled, reason: 3, priority: -100, pair: maxPairs, order: 1<<44 - 1,
		due: 1 << 47, token: 1<<41 - 1, claimed: 5, expires: 6, attempt: 1_000_000, crashes: 7, ended: 8, ran: 9, size: 16 << 20,
		worker: "w", host: "h", build: "b"}
	f.Add(string(full.append(nil)))
	f.Add(string((&runRecord{state: letterAvailable}).append(nil)))
	f.Add(strings.Repeat("\x00", 70))
	f.Add(string([]byte{letterActive, flagShort, 0, 0, 7}) + string(appendUint48(appendUint48(nil, 5), 13)) + "\x00\x00\x00\x2a\x01w")
	f.Fuzz(func(t *testing.T, s string) {
		r, err := parseRun(s, &taskRecord{})
		if err != nil {
			if !errors.Is(err, driver.ErrCorrupt) {
				t.Errorf("%q is refused with %v", s, err)
			}
			return
		}
		if again, err := parseRun(string(r.append(nil)), &taskRecord{}); err != nil || again != r {
			t.Errorf("%+v was written and read as %+v, %v", r, again, err)
		}
	})
}

// FuzzStoredRecord puts bytes of any kind where a task's record, its run, history, result and reports are stored.
// Whatever they are, the task can be looked at and printed.
func FuzzStoredRecord(f *testing.F) {
	task := &driver.Task{Priority: -7, Payload: []byte("payload"), Encoding: driver.EncodingRaw, Headers: map[string]string{"a": "b"}}
	body := string(appendUint48(appendUint48(nil, 1_700_000_000_000), 12)) + string(appendBody(nil, task, 3, driver.AppendEnvelope(nil, task)))
	run := runRecord{state: letterCompleted, pair: 3, token: 5, claimed: 6, ended: 8, ran: 9, attempt: 1, worker: "w", host: "h", build: "b"}
	f.Add("id", body, string(run.append(nil)), `[{"attempt":1,"error":"e"}]`, `j{"a":1}`, `{"progress":{"done":1},"logs":[{"message":"m"}]}`)
	f.Add("", body, "", `[{"attempt":1},2]`, "r", `{"progress":3}`)
	f.Add("\xff", "", "A", "{", "?", "[")
	f.Fuzz(func(t *testing.T, id, task, run, history, result, news string) {
		for _, hasRun := range []bool{false, true} {
			e := newEntry(id, task, run, hasRun)
			e.hist, e.result, e.news = history, result, news
			var r driver.Record
			e.fill(&r)
			if !r.State.Valid() || len(r.Attempts) > 0 && len(history)+len(run) == 0 {
				t.Errorf("the record is %+v", r)
			}
			if _, err := json.Marshal(&r); err != nil {
				t.Errorf("the record can't be printed: %v", err)
			}
			if e.err != nil && !errors.Is(e.err, driver.ErrCorrupt) {
				t.Errorf("the record is refused with %v", e.err)
			}
		}
	})
}

// FuzzParseURL has a password in a URL: what is refused does not show it.
func FuzzParseURL(f *testing.F) {
	for _, s := range []string{"redis://bee:%s@host/0?ns=x", "rediss://:%s@[::1]:1?server_name=x", "redis-sentinel://u:%s@a:1,b/mymaster/3",
		"redis+cluster://u:%s@a,b?shards=64", "valkey://u:%s@h:99999", "redis://u:a/%s@h", "redis://u:%%zz%s@h", "redis://h?shards=%s"} {
		f.Add(s)
	}
	const secret = "hunter2canary"
	f.Fuzz(func(t *testing.T, format string) {
		if strings.Contains(format, "file=") {
			return // it would read any file of this machine
		}
		raw := strings.ReplaceAll(format, "%s", secret)
		target, err := parseURL(raw)
		if err == nil {
			if len(target.addresses) == 0 || target.shards < 1 || target.database < 0 || driver.CheckName("namespace", target.namespace, 64) != nil {
				t.Errorf("%q was read as %+v", raw, target)
			}
			return
		}
		if _, user, found := strings.Cut(raw, "://"); found && passwordOf(user) == secret && strings.Contains(err.Error(), secret) {
			t.Errorf("%q is refused with its password: %v", raw, err)
		}
	})
}

// passwordOf is what stands between the first colon and the last @ before the path.
func passwordOf(rest string) string {
	end := len(rest)
	if i := strings.IndexAny(rest, "/?#"); i >= 0 {
		end = i
	}
	at := strings.LastIndexByte(rest[:end], '@')
	if at < 0 {
		return ""
	}
	_, password, _ := strings.Cut(rest[:at], ":")
	return password
}

// FuzzParseCursor hands in any cursor of a list and of events.
func FuzzParseCursor(f *testing.F) {
	f.Add(cursor{1, 77}.String())
	f.Add(eventCursor{1, 2, 77}.String())
	f.Add("r1.MS4t")
	s := &Store{shards: make([]*shard, 3)}
	f.Fuzz(func(t *testing.T, text string) {
		if c, err := s.parseCursor(text); err == nil {
			if c.shard < 0 || c.shard >= len(s.shards) || c.seq < 0 {
				t.Errorf("%q is the place %+v", text, c)
			}
			if again, err := s.parseCursor(c.String()); err != nil || again != c {
				t.Errorf("%+v came back as %+v, %v", c, again, err)
			}
		}
		if c, err := s.parseEventCursor(text); err == nil {
			if again, err := s.parseEventCursor(c.String()); err != nil || !slices.Equal(again, c) || len(c) != len(s.shards) {
				t.Errorf("%v came back as %v, %v", c, again, err)
			}
		}
	})
}

// FuzzParseReply hands in what a server may say: its facts, and an entry of the event log.
func FuzzParseReply(f *testing.F) {
	f.Add("redis_version:7.0.15\r\nrole:master\r\n# x\r\n", "1-1", "e", string(driver.AppendEvents(nil, []driver.Event{{Kind: "active", ID: "x"}})))
	f.Fuzz(func(t *testing.T, info, id, field, value string) {
		for k := range parseInfo(info) {
			if strings.ContainsAny(k, ":\n") {
				t.Errorf("%q has the field %q", info, k)
			}
		}
		last, n, events, err := parseEventEntry(rueidis.XRangeEntry{ID: id, FieldValues: map[string]string{field: value}})
		if err == nil && (last < 0 || n < 0 || int64(len(events)) > max(n, int64(len(value)))) {
			t.Errorf("the entry %s %s=%q has %d events, the last is %s", id, field, value, len(events), strconv.FormatInt(last, 10))
		}
		_ = parseRefs([]string{id, field, value})
	})
}
