// Package stores opens a store by its URL, so that a program moves from one engine to another by a change of a string:
//
//	store, err := stores.Open(ctx, os.Getenv("QUEUE_STORE")) // sqlite:queue.db here, redis://HOST there
//	…
//	defer store.Close()
//	client, err := waggle.NewClient(store, nil)
//
// It holds the only map of URL schemes to engines, and links all of them. A program that stays with one engine imports
// that engine's package (sqlitestore, redisstore or memstore) instead, and links no other.
package stores

import (
	"context"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/waggleq/waggle/driver"
)

// opener opens the store that a URL names. The scheme is one that the map of engines gives it; rest is what follows
// the colon. With mustExist no store is made.
type opener func(ctx context.Context, scheme, rest string, mustExist bool) (driver.Store, error)

// Schemes lists the URL schemes that [Open] knows, sorted.
func Schemes() []string { return slices.Sorted(maps.Keys(engines)) }

// Open opens the store that a URL names:
//
//	sqlite:PATH, or just a PATH   a SQLite file, made if it is not there, in a directory that is
//	memory:                       a store in this process, gone with it
//	redis://HOST[:PORT]           a Redis server, with TLS rediss:; valkey: and valkeys: are the same for Valkey
//	redis-sentinel://HOST,…/NAME  the master that Sentinel knows by this name; with TLS rediss-sentinel:
//	redis+cluster://HOST,…        a Redis or Valkey Cluster; with TLS rediss+cluster:
//
// A Redis URL may hold more: see the Open function of package redisstore. Close the store when its clients and workers
// have ended.
//
// It returns [driver.ErrInvalid] for a URL that names no engine, the empty one among them, or has an option that the engine
// does not know, and otherwise what the engine returns; no error text holds a password.
func Open(ctx context.Context, storeURL string) (driver.Store, error) {
	return open(ctx, storeURL, false)
}

// OpenExisting is [Open] for programs that only look: where there is no SQLite file it makes none and returns
// [driver.ErrUnavailable]. On the other engines it is the same as Open.
func OpenExisting(ctx context.Context, storeURL string) (driver.Store, error) {
	return open(ctx, storeURL, true)
}

func open(ctx context.Context, storeURL string, mustExist bool) (driver.Store, error) {
	scheme, rest, err := split(storeURL)
	if err != nil {
		return nil, err
	}
	return engines[scheme](ctx, scheme, rest, mustExist)
}

// OpenDefault opens the store at [DefaultURL], and makes its directory if needed.
func OpenDefault(ctx context.Context) (driver.Store, error) {
	path, err := defaultPath()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, driver.Errorf(driver.ErrUnavailable, "can't make the directory of the default store: %w; name another store with --store", err)
	}
	return engines["sqlite"](ctx, "sqlite", path, false)
}

// Check returns [driver.ErrInvalid] if [Open] could not tell which engine a URL means. It opens nothing.
func Check(storeURL string) error {
	_, _, err := split(storeURL)
	return err
}

// split finds the scheme of a store's URL; a plain path is a SQLite file.
func split(storeURL string) (scheme, rest string, err error) {
	if storeURL == "" {
		return "", "", driver.Invalidf("the store's URL is empty: use %s or the path of a .db file", knownSchemes())
	}
	scheme, rest, found := strings.Cut(storeURL, ":")
	if !found || isPath(storeURL, scheme) {
		if name, _, slashes := strings.Cut(storeURL, "//"); slashes && engines[strings.ToLower(name)] != nil { // no path: it may have a password
			return "", "", driver.Invalidf("the store's URL lacks a colon: write %s://…", strings.ToLower(name))
		}
		if looksLikeFile(storeURL) {
			return "sqlite", storeURL, nil
		}
		return "", "", driver.Invalidf("the store %q is neither a URL nor a path: use %s or the path of a .db file", Redact(storeURL), knownSchemes())
	}
	scheme = strings.ToLower(scheme)
	if _, ok := engines[scheme]; !ok {
		return "", "", driver.Invalidf("no store has the URL scheme %q: use %s", scheme, knownSchemes())
	}
	return scheme, rest, nil
}

