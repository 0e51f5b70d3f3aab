package cli

import (
	"bytes"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/waggleq/waggle"
	"github.com/waggleq/waggle/driver"
)

// fuzzed are the commands that FuzzCommandLine gives arguments to: those that run nothing else and do not wait.
var fuzzed = [][]string{
	{"enqueue"}, {"enqueue", "t", "-"}, {"enqueue", "t", "--lines"}, {"task", "list"}, {"task", "get"}, {"task", "cancel"}, {"task", "retry"},
	{"task", "run"}, {"task", "delete"}, {"queue", "list"}, {"queue", "get"}, {"queue", "pause"}, {"queue", "purge", "--yes"}, {"worker", "list"},
}

// FuzzCommandLine hands any arguments and any standard input to the commands. A refused one prints nothing on standard
// output, and on standard error one sentence, in which nothing can steer a terminal.
func FuzzCommandLine(f *testing.F) {
	f.Add(uint8(0), "t\n{\"a\":1}\n--header\na=b\n--in\n3d\n-o\njson", "")
	f.Add(uint8(0), "t\n{\n--priority=101", "")
	f.Add(uint8(1), "--raw\n--unique\n\x1b[2J", "\x00\xff")
	f.Add(uint8(2), "--unique-payload\n-ojsonl", "a\nb\r\n\xff\n")
	f.Add(uint8(3), "--state\navailable,done\n--after\n9999-12-31", "")
	f.Add(uint8(3), "--limit\n0", "")
	f.Add(uint8(5), "--all\n--type\na{b}\n--dry-run", "")
	f.Add(uint8(10), "../%0a", "")
	f.Fuzz(func(t *testing.T, which uint8, words, in string) {
		if strings.Contains(words, "store") || strings.Contains(words, "--wait") {
			return // another store would be a file, and nobody would end the wait
		}
		command := fuzzed[int(which)%len(fuzzed)]
		store := "sqlite:" + filepath.Join(t.TempDir(), "waggle.db")
		args := slices.Concat([]string{"--store", store}, command, strings.Split(words, "\n"))
		var out, err bytes.Buffer
		made, openErr := (&app{store: store}).openOrMake(t.Context())
		if openErr != nil {
			t.Fatal(openErr)
		}
		_ = made.Close() // nothing was done with it
		a := &app{in: strings.NewReader(in), out: &out, err: &err, env: func(string) string { return "" }}
		code := a.run(t.Context(), args)
		switch code {
		case exitOK, exitFailed, exitPartly, driver.ClassOf(driver.ErrNotFound).Exit, driver.ClassOf(driver.ErrState).Exit:
		case driver.ClassOf(driver.ErrInvalid).Exit:
			text := err.String()
			if out.Len() > 0 || !strings.HasPrefix(text, "waggle: ") || !slices.Contains(command, "--lines") && strings.Count(text, "\n") != 1 {
				t.Errorf("%q is refused with %q on standard error and %q on standard output", args, text, out.String())
			}
		default:
			t.Errorf("%q ends with %d: %s", args, code, err.String())
		}
		if strings.ContainsFunc(strings.ReplaceAll(err.String(), "\n", ""), func(r rune) bool { return r < ' ' || r == 0x7f }) {
			t.Errorf("%q says %q", args, err.String())
		}
	})
}

func FuzzParseDuration(f *testing.F) {
	for _, s := range []string{"1m30s", "3d", "1d12h", "-1s", "5", "36500d9000000h", "9223372036854775807ns"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d, err := parseDuration(s)
		if err != nil {
			refusal(t, s, err)
			return
		}
		if again, err := parseDuration(shortDuration(d)); d < 0 || err != nil || again != d {
			t.Errorf("parseDuration(%q) = %v, which is shown as %s and reads as %v, %v", s, d, shortDuration(d), again, err)
		}
		if go1, err := time.ParseDuration(s); err == nil && go1 != d {
			t.Errorf("parseDuration(%q) = %v, package time says %v", s, d, go1)
		}
	})
}

func FuzzParseTime(f *testing.F) {
	for _, s := range []string{"2030-12-31T08:00:00Z", "2030-12-31 08:00", "2030-12-31", "9999-12-31T23:59:59.999999999-23:59"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		at, err := parseTime(s, time.UTC)
		if err != nil {
			refusal(t, s, err)
			return
		}
		if again, err := parseTime(at.UTC().Format(time.RFC3339Nano), time.UTC); at.UTC().Year() < 10000 && at.UTC().Year() >= 0 && (err != nil || !again.Equal(at)) {
			t.Errorf("parseTime(%q) = %v, which reads as %v, %v", s, at, again, err)
		}
	})
}

func FuzzParseQueue(f *testing.F) {
	for _, s := range []string{"q", "q=3", "q=0", "=", "a,b", "q=99999999999999999999"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		q, err := parseQueue(s)
		if err != nil {
			refusal(t, "", err)
			return
		}
		if driver.CheckName("queue", q.Name, driver.MaxNameLen) != nil || q.Weight < 1 || q.Weight > maxWeight {
			t.Errorf("parseQueue(%q) = %+v", s, q)
		}
		if again, err := parseQueue(describeQueue(q)); err != nil || again != q {
			t.Errorf("%+v is described as %q, which reads as %+v, %v", q, describeQueue(q), again, err)
		}
	})
}

