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
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
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
		if looksLikeFile(storeURL) && shownWhole(storeURL) {
			return "sqlite", storeURL, nil
		}
		return "", "", driver.Invalidf("the store %q is neither a URL nor a path: use %s or the path of a .db file", Redact(storeURL), knownSchemes())
	}
	scheme = strings.ToLower(scheme)
	switch {
	case engines[scheme] != nil:
		return scheme, rest, nil
	case strings.Contains(storeURL, "@") && !strings.HasPrefix(rest, "//"): // it may be a part of a secret
		return "", "", driver.Invalidf("no store has the scheme of this URL: use %s", knownSchemes())
	case isPort(rest):
		return "", "", driver.Invalidf("the store %q has no scheme: write redis://%s for a server", driver.CutText(storeURL, 64), driver.CutText(storeURL, 64))
	}
	return "", "", driver.Invalidf("no store has the URL scheme %q: use %s", driver.CutText(scheme, 64), knownSchemes())
}

// isPort reports whether what follows a colon is a port, so that a host stands before it.
func isPort(rest string) bool {
	n, err := strconv.Atoi(rest)
	return err == nil && n > 0 && n < 1<<16
}

// shownWhole reports whether people may read a path: else it may be a URL with a password, and no error must tell it.
func shownWhole(path string) bool { return !strings.Contains(path, "@") || Redact(path) == path }

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
	query := rest[strings.LastIndexByte(rest, '/')+1:]
	if _, tail, _ := strings.Cut(rest, "?"); strings.Contains(tail, "=") {
		query = "?" + tail
	}
	if _, query, found := strings.Cut(query, "?"); found {
		return "", driver.Invalidf("the URL of the SQLite store has the unknown option %q: there are none for SQLite, write sqlite:PATH", optionName(query))
	}
	path, hasHost := strings.CutPrefix(rest, "//")
	if hasHost && !strings.HasPrefix(path, "/") {
		return "", driver.Invalidf("a SQLite store is on this machine: write sqlite:PATH or sqlite:///PATH, not %s", Redact("sqlite:"+rest))
	}
	switch {
	case path == "":
		return "", driver.Invalidf("the SQLite store has no path: write sqlite:PATH")
	case !shownWhole("sqlite:" + path):
		return "", driver.Invalidf("what stands before the @ in the path of the SQLite store may be a password: if it is a directory, write sqlite:./PATH")
	case strings.ContainsRune(path, 0):
		return "", driver.Invalidf("the path of the SQLite store has a NUL byte")
	}
	return path, nil
}

// optionName is the name of a query's first option, if it is one.
func optionName(query string) string {
	if name, _, _ := strings.Cut(query, "="); driver.CheckName("option", name, 16) == nil && !strings.Contains(query, "@") {
		return name
	}
	return "?…"
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

// Redact returns a store's URL for people to read: see [driver.RedactURL].
func Redact(storeURL string) string { return driver.RedactURL(storeURL) }
