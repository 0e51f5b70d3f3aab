package stores

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/waggleq/waggle/driver"
)

func TestSplit(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ in, scheme, rest string }{
		{"memory:", "memory", ""},
		{"sqlite:q.db", "sqlite", "q.db"},
		{"SQLite:///var/q.db", "sqlite", "///var/q.db"},
		{"q.db", "sqlite", "q.db"},
		{"dir/q", "sqlite", "dir/q"},
		{"/var/lib/q.sqlite3", "sqlite", "/var/lib/q.sqlite3"},
		{"./a:b.db", "sqlite", "./a:b.db"},
	} {
		scheme, rest, err := split(c.in)
		if err != nil || scheme != c.scheme || rest != c.rest {
			t.Errorf("split(%q) = %q, %q, %v; want %q, %q", c.in, scheme, rest, err, c.scheme, c.rest)
		}
	}
}

func TestBadURLs(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"kafka://host":            `no store has the URL scheme "kafka": use memory:, redis:, redis+cluster:, redis+unix:, redis-sentinel:, rediss:, rediss+cluster:, rediss-sentinel:, sqlite:, valkey:, valkey+unix:, valkeys:`,
		"redis:localhost":         "redis://",
		"redis://h:0":             `port is not a number`,
		"redis://:hunter2@a,b":    "one host",
		"redis-sentinel://h":      "name of the master",
		"redis+cluster://h/3":     "only database 0",
		"redis://h?color=blue":    `unknown option "color"`,
		"redis://u:hunter2%@host": "redis://u:xxxxx@host",
		"":                        "URL is empty",
		"queue":                   "neither a URL nor a path",
		"sqlite:":                 "write sqlite:PATH",
		"sqlite://host/q.db":      "on this machine",
		"memory:x":                "has no name",
		"sqlite:a\x00b":           "NUL byte",
		"sqlite:a.db?foo=1":       `unknown option "foo"`,
		"./a.db?foo":              `unknown option "foo"`,
		"nope://u:hunter2@host/0": `scheme "nope"`,
	} {
		_, err := Open(t.Context(), in)
		if !errors.Is(err, driver.ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("Open(%q): %v; want an ErrInvalid that says %q", in, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("Open(%q) tells the password: %v", in, err)
		}
	}
}

