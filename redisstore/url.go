package redisstore

import (
	"crypto/tls"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/rueidis"

	"github.com/waggleq/waggle/driver"
)

// mode is how servers are arranged.
type mode int

const (
	standalone mode = iota
	sentinel
	cluster
)

// target is what a store URL says.
type target struct {
	mode      mode
	socket    bool // the address is the path of a Unix socket
	addresses []string
	master    string // of Sentinel
	username  string
	password  string // of the URL itself
	database  int
	namespace string
	shards    int
	tls       *tls.Config
	files     *secretFiles

	// What the options leave open; zero: the URL does not say.
	replicas   int
	durability driver.Durability
	timeout    time.Duration
}

var schemes = map[string]struct {
	mode   mode
	tls    bool
	socket bool
}{
	"redis": {mode: standalone}, "valkey": {mode: standalone}, "rediss": {mode: standalone, tls: true}, "valkeys": {mode: standalone, tls: true},
	"redis+unix": {mode: standalone, socket: true}, "valkey+unix": {mode: standalone, socket: true},
	"redis-sentinel": {mode: sentinel}, "rediss-sentinel": {mode: sentinel, tls: true},
	"redis+cluster": {mode: cluster}, "rediss+cluster": {mode: cluster, tls: true},
}

// parseURL reads a store URL:
//
//	redis://[user:password@]host[:6379][/database][?ns=NAME&password_file=FILE]
//	rediss://…            the same over TLS; ?ca_file=FILE&cert_file=FILE&key_file=FILE&server_name=NAME
//	valkey://…            the same as redis://
//	redis+unix://[user:password@]/path/of/socket[?db=NUMBER]
//	redis-sentinel://[user:password@]host:26379,host:26379/master[/database]
//	redis+cluster://[user:password@]host,host[?shards=16]
//
// and, with each of them, ?replicas=N&durability=LEVEL&timeout=DURATION.
//
// No error shows a password.
func parseURL(raw string) (*target, error) {
	scheme, rest, ok := strings.Cut(raw, "://")
	kind, known := schemes[scheme]
	if !ok || !known {
		return nil, driver.Invalidf("a store URL for Redis starts with redis://, rediss://, valkey://, redis+unix://, redis-sentinel:// or redis+cluster://")
	}
	// net/url takes one host only; the list is put back afterwards.
	authority, tail := rest, ""
	if i := strings.IndexAny(rest, "/?#"); i >= 0 {
		authority, tail = rest[:i], rest[i:]
	}
	userinfo, hosts := "", authority
	if i := strings.LastIndexByte(authority, '@'); i >= 0 {
		userinfo, hosts = authority[:i+1], authority[i+1:]
	}
	if path, _, _ := strings.Cut(tail, "?"); strings.Contains(tail, "@") && (!kind.socket || authority != "" || !strings.Contains(path, "@")) {
		return nil, driver.Invalidf("the store URL has an @ after its host: in a password / is written %%2F, ? is %%3F and # is %%23")
	}
	u, err := url.Parse("redis://" + userinfo + "host" + tail)
	if err != nil {
		return nil, driver.Invalidf("the store URL %s can't be read: check its user, password and path for characters that need %%-escapes", driver.RedactURL(raw))
	}
	t := &target{mode: kind.mode, socket: kind.socket, namespace: "default", shards: 1, files: &secretFiles{}}
	if kind.tls {
		t.tls = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	if t.mode == cluster {
		t.shards = 16
	}
	for _, step := range []func() error{
		func() error { return t.setHosts(hosts) },
		func() error { return t.setPath(u.Path) },
		func() error { return t.setUser(u.User) },
		func() error { return t.setQuery(u.Query()) },
	} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return t, nil
}

func (t *target) setHosts(hosts string) error {
	if t.socket {
		if hosts != "" {
			return driver.Invalidf("a redis+unix:// URL has no host: three slashes and the path of the socket, redis+unix:///run/redis.sock")
		}
		return nil
	}
	port := "6379"
	if t.mode == sentinel {
		port = "26379"
	}
	for h := range strings.SplitSeq(hosts, ",") {
		if h == "" {
			h = "127.0.0.1"
		}
		host, p, err := net.SplitHostPort(h)
		if err != nil {
			host, p = h, port
			if strings.HasPrefix(h, "[") && strings.HasSuffix(h, "]") {
				host = h[1 : len(h)-1]
			}
			if _, err := netip.ParseAddr(host); err != nil && strings.ContainsAny(host, ":[]") {
				return driver.Invalidf("the store URL's host is neither a name nor an address: put an IPv6 address with a port in brackets, [::1]:6379")
			}
		}
		// No message shows the port: it may be a password whose @ is missing, or a part of one.
		if host == "" {
			return driver.Invalidf("the store URL has no host before the colon: write redis://127.0.0.1:PORT, or redis://:PASSWORD@HOST for a password")
		}
		if n, err := strconv.Atoi(p); err != nil || n < 1 || n > 65535 {
			return driver.Invalidf("the store URL's port is not a number between 1 and 65535; a password goes before the host: redis://:PASSWORD@HOST:PORT")
		}
		t.addresses = append(t.addresses, net.JoinHostPort(host, p))
	}
	if t.mode == standalone && len(t.addresses) > 1 {
		return driver.Invalidf("a redis:// URL has one host; several are for redis-sentinel:// or redis+cluster://")
	}
	return nil
}

func (t *target) setPath(path string) error {
	if t.socket {
		if strings.Trim(path, "/") == "" {
			return driver.Invalidf("a redis+unix:// URL names the server's socket: redis+unix:///run/redis.sock")
		}
		t.addresses = []string{path}
		return nil
	}
	path = strings.Trim(path, "/")
	if t.mode == sentinel {
		t.master, path, _ = strings.Cut(path, "/")
		if t.master == "" {
			return driver.Invalidf("a redis-sentinel:// URL ends with the name of the master: redis-sentinel://host:26379/mymaster")
		}
	}
	if path == "" {
		return nil
	}
	return t.setDatabase(path)
}

func (t *target) setDatabase(text string) error {
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 {
		return driver.Invalidf("the store URL's database, what follows the slash after the host, is not a number")
	}
	if t.mode == cluster && n != 0 {
		return driver.Invalidf("a cluster has only database 0, got %d", n)
	}
	t.database = n
	return nil
}

func (t *target) setUser(user *url.Userinfo) error {
	if user == nil {
		return nil
	}
	t.username = user.Username()
	t.password, _ = user.Password()
	return nil
}

var queryKeys = []string{"ns", "password_file", "ca_file", "cert_file", "key_file", "server_name", "shards", "replicas", "durability", "timeout", "db"}

func (t *target) setQuery(q url.Values) error {
	for k := range q {
		if !slices.Contains(queryKeys, k) {
			if driver.CheckName("option", k, 16) != nil || q.Get(k) == "" {
				k = "?…" // it may be a part of a secret
			}
			return driver.Invalidf("the store URL has an unknown option %q: use %s", k, strings.Join(queryKeys, ", "))
		}
	}
	if ns := q.Get("ns"); ns != "" {
		if err := driver.CheckName("namespace (ns)", ns, 64); err != nil {
			return err
		}
		t.namespace = ns
	}
	for name, n := range map[string]struct {
		value *int
		most  int
	}{"shards": {&t.shards, 1024}, "replicas": {&t.replicas, 100}} {
		if err := setNumber(q, name, n.value, n.most); err != nil {
			return err
		}
	}
	if err := t.setPromise(q); err != nil {
		return err
	}
	if q.Has("db") {
		if !t.socket {
			return driver.Invalidf("the option db is for redis+unix://: in other store URLs the database is the path, redis://host/2")
		}
		if err := t.setDatabase(q.Get("db")); err != nil {
			return err
		}
	}
	t.files.password = q.Get("password_file")
	if err := t.files.readPassword(); err != nil {
		return err
	}
	return t.setTLS(q)
}

func setNumber(q url.Values, name string, value *int, most int) error {
	if !q.Has(name) {
		return nil
	}
	n, err := strconv.Atoi(q.Get(name))
	if err != nil || n < 1 || n > most {
		return driver.Invalidf("the store URL's number of %s must be between 1 and %d, got %q", name, most, q.Get(name))
	}
	*value = n
	return nil
}

// setPromise reads what the store promises where the options say nothing.
func (t *target) setPromise(q url.Values) error {
	if q.Has("durability") {
		t.durability = driver.Durability(q.Get("durability"))
		if !slices.Contains(driver.Durabilities, t.durability) {
			return driver.Invalidf("the store URL's durability must be memory, disk or replicated, got %q", t.durability)
		}
	}
	if q.Has("timeout") {
		d, err := time.ParseDuration(q.Get("timeout"))
		if err != nil || d <= 0 {
			return driver.Invalidf("the store URL's timeout must be a duration such as 3s, got %q", q.Get("timeout"))
		}
		t.timeout = d
	}
	return nil
}

func (t *target) setTLS(q url.Values) error {
	ca, cert, key, name := q.Get("ca_file"), q.Get("cert_file"), q.Get("key_file"), q.Get("server_name")
	if ca+cert+key+name == "" {
		return nil
	}
	if t.tls == nil {
		return driver.Invalidf("the store URL has options for TLS but no TLS: use rediss://")
	}
	t.tls.ServerName = name
	t.files.ca, t.files.cert, t.files.key = ca, cert, key
	return t.files.readTLS()
}

// network is how its addresses are reached.
func (t *target) network() string {
	if t.socket {
		return "unix"
	}
	return "tcp"
}

// clientOption returns what the client library needs.
func (t *target) clientOption() rueidis.ClientOption {
	o := rueidis.ClientOption{
		InitAddress: t.addresses, Username: t.username, Password: t.password, SelectDB: t.database, TLSConfig: t.tls,
		DisableCache: true, DisableRetry: true, ClientName: "waggle", ForceSingleClient: t.mode == standalone,
	}
	if t.files.password != "" {
		o.AuthCredentialsFn = t.credentials
	}
	if t.mode == sentinel {
		o.Sentinel = rueidis.SentinelOption{MasterSet: t.master, TLSConfig: t.tls}
	}
	return o
}