// isPath tells a path that happens to hold a colon from a URL: what stands before the colon has a separator, or is a
// drive letter.
func isPath(storeURL, scheme string) bool {
	return len(scheme) < 2 || strings.ContainsAny(scheme, `/\`) || filepath.VolumeName(storeURL) != ""
}

func looksLikeFile(path string) bool {
	switch strings.ToLower(filepath.Ext(path)) {
	case ".db", ".sqlite", ".sqlite3":
		return true
	}
	return strings.ContainsAny(path, `/\`)
}

func knownSchemes() string {
	names := Schemes()
	for i, n := range names {
		names[i] = n + ":"
	}
	return strings.Join(names, ", ")
}

// sqlitePath returns the file that the part after "sqlite:" names; three slashes begin an absolute path, as in a URL.
func sqlitePath(rest string) (string, error) {
	if _, query, found := strings.Cut(rest[strings.LastIndexByte(rest, '/')+1:], "?"); found {
		name, _, _ := strings.Cut(query, "=")
		return "", driver.Invalidf("the URL of the SQLite store has the unknown option %q: there are none for SQLite, write sqlite:PATH", driver.CutText(name, 64))
	}
	path, hasHost := strings.CutPrefix(rest, "//")
	if hasHost && !strings.HasPrefix(path, "/") {
		return "", driver.Invalidf("a SQLite store is on this machine: write sqlite:PATH or sqlite:///PATH, not %s", Redact("sqlite:"+rest))
	}
	switch {
	case path == "":
		return "", driver.Invalidf("the SQLite store has no path: write sqlite:PATH")
	case strings.ContainsRune(path, 0):
		return "", driver.Invalidf("the path of the SQLite store has a NUL byte")
	}
	return path, nil
}

// DefaultURL is the store that every terminal of a user shares, and that the waggle command uses if it is told no other: waggle/waggle.db in the XDG state directory.
func DefaultURL() (string, error) {
	path, err := defaultPath()
	if err != nil {
		return "", err
	}
	return "sqlite:" + path, nil
}

func defaultPath() (string, error) {
	dir := os.Getenv("XDG_STATE_HOME")
	if !filepath.IsAbs(dir) { // the XDG specification: relative paths are to be ignored
		home, err := stateHome()
		if err != nil {
			return "", driver.Invalidf("there is no home directory for the default store (%v): name one with --store or WAGGLE_STORE", err)
		}
		dir = home
	}
	return filepath.Join(dir, "waggle", "waggle.db"), nil
}

func stateHome() (string, error) {
	if runtime.GOOS == "windows" {
		return os.UserCacheDir() // %LocalAppData%
	}
	home, err := os.UserHomeDir()
	return filepath.Join(home, ".local", "state"), err
}

// hidden stands in a URL for what people must not read.
const hidden = "xxxxx"

// Redact returns a store's URL for people to read: a password in it is replaced by "xxxxx", and so are a user without a
// password, which may be one by mistake, and the value of every query parameter that may hold a secret. What can't be
// parsed but may hold a password is cut down to its scheme.
func Redact(storeURL string) string {
	if !strings.Contains(storeURL, "@") && !strings.Contains(storeURL, "?") {
		return storeURL
	}
	scheme, _, _ := strings.Cut(storeURL, ":")
	oneHost, hosts := joinHosts(storeURL)
	u, err := url.Parse(oneHost)
	switch {
	case err != nil:
		return cutToScheme(scheme)
	case u.User == nil && strings.Contains(storeURL, "@"):
		before, _, _ := strings.Cut(storeURL, "@")
		if u.Scheme != "sqlite" && u.Scheme != "" || u.Scheme == "" && (strings.Contains(before, "//") || strings.Contains(before, ":")) {
			return cutToScheme(scheme)
		}
	case u.User != nil:
		password, has := u.User.Password()
		switch name := u.User.Username(); {
		case has && !strings.ContainsAny(name, "@:/"):
		case has && password != "":
			u.User = url.UserPassword(hidden, hidden)
		default:
			u.User = url.User(hidden)
		}
	}
	u.RawQuery = redactQuery(u.RawQuery)
	if hosts != "" {
		return strings.Replace(u.Redacted(), hostsMark, hosts, 1)
	}
	return u.Redacted()
}

// cutToScheme is what is left of a URL that may have a secret anywhere. What is no scheme may be a part of the secret.
func cutToScheme(scheme string) string {
	if engines[scheme] == nil {
		return hidden
	}
	return scheme + ":" + hidden
}

func redactQuery(raw string) string {
	query, err := url.ParseQuery(raw)
	switch {
	case err != nil: // the part that can't be read may be the one with the secret
		return hidden
	case len(query) == 0:
		return raw
	}
	for name := range query {
		if secretName(name) {
			query.Set(name, hidden)
		}
	}
	return query.Encode()
}

// hostsMark stands for a list of hosts, which [url.Parse] does not take.
const hostsMark = "hosts~of~a~store"

// joinHosts replaces the list of hosts of a store's URL by a mark, and returns it; empty if there is no list.
func joinHosts(storeURL string) (oneHost, hosts string) {
	scheme, rest, found := strings.Cut(storeURL, "://")
	end := strings.IndexAny(rest, "/?#")
	if end < 0 {
		end = len(rest)
	}
	hosts = rest[strings.LastIndexByte(rest[:end], '@')+1 : end]
	if !found || !strings.Contains(hosts, ",") {
		return storeURL, ""
	}
	return scheme + "://" + rest[:end-len(hosts)] + hostsMark + rest[end:], hosts
}

func secretName(name string) bool {
	name = strings.ToLower(name)
	if strings.HasSuffix(name, "_file") {
		return false // where a secret is, not the secret
	}
	return slices.ContainsFunc([]string{"pass", "secret", "token", "key", "auth"}, func(part string) bool {
		return strings.Contains(name, part)
	})
}
