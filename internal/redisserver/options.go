package redisserver

import (
	"cmp"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// AOF says whether a server keeps an append-only file and how often it syncs that to disk.
type AOF string

// The settings of AOF. AOFOff keeps nothing: a restarted server comes back empty.
const (
	AOFOff      AOF = ""
	AOFEverySec AOF = "everysec"
	AOFAlways   AOF = "always"
)

// Options describe one server. The zero value is a Redis on plain TCP with no password and nothing kept on disk.
type Options struct {
	// Flavour is the product; empty means Redis.
	Flavour Flavour
	// AOF is off by default.
	AOF AOF
	// MaxMemory is the data limit in bytes; 0 means none.
	MaxMemory int64
	// MaxMemoryPolicy is the eviction policy; empty means noeviction.
	MaxMemoryPolicy string
	// Password is required of the default user; empty means none.
	Password string
	// Users are ACL rules, each as it follows "user" in an ACL file: "alice on >secret ~app:* +@all". They are kept in a
	// real ACL file, so ACL SAVE and ACL LOAD work.
	Users []string
	// TLS makes the server speak only TLS, with a certificate of its own authority. See Server.TLSConfig.
	TLS bool
	// TLSClientCert additionally demands a client certificate. It implies TLS.
	TLSClientCert bool
	// UnixSocket adds a Unix socket. See Server.UnixSocket.
	UnixSocket bool
	// ReplicaOf makes the server a replica; Start returns once it is in sync. Both must be of one flavour and agree on TLS.
	ReplicaOf *Server
	// Dir is an existing directory in which the server makes its own; empty means that for temporary files.
	Dir string
	// Config are further lines of the configuration file. They come last and so override the others.
	Config []string

	secret string // of controlUser, where several servers share it
}

func (o *Options) withDefaults() *Options {
	var filled Options
	if o != nil {
		filled = *o
	}
	filled.Flavour = cmp.Or(filled.Flavour, Redis)
	filled.MaxMemoryPolicy = cmp.Or(filled.MaxMemoryPolicy, "noeviction")
	filled.TLS = filled.TLS || filled.TLSClientCert
	filled.secret = cmp.Or(filled.secret, rand.Text())
	return &filled
}

func (o *Options) validate() error {
	var problems []error
	if _, ok := product[o.Flavour]; !ok {
		problems = append(problems, fmt.Errorf("unknown flavour %q", o.Flavour))
	}
	switch o.AOF {
	case AOFOff, AOFEverySec, AOFAlways:
	default:
		problems = append(problems, fmt.Errorf("unknown AOF setting %q", o.AOF))
	}
	if o.MaxMemory < 0 {
		problems = append(problems, fmt.Errorf("MaxMemory is negative: %d", o.MaxMemory))
	}
	if strings.ContainsAny(o.Password, " \r\n\"") {
		problems = append(problems, errors.New("the password holds a space, quote or line break"))
	}
	for _, line := range append(append([]string{o.MaxMemoryPolicy}, o.Users...), o.Config...) {
		if strings.ContainsAny(line, "\r\n") {
			problems = append(problems, fmt.Errorf("a setting holds a line break: %q", line))
		}
	}
	if m := o.ReplicaOf; m != nil && (m.o.TLS != o.TLS || m.o.Flavour != o.Flavour) {
		problems = append(problems, errors.New("a replica must have the flavour and the TLS setting of its master"))
	}
	if len(problems) > 0 {
		return fmt.Errorf("redisserver: %w", errors.Join(problems...))
	}
	return nil
}

// controlUser is the account by which this package talks to servers that have ACL users, so that a test may take every
// right from the default user.
const controlUser = "redisserver-control"

// config renders the configuration file of a server in its directory.
func (s *Server) config() string {
	o := s.o
	if s.role == sentinel {
		return strings.Join(append(s.listenConfig(), s.watch.config()...), "\n") + "\n"
	}
	lines := append(s.listenConfig(), `save ""`, "repl-diskless-sync-delay 0", "enable-debug-command local",
		"maxmemory-policy "+o.MaxMemoryPolicy, "maxmemory "+strconv.FormatInt(o.MaxMemory, 10))
	if o.AOF != AOFOff {
		lines = append(lines, "appendonly yes", "appendfsync "+string(o.AOF))
	}
	if o.UnixSocket {
		lines = append(lines, "unixsocket "+strconv.Quote(s.UnixSocket()), "unixsocketperm 700")
	}
	if len(o.Users) > 0 {
		lines = append(lines, "aclfile "+strconv.Quote(s.path("users.acl")))
	} else if o.Password != "" {
		lines = append(lines, "requirepass "+o.Password)
	}
	if s.role == clusterNode {
		lines = append(lines, "cluster-enabled yes", "cluster-config-file nodes.conf",
			"cluster-port "+strconv.Itoa(s.busPort), "cluster-node-timeout "+strconv.FormatInt(s.nodeTimeout.Milliseconds(), 10))
		if o.TLS {
			lines = append(lines, "tls-cluster yes")
		}
	}
	if m := o.ReplicaOf; m != nil {
		lines = append(lines, "replicaof 127.0.0.1 "+strconv.Itoa(m.port))
	}
	if user, password := s.masterCredentials(); password != "" {
		lines = append(lines, "masterauth "+password)
		if user != "" {
			lines = append(lines, "masteruser "+user)
		}
	}
	return strings.Join(append(lines, o.Config...), "\n") + "\n"
}

// listenConfig returns the settings that every role shares.
func (s *Server) listenConfig() []string {
	port := strconv.Itoa(s.port)
	lines := []string{"bind 127.0.0.1", "daemonize no", "supervised no", `logfile ""`, "dir " + strconv.Quote(s.dir)}
	if !s.o.TLS {
		return append(lines, "port "+port)
	}
	lines = append(lines, "port 0", "tls-port "+port, "tls-replication yes")
	return append(lines, s.tls.config(s.dir, s.o.TLSClientCert)...)
}

// masterCredentials returns the account by which s replicates: its master's, or its own where any node may become the
// master.
func (s *Server) masterCredentials() (user, password string) {
	if s.o.ReplicaOf != nil {
		return s.o.ReplicaOf.control()
	}
	return s.control()
}

// control returns the account by which this package talks to s.
func (s *Server) control() (user, password string) {
	if len(s.o.Users) > 0 {
		return controlUser, s.o.secret
	}
	return "", s.o.Password
}

// aclFile renders the ACL file. The default user comes first, so that one of o.Users may change it.
func (s *Server) aclFile() string {
	access := "nopass"
	if s.o.Password != "" {
		access = ">" + s.o.Password
	}
	byName := map[string]string{"default": "default on " + access + " ~* &* +@all"}
	order := []string{"default"}
	for _, rule := range append(s.o.Users, controlUser+" on >"+s.o.secret+" ~* &* +@all") {
		name, _, _ := strings.Cut(rule, " ")
		if _, known := byName[name]; !known {
			order = append(order, name)
		}
		byName[name] = rule
	}
	var b strings.Builder
	for _, name := range order {
		fmt.Fprintf(&b, "user %s\n", byName[name])
	}
	return b.String()
}