func FuzzParseHeader(f *testing.F) {
	for _, s := range []string{"a=b", "a=b=c", "=b", "a", "a="} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		key, value, err := parseHeader(s)
		switch well := strings.IndexByte(s, '=') > 0; {
		case well != (err == nil):
			t.Errorf("parseHeader(%q): %v", s, err)
		case err != nil:
			refusal(t, s, err)
		case key+"="+value != s || strings.Contains(key, "="):
			t.Errorf("parseHeader(%q) = %q, %q", s, key, value)
		}
	})
}

// refusal holds that an error is one short sentence, which does not repeat an input of several lines.
func refusal(t *testing.T, in string, err error) {
	t.Helper()
	text := err.Error()
	if text == "" || len(text) > 8*driver.MaxListLen || strings.ContainsAny(text, "\n\x00\x1b") || strings.Contains(in, "\n") && strings.Contains(text, in) {
		t.Errorf("%.2000q is refused with %.2000q", in, text)
	}
}

// FuzzFlags sets each kind of flag twice, as from the command line and from the environment. What is accepted is within
// its bounds; a list reads as the same when it is written out.
func FuzzFlags(f *testing.F) {
	for _, s := range []string{"tasks=note", "a=b=note\nc=note", "a=1", "x", "a,b", "q=3,q=3", "available,done", "5", "-1", "99999999999999999999", "1e3", "0x10", "\x00=t", "a=\n"} {
		f.Add(s, "b")
	}
	f.Fuzz(func(t *testing.T, first, second string) {
		set := func(v interface{ Set(string) error }) bool {
			for _, s := range []string{first, second} {
				if err := v.Set(s); err != nil {
					refusal(t, "", err)
					return false
				}
			}
			return true
		}
		var n int
		if set(&count{&n, -5, 5}) && (n < -5 || n > 5) {
			t.Errorf("%q and %q are the number %d", first, second, n)
		}
		var list []string
		if set(&names{&list, "task type"}) {
			for _, s := range list {
				if driver.CheckName("", s, driver.MaxNameLen) != nil {
					t.Errorf("%q and %q are the names %q", first, second, list)
				}
			}
		}
		var in, again []driver.Intake
		if set(&intakes{&in}) {
			if err := (&intakes{&again}).Set((&intakes{&in}).String()); err != nil || !slices.Equal(in, again) {
				t.Errorf("the intakes %q came back as %q, %v", in, again, err)
			}
		}
		var queues, sameQueues []waggle.Queue
		if set(&weights{&queues}) {
			if err := (&weights{&sameQueues}).Set((&weights{&queues}).String()); err != nil || !slices.Equal(queues, sameQueues) {
				t.Errorf("the queues %v came back as %v, %v", queues, sameQueues, err)
			}
		}
		var wanted []driver.State
		if set(&states{&wanted}) && slices.ContainsFunc(wanted, func(s driver.State) bool { return !s.Valid() }) {
			t.Errorf("%q and %q are the states %v", first, second, wanted)
		}
		pairs := map[string]string{}
		if set(&headers{&pairs}) && len(pairs) != strings.Count(first+"\n"+second, "\n")+1 {
			t.Errorf("%q and %q are the headers %q", first, second, pairs)
		}
	})
}

func FuzzLineReader(f *testing.F) {
	f.Add([]byte("a\nb\r\n\xff\n"), 4)
	f.Add(bytes.Repeat([]byte("x"), 70_000), 100)
	f.Fuzz(func(t *testing.T, in []byte, limit int) {
		limit = min(max(limit, 0), 1<<20)
		texts, bad := collect(t, bytes.NewReader(in), limit)
		want := bytes.Count(in, []byte("\n"))
		if len(in) > 0 && in[len(in)-1] != '\n' {
			want++
		}
		if len(texts)+len(bad) != want {
			t.Errorf("%d lines and %d refused of %d", len(texts), len(bad), want)
		}
		for _, s := range texts {
			if !utf8.ValidString(s) || strings.Contains(s, "\n") {
				t.Errorf("%q is no line of text", s)
			}
			if len(s) > limit || !bytes.Contains(in, []byte(s)) {
				t.Errorf("the line %q is not in the input, or longer than %d", s, limit)
			}
		}
	})
}

func FuzzVisible(f *testing.F) {
	f.Add("a\x1b[2J\u202e\n")
	f.Fuzz(func(t *testing.T, s string) {
		shown := visible(s)
		for _, r := range shown {
			if unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp) {
				t.Errorf("visible(%q) has %U", s, r)
			}
		}
		if visible(shown) != shown || utf8.RuneCountInString(shown) > len(s) {
			t.Errorf("visible(%q) = %q", s, shown)
		}
	})
}
