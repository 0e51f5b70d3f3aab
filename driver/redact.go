package driver

import (
	"net/netip"
	"net/url"
	"slices"
	"strings"
)

// redacted stands in a URL for what people must not read.
const redacted = "xxxxx"

// RedactURL returns a store's URL for people to read. It shows what is known to be no secret (a scheme, a user's name beside a
// password, hosts, ports, a database, the options of stores) and hides the rest: what may be a password that stands at the
// wrong place, or has characters that end it early, hides all that it could be a part of. A path is shown, unless it may be
// a URL that lacks its scheme.
func RedactURL(raw string) string {
	scheme, rest, found := strings.Cut(raw, "://")
	if !found || !nameLike(scheme, "+") {
		return redactPath(raw)
	}
	if scheme == "sqlite" && strings.HasPrefix(rest, "/") && !strings.HasPrefix(rest, "//") {
		return raw
	}
	user, rest, found := cutLast(rest, "@")
	if !found {
		rest, user = user, ""
	} else if name, _, has := strings.Cut(user, ":"); !has || strings.ContainsAny(user, "/?#@") || name != "" && !nameLike(name, "") {
		user = redacted + "@"
	} else {
		user = name + ":" + redacted + "@"
	}
	authority, tail := rest, ""
	if i := strings.IndexAny(rest, "/?#"); i >= 0 {
		authority, tail = rest[:i], rest[i:]
	}
	path, query, hasQuery := strings.Cut(tail, "?")
	if !hostsLike(authority) || !harmless(path) {
		return scheme + ":" + redacted
	}
	if hasQuery {
		path += "?" + redactQuery(query)
	}
	return scheme + "://" + user + authority + path
}

// redactPath is RedactURL for what has no "://" behind a scheme.
func redactPath(raw string) string {
	before, _, found := strings.Cut(raw, "@")
	if !found || !nestsURL(before) {
		path, _, hasQuery := strings.Cut(raw, "?")
		if hasQuery {
			path += "?" + redacted
		}
		return path
	}
	if scheme, _, _ := strings.Cut(raw, ":"); slices.Contains([]string{"sqlite", "redis", "rediss", "valkey", "valkeys"}, scheme) {
		return scheme + ":" + redacted
	}
	return redacted
}

// nestsURL reports whether what stands before an @ may have a password in it: it does unless it begins as a path does.
func nestsURL(before string) bool {
	path := strings.TrimPrefix(before, "sqlite:")
	for _, p := range []string{"/", "./", "../", "~/", `.\`, `..\`} {
		if strings.HasPrefix(path, p) && !strings.HasPrefix(path, "//") {
			return false
		}
	}
	drive := len(path) > 2 && path[1] == ':' && (path[2] == '\\' || path[2] == '/')
	return !drive
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}

// nameLike reports whether s is made of letters, digits and a few signs.
func nameLike(s, more string) bool {
	for i := range len(s) {
		if c := s[i] | 0x20; (c < 'a' || c > 'z') && (s[i] < '0' || s[i] > '9') && !strings.Contains("._-"+more, s[i:i+1]) {
			return false
		}
	}
	return s != ""
}

// hostsLike reports whether s is nothing but hosts with their ports.
func hostsLike(s string) bool {
	for h := range strings.SplitSeq(s, ",") {
		if _, err := netip.ParseAddr(strings.Trim(h, "[]")); err == nil || h == "" {
			continue
		}
		host, port, _ := cutLast(h, ":")
		if !strings.Contains(h, ":") {
			host, port = h, ""
		}
		if strings.HasPrefix(host, "[") {
			if _, err := netip.ParseAddr(strings.Trim(host, "[]")); err != nil {
				return false
			}
		} else if host != "" && !nameLike(host, "") {
			return false
		}
		if len(port) > 5 || strings.Trim(port, "0123456789") != "" {
			return false
		}
	}
	return true
}

// harmless reports whether s, a path or the value of an option, has nothing that a URL reads as something else.
func harmless(s string) bool { return s == "" || nameLike(s, "/:,") }

// shownOptions are options of a store's URL whose values are no secrets. Those that end in _file say where one is.
var shownOptions = []string{"ns", "shards", "replicas", "durability", "timeout", "db", "server_name"}

func redactQuery(raw string) string {
	query, err := url.ParseQuery(raw)
	if err != nil { // the part that can't be read may be the one with the secret
		return redacted
	}
	for name, values := range query {
		if !nameLike(name, "") || len(name) > 16 || strings.Join(values, "") == "" {
			return redacted
		}
		if shown := slices.Contains(shownOptions, name) || strings.HasSuffix(name, "_file"); !shown || !harmless(strings.Join(values, "")) {
			query[name] = []string{redacted}
		}
	}
	return query.Encode()
}
