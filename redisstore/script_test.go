package redisstore

import (
	"fmt"
	"io/fs"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

var allScripts = []*script{openScript, internScript, enqueueScript, fetchScript, settleScript, getScript, commitScript, forgetScript,
	promoteScript, pruneScript, registerScript, beatScript, directScript, heldScript, reapScript, buryScript, setQueueScript, dropQueueScript, signalScript, readyScript, shareScript, sweepScript, lendLookScript, lendShareScript, lendTakeScript, takeScript, dropScript,
	planAdvanceScript, planSentScript, planSignalScript, planGetScript, planDropScript}

// draining are the scripts that must run when the server's memory is full: they make room, or keep workers alive.
var draining = []string{"open", "register", "setqueue", "dropqueue", "fetch", "settle", "commit", "forget", "promote", "prune", "beat", "direct", "reap", "bury", "signal", "ready", "sweep", "lend_look", "lend_share", "lend_take", "intake_drop",
	"plan_sent", "plan_get", "plan_drop"}

func TestEveryScriptFileIsLoaded(t *testing.T) {
	t.Parallel()
	files, err := fs.Glob(luaFiles, "lua/*.lua")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, s := range allScripts {
		names = append(names, "lua/"+s.name+".lua")
	}
	slices.Sort(names)
	if !slices.Equal(files, names) {
		t.Errorf("files %v, loaded %v", files, names)
	}
}

func TestScriptsHaveHeaders(t *testing.T) {
	t.Parallel()
	for _, s := range allScripts {
		for _, want := range []string{"\n-- KEYS ", "\n-- ARGV ", "\n-- RETURNS "} {
			if !strings.Contains(s.text, want) {
				t.Errorf("%s.lua has no line %q", s.name, strings.TrimSpace(want))
			}
		}
		first, _, _ := strings.Cut(s.text, "\n")
		want := "#!lua"
		switch {
		case slices.Contains(draining, s.name):
			want = "#!lua flags=allow-oom"
		case s == getScript || s == heldScript:
			want = "#!lua flags=no-writes"
		}
		if first != want {
			t.Errorf("%s.lua begins with %q, want %q", s.name, first, want)
		}
	}
}

var (
	keyUse   = regexp.MustCompile(`KEYS\[(\d+)\]`)
	literal  = regexp.MustCompile(`redis\.p?call\('[A-Z]+', *'`)
	baseUse  = regexp.MustCompile(`base = (\d+) \+ \(`)
	groupUse = regexp.MustCompile(`KEYS\[base \+ (\d)\]`)
)

// Scripts touch only keys that their callers declare: none builds a name, and no index goes beyond the header.
func TestScriptsTouchDeclaredKeysOnly(t *testing.T) {
	t.Parallel()
	for _, s := range allScripts {
		code := s.text
		if m := literal.FindString(code); m != "" {
			t.Errorf("%s.lua names a key itself: %s", s.name, m)
		}
		if strings.Contains(code, "'waggle:") {
			t.Errorf("%s.lua builds the name of a key", s.name)
		}
		for _, m := range keyUse.FindAllStringSubmatch(stripComments(code), -1) {
			if n, _ := strconv.Atoi(m[1]); n < 1 || n > len(s.keys)+len(s.rest) {
				t.Errorf("%s.lua uses KEYS[%d], its header declares %d", s.name, n, len(s.keys))
			}
		}
		for _, m := range baseUse.FindAllStringSubmatch(code, -1) {
			if n, _ := strconv.Atoi(m[1]); n != len(s.keys) {
				t.Errorf("%s.lua begins its groups after %d keys, its header declares %d", s.name, n, len(s.keys))
			}
		}
		for _, m := range groupUse.FindAllStringSubmatch(code, -1) {
			if n, _ := strconv.Atoi(m[1]); n > len(s.rest) {
				t.Errorf("%s.lua uses key %d of a group of %d", s.name, n, len(s.rest))
			}
		}
	}
}

func stripComments(code string) string {
	var b strings.Builder
	for line := range strings.Lines(code) {
		if i := strings.Index(line, "--"); i >= 0 {
			line = line[:i] + "\n"
		}
		b.WriteString(line)
	}
	return b.String()
}

// The keys of every call share the shard's hash tag, and the groups have the keys that the headers name.
func TestKeysShareASlot(t *testing.T) {
	t.Parallel()
	sh := newShard("ns", 7)
	p := sh.newPair(3, "q", "t")
	group := map[string]string{"line/PAIR": p.line, "back/PAIR": p.back, "due/PAIR": p.due, "exp/PAIR": p.exp,
		"wake/QUEUE/TYPE": p.wake, "wake/QUEUE/": p.wakeAll}
	for i, name := range []string{"keyed/QUEUE", "share/QUEUE", "opens/QUEUE", "rest/QUEUE", "flow/QUEUE", "heads/QUEUE"} {
		group[name] = sh.shareKeys("q")[i]
	}
	for _, s := range allScripts {
		keys := sh.keysOf(s, "w")
		if len(keys) != len(s.keys) || len(keys) == 0 {
			t.Errorf("%s: %d keys, want %d", s.name, len(keys), len(s.keys))
		}
		if len(s.rest) > 0 && s.rest[0] == "line/PAIR" {
			keys = sh.pairKeys(keys, p)
			if len(s.rest) > 6 {
				keys = append(keys, sh.shareKeys("q")...)
			}
			for i, name := range s.rest {
				if name == "any" {
					break
				}
				if got := keys[len(s.keys)+i]; got != group[name] {
					t.Errorf("%s: key %d of a group is %s, the header says %s", s.name, i+1, got, name)
				}
			}
		}
		for _, k := range keys {
			if !strings.HasPrefix(k, "waggle:{ns.7}:") || strings.Contains(k, "WORKER") {
				t.Errorf("%s: key %q is not in the shard's slot", s.name, k)
			}
		}
	}
	for state, k := range p.keptOfState {
		if want := fmt.Sprintf("waggle:{ns.7}:kept/%c/q", state); k != want {
			t.Errorf("got %s, want %s", k, want)
		}
	}
}

func TestRecordsRoundTrip(t *testing.T) {
	t.Parallel()
	r := runRecord{state: letterCompleted, flags: flagExpires | flagSettled, reason: 3, priority: -100, pair: maxPairs, order: 1<<44 - 1,
		due: 1 << 47, token: 1<<41 - 1, claimed: 5, expires: 6, attempt: 1_000_000, crashes: 7, ended: 8, ran: 9, size: 16 << 20,
		worker: "w", host: "h", build: "b"}
	got, err := parseRun(string(r.append(nil)), &taskRecord{})
	if err != nil || got != r {
		t.Errorf("got %+v, %v", got, err)
	}
	raw := string(r.append(nil))
	for n := range len(raw) {
		if n <= runHead {
			if _, err := parseRun(raw[:n], &taskRecord{}); err == nil {
				t.Errorf("%d bytes of a run were read", n)
			}
		}
	}
	if count, pair := splitToken(makeToken(1<<41-1, maxPairs)); count != 1<<41-1 || pair != maxPairs {
		t.Errorf("token came back as %d and %d", count, pair)
	}
	if len(stateOf) != len(letterOf) || len(slices.Collect(maps.Keys(letterOf))) != 8 {
		t.Error("two states share a letter")
	}
}

// TestShortRuns reads the runs that the scripts make for tasks that are claimed once.
func TestShortRuns(t *testing.T) {
	t.Parallel()
	task := &taskRecord{enqueued: 11, seq: 12, flags: flagExpires, pair: 7, priority: -3, expires: 99}
	head := string([]byte{letterActive, flagShort | flagExpires, 0, 0, 7}) + string(appendUint48(appendUint48(nil, 5), 13)) + "\x00\x00\x00\x2a"
	want := runRecord{state: letterActive, flags: flagExpires, priority: -3, pair: 7, order: 12, due: 11, token: 5, claimed: 13,
		expires: 99, attempt: 1, size: 42, worker: "w"}
	if got, err := parseRun(head+"\x01w", task); err != nil || got != want {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	want.state, want.flags, want.ended, want.ran, want.host, want.build = letterCompleted, flagExpires|flagSettled, 20, 6, "h", "b"
	done := string([]byte{letterCompleted, flagShort | flagExpires | flagSettled}) + head[2:] + string(appendUint48(appendUint48(nil, 20), 6)) + "\x01w\x01h\x01b"
	if got, err := parseRun(done, task); err != nil || got != want {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	for _, raw := range []string{head + "\x01w", done} {
		for n := range len(raw) {
			if r, err := parseRun(raw[:n], task); err == nil && (r.worker != "w" || n < shortHead) {
				t.Errorf("%d bytes of a short run were read as %+v", n, r)
			}
		}
	}
	if _, err := parseRun("T"+head[1:]+"\x01w", task); err == nil {
		t.Error("a retryable task's run was read in the short form")
	}
}
