package redisstore

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/waggleq/waggle/driver"
)

func TestParseURL(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string]target{
		"redis://localhost":                     {mode: standalone, addresses: []string{"localhost:6379"}, namespace: "default", shards: 1},
		"valkey://u:p%40ss@h:1/2?ns=x":          {mode: standalone, addresses: []string{"h:1"}, username: "u", password: "p@ss", database: 2, namespace: "x", shards: 1},
		"redis://[::1]:7":                       {mode: standalone, addresses: []string{"[::1]:7"}, namespace: "default", shards: 1},
		"redis://::1/3":                         {mode: standalone, addresses: []string{"[::1]:6379"}, database: 3, namespace: "default", shards: 1},
		"redis+cluster://::1,[::2]:7":           {mode: cluster, addresses: []string{"[::1]:6379", "[::2]:7"}, namespace: "default", shards: 16},
		"redis+unix:///run/r.sock":              {mode: standalone, addresses: []string{"/run/r.sock"}, namespace: "default", shards: 1},
		"valkey+unix://u:pw@/r%20s?db=2&ns=x":   {mode: standalone, addresses: []string{"/r s"}, username: "u", password: "pw", database: 2, namespace: "x", shards: 1},
		"redis-sentinel://:pw@a:1,b/mymaster/3": {mode: sentinel, addresses: []string{"a:1", "b:26379"}, master: "mymaster", password: "pw", database: 3, namespace: "default", shards: 1},
		"redis+cluster://a:1,b:2?shards=64":     {mode: cluster, addresses: []string{"a:1", "b:2"}, namespace: "default", shards: 64},
		"redis+cluster://a":                     {mode: cluster, addresses: []string{"a:6379"}, namespace: "default", shards: 16},
		"redis://h?replicas=2&durability=replicated&timeout=3s": {mode: standalone, addresses: []string{"h:6379"}, namespace: "default", shards: 1,
			replicas: 2, durability: driver.DurabilityReplicated, timeout: 3 * time.Second},
		"rediss://h?server_name=example.org": {mode: standalone, addresses: []string{"h:6379"}, namespace: "default", shards: 1},
	} {
		got, err := parseURL(raw)
		if err != nil {
			t.Errorf("%s: %v", raw, err)
			continue
		}
		if strings.HasPrefix(raw, "rediss") != (got.tls != nil) {
			t.Errorf("%s: TLS is %v", raw, got.tls != nil)
		}
		if got.mode != want.mode || !slices.Equal(got.addresses, want.addresses) || got.master != want.master || got.username != want.username ||
			got.password != want.password || got.database != want.database || got.namespace != want.namespace || got.shards != want.shards ||
			got.replicas != want.replicas || got.durability != want.durability || got.timeout != want.timeout {
			t.Errorf("%s: got %+v, want %+v", raw, *got, want)
		}
	}
}

func TestParseURLRefusesWithoutShowingSecrets(t *testing.T) {
	t.Parallel()
	const secret = "hunter2secret"
	for _, raw := range []string{
		"", "http://" + secret + "@h", "redis://u:" + secret + "@h:99999", "redis://u:" + secret + "@h/x", "redis://u:" + secret + "@a,b",
		"redis://u:" + secret + "@h?bogus=1", "redis://u:" + secret + "@h?ns=a/b", "redis-sentinel://u:" + secret + "@h",
		"redis+cluster://u:" + secret + "@h/1", "redis+cluster://h?shards=0", "redis://u:%zz" + secret + "@h", "redis://h?ca_file=/x",
		"redis://h?password_file=/nonexistent", "redis://u:a/" + secret + "@h",
		"redis://u:" + secret + "@h:1:2", "redis+unix://u:" + secret + "@", "redis+unix://u:" + secret + "@h/s", "redis+unix:///s?db=x", "redis+unix:///s?db=-1",
		"redis://h?db=1", "redis://[::1", "redis://:12345", "redis://:12345/2", "redis-sentinel://a,:26379/m", "redis+cluster://:7000,b", "redis://h?replicas=0", "redis://h?replicas=two", "redis://h?replicas=", "redis://h?durability=safe", "redis://h?timeout=3", "redis://h?timeout=-3s",
	} {
		_, err := parseURL(raw)
		if !errors.Is(err, driver.ErrInvalid) {
			t.Errorf("%s: got %v, want ErrInvalid", raw, err)
		} else if strings.Contains(err.Error(), secret) {
			t.Errorf("the error shows the password: %v", err)
		}
	}
}

// TestAPasswordOfDigitsIsNoPort leaves out the @ and the host behind it.
func TestAPasswordOfDigitsIsNoPort(t *testing.T) {
	t.Parallel()
	for _, raw := range []string{"redis://:48151623", "redis://:48151/2", "redis://user:48151623"} {
		_, err := parseURL(raw)
		if !errors.Is(err, driver.ErrInvalid) || !strings.Contains(err.Error(), ":PASSWORD@HOST") {
			t.Errorf("%s: got %v, want a hint where a password stands", raw, err)
		} else if strings.Contains(err.Error(), "4815") {
			t.Errorf("the error shows the password: %v", err)
		}
	}
}

func TestPasswordFile(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte("from file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := parseURL("redis://h?password_file=" + file)
	if err != nil || got.files.current() != "from file" || !slices.Contains(got.files.known(), "from file") {
		t.Errorf("got %+v, %v", got, err)
	}
}