func TestOpenExistingMakesNothing(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "q.db")
	if _, err := OpenExisting(t.Context(), "sqlite:"+path); !errors.Is(err, driver.ErrUnavailable) || !strings.Contains(err.Error(), path) {
		t.Errorf("got %v, want ErrUnavailable with the path", err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file was made: %v", err)
	}
	for _, open := range []func(context.Context, string) (driver.Store, error){Open, OpenExisting} {
		store, err := open(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestSQLitePath(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{"q.db": "q.db", "/a/q.db": "/a/q.db", "///a/q.db": "/a/q.db"} {
		if got, err := sqlitePath(in); err != nil || got != want {
			t.Errorf("sqlitePath(%q) = %q, %v; want %q", in, got, err, want)
		}
	}
}

func TestDefaultURL(t *testing.T) {
	state := t.TempDir()
	t.Setenv("XDG_STATE_HOME", state)
	if got, err := DefaultURL(); err != nil || got != "sqlite:"+filepath.Join(state, "waggle", "waggle.db") {
		t.Errorf("with XDG_STATE_HOME: %q, %v", got, err)
	}
	t.Setenv("XDG_STATE_HOME", "relative")
	t.Setenv("HOME", "/home/bee")
	if got, err := DefaultURL(); err != nil || got != "sqlite:/home/bee/.local/state/waggle/waggle.db" {
		t.Errorf("a relative XDG_STATE_HOME is to be ignored: %q, %v", got, err)
	}
}

func TestOpenDefaultMakesItsDirectory(t *testing.T) {
	t.Setenv("XDG_STATE_HOME", filepath.Join(t.TempDir(), "new"))
	store, err := OpenDefault(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Close(); err != nil {
		t.Error(err)
	}
}

func TestRedact(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"sqlite:q.db":                         "sqlite:q.db",
		"redis://bee:hunter2@host:6379/0":     "redis://bee:xxxxx@host:6379/0",
		"redis://host/0?password=hunter2&n=1": "redis://host/0?n=xxxxx&password=xxxxx",
		"redis://bee:hunter2%@host":           "redis://bee:xxxxx@host",
		"redis-sentinel://:hunter2@a:1,b:2/m": "redis-sentinel://:xxxxx@a:1,b:2/m",
		"redis+cluster://a:1,b:2?shards=4":    "redis+cluster://a:1,b:2?shards=4",
		"redis://h?password_file=%2Frun%2Fp":  "redis://h?password_file=%2Frun%2Fp",
		"redis:bee:hunter2@host":              "redis:xxxxx",
		"redis://hunter2@host":                "redis://xxxxx@host",
		"redis//:hunter2@host":                "xxxxx",
		"sqlite://u:hunter2@h/x":              "sqlite://u:xxxxx@h/x",
		"sqlite:/home/bee@hive/q.db":          "sqlite:/home/bee@hive/q.db",
		"./bee@hive/q.db":                     "./bee@hive/q.db",
		"bee:hunter2@host":                    "xxxxx",
	} {
		if got := Redact(in); got != want {
			t.Errorf("Redact(%q) = %q, want %q", in, got, want)
		}
	}
}

// FuzzRedact has a secret where a password is, and where a query parameter's value is: whatever stands around it, the
// URL that people read does not have it.
func FuzzRedact(f *testing.F) {
	for _, s := range []string{"bee", "", "b%ee", "a=1;b=2", "a=%zz", "\x00", " ", "[::1]", "é"} {
		for _, tail := range []string{"host/0", "[::1]:1?token=x", "a:1,b:2/m", "b:c@d", ":%zz", ";x", "\x7f", "&n=1"} {
			f.Add(s, tail, false)
			f.Add(s, tail, true)
		}
	}
	f.Fuzz(func(t *testing.T, before, after string, inQuery bool) {
		const secret = "hunter2canary"
		raw := "redis://" + before + ":" + secret + "@" + after
		for _, mistaken := range []string{"redis://" + secret + "@" + after, "redis//:" + secret + "@" + after, "sqlite://u:" + secret + "@" + after} {
			if got := Redact(mistaken); strings.Contains(got, secret) {
				t.Errorf("Redact of %q tells the password: %q", mistaken, got)
			}
		}
		if inQuery {
			raw = "redis://host/0?" + before + "&password=" + secret + after
		}
		if strings.Contains(before, "#") || !inQuery && strings.ContainsAny(before, "/?@") {
			return // it would stand somewhere else
		}
		if got := Redact(raw); strings.Contains(got, secret) {
			t.Errorf("Redact of %q tells the password: %q", raw, got)
		}
	})
}

// FuzzCheck hands in any store URL. What is refused is refused in one sentence, without the password.
func FuzzCheck(f *testing.F) {
	for _, s := range []string{"", "sqlite:x.db", "sqlite:///x", "sqlite://host/x", "./a:b.db", "redis://u:%s@h", "c:\\x.db", "memory:", "no:such", "\x00"} {
		f.Add(s)
	}
	const secret = "hunter2canary"
	f.Fuzz(func(t *testing.T, format string) {
		raw := strings.ReplaceAll(format, "%s", secret)
		scheme, rest, err := split(raw)
		if (Check(raw) == nil) != (err == nil) {
			t.Errorf("Check(%q) does not agree with split: %v", raw, err)
		}
		switch {
		case err != nil && !errors.Is(err, driver.ErrInvalid):
			t.Errorf("%q: %v", raw, err)
		case err != nil && strings.Contains(err.Error(), secret) && strings.HasPrefix(format, "redis://user:%s@"):
			t.Errorf("%q is refused with its password: %v", raw, err)
		case err == nil && engines[scheme] == nil:
			t.Errorf("%q has the scheme %q, which no engine has", raw, scheme)
		case err == nil && scheme == "sqlite":
			if path, err := sqlitePath(rest); err == nil && (path == "" || strings.ContainsRune(path, 0)) {
				t.Errorf("%q is the path %q", raw, path)
			}
		}
	})
}
